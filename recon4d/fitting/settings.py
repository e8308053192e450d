"""Every setting of a reconstruction, in one place, and the presets."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from orbit4d.datasets.core.errors import InputError


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms of the loss; 0 leaves a term out."""

    l1: float = 1.0
    """Mean absolute difference of images on a random background."""
    ssim: float = 0.1
    """1 - SSIM of the same images."""
    alpha: float = 0.5
    """Mean absolute difference of mattes."""
    lpips: float = 0.0
    """LPIPS (AlexNet) of the same images; left out, with a note, where its weights are absent."""
    depth_smoothness: float = 0.0
    """Charbonnier penalty on neighbouring expected depths inside the object (RegNeRF style)."""
    rigidity: float = 1.0
    """As rigid as possible between neighbouring control nodes."""
    smoothness: float = 5.0
    """Second difference of the nodes' paths over time."""
    plane_tv: float = 1e-4
    time_smoothness: float = 0.01
    time_l1: float = 1e-4
    """Of the HexPlane field, as hustvl/4DGaussians has them (arguments/__init__.py)."""


@dataclass(frozen=True)
class LearningRates:
    """Adam's rates at the start; every one falls to `final` times itself, exponentially."""

    means: float = 1.8e-3
    log_scales: float = 1.8e-2
    quats: float = 9e-3
    logits: float = 0.12
    colors: float = 1.8e-2
    harmonics: float = 9e-4
    """A twentieth of the colours' rate, as in 3DGS."""
    field: float = 6e-3
    hidden: float = 0.014
    """Muon's rate of the node field's hidden matrices, which rises and falls with the field's; 0 leaves them
    to Adam."""
    final: float = 0.08
    fine: float = 0.33
    """Factor on the Gaussians' own rates in the fine stage, which has only to correct what coarse found."""


@dataclass(frozen=True)
class DensitySettings:
    """When Gaussians are split, cloned, pruned and faded (Kerbl et al. 2023, section 5)."""

    every: int = 0
    """Steps between two rounds; 0 keeps the number of Gaussians as it is."""
    start: float = 0.1
    stop: float = 0.6
    """Shares of the stage between which rounds take place."""
    grow_gradient: float = 2.5e-4
    """Mean gradient of the projected centre, in normalised image units, above which a Gaussian multiplies."""
    split_scale: float = 0.02
    """Larger ones are split in two, smaller ones cloned; world units."""
    prune_opacity: float = 0.01
    max_gaussians: int = 20_000
    reset_every: int = 0
    """Steps between two opacity resets; 0 never."""


