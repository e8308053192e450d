"""What priors around a known scene have in common: pixels are latents, estimates are exact."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.distill.analytic import GaussianScore, MixtureScore
from orbit4d.model.distill.scenes.rendering import TABLE, Renders
from orbit4d.model.distill.score_model import Branch, Kind

Exact = GaussianScore | MixtureScore


class SceneConditions:
    """Conditions of a scene's prior; views are rendered when their size is known, once."""

    def __init__(self, build: Callable[[tuple[int, int]], list[Exact]]) -> None:
        self._build = build
        self._made: tuple[tuple[int, int], list[Exact]] | None = None

    def at(self, size: tuple[int, int]) -> list[Exact]:
        """One distribution for all samples, or one for each."""
        if self._made is None or self._made[0] != size:
            self._made = (size, self._build(size))
        return self._made[1]


class SceneScore(ABC):
    """A prior that knows the scene. Images are [B, 3, h, w], clips [B, 3, F, h, w], at any size.

    Args:
        scene: anything with `render(camera, time)`.
        s: deviation around what the scene shows.
        alphas_cumprod: table [T]; None takes Stable Diffusion's.
    """

    kind: Kind = "analytic"
    prediction = "epsilon"
    unconditional = False
    size: tuple[int, int] | None = None
    frames: int | None = None
    latent = (3, 1)
    scaling_factor = 1.0
    takes: frozenset[str] = frozenset()

    def __init__(
        self, scene: Renders, s: float = 0.1, alphas_cumprod: Tensor | None = None, name: str = "analytic"
    ) -> None:
        if not s >= 0:
            raise ValueError(f"s: needs a number of at least 0, got {s}")
        self.scene, self.s, self.name, self.source = scene, s, name, name
        self.alphas_cumprod = (TABLE if alphas_cumprod is None else alphas_cumprod).double()
        self.calls = 0

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images are their own latents."""
        return images

    def decode(self, z: Tensor) -> Tensor:
        """Likewise."""
        return z

    def condition(self, **named: Any) -> SceneConditions:
        """What `takes` names. InputError for anything else, or where something is missing."""
        unknown = sorted(key for key, value in named.items() if value is not None and key not in self.takes)
        if unknown:
            raise InputError(
                f"{self.name}: takes no {', '.join(unknown)} (it takes {', '.join(sorted(self.takes))})"
            )
        missing = sorted(name for name in self.takes if named.get(name) is None)
        if missing:
            raise InputError(f"{self.name}: needs {', '.join(missing)}")
        return self._conditioned(**named)

    @abstractmethod
    def _conditioned(self, **named: Any) -> SceneConditions: ...

    def noise(self, z_t: Tensor, t: Tensor, conditions: Any = None, branch: Branch = "cond") -> Tensor:
        """Noise estimate like z_t."""
        return self._each("noise", z_t, t, conditions)

    def clean_estimate(
        self, z_t: Tensor, t: Tensor, conditions: Any = None, branch: Branch = "cond"
    ) -> Tensor:
        """Clean estimate like z_t."""
        return self._each("clean_estimate", z_t, t, conditions)

    def _each(self, what: str, z_t: Tensor, t: Tensor, conditions: Any) -> Tensor:
        if not isinstance(conditions, SceneConditions):
            raise InputError(f"{self.name}: needs conditions: condition({', '.join(sorted(self.takes))}=...)")
        self.calls += len(z_t)
        exact = conditions.at((z_t.shape[-2], z_t.shape[-1]))
        if len(exact) == 1:
            return getattr(exact[0], what)(z_t, t)  # type: ignore[no-any-return]
        if len(exact) != len(z_t):
            raise InputError(f"{self.name}: {len(exact)} samples were described and {len(z_t)} are asked for")
        rows = [getattr(one, what)(z_t[b : b + 1], t[b : b + 1]) for b, one in enumerate(exact)]
        return torch.cat(rows)
