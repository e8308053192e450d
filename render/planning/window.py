"""When an action moves: a pure function over sampled vertex positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

#: Most times at which one action is measured, and most vertices inspected in each.
MAX_SAMPLES = 241
MAX_VERTICES = 20_000
#: Most times at which motion is looked for: every frame of 100 seconds at 24 frames a second. A longer
#: action is inspected more thinly than its frames (flag `long_window`), and at up to MAX_KEYS of its keys.
MAX_LOOKS = 2401
MAX_KEYS = 1200
#: A vertex has moved when it is further than this share of the box's diagonal from where it was.
STILL_TOLERANCE = 1e-4
#: A first step is a jump out of another pose when it takes no longer than this, seconds ...
JUMP_SECONDS = 0.1
#: ... and is this many times faster than 95 % of the steps that follow, and than the fastest of them.
JUMP_OVER_MOST, JUMP_OVER_ALL = 3.0, 1.5
#: Steps that a first step is compared with.
COMPARED_STEPS = 240

Points = npt.NDArray[np.floating]


def dense_seconds(start: float, end: float, fps: float, most: int = MAX_SAMPLES) -> list[float]:
    """Every frame from `start` to `end` seconds, both ends included, thinned evenly to `most`."""
    n = min(max(round((end - start) * fps), 1) + 1, most)
    return [float(t) for t in np.linspace(start, end, n)]


def is_long(start: float, end: float, fps: float) -> bool:
    """Whether there are more frames than motion is looked for at."""
    return round((end - start) * fps) + 1 > MAX_LOOKS


def search_seconds(start: float, end: float, fps: float, keys: Sequence[float] = ()) -> list[float]:
    """Times at which motion is looked for: every frame, up to MAX_LOOKS, and the times of `keys`."""
    frames = dense_seconds(start, end, fps, MAX_LOOKS)
    if is_long(start, end, fps):
        # The first frame as the file has it, so that a pose that lasts one frame is distinguished from what
        # follows.
        frames += [start + 1.0 / fps, start + 2.0 / fps]
    inside = np.unique([t for t in keys if start < t < end])
    chosen = inside[np.linspace(0, len(inside) - 1, min(len(inside), MAX_KEYS)).round().astype(int)]
    return sorted({*frames, *(float(t) for t in chosen)})


def moving_window(
    seconds: Sequence[float], vertices: npt.NDArray[np.floating], tolerance: float = STILL_TOLERANCE
) -> tuple[float, float] | None:
    """`search_window` over `vertices` [T, V, 3] at `seconds` [T]."""
    order = {t: i for i, t in enumerate(seconds)}
    return search_window(seconds, lambda t: vertices[order[t]], tolerance)


def search_window(
    seconds: Sequence[float], places: Callable[[float], Points], tolerance: float = STILL_TOLERANCE
) -> tuple[float, float] | None:
    """(first, last) time in seconds that moves; None when nothing ever does.

    `places(t)` gives what is seen at one of `seconds` as [V, 3]; a change of V counts as motion, and V = 0
    is an empty step. The window opens at the last sample before any vertex has left its first place by more
    than `tolerance` times the diagonal of the first box, and closes at the first sample after which every
    vertex stays at its last place. Slow motion counts, because places are compared with the ends and not from
    step to step. Empty steps at either end are outside, and so is a pose that the first step jumps out of
    (a bind pose before an action). Only as much is inspected as decides: most actions move at once and until
    their end.
    """
    seen = _Looks(seconds, places)
    first = next((i for i in range(len(seconds)) if len(seen[i])), None)
    if first is None:
        return None
    last = next(i for i in range(len(seconds) - 1, -1, -1) if len(seen[i]))
    opening = _opening(seen, first, last, tolerance)
    if opening is not None:
        opening = _past_jumps(seen, opening, first, last, tolerance)
    if opening is None:
        return None
    limit = _limit(seen[opening], tolerance)
    away = (i for i in range(last - 1, opening - 1, -1) if _apart(seen[i], seen[last]) > limit)
    return float(seconds[opening]), float(seconds[next(away, last - 1) + 1])


class _Looks:
    """Places by the number of their sample; the latest few are kept, since a look costs an evaluation."""

    KEPT = 8

    def __init__(self, seconds: Sequence[float], places: Callable[[float], Points]) -> None:
        self.seconds, self.places = seconds, places
        self._kept: dict[int, Points] = {}

    def __getitem__(self, i: int) -> Points:
        points = self._kept.pop(i, None)
        if points is None:
            points = np.array(self.places(self.seconds[i]), copy=True)
        self._kept[i] = points
        while len(self._kept) > self.KEPT:
            del self._kept[next(iter(self._kept))]
        return points

    def speed(self, i: int) -> float:
        """RMS speed from sample `i` to the next; infinite when what is seen changes."""
        a, b = self[i], self[i + 1]
        if a.shape != b.shape:
            return np.inf
        moved = (b - a).astype(np.float64).ravel()
        length = float(np.sqrt(moved @ moved / max(len(a), 1)))
        return length / (self.seconds[i + 1] - self.seconds[i]) if length > 0.0 else 0.0


def _opening(seen: _Looks, first: int, last: int, tolerance: float) -> int | None:
    """Number of the last sample before anything leaves its place at sample `first`; None if nothing does."""
    limit = _limit(seen[first], tolerance)
    moved = (i for i in range(first + 1, last + 1) if _apart(seen[i], seen[first]) > limit)
    found = next(moved, None)
    return None if found is None else found - 1


def _past_jumps(seen: _Looks, opening: int, first: int, last: int, tolerance: float) -> int | None:
    """`opening`, or where the motion opens after a jump out of another pose; None if that is all there is."""
    start = opening
    while seen.seconds[opening + 1] - seen.seconds[start] <= JUMP_SECONDS and _jumps(seen, opening, last):
        later = _opening(seen, opening + 1, last, tolerance)
        if later is None:
            # Nothing else moves: at the very start a bind pose and no motion, a change of pose after that.
            return None if opening == first else opening
        if later > opening + 1:
            return later
        opening = later
    return opening


def _jumps(seen: _Looks, at: int, last: int) -> bool:
    """Whether the step from sample `at` to the next is a jump, and no part of the motion that follows it."""
    if at + 2 > last:
        return False
    jump = seen.speed(at)
    if not np.isfinite(jump) or not jump > JUMP_OVER_ALL * seen.speed(at + 1):
        return False
    which = np.arange(at + 1, last)
    if len(which) > COMPARED_STEPS:
        which = which[np.linspace(0, len(which) - 1, COMPARED_STEPS).round().astype(int)]
    speeds = [seen.speed(int(i)) for i in which]
    return bool(jump > JUMP_OVER_MOST * np.quantile(speeds, 0.95) and jump > JUMP_OVER_ALL * max(speeds))


def _limit(points: Points, tolerance: float) -> float:
    return tolerance * float(np.linalg.norm(points.max(axis=0) - points.min(axis=0)))


def _apart(a: Points, b: Points) -> float:
    """Largest distance between vertices [V, 3] of two times; infinite when their numbers differ."""
    if a.shape != b.shape:
        return np.inf
    moved = a - b
    # einsum: numpy's sum over an axis of three is several times slower.
    return float(np.sqrt(np.einsum("vk,vk->v", moved, moved).max()))
