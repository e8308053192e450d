"""Where a run may start from besides an image: a video of the orbit model, a dataset's object, an asset."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from orbit4d.compose.animate.request import Request
from orbit4d.compose.animate.run import animate
from orbit4d.compose.animate.start import still
from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d import load_scene
from orbit4d.recon4d.fitting.settings import PRESETS
from orbit4d.recon4d.gaussians import load_ply

Make = Callable[..., Request]


@pytest.fixture
def short_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What recon4d fits takes a second: sizes and steps alone are others."""
    few = replace(PRESETS["fast"], n_gaussians=300, coarse_steps=20, fine_steps=20, resolution=32)
    monkeypatch.setitem(PRESETS, "fast", few)
    monkeypatch.setattr(still, "STEPS", 30)
    monkeypatch.setattr(still, "SIZE", 32)


def test_the_orbit_model_makes_the_video_and_recon4d_fits_it(
    short_fits: None, micro_run: Path, photo: str, figure: Path, tmp_path: Path
) -> None:
    out, said = tmp_path / "scene", []
    # A run and no prior of clips: generate is the default. The tile prior then refines what was fitted.
    request = Request(
        out, image=photo, run=str(micro_run), preset="draft", threads=1, steps="0,0,3", resolution=32,
        frames=4, priors={"tile": "none"},
    )  # fmt: skip
    animate(request, said.append)
    assert [line.split(":")[0] for line in said[:4]] == [f"prior {s}" for s in ("2d", "3d", "video", "tile")]
    assert all("none" in line for line in said[:4])
    assert (out / "generated" / "orbit.mp4").stat().st_size > 0
    metrics = json.loads((out / "metrics.json").read_text())
    motion = metrics["stages"]["motion"]
    assert motion["via"] == "generate" and {"psnr", "alpha_iou"} <= set(motion["reference"])
    assert metrics["replaced"] == [] and metrics["priors"]["video"] == {"spec": "none"}
    # What made the video is told with its kind, though no slot holds it.
    made = metrics["priors"]["generate"]
    assert made["kind"] == "trained-here" and made["spec"] == f"run:{micro_run}"
    assert said[-1].endswith("generate trained-here") and "motion: generated and fitted" in said[-2]
    fitted, scene = load_scene(out / "generated" / "scene"), load_scene(out)
    assert torch.equal(fitted.gaussians.means, scene.gaussians.means)
    assert (out / "stages" / "motion.ply").is_file() and (out / "stages" / "motion.safetensors").is_file()
    again: list[str] = []
    animate(request, again.append)
    assert again[-1] == f"{out}: already finished"
    with pytest.raises(InputError, match="another run"):
        animate(replace(request, run=str(micro_run.parent / "other")), lambda line: None)


def test_a_generated_scene_is_refined_by_the_tile_prior(
    short_fits: None, micro_run: Path, photo: str, figure: Path, tmp_path: Path
) -> None:
    out = tmp_path / "scene"
    request = Request(
        out, image=photo, via="generate", run=str(micro_run), preset="draft", threads=1, steps="0,0,2",
        resolution=32, frames=4, priors={"tile": f"analytic:{figure}"}, guidance_every=0,
    )  # fmt: skip
    animate(request, lambda line: None)
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics["stages"]) == {"motion", "refine"} and metrics["priors"]["tile"]["calls"] == 2 * 2
    fitted, scene = load_scene(out / "generated" / "scene"), load_scene(out)
    assert not torch.equal(fitted.gaussians.means, scene.gaussians.means)
    # The field is trained too.
    before, after = fitted.field.state_dict(), scene.field.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_still_object_comes_from_a_dataset(
    short_fits: None, asked: Make, synthetic_dataset: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    request = asked(tmp_path / "scene", static=f"{synthetic_dataset}:asset-000", steps="0,2,0")
    scene = animate(request, said.append)
    assert any(line.startswith("still object: static orbit of ") and "(8 views)" in line for line in said)
    assert "reference: the front of the still object" in said
    assert scene is not None and torch.isfinite(scene.at(1.0).means).all()
    # The canonical object is the fitted one: motion keeps it.
    first, _ = still.still_scene(f"{synthetic_dataset}:asset-000", 1)
    kept = load_ply(tmp_path / "scene" / "stages" / "motion.ply")
    assert len(kept.means) == len(first.gaussians)
    with pytest.raises(InputError, match=r"asset-404"):
        animate(asked(tmp_path / "b", static=f"{synthetic_dataset}:asset-404"), lambda line: None)


def test_a_dataset_without_a_static_orbit_is_refused(
    asked: Make, make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    data = make_dataset(tmp_path / "data", assets=1, rigs=("dynamic_orbit",))
    with pytest.raises(InputError, match="no static orbit to start from"):
        animate(asked(tmp_path / "out", static=f"{data}:asset-000"), lambda line: None)


@pytest.mark.blender
@pytest.mark.ray
def test_a_still_object_comes_from_an_asset(
    short_fits: None, asked: Make, toy: Callable[..., Path], shared_ray: Any, tmp_path: Path
) -> None:
    asset, said = toy(tmp_path / "toy.glb"), []
    scene = animate(asked(tmp_path / "scene", static=str(asset), steps="0,1,0"), said.append)
    assert any(line.startswith(f"still object: {asset} rendered from 24 views") for line in said), said
    assert scene is not None and len(scene.gaussians) > 0