@dataclass(frozen=True)
class ReconstructionSettings:
    """A whole reconstruction."""

    n_gaussians: int = 10_000
    """Drawn on the visual hull."""
    sh_degree: int = 0
    """Degree of the harmonics by which colours depend on the direction they are seen from, 0 to 3."""
    coarse_steps: int = 1000
    """Steps that find the shape: on the static orbit, or on all frames as if they stood still."""
    deform_from: float = 0.8
    """Share of the coarse stage after which the field moves and the video joins a static orbit."""
    fine_steps: int = 9_600
    """Steps on the video, through the field."""
    static_share: float = 0.25
    """Share of the steps with deformation that look at the static orbit, when there is one."""
    unroll_share: float = 0.4
    """Share of the fine stage over which the video's times join in, outwards from the times of rest.

    Of a field of paths (see `reconstruction.anchored`); at 0 all are there at once.
    """
    path_share: float = 0.8
    """Share of `fine_steps` that a field of paths takes: it needs fewer than a network."""
    depth_shares: tuple[float, ...] = (0.4, 0.6, 0.8, 0.95)
    """Shares of the fine stage at which a field of paths settles how deep they run (see `paths.depths`)."""
    frontier_share: float = 0.5
    """Share of the steps meanwhile that look at the six times that joined in last."""
    resolution: int = 256
    """Longer side of the images that are fitted; larger input is reduced."""
    warmup_share: float = 0.3
    """Share of each stage spent at half the resolution."""
    deformation: dict[str, Any] = field(default_factory=lambda: {"kind": "nodes"})
    weights: LossWeights = field(default_factory=LossWeights)
    rates: LearningRates = field(default_factory=LearningRates)
    density: DensitySettings = field(default_factory=DensitySettings)
    exposure: bool | None = None
    """Fit a grey gain per training view, smooth along the orbit; the scene is drawn without them.

    None decides by the input: for a static orbit that orbit4d did not render beside the video, since rigs
    of others are lit each for itself.
    """
    eps2d: float = 0.3
    """Variance in px² that is added to every projected Gaussian; stored with the scene, which is drawn so."""
    views_per_step: int = 2
    """Views whose gradients are averaged for one update, each of which counts as a step.

    Two are drawn at once on two threads. Rates are raised by the square root of their number; a tenth more
    steps than with one make up for the halved number of updates.
    """
    regularise_every: int = 2
    """Steps between two that pay for the field's penalties, which then count as many times as much."""
    lpips_every: int = 4
    """Steps between two that pay for LPIPS, which costs more than drawing the image."""
    patience: int = 2_000
    """End the fine stage when the loss of whole passes over the views has not fallen for this many steps.

    Passes at one resolution are compared. 0 never.
    """
    checkpoint_seconds: float = 20.0
    """Time between two checkpoints."""
    preset: str = "default"

    def __post_init__(self) -> None:
        if self.n_gaussians < 4 or self.coarse_steps < 0 or self.fine_steps < 0:
            raise InputError("a reconstruction needs at least 4 Gaussians and steps of 0 or more")
        if not 16 <= self.resolution <= 4096:
            raise InputError(f"--resolution {self.resolution}: give 16 to 4096 pixels")
        if not all(0 < share <= 1 for share in self.depth_shares):
            raise InputError(f"depth_shares {list(self.depth_shares)}: give shares above 0 and up to 1")
        if not (math.isfinite(self.eps2d) and self.eps2d >= 0):
            raise InputError(f"eps2d {self.eps2d}: give a variance in px², 0 or more")
        if self.views_per_step not in (1, 2):
            raise InputError(f"views_per_step {self.views_per_step}: choose 1 or 2")
        if not 0 <= self.sh_degree <= 3:
            raise InputError(f"sh_degree {self.sh_degree}: choose 0 to 3")

    def as_config(self) -> dict[str, Any]:
        """JSON-able, and equal to what JSON makes of it."""
        return {**asdict(self), "depth_shares": list(self.depth_shares)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ReconstructionSettings:
        """Inverse of `as_config`."""
        nested = {"weights": LossWeights, "rates": LearningRates, "density": DensitySettings}
        found: dict[str, Any] = {k: nested[k](**v) if k in nested else v for k, v in config.items()}
        if "depth_shares" in found:
            found["depth_shares"] = tuple(found["depth_shares"])
        return cls(**found)


_DEFAULT = ReconstructionSettings()
PRESETS: dict[str, ReconstructionSettings] = {
    "fast": replace(
        _DEFAULT,
        preset="fast",
        n_gaussians=6_000,
        coarse_steps=330,
        fine_steps=2_000,
        path_share=1.0,
        warmup_share=0.5,
        deformation={"kind": "nodes", "n_nodes": 120, "width": 96},
    ),
    "default": _DEFAULT,
    "best": replace(
        _DEFAULT,
        preset="best",
        n_gaussians=16_000,
        coarse_steps=1_650,
        fine_steps=20_000,
        deformation={"kind": "nodes", "n_nodes": 400, "width": 160},
        weights=replace(_DEFAULT.weights, lpips=0.05),
    ),
    # Diffusion4D section 2.2: 5,000 coarse and 2,000 fine iterations of 4DGS; its weights are undisclosed.
    "published": replace(
        _DEFAULT,
        preset="published",
        coarse_steps=5_000,
        fine_steps=2_000,
        views_per_step=1,
        warmup_share=0.0,
        deformation={"kind": "hexplane"},
        density=DensitySettings(every=100),
    ),
}
