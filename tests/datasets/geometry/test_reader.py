"""`read_geometry`: the names, shapes and types that others rely on, and one line for what is not there."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from orbit4d.datasets import Index, InputError, WorkError, read_clip, read_geometry


def test_the_promised_shapes_and_types(geometry_dataset: Path) -> None:
    found = read_geometry(geometry_dataset, "a", "Run")
    assert found.faces.shape == (12, 3) and found.faces.dtype == np.int64
    assert found.vertices.shape == (8, 8, 3) and found.vertices.dtype == np.float32
    assert found.seconds.shape == (8,) and (np.diff(found.seconds) > 0).all()
    triangle, weights = found.surface_map(2)
    assert triangle.shape == (32, 32) and triangle.dtype == np.int64 and weights.shape == (32, 32, 3)
    flow, visible = found.flow(1, 2)
    assert flow.shape == (32, 32, 2) and visible.shape == (32, 32) and visible.dtype == bool
    assert found.points(0).shape == (32, 32, 3)
    xyz, pixels, seen = found.tracks(7, 3)
    assert (xyz.shape, pixels.shape, seen.shape) == ((7, 8, 3), (7, 8, 2), (7, 8))
    assert found.uid == "a" and found.action == "Run"
    assert found.clips == [("dynamic_orbit", 0), ("front_view", 0), ("static_orbit", 0)]


def test_its_own_methods_are_those_of_the_dynamic_orbit(geometry_dataset: Path) -> None:
    found = read_geometry(geometry_dataset, "a")
    clip = found.clip("dynamic_orbit", 0)
    np.testing.assert_array_equal(found.surface_map(3)[0], clip.surface_map(3)[0])
    np.testing.assert_array_equal(found.flow(3, 4)[0], clip.flow(3, 4)[0])
    np.testing.assert_array_equal(found.points(3), clip.points(3))
    np.testing.assert_array_equal(found.tracks(5, 1)[0], clip.tracks(5, 1)[0])
    front = found.clip("front_view")
    assert not np.array_equal(front.surface_map(3)[0], clip.surface_map(3)[0])
    # Across clips of one action: same time and camera at frame 0, so nothing moves.
    flow, visible = found.flow(0, 0, other=front)
    assert np.abs(flow).max() < 1e-6
    np.testing.assert_array_equal(visible, clip.triangles(0) >= 0)


def test_a_static_orbit_stands_still(geometry_dataset: Path) -> None:
    static = read_geometry(geometry_dataset, "b").clip("static_orbit")
    assert (static.scene_flow(0, 5) == 0).all()
    xyz = static.tracks(9)[0]
    np.testing.assert_array_equal(xyz[:, 0], xyz[:, 5])


@pytest.mark.parametrize(
    ("uid", "action", "said"),
    [
        ("c", "Run", r"refused: geometry:topology \(for a test\)"),
        ("d", "", "--add-passes geometry"),
        ("nobody", "", "no asset 'nobody'"),
        ("a", "Fly", "no action 'Fly'"),
    ],
)
def test_what_is_not_there_is_one_line(geometry_dataset: Path, uid: str, action: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        read_geometry(geometry_dataset, uid, action)
    assert "\n" not in str(caught.value)


def test_a_clip_that_is_not_there_names_those_that_are(geometry_dataset: Path) -> None:
    with pytest.raises(InputError, match="it has dynamic_orbit 0, front_view 0"):
        read_geometry(geometry_dataset, "a").clip("dynamic_orbit", 3)


def test_an_open_index_and_its_pickled_copy_read_the_same(geometry_dataset: Path) -> None:
    index = Index(geometry_dataset)
    copy = pickle.loads(pickle.dumps(index))
    one, other = read_geometry(index, "b", 0), read_geometry(copy, "b", 0)
    np.testing.assert_array_equal(one.vertices, other.vertices)


def test_clips_read_as_they_did(geometry_dataset: Path, make_clips) -> None:
    """Geometry is no pass of a clip: its bytes and its checksum stay those without."""
    clip = read_clip(geometry_dataset, "a", "Run")
    before = next(c for c in make_clips("a") if c.rig == "dynamic_orbit")
    assert clip.sha256 == before.sha256 and not clip.passes


def test_damaged_geometry_is_refused(make_geometry_dataset, tmp_path: Path) -> None:
    out = make_geometry_dataset(tmp_path / "d", ("z",))
    shard = next((out / "passes" / "shards").iterdir())
    data = bytearray(shard.read_bytes())
    data[900] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(WorkError, match="orbit4d verify"):
        read_geometry(out, "z").vertices  # noqa: B018
