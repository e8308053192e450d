"""The kernel that decodes and composites at once, and the details of rows, against their plain twins."""

from __future__ import annotations

import io
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from orbit4d.datasets import DatasetWriter, Index, OrbitDataset, WorkError, encode_webp
from orbit4d.datasets.images.codec import decode
from orbit4d.datasets.images.composite import compose
from orbit4d.datasets.index.details import DetailsCache
from orbit4d.datasets.loader.blocks import Blocks
from orbit4d.datasets.loader.planes import clip_planes
from orbit4d.datasets.store.schema import row_cameras


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def webp_with_chunks(pixels):
    """A WebP whose image stands behind a VP8X chunk, as one with a colour profile does."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, exact=True, exif=b"Exif\0\0x")
    return buffer.getvalue()


def laid_out(members, gap=3):
    """(bytes with the members in them, starts, lengths)."""
    data, starts = b"", []
    for member in members:
        data += bytes(gap)
        starts.append(len(data))
        data += member
    return data, np.array(starts, np.int64), np.array([len(m) for m in members], np.int64)


def pixels(rng, n, h, w):
    return rng.integers(0, 256, (n, h, w, 4)).astype(np.uint8)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 40),
    st.integers(1, 70),
    st.lists(st.sampled_from([encode_webp, png, webp_with_chunks]), min_size=1, max_size=5),
    st.tuples(*[st.integers(0, 255)] * 3),
    st.integers(1, 7),
)
def test_planes_are_the_composited_frames_whatever_their_format(seed, h, w, encoders, colour, threads):
    frames = pixels(np.random.default_rng(seed), len(encoders), h, w)
    background = tuple(value / 255 for value in colour)
    data, starts, lengths = laid_out([encode(f) for encode, f in zip(encoders, frames)])
    want = compose(frames, background)
    with ThreadPoolExecutor(2) as pool:
        got = clip_planes(data, starts, lengths, (w, h), background, pool, threads)
    for a, b in zip(got, want):
        np.testing.assert_array_equal(a, b)


def test_planes_name_damaged_misfitting_and_missing_frames():
    frames = pixels(np.random.default_rng(0), 3, 12, 9)
    members = [encode_webp(frame) for frame in frames]
    white = (1.0, 1.0, 1.0)
    data, starts, lengths = laid_out(members)
    with pytest.raises(WorkError, match="damaged data"):
        clip_planes(data, starts, lengths // [1, 2, 1], (9, 12), white)
    blank = laid_out([members[0], members[1][:20] + bytes(len(members[1]) - 20), members[2]])
    with pytest.raises(WorkError, match="damaged header"):
        clip_planes(*blank, (9, 12), white)
    for size in ((12, 9), (8, 12), (9, 11), (108, 1)):
        with pytest.raises(WorkError, match="a frame is 9x12, not"):
            clip_planes(*laid_out(members), size, white)
    data, starts, lengths = laid_out(members)
    with pytest.raises(WorkError, match="too short"):
        clip_planes(data[:-1], starts, lengths, (9, 12), white)
    rgb, alpha = clip_planes(b"", starts[:0], lengths[:0], (9, 12), white)
    assert (rgb.shape, alpha.shape) == ((0, 3, 12, 9), (0, 1, 12, 9))


def test_planes_keep_the_pixels_where_pillow_has_no_libwebp(monkeypatch):
    frames = pixels(np.random.default_rng(1), 2, 5, 6)
    monkeypatch.setattr("orbit4d.datasets.images.codec._libwebp", lambda: None)
    monkeypatch.setattr("orbit4d.datasets.loader.planes.decoder_address", lambda: None)
    got = clip_planes(*laid_out([encode_webp(frame) for frame in frames]), (6, 5), (0.0, 0.5, 1.0))
    for a, b in zip(got, compose(frames, (0.0, 0.5, 1.0))):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(decode(encode_webp(frames[0])), frames[0])


@pytest.fixture(scope="module")
def varied(tmp_path_factory, make_clips):
    """Clips of several lengths and sizes, with passes between them, in two shards."""
    folder = tmp_path_factory.mktemp("details") / "d"
    writer = DatasetWriter(folder, {}, shard_bytes=20_000)
    for k, uid in enumerate(("a", "b", "c", "long-" + "u" * 180)):
        writer.stage(uid, make_clips(uid, n_frames=2 + k, size=8 + 2 * k, orbits=1 + k % 2))
    writer.roll(final=True)
    return folder


def test_details_are_the_row(varied):
    index = Index(varied)
    assert len(index.parts) > 1
    details = DetailsCache(index)
    for number in np.random.default_rng(0).permutation(len(index)):
        row, got = index.row(int(number)), details[int(number)]
        for name in ("uid", "action", "action_index", "orbit", "split", "caption", "shard"):
            assert getattr(got, name) == row[name]
        assert (got.offsets.tolist(), got.lengths.tolist()) == (row["offsets"], row["lengths"])
        assert got.size == (row["width"], row["height"])
        assert got.intrinsics == (row["fl_x"], row["fl_y"], row["cx"], row["cy"])
        assert got.motion_magnitude == row["measures"]["motion_magnitude"]
        np.testing.assert_array_equal(
            got.c2w, np.stack([camera.c2w for camera in row_cameras(row)]).astype(np.float32)
        )
        np.testing.assert_array_equal(got.time, np.array(row["time"], np.float32))
    again = pickle.loads(pickle.dumps(details))
    assert again[0].uid == details[0].uid
    with pytest.raises(IndexError):
        details[len(index)]


def test_details_forget_old_groups_and_stay_right(varied, monkeypatch):
    index = Index(varied)
    details = DetailsCache(index, keep_bytes=1)
    reads = []
    read = index.read_group
    monkeypatch.setattr(index, "read_group", lambda *args: reads.append(args[:2]) or read(*args))
    last = len(index) - 1
    uids = [details[number].uid for number in (0, 0, last, last, 0)]
    assert uids == [index.row(number)["uid"] for number in (0, 0, last, last, 0)]
    assert [args for args in reads if args in ((0, 0), index.place(last)[:2])][:3] == [
        (0, 0),
        index.place(last)[:2],
        (0, 0),
    ]
    keeping = DetailsCache(index)
    reads.clear()
    for number in (0, last, 0, last):
        keeping[number]
    assert len(reads) == 2


def test_blocks_are_used_again_only_when_nothing_looks_at_them():
    blocks = Blocks()
    first = blocks.empty((2, 3, 4))
    assert (first.shape, first.dtype, first.flags.c_contiguous, first.flags.writeable) == (
        (2, 3, 4),
        np.float32,
        True,
        True,
    )
    address = first.ctypes.data
    views = [first[1], first.reshape(6, 4).T, torch.from_numpy(first)[0, 1:], memoryview(first)]
    del first
    while views:
        assert blocks.empty((24,)).ctypes.data != address
        views.pop(0)
    assert address in [block.ctypes.data for block in blocks._free[24]]
    assert blocks.empty((0, 5)).shape == (0, 5)


def test_blocks_keep_to_their_budget():
    blocks = Blocks(keep_bytes=4 * 100)
    held = [blocks.empty((10,)) for _ in range(50)]
    held.clear()
    assert len(blocks._free[10]) == 10
    for size in range(101, 200):
        blocks.empty((size,))
    kept = sum(block.nbytes for free in blocks._free.values() for block in free)
    assert kept == 0 and len(blocks._free) <= 8


def test_samples_that_are_kept_do_not_change(varied):
    data = OrbitDataset(varied)
    kept = [data[i] for i in range(len(data))]
    copies = [{k: v.clone() for k, v in item.items() if torch.is_tensor(v)} for item in kept]
    for _ in range(3):
        for i in range(len(data)):
            data[i]
    for item, copy in zip(kept, copies):
        assert all(torch.equal(item[k], v) for k, v in copy.items())
