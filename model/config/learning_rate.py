"""The learning rate of every step: a function of the stage's length and the steps done in it alone."""

from __future__ import annotations

import math

from orbit4d.model.config.settings import Stage, TrainConfig


def learning_rate(config: TrainConfig, stage: Stage, done: int) -> float:
    """Rate of the step after `done` steps of a stage: linear warm-up, then constant, or a cosine to 1/20.

    A stage that is made longer afterwards takes its further steps at the rates of the longer stage: constant
    ones continue as they were, a cosine rises to where the longer one stands.
    """
    peak = config.optim.lr * stage.lr_scale
    warm = min(1.0, (done + 1) / (config.optim.warmup + 1))
    if config.optim.schedule == "constant":
        return peak * warm
    return peak * warm * (0.05 + 0.95 * 0.5 * (1.0 + math.cos(math.pi * done / stage.steps)))
