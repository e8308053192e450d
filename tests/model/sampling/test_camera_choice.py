"""Cameras of `orbit4d multicam` that stand too near or are no rotations: refused by name, just inside not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from orbit4d.datasets.cameras.camera import Camera, orbit_c2w
from orbit4d.datasets.cameras.transforms import transforms_record
from orbit4d.datasets.cameras.unreal import from_c2w, matrix_text
from orbit4d.datasets.core.errors import InputError
from orbit4d.model.sampling.camera_choice import choose_cameras

Layout = Callable[..., Path]
SIZE, FRAMES = (16, 16), 5
FAR = orbit_c2w(0, 10, 2.0)


def transforms(file: Path, *poses: np.ndarray) -> Path:
    cameras = [Camera(pose, 16, 16, 8, 8, *SIZE) for pose in poses]
    names = [f"cam{i + 1:02d}.png" for i in range(len(poses))]
    file.write_text(json.dumps(transforms_record(cameras, names, [0.0] * len(poses))))
    return file


def unreal(file: Path, *poses: np.ndarray) -> Path:
    """camera_extrinsics.json; the cameras look at a point 10 m off the world's origin."""
    texts = [matrix_text(from_c2w(pose, [1000.0, 0.0, 0.0])) for pose in poses]
    file.write_text(json.dumps({f"frame{f}": {f"cam{i + 1:02d}": t for i, t in enumerate(texts)}
                                for f in range(FRAMES)}))  # fmt: skip
    return file


def chosen(file: Path) -> int:
    return len(choose_cameras("", str(file), "", FRAMES, SIZE))


@pytest.mark.parametrize("layout", [transforms, unreal])
def test_a_camera_too_near(tmp_path: Path, layout: Layout) -> None:
    assert chosen(layout(tmp_path / "fits.json", FAR, orbit_c2w(120, 0, 0.11))) == 2
    near = layout(tmp_path / "near.json", FAR, orbit_c2w(120, 0, 0.09))
    with pytest.raises(InputError, match=r"near\.json: cam02: a camera less than 0\.1 unit from the target"):
        chosen(near)


@pytest.mark.parametrize("layout", [transforms, unreal])
@pytest.mark.parametrize("kind", ["scaled", "sheared"])
def test_a_rotation_that_is_none(tmp_path: Path, layout: Layout, kind: str) -> None:
    def bent(amount: float) -> np.ndarray:
        pose = orbit_c2w(90, 0, 2.0)
        pose[:3, 0] += amount * (pose[:3, 0] if kind == "scaled" else pose[:3, 1])
        return pose

    # R R^T is off by about twice the scale, by once the shear: 1e-3 lies between these.
    assert chosen(layout(tmp_path / "fits.json", FAR, bent(3e-4))) == 2
    with pytest.raises(InputError, match=r"none\.json: cam02: .*(no rotation|not orthonormal) to 0\.001"):
        chosen(layout(tmp_path / "none.json", FAR, bent(3e-3)))


@pytest.mark.parametrize("layout", [transforms, unreal])
def test_a_mirrored_camera(tmp_path: Path, layout: Layout) -> None:
    mirrored = orbit_c2w(90, 0, 2.0)
    mirrored[:3, 0] *= -1
    file = layout(tmp_path / "mirrored.json", FAR, mirrored)
    with pytest.raises(InputError, match=r"mirrored\.json: cam02: (no rotation|a mirrored camera)"):
        chosen(file)
