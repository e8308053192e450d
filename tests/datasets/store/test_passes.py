"""Stored passes and sample records: from the writer through shards, loader, exports and merges."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from orbit4d.datasets import DatasetWriter, InputError, OrbitDataset, export_dataset, read_clip
from orbit4d.datasets.operations.select import merge, select_copy, select_view
from orbit4d.datasets.operations.verify import verify
from orbit4d.datasets.store.passes import pass_planes


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def with_passes(clip, names=("depth", "normal", "mask")):
    """The clip with passes that say which clip and frame they belong to."""
    n, h = len(clip.frames), clip.cameras[0].h
    rng = np.random.default_rng(list(f"{clip.uid}{clip.rig}{clip.orbit}".encode()))
    depth = rng.uniform(1, 3, (n, h, h)).astype(np.float32)
    depth[:, : h // 2] = np.inf
    arrays = {
        "depth": depth,
        "normal": rng.normal(size=(n, h, h, 3)).astype(np.float16),
        "mask": rng.integers(0, 40_000, (n, h, h)).astype(np.uint16),
    }
    passes = {name: tuple(npy(frame) for frame in arrays[name]) for name in names}
    return replace(clip, passes=passes), {name: arrays[name] for name in names}


@pytest.fixture
def stored(tmp_path, make_clips):
    """(dataset of two assets with passes, (uid, rig) -> arrays)."""
    writer = DatasetWriter(tmp_path / "stored", {"frames": 4})
    arrays = {}
    for uid in ("owl", "yak"):
        clips = []
        for clip in make_clips(uid, n_frames=4, size=16, caption=f"a {uid} of felt", license="CC-BY-4.0"):
            made, kept = with_passes(clip)
            clips.append(made)
            arrays[uid, clip.rig] = kept
        writer.stage(uid, clips)
    writer.roll(final=True)
    return tmp_path / "stored", arrays


def test_the_loader_delivers_the_passes_it_is_asked_for(stored):
    path, arrays = stored
    dataset = OrbitDataset(path, passes=("depth", "normal", "mask"))
    plain = OrbitDataset(path)
    assert len(dataset) == 2
    for item, bare in zip(dataset, plain):
        for name, rig in (("dynamic", "dynamic_orbit"), ("static", "static_orbit"), ("front", "front_view")):
            kept = arrays[item["uid"], rig]
            assert item[f"depth_{name}"].dtype == torch.float32 and item[f"mask_{name}"].dtype == torch.int64
            np.testing.assert_array_equal(item[f"depth_{name}"][:, 0], kept["depth"])
            np.testing.assert_array_equal(item[f"mask_{name}"][:, 0], kept["mask"])
            np.testing.assert_array_equal(item[f"normal_{name}"].permute(0, 2, 3, 1), kept["normal"])
        assert not any(key.startswith(("depth", "normal", "mask")) for key in bare)
        assert all(torch.equal(item[key], bare[key]) for key in ("dynamic", "static", "front", "c2w"))
    only = OrbitDataset(path, passes="depth")[0]
    assert "depth_dynamic" in only and "mask_dynamic" not in only


def test_passes_are_resized_without_mixing_values(stored):
    path, arrays = stored
    item = OrbitDataset(path, passes=("depth", "mask"), size=(8, 24))[1]
    assert item["depth_dynamic"].shape == (4, 1, 24, 8) == item["alpha_dynamic"].shape
    kept = arrays[item["uid"], "dynamic_orbit"]
    assert set(item["mask_dynamic"].unique().tolist()) <= set(kept["mask"].ravel().tolist())
    finite = np.isfinite(item["depth_dynamic"][:, 0].numpy())
    assert not finite[:, :12].any() and finite[:, 12:].all()
    # Half the width: pixel centres of the small image fall on every second column.
    np.testing.assert_array_equal(
        pass_planes([npy(np.arange(8)[None])], "mask", (4, 1))[0, 0, 0], [1, 3, 5, 7]
    )


def test_a_pass_that_is_not_stored_is_refused_at_once(stored, synthetic_dataset):
    path, _ = stored
    with pytest.raises(InputError, match="no pass 'flow' is stored \\(stored: depth, mask, normal\\)"):
        OrbitDataset(path, passes=("flow",))
    with pytest.raises(InputError, match=r"stored: none.*render with --passes depth"):
        OrbitDataset(synthetic_dataset, passes=("depth",))
    with pytest.raises(InputError, match="twice"):
        OrbitDataset(path, passes=("depth", "depth"))


def test_a_clip_gives_its_passes_as_arrays(stored):
    path, arrays = stored
    clip = read_clip(path, "yak", "Run", "front_view")
    for name, array in arrays["yak", "front_view"].items():
        found = clip.pass_arrays(name)
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
    with pytest.raises(InputError, match="no pass 'ao'"):
        clip.pass_arrays("ao")


def test_exports_hold_the_passes(stored, tmp_path, capsys):
    path, arrays = stored
    export_dataset(str(path), str(tmp_path / "frames"), "frames")
    export_dataset(str(path), str(tmp_path / "nerf"), "nerfstudio")
    sample = "owl__a0__dynamic_orbit__o0"
    kept = arrays["owl", "dynamic_orbit"]
    for name, array in kept.items():
        found = [np.load(tmp_path / "frames" / sample / name / f"{i:03d}.npy") for i in range(4)]
        np.testing.assert_array_equal(np.stack(found), array)
    record = json.loads((tmp_path / "nerf" / sample / "transforms.json").read_text())
    assert set(record["orbit4d"]["passes"]) == set(kept)
    assert "view axis" in record["orbit4d"]["passes"]["depth"]
    for i, frame in enumerate(record["frames"]):
        depth = np.load(tmp_path / "nerf" / sample / frame["depth_file_path"])
        np.testing.assert_array_equal(depth, np.where(np.isfinite(kept["depth"][i]), kept["depth"][i], 0))
    capsys.readouterr()
    export_dataset(str(path), str(tmp_path / "published"), "diffusion4d")
    assert "no place for the passes depth, mask, normal" in capsys.readouterr().err


def records(path):
    """Sample -> its record, of all shards; frames keep their names."""
    found = {}
    for shard in sorted((path / "shards").iterdir()):
        with tarfile.open(shard) as tar:
            for member in tar:
                sample, _, rest = member.name.partition(".")
                if rest == "json":
                    found[sample] = json.loads(tar.extractfile(member).read())
                else:
                    assert rest.rpartition(".")[2] in ("webp", "npy")
    return found


def test_each_sample_says_what_it_is(stored):
    path, _ = stored
    found = records(path)
    assert len(found) == 6
    record = found["yak__a0__static_orbit__o0"]
    clip = read_clip(path, "yak", 0, "static_orbit")
    np.testing.assert_array_equal(record["c2w"], [camera.c2w for camera in clip.cameras])
    assert (record["time"], record["seconds"]) == (list(clip.time), list(clip.seconds))
    assert (record["caption"], record["license"]) == ("a yak of felt", "CC-BY-4.0")
    assert (record["fl_x"], record["w"], record["rig"]) == (clip.cameras[0].fl_x, 16, "static_orbit")
    assert set(record["passes"]) == {"depth", "normal", "mask"}


def test_webdataset_reads_frames_and_record_together(stored):
    webdataset = pytest.importorskip("webdataset")
    path, _ = stored
    shards = [str(shard) for shard in (path / "shards").iterdir()]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert len(samples) == 6
    for sample in samples:
        assert {"000.webp", "003.webp", "depth.000.npy", "json"} <= set(sample)
        assert json.loads(sample["json"])["uid"] == sample["__key__"].partition("__")[0]


def test_copies_and_merges_keep_records_and_digest(stored, tmp_path, make_clips):
    path, _ = stored
    before = verify(str(path))
    assert before.ok
    select_copy(str(path), str(tmp_path / "copy"), where="uid = 'yak'")
    select_view(str(path), str(tmp_path / "view"), where="uid = 'owl'")
    assert records(tmp_path / "copy") == {k: v for k, v in records(path).items() if k.startswith("yak")}
    merge([str(tmp_path / "copy"), str(tmp_path / "view")], str(tmp_path / "both"))
    after = verify(str(tmp_path / "both"))
    assert after.ok and after.digest == before.digest
    assert records(tmp_path / "both") == records(path)


def test_a_flipped_byte_in_a_record_is_damage(stored):
    path, _ = stored
    [shard] = (path / "shards").iterdir()
    data = bytearray(shard.read_bytes())
    at = data.index(b"of felt")
    data[at] ^= 1
    shard.write_bytes(data)
    seen = verify(str(path))
    assert [finding.file for finding in seen.findings] == [f"shards/{shard.name}"]
    assert "checksum" in seen.findings[0].what


def test_shards_without_records_are_as_good(tmp_path):
    """What was written before records were: the published fixture of schema version 1."""
    old = Path(__file__).parents[1] / "fixtures" / "v1"
    assert records(old) == {}
    seen = verify(str(old))
    assert seen.ok and seen.clips
    select_copy(str(old), str(tmp_path / "new"))
    copied = verify(str(tmp_path / "new"))
    assert copied.ok and copied.digest == seen.digest
    assert len(records(tmp_path / "new")) == seen.clips


def test_a_number_that_json_cannot_say_is_null(tmp_path, make_clips):
    clips = [replace(clip, measures={"odd": float("nan")}) for clip in make_clips("gnu", n_frames=2, size=16)]
    writer = DatasetWriter(tmp_path / "d", {"frames": 2})
    writer.stage("gnu", clips)
    writer.roll(final=True)
    assert {record["measures"]["odd"] for record in records(tmp_path / "d").values()} == {None}
