"""Plans of rigs, drawn cameras and lights: what is shared, what is told, what stays as it was."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from orbit4d.datasets.cameras.camera import orbit
from orbit4d.datasets.cameras.checks import camera_faults, winding_numbers
from orbit4d.datasets.cameras.rig_files import FileRig
from orbit4d.datasets.core.errors import InputError
from orbit4d.render.planning.asked import fields_of
from orbit4d.render.planning.framing import FramedFor, Framing, camera_load, fit, fit_all, frame_load
from orbit4d.render.planning.light_settings import BUILTIN
from orbit4d.render.planning.lights import lightings_of
from orbit4d.render.planning.orbit_cameras import Optics, largest_blur, opening
from orbit4d.render.planning.settings import PRESETS, RenderSettings, preset
from orbit4d.render.planning.views import ClipPlan, Plan, plan_action

WINDOW = (0.0, 1.0)


def asked(name: str = "default", **options: object) -> RenderSettings:
    """Settings as the command makes them of its options."""
    settings = preset(name, **fields_of(options))
    assert RenderSettings.from_config(json.loads(json.dumps(settings.as_config()))) == settings
    return settings


def of_rig(plan: Plan, rig: str) -> list[ClipPlan]:
    return [clip for clip in plan.clips if clip.rig == rig]


# Rigs -----------------------------------------------------------------------------------------------------


def test_equal_pairs_are_rendered_once_across_rigs() -> None:
    """The ring's first camera is the front view's; `sync` and `sync:3` share three cameras."""
    settings = asked(frames=5, rigs=("front_view", "ring:4", "sync", "sync:3"))
    plan = plan_action(settings, "fox", WINDOW)
    assert [len(of_rig(plan, rig)) for rig in ("front_view", "ring_4", "sync", "sync_3")] == [1, 4, 10, 3]
    assert len(plan.views) == 5 * (4 + 10)
    assert of_rig(plan, "front_view")[0].views == of_rig(plan, "ring_4")[0].views
    assert [c.views for c in of_rig(plan, "sync_3")] == [c.views for c in of_rig(plan, "sync")[:3]]
    for clip in plan.clips:
        for camera, seconds, k in zip(clip.cameras, clip.seconds, clip.views, strict=True):
            assert plan.views[k].camera == camera and plan.views[k].seconds == seconds


def test_zeros_of_either_sign_are_one_camera() -> None:
    file = FileRig.from_config(
        {
            "column": "own",
            "cameras": [
                {
                    "label": label,
                    "c2w": [(orbit(1, size=(64, 64))[0].c2w * [1, 1, 1, 1] + zero).ravel().tolist()],
                    "intrinsics": [90.0, 90.0, 32.0, 32.0, 64, 64],
                }
                for label, zero in (("a", 0.0), ("b", -0.0))
            ],
        }
    )
    plan = plan_action(
        preset("default", frames=2, resolution=64, rigs=("own",), own_rigs=(file,)), "x", WINDOW
    )
    assert len(plan.clips) == 2 and len(plan.views) == 2


def test_draws_add_cameras_and_rigs_that_are_not_drawn_have_one() -> None:
    settings = asked(frames=2, rigs=("sync:4", "sync_basic"), draws=3)
    plan = plan_action(settings, "fox", WINDOW)
    drawn = of_rig(plan, "sync_4")
    assert [c.orbit for c in drawn] == list(range(12))
    assert [c.facts["rig_draw"] for c in drawn] == [0] * 4 + [1] * 4 + [2] * 4
    assert [c.facts["camera_label"] for c in drawn[4:8]] == ["cam01", "cam02", "cam03", "cam04"]
    assert len({c.cameras[0] for c in drawn}) == 12 and len(of_rig(plan, "sync_basic")) == 10
    once = plan_action(asked(frames=2, rigs=("sync:4",)), "fox", WINDOW)
    assert [c.cameras for c in once.clips] == [c.cameras for c in drawn[:4]]


def test_a_rig_does_not_change_the_framing_or_the_old_rigs() -> None:
    before, after = (
        plan_action(asked(frames=4, elevation_range_deg=(5, 30), rigs=rigs), "fox", WINDOW)
        for rigs in (RenderSettings.rigs, (*RenderSettings.rigs, "sync", "hemi36_2m_0"))
    )
    alone = plan_action(asked(frames=4, elevation_range_deg=(5, 30), rigs=("sync",)), "fox", WINDOW)
    assert before.framed_for == after.framed_for == alone.framed_for
    assert [c.cameras for c in before.clips] == [c.cameras for c in after.clips[:3]]


def test_a_still_asset_has_no_rigs() -> None:
    settings = asked(frames=2, rigs=("static_orbit", "sync"))
    assert [clip.rig for clip in plan_action(settings, "x", (0.0, 0.0), moving=False).clips] == [
        "static_orbit"
    ]


# Drawn cameras --------------------------------------------------------------------------------------------

DRAWS = {
    "elevation": "uniform:-10:40", "radius": "uniform:1.5:3", "fov": "choice:30:50",
    "azimuth": "uniform:0:360", "roll": "normal:0:5:-10:10", "turns": "uniform:0.3:1",
    "aperture": "loguniform:1.4:11",
}  # fmt: skip


def test_each_orbit_draws_for_itself_and_for_good() -> None:
    few, more = (
        plan_action(asked(frames=3, orbits=n, **some), "fox", WINDOW)
        for n, some in ((2, DRAWS), (4, {**DRAWS, "easing": "uniform:1:2", "direction": "random"}))
    )
    facts = [of_rig(plan, "dynamic_orbit") for plan in (few, more)]
    for a, b in zip(*facts):
        assert (a.azimuth0_deg, a.elevation_deg, a.radius) == (b.azimuth0_deg, b.elevation_deg, b.radius)
        for name in ("roll_deg", "fov_x_deg", "f_number"):
            assert a.facts["camera_draw"][name] == b.facts["camera_draw"][name]
        assert abs(a.facts["camera_draw"]["turns"]) == abs(b.facts["camera_draw"]["turns"])
    assert len({clip.elevation_deg for clip in facts[1]}) == 4
    for clip in facts[1]:
        assert -10 <= clip.elevation_deg <= 40 and 1.5 <= clip.radius <= 3
        assert clip.cameras[0].fov_x_deg in (pytest.approx(30), pytest.approx(50))
        assert clip.optics == Optics(clip.facts["camera_draw"]["f_number"])
    others = plan_action(asked(frames=3, orbits=2, **DRAWS), "hare", WINDOW)
    assert of_rig(others, "dynamic_orbit")[0].elevation_deg != facts[0][0].elevation_deg


def test_the_front_view_is_the_first_view_of_its_orbit() -> None:
    plan = plan_action(asked(frames=4, orbits=2, path="spiral", rise="20", **DRAWS), "fox", WINDOW)
    for turning, front in zip(of_rig(plan, "dynamic_orbit"), of_rig(plan, "front_view")):
        assert set(front.cameras) == {turning.cameras[0]} and front.optics == turning.optics


def test_numbers_stay_the_settings_they_always_were() -> None:
    settings = asked(elevation="20", radius="2.5", fov="50")
    assert settings == preset("default", elevation_deg=20.0, radius=2.5, fov_x_deg=50.0)
    for name in ("cameras", "own_rigs", "draws", "metres_per_unit"):
        assert name not in PRESETS["default"].as_config()
    assert set(PRESETS["default"].as_config()["lights"]) == {
        "suns", "shadows", "world_grey", "environment", "environment_strength",
    }  # fmt: skip
    plain = plan_action(PRESETS["default"], "x", WINDOW)
    assert all(clip.facts == {} and clip.optics is None and clip.light == 0 for clip in plain.clips)


@pytest.mark.parametrize("path", ["circle", "vertical", "spiral", "spline"])
def test_rows_of_drawn_cameras_are_found_sound(path: str) -> None:
    more = {"spline": {"key_poses": "0,0,2; 60,30,1.5; 120,10,2.5"}, "spiral": {"rise": "25"}}.get(path, {})
    plan = plan_action(asked(frames=6, path=path, elevation="10", roll="5", **more), "fox", WINDOW)
    for clip in plan.clips:
        row = {
            "n_frames": 6, "rig": clip.rig, "c2w": [c.c2w.ravel() for c in clip.cameras], "time": clip.time,
            "seconds": clip.seconds, "offsets": [0] * 6, "lengths": [1] * 6, "fl_x": 1.0, "fl_y": 1.0,
            "azimuth0_deg": clip.azimuth0_deg, "elevation_deg": clip.elevation_deg, "radius": clip.radius,
            "camera_draw": json.dumps(clip.facts["camera_draw"]),
        }  # fmt: skip
        assert camera_faults(row) == []
        if clip.rig != "front_view":
            assert camera_faults({**row, "radius": 3.0}), "a wrong radius is found"
            shifted = [c.c2w + np.eye(4)[:, [3]] * 0 for c in clip.cameras]
            shifted[3] = shifted[3].copy()
            shifted[3][:3, 3] += 0.05
            assert camera_faults({**row, "c2w": [m.ravel() for m in shifted]}), "a camera that looks past"


# Framing --------------------------------------------------------------------------------------------------


def test_a_camera_s_load_is_that_of_what_it_sees(seed: int) -> None:
    """At a scale of 1 / load the furthest vertex touches the frame's edge."""
    points = np.random.default_rng(seed).uniform(-0.5, 0.5, (200, 3))
    plan = plan_action(
        asked(frames=5, path="spiral", rise="50", roll="20", fov="50", radius="1.8"), "x", WINDOW
    )
    (framed,) = {clip.frames_for for clip in plan.clips if clip.frames_for}
    load = framed.load(points, 0.0)
    edges = []
    for camera in framed.cameras:
        pixels, depth = camera.project(points / load)
        assert (depth > 0).all()
        edges.append(np.abs(pixels / (camera.w / 2) - 1.0).max())
    assert max(edges) == pytest.approx(1.0, abs=1e-9)
    fitted = fit_all(Framing(1.0, (0.0, 0.0, 0.0)), [points], [framed], 0.1)
    worst = max(np.abs(c.project(fitted.apply(points))[0] / (c.w / 2) - 1.0).max() for c in framed.cameras)
    assert worst <= 0.9 + 1e-9


