"""Coefficients of spherical harmonics turned with what they lie on, degree by degree."""

from __future__ import annotations

import torch
from torch import Tensor

from orbit4d.recon4d.raster.reference import spherical_harmonics_basis


def turned_harmonics(harmonics: Tensor, turns: Tensor) -> Tensor:
    """[N, K, 3] coefficients of degrees 1 and up, of colours turned by rotations [N, 3, 3].

    What is then seen along d is what was seen along Rᵀ d. Each degree is solved at as many directions as it
    has coefficients, since a rotation keeps a degree to itself.
    """
    count = harmonics.shape[1]
    if not count:
        return harmonics
    degree = {3: 1, 8: 2, 15: 3}[count]
    own, turns = harmonics.double(), turns.double().to(harmonics.device)
    generator = torch.Generator().manual_seed(0)
    ways = torch.nn.functional.normalize(torch.randn(24, 3, generator=generator, dtype=torch.float64), dim=1)
    ways = ways.to(harmonics.device)
    here = spherical_harmonics_basis(ways, degree)
    seen = (turns.transpose(1, 2) @ ways.T).transpose(1, 2)  # [N, 24, 3]: Rᵀ d
    there = spherical_harmonics_basis(seen.reshape(-1, 3), degree).reshape(*seen.shape[:2], -1)
    parts = []
    for level in range(1, degree + 1):
        own_columns = slice(level * level, (level + 1) ** 2)
        solve = torch.linalg.pinv(here[:, own_columns])
        coefficients = own[:, level * level - 1 : (level + 1) ** 2 - 1]
        parts.append(solve @ (there[..., own_columns] @ coefficients))
    return torch.cat(parts, dim=1).to(harmonics.dtype)
