"""Whole runs whose priors are networks: tiny random ones of the published layouts, and a run of our own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from orbit4d.app.cli import command
from orbit4d.compose.animate import run as runs
from orbit4d.compose.animate.request import Request
from orbit4d.compose.animate.run import animate
from orbit4d.compose.animate.settings import DROPPED, PRESETS, Lora
from orbit4d.datasets.commands.command import run
from orbit4d.recon4d import load_scene
from orbit4d.recon4d.gaussians import load_ply
from tests.model.distill.tiny_pipelines import write_pipeline

NOT_LEARNED = "not a learned prior: results say nothing about real images"
#: The reference image has the first 100 steps; the priors of the still object are asked at the last two.
STEPS = "103,2,2"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    made: dict[str, str] = {}

    def folder(kind: str) -> str:
        if kind not in made:
            made[kind] = str(write_pipeline(tmp_path_factory.mktemp(kind), kind))
        return made[kind]

    return folder


def request_of(out: Path, image: str, priors: dict[str, str], **changes: Any) -> Request:
    values: dict[str, Any] = {
        "image": image, "text": "a disc rolls", "preset": "draft", "steps": STEPS, "resolution": 16,
        "frames": 2, "threads": 1, "guidance_every": 2,
    }  # fmt: skip
    return Request(out, priors=priors, **{**values, **changes})


@pytest.fixture(scope="module")
def made(
    home: Callable[[str], str], photo: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """Zero-1-to-3, ModelScope and ControlNet tile with a learned word, through all stages."""
    folder = tmp_path_factory.mktemp("learned")
    token = folder / "token.safetensors"
    save_file({"<disc>": torch.full((32,), 0.1)}, token)
    priors = {"3d": home("zero123"), "video": home("modelscope"), "tile": home("tile")}
    said: list[str] = []
    more = {"token": str(token), "prompts": {"refine": "a <disc>"}}
    animate(request_of(folder / "scene", photo, priors, **more), said.append)
    return folder / "scene", said


def test_networks_fill_every_slot_and_random_ones_say_so(made: tuple[Path, list[str]]) -> None:
    out, said = made
    lines = {line.split(":")[0]: line for line in said if line.startswith("prior ")}
    assert lines["prior 2d"] == "prior 2d: none"
    for slot in ("3d", "video", "tile"):
        assert "(random, " in lines[f"prior {slot}"] and lines[f"prior {slot}"].endswith(NOT_LEARNED)
    metrics = json.loads((out / "metrics.json").read_text())
    priors = metrics["priors"]
    assert [priors[slot]["kind"] for slot in ("3d", "video", "tile")] == ["random"] * 3
    # Both branches of guidance: one clip a step; two images a step of refine; one view at two steps, and
    # more in start clips.
    assert priors["video"]["calls"] == 2 * (2 + 2) and priors["tile"]["calls"] == 2 * 2 * 2
    assert priors["3d"]["calls"] >= 2 * 2 and priors["3d"]["calls"] % 2 == 0
    assert metrics["replaced"] == []


def test_their_gradients_reach_what_each_stage_trains(made: tuple[Path, list[str]]) -> None:
    out, _ = made
    still, moved, last = (load_ply(out / "stages" / f"{s}.ply") for s in ("static", "motion", "refine"))
    assert torch.equal(still.means, moved.means) and not torch.equal(moved.means, last.means)
    scene = load_scene(out)
    assert not torch.equal(scene.at(0.0).means, scene.at(1.0).means)
    assert torch.isfinite(scene.at(1.0).means).all()
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    for stage, slots in (("static", ("3d",)), ("motion", ("video",)), ("refine", ("video", "tile"))):
        row = next(row for row in reversed(log) if row["stage"] == stage)
        assert all(row[slot]["g_rms"] > 0 for slot in slots), row


def test_what_they_said_is_drawn_through_their_decoder(made: tuple[Path, list[str]]) -> None:
    sheets = {path.name: Image.open(path) for path in (made[0] / "guidance").iterdir()}
    assert {"static_000102_3d.png", "motion_000002_video.png", "refine_000002_tile.png"} <= set(sheets)
    # Four rows; two frames of a clip.
    assert sheets["refine_000002_tile.png"].size == (2 * 16, 4 * 16)
    assert "from_cond 7.5" in sheets["refine_000002_tile.png"].text["guidance"]


def test_view_and_eval_open_the_scene(
    made: tuple[Path, list[str]], synthetic_dataset: Path, tmp_path: Path
) -> None:
    from orbit4d.recon4d.viewer.scene_viewer import Viewer

    out, results = made[0], tmp_path / "results"
    page = Viewer(load_scene(out), port=0, frames=2)
    try:
        page.show(1)
        assert [splats.visible for splats in page._splats] == [False, True]
    finally:
        page.stop()
    words = ["eval", "scene", str(out), "--truth", f"{synthetic_dataset}:asset-000", "--no-learned"]
    words += ["--views", "orbit", "--held-out-orbit", "0", "--device", "cpu", "--out", str(results)]
    assert run(command, words) == 0
    assert "psnr" in (results / "results.json").read_text().lower()


class Killed(Exception):
    pass


@pytest.mark.parametrize("estimator", ["vsd", "msd"])
def test_a_second_model_is_trained_and_a_killed_run_ends_in_the_same_bytes(
    estimator: str, home: Callable[[str], str], photo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`vsd` has a pass a step, `msd` its first ones on the object held still too."""
    quick = replace(PRESETS["draft"], lora=Lora(rate=1e-2, first=2))
    monkeypatch.setitem(PRESETS, "draft", quick)
    priors = {"2d": home("sd15"), "video": home("modelscope")}
    changes = {"estimator": estimator, "steps": "1,3,0", "checkpoint_seconds": 0.0, "offload": "idle"}
    said: list[str] = []
    animate(request_of(tmp_path / "whole", photo, priors, **changes), said.append)
    line = next(line for line in said if line.startswith("prior video"))
    assert "its second model a LoRA of rank 4 trained on renders at rate 0.01" in line
    assert any("trains a copy of itself and stays on the device" in line for line in said)
    held = json.loads((tmp_path / "whole" / "metrics.json").read_text())["priors"]["video"]
    assert held["lora"]["steps"] == {"vsd": 3, "msd": 2 + 3}[estimator] and 0 < held["lora"]["loss"] < 10
    # Guided and second model: three estimates of a clip a step.
    assert held["calls"] == 3 * 3
    real, left = runs.take_step, 1 + 2

    def failing(*args: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return real(*args)

    monkeypatch.setattr(runs, "take_step", failing)
    request = request_of(tmp_path / "killed", photo, priors, **changes)
    with pytest.raises(Killed):
        animate(request, lambda line: None)
    monkeypatch.setattr(runs, "take_step", real)
    animate(request, said.append)
    assert said.count("resumed at motion step 2") == 1
    for name in ("canonical.ply", "deformation.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert json.loads((tmp_path / "killed" / "metrics.json").read_text())["priors"]["video"] == held


def test_a_copy_of_a_run_of_our_own_is_trained_too(micro_run: Path, photo: str, tmp_path: Path) -> None:
    spec = f"run:{micro_run}"
    request = request_of(tmp_path / "scene", photo, {"3d": spec, "video": spec}, frames=None, steps="1,1,0",
                         estimator="vsd")  # fmt: skip
    scene = animate(request, lambda line: None)
    assert scene is not None and torch.isfinite(scene.at(0.5).means).all()
    held = json.loads((tmp_path / "scene" / "metrics.json").read_text())["priors"]["video"]
    assert held["lora"]["steps"] == 1 and held["lora"]["loss"] > 0


@pytest.mark.parametrize("estimator", ["ism", "csd"])
def test_other_estimators_ask_networks_too(
    estimator: str, home: Callable[[str], str], photo: str, tmp_path: Path
) -> None:
    """From a 2D prior alone, with one graph for all frames."""
    priors = {"2d": home("sd15"), "video": home("modelscope")}
    changes = {"estimator": estimator, "steps": "102,1,0", "two_pass": "off"}
    scene = animate(request_of(tmp_path / "scene", photo, priors, **changes), lambda line: None)
    assert scene is not None and torch.isfinite(scene.at(0.5).means).all()
    held = json.loads((tmp_path / "scene" / "metrics.json").read_text())["priors"]
    assert held["2d"]["kind"] == "random" and held["2d"]["calls"] == 2


def test_the_published_preset_runs_from_end_to_end(
    home: Callable[[str], str], photo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All its settings but counts and sizes: a first reference step, then priors; all heads of the field."""
    small = replace(PRESETS["published"], n_keys=5, n_gaussians=150,
                    reference=replace(PRESETS["published"].reference, first=1))  # fmt: skip
    monkeypatch.setitem(PRESETS, "published", small)
    priors = {slot: home(kind) for slot, kind in
              (("2d", "sd15"), ("3d", "zero123"), ("video", "modelscope"), ("tile", "tile"))}  # fmt: skip
    said: list[str] = []
    out = tmp_path / "scene"
    animate(request_of(out, photo, priors, preset="published", steps="3,2,2", guidance_every=0), said.append)
    lines = [line for line in said if line.startswith("prior ")]
    for line, asked in zip(lines, (
        "sds from_cond 100, t 0.2-0.6, weight 1;",
        "sds from_uncond 5, t 0.2-0.6, weight 40 x angle/180;",
        "sds from_cond 100, t 0.02-0.98, weight 1;",
        "sds from_cond 7.5, t 0.2-0.8, weight 1;",
    )):  # fmt: skip
        assert asked in line, line
    assert said.count(DROPPED) == 1
    log = [json.loads(row) for row in (out / "log.jsonl").read_text().splitlines()]
    assert [row["kind"] for row in log] == ["priors", "clip", "clip"]
    record = json.loads((out / "animate.json").read_text())
    assert record["done"] == ["static", "motion", "refine"]
    # Steps 1 and 2 of static ask both; of motion and refine one is the reference's.
    priors_asked = record["priors"]
    assert priors_asked["2d"]["calls"] == 2 * 2 and priors_asked["tile"]["calls"] == 2 * 2
    assert priors_asked["video"]["calls"] == 2 * 2
    # The canonical Gaussians are trained in motion, as the field is: all five of its heads.
    static, moved = (load_ply(out / "stages" / f"{stage}.ply") for stage in ("static", "motion"))
    assert not torch.equal(static.means, moved.means)
    start, end = (load_scene(out).at(t) for t in (0.0, 1.0))
    for name in ("means", "quats", "log_scales", "colors", "logits"):
        assert not torch.equal(getattr(start, name), getattr(end, name)), name
        assert torch.isfinite(getattr(end, name)).all(), name


def test_a_run_of_our_own_fills_both_slots(micro_run: Path, photo: str, tmp_path: Path) -> None:
    """A text that it cannot read is no hindrance; the clip's length, cameras and times are the run's."""
    said: list[str] = []
    spec = f"run:{micro_run}"
    request = request_of(tmp_path / "scene", photo, {"3d": spec, "video": spec}, frames=None, steps="103,2,0")
    animate(request, said.append)
    lines = [line for line in said if line.startswith("prior ")]
    assert all("(trained-here, " in line and NOT_LEARNED not in line for line in lines[1:3])
    held = json.loads((tmp_path / "scene" / "animate.json").read_text())
    assert held["run"]["settings"]["frames"] == 4
    priors = held["priors"]
    # Two steps each; a run without a condition to leave out has one branch, and its line says so.
    for slot, line in (("3d", lines[1]), ("video", lines[2])):
        assert priors[slot]["calls"] == 2 * (1 if "unguided" in line else 2), line
    assert not torch.equal(*(load_scene(tmp_path / "scene").at(t).means for t in (0.0, 1.0)))
    # Its clips stand on white: on a drawn colour it would pull up a white wall.
    for sheet in (tmp_path / "scene" / "guidance").iterdir():
        render = np.asarray(Image.open(sheet))[:16]
        assert (render[0, 0] == 255).all(), sheet


def test_a_clip_longer_than_the_prior_is_refused(
    home: Callable[[str], str], photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["animate", photo, "it rolls", "--out", str(tmp_path / "s"), "--prior-2d", home("sd15")]
    assert run(command, [*words, "--prior-video", home("modelscope"), "--frames", "17"]) == 2
    assert "makes clips of at most 16 frames" in capsys.readouterr().err
    assert run(command, [*words, "--prior-video", home("modelscope"), "--resolution", "17"]) == 2
    assert "no multiple of 2" in capsys.readouterr().err
