"""Which images of a capture are held out: whole cameras, times, or what the format's own split says."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import number_of
from orbit4d.recon4d.inputs.loading import Frames


@dataclass(frozen=True)
class Hold:
    """What is asked to be held out."""

    cameras: tuple[str, ...] = ()
    """Labels, or their numbers."""
    times: tuple[float, ...] = ()
    """Times in [0, 1]."""
    every: int = 0
    """Every such time, counted from 1, except the last; 0 none."""

    @classmethod
    def parse(cls, cameras: str | None, times: str | None) -> Hold:
        """Of `--hold-cameras A,B` and `--hold-times T,U` or `every:K`. InputError for other texts."""
        labels = tuple(part.strip() for part in (cameras or "").split(",") if part.strip())
        if not times:
            return cls(labels)
        head, _, rest = times.partition(":")
        try:
            if head == "every":
                if int(rest) < 2:
                    raise ValueError
                return cls(labels, every=int(rest))
            values = tuple(float(part) for part in times.split(","))
        except ValueError:
            values = (-1.0,)
        if not all(0 <= value <= 1 for value in values):
            raise InputError(f"--hold-times {times}: give times in [0, 1], or every:K with K of 2 or more")
        return cls(labels, values)


@dataclass(frozen=True)
class Places:
    """Places among all images."""

    train: list[int]
    held_out: dict[str, list[int]] = field(default_factory=dict)


def held_places(frames: Frames, hold: Hold, split: Collection[str], name: str) -> Places:
    """The split of frames: cameras of the format's own (`split`), those of `hold`, and its times, which are
    held out of the cameras that train. InputError for what is not there, or leaves nothing.
    """
    labels = list(dict.fromkeys(frames.labels))
    out = [label for label in labels if label in split]
    out += [label for text in hold.cameras if (label := _label(text, labels, name)) not in split]
    times = np.asarray(frames.time)
    held = _held_times(np.unique(times), hold, name)
    far = (
        ~np.any(np.abs(times[:, None] - held[None]) < 1e-6, axis=1)
        if len(held)
        else np.ones(len(times), bool)
    )
    out = list(dict.fromkeys(out))
    train = [i for i, label in enumerate(frames.labels) if label not in out and far[i]]
    if not train:
        raise InputError(f"{name}: every camera or time is held out; leave some to train on")
    places = {label: [i for i, own in enumerate(frames.labels) if own == label] for label in out}
    if len(held):
        places["times"] = [i for i, own in enumerate(frames.labels) if own not in out and not far[i]]
    return Places(train, {label: index for label, index in places.items() if index})


def _label(text: str, labels: Sequence[str], name: str) -> str:
    if text in labels:
        return text
    numbered = [label for label in labels if text.isdigit() and number_of(label) == int(text)]
    if len(numbered) == 1:
        return numbered[0]
    raise InputError(f"--hold-cameras {text}: {name} has no such camera; it has {', '.join(labels)}")


def _held_times(times: np.ndarray, hold: Hold, name: str) -> np.ndarray:
    if hold.every:
        return times[hold.every - 1 : -1 : hold.every]
    found = []
    gap = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    for wanted in hold.times:
        nearest = times[np.argmin(np.abs(times - wanted))]
        if abs(nearest - wanted) > max(gap / 2, 1e-6):
            raise InputError(
                f"--hold-times {wanted:g}: {name} has no frame near it; the nearest is {nearest:g}"
            )
        found.append(nearest)
    return np.unique(found)
