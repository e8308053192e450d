"""Classifier-free guidance by its two forms, its rescale, and the weights w(t), each by name.

Two codes that say "scale 100" need not mean one thing: a number is never passed without its form.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.nearest import or_known

Form = Literal["from_cond", "from_uncond"]
FORMS: tuple[Form, ...] = ("from_cond", "from_uncond")
WEIGHTS = ("sigma2", "clean", "uniform", "one_minus_alpha", "alpha_sigma2")


def weight(name: str, alphas_cumprod_t: Tensor) -> Tensor:
    """The weight w(t) of a gradient, [B] like `alphas_cumprod_t`, called ac below.

    `sigma2`: 1 - ac (DreamFusion). `clean`: sigma / alpha, which makes the gradient z less the clean
    estimate. `uniform`: 1. `one_minus_alpha`: 1 - sqrt(ac), which some codes call by DreamFusion's name.
    `alpha_sigma2`: sqrt(ac) (1 - ac).

    Raises:
        InputError: for another name.
    """
    ac = alphas_cumprod_t
    if name == "sigma2":
        return 1 - ac
    if name == "clean":
        return ((1 - ac) / ac).sqrt()
    if name == "uniform":
        return torch.ones_like(ac)
    if name == "one_minus_alpha":
        return 1 - ac.sqrt()
    if name == "alpha_sigma2":
        return ac.sqrt() * (1 - ac)
    raise InputError(f"weight {name!r}: {or_known(name, WEIGHTS)}")


def check_scale(scale: float, form: str) -> None:
    """InputError for a scale that is not finite or negative, or a form that is neither."""
    if form not in FORMS:
        raise InputError(f"guidance form {form!r}: {or_known(form, FORMS)}")
    if not math.isfinite(scale) or scale < 0:
        raise InputError(f"guidance scale {scale}: needs a finite number of at least 0")


def conditioned_alone(scale: float, form: str) -> bool:
    """Whether guidance is the conditioned branch itself, so that the other need not be evaluated."""
    return scale == (0.0 if form == "from_cond" else 1.0)


def guide(cond: Tensor, uncond: Tensor, scale: float, form: Form) -> Tensor:
    """Classifier-free guidance of two noise estimates [B, C, ...] of one shape (Ho and Salimans 2022).

    `from_cond`: cond + scale (cond - uncond). `from_uncond`: uncond + scale (cond - uncond), which is
    `from_cond` of scale - 1. The scale that means no guidance gives `cond` to the bit.

    Raises:
        InputError: for a scale that is not finite or negative, another form, or shapes that differ.
    """
    check_scale(scale, form)
    if cond.shape != uncond.shape:
        raise InputError(f"guidance needs two estimates of one shape, got {cond.shape} and {uncond.shape}")
    if conditioned_alone(scale, form):
        return cond
    return (cond if form == "from_cond" else uncond) + scale * (cond - uncond)


def rescale_guidance(guided: Tensor, cond: Tensor, phi: float) -> Tensor:
    """The guided estimate [B, ...] brought back to the deviation of the conditioned one (Lin et al. 2024).

    phi guided std(cond) / std(guided) + (1 - phi) guided, std per sample over all other axes (unbiased): over
    a whole clip, since a factor for each frame makes it flicker. phi 0 gives `guided` to the bit.

    Raises:
        InputError: for a phi outside [0, 1].
    """
    if not 0 <= phi <= 1:
        raise InputError(f"guidance rescale {phi}: needs a number in [0, 1]")
    if phi == 0:
        return guided
    shape = (-1, *([1] * (guided.ndim - 1)))
    factor = (cond.flatten(1).std(1) / guided.flatten(1).std(1)).view(shape)
    return phi * guided * factor + (1 - phi) * guided
