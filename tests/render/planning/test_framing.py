"""Scale and centre, and when an action moves: laws of the pure functions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbit4d.datasets.cameras.camera import orbit
from orbit4d.render.planning.framing import box_framing, fit, frame_load, union_box
from orbit4d.render.planning.window import (
    MAX_KEYS,
    MAX_LOOKS,
    STILL_TOLERANCE,
    dense_seconds,
    is_long,
    moving_window,
    search_seconds,
    search_window,
)


def furthest(points: np.ndarray, radius: float, elevation: float, fov: float) -> float:
    """Largest |x| or |y| on the image plane, in half-frames, over a fine orbit."""
    worst = 0.0
    for camera in orbit(120, radius, elevation, fov, size=(200, 200)):
        pixels, depth = camera.project(points)
        assert (depth > 0).all()
        worst = max(worst, float(np.abs(pixels - 100.0).max() / 100.0))
    return worst


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    elevation=st.sampled_from([0.0, 9.46, -20.0, 35.0, 70.0]),
    fov=st.sampled_from([20.0, 39.5978, 60.0]),
    radius=st.sampled_from([1.5, 2.0, 4.0]),
)
def test_fit_brings_every_vertex_into_every_view(
    seed: int, elevation: float, fov: float, radius: float
) -> None:
    rng = np.random.default_rng(seed)
    poses = [rng.normal(size=(20, 3)) * rng.uniform(0.1, 3.0, 3) + rng.normal(size=3) for _ in range(3)]
    box = box_framing(*union_box(poses))
    framing = fit(box, poses, radius, fov, elevation, margin=0.02)
    reached = max(furthest(framing.apply(points), radius, elevation, fov) for points in poses)
    assert reached <= 0.98 + 1e-9
    if framing.scale < box.scale:
        # Shrunk no more than needed: some vertex touches the margin at some azimuth.
        assert reached > 0.98 - 2e-3


def test_a_unit_cube_leaves_the_published_frame() -> None:
    cube = np.array([(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    half_tan = np.tan(np.radians(39.5978) / 2)
    assert furthest(cube, 2.0, 0.0, 39.5978) == pytest.approx(1.074, abs=2e-3)
    assert frame_load(cube, 2.0, half_tan) > 1.0


@given(scale=st.floats(1e-3, 1e3), x=st.floats(-50, 50), z=st.floats(-50, 50))
@settings(max_examples=30, deadline=None)
def test_framing_undoes_the_size_and_place_of_an_asset(scale: float, x: float, z: float) -> None:
    points = np.random.default_rng(0).normal(size=(30, 3))
    moved = points * scale + np.array([x, -x, z])
    a = fit(box_framing(*union_box([points])), [points], 2.0, 39.5978)
    b = fit(box_framing(*union_box([moved])), [moved], 2.0, 39.5978)
    np.testing.assert_allclose(
        a.apply(points), b.apply(moved), atol=1e-9 * max(1.0, abs(x) / scale, abs(z) / scale)
    )


def test_nothing_finite_is_not_framed() -> None:
    with pytest.raises(ValueError, match="finite"):
        union_box([np.zeros((0, 3))])
    with pytest.raises(ValueError, match="finite"):
        union_box([np.full((3, 3), np.nan)])
    with pytest.raises(ValueError, match="extent"):
        box_framing(np.ones(3), np.ones(3))


def path(times: list[float], heights: list[float]) -> np.ndarray:
    """Two vertices, of which one rises by `heights`."""
    points = np.zeros((len(times), 2, 3))
    points[:, 1, 0] = 1.0
    points[:, 1, 2] = heights
    return points


def test_the_window_is_what_moves() -> None:
    seconds = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert moving_window(seconds, path(seconds, [0, 0, 1, 2, 2, 2])) == (1.0, 3.0)
    assert moving_window(seconds, path(seconds, [0, 0, 0, 0, 0, 0])) is None
    assert moving_window(seconds, path(seconds, [0, 1, 0, 1, 0, 0])) == (0.0, 4.0)
    assert moving_window(seconds, path(seconds, [0, 0, 0, 0, 0, 1])) == (4.0, 5.0)


def test_slow_motion_counts_though_no_step_does() -> None:
    seconds = list(np.linspace(0.0, 1.0, 241))
    step = 0.5 * STILL_TOLERANCE
    window = moving_window(seconds, path(seconds, [i * step for i in range(241)]))
    assert window is not None and window[0] < 0.02 and window[1] > 0.98


@given(scale=st.floats(1e-4, 1e4), shift=st.floats(-100, 100))
@settings(max_examples=20, deadline=None)
def test_the_window_does_not_depend_on_size_or_place(scale: float, shift: float) -> None:
    seconds = [0.0, 1.0, 2.0, 3.0]
    points = path(seconds, [0, 0, 1, 1])
    assert moving_window(seconds, points * scale + shift * scale) == (1.0, 2.0)


def test_every_frame_is_looked_at_up_to_a_limit() -> None:
    assert dense_seconds(0.0, 1.0, 24.0) == pytest.approx([i / 24 for i in range(25)])
    assert len(dense_seconds(0.0, 3600.0, 24.0)) == 241
    assert dense_seconds(0.0, 0.01, 24.0) == [0.0, 0.01]


@given(heights=st.lists(st.sampled_from([0.0, 0.0, 1e-5, 0.3, 1.0]), min_size=2, max_size=9))
@settings(max_examples=150, deadline=None)
def test_searching_from_both_ends_finds_what_looking_everywhere_does(heights: list[float]) -> None:
    seconds = [float(i) for i in range(len(heights))]
    points = path(seconds, heights)
    looked: list[float] = []

    def places(t: float) -> np.ndarray:
        looked.append(t)
        return points[int(t)]

    assert search_window(seconds, places) == moving_window(seconds, points)
    if (
        heights[0] != heights[1]
        and heights[-1] != heights[-2]
        and min(heights) != 1e-5
        and 1e-5 not in heights
    ):
        assert len(looked) == len(set(looked)) == min(4, len(heights))


def test_a_change_of_topology_is_motion() -> None:
    assert search_window([0.0, 1.0, 2.0], lambda t: np.zeros((3 + int(t), 3)) + np.eye(3)[0]) == (0.0, 2.0)
    assert search_window([0.0], lambda t: np.zeros((3, 3))) is None
    assert search_window([0.0, 1.0], lambda t: np.zeros((0, 3))) is None


FPS = 24.0


def swing(n: int, size: float = 0.4) -> list[float]:
    """Heights of a slow swing over `n` frames."""
    return (size * np.sin(2 * np.pi * np.arange(n) / 48)).tolist()


def test_a_bind_pose_before_the_action_is_no_motion() -> None:
    seconds = [i / FPS for i in range(60)]
    heights = [3.0, *swing(59)]
    assert search_window(seconds, lambda t: path([t], [heights[round(t * FPS)]])[0])[0] == pytest.approx(
        1 / FPS
    )
    # It stands for a while after the jump: the window opens where it continues.
    held = [3.0, *[0.0] * 12, *swing(47)]
    assert search_window(seconds, lambda t: path([t], [held[round(t * FPS)]])[0])[0] == pytest.approx(
        13 / FPS
    )
    # A key between frames leaves part of the jump to the second step.
    split = [3.0, 1.0, *swing(58)]
    assert search_window(seconds, lambda t: path([t], [split[round(t * FPS)]])[0])[0] == pytest.approx(
        2 / FPS
    )
    # Nothing but the jump.
    alone = [3.0, *[0.0] * 59]
    assert search_window(seconds, lambda t: path([t], [alone[round(t * FPS)]])[0]) is None


@pytest.mark.parametrize(
    "heights",
    [
        [0.0, *(1 - 0.8 ** np.arange(1, 60))],  # a burst that dies away
        [0.0, 1.0] * 30,  # a shake
        swing(60),
        [0.0, 1.0, *[1.0] * 57, 0.0],  # there at once, and back at the end
        [0.0, 0.0, 0.0, *[1.0] * 57],  # a change of pose after standing
    ],
)
def test_a_fast_start_is_kept(heights: list[float]) -> None:
    seconds = [i / FPS for i in range(60)]
    still = next(i for i, h in enumerate(heights) if h != heights[0]) - 1
    found = search_window(seconds, lambda t: path([t], [heights[round(t * FPS)]])[0])
    assert found is not None and found[0] == pytest.approx(still / FPS)


def test_empty_moments_at_the_ends_are_outside() -> None:
    seconds = [i / FPS for i in range(40)]

    def places(t: float) -> np.ndarray:
        i = round(t * FPS)
        return path([t], [0.1 * i])[0] if 9 <= i < 31 else np.zeros((0, 3))

    assert search_window(seconds, places) == pytest.approx((9 / FPS, 30 / FPS))
    assert search_window(seconds, lambda t: np.zeros((0, 3))) is None


def test_long_actions_are_looked_at_on_their_frames_and_keys_in_bounded_number() -> None:
    assert search_seconds(2.0, 8.0, FPS) == dense_seconds(2.0, 8.0, FPS)
    minute = search_seconds(0.0, 60.0, FPS, keys=[31.01, 60.0, 99.0])
    assert np.diff(minute).max() < 1.01 / FPS and 31.01 in minute and max(minute) == 60.0
    assert not is_long(0.0, 60.0, FPS) and is_long(0.0, 3600.0, FPS)
    hour = search_seconds(0.0, 3600.0, FPS, keys=np.arange(0.013, 3600.0, 0.1).tolist())
    assert len(hour) <= MAX_LOOKS + MAX_KEYS + 2
    assert 777.77 in search_seconds(0.0, 1e6, 30.0, keys=[777.77])
