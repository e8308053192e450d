"""The command's options against the settings they stand for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from orbit4d.render import cli
from orbit4d.render.planning.settings import PRESETS, EngineSettings, LightSettings, RenderSettings


def parse(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> dict:
    """What the command hands to render_assets."""
    from orbit4d.render.dataset import render_assets as render

    seen: dict = {}

    def stand_in(sources, out, settings, fleet, **rest):  # type: ignore[no-untyped-def]
        seen.update(sources=sources, out=out, settings=settings, fleet=fleet, **rest)
        return render.RenderSummary()

    monkeypatch.setattr(render, "render_assets", stand_in)
    result = CliRunner().invoke(
        cli.command, ["somewhere", "--out", "there", *arguments], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return seen


def test_no_option_is_the_default_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = parse([], monkeypatch)
    assert seen["settings"] == PRESETS["default"]
    assert seen["sources"] == ("somewhere",) and seen["out"] == "there"
    assert (seen["fleet"].attempts, seen["fleet"].max_preemptions) == (2, 10)
    assert seen["shard_bytes"] == 256 << 20 and seen["fleet"].max_rss_bytes == 8 << 30


def test_options_reach_their_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (
        "--preset diffusion4d --frames 12 --resolution 64 --samples 5 --rigs front_view,static_orbit "
        "--orbits 2 --azimuths 0,-133.2 --elevation-range 5 30 --radius 2.5 --fov 50 --open "
        "--normalise union_box --window moving --window-shares 1,0.25 --passes depth,mask "
        "--environment sky.exr --shadows "
        "--no-denoise --filter-width 1.5 --view-transform AgX --device cuda --seed 3 --workers 3 "
        "--threads-per-worker 2 --gpus-per-worker 0.25 --attempts 5 --max-preemptions 1 "
        "--asset-timeout 60 --import-timeout 30 --max-rss 512M --recycle-after 9 --order given "
        "--shard-size 1M --address auto --shared-paths "
        "--transparent-bounces 7 --backface-culling --transparent-glass"
    )
    seen = parse(arguments.split(), monkeypatch)
    s: RenderSettings = seen["settings"]
    assert (s.preset, s.frames, s.resolution, s.orbits, s.seed) == ("diffusion4d", 12, 64, 2, 3)
    assert (s.rigs, s.passes) == (("front_view", "static_orbit"), ("depth", "mask"))
    assert (s.azimuths_deg, s.elevation_range_deg) == ((0.0, -133.2), (5, 30))
    assert (s.radius, s.fov_x_deg, s.closed, s.normalise, s.window) == (2.5, 50, False, "union_box", "moving")
    assert s.window_shares == (1.0, 0.25)
    assert s.lights.environment is not None and s.lights.environment.endswith("/sky.exr")
    assert s.lights.environment.startswith("/") and s.lights.shadows
    e = s.engine
    assert (e.samples, e.target_psnr_db, e.denoise, e.filter_width) == (5, None, False, 1.5)
    assert (e.view_transform, e.device, e.glossy_bounces) == ("AgX", "cuda", 1)
    assert (e.transparent_bounces, e.backface_culling, e.transparent_glass) == (7, True, True)
    f = seen["fleet"]
    assert (f.workers, f.threads_per_worker, f.gpus_per_worker, f.attempts) == (3, 2, 0.25, 5)
    assert (f.max_preemptions, f.asset_timeout, f.import_timeout, f.max_rss_bytes) == (1, 60, 30, 512 << 20)
    assert (f.recycle_after, f.order, f.address, f.shared_paths) == (9, "given", "auto", True)
    assert seen["shard_bytes"] == 1 << 20


def test_the_commands_presets_are_the_presets() -> None:
    """The command may not import the scene before it runs, so it repeats the names."""
    assert tuple(PRESETS) == cli.PRESETS


def test_engine_and_light_fields_do_not_hide_one_another() -> None:
    shared = set(EngineSettings.__dataclass_fields__) & set(RenderSettings.__dataclass_fields__)
    assert shared == {"seed"}
    assert not set(LightSettings.__dataclass_fields__) & (
        set(RenderSettings.__dataclass_fields__) | set(EngineSettings.__dataclass_fields__)
    )


def test_cameras_and_lights_reach_their_fields(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(
        json.dumps({"fl_x": 50.0, "w": 64, "h": 64, "frames": [{"transform_matrix": np.eye(4).tolist()}]})
    )
    (tmp_path / "skies").mkdir()
    (tmp_path / "skies" / "noon.exr").write_bytes(b"x")
    s: RenderSettings = parse(
        [
            *("--rigs", "sync:4,front_view", "--cameras", str(tmp_path / "mine.json"), "--draws", "2"),
            *("--metres-per-unit", "1.5", "--elevation", "uniform:-10:40", "--radius", "2.5"),
            *("--fov", "choice:30:50", "--azimuth", "uniform:0:360", "--roll", "3", "--turns", "0.5"),
            *("--easing", "uniform:-2:2", "--aperture", "2.8", "--path", "spiral", "--rise", "20"),
            *("--direction", "random", "--lights", "3", "--environment", str(tmp_path / "skies")),
            *("--light-rotation", "uniform:0:90", "--light-strength", "2", "--environment-visible"),
            "--shadow-catcher",
        ],
        monkeypatch,
    )["settings"]
    assert s.rigs == ("sync:4", "front_view", "mine") and s.own_rigs[0].column == "mine"
    assert (s.draws, s.metres_per_unit, s.radius, s.elevation_deg) == (2, 1.5, 2.5, 0.0)
    c = s.cameras
    told = {
        name: str(getattr(c, name)) for name in ("elevation", "fov", "azimuth", "roll", "turns", "easing")
    }
    assert told == {
        "elevation": "uniform:-10:40", "fov": "choice:30:50", "azimuth": "uniform:0:360", "roll": "3",
        "turns": "0.5", "easing": "uniform:-2:2",
    }  # fmt: skip
    assert (str(c.aperture), c.path, str(c.rise), c.direction) == ("2.8", "spiral", "20", "random")
    lights = s.lights
    assert (lights.n_lights, lights.environment) == (3, None)
    assert lights.environments == (str(tmp_path / "skies" / "noon.exr"),)
    assert (str(lights.light_rotation), str(lights.light_strength)) == ("uniform:0:90", "2")
    assert lights.environment_visible and lights.shadow_catcher
    own = parse(["--rigs", str(tmp_path / "mine.json")], monkeypatch)["settings"]
    assert own.rigs == ("mine",) and own.own_rigs == s.own_rigs
    assert parse(["--aperture", "lens"], monkeypatch)["settings"].cameras.rig_aperture
