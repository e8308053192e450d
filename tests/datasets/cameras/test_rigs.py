"""Rigs of synchronised cameras: closed forms, published numbers, draws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from orbit4d.datasets.cameras import moves
from orbit4d.datasets.cameras.camera import DEFAULT_FOV_X_DEG, Camera, orbit, orbit_c2w
from orbit4d.datasets.cameras.rigs import KNOWN, RigCamera, parse_rig, rig_cameras
from orbit4d.datasets.core.errors import InputError

NAMES = (
    "sync",
    "sync:3",
    "sync_basic",
    "hemi36_4m_15",
    "sync_moving",
    "sync_moving:4",
    "ring:8",
    "ring:5@20",
)
STATIC = ("sync", "sync_basic", "hemi36_7m_45", "ring:8@20")


@pytest.fixture(scope="module")
def published(shared: Path) -> Path:
    return shared / "fixtures" / "syncammaster"


def poses(cameras: list[RigCamera], frame: int = 0) -> np.ndarray:
    return np.stack([camera.cameras[frame].c2w for camera in cameras])


# Closed forms ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sync_basic", "hemi36_4m_15", "hemi36_5m_20", "hemi36_7m_45"])
def test_static_rigs_are_the_published_ones(name: str, published: Path) -> None:
    expected = np.load(published / "rigs.npz")[f"{name}/c2w"]
    assert np.abs(poses(rig_cameras(name)) - expected).max() < 1e-9


def test_sync_basic_stands_where_its_published_file_says(published: Path) -> None:
    """The file has six digits of centimetres: 1.2e-4 units."""
    expected = np.load(published / "cameras.npz")["static/c2w"][0]
    assert np.abs(poses(rig_cameras("sync_basic")) - expected).max() < 2e-4


def test_worked_examples() -> None:
    hemi = rig_cameras("hemi36_4m_15")[0]
    np.testing.assert_allclose(hemi.cameras[0].position, [0.335463, 1.902502, 0.517638], atol=1e-6)
    assert (hemi.azimuth_deg, hemi.elevation_deg, hemi.radius, hemi.lens_mm) == (170.0, 15.0, 2.0, 18.0)
    raised = rig_cameras("sync_basic")[5]
    np.testing.assert_allclose(raised.cameras[0].position, [0.0, -1.5, 0.26449], atol=1e-5)
    assert raised.radius == pytest.approx(1.5231, abs=1e-4)
    assert {camera.radius for camera in rig_cameras("hemi36_9m_30")} == {4.5}


def test_a_ring_is_an_orbit_of_standing_cameras() -> None:
    ring = rig_cameras("ring:8@20", frames=3, size=(64, 64))
    around = orbit(8, elevation_deg=20.0, size=(64, 64))
    assert [camera.cameras for camera in ring] == [(camera,) * 3 for camera in around]
    assert [camera.label for camera in ring] == [f"cam{k:02d}" for k in range(1, 9)]
    assert ring[0].cameras[0].fov_x_deg == pytest.approx(DEFAULT_FOV_X_DEG)


@pytest.mark.parametrize(
    ("kind", "moved"),
    [
        ("pan", lambda m, start, s: moves.pan(start, m["amount"], s)),
        ("tilt", lambda m, start, s: moves.tilt(start, m["amount"], s)),
        ("translate", lambda m, start, s: moves.translate(start, m["axis"], m["amount"], s)),
        ("arc_azimuth", lambda m, start, s: moves.arc(m["az"], m["el"], m["d"], (m["amount"], 0.0), s)),
        ("arc_elevation", lambda m, start, s: moves.arc(m["az"], m["el"], m["d"], (0.0, m["amount"]), s)),
    ],
)
def test_moves_are_the_published_ones(kind: str, moved: object, published: Path) -> None:
    m = json.loads((published / "cameras.json").read_text())["moving"][kind]
    start = orbit_c2w(m["az"], m["el"], m["d"])
    got = moved(m, start, moves.progress(m["F"], m["a"]))  # type: ignore[operator]
    assert np.abs(got - np.load(published / "rigs.npz")[f"moving_{kind}/c2w"]).max() < 1e-9


@pytest.mark.parametrize("a", [2.5, -3.0])
def test_easing_is_the_published_one(a: float, published: Path) -> None:
    s = moves.progress(81, a)
    assert np.abs(s - np.load(published / "rigs.npz")[f"ease_{a}"]).max() < 1e-12
    assert s[0] == 0.0 and s[-1] == 1.0 and (np.diff(s) > 0).all()


# What holds for every rig ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_pose_is_a_rigid_motion(name: str) -> None:
    for camera in rig_cameras(name, frames=5, seed=3, uid="fox"):
        rotation = np.stack([c.c2w[:3, :3] for c in camera.cameras])
        assert np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max() < 1e-9
        assert np.abs(np.linalg.det(rotation) - 1.0).max() < 1e-9
        assert len(camera.cameras) == 5
        first = camera.cameras[0]
        assert np.linalg.norm(first.position) == pytest.approx(camera.radius, abs=1e-12)
        np.testing.assert_allclose(
            first.position,
            orbit_c2w(camera.azimuth_deg, camera.elevation_deg, camera.radius)[:3, 3],
            atol=1e-12,
        )


@pytest.mark.parametrize("name", STATIC)
@pytest.mark.parametrize("size", [(64, 64), (832, 480)])
def test_static_cameras_see_the_target_at_their_principal_point(name: str, size: tuple[int, int]) -> None:
    for camera in rig_cameras(name, frames=2, size=size, seed=1, uid="fox"):
        for view in camera.cameras:
            pixel, depth = view.project(np.zeros(3))
            assert np.abs(pixel - (view.cx, view.cy)).max() < 1e-6 and depth > 0
            assert (view.cx, view.cy, view.w, view.h) == (size[0] / 2, size[1] / 2, *size)


def test_a_lens_has_the_published_field_of_view() -> None:
    camera = rig_cameras("sync_basic", size=(1280, 1280))[0].cameras[0]
    assert camera.fl_x == pytest.approx(1292.93, abs=0.01) and camera.fov_x_deg == pytest.approx(
        52.67, abs=0.01
    )
    wide = rig_cameras("hemi36_4m_0", size=(256, 128))[0].cameras[0]
    # A wider picture crops the square sensor's rows.
    assert wide.fov_x_deg == pytest.approx(66.85, abs=0.01) and wide.fl_y == wide.fl_x


def test_a_rig_in_metres_shrinks_with_the_unit() -> None:
    small = poses(rig_cameras("sync_basic", metres_per_unit=4.0))
    np.testing.assert_allclose(2.0 * small[:, :3, 3], poses(rig_cameras("sync_basic"))[:, :3, 3])


# Draws ----------------------------------------------------------------------------------------------------


def test_sync_draws_evenly_within_the_published_range() -> None:
    drawn = [c for uid in range(100) for c in rig_cameras("sync:100", size=(8, 8), uid=str(uid))]
    for values, low, high in (
        ([c.azimuth_deg for c in drawn], 0.0, 360.0),
        ([c.elevation_deg for c in drawn], 0.0, 45.0),
        ([2.0 * c.radius for c in drawn], 3.5, 9.0),
    ):
        assert low <= min(values) and max(values) <= high
        # The draws are seeded, so this is one fixed sample of 10,000 and not a lottery.
        assert stats.kstest(values, "uniform", (low, high - low)).pvalue > 1e-3


@pytest.mark.parametrize("family", ["sync", "sync_moving"])
def test_more_cameras_or_draws_never_change_earlier_ones(family: str) -> None:
    few, more = (rig_cameras(f"{family}:{n}", 4, uid="fox", seed=7) for n in (3, 6))
    assert [c.cameras for c in few] == [c.cameras for c in more[:3]]
    others = [
        rig_cameras(f"{family}:3", 4, **{"uid": "fox", "seed": 7, **change})
        for change in ({"draw": 1}, {"uid": "hare"}, {"seed": 8})
    ]
    assert len({tuple(c.cameras for c in rig) for rig in (few, *others)}) == 4
    assert (
        rig_cameras(f"{family}", uid="fox", seed=7)[0].cameras
        == rig_cameras(f"{family}:10", uid="fox", seed=7)[0].cameras
    )


@pytest.fixture(scope="module")
def moving() -> list[RigCamera]:
    return [c for uid in range(40) for c in rig_cameras("sync_moving:10", 21, (8, 8), uid=str(uid))]


def test_moving_cameras_follow_the_recipe(moving: list[RigCamera]) -> None:
    kinds: dict[str, list[RigCamera]] = {}
    for camera in moving:
        kinds.setdefault(camera.draw["kind"], []).append(camera)
        assert 1.25 <= camera.radius <= 5.0 and 0.0 <= camera.elevation_deg <= 45.0
        places = np.stack([c.position for c in camera.cameras])
        assert np.linalg.norm(places, axis=1).min() >= 1.0 - 1e-9 and places[:, 2].min() >= -0.5 - 1e-9
    assert set(kinds) == {"pan", "tilt", "translate", "arc", "random", "static"}
    assert min(map(len, kinds.values())) > 30, "six kinds with equal chances, 400 cameras"
    amounts = {kind: [abs(c.draw["amount_deg"]) for c in kinds[kind]] for kind in ("pan", "tilt")}
    assert min(amounts["pan"]) >= 5 and max(amounts["pan"]) <= 45
    assert min(amounts["tilt"]) >= 5 and max(amounts["tilt"]) <= 30
    for camera in kinds["arc"]:
        by_azimuth, by_elevation = camera.draw["by_deg"]
        assert 15 <= abs(by_azimuth + by_elevation) <= 75 and 0.0 in (by_azimuth, by_elevation)
        assert 0 <= camera.elevation_deg + by_elevation <= 45
    for camera in (*kinds["arc"], *kinds["random"], *kinds["static"]):
        pixels = np.stack([view.project(np.zeros(3))[0] for view in camera.cameras])
        assert np.abs(pixels - 4.0).max() < 1e-6
    for camera in kinds["static"]:
        assert len(set(camera.cameras)) == 1
    for camera in kinds["translate"]:
        assert 0 <= camera.draw["amount"] <= camera.radius
    lenses = {(c.lens_mm, c.f_number) for c in moving}
    assert lenses == {(18, 10), (24, 5), (35, 2.4), (50, 2.4)}
    easings = np.array([c.draw["easing"] for c in moving if "easing" in c.draw])
    assert 0.4 < (easings == 0).mean() < 0.6 and (np.abs(easings[easings != 0]) >= 1).all()


def test_even_moves_have_no_jumps(moving: list[RigCamera]) -> None:
    for camera in moving:
        if camera.draw.get("easing") != 0.0:
            continue
        steps = np.linalg.norm(np.diff(np.stack([c.c2w for c in camera.cameras]), axis=0), axis=(1, 2))
        assert steps.max() < 3 * steps.mean(), camera.draw


def test_a_wanderer_goes_a_quarter_to_all_of_its_distance(moving: list[RigCamera]) -> None:
    for camera in moving:
        if camera.draw["kind"] == "random":
            points = np.array(camera.draw["points"])
            length = np.linalg.norm(np.diff(points, axis=0), axis=1).sum()
            assert 0.25 <= length / camera.radius <= 1.0 + 1e-12
            np.testing.assert_allclose(points[0], camera.cameras[0].position, atol=1e-12)
            np.testing.assert_allclose(points[-1], camera.cameras[-1].position, atol=1e-12)


def test_a_spline_runs_through_its_points_at_even_speed() -> None:
    points = np.array([[0.0, 0, 0], [1, 0, 0], [1, 2, 0], [1, 2, 0], [4, 2, 1]])
    s = np.linspace(0, 1, 2001)
    walked = moves.spline(points, s)
    for point in points:
        assert np.linalg.norm(walked - point, axis=1).min() < 2e-3
    steps = np.linalg.norm(np.diff(walked, axis=0), axis=1)
    # The spline is measured at 512 steps a piece: chords stand for arcs.
    assert steps.max() / steps.min() < 1.01
    straight = moves.spline(points[:2], np.array([0.0, 0.25, 1.0]))
    np.testing.assert_array_equal(straight[:, 0], [0.0, 0.25, 1.0])


def test_a_shift_stops_a_unit_before_the_origin() -> None:
    start = orbit_c2w(30.0, 10.0, 3.0)
    assert moves.free_way(start, [0, 0, -1], 2.5, 1.0) == pytest.approx(2.0)
    assert moves.free_way(start, [0, 0, -1], 1.5, 1.0) == 1.5
    assert moves.free_way(start, [0, 0, 1], 2.5, 1.0) == 2.5
    assert moves.free_way(start, [1, 0, 0], 2.5, 1.0) == 2.5


def test_a_raised_ground_keeps_cameras_above_it() -> None:
    for camera in rig_cameras("sync_moving:20", 9, uid="x", ground=0.2):
        assert min(view.position[2] for view in camera.cameras) >= 0.2 - 1e-9
    with pytest.raises(
        InputError, match=r"rig sync_moving: x, draw 0: no camera cam01 .* 100 draws"
    ) as caught:
        rig_cameras("sync_moving", 9, uid="x", ground=9.0)
    assert "\n" not in str(caught.value)


# Names ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "column", "n"),
    [
        ("sync", "sync", 10),
        ("sync:12", "sync_12", 12),
        ("sync_basic", "sync_basic", 10),
        ("hemi36_4m_15", "hemi36_4m_15", 36),
        ("sync_moving:2", "sync_moving_2", 2),
        ("ring:8@20", "ring_8_20", 8),
    ],
)
def test_a_name_says_its_column_and_its_cameras(name: str, column: str, n: int) -> None:
    known = parse_rig(name)
    assert known is not None and (known.column, known.n) == (column, n)
    assert len(rig_cameras(name, size=(8, 8))) == n


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("circle", "unknown rig 'circle'; choose from sync"),
        ("ring", "unknown rig"),
        ("sync:0", "0 cameras; give 1 to 1000"),
        ("ring:9999", "9999 cameras"),
        ("hemi36_1m_15", "1 m; give a distance of 2 to 100 m"),
        ("hemi36_4m_90", "whole degrees of 0 to 89"),
        ("ring:8@2.5", "unknown rig"),
    ],
)
def test_a_wrong_name_is_refused_in_one_line(name: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        rig_cameras(name)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert all(form in " ".join(KNOWN) for form in ("ring:<n>", "sync_basic"))


def test_cameras_are_told_apart_by_their_rig(published: Path) -> None:
    """Relative poses of the published network's input do not change when a rig is moved as a whole."""
    rig = poses(rig_cameras("sync_basic"))
    motion = orbit_c2w(77.0, 31.0, 2.7)
    moved = motion @ rig
    relative, same = (np.linalg.inv(r[:1]) @ r for r in (rig, moved))
    np.testing.assert_allclose(relative, same, atol=1e-9)
    assert isinstance(rig_cameras("sync")[0].cameras[0], Camera)
