"""Geometry in training samples: shapes, batches, what is left out, the sampler, sizes."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from orbit4d.datasets import InputError, OrbitDataset, OrbitLoader, read_geometry
from orbit4d.datasets.loader.surfaces import KINDS

SHAPES = {
    "flow_dynamic": (7, 2, 32, 32),
    "flow_visible_dynamic": (7, 1, 32, 32),
    "scene_flow_dynamic": (7, 3, 32, 32),
    "tracks_dynamic": (20, 8, 2),
    "tracks_xyz_dynamic": (20, 8, 3),
    "tracks_visible_dynamic": (20, 8),
    "pointmap_dynamic": (8, 3, 32, 32),
    "pointmap_camera_dynamic": (8, 3, 32, 32),
    "pointmap_first_dynamic": (8, 3, 32, 32),
    "depth_dynamic": (8, 1, 32, 32),
    "normal_dynamic": (8, 3, 32, 32),
    "nocs_dynamic": (8, 3, 32, 32),
    "object_dynamic": (8, 1, 32, 32),
    "material_dynamic": (8, 1, 32, 32),
    "triangle_dynamic": (8, 1, 32, 32),
}


def test_every_kind_has_its_shape_for_every_clip(geometry_dataset: Path) -> None:
    data = OrbitDataset(geometry_dataset, geometry=KINDS, track_points=20)
    item = data[0]
    for key, shape in SHAPES.items():
        for clip in ("dynamic", "static", "front"):
            found = item[key.replace("dynamic", clip)]  # type: ignore[literal-required]
            assert tuple(found.shape) == shape, key
    assert item["flow_visible_dynamic"].dtype == torch.bool  # type: ignore[typeddict-item]
    assert item["triangle_dynamic"].dtype == torch.int64  # type: ignore[typeddict-item]
    true = read_geometry(geometry_dataset, data.uids[0])
    np.testing.assert_array_equal(item["flow_dynamic"][3].permute(1, 2, 0), true.flow(3, 4)[0])  # type: ignore[typeddict-item]
    np.testing.assert_array_equal(item["pointmap_dynamic"][2].permute(1, 2, 0), true.points(2))  # type: ignore[typeddict-item]


def test_samples_without_geometry_are_left_out_and_counted(geometry_dataset: Path) -> None:
    data = OrbitDataset(geometry_dataset, geometry=("flow",))
    assert data.uids == ["a", "b"]
    assert data.left_out == {"geometry:topology": 1, "not rendered": 1}
    plain = OrbitDataset(geometry_dataset)
    assert len(plain) == 4 and plain.left_out == {} and "flow_dynamic" not in plain[0]


def test_a_dataset_without_any_is_one_line(synthetic_dataset: Path) -> None:
    with pytest.raises(InputError, match=r"no sample has geometry \(not rendered 8\)"):
        OrbitDataset(synthetic_dataset, geometry=("flow",))
    assert "geometry" not in OrbitDataset(synthetic_dataset)[0]


@pytest.mark.parametrize("asked", [("flows",), ("flow", "flow"), "speed"])
def test_unknown_and_doubled_kinds_are_refused(geometry_dataset: Path, asked: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="geometry="):
        OrbitDataset(geometry_dataset, geometry=asked)


def test_a_kind_that_is_asked_for_as_a_pass_too_is_refused(geometry_dataset: Path) -> None:
    with pytest.raises(InputError):
        OrbitDataset(geometry_dataset, geometry=("depth",), passes=("depth",))


def test_batches_are_collated_by_workers_too(geometry_dataset: Path) -> None:
    data = OrbitDataset(geometry_dataset, geometry=("flow", "tracks"), track_points=20)
    data = pickle.loads(pickle.dumps(data))
    batch = next(iter(OrbitLoader(data, batch_size=2, shuffle=False)))
    assert batch["flow_dynamic"].shape == (2, 7, 2, 32, 32)
    assert batch["tracks_visible_front"].shape == (2, 20, 8)


def test_tracks_change_with_the_epoch_and_with_nothing_else(geometry_dataset: Path) -> None:
    data = OrbitDataset(geometry_dataset, geometry="tracks", track_points=20)
    first = data[0]["tracks_dynamic"]  # type: ignore[typeddict-item]
    assert torch.equal(data[0]["tracks_dynamic"], first)  # type: ignore[typeddict-item]
    data.set_epoch(1)
    assert not torch.equal(data[0]["tracks_dynamic"], first)  # type: ignore[typeddict-item]


def test_the_sampler_draws_by_its_seed(geometry_dataset: Path) -> None:
    data = OrbitDataset(geometry_dataset)
    xyz, pixels, visible = data.tracks(0, 30, seed=2)
    assert (xyz.shape, pixels.shape, visible.shape) == ((30, 8, 3), (30, 8, 2), (30, 8))
    assert visible.dtype == torch.bool and torch.equal(data.tracks(0, 30, seed=2)[0], xyz)
    assert data.tracks(0, 30, on="pixels", clip="front", frame=4)[2][:, 4].all()
    with pytest.raises(InputError, match="refused"):
        data.tracks(data.uids.index("c"), 3)


def test_another_size_is_drawn_for_that_size(geometry_dataset: Path) -> None:
    """Flow and pixels are those of the delivered image, which is twice as wide."""
    small = OrbitDataset(geometry_dataset, geometry=("flow", "tracks"), track_points=20)[0]
    large = OrbitDataset(geometry_dataset, geometry=("flow", "tracks"), track_points=20, size=64)[0]
    assert large["flow_dynamic"].shape == (7, 2, 64, 64)  # type: ignore[typeddict-item]
    torch.testing.assert_close(large["tracks_dynamic"], 2 * small["tracks_dynamic"], atol=1e-3, rtol=0)  # type: ignore[typeddict-item]
    hit = small["flow_visible_dynamic"][2, 0]  # type: ignore[typeddict-item]
    ratio = large["flow_dynamic"][2].abs().mean() / small["flow_dynamic"][2].abs().mean()  # type: ignore[typeddict-item]
    assert hit.any() and abs(float(ratio) - 2.0) < 0.2
