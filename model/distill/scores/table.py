"""The noise table of a published model, from its scheduler: T and prediction are read, not assumed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.diffusion.schedule import PREDICTIONS, betas_of
from orbit4d.model.distill.scores.parts import part_file

SETTINGS = "scheduler/scheduler_config.json"


@dataclass(frozen=True)
class NoiseTable:
    """What a model was trained on."""

    alphas_cumprod: Tensor
    """float64 [T]"""
    prediction: str
    """"epsilon", "v_prediction" or "sample"."""


def read_table(spec: str) -> NoiseTable:
    """The table of a pipeline folder or hub name.

    Whatever the sampler is (PNDM, DDIM, DPM-Solver), it is only a table here: the cumulative product of
    1 - beta in float64, which diffusers' own float32 table misses by up to 8e-7.

    Raises:
        InputError: no such file, a schedule that is not known, or betas whose number is not T.
    """
    path = part_file(spec, SETTINGS, "noise schedule")
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
        total = int(config["num_train_timesteps"])
        betas = _betas(config, total)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{spec}: {SETTINGS} cannot be read as a noise schedule ({error})") from error
    if betas.shape != (total,):
        raise InputError(
            f"{spec}: {SETTINGS} says {total} steps and has a table of {len(betas)}: one of the two is wrong"
        )
    prediction = str(config.get("prediction_type", "epsilon"))
    if prediction not in PREDICTIONS:
        raise InputError(
            f"{spec}: {SETTINGS} has the prediction {prediction!r}, not {', '.join(PREDICTIONS)}"
        )
    return NoiseTable(torch.from_numpy(np.cumprod(1.0 - betas)), prediction)


def _betas(config: dict[str, object], total: int) -> np.ndarray:
    given = config.get("trained_betas")
    if given is not None:
        return np.asarray(given, np.float64)
    kind = str(config.get("beta_schedule", "linear"))
    start, end = float(str(config["beta_start"])), float(str(config["beta_end"]))
    return betas_of(kind, start, end, total, bool(config.get("rescale_betas_zero_snr", False)))
