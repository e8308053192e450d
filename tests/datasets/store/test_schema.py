"""The schema: documented, pinned, and every published version readable for ever."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from orbit4d.datasets import Index, OrbitDataset, read_clip
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.operations.verify import verify
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
    assert (seen.digest, seen.clips, seen.staged, seen.rejected) == (expected["digest"], 9, 1, 1)
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
