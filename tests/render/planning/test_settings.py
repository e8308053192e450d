"""The scene description and the plan: presets, draws, the published camera, shared pictures."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from orbit4d.datasets.core.errors import InputError
from orbit4d.render.planning.settings import PRESETS, RenderSettings, preset
from orbit4d.render.planning.views import plan_action


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_the_trip_through_json(name: str) -> None:
    settings = PRESETS[name]
    assert settings.preset == name
    assert RenderSettings.from_config(json.loads(json.dumps(settings.as_config()))) == settings


def test_diffusion4d_is_the_published_script() -> None:
    """Facts of VITA-Group/Diffusion4D, rendering/blender.py, and of Blender 3.2's start-up file."""
    s = PRESETS["diffusion4d"]
    e = s.engine
    assert (e.samples, e.adaptive_threshold, e.denoise, e.filter_width) == (128, 0.01, True, 0.01)
    assert (e.diffuse_bounces, e.glossy_bounces, e.transparent_bounces, e.transmission_bounces) == (
        1,
        1,
        3,
        3,
    )
    assert (e.view_transform, s.normalise, s.window, s.closed) == (
        "Filmic",
        "first_frame",
        "raw_frames",
        True,
    )
    assert (s.frames, s.resolution, s.radius, s.merge_vertices) == (24, 256, 2.0, True)
    assert [sun.energies for sun in s.lights.suns] == [(3, 4, 5), (2, 3, 4), (3, 4, 5), (1, 2, 3)]
    assert [sun.rotation_deg for sun in s.lights.suns] == [
        (45, 0, -45),
        (45, 0, 135),
        (-45, 0, -225),
        (180, 0, 0),
    ]


@pytest.mark.parametrize("fraction", [0.0, 0.37, 0.99])
@pytest.mark.parametrize("asked_elevation", [0, 5, 30])
def test_diffusion4d_puts_the_camera_where_the_published_formula_does(
    fraction: float, asked_elevation: int
) -> None:
    """angle = 2π(1 − t + az), direction (sin, cos, −elevation/180) normalised, camera = −2 · direction."""
    settings = replace(
        PRESETS["diffusion4d"], azimuths_deg=(-360.0 * fraction,), elevation_deg=float(asked_elevation)
    )
    plan = plan_action(settings, "uid", (0.0, 23 / 24))
    for clip in plan.clips:
        for i, camera in enumerate(clip.cameras):
            t = 0.0 if clip.rig == "front_view" else i / 23
            angle = 2.0 * math.pi * (1.0 - t + fraction)
            direction = np.array([math.sin(angle), math.cos(angle), -asked_elevation / 180.0])
            direction /= np.linalg.norm(direction)
            np.testing.assert_allclose(camera.position, -2.0 * direction, atol=1e-12)
            np.testing.assert_allclose(-camera.c2w[:3, 2], direction, atol=1e-12)
            # "-Z forward, Y up" of the track quaternion: no roll.
            assert abs(camera.c2w[2, 0]) < 1e-12 and camera.c2w[2, 1] > 0
            assert camera.fov_x_deg == pytest.approx(39.5978, abs=1e-3)


def test_equal_pairs_are_rendered_once() -> None:
    window = (0.0, 1.0)
    assert len(plan_action(PRESETS["default"], "x", window).views) == 70
    assert len(plan_action(replace(PRESETS["default"], closed=True), "x", window).views) == 68
    # Published static orbits show frame 1, which front view and dynamic orbit pass as well.
    assert len(plan_action(PRESETS["diffusion4d"], "x", window).views) == 67


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("orbits", [1, 3])
def test_every_frame_points_at_its_own_camera_and_moment(name: str, orbits: int) -> None:
    plan = plan_action(preset(name, orbits=orbits, frames=7), "some-uid", (0.25, 2.0))
    assert len({(view.camera, view.seconds) for view in plan.views}) == len(plan.views)
    for clip in plan.clips:
        for camera, seconds, k in zip(clip.cameras, clip.seconds, clip.views, strict=True):
            assert plan.views[k].camera == camera and plan.views[k].seconds == seconds
    # Moment by moment, so that the scene is evaluated once for each.
    assert [s.seconds for s in plan.views] == sorted(s.seconds for s in plan.views)


