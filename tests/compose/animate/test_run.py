"""Runs from end to end on a small figure: outputs, resumption to the bit, what stays frozen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from orbit4d.app.cli import command
from orbit4d.compose.animate import run as runs
from orbit4d.compose.animate.measures import motion_scores, static_scores
from orbit4d.compose.animate.priors.truth import open_truth, still_field
from orbit4d.compose.animate.request import Request
from orbit4d.compose.animate.run import animate
from orbit4d.compose.animate.sampling import View
from orbit4d.datasets.commands.command import run
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.model.distill.scenes import views
from orbit4d.recon4d import load_scene
from orbit4d.recon4d.gaussians import load_ply
from orbit4d.recon4d.scene import Scene

Make = Callable[..., Request]
BYTES = ("canonical.ply", "deformation.safetensors")


@pytest.fixture(scope="module")
def made(asked: Make, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A finished run, and what it said."""
    out, said = tmp_path_factory.mktemp("run") / "scene", []
    animate(asked(out), said.append)
    return out, said


def test_a_run_says_which_priors_ran_and_replaces_nothing(made: tuple[Path, list[str]]) -> None:
    out, said = made
    assert said[0] == "prior 2d: none"
    for slot, line in zip(("3d", "video", "tile"), said[1:4]):
        assert line.startswith(f"prior {slot}: analytic (analytic, analytic:")
        assert line.endswith("not a learned prior: results say nothing about real images")
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["replaced"] == []
    priors = metrics["priors"]
    assert priors["2d"] == {"spec": "none"}
    assert [priors[slot]["kind"] for slot in ("3d", "video", "tile")] == ["analytic"] * 3
    # One call a clip and a step; two images a step of the tile prior.
    assert priors["video"]["calls"] == 8 + 4
    assert priors["tile"]["calls"] == 4 * 2


def test_a_run_leaves_what_it_should(made: tuple[Path, list[str]]) -> None:
    out, _ = made
    for name in (
        *BYTES, "cameras.json", "scene.json", "metrics.json", "animate.json", "checkpoint.pt", "log.jsonl",
        "reference.png", "stages/static.ply", "stages/motion.safetensors",
    ):  # fmt: skip
        assert (out / name).is_file(), name
    record = json.loads((out / "animate.json").read_text())
    assert record["done"] == ["static", "motion", "refine"]
    assert record["run"]["settings"]["steps"] == [24, 8, 4]
    sheet = Image.open(out / "guidance" / "motion_000004_video.png")
    assert sheet.size == (4 * 16, 4 * 16)  # half of 32 pixels at that step, four frames, four rows
    assert 20 <= int(sheet.text["t"]) <= 980 and "sds" in sheet.text["guidance"]
    stages = json.loads((out / "metrics.json").read_text())["stages"]
    assert {"psnr", "alpha_iou"} <= set(stages["static"]["reference"])
    assert {"motion_error", "psnr_by_time", "drift"} <= set(stages["motion"]["truth"])
    assert 0 < stages["motion"]["share_outside_priors_and_rasteriser"] < 1


def test_motion_keeps_the_frozen_canonical_and_refine_changes_it(made: tuple[Path, list[str]]) -> None:
    out, _ = made
    still, moved, last = (load_ply(out / "stages" / f"{s}.ply") for s in ("static", "motion", "refine"))
    assert torch.equal(still.means, moved.means) and torch.equal(still.colors, moved.colors)
    assert not torch.equal(moved.means, last.means)
    stages = json.loads((out / "metrics.json").read_text())["stages"]
    assert len(stages["motion"]["canonical_sha256"]) == len(stages["refine"]["frozen_sha256"]) == 64


def test_every_command_reads_the_scene(made: tuple[Path, list[str]], tmp_path: Path) -> None:
    out, _ = made
    film = tmp_path / "film.mp4"
    assert run(command, ["film", str(out), "--out", str(film), "--frames", "3", "--size", "32"]) == 0
    assert film.stat().st_size > 0
    splat = tmp_path / "scene.splat"
    assert run(command, ["export", str(out), "--format", "splat", "--time", "0.5", "--out", str(splat)]) == 0
    assert splat.stat().st_size == 32 * len(load_scene(out).gaussians)
    folder = tmp_path / "frames"
    assert (
        run(command, ["export", str(out), "--format", "frames", "--frames", "3", "--out", str(folder)]) == 0
    )
    assert (folder / "transforms.json").is_file()
    assert (
        run(command, ["animate", "--static", str(out), "--prior-video", "none", "--out", str(tmp_path / "s")])
        == 2
    )


def test_a_finished_run_is_read_back_and_another_is_refused(
    made: tuple[Path, list[str]], asked: Make, tmp_path: Path
) -> None:
    out, _ = made
    before, said = (out / "canonical.ply").read_bytes(), []
    animate(asked(out), said.append)
    assert said[-1] == f"{out}: already finished"
    assert (out / "canonical.ply").read_bytes() == before
    with pytest.raises(InputError, match=r"another steps \(\[24, 8, 4\], asked \[24, 8, 5\]\)"):
        animate(asked(out, steps="24,8,5"))
    with pytest.raises(InputError, match="another seed"):
        animate(asked(out, seed=2))


