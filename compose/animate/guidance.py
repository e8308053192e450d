"""What priors said, as images: rows render | noisy | clean estimate | render - g, a column for each frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from orbit4d.compose.animate.stages.asking import Answer, Slot
from orbit4d.datasets.core.atomic import replacing_file
from orbit4d.model.distill.score_model import noisy

#: Frames shown of a clip, and files of a stage.
FRAMES, MOST = 4, 200


@torch.no_grad()
def write_guidance(folder: Path, stage: str, step: int, slot: Slot, answer: Answer, images: Tensor) -> None:
    """STAGE_STEP_SLOT.png in `folder`; t and guidance stand in the file's text."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{stage}_{step:06d}_{slot.name}.png"
    if not path.exists() and len(list(folder.glob(f"{stage}_*_{slot.name}.png"))) >= MOST:
        return
    model, calls = slot.model, slot.model.calls
    z_t = noisy(model.alphas_cumprod, answer.z, answer.noise, answer.t)
    clean = model.clean_estimate(z_t, answer.t, answer.conditions)
    model.calls = calls
    n = len(images)
    chosen = sorted({i * n // min(n, FRAMES) for i in range(min(n, FRAMES))})
    rows = [_sized(images[chosen], images)]
    for latents in (z_t, clean, answer.z - answer.g):
        frames = latents[0].transpose(0, 1) if slot.is_clip else latents
        rows.append(_sized(model.decode(frames[chosen]), images))
    sheet = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)
    pixels = (sheet.clamp(0, 1).permute(1, 2, 0).cpu().numpy() * 255 + 0.5).astype(np.uint8)
    text = PngInfo()
    text.add_text("t", ",".join(str(int(t)) for t in answer.t))
    asked = slot.asked
    text.add_text("guidance", f"{asked.estimator} {asked.form} {asked.scale:g} weight {asked.weight:g}")
    text.add_text("rows", "render, noisy, clean estimate, render - g")
    with replacing_file(path, sweep=False) as draft:
        Image.fromarray(pixels).save(draft, format="PNG", pnginfo=text)


def _sized(images: Tensor, like: Tensor) -> Tensor:
    if images.shape[-2:] == like.shape[-2:]:
        return images
    return torch.nn.functional.interpolate(images, like.shape[-2:], mode="bilinear", align_corners=False)
