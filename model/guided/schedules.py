"""Noise schedules as guided sampling sees them: levels, conversions between spaces, one step.

A state is x_t = a x0 + s n. Everything is compared in the variance-exploding view x_t / a = x0 + sigma n with
sigma = s / a, so that one rule of guidance serves Stable Video Diffusion (VE Euler), DDIM and flow matching.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Prediction = Literal["eps", "v", "x0", "flow"]
Levels = npt.NDArray[np.float64]

#: diffusers' names of what a network predicts.
PREDICTIONS: dict[str, Prediction] = {
    "epsilon": "eps",
    "v_prediction": "v",
    "sample": "x0",
    "flow_prediction": "flow",
}


class Schedule(Protocol):
    """What `guided_sample` needs of a schedule of N steps."""

    sigmas: Levels
    """Levels s / a [N + 1], decreasing; the last is the level that sampling ends at."""

    prediction: Prediction
    """Space of the outputs that `step` takes."""

    def to_ve(self, x: Tensor, i: int) -> Tensor:
        """The state before step i in the variance-exploding view."""

    def from_ve(self, x: Tensor, i: int) -> Tensor:
        """The inverse of `to_ve`."""

    def to_x0(self, output: Tensor, i: int, x: Tensor) -> Tensor:
        """The clean estimate that an output at the state x before step i means."""

    def from_x0(self, x0: Tensor, i: int, x: Tensor) -> Tensor:
        """The output that means this clean estimate."""

    def step(self, output: Tensor, i: int, x: Tensor) -> Tensor:
        """The state after step i."""


class EulerVE:
    """Euler steps on the variance-exploding state (Karras et al. 2022); outputs are clean estimates.

    Those of another `prediction` are converted: "eps" x - sigma o, "flow" (x - sigma o) / (1 + sigma), and
    "v" as Stable Video Diffusion's.

    Raises:
        ValueError: for levels that are no decreasing [N + 1], and another prediction.
    """

    def __init__(self, sigmas: npt.ArrayLike | Tensor, prediction: Prediction = "x0") -> None:
        self.sigmas = decreasing(sigmas)
        self.prediction = known_prediction(prediction)

    def to_ve(self, x: Tensor, i: int) -> Tensor:
        return x

    def from_ve(self, x: Tensor, i: int) -> Tensor:
        return x

    def to_x0(self, output: Tensor, i: int, x: Tensor) -> Tensor:
        s = float(self.sigmas[i])
        if self.prediction == "eps":
            return x - s * output
        if self.prediction == "v":
            return x / (s * s + 1) - output * (s / (s * s + 1) ** 0.5)
        return (x - s * output) / (1 + s) if self.prediction == "flow" else output

    def from_x0(self, x0: Tensor, i: int, x: Tensor) -> Tensor:
        s = float(self.sigmas[i])
        if self.prediction == "eps":
            return (x - x0) / s
        if self.prediction == "v":
            return (x / (s * s + 1) - x0) * ((s * s + 1) ** 0.5 / s)
        return (x - x0) / s - x0 if self.prediction == "flow" else x0

    def step(self, output: Tensor, i: int, x: Tensor) -> Tensor:
        here, there = float(self.sigmas[i]), float(self.sigmas[i + 1])
        return x + ((x - self.to_x0(output, i, x)) / here) * (there - here)


class ScaledSchedule(ABC):
    """States a x0 + s n of given coefficients [N + 1], and outputs of any prediction: the conversions.

    A subclass says how a step is made. `velocity="edm"` is Stable Video Diffusion's v: on the
    variance-exploding state, its input scaled by 1 / sqrt(sigma^2 + 1).
    """

    def __init__(
        self,
        a: npt.ArrayLike,
        s: npt.ArrayLike,
        prediction: Prediction,
        velocity: Literal["vp", "edm"] = "vp",
    ) -> None:
        self.a, self.s = (np.asarray(c, dtype=np.float64) for c in (a, s))
        with np.errstate(divide="ignore"):
            self.sigmas: Levels = decreasing(self.s / self.a, loose=True)
        self.prediction, self.velocity = known_prediction(prediction), velocity

    def to_ve(self, x: Tensor, i: int) -> Tensor:
        return x / float(self.a[i])

    def from_ve(self, x: Tensor, i: int) -> Tensor:
        return x * float(self.a[i])

    def to_x0(self, output: Tensor, i: int, x: Tensor) -> Tensor:
        a, s = float(self.a[i]), float(self.s[i])
        if self.prediction == "x0":
            return output
        if self.prediction == "flow":
            return x - s * output
        if self.prediction == "v":
            if self.velocity == "edm":
                return x / (s * s + 1) - output * (s / (s * s + 1) ** 0.5)
            return a * x - s * output
        if a == 0:
            raise ValueError(
                "a noise prediction says nothing of the image where the schedule starts at pure noise"
            )
        return (x - s * output) / a

    def from_x0(self, x0: Tensor, i: int, x: Tensor) -> Tensor:
        a, s = float(self.a[i]), float(self.s[i])
        if self.prediction == "x0":
            return x0
        if self.prediction == "flow":
            return (x - x0) / s
        if self.prediction == "v":
            if self.velocity == "edm":
                return (x / (s * s + 1) - x0) * ((s * s + 1) ** 0.5 / s)
            return (a * x - x0) / s
        return (x - a * x0) / s

    @abstractmethod
    def step(self, output: Tensor, i: int, x: Tensor) -> Tensor:
        """The state after step i."""


class DDIM(ScaledSchedule):
    """Deterministic DDIM steps (Song et al. 2021) between given cumulative alphas [N + 1], decreasing
    noise.
    """

    def __init__(self, alphas_cumprod: npt.ArrayLike, prediction: Prediction = "eps") -> None:
        cumulative = np.asarray(alphas_cumprod, dtype=np.float64)
        super().__init__(np.sqrt(cumulative), np.sqrt(1 - cumulative), prediction)

    def step(self, output: Tensor, i: int, x: Tensor) -> Tensor:
        x0 = self.to_x0(output, i, x)
        a, s = float(self.a[i]), float(self.s[i])
        return float(self.a[i + 1]) * x0 + float(self.s[i + 1]) * ((x - a * x0) / s)


class FlowEuler(ScaledSchedule):
    """Euler steps of flow matching: x_t = (1 - t) x0 + t n for times [N + 1] that fall; outputs are n -
    x0.
    """

    def __init__(self, times: npt.ArrayLike) -> None:
        t = np.asarray(times, dtype=np.float64)
        super().__init__(1 - t, t, "flow")

    def step(self, output: Tensor, i: int, x: Tensor) -> Tensor:
        return x + float(self.s[i + 1] - self.s[i]) * output


class DiffusersSchedule(ScaledSchedule):
    """A scheduler of diffusers after `set_timesteps`: DDIM, Euler on VE, flow Euler, UniPC on flow.

    Steps are the scheduler's own, to the bit. ValueError for an unknown kind.
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        config = scheduler.config
        if hasattr(scheduler, "begin_index") and scheduler.begin_index is None:
            scheduler.set_begin_index(0)
        self.timesteps = scheduler.timesteps
        kind = getattr(config, "prediction_type", "flow_prediction")
        if getattr(config, "use_flow_sigmas", False) or type(scheduler).__name__.startswith("FlowMatch"):
            t = scheduler.sigmas.double().cpu().numpy()
            super().__init__(1 - t, t, "flow")
        elif type(scheduler).__name__ == "EulerDiscreteScheduler":
            s = scheduler.sigmas.double().cpu().numpy()
            super().__init__(np.ones_like(s), s, PREDICTIONS[kind], "edm")
        elif hasattr(scheduler, "alphas_cumprod"):
            cumulative = _ddim_levels(scheduler)
            super().__init__(np.sqrt(cumulative), np.sqrt(1 - cumulative), PREDICTIONS[kind])
        else:
            raise ValueError(
                f"{type(scheduler).__name__}: no schedule that guidance knows (DDIM, Euler, flow)"
            )

    def step(self, output: Tensor, i: int, x: Tensor) -> Tensor:
        return self.scheduler.step(output, self.timesteps[i], x, return_dict=False)[0]  # type: ignore[no-any-return]


