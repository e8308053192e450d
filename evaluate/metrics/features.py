"""Patch features of images by a vision transformer from a user's folder: for feature consistency."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orbit4d.datasets.core.errors import InputError

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PatchFeatures:
    """A DINOv2-like transformer (of `transformers`) whose patches are the features. Nothing is fetched."""

    def __init__(self, model: Any, patch: int) -> None:
        self.model, self.patch = model.eval(), patch

    @classmethod
    def from_folder(cls, folder: str | Path) -> PatchFeatures:
        """Load a folder with config.json and safetensors weights. Raises InputError for anything else."""
        from transformers import AutoModel

        path = Path(folder)
        if not (path / "config.json").is_file():
            raise InputError(f"{folder}: holds no config.json; give the folder of a DINOv2 model")
        try:
            # No code of the folder runs, and no pickle is read.
            model = AutoModel.from_pretrained(str(path), local_files_only=True, use_safetensors=True)
            patch = int(model.config.patch_size)
        except (OSError, ValueError, KeyError, AttributeError) as error:
            why = " ".join(str(error).split())[:160]
            raise InputError(f"{folder}: is no vision transformer with patches ({why})") from None
        return cls(model, patch)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Features [V, h, w, C] of images [V, 3, H, W] in [0, 1], a grid cell a patch; H and W are brought to
        multiples of the patch."""
        h, w = (max(side // self.patch, 1) for side in images.shape[-2:])
        size = (h * self.patch, w * self.patch)
        fitted = torch.nn.functional.interpolate(images, size, mode="bilinear", antialias=True)
        mean, std = (torch.tensor(x, dtype=images.dtype).view(3, 1, 1) for x in (_MEAN, _STD))
        tokens = self.model(pixel_values=(fitted - mean) / std).last_hidden_state
        # What stands before the patches is the class token and registers.
        return tokens[:, -h * w :].reshape(len(images), h, w, -1)
