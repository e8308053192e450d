"""Every setting of a run of `orbit4d animate`, and the presets."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from orbit4d.datasets.core.errors import InputError

STAGES = ("static", "motion", "refine")
SLOTS = ("2d", "3d", "video", "tile")
Canonical = Literal["frozen", "trained"]


@dataclass(frozen=True)
class Distilling:
    """How one prior is asked."""

    weight: float = 1.0
    """Lambda: factor on its gradient."""
    estimator: str = "sds"
    w_t: str | None = None
    """Name of w(t); None takes the estimator's own."""
    scale: float = 0.0
    """Guidance, of `form`."""
    form: str = "from_cond"
    t_range: tuple[float, float] = (0.02, 0.98)
    by_angle: bool = False
    """Multiply by the angle between camera and reference over 180 degrees."""


@dataclass(frozen=True)
class Rig:
    """Where cameras of a step stand; angles in degrees."""

    radius: float = 2.0
    fov: float = 39.5978
    elevation: float = 30.0
    """Elevations are drawn evenly in plus and minus this."""
    moving: float = 0.9
    """Share of the clips whose camera moves."""
    swing_azimuth: float = 90.0
    swing_elevation: float = 30.0
    """Largest way of a moving camera; frame i of F stands at i / F of it."""
    highest: float = 40.0
    """Elevations of a moving camera are clamped to this."""
    upper_sphere: float = 0.0
    """Share of the draws that are even over the upper half of the sphere instead."""


@dataclass(frozen=True)
class GaussianRates:
    """Adam's rates of the static stage."""

    means: float = 2e-3
    log_scales: float = 1.2e-2
    quats: float = 5e-3
    logits: float = 6e-2
    colors: float = 1.5e-2


@dataclass(frozen=True)
class Reference:
    """The steps that look at the reference image instead of asking priors of still objects."""

    first: int = 100
    """So many steps at the start of the static stage."""
    every: int = 4
    """And every so manyth after them."""
    in_motion: int = 0
    """The same in the later stages, at time 0; 0 never."""
    rgb: float = 5.0
    """Of the mean squared difference of images on the drawn background."""
    alpha: float = 0.5
    """Of that of mattes."""
    jitter: float = 0.0
    """Deviation of the camera's place and direction at these steps."""
    masked: bool = False
    """Compare colours inside the reference's matte, on black."""


@dataclass(frozen=True)
class Lora:
    """The copy of a learned video prior that `vsd` and `msd` train."""

    rank: int = 4
    rate: float = 1e-4
    """Of its Adam (ProlificDreamer)."""
    first: int = 100
    """Training passes of `msd` before its first step: they make the prior one of this object held still."""