class Killed(BaseException):
    """Stands for the end of a process: nothing of ours catches it."""


@pytest.mark.parametrize(("at", "every"), [(3, 0.0), (24, 0.0), (29, 0.0), (34, 0.0), (30, 1e9)])
def test_a_killed_run_ends_in_the_same_bytes(
    made: tuple[Path, list[str]], asked: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int,
    every: float,
) -> None:  # fmt: skip
    """Killed in each stage and between two, with a checkpoint at every step or at ends of stages alone."""
    done, real = 0, runs.take_step

    def failing(*args: Any) -> Any:
        nonlocal done
        if done == at:
            raise Killed
        done += 1
        return real(*args)

    monkeypatch.setattr(runs, "take_step", failing)
    request = asked(tmp_path / "scene", checkpoint_seconds=every)
    with pytest.raises(Killed):
        animate(request, lambda line: None)
    monkeypatch.setattr(runs, "take_step", real)
    said: list[str] = []
    animate(request, said.append)
    assert any(line.startswith("resumed at") for line in said) or at == 3 == every
    for name in BYTES:
        assert (tmp_path / "scene" / name).read_bytes() == (made[0] / name).read_bytes(), name
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (made[0], tmp_path / "scene")]
    if every == 0.0:
        assert metrics[0]["priors"] == metrics[1]["priors"]


def test_stages_may_be_run_one_after_another(
    made: tuple[Path, list[str]], asked: Make, tmp_path: Path
) -> None:
    out = tmp_path / "scene"
    with pytest.raises(InputError, match="refine continues from motion"):
        animate(asked(out, stages="refine"))
    for stages in ("static", "motion", "refine"):
        animate(asked(out, stages=stages), lambda line: None)
    for name in BYTES:
        assert (out / name).read_bytes() == (made[0] / name).read_bytes(), name


def test_motion_starts_from_a_scene_and_drops_its_field(
    made: tuple[Path, list[str]], asked: Make, tmp_path: Path
) -> None:
    said: list[str] = []
    out = tmp_path / "scene"
    animate(asked(out, static=str(made[0]), stages="motion", steps="0,3,0"), said.append)
    assert any("its field is dropped" in line for line in said)
    # A time of the scene at 0 is what its field shows there.
    still = load_ply(out / "stages" / "motion.ply")
    assert torch.allclose(still.means, load_scene(made[0]).at(0.0).means, atol=1e-6)


def test_before_its_first_step_motion_shows_the_still_object_to_the_bit(
    made: tuple[Path, list[str]], asked: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}
    real = runs._Run._run_stage

    def looked(self: Any, state: Any) -> None:
        if state.stage == "motion":
            seen["scene"] = runs.scene_of(self.plan, state)
        real(self, state)

    monkeypatch.setattr(runs._Run, "_run_stage", looked)
    animate(asked(tmp_path / "scene", steps="6,1,0"), lambda line: None)
    scene = seen["scene"]
    camera = View(10.0, 30.0, 2.0).camera(48, 39.6)
    still = Scene(scene.gaussians, still_field()).render(camera, 0.0)
    for time in (0.0, 0.3, 1.0):
        assert np.array_equal(scene.render(camera, time), still)


def test_a_number_that_is_none_ends_the_run_by_name(
    asked: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = runs.take_step

    def broken(state: Any, told: Any, steps: int) -> Any:
        if state.stage == "motion" and state.step == 2:
            with torch.no_grad():
                state.adam.values[0] = float("nan")
        return real(state, told, steps)

    monkeypatch.setattr(runs, "take_step", broken)
    with pytest.raises(WorkError, match=r"motion step 3 .*lower --lambda"):
        animate(asked(tmp_path / "scene"), lambda line: None)


def test_the_still_object_is_learned_and_a_wrong_sign_is_not(
    figure: Path, asked: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth, front = open_truth(str(figure)), View(0.0, 0.0, 2.0)
    right = animate(asked(tmp_path / "right", stages="static", steps="400,0,0"), lambda line: None)
    real = views.relative_pose
    sign = torch.tensor([1.0, -1.0, 1.0, 1.0], dtype=torch.float64)
    monkeypatch.setattr(views, "relative_pose", lambda cameras, at: real(cameras, at) * sign)
    wrong = animate(asked(tmp_path / "wrong", stages="static", steps="400,0,0"), lambda line: None)
    assert right is not None and wrong is not None
    scores = [static_scores(scene, truth, front)["held_out"] for scene in (right, wrong)]
    # A mirrored turn puts the arm on the other side: no number of steps makes up for it.
    assert scores[0] > 20.5 and scores[0] > scores[1] + 1.5, scores


def test_truth_has_no_error_and_an_unmoved_object_all_of_it(figure: Path) -> None:
    truth = open_truth(str(figure))
    scores = motion_scores(Scene(truth.gaussians_at(0.0), still_field()), truth)
    assert scores["motion_error"]["e"] == pytest.approx(1.0, abs=1e-6)
    # Colours are compared where both are solid; the raised arm shows other colours there.
    assert scores["psnr_by_time"]["0"] > 90 > scores["psnr_by_time"]["1"]
