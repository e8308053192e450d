"""Three of VBench's scores (Huang et al. 2024, arXiv 2311.17982) with networks of a user's folder alone.

subject_consistency: DINO ViT-B/16 features; background_consistency: CLIP ViT-B/32 features;
aesthetic_quality: the LAION head over CLIP ViT-L/14. Definitions are VBench's; images are resized with
antialiasing, which its transform of videos leaves out, so numbers may differ a little from its own. Its other
dimensions need networks (AMT, RAFT, MUSIQ and more) that are not read here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from orbit4d.datasets.core.errors import InputError
from orbit4d.evaluate.metrics.clip_score import ClipScore
from orbit4d.evaluate.metrics.dreamsim import folder_digest

#: Score -> what of the folder it needs.
PARTS = {
    "subject_consistency": ("dino-vitb16",),
    "background_consistency": ("clip-vit-b-32",),
    "aesthetic_quality": ("clip-vit-l-14", "sa_0_4_vit_l_14_linear.pth"),
}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SIDE = 224


class VBench:
    """The scores whose networks a folder holds. Nothing is fetched."""

    def __init__(self, scores: dict[str, Callable[[Tensor], float]], digests: dict[str, str]) -> None:
        self.scores, self.digests = scores, digests

    @classmethod
    def from_folder(cls, folder: str | Path) -> VBench:
        """Load what is there. Raises InputError where nothing is, or a part is damaged."""
        place = Path(folder)
        here = {name: parts for name, parts in PARTS.items() if all((place / p).exists() for p in parts)}
        if not here:
            wanted = "; ".join(f"{name}: {', '.join(parts)}" for name, parts in PARTS.items())
            raise InputError(
                f"{folder}: holds no network of VBench ({wanted}); save them as transformers does"
            )
        make = {
            "subject_consistency": _subject,
            "background_consistency": _background,
            "aesthetic_quality": _aesthetic,
        }
        scores: dict[str, Callable[[Tensor], float]] = {}
        for name in here:
            try:
                scores[name] = make[name](place)
            except (OSError, ValueError, KeyError, RuntimeError, AttributeError) as error:
                why = " ".join(str(error).split())[:160]
                raise InputError(f"{folder}: {name} cannot be loaded from {here[name][0]} ({why})") from None
        return cls(scores, {name: folder_digest(place, parts) for name, parts in here.items()})

    @torch.no_grad()
    def __call__(self, video: Tensor) -> dict[str, float]:
        """Score -> value of a video [F, 3, H, W] in [0, 1], at least two frames."""
        if len(video) < 2:
            raise InputError("VBench: needs a video of at least two frames")
        return {name: score(video) for name, score in self.scores.items()}


def consistency(features: Tensor) -> float:
    """Mean over the frames after the first of the mean cosine with the frame before and with the first, none
    below 0, of features [F, D]."""
    unit = F.normalize(features, dim=-1)
    before = (unit[1:] * unit[:-1]).sum(-1).clamp(min=0)
    first = (unit[1:] * unit[:1]).sum(-1).clamp(min=0)
    return float(((before + first) / 2).mean())


def _subject(folder: Path) -> Callable[[Tensor], float]:
    from transformers import ViTModel

    model: Any = ViTModel.from_pretrained(
        str(folder / "dino-vitb16"), local_files_only=True, use_safetensors=True, add_pooling_layer=False
    )
    model = model.eval()

    def score(video: Tensor) -> float:
        h, w = video.shape[-2:]
        ratio = _SIDE / min(h, w)
        size = (int(h * ratio), int(w * ratio))
        fitted = F.interpolate(video, size, mode="bilinear", antialias=True)
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in (_MEAN, _STD))
        seen = [
            model(pixel_values=part, interpolate_pos_encoding=True).last_hidden_state[:, 0]
            for part in ((fitted - mean) / std).split(8)
        ]
        return consistency(torch.cat(seen))

    return score


def _background(folder: Path) -> Callable[[Tensor], float]:
    clip = _clip(folder / "clip-vit-b-32")
    return lambda video: consistency(torch.cat([clip.images(_square(part)) for part in video.split(8)]))


def _aesthetic(folder: Path) -> Callable[[Tensor], float]:
    clip = _clip(folder / "clip-vit-l-14")
    # No pickle but tensors.
    state = torch.load(folder / PARTS["aesthetic_quality"][1], map_location="cpu", weights_only=True)
    weight, bias = state["weight"].float(), state["bias"].float()
    return lambda video: float(
        torch.cat([F.linear(clip.images(_square(part)), weight, bias) for part in video.split(8)]).mean() / 10
    )


def _clip(folder: Path) -> ClipScore:
    from transformers import CLIPModel

    model = CLIPModel.from_pretrained(str(folder), local_files_only=True, use_safetensors=True)
    return ClipScore(model)


def _square(images: Tensor) -> Tensor:
    """The middle square, as CLIP's own transform crops."""
    h, w = images.shape[-2:]
    side = min(h, w)
    top, left = (h - side) // 2, (w - side) // 2
    return images[..., top : top + side, left : left + side]