@dataclass(frozen=True)
class Settings:
    """A whole run."""

    preset: str = "ours"
    steps: tuple[int, int, int] = (3_000, 1_000, 300)
    """Of static, motion and refine."""
    resolution: int = 64
    """Edge of the images that priors see, pixels."""
    frames: int = 8
    """Of a clip."""
    n_gaussians: int = 2_500
    start_radius: float = 0.45
    """Gaussians start in a ball of this radius, grey,"""
    start_opacity: float = 0.15
    rates: GaussianRates = field(default_factory=GaussianRates)
    final: float = 0.1
    """Each rate falls to this share of itself, exponentially, in its stage."""
    canonical: Canonical = "frozen"
    """Whether the canonical Gaussians are trained in the motion stage; refine trains them always."""
    motion_canonical_rate: float = 0.1
    """Factor on `rates` in motion, where canonical Gaussians are trained: that the static stage ends with.
    At 0.3 they take up more of what moves, and track no better than frozen ones."""
    canonical_rate: float = 0.3
    """Factor on `rates` in refine."""
    over: str = "nodes"
    n_keys: int = 17
    n_nodes: int = 120
    heads: tuple[str, ...] = ("means", "quats")
    field_rate: float = 1.2e-2
    refine_field_rate: float = 3e-3
    time_tv: float = 0.1
    rigidity: float = 20.0
    regularise_every: int = 2
    """Steps between two that pay for the field's penalties, which then count as many times as much."""
    opacity_entropy: float = 0.0
    sizes: tuple[tuple[float, float], ...] = ((0.3, 0.25), (0.3, 0.5), (0.4, 1.0))
    """Of the motion stage: share of its steps, and of the resolution."""
    precision: int = 256
    zero_rate: float = 0.2
    mirror: float = 0.5
    """How times of a clip are drawn, see `clip_times`."""
    tile_frames: int = 2
    """Frames of a clip that the tile prior sees."""
    tile_even: bool = False
    """They are evenly spread, not drawn."""
    rig: Rig = field(default_factory=Rig)
    elevation: float = 0.0
    """Of the reference view, degrees."""
    reference: Reference = field(default_factory=Reference)
    distilling: dict[str, Distilling] = field(default_factory=dict)
    """By slot."""
    lora: Lora = field(default_factory=Lora)
    scaling: Literal["pixel_mean", "sum"] = "pixel_mean"
    """pixel_mean: a prior's gradient is divided by the number of latent scalars of a frame."""
    betas: tuple[float, float] = (0.9, 0.999)
    clip_value: float = 0.0
    """Largest absolute value of a parameter's gradient in motion and refine; 0 is none."""
    checkpoint_seconds: float = 20.0
    guidance_every: int = 200
    """Steps between two images of what a prior says; 0 never."""
    eps2d: float = 0.3

    def __post_init__(self) -> None:
        if min(self.steps) < 0:
            raise InputError(f"--steps {','.join(map(str, self.steps))}: give numbers of 0 or more")
        if not any(self.steps):
            raise InputError("--steps 0,0,0: nothing is to be done; give steps to at least one stage")
        if self.frames < 2:
            raise InputError(f"--frames {self.frames}: a clip has at least 2 frames")
        if self.frames > self.precision:
            raise InputError(f"--frames {self.frames}: a clip has at most {self.precision} frames")
        if not 16 <= self.resolution <= 2048:
            raise InputError(f"--resolution {self.resolution}: give 16 to 2048 pixels")
        if self.n_keys < 2:
            raise InputError(f"a keyframes field needs at least 2 keys, got {self.n_keys}")
        if not -80 <= self.elevation <= 80:
            raise InputError(f"--elevation {self.elevation:g}: give -80 to 80 degrees")
        for slot, asked in self.distilling.items():
            if not (math.isfinite(asked.weight) and asked.weight >= 0):
                raise InputError(f"--lambda {slot}={asked.weight}: give a finite number of at least 0")

    def as_config(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


#: Animate124's shares of motion and refine follow the learned priors; closed forms need fewer steps.
LEARNED_STEPS = (3_000, 4_000, 1_500)
OURS = Settings(
    distilling={
        "2d": Distilling(1.0, scale=100.0, t_range=(0.2, 0.6)),
        "3d": Distilling(40.0, scale=5.0, form="from_uncond", t_range=(0.2, 0.6), by_angle=True),
        "video": Distilling(40.0, scale=100.0, t_range=(0.02, 0.98)),
        "tile": Distilling(160.0, scale=7.5, t_range=(0.2, 0.8)),
    }
)
#: HeliosZhao/Animate124 at d546941, its scripts; what Gaussians have no counterpart of is `DROPPED`.
PUBLISHED = replace(
    OURS,
    preset="published",
    steps=(5_000, 10_000, 5_000),
    resolution=128,
    frames=16,
    final=1.0,
    canonical="trained",
    motion_canonical_rate=1.0,
    canonical_rate=1.0,
    over="gaussians",
    n_keys=64,
    heads=("means", "quats", "log_scales", "colors", "logits"),
    field_rate=1e-3,
    refine_field_rate=1e-3,
    rigidity=0.0,
    opacity_entropy=1e-3,
    sizes=((1.0, 1.0),),
    tile_even=True,
    rig=Rig(1.8, 40.0, 45.0, 0.9, 90.0, 45.0, 90.0, 0.5),
    reference=Reference(100, 4, 4, 5.0, 0.5, 1e-3, True),
    distilling={
        "2d": Distilling(1.0, scale=100.0, t_range=(0.2, 0.6)),
        "3d": Distilling(40.0, scale=5.0, form="from_uncond", t_range=(0.2, 0.6), by_angle=True),
        "video": Distilling(1.0, scale=100.0, t_range=(0.02, 0.98)),
        "tile": Distilling(1.0, w_t="clean", scale=7.5, t_range=(0.2, 0.8)),
    },
    scaling="sum",
    betas=(0.9, 0.99),
    clip_value=1.0,
)
DROPPED = (
    "preset published: Gaussians have no lights and no normals: orientation, shading and normal "
    "smoothness are dropped, and the depth term with them (no depth network)"
)
DRAFT = replace(OURS, preset="draft", steps=(600, 200, 60), n_gaussians=1_200)
PRESETS: dict[str, Settings] = {"ours": OURS, "published": PUBLISHED, "draft": DRAFT}
#: Priors of a preset where none is named and there is no run: spec by slot.
DEFAULT_PRIORS: dict[str, dict[str, str]] = {
    "ours": {"2d": "none", "3d": "zero123-xl", "video": "modelscope", "tile": "controlnet-tile"},
    "draft": {"2d": "none", "3d": "zero123-xl", "video": "modelscope", "tile": "none"},
    "published": {"2d": "sd15", "3d": "zero123-xl", "video": "modelscope", "tile": "controlnet-tile"},
}
