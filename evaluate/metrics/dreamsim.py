"""DreamSim (Fu et al. 2023, arXiv 2306.09344) by its own package, with weights of a user's folder alone."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orbit4d.datasets.core.errors import InputError

#: What the package's archive unpacks to. It fetches the archive where one of them is missing.
FILES = (
    "dino_vitb16_pretrain.pth",
    "open_clip_vitb16_pretrain.pth.tar",
    "clip_vitb16_pretrain.pth.tar",
    "dino_vitb16_lora",
    "open_clip_vitb16_lora",
    "clip_vitb16_lora",
)
#: Side of the images that the network takes.
SIZE = 224


class DreamSim:
    """The ensemble's distance of two images. Nothing is fetched."""

    def __init__(self, model: Any, digest: str) -> None:
        self.model, self.digest = model, digest

    @classmethod
    def from_folder(cls, folder: str | Path, device: str = "cpu") -> DreamSim:
        """Load the released ensemble. Raises InputError where the folder or the package is not there."""
        place = Path(folder)
        if missing := [name for name in FILES if not (place / name).exists()]:
            raise InputError(
                f"{folder}: lacks {missing[0]}; give the unpacked weights of DreamSim ({', '.join(FILES)})"
            )
        try:
            from dreamsim import dreamsim
        except ImportError as error:
            raise InputError(f"--dreamsim: needs its package ({error}); pip install dreamsim") from None
        try:
            model, _ = dreamsim(pretrained=True, device=device, cache_dir=str(place))
        except Exception as error:
            # Weights of others make torch and peft raise anything.
            why = " ".join(str(error).split())[:160]
            raise InputError(f"{folder}: cannot be loaded as DreamSim ({why})") from None
        return cls(model, folder_digest(place, FILES))

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Distances [F] of images [F, 3, H, W] in [0, 1]; 0 for equal ones."""
        if a.shape != b.shape:
            raise ValueError(f"DreamSim needs equal images, got {tuple(a.shape)} and {tuple(b.shape)}")
        fitted = [
            torch.nn.functional.interpolate(x, (SIZE, SIZE), mode="bicubic", antialias=True).clamp(0, 1)
            for x in (a, b)
        ]
        # One pair a call: the package squeezes its batch.
        return torch.stack([self.model(x[None], y[None]).reshape(()) for x, y in zip(*fitted, strict=True)])


def folder_digest(folder: Path, names: tuple[str, ...]) -> str:
    """SHA-256 over the files of these names and below them: which weights a number is of."""
    digest = hashlib.sha256()
    for name in names:
        place = folder / name
        for path in [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.is_file()):
            digest.update(str(path.relative_to(folder)).encode())
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