def _ddim_levels(scheduler: Any) -> Levels:
    """Cumulative alphas of the states before each step and after the last, as DDIM's `step` takes them."""
    table = scheduler.alphas_cumprod.double().cpu().numpy()
    stride = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    here = [int(t) for t in scheduler.timesteps]
    last = here[-1] - stride
    final = float(scheduler.final_alpha_cumprod) if last < 0 else float(table[last])
    return np.array([*(table[t] for t in here), final])


def decreasing(sigmas: npt.ArrayLike | Tensor, *, loose: bool = False) -> Levels:
    """Levels [N + 1] as float64. ValueError unless they decrease to a last one that is not negative.

    `loose`: a scheduler's own, which may start at pure noise (inf) and end with a step of no change.
    """
    if isinstance(sigmas, Tensor):
        sigmas = sigmas.detach().double().cpu().numpy()
    levels = np.asarray(sigmas, dtype=np.float64)
    if levels.ndim != 1 or len(levels) < 2:
        raise ValueError(f"a schedule needs at least two levels [N + 1], got shape {levels.shape}")
    finite = np.isfinite(levels[1:] if loose else levels).all() and not np.isnan(levels[0])
    falls = levels[:-1] > levels[1:]
    falls[-1] |= loose and levels[-2] == levels[-1]
    if not finite or not falls.all() or levels[-1] < 0:
        raise ValueError("the levels of a schedule must be finite and decrease to a last one of at least 0")
    return levels


def known_prediction(prediction: Prediction) -> Prediction:
    """As it is. ValueError for another one."""
    if prediction not in PREDICTIONS.values():
        raise ValueError(f"prediction: eps, v, x0 or flow, not {prediction!r}")
    return prediction


def as_schedule(schedule: Any, prediction: Prediction | None = None) -> Schedule:
    """A schedule as it is; a plain array of N + 1 levels as Euler steps on the VE state."""
    if isinstance(schedule, torch.Tensor | np.ndarray | list | tuple):
        return EulerVE(schedule, prediction or "x0")
    return schedule  # type: ignore[no-any-return]
