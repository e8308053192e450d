"""The whole way from an orbit to a scene: measured, repeatable, killed and resumed, refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.recon4d import load_scene, reconstruct
from orbit4d.recon4d.deformation.field import Deformation
from orbit4d.recon4d.fitting.inputs import read_inputs
from orbit4d.recon4d.fitting.reconstruction import nearest_frame, score
from orbit4d.recon4d.inputs.loading import load_frames
from orbit4d.recon4d.scene import Scene


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in (".ply", ".safetensors")}


def test_a_scene_folder_holds_what_it_promises(tiny_scene: Path) -> None:
    names = {p.name for p in tiny_scene.iterdir()}
    assert names == {
        "canonical.ply", "cameras.json", "deformation.safetensors", "log.jsonl", "metrics.json", "run.json",
        "scene.json",
    }  # fmt: skip
    metrics = json.loads((tiny_scene / "metrics.json").read_text())
    assert metrics["psnr_train"] > 21 and metrics["ssim_train"] > 0.7
    assert set(metrics["heldout"]) == {"front", "orbit1"}
    assert "orbit1" in metrics["split"]["heldout"] and "dynamic_orbit" in metrics["split"]["train"]
    rows = [json.loads(line) for line in (tiny_scene / "log.jsonl").read_text().splitlines()]
    assert {"step", "loss", "psnr", "n_gaussians", "seconds"} <= set(rows[0])
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]


def test_the_fit_beats_standing_still_and_the_nearest_frame(tiny_scene: Path, tiny_dataset: Path) -> None:
    inputs = read_inputs(f"{tiny_dataset}:asset-000:Run", None, None, None, 0.0, None, None)
    scene = load_scene(tiny_scene)
    still = Scene(scene.gaussians, _Still(), scene.cameras, scene.time)
    ours, standing = score(scene, inputs.dynamic)[0], score(still, inputs.dynamic)[0]
    assert ours > standing + 2, (ours, standing)
    nearest = json.loads((tiny_scene / "metrics.json").read_text())["baselines"]["nearest_training_frame"]
    front = json.loads((tiny_scene / "metrics.json").read_text())["heldout"]["front"]
    assert set(nearest) == {"front", "orbit1"} and front["psnr"] > nearest["front"]["psnr"]
    assert len(inputs.held_out["front"]) == 11, "the first front view is a training view"


def test_a_clip_that_ends_as_it_began_has_finite_scores(moving_ball: dict[str, np.ndarray]) -> None:
    frames = load_frames(moving_ball["dynamic_orbit"])
    found = nearest_frame(frames, frames)
    assert found == (60.0, pytest.approx(1.0)), "the same picture is as good as it gets, not infinitely good"


class _Still(Deformation):
    def bind(self, means: torch.Tensor) -> None:
        pass

    def forward(self, means: Any, quats: Any, log_scales: Any, time: float) -> Any:
        return means, quats, log_scales


def test_rendering_gives_straight_rgba_without_colour_where_nothing_is(tiny_scene: Path) -> None:
    scene = load_scene(tiny_scene)
    rgba = scene.render(scene.cameras[3], scene.time[3])
    assert rgba.dtype == np.float32 and rgba.shape == (48, 48, 4)
    assert rgba.min() >= 0 and rgba.max() <= 1
    assert (rgba[rgba[..., 3] < 1 / 255][:, :3] == 0).all()
    assert rgba[0, 0, 3] < 1 / 255 and rgba[..., 3].max() > 0.9


def test_a_loaded_scene_draws_what_the_fitted_one_drew(tiny_scene: Path, tmp_path: Path) -> None:
    scene = load_scene(tiny_scene)
    scene.save(tmp_path / "copy")
    again = load_scene(tmp_path / "copy")
    for t in (0.0, 0.37):
        ours, theirs = scene.render(scene.cameras[0], t), again.render(scene.cameras[0], t)
        # quaternions are normalised and colours go through the harmonic's constant: last digits.
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_on_any_number_of_threads(
    tmp_path: Path, moving_ball: dict[str, np.ndarray], tiny_settings: Any
) -> None:
    settings = replace(tiny_settings, coarse_steps=15, fine_steps=20)
    before = torch.get_num_threads()
    try:
        for name, threads, seed in (("a", 2, 0), ("b", 1, 0), ("c", 2, 1)):
            reconstruct(
                moving_ball["dynamic_orbit"], tmp_path / name, static=moving_ball["static_orbit"],
                settings=settings, seed=seed, threads=threads, device="cpu",
            )  # fmt: skip
            assert torch.get_num_threads() == before, "torch gets its threads back"
    finally:
        torch.set_num_threads(before)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a") != files(tmp_path / "c")


CHILD = """
import sys
from dataclasses import replace
import numpy as np
from orbit4d.recon4d import reconstruct
from orbit4d.recon4d.fitting.settings import ReconstructionSettings
import json
settings = ReconstructionSettings.from_config(json.load(open(sys.argv[2])))
reconstruct(np.load(sys.argv[1]), sys.argv[3], settings=settings, threads=1, device="cpu")
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(
    tmp_path: Path, moving_ball: dict[str, np.ndarray], tiny_settings: Any
) -> None:
    settings = replace(tiny_settings, coarse_steps=30, fine_steps=150, checkpoint_seconds=0.0)
    np.save(tmp_path / "frames.npy", moving_ball["dynamic_orbit"])
    (tmp_path / "settings.json").write_text(json.dumps(settings.as_config()))
    words = [sys.executable, "-P", "-c", CHILD, str(tmp_path / "frames.npy"), str(tmp_path / "settings.json")]
    child = subprocess.Popen([*words, str(tmp_path / "killed")], stderr=subprocess.DEVNULL)
    log = tmp_path / "killed" / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and '"step": 80,' in log.read_text()):
        assert time.monotonic() < deadline and child.poll() is None, "the child ended before it was killed"
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    folder = tmp_path / "killed"
    assert (folder / "checkpoint.pt").exists() and not (folder / "scene.json").exists()
    with pytest.raises(InputError, match="not finished"):
        load_scene(folder)
    for name in ("killed", "whole"):
        reconstruct(moving_ball["dynamic_orbit"], tmp_path / name, settings=settings, threads=1, device="cpu")
    assert files(folder) == files(tmp_path / "whole")
    assert not (folder / "checkpoint.pt").exists()
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == sorted(set(steps)), "the log is one run's"


