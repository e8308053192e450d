"""Cameras of a film: who is inside, how large, from where, and how a camera moves."""

from __future__ import annotations

import numpy as np
import pytest

from orbit4d.compose.placement.camera.establishing import ANGLES, LEAST, establish, side_of
from orbit4d.compose.placement.camera.framing import (
    FILL,
    LOWEST,
    back_for,
    camera_at,
    inside_share,
    tan_half,
    tightest,
)
from orbit4d.compose.placement.shooting import shoot
from orbit4d.compose.spec import Shot

FRAMES, SIZE = 24, 128


def boxes_of(*ways: tuple[float, float, float, float], tall: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [F, A, 2, 3] and facing [F, A, 3] of some that go from (x0, y0) to (x1, y1)."""
    t = np.linspace(0, 1, FRAMES)[:, None]
    rows, faces = [], []
    for x0, y0, x1, y1 in ways:
        at = np.array([x0, y0]) + t * np.array([x1 - x0, y1 - y0])
        low = np.column_stack([at - [0.8, 0.3], np.zeros(FRAMES)])
        rows.append(np.stack([low, low + np.array([1.6, 0.6, tall])], axis=1))
        way = np.array([x1 - x0, y1 - y0, 0.0])
        faces.append(np.tile(way / max(float(np.linalg.norm(way)), 1e-9), (FRAMES, 1)))
    return np.stack(rows, axis=1), np.stack(faces, axis=1)


def test_the_nearest_eye_holds_every_point_and_no_nearer_one_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tan = tan_half()
    for _ in range(40):
        local = rng.normal(size=(16, 3)) * rng.uniform(0.2, 4, 3)
        eye = tightest(local, tan)

        def spread(at: np.ndarray, local: np.ndarray = local) -> float:
            return float((np.abs(local[:, :2] - at[:2]) / (at[2] - local[:, 2:])).max() / tan)

        assert spread(eye) <= FILL + 1e-9
        # At the same depth a shifted eye sees some point farther out, unless depth alone was what bound it.
        assert back_for(local, eye, tan) == pytest.approx(eye[2], rel=1e-9)
        near = eye - [0, 0, 1e-3 * (eye[2] - local[:, 2].max())]
        if eye[2] - local[:, 2].max() > 0.31:
            tried = [near + np.array([dx, dy, 0]) for dx in (-1e-3, 0, 1e-3) for dy in (-1e-3, 0, 1e-3)]
            assert min(spread(at) for at in tried) > FILL - 1e-9


@pytest.mark.parametrize("ways", [
    [(-3.0, 0.0, 3.0, 0.0)],
    [(-4.0, 0.0, 4.0, 0.0), (0.5, 3.0, 0.5, 3.0)],
    [(-4.0, -2.0, 4.0, 2.0), (0.0, 2.0, 0.0, 2.0), (-4.0, 1.0, 4.0, -2.0)],
    [(0.0, -3.0, 0.0, 4.0)],
])  # fmt: skip
def test_the_establishing_camera_holds_everybody_as_large_as_can_be(ways: list[tuple[float, ...]]) -> None:
    boxes, forward = boxes_of(*ways)  # type: ignore[arg-type]
    cameras = establish(boxes, forward, (), 2.0, SIZE)
    inside, least = inside_share(cameras, boxes)
    assert inside == 1.0 and least >= LEAST * SIZE
    assert all(camera.position[2] >= LOWEST for camera in cameras)
    steps = np.linalg.norm(np.diff([c.position for c in cameras], axis=0), axis=1)
    assert np.abs(np.diff(steps)).max() < 0.3  # neither a jump nor a jerk


def test_where_it_looks_from() -> None:
    forward = np.tile([1.0, 0, 0], (FRAMES, 1, 1))
    assert side_of(forward)[0] == pytest.approx(30.0)  # 60 degrees from where it goes, in front of the stage
    assert [round(side_of(forward, angle)[0]) for angle in ANGLES] == [30, 15, 45, 0, 60]
    assert side_of(np.zeros((FRAMES, 1, 3))) == (0.0, 0.0)


def test_a_landmark_that_would_hide_somebody_is_not_looked_past() -> None:
    boxes, forward = boxes_of((-2.0, 0.0, 2.0, 0.0))
    # A wall in front, on the side from which it would be looked.
    wall = np.array([[0.3, -4.0, 0.0], [4.5, -3.5, 4.0]])
    plain = establish(boxes, forward, (), 2.0, SIZE)[0]
    other = establish(boxes, forward, [(wall, "always")], 2.0, SIZE)[0]
    assert not np.allclose(plain.c2w[:3, 2], other.c2w[:3, 2])


@pytest.mark.parametrize("move", ["zoom_in", "zoom_out", "pan_left", "pan_right", "orbit", "static", None])
@pytest.mark.parametrize("angle", ["low", None, "high", "top"])
def test_wide_shots_hold_everybody(move: str | None, angle: str | None) -> None:
    boxes, forward = boxes_of((-2.0, 0.0, 2.0, 0.0), (1.0, 2.0, 1.0, 2.0))
    for framing in ("wide", None):
        shot = Shot(move, framing, angle)  # type: ignore[arg-type]
        cameras = shoot((shot,), boxes, forward, [0, 1], 2.0, SIZE)
        assert inside_share(cameras, boxes)[0] >= 0.98, (move, framing, angle)
        assert all(camera.position[2] >= LOWEST - 1e-9 for camera in cameras)


def test_near_shots_go_along_and_fill_their_share() -> None:
    boxes, forward = boxes_of((-4.0, 0.0, 4.0, 0.0))
    for framing, share in (("close", 0.70), ("medium", 0.45)):
        cameras = shoot((Shot(None, framing, None),), boxes, forward, [0], 4.0, SIZE)  # type: ignore[arg-type]
        middles = boxes.mean(axis=(1, 2))
        pixels = np.array([c.project(m)[0] for c, m in zip(cameras, middles, strict=True)])
        assert (np.abs(pixels - SIZE / 2) < SIZE / 2).all()  # its middle stays in the picture
        tall = np.array([np.ptp(c.project(np.array([m, m + np.array([0, 0, 1.5])]))[0][:, 1])
                         for c, m in zip(cameras, middles - [0, 0, 0.75], strict=True)])  # fmt: skip
        assert np.median(tall) / SIZE == pytest.approx(share, abs=0.06)
        # Never closer than 0.3 m to what it films.
        for camera, frame in zip(cameras, boxes, strict=True):
            gap = np.maximum(frame[0, 0] - camera.position, camera.position - frame[0, 1]).clip(0)
            assert np.linalg.norm(gap) >= 0.3


def test_several_shots_share_the_time_and_stay_on_one_side() -> None:
    boxes, forward = boxes_of((-2.0, 0.0, 2.0, 0.0))
    shots = (Shot(None, "wide", None), Shot(None, "close", None, 0), Shot(None, "medium", "high"))
    cameras = shoot(shots, boxes, forward, [0], 3.2, SIZE)  # two shots of 1.5 s at least
    assert len(cameras) == FRAMES
    back = np.array([c.c2w[:3, 2] for c in cameras])
    cuts = np.flatnonzero(np.linalg.norm(np.diff([c.position for c in cameras], axis=0), axis=1) > 1.0)
    assert len(cuts) == 1 and cuts[0] == FRAMES // 2 - 1
    assert (back[:, 1] < 0).all()


def test_a_camera_below_the_ground_stands_on_it() -> None:
    camera = camera_at(np.array([0, 0, 0.3]), 0.0, -5.0, 20.0, SIZE)
    assert camera.position[2] == pytest.approx(LOWEST)
    assert np.allclose(camera.project(np.array([0, 0, 0.3]))[0], SIZE / 2)
