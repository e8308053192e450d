"""Depth files in every format, what is refused, and a network's disparity brought to scale."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.guided.depth.files import read_depth, read_depths
from orbit4d.model.guided.depth.network import centred_depth, estimate_depth, fitted_depth


@pytest.fixture
def depth(seed):
    found = np.random.default_rng(seed).uniform(0.5, 4.0, (37, 23)).astype(np.float32)
    found[3, 5] = np.inf
    return found


def write_exr(path, channels, compression):
    """Scanlines of float32 or float16 channels by name: the format as its specification words it."""
    names = sorted(channels)
    height, width = channels[names[0]].shape

    def attribute(name, kind, value):
        return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value)) + value

    kinds = {n: 1 if channels[n].dtype == np.float16 else 2 for n in names}
    listed = b"".join(n.encode() + b"\0" + struct.pack("<iiii", kinds[n], 0, 1, 1) for n in names)
    box = struct.pack("<iiii", 0, 0, width - 1, height - 1)
    head = struct.pack("<ii", 20000630, 2) + attribute("channels", "chlist", listed + b"\0")
    head += attribute("compression", "compression", bytes([compression]))
    head += attribute("dataWindow", "box2i", box) + b"\0"
    lines = {0: 1, 2: 1, 3: 16}[compression]
    blocks = []
    for y in range(0, height, lines):
        raw = b"".join(channels[n][row].tobytes() for row in range(y, min(y + lines, height)) for n in names)
        if compression:
            values = np.frombuffer(raw, np.uint8)
            mixed = np.concatenate([values[0::2], values[1::2]]).astype(np.int64)
            mixed[1:] = (mixed[1:] - mixed[:-1] + 128) & 255
            packed = zlib.compress(mixed.astype(np.uint8).tobytes())
            raw = packed if len(packed) < len(raw) else raw
        blocks.append(struct.pack("<ii", y, len(raw)) + raw)
    at = len(head) + 8 * len(blocks)
    offsets = []
    for block in blocks:
        offsets.append(at)
        at += len(block)
    path.write_bytes(head + struct.pack(f"<{len(blocks)}Q", *offsets) + b"".join(blocks))


def test_every_format_gives_the_depth_back(depth, tmp_path):
    np.save(tmp_path / "a.npy", depth)
    assert np.array_equal(read_depth(tmp_path / "a.npy"), depth)
    (tmp_path / "a.pfm").write_bytes(b"Pf\n23 37\n-1.0\n" + depth[::-1].tobytes())
    assert np.array_equal(read_depth(tmp_path / "a.pfm"), depth)
    (tmp_path / "b.pfm").write_bytes(b"Pf\n23 37\n1.0\n" + depth[::-1].astype(">f4").tobytes())
    assert np.array_equal(read_depth(tmp_path / "b.pfm"), depth)
    steps = np.where(np.isfinite(depth), np.rint(depth * 1000), 0).astype(np.uint16)
    Image.fromarray(steps).save(tmp_path / "a.png")
    found = read_depth(tmp_path / "a.png")
    assert np.array_equal(np.isinf(found), np.isinf(depth))
    assert np.allclose(found[np.isfinite(depth)], depth[np.isfinite(depth)], atol=0.0005 + 1e-6)
    assert read_depth(tmp_path / "a.png", 0.002)[0, 0] == pytest.approx(2 * found[0, 0])


@pytest.mark.parametrize("compression", [0, 2, 3])
def test_exr_takes_the_channel_of_depth(depth, tmp_path, compression):
    smooth = np.linspace(0, 1, depth.size).reshape(depth.shape).astype(np.float16)
    write_exr(tmp_path / "a.exr", {"A": smooth, "R": smooth, "Z": depth}, compression)
    assert np.array_equal(read_depth(tmp_path / "a.exr"), depth)
    write_exr(tmp_path / "r.exr", {"G": depth, "R": smooth}, compression)
    assert np.array_equal(read_depth(tmp_path / "r.exr"), smooth.astype(np.float32))
    write_exr(tmp_path / "x.exr", {"A": smooth}, compression)
    with pytest.raises(InputError, match=r"no channel Z"):
        read_depth(tmp_path / "x.exr")


def test_other_sizes_numbers_and_values_are_refused_in_one_line(depth, tmp_path):
    folder = tmp_path / "depth"
    folder.mkdir()
    with pytest.raises(InputError, match="no depth"):
        read_depths(folder, [(23, 37)])
    np.save(folder / "10.npy", depth + 1)
    np.save(folder / "9.npy", depth)
    maps = read_depths(folder, [(23, 37)] * 2)
    assert np.array_equal(maps[0], depth), "natural order"
    with pytest.raises(InputError, match="2 depth maps for 3 images"):
        read_depths(folder, [(23, 37)] * 3)
    with pytest.raises(InputError, match=r"23x37.*23x36"):
        read_depths(folder, [(23, 37), (23, 36)])
    for bad, words in ((np.nan, "1 values are NaN"), (-1.0, "1 values are negative")):
        broken = depth.copy()
        broken[0, 0] = bad
        np.save(folder / "9.npy", broken)
        with pytest.raises(InputError, match=words):
            read_depths(folder, [(23, 37)] * 2)
    np.save(folder / "9.npy", np.full_like(depth, np.inf))
    with pytest.raises(InputError, match="no value is finite"):
        read_depths(folder, [(23, 37)] * 2)
    for name, data in (("a.exr", b"no"), ("a.pfm", b"Pf\n1 1\n"), ("a.npy", b"no"), ("a.txt", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError):
            read_depth(tmp_path / name)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "rgb.png")
    with pytest.raises(InputError, match="16 bits"):
        read_depth(tmp_path / "rgb.png")


def test_disparity_is_scaled_to_the_centre_and_fitted_to_what_is_known(depth):
    true = np.where(np.isfinite(depth), depth, 2.0)[None].astype(np.float32)
    object_ = np.zeros(true.shape, bool)
    object_[:, 10:20, 5:15] = True
    found = centred_depth(7.0 / true, 1.7, object_)
    assert np.median(found[object_]) == pytest.approx(1.7, rel=1e-5)
    assert np.allclose(found / true, found[0, 0, 0] / true[0, 0, 0], rtol=1e-5)
    known = np.full_like(true, np.inf)
    known[:, ::3] = true[:, ::3]
    known[:, 0, :2] *= 3.0  # outliers
    assert np.allclose(fitted_depth((1 / true - 0.05) / 0.4, known), true, rtol=1e-3)
    with pytest.raises(InputError, match="falls"):
        fitted_depth(true, true)
    with pytest.raises(InputError, match="at least two"):
        fitted_depth(true, np.full_like(true, np.inf))


@pytest.mark.parametrize("kind", ["relative", "metric"])
def test_depth_anything_runs_from_a_folder(tmp_path, kind):
    from transformers import (
        DepthAnythingConfig,
        DepthAnythingForDepthEstimation,
        Dinov2Config,
        DPTImageProcessor,
    )

    backbone = Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=56, patch_size=14,
        out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=16, neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8, head_hidden_size=4, depth_estimation_type=kind, max_depth=10,
    )  # fmt: skip
    DepthAnythingForDepthEstimation(config).save_pretrained(tmp_path / "model")
    DPTImageProcessor(
        size={"height": 56, "width": 56}, ensure_multiple_of=14, keep_aspect_ratio=False
    ).save_pretrained(tmp_path / "model")
    frames = np.random.default_rng(0).random((2, 40, 30, 3)).astype(np.float32)
    found = estimate_depth(str(tmp_path / "model"), frames)
    assert found.values.shape == (2, 40, 30) and found.metric == (kind == "metric")
    with pytest.raises(InputError, match="--depth-model"):
        estimate_depth(str(tmp_path / "absent"), frames)
