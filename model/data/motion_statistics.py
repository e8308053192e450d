"""The distribution of motion over the training split: what the network normalises by, and what q0.9 means."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.progress import Progress
from orbit4d.model.config.settings import TrainConfig
from orbit4d.model.data.training_clips import ClipSource, even_frames
from orbit4d.model.network.conditioning import MOTION_FLOOR

#: Clips inspected; more would not move the quantiles.
_SAMPLE = 1024


@dataclass(frozen=True)
class MotionStatistics:
    """Statistics of the raw motion magnitude m of the clips as the network sees them."""

    mean_log10: float
    """Mean of log10(m + 1e-6)."""
    std_log10: float
    """Standard deviation of the same, at least 0.3."""
    quantiles: tuple[float, ...]
    """101 values of m: quantile 0.00, 0.01, .., 1.00."""
    clips: int
    """How many clips were measured."""

    @classmethod
    def measure(cls, clips: ClipSource, config: TrainConfig, shown: bool = False) -> MotionStatistics:
        """Look at up to 1024 clips, spread evenly. Without any known motion: mean 0, std 1, no quantiles.

        `shown` draws its progress where clips are pixels, each of which is decoded; a cache holds the answer.
        """
        n = len(clips)
        looked_at = np.unique(np.linspace(0, n - 1, min(n, _SAMPLE)).astype(int))
        values = []
        bar = Progress("measure motion", len(looked_at), "clip") if shown and not clips.is_latent else None
        with bar or contextlib.nullcontext():
            for index in looked_at:
                per_frame = np.asarray(clips.motion_frames(int(index)))
                values.append(float(per_frame[even_frames(len(per_frame), config.data.frames)].mean()))
                if bar:
                    bar.update()
        return cls.of_values(values)

    @classmethod
    def of_values(cls, values: Sequence[float]) -> MotionStatistics:
        """Of raw magnitudes, NaN where one is not known."""
        known = np.array([v for v in values if np.isfinite(v)])
        if not len(known):
            return cls(0.0, 1.0, (), 0)
        logs = np.log10(known + MOTION_FLOOR)
        # A floor: with clips of nearly equal motion, still clips (m = 0) would lie dozens of deviations away.
        return cls(
            float(logs.mean()),
            float(max(logs.std(), 0.3)),
            tuple(float(q) for q in np.quantile(known, np.linspace(0, 1, 101))),
            len(known),
        )

    def to_dict(self) -> dict[str, Any]:
        """As stored in RUN/motion.json and beside the pipeline."""
        return {
            "mean_log10": self.mean_log10,
            "std_log10": self.std_log10,
            "quantiles": list(self.quantiles),
            "clips": self.clips,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MotionStatistics:
        """Inverse of `to_dict`."""
        return cls(
            values["mean_log10"], values["std_log10"], tuple(values["quantiles"]), int(values["clips"])
        )

    def quantile(self, q: float) -> float:
        """Raw m at quantile q in [0, 1] of the training distribution."""
        if not self.quantiles:
            raise InputError("this model knows no training motion: give --motion as a number")
        return float(np.interp(q, np.linspace(0, 1, len(self.quantiles)), self.quantiles))

    def parse(self, text: str) -> float | None:
        """`0.004` (raw m), `q0.9` (quantile) or `none` to raw m. InputError for anything else."""
        if text == "none":
            return None
        try:
            value = float(text[1:] if text.startswith("q") else text)
        except ValueError:
            value = float("nan")
        if text.startswith("q"):
            if not 0.0 <= value <= 1.0:
                raise InputError(f"--motion {text}: a quantile lies in 0 to 1, for example q0.9")
            return self.quantile(value)
        if not (value >= 0.0 and np.isfinite(value)):
            raise InputError(
                f"--motion {text}: give a raw magnitude such as 0.004, a quantile such as q0.9, or none"
            )
        return value
