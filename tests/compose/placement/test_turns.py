"""Turning at most 180 degrees a second, and films in which nobody is seen."""

from __future__ import annotations

import numpy as np

from orbit4d.compose.placement.facing import capped, face
from orbit4d.compose.placement.shooting import LEAST, anybody, inside_share, overview, shoot
from orbit4d.recon4d.composition import MOST_TURN, Track


def corner(turn_deg: float, n: int = 20, length: float = 4.0) -> np.ndarray:
    """[n, 3] along +x, then bent by an angle."""
    way = np.linspace(0, length, n) - length / 2
    a = np.radians(turn_deg)
    after = way[:, None].clip(0) * np.array([np.cos(a), np.sin(a), 0])
    return way[:, None].clip(None, 0) * np.array([1.0, 0, 0]) + after


def rates(turns: np.ndarray, points: np.ndarray, speed: float) -> np.ndarray:
    """Radians a second over a film in which the way is walked."""
    length = float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
    track = Track(points, turns, 1.0, end=length / speed + 0.25)
    times = np.linspace(0, track.end, 400)
    seen = np.stack([track.place(float(t))[1] for t in times])
    cosines = (np.einsum("tij,tij->t", seen[1:], seen[:-1]) - 1) / 2
    return np.arccos(cosines.clip(-1, 1)) / np.diff(times)


def test_a_sharp_bend_is_turned_at_the_limit() -> None:
    points, speed = corner(150.0), 3.0
    turns = face(points)
    assert rates(turns, points, speed).max() > 2 * MOST_TURN  # without the limit it jumps round
    slow = capped(turns, points, speed)
    # Steps of a table of 400 moments cost a part in a thousand.
    assert rates(slow, points, speed).max() <= 1.01 * MOST_TURN
    assert np.allclose(slow @ slow.transpose(0, 2, 1), np.eye(3)) and np.allclose(np.linalg.det(slow), 1)
    # Away from the bend it faces where it goes.
    assert np.array_equal(slow[0], turns[0]) and np.array_equal(slow[-1], turns[-1])


def test_what_keeps_the_limit_is_left_to_the_bit() -> None:
    points = corner(40.0)
    turns = face(points)
    assert capped(turns, points, 0.3) is turns


def test_who_is_in_the_picture() -> None:
    camera = overview(np.array([-1.0, -1, 0]), np.array([1.0, 1, 1]), 20.0, 64)
    inside = np.array([[[[-0.2, -0.2, 0], [0.2, 0.2, 0.5]]]])
    assert anybody([camera], inside)
    assert not anybody([camera], inside + np.array([50.0, 0, 0]))  # far aside
    assert not anybody([camera], inside - np.array([0, 50.0, 0]))  # behind the camera
    corners = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (0, 1)], float)
    pixels, depth = camera.project(corners)
    assert (depth > 0).all() and (pixels >= 0.04 * 64).all() and (pixels <= 0.96 * 64).all()


def passing(metres: float = 10.0) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [24, 1, 2, 3] of one that runs so far along +x, and where it faces."""
    x = np.linspace(-metres / 2, metres / 2, 24)
    low = np.stack([x - 0.8, 0 * x - 0.3, 0 * x], axis=1)
    boxes = np.stack([low, low + np.array([1.6, 0.6, 1.5])], axis=1)[:, None]
    return boxes, np.tile([1.0, 0, 0], (24, 1, 1))


def test_a_camera_moves_along_where_standing_would_make_actors_small() -> None:
    boxes, forward = passing(30.0)
    cameras = shoot((), boxes, forward, [0], 2.0, 128)
    whole, least = inside_share(cameras, boxes)
    assert whole == 1.0 and least >= LEAST * 128
    steps = np.linalg.norm(np.diff([c.position for c in cameras], axis=0), axis=1)
    assert steps.max() > 0.1 and np.abs(np.diff(steps)).max() < 0.3  # it moves, and without a jerk
    still = shoot((), boxes[:1].repeat(24, 0), forward, [0], 2.0, 128)
    assert all(np.array_equal(still[0].c2w, c.c2w) for c in still)


def test_a_landmark_is_held_when_it_is_due() -> None:
    boxes, forward = passing()
    mark = np.array([[-6.0, 1.0, 0.0], [-4.0, 2.0, 1.5]])
    cameras = shoot((), boxes, forward, [0], 2.0, 128, [(mark, "start")])
    assert inside_share(cameras, boxes)[0] == 1.0
    seen = [inside_share([camera], mark[None, None])[0] for camera in cameras]
    assert all(seen[:6])
