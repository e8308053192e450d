"""Conditions of a prior: keyword arguments of its network for each branch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.distill.score_model import Branch


@dataclass(frozen=True)
class Conditions:
    """Made by a model's `condition`; each tensor has a leading axis of 1 or B."""

    cond: Mapping[str, Tensor]
    uncond: Mapping[str, Tensor]

    def of(self, branch: Branch, batch: int) -> dict[str, Tensor]:
        """The arguments of one branch for a batch.

        Raises:
            InputError: where a condition was made for another number of samples.
        """
        chosen = self.cond if branch == "cond" else self.uncond
        for name, value in chosen.items():
            if len(value) not in (1, batch):
                raise InputError(f"{name} was given for {len(value)} samples and {batch} are asked for")
        return {name: value.expand(batch, *value.shape[1:]) for name, value in chosen.items()}


def refuse_unknown(name: str, given: Mapping[str, object], takes: frozenset[str]) -> None:
    """InputError for a condition that a model cannot take: silence would look like obedience."""
    unknown = sorted(key for key, value in given.items() if value is not None and key not in takes)
    if unknown:
        raise InputError(f"{name}: takes no {', '.join(unknown)} (it takes {', '.join(sorted(takes))})")


def check_images(images: Tensor, what: str) -> Tensor:
    """Images [N, 3, h, w] in [0, 1], clamped.

    Raises:
        InputError: another shape, values that are not finite, or outside [0, 1] by more than 1e-3.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise InputError(f"{what}: needs [N, 3, h, w], got {list(images.shape)}")
    if not torch.isfinite(images).all():
        raise InputError(f"{what}: holds values that are not finite")
    low, high = float(images.detach().min()), float(images.detach().max())
    if low < -1e-3 or high > 1 + 1e-3:
        raise InputError(f"{what}: values from {low:.3g} to {high:.3g} are outside [0, 1]")
    return images.clamp(0, 1)