def test_a_circle_s_load_bounds_that_of_its_cameras(seed: int) -> None:
    points = np.random.default_rng(seed).uniform(-0.5, 0.5, (50, 3))
    around = orbit(360, 2.0, 15.0)
    half_tan = around[0].w / 2 / around[0].fl_x
    one, bound = camera_load(points, around, 0.0), frame_load(points, 2.0, half_tan, 15.0)
    # 360 azimuths stand for all of them: the bound is met within half a degree.
    assert one <= bound + 1e-12 and bound / one < 1.001


def test_framing_for_many_is_framing_for_the_tightest(seed: int) -> None:
    points = np.random.default_rng(seed).uniform(-0.5, 0.5, (50, 3))
    box = Framing(1.0, (0.0, 0.0, 0.0))
    each = [fit(box, [points], radius, 40.0).scale for radius in (2.0, 1.2)]
    assert fit_all(box, [points], [FramedFor(2.0, 40.0), FramedFor(1.2, 40.0)]).scale == min(each)


# Depth of field -------------------------------------------------------------------------------------------


def test_blur_is_that_of_a_thin_lens() -> None:
    """50 mm, f/2.8, focus 2 m, point at 2.5 m: 0.092 mm of 36 mm, 0.65 px of 256 (0.64 where the image lies
    in the focal plane, as for a pinhole of the same view)."""
    camera = orbit(1, fov_x_deg=float(2 * np.degrees(np.arctan(36 / 100))))[0]
    assert opening(camera, Optics(2.8)) == pytest.approx(0.05 / 2.8)
    diameter = 2 * largest_blur(camera, Optics(2.8), np.array([[0.0, 0.5, 0.0]]))
    assert diameter == pytest.approx(0.65, abs=0.02)
    assert largest_blur(camera, Optics(2.8), np.zeros((1, 3))) == 0.0
    # A rig of 2 metres a unit: the same lens opens half as wide in units.
    assert opening(camera, Optics(2.8, 36.0, 2.0)) == pytest.approx(0.025 / 2.8)