def test_an_orbit_plays_its_share_of_the_window_from_the_same_start() -> None:
    settings = preset("default", frames=5, orbits=3, azimuths_deg=(0.0,) * 3, window_shares=(1.0, 0.25))
    whole, quarter, further = (
        clip for clip in plan_action(settings, "x", (1.0, 3.0)).clips if clip.rig == "dynamic_orbit"
    )
    assert whole.time == further.time == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert whole.seconds == further.seconds == [1.0, 1.5, 2.0, 2.5, 3.0]
    assert quarter.time == [0.0, 0.0625, 0.125, 0.1875, 0.25]
    assert quarter.seconds == [1.0, 1.125, 1.25, 1.375, 1.5]
    still = [c for c in plan_action(settings, "x", (1.0, 3.0)).clips if c.rig == "static_orbit"]
    assert all(c.views == still[0].views for c in still), "one static orbit, rendered once"


def test_a_dataset_of_whole_windows_has_the_settings_it_always_had() -> None:
    assert "window_shares" not in PRESETS["default"].as_config()
    shared = preset("default", window_shares=(1.0, 0.25))
    assert RenderSettings.from_config(json.loads(json.dumps(shared.as_config()))) == shared


@pytest.mark.parametrize("bad", [0.0, -0.5, 1.5])
def test_a_share_of_nothing_or_of_more_than_all_is_refused(bad: float) -> None:
    with pytest.raises(InputError, match="window share"):
        preset("default", window_shares=(1.0, bad))


def test_time_runs_over_the_window() -> None:
    for clip in plan_action(preset("default", frames=5), "x", (1.0, 3.0)).clips:
        if clip.rig == "static_orbit":
            assert clip.time == [0.0] * 5 and clip.seconds == [1.0] * 5
        else:
            assert clip.time == [0.0, 0.25, 0.5, 0.75, 1.0] and clip.seconds == [1.0, 1.5, 2.0, 2.5, 3.0]


def test_draws_belong_to_the_asset_alone() -> None:
    settings = preset("default", orbits=4, elevation_range_deg=(5, 30))
    more = replace(settings, orbits=6, frames=5)
    for uid in ("a", "b"):
        assert [settings.azimuth0_of(uid, k) for k in range(4)] == [
            more.azimuth0_of(uid, k) for k in range(4)
        ]
        assert settings.sun_energies_of(uid) == more.sun_energies_of(uid)
        assert 5 <= settings.elevation_of(uid) <= 30
    assert settings.azimuth0_of("a", 0) == 0.0
    assert settings.azimuth0_of("a", 1) != settings.azimuth0_of("b", 1)
    assert settings.azimuth0_of("a", 1) != replace(settings, seed=1).azimuth0_of("a", 1)
    drawn = {settings.sun_energies_of(str(i)) for i in range(60)}
    for suns in drawn:
        assert all(e in sun.energies for e, sun in zip(suns, settings.lights.suns, strict=True))
    assert len(drawn) > 20


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"rigs": ("sideways",)}, "sideways"),
        ({"rigs": ()}, "rig"),
        ({"frames": 0}, "frames"),
        ({"samples": 0}, "samples"),
        ({"passes": ("smell",)}, "smell"),
        ({"radius": 0.3}, "radius"),
        ({"frames": 1, "closed": True}, "closed"),
        ({"elevation_deg": 90.0}, "elevation"),
    ],
)
def test_values_without_sense_are_refused_in_one_line(changes: dict, word: str) -> None:
    with pytest.raises(InputError, match=word) as caught:
        preset("default", **changes)
    assert "\n" not in str(caught.value)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(InputError, match="best"):
        preset("best")
