"""The schema: documented, pinned, and every published version readable for ever."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from orbit4d.datasets import DatasetWriter, Index, InputError, OrbitDataset, read_clip
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.index.where import matching
from orbit4d.datasets.loader.dataset import LIGHT_STRIDE
from orbit4d.datasets.operations.verify import verify
from orbit4d.datasets.store.clip import RIGS, sample_name
from orbit4d.datasets.store.digest import digest_lines
from orbit4d.datasets.store.parts import merge_small, read_part
from orbit4d.datasets.store.rejections import Rejection, read
from orbit4d.datasets.store.schema import INDEX_SCHEMA, REJECTED_SCHEMA, SCHEMA_VERSION

FIXTURES = Path(__file__).parents[1] / "fixtures"


def test_every_column_says_what_it_is_also_in_the_file(synthetic_dataset):
    for field in [*INDEX_SCHEMA, *REJECTED_SCHEMA, *INDEX_SCHEMA.field("measures").type]:
        assert field.metadata[b"description"], field.name
    part = next((synthetic_dataset / "index").iterdir())
    stored = pq.read_schema(part)
    assert stored.field("c2w").metadata[b"description"].startswith(b"camera-to-world")
    assert stored.metadata[b"orbit4d.schema_version"] == str(SCHEMA_VERSION).encode()


def test_a_changed_schema_needs_a_new_version_and_a_new_fixture():
    assert (FIXTURES / f"v{SCHEMA_VERSION}").is_dir()
    text = "\n".join(
        f"{field.name}: {field.type}" for schema in (INDEX_SCHEMA, REJECTED_SCHEMA) for field in schema
    )
    pinned = (FIXTURES / f"v{SCHEMA_VERSION}.schema.txt").read_text()
    assert text + "\n" == pinned


@pytest.mark.parametrize("version", sorted(p.name for p in FIXTURES.glob("v*") if p.is_dir()))
def test_published_versions_load(version, tmp_path):
    # A copy: nothing may ever write to the fixture.
    folder = Path(shutil.copytree(FIXTURES / version, tmp_path / version))
    expected = json.loads((FIXTURES / f"{version}.json").read_text())
    seen = verify(str(folder))
    assert seen.findings == []
    n_clips = {"v1": 9}.get(version, 13)
    assert (seen.digest, seen.clips, seen.staged, seen.rejected) == (expected["digest"], n_clips, 1, 1)
    for name, sha256 in expected["pixels_sha256"].items():
        uid, action_index, rig = name.split()
        clip = read_clip(folder, uid, int(action_index), rig)
        assert hashlib.sha256(clip.pixels().tobytes()).hexdigest() == sha256
    clip = read_clip(folder, "fox", "Jump", "dynamic_orbit")
    assert clip.measures == {"motion_geometry": 0.125, "motion_magnitude": 0.004, "sparkle": 7.5}
    assert clip.renderer == {"engine": "none", "samples": 4, "version": "1.0", "noise": 0.5}
    assert (clip.caption, clip.window, clip.centre) == (
        "a fox, which “Jump”s",
        (0.25, 2.25),
        (0.1, -0.2, 0.3),
    )
    assert clip.passes["depth"][0].startswith(b"\x93NUMPY")
    assert read(Store(folder)) == [
        Rejection("cat", "Sit", "curate", "motion:too_little", "0.0001", 1, 2, "tail\nof log")
    ]
    data = OrbitDataset(folder, where="motion_magnitude = 0.004", require=("dynamic", "static", "front"))
    assert [data[i]["action"] for i in range(len(data))] == ["", "Run", "Jump"]
    assert data[0]["dynamic"].shape == (3, 3, 4, 6)
    np.testing.assert_allclose(data[0]["time"].numpy(), [0.0, 0.5, 1.0])
    assert Index(folder).manifest.config == {"frames": 3, "lights": {"key": [3, 4, 5]}}


def test_version_2_knows_lights_and_synchronised_cameras():
    folder = FIXTURES / "v2"
    dark, lit = (read_clip(folder, "ant", rig="sync_2", orbit=1, light=light) for light in (0, 1))
    assert dark.key == ("ant", 0, "sync_2", 1) and lit.key == ("ant", 0, "sync_2", 1, 1)
    assert sample_name(lit.key) == "ant__a0__sync_2__o1__l1"
    for clip in (dark, lit):
        assert (clip.camera_label, clip.rig_draw, clip.metres_per_unit) == ("cam02", 0, 2.0)
        assert (clip.lens_mm, clip.sensor_mm) == (24.0, 23.76)
        assert clip.camera_draw == {"kind": "static", "roll_deg": 2.5}
    assert dark.lighting == {} and lit.lighting == {"environment": "city.exr", "rotation_deg": 90.0}
    with pytest.raises(InputError, match="has no sync_2 1 light 2 of action"):
        read_clip(folder, "ant", rig="sync_2", orbit=1, light=2)
    index = Index(folder)
    assert set(np.flatnonzero(index.keys.light)) == set(np.flatnonzero(matching(index, "light = 1")))
    assert matching(index, "camera_label = 'cam02'").sum() == 2


def test_a_digest_line_names_a_light_only_where_there_is_one():
    table = read_part(Store(FIXTURES / "v2"), "index/000000-fbe44eb5.parquet")
    orbits = [json.loads(line)[4] for line in digest_lines(table) if json.loads(line)[0] == "ant"]
    assert sorted(map(str, orbits)) == ["0", "0__l1", "1", "1__l1"]
    assert all(isinstance(n, int) for n in orbits if "l" not in str(n))


def test_a_dataset_of_version_1_goes_on_as_one_of_the_present_version(tmp_path, synthetic_dataset):
    """Old parts stay as they are, new ones stand beside them, and merging makes them alike."""
    folder = Path(shutil.copytree(FIXTURES / "v1", tmp_path / "v1"))
    before, config = Store(folder).read("dataset.json"), {"frames": 3, "lights": {"key": [3, 4, 5]}}
    writer = DatasetWriter(folder, config)
    assert json.loads(Store(folder).read("dataset.json"))["schema_version"] == SCHEMA_VERSION
    assert json.loads(before)["schema_version"] == 1
    lit = replace(read_clip(FIXTURES / "v1", "bee", 0), uid="moth", light=3, lighting={"strength": 2.0})
    writer.stage("moth", [lit])
    writer.roll(final=True)
    assert read_clip(folder, "moth", light=3) == lit
    assert read_clip(folder, "bee") == read_clip(FIXTURES / "v1", "bee")
    assert len(Index(folder).row(0)) == len(INDEX_SCHEMA)
    digest = writer.digest()
    assert merge_small(writer.store, force=True) == 2
    assert verify(str(folder)).findings == [] and writer.digest() == digest
    assert read_clip(folder, "moth", light=3) == lit and read_clip(folder, "bee").light == 0


def test_two_lights_of_one_orbit_are_two_samples(tmp_path):
    clips = [read_clip(FIXTURES / "v1", "fox", "Run", rig) for rig in RIGS]
    writer = DatasetWriter(tmp_path / "d", {})
    writer.stage("fox", [replace(clip, light=n, seconds=(float(n),) * 3) for clip in clips for n in (0, 2)])
    writer.roll(final=True)
    data = OrbitDataset(tmp_path / "d", require=("dynamic", "static", "front"))
    assert [item["light"] for item in data] == [0, 2]
    for name in ("dynamic", "static", "front"):
        rows = [data.index.row(int(row)) for row in getattr(data.samples, name)]
        assert [row["light"] for row in rows] == [0, 2]
    assert list(data.sources()) == [("fox", 0, 0), ("fox", 0, 2 * LIGHT_STRIDE)]