def test_a_rig_takes_the_aperture_of_its_lens() -> None:
    settings = asked(frames=2, rigs=("sync_basic", "hemi36_4m_0", "front_view"), aperture="lens")
    plan = plan_action(settings, "x", WINDOW)
    assert {c.optics for c in of_rig(plan, "sync_basic")} == {Optics(5.0, 23.76, 2.0)}
    assert {c.optics for c in of_rig(plan, "hemi36_4m_0")} == {Optics(10.0, 23.76, 2.0)}
    assert {c.optics for c in of_rig(plan, "front_view")} == {None}
    assert of_rig(plan, "sync_basic")[0].facts["camera_draw"] == {"f_number": 5.0, "focus": "centre"}


# Lights ---------------------------------------------------------------------------------------------------


def test_the_first_light_is_the_preset_s_and_further_ones_are_drawn() -> None:
    settings = asked(frames=2, n_lights=3)
    first, *others = lightings_of(settings, "fox")
    assert first.facts == () and [lamp.energy for lamp in first.lamps] == list(
        settings.sun_energies_of("fox")
    )
    assert [lamp.rotation_deg for lamp in first.lamps] == [sun.rotation_deg for sun in settings.lights.suns]
    for other in others:
        assert dict(other.facts)["kind"] == "suns" and 0 <= other.turn_deg < 360
        for lamp, sun in zip(other.lamps, settings.lights.suns):
            assert lamp.energy in sun.energies and lamp.rotation_deg is not None
            assert lamp.rotation_deg[2] == sun.rotation_deg[2] + other.turn_deg
    assert lightings_of(asked(frames=2, n_lights=5), "fox")[:3] == [first, *others]
    assert lightings_of(settings, "hare")[1] != others[0]


