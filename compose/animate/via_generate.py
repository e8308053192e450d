"""`--via generate`: the orbit model makes the video, recon4d fits it; no gradient of a network at all."""

from __future__ import annotations

import time
from typing import Any

import torch

from orbit4d.compose.animate.request import Plan
from orbit4d.compose.animate.settings import STAGES
from orbit4d.compose.animate.stages.state import State, begin
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.index.reference import is_reference
from orbit4d.model.sampling.generate import Request, generate
from orbit4d.recon4d.fitting.reconstruction import reconstruct

#: Preset of recon4d by ours.
FIT = {"ours": "default", "published": "published", "draft": "fast"}


def generated(served: Plan, device: torch.device) -> State:
    """The state at the end of motion: what recon4d fitted to a generated orbit.

    Video and fit are kept in the run's folder, where each is resumed or taken as it is.

    Raises:
        InputError: a run that is not finished, or that does not take what is given.
    """
    request, began = served.request, time.monotonic()
    if request.static and not is_reference(request.static):
        raise InputError(
            f"--static {request.static}: --via generate animates the static orbit of a dataset: DATASET:uid"
        )
    video = request.out / "generated" / "orbit.mp4"
    if not video.is_file():
        video.parent.mkdir(parents=True, exist_ok=True)
        named: dict[str, Any] = (
            {"static": request.static}
            if request.static
            else ({"image": request.image} if request.image else {"text": request.text})
        )
        asked = Request(**named, seed=request.seed, matte=request.matte, motion=request.motion or "q0.9")
        generate(request.run, video, asked)
    folder = request.out / "generated" / "orbit"
    scene = reconstruct(str(folder), request.out / "generated" / "scene", preset=FIT[request.preset],
                        seed=request.seed, threads=request.threads)  # fmt: skip
    # A scene's field comes frozen; refine trains it.
    moving = scene.field.to(device).requires_grad_(True)
    state = begin("motion", scene.gaussians.to(device), moving, served.settings, request.seed)
    state.field.bind(state.gaussians.means)
    state.step = served.settings.steps[STAGES.index("motion")]
    state.seconds = time.monotonic() - began
    state.records["motion"] = {
        "via": "generate",
        "seconds": round(state.seconds, 2),
        "psnr_train": scene.metrics.get("psnr_train"),
    }
    return state
