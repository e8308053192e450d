"""The noise schedules of VideoMV's two networks, as diffusers schedulers.

Source: alibaba/VideoMV, tools/modules/diffusions; compared with `fixtures/videomv/schedule_*.npz`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from orbit4d.model.config.settings import TrainConfig
from orbit4d.model.diffusion.flow import FlowMatchScheduler, is_flow

TRAIN_STEPS = 1000
PREDICTIONS = ("epsilon", "v_prediction", "sample")
SPACINGS = ("leading", "trailing")


@dataclass(frozen=True)
class BaseSchedule:
    """What one of the two base networks was trained with."""

    betas: str
    """diffusers' name of the schedule of betas."""
    zero_snr: bool
    """Whether the last step is pure noise."""
    prediction: str
    """What the network predicts: "epsilon" (noise) or "v_prediction" (velocity)."""
    guidance: float
    """Ordinary classifier-free guidance scale at inference."""
    offset_noise: float
    """Weight of the per-frame constant noise in training."""


BASES = {
    "text": BaseSchedule("scaled_linear", False, "epsilon", 9.0, 0.0),
    "image": BaseSchedule("squaredcos_cap_v2", True, "v_prediction", 6.0, 0.1),
}


def make_scheduler(kind: str, prediction: str = "", spacing: str = "leading") -> DDIMScheduler:
    """DDIM sampler and noising table of VideoMV's "text" or "image" network ("static3d" is "image").

    `prediction` ("epsilon", "v_prediction", "sample") overrides what the network predicts. VideoMV's last
    step goes to `alphas_cumprod[0]`, not to 1. `set_timesteps(50)` gives 981, 961, .., 1. A number of steps
    that does not divide 1000 follows diffusers (7 steps: 853 .. 1); upstream takes one step more than asked.
    `spacing` "trailing" starts at the last step instead (4 steps: 999, 749, 499, 249), which is what few
    steps need where that step is pure noise (Lin et al. 2024, arXiv 2305.08891).
    Raises ValueError for an unknown kind, prediction or spacing.
    """
    kind = "image" if kind == "static3d" else kind
    if kind not in BASES:
        raise ValueError(f"schedule must be one of {', '.join(BASES)}, got {kind!r}")
    base = BASES[kind]
    prediction = prediction or base.prediction
    if prediction not in PREDICTIONS:
        raise ValueError(f"prediction must be one of {', '.join(PREDICTIONS)}, got {prediction!r}")
    if spacing not in SPACINGS:
        raise ValueError(f"spacing must be one of {', '.join(SPACINGS)}, got {spacing!r}")
    scheduler = DDIMScheduler(
        num_train_timesteps=TRAIN_STEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule=base.betas,
        rescale_betas_zero_snr=base.zero_snr,
        prediction_type=prediction,
        timestep_spacing=spacing,
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )
    return refine(scheduler)


def scheduler_of(config: TrainConfig) -> Any:
    """The scheduler of a run: DDIM of its base, or flow matching on Wan."""
    if config.model.base == "wan" and not config.synchronised:
        return FlowMatchScheduler(shift=config.views.shift)
    return make_scheduler(config.model.schedule, config.model.prediction, config.sample.spacing)


def load_scheduler(folder: Path) -> Any:
    """The scheduler that a pipeline's folder keeps."""
    text = (folder / "scheduler_config.json").read_text(encoding="utf-8")
    kind: Any = FlowMatchScheduler if '"FlowMatchScheduler"' in text else DDIMScheduler
    return kind.from_pretrained(folder)


def refine(scheduler: DDIMScheduler) -> DDIMScheduler:
    """Replace the scheduler's tables by the same ones computed in float64 and rounded once.

    diffusers multiplies 1000 float32 factors, which leaves the table off by up to 8e-7 and noised samples at
    small t by 2e-5. Call it again after `from_pretrained`, which rebuilds the tables. Schedules other than
    VideoMV's two are left alone.
    """
    if is_flow(scheduler):
        return scheduler
    config = scheduler.config
    if config["trained_betas"] is None and config["beta_schedule"] in ("scaled_linear", "squaredcos_cap_v2"):
        betas = betas_of(
            config["beta_schedule"], config["beta_start"], config["beta_end"], config["num_train_timesteps"],
            config["rescale_betas_zero_snr"],
        )  # fmt: skip
        alphas_cumprod = np.cumprod(1.0 - betas)
        scheduler.betas = torch.from_numpy(betas).float()
        scheduler.alphas = torch.from_numpy(1.0 - betas).float()
        scheduler.alphas_cumprod = torch.from_numpy(alphas_cumprod).float()
        final = 1.0 if config["set_alpha_to_one"] else alphas_cumprod[0]
        scheduler.final_alpha_cumprod = torch.tensor(final, dtype=torch.float32)
    return scheduler


def betas(kind: str) -> npt.NDArray[np.float64]:
    """VideoMV's betas, [1000] float64."""
    base = BASES[kind]
    return betas_of(base.betas, 0.00085, 0.012, TRAIN_STEPS, base.zero_snr)


def betas_of(
    schedule: str, start: float, end: float, steps: int, zero_snr: bool = False
) -> npt.NDArray[np.float64]:
    """The betas [steps] float64 of a schedule by diffusers' name; ValueError for another name."""
    if schedule == "linear":
        values = np.linspace(start, end, steps)
    elif schedule == "scaled_linear":
        values = np.linspace(start**0.5, end**0.5, steps) ** 2
    elif schedule != "squaredcos_cap_v2":
        raise ValueError(f"unknown schedule of betas {schedule!r}")
    else:
        # Nichol and Dhariwal's cosine, s = 0.008, betas capped at 0.999.
        times = np.arange(steps + 1) / steps
        alpha_bar = np.cos((times + 0.008) / 1.008 * np.pi / 2) ** 2
        values = np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999)
    if zero_snr:
        # Lin et al. 2024 (arXiv 2305.08891), algorithm 1: shift sqrt(alpha_bar) so that it ends at 0.
        root = np.sqrt(np.cumprod(1.0 - values))
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        alpha_bar = root**2
        values = 1.0 - np.concatenate([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]])
    return values
