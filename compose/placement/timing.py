"""When an actor sets off, and where in its clip: feet hold in what is shown, nobody walks into another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from orbit4d.recon4d.composition import Track

Floats = npt.NDArray[np.float64]

#: Seconds between the times at which others are inspected, and that anybody waits at most.
STEP, LONGEST_WAIT = 0.1, 2.0
#: Places in a clip that are tried.
_TRIED = 48
#: Cycles of a clip after which it no longer matters where it begins.
ENOUGH = 2.0
#: Least distance between two members of a group, in cycles.
APART = 0.15


def phase_of(
    track: Track, seconds: float, clip_seconds: float, slides: Sequence[float], others: Sequence[float] = ()
) -> float:
    """Seconds of the clip at which an actor begins that goes along `track` in a film of some seconds.

    An artist's clip slides by itself, more in some parts than in others; `slides` [T] says how much, evenly
    over the clip. Of a film that shows less than two cycles the beginning is chosen so that the median over
    what is shown away from setting off and arriving is least. `others` are the phases, seconds, of
    the members of its group, which it does not walk in step with.
    """
    member = len(others)
    usual = 0.37 * member * clip_seconds
    rows = np.asarray(slides, np.float64)
    if clip_seconds <= 0 or len(rows) < 3 or track.stride <= 0 or track.end <= track.begin:
        return usual
    plain = [track.clip_seconds(t) for t in (track.begin + track.ease, min(track.end, seconds) - track.ease)]
    first, shown = plain[0] - track.phase, plain[1] - plain[0]
    if shown <= 0 or shown >= ENOUGH * clip_seconds:
        return usual
    tried = np.arange(_TRIED) / _TRIED
    apart = min(APART, 1 / (2 * (member + 1)))
    free = [p for p in tried if all(_apart(p, o / clip_seconds) >= apart for o in others)]
    times = (first + np.linspace(0, shown, 65)) / clip_seconds
    found = []
    for p in free:
        at = np.rint(((p + times) % 1.0) * (len(rows) - 1)).astype(int)
        there = rows[at][np.isfinite(rows[at])]
        # The mean decides between places whose medians are one.
        found.append(float(np.median(there) + 0.1 * there.mean()) if len(there) else np.inf)
    if not found or not np.isfinite(min(found)):
        return usual
    return float(free[int(np.argmin(found))] * clip_seconds)


def _apart(a: float, b: float) -> float:
    """Distance of two places on a circle of length 1."""
    gap = abs(a - b) % 1.0
    return min(gap, 1.0 - gap)


@dataclass(frozen=True)
class Disc:
    """Somebody as others have to keep clear of it: a disc that moves along a track."""

    track: Track
    radius: float

    def places(self, seconds: float) -> Floats:
        """[T, 2] where it is, a `STEP` apart over a film."""
        clock = np.arange(0.0, seconds + STEP / 2, STEP)
        return np.stack([self.track.place(float(t))[0][:2] for t in clock])


def meetings(one: Disc, others: Sequence[Disc], seconds: float) -> Floats:
    """[M, 3] (x, y, radius) of the others at the times at which they touch `one`."""
    own = one.places(seconds)
    found = [np.zeros((0, 3))]
    for other in others:
        there = other.places(seconds)
        touch = np.linalg.norm(own - there, axis=1) < one.radius + other.radius
        found.append(np.column_stack([there[touch], np.full(int(touch.sum()), other.radius)]))
    return np.concatenate(found)


def waited(one: Disc, others: Sequence[Disc], seconds: float) -> Track | None:
    """Its track, set off as much later as it takes to let the others pass; None where 2 s are too few.

    A track that meets nobody comes back as it is. Nothing waits longer than the film is.
    """
    track = one.track
    if not len(meetings(one, others, seconds)):
        return track
    for k in range(1, round(min(LONGEST_WAIT, seconds) / STEP) + 1):
        later = replace(track, begin=track.begin + k * STEP, end=track.end + k * STEP)
        if later.begin >= seconds - STEP:
            return None
        if not len(meetings(Disc(later, one.radius), others, seconds)):
            return later
    return None
