"""The times of synchronised cameras: by their own record, by the numbers of their frames, or evenly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import number_of
from orbit4d.recon4d.inputs.captures.capture import Track
from orbit4d.recon4d.inputs.footage import Footage

#: Share of a frame by which the time stamps of two videos may part.
_APART = 0.5


@dataclass(frozen=True)
class Film:
    """What one camera filmed, read."""

    track: Track
    footage: Footage
    keep: npt.NDArray[np.int64]
    """[F] which of the footage's images are used."""
    times: tuple[float, ...] = ()
    """F times of these."""


def common_times(films: Sequence[Film], name: str, allow_missing: bool) -> list[Film]:
    """The films with a time for each image.

    Cameras without times of their own are joined by the numbers in the names of their images, or frame by
    frame. InputError where they disagree; `allow_missing` leaves out the times that a camera lacks.
    """
    timed = [film.track.times is not None for film in films]
    if any(timed) and not all(timed):
        odd = films[timed.index(False)].track.label
        raise InputError(f"{name}: {odd} has no times, other cameras have; give them to all or none")
    if all(timed):
        return [_by_record(film) for film in films]
    _check_clocks(films, name)
    keys = _keys(films)
    shared = set(keys[0]).intersection(*keys[1:])
    if any(set(mine) != shared for mine in keys):
        if not allow_missing:
            raise _unequal(films, keys, shared, name)
        if len(shared) < 1:
            raise InputError(f"{name}: no time that every camera saw; name frames alike in all cameras")
        numbers = [np.array([i for i, key in enumerate(mine) if key in shared]) for mine in keys]
        films = [
            replace(film, keep=film.keep[rows], footage=film.footage) for film, rows in zip(films, numbers)
        ]
        keys = [[mine[i] for i in rows] for mine, rows in zip(keys, numbers)]
    first, last = min(shared), max(shared)
    length = max(last - first, 1)
    return [
        replace(film, times=tuple((key - first) / length for key in mine)) for film, mine in zip(films, keys)
    ]


def _by_record(film: Film) -> Film:
    times = film.track.times
    assert times is not None
    if len(times) != film.footage.total:
        raise InputError(f"{film.track.label}: {film.footage.total} frames but {len(times)} times")
    return replace(film, times=tuple(times[i] for i in film.footage.index[film.keep]))


def _keys(films: Sequence[Film]) -> list[list[int]]:
    """What tells the times of each film apart: numbers in names where all have some, else places."""
    numbered = []
    for film in films:
        numbers = [number_of(file) for file in film.footage.files]
        if not numbers or None in numbers or len(set(numbers)) < len(numbers):
            return [film.footage.index.tolist() for film in films]
        numbered.append([number for number in numbers if number is not None])
    # Equally many images that are numbered from different starts are joined frame by frame.
    counts = {len(mine) for mine in numbered}
    spans = {(min(mine), max(mine)) for mine in numbered}
    if len(counts) == 1 and len(spans) == len(films) > 1 and not set(numbered[0]) & set(numbered[1]):
        return [film.footage.index.tolist() for film in films]
    return numbered


def _unequal(films: Sequence[Film], keys: Sequence[Sequence[int]], shared: set[int], name: str) -> InputError:
    counts = [film.footage.total for film in films]
    short, long = int(np.argmin(counts)), int(np.argmax(counts))
    if counts[short] != counts[long]:
        return InputError(
            f"{name}: {films[short].track.label} has {counts[short]} frames, {films[long].track.label} "
            f"{counts[long]}: cameras must be synchronised; --allow-missing leaves out what one lacks"
        )
    every = sorted(set().union(*keys))
    key = next(key for key in every if key not in shared)
    lacking = next(film.track.label for film, mine in zip(films, keys) if key not in mine)
    return InputError(
        f"{name}: {lacking} has no frame {key}, which other cameras have; --allow-missing leaves it out"
    )


def _check_clocks(films: Sequence[Film], name: str) -> None:
    """InputError for videos whose frames are not of the same times, and by how much they part."""
    clocks = [(film.track.label, film.footage.stamps) for film in films if film.footage.stamps is not None]
    if len(clocks) < 2:
        return
    label, first = clocks[0]
    for other, stamps in clocks[1:]:
        n = min(len(first), len(stamps))
        if n < 2:
            continue
        frame = float(np.median(np.diff(first[:n])))
        apart = float(np.abs(first[:n] - stamps[:n]).max())
        if apart > _APART * max(frame, 1e-6):
            raise InputError(
                f"{name}: {label} and {other} are not synchronised: after {n} frames their time stamps are "
                f"{apart:.3g} s apart ({_rate(first[:n])} and {_rate(stamps[:n])} frames a second)"
            )


def _rate(stamps: np.ndarray) -> str:
    return f"{(len(stamps) - 1) / max(float(stamps[-1]), 1e-9):.4g}"