def test_a_clip_is_rendered_under_each_light() -> None:
    settings = asked(frames=4, n_lights=3, rigs=("dynamic_orbit", "front_view"))
    plan = plan_action(settings, "fox", WINDOW)
    assert [(clip.rig, clip.light) for clip in plan.clips] == [
        (rig, n) for rig in ("dynamic_orbit", "front_view") for n in range(3)
    ]
    assert len(plan.views) == 3 * 7, "the front's first view is the orbit's, under each light"
    order = [(view.seconds, view.light) for view in plan.views]
    assert order == sorted(order), "moment by moment, light by light"


def test_panoramas_are_dealt_out_before_one_repeats() -> None:
    settings = asked(environment="builtin", n_lights=16, light_strength="uniform:0.5:2")
    lights = lightings_of(settings, "fox")
    assert {light.environment for light in lights[:8]} == set(BUILTIN)
    assert [light.environment for light in lights[8:]] == [light.environment for light in lights[:8]]
    assert all(light.lamps == () and light.is_levelled and 0.5 <= light.strength <= 2 for light in lights)
    assert len({light.turn_deg for light in lights}) == 16


def test_point_lamps_stand_around_and_above_the_object() -> None:
    for light in lightings_of(asked(n_lights=20, light_kind="points"), "fox"):
        for lamp in light.lamps:
            assert lamp.place is not None and lamp.place[2] > 0 and 2.0 <= np.linalg.norm(lamp.place) <= 4.0
            irradiance = lamp.energy / (4 * np.pi * np.linalg.norm(lamp.place) ** 2)
            assert 0.7 <= irradiance <= 2.9
    kinds = [dict(light.facts)["kind"] for light in lightings_of(asked(n_lights=40, light_kind="any"), "fox")]
    assert set(kinds) == {"suns", "points"}


# Bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"rigs": ("circle",)},
            "unknown rig 'circle'; choose from static_orbit, dynamic_orbit, front_view, sync",
        ),
        ({"rigs": ("sync:0",)}, "rig sync:0: 0 cameras"),
        ({"rigs": ("sync", "sync")}, "rig sync is named twice"),
        ({"draws": 0}, "draws is 0"),
        ({"metres_per_unit": 0.0}, "metres per unit"),
        ({"elevation": "beta:1:2"}, "--elevation beta:1:2: unknown distribution 'beta'"),
        ({"elevation": "steep"}, "--elevation steep: not numbers"),
        ({"elevation": "uniform:0:95"}, "--elevation uniform:0:95: values must lie within -89 to 89"),
        ({"elevation": "uniform:0:9", "elevation_range_deg": (0, 9)}, "give one of them"),
        ({"radius": "uniform:0.2:2"}, "--radius uniform:0.2:2: values must lie within"),
        ({"aperture": "0"}, "--aperture 0: values must lie within 0.05 to 1000"),
        ({"path": "spline"}, "a spline needs two different ones"),
        ({"key_poses": "0,0,2; 1,1,2"}, "--key-poses belong to --path spline"),
        ({"rise": "10"}, "--rise belongs to --path spiral"),
        ({"n_lights": 0}, "lights is 0"),
        ({"light_strength": "-1"}, "--light-strength -1: values must lie within 0 to 1000"),
        ({"environment": "builtin", "light_kind": "points"}, "leave out --light-kind"),
        ({"view_transform": "Vivid"}, "unknown view transform 'Vivid'; choose from Standard"),
        ({"shadow_catcher": True, "passes": ("depth",)}, "--shadow-catcher: depth and normal passes"),
        ({"camera_files": ("none.json",)}, "none.json: no such file"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(options: dict, words: str) -> None:
    with pytest.raises(InputError) as caught:
        preset("default", **fields_of(options))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_panoramas_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no EXR or HDR panorama in this folder"):
        fields_of({"environment": str(tmp_path)})
    for name in ("b.exr", "a.HDR", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    found = fields_of({"environment": str(tmp_path)})["environments"]
    assert [Path(name).name for name in found] == ["a.HDR", "b.exr"] and Path(found[0]).is_absolute()


def test_a_spiral_over_a_pole_names_the_asset() -> None:
    settings = asked(path="spiral", rise="60", elevation="50")
    with pytest.raises(
        InputError, match=r"fox: a spiral from 50\.0 degrees that rises by 60\.0 passes a pole"
    ):
        plan_action(settings, "fox", WINDOW)


# Winding numbers ------------------------------------------------------------------------------------------


def test_winding_numbers_tell_inside_from_outside(seed: int) -> None:
    corners = np.array([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)], float)
    faces = [(0, 2, 4), (2, 1, 4), (1, 3, 4), (3, 0, 4), (2, 0, 5), (1, 2, 5), (3, 1, 5), (0, 3, 5)]
    points = np.random.default_rng(seed).uniform(-1.2, 1.2, (300, 3))
    found = winding_numbers(points, corners[faces])
    inside = np.abs(points).sum(1) < 1
    np.testing.assert_allclose(found, inside.astype(float), atol=1e-9)
    np.testing.assert_allclose(winding_numbers(points, corners[faces][:, ::-1]), -found, atol=1e-12)