def test_finished_work_is_loaded_and_other_work_refused(
    tiny_scene: Path, tiny_dataset: Path, tiny_settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(tiny_scene)
    reconstruct(f"{tiny_dataset}:asset-000:Run", tiny_scene, settings=tiny_settings)
    assert "already finished" in capsys.readouterr().out
    with pytest.raises(InputError, match="another seed"):
        reconstruct(f"{tiny_dataset}:asset-000:Run", tiny_scene, settings=tiny_settings, seed=5)
    with pytest.raises(InputError, match="another settings"):
        reconstruct(f"{tiny_dataset}:asset-000:Run", tiny_scene, preset="best")
    assert files(tiny_scene) == before


def test_refused_input_leaves_nothing(tmp_path: Path, moving_ball: dict[str, np.ndarray]) -> None:
    out = tmp_path / "scene"
    with pytest.raises(InputError):
        reconstruct(moving_ball["dynamic_orbit"][:1], out)
    with pytest.raises(InputError, match="preset"):
        reconstruct(moving_ball["dynamic_orbit"], out, preset="slow")
    # The object runs from one corner to the other: no volume is inside all silhouettes.
    torn = np.zeros((8, 48, 48, 4), np.uint8)
    for i in range(8):
        torn[i, 5 * i : 5 * i + 6, 42 - 5 * i : 48 - 5 * i] = [200, 40, 40, 255]
    with pytest.raises(InputError, match="the cameras do not fit this video"):
        reconstruct(torn, out)
    assert not out.exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        reconstruct(moving_ball["dynamic_orbit"], tmp_path / "other")
    with pytest.raises(InputError, match="is a file"):
        reconstruct(moving_ball["dynamic_orbit"], tmp_path / "other" / "notes.txt")


def test_damaged_scenes_and_checkpoints_say_so(tmp_path: Path, tiny_scene: Path) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(tiny_scene, broken)
    path = broken / "deformation.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(WorkError, match="damaged scene"):
        load_scene(broken)
    with pytest.raises(InputError):
        load_scene(tmp_path / "nothing")
