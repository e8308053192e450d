"""Images of distorted lenses become those of a pinhole with the same intrinsics."""

from __future__ import annotations

import numpy as np
import pytest

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.cameras.lens import Lens, undistorted

CAMERA = Camera(np.eye(4), 60.0, 63.0, 49.0, 38.0, 96, 80)


def disc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Straight RGBA of four discs at places of the plane at depth 1."""
    out = np.zeros((*x.shape, 4), np.float64)
    for (cx, cy), colour in zip(
        ((-0.4, -0.3), (0.42, -0.25), (0.1, 0.38), (0, 0)), np.eye(4)[:, :3] * 200 + 40
    ):
        out[np.hypot(x - cx, y - cy) < 0.13] = [*colour, 255]
    return out.astype(np.uint8)


def plane(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    return np.meshgrid(
        (np.arange(camera.w) + 0.5 - camera.cx) / camera.fl_x,
        (np.arange(camera.h) + 0.5 - camera.cy) / camera.fl_y,
    )


def through(lens: Lens) -> np.ndarray:
    """What the lens shows: for each pixel the ray that it bends there, by Newton-free fixed point steps."""
    bent_x, bent_y = plane(CAMERA)
    x, y = bent_x.copy(), bent_y.copy()
    for _ in range(200):
        now_x, now_y, _ = lens.distort(x, y)
        x, y = x + 0.7 * (bent_x - now_x), y + 0.7 * (bent_y - now_y)
    return disc(x, y)


@pytest.mark.parametrize(
    "lens",
    [
        Lens(False, (-0.25, 0.06, 0.0, 0.0)),
        Lens(False, (0.2, 0.0, 0.01, 0.0), (0.01, -0.02)),
        Lens(True),
        Lens(True, (0.05, -0.01, 0.003, 0.0)),
    ],
    ids=str,
)
def test_undistorted_images_are_those_of_a_pinhole(lens: Lens) -> None:
    wanted, stored = disc(*plane(CAMERA))[..., 3] > 127, through(lens)
    found = undistorted(stored, CAMERA, lens)
    assert found.shape == stored.shape and found.dtype == np.uint8

    def overlap(alpha: np.ndarray) -> float:
        return float((alpha & wanted).sum() / (alpha | wanted).sum())

    assert overlap(found[..., 3] > 127) > 0.93 > overlap(stored[..., 3] > 127) + 0.05
    sure = (found[..., 3] > 250) & wanted
    assert np.abs(found[sure][:, :3].astype(int) - disc(*plane(CAMERA))[sure][:, :3]).mean() < 12


def test_opencvs_formula() -> None:
    """Values of OpenCV's documentation, worked out by hand for one point."""
    x, y = np.array([[0.5]]), np.array([[-0.2]])
    r2 = 0.29
    radial = 1 + 0.1 * r2 - 0.05 * r2**2 + 0.02 * r2**3
    got_x, got_y, seen = Lens(False, (0.1, -0.05, 0.02, 0), (0.003, -0.004)).distort(x, y)
    assert got_x[0, 0] == pytest.approx(0.5 * radial + 2 * 0.003 * -0.1 - 0.004 * (r2 + 0.5))
    assert got_y[0, 0] == pytest.approx(-0.2 * radial + 0.003 * (r2 + 0.08) + 2 * -0.004 * -0.1)
    assert seen.all()
    theta = np.arctan(np.sqrt(r2))
    scale = theta * (1 + 0.1 * theta**2) / np.sqrt(r2)
    got_x, got_y, _ = Lens(True, (0.1, 0, 0, 0)).distort(x, y)
    assert (got_x[0, 0], got_y[0, 0]) == pytest.approx((0.5 * scale, -0.2 * scale))


def test_where_the_lens_folds_back_nothing_is_seen() -> None:
    """r (1 - 0.5 r²) grows up to r = 0.816; beyond, pixels must not show the middle again."""
    lens = Lens(False, (-0.5, 0.0, 0.0, 0.0))
    x = np.array([[0.3, 0.81, 0.82, 1.4]])
    bent, _, seen = lens.distort(x, np.zeros_like(x))
    assert seen.tolist() == [[True, True, False, False]]
    assert bent[0, 2:] == pytest.approx(np.full(2, np.sqrt(2 / 3) * 2 / 3))
    wide = Camera(np.eye(4), 20.0, 20.0, 24.0, 24.0, 48, 48)
    white = np.full((48, 48, 4), 255, np.uint8)
    assert undistorted(white, wide, lens)[0, 0, 3] == 0 and undistorted(white, wide, lens)[24, 24, 3] == 255
    assert (undistorted(white[..., :3], wide, lens) == 255).all(), "without alpha the rim continues"


def test_lenses_say_what_they_are() -> None:
    assert not Lens() and Lens(True) and Lens(p=(0.0, 0.1))
    assert str(Lens(False, (-0.4, 0.1, 0, 0), (0, 0.02))) == "lens distortion k1 -0.4 k2 0.1 p2 0.02"
    assert str(Lens(True)) == "fisheye"
