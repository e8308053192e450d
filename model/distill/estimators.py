"""Estimators of score distillation: sds, csd, ism, vsd, msd, as gradients of a sample.

DreamFusion (Poole et al. 2023), CSD (Yu et al. 2024), ISM (LucidDreamer, Liang et al. 2024), VSD
(ProlificDreamer, Wang et al. 2023), MSD (Animus3D 2025). No network is differentiated: the gradient is a
number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.core.nearest import or_known
from orbit4d.model.distill.guiding import Form, check_scale, conditioned_alone, guide, rescale_guidance
from orbit4d.model.distill.guiding import weight as weight_of
from orbit4d.model.distill.inversion import inverted, step_between
from orbit4d.model.distill.score_model import ScoreModel, coefficients, noisy

Noise = Callable[[Tensor, Tensor], Tensor]
ESTIMATORS = ("sds", "csd", "ism", "vsd", "msd")
#: Weight of each estimator where none is named.
DEFAULT_WEIGHT = {"sds": "sigma2", "csd": "sigma2", "ism": "clean", "vsd": "sigma2", "msd": "sigma2"}


@dataclass(frozen=True)
class _Ask:
    """A question to the prior: which conditions, how guided."""

    model: Any
    conditions: Any
    scale: float
    form: Form
    rescale: float

    def branch(self, z_t: Tensor, t: Tensor, name: Literal["cond", "uncond"]) -> Tensor:
        return self.model.noise(z_t, t, self.conditions, name)  # type: ignore[no-any-return]

    def guided(self, z_t: Tensor, t: Tensor) -> Tensor:
        """The guided estimate; one call where guidance is the conditioned branch."""
        cond = self.branch(z_t, t, "cond")
        if conditioned_alone(self.scale, self.form) or not self.model.unconditional:
            return cond
        guided = guide(cond, self.branch(z_t, t, "uncond"), self.scale, self.form)
        return rescale_guidance(guided, cond, self.rescale)


def gradient(
    estimator: str,
    z: Tensor,
    t: Tensor,
    noise: Tensor,
    model: ScoreModel,
    *,
    weight: str | None = None,
    scale: float = 0.0,
    form: Form = "from_cond",
    rescale: float = 0.0,
    clamp: float | None = None,
    phi: ScoreModel | Noise | None = None,
    static: ScoreModel | Noise | None = None,
    z_static: Tensor | None = None,
    interval: int = 80,
    inversion_step: int = 200,
    static_noise: Literal["shared", "inverted"] = "shared",
    conditions: Any = None,
) -> Tensor:
    """The gradient that a prior hands to a clean sample, like z.

    `sds`: w (guided - noise). `csd`: w scale (cond - uncond). `ism`: w (guided at t - uncond at s), both on
    one deterministic inversion, s = t - interval. `vsd`: w (guided - phi). `msd`: w (guided - static), the
    latter at the object held still.

    Args:
        z: clean sample [B, ...], pixels or latents.
        t: int64 [B], index of the model's table.
        noise: like z.
        model: the prior.
        weight: name of w(t) (see `weight`); None takes the estimator's own.
        scale, form: guidance. 0 with "from_cond" is the conditioned branch alone.
        rescale: phi of `rescale_guidance`.
        clamp: largest absolute value of an element, after the weight.
        phi: for `vsd`, the model of the current renders; a ScoreModel or a callable (z_t, t) -> noise.
        static: for `msd`, the model of still clips, likewise; z_static: the still clip, like z.
        interval, inversion_step: of `ism`, in indices.
        static_noise: "shared" draws `noise` on both clips of `msd`; "inverted" takes the noise that inverting
            the still clip with `static` finds.
        conditions: what the model's `condition` made.

    Raises:
        InputError: for an unknown name, a scale or range that cannot be, or a part that is missing.
        WorkError: where the gradient is not finite; it names the prior and t.
    """
    check_scale(scale, form)
    if estimator not in ESTIMATORS:
        raise InputError(f"estimator {estimator!r}: {or_known(estimator, ESTIMATORS)}")
    if noise.shape != z.shape or t.shape != z.shape[:1]:
        raise InputError(f"noise must be like z {tuple(z.shape)} and t [{len(z)}]: {noise.shape}, {t.shape}")
    ask = _Ask(model, conditions, scale, form, rescale)
    with torch.no_grad():
        difference = _difference(
            estimator,
            ask,
            z.detach(),
            t,
            noise,
            phi,
            static,
            z_static,
            (interval, inversion_step),
            static_noise,
        )
        ac = model.alphas_cumprod.double()[t.to(model.alphas_cumprod.device)]
        w = weight_of(weight or DEFAULT_WEIGHT[estimator], ac).to(z.device, z.dtype)
        g = w.view(-1, *([1] * (z.ndim - 1))) * difference
        if clamp is not None:
            g = g.clamp(-clamp, clamp)
    if not torch.isfinite(g).all():
        raise WorkError(f"{model.name}: the gradient is not finite at t = {t.tolist()}")
    return g


def _difference(
    estimator: str,
    ask: _Ask,
    z: Tensor,
    t: Tensor,
    noise: Tensor,
    phi: ScoreModel | Noise | None,
    static: ScoreModel | Noise | None,
    z_static: Tensor | None,
    inversion: tuple[int, int],
    static_noise: str,
) -> Tensor:
    """The difference of two noise estimates whose weighted value is the gradient."""
    table = ask.model.alphas_cumprod
    if estimator == "ism":
        return _interval(ask, z, t, noise, *inversion)
    if estimator == "msd":
        if static is None or z_static is None or z_static.shape != z.shape:
            raise InputError("msd needs a model of still clips (static) and the still clip (z_static) like z")
        if static_noise == "inverted":
            noise = torch.cat([_noise_of(static, table, z_static[b : b + 1], t[b : b + 1], inversion[1])
                               for b in range(len(z))])  # fmt: skip
        still = _estimate(static, noisy(table, z_static, noise, t), t)
        return ask.guided(noisy(table, z, noise, t), t) - still
    z_t = noisy(table, z, noise, t)
    if estimator == "sds":
        return ask.guided(z_t, t) - noise
    if estimator == "vsd":
        if phi is None:
            raise InputError("vsd needs phi, a model of the current renders")
        return ask.guided(z_t, t) - _estimate(phi, z_t, t)
    if ask.scale == 0:
        raise InputError("csd with scale 0 is no gradient: it has the classifier's part alone")
    return ask.scale * (ask.branch(z_t, t, "cond") - ask.branch(z_t, t, "uncond"))


def _interval(ask: _Ask, z: Tensor, t: Tensor, noise: Tensor, interval: int, stride: int) -> Tensor:
    """`ism`, sample by sample: their walks have different lengths."""
    if interval < 1 or stride < 1:
        raise InputError(f"ism needs interval and inversion_step of at least 1, got {interval} and {stride}")
    table, rows = ask.model.alphas_cumprod, []
    for b in range(len(z)):
        at = slice(b, b + 1)

        def unconditioned(y: Tensor, when: Tensor) -> Tensor:
            return ask.branch(y, when, "uncond")

        s = (t[at] - interval).clamp(min=0)
        y = inverted(
            unconditioned, table, noisy(table, z[at], noise[at], torch.zeros_like(s)), int(s), stride
        )
        before = unconditioned(y, s)
        x_t = step_between(table, y, before, s, t[at])
        rows.append(ask.guided(x_t, t[at]) - before)
    return torch.cat(rows)


def _noise_of(model: ScoreModel | Noise, table: Tensor, z: Tensor, t: Tensor, stride: int) -> Tensor:
    """The noise that deterministic inversion of a clean sample ends with at t."""
    zero = torch.zeros_like(t)
    y = inverted(lambda y, when: _estimate(model, y, when), table, noisy(table, z, torch.zeros_like(z), zero),
                 int(t), stride)  # fmt: skip
    alpha, sigma = coefficients(table, t, z)
    return (y - alpha * z) / sigma


def _estimate(model: ScoreModel | Noise, z_t: Tensor, t: Tensor) -> Tensor:
    """Noise of a model, or of a callable."""
    if isinstance(model, ScoreModel):
        return model.noise(z_t, t)
    return model(z_t, t)
