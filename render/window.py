"""When an action moves: a pure function over sampled vertex positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

#: Most moments at which one action is sampled, and most vertices looked at in each.
MAX_SAMPLES = 241
MAX_VERTICES = 20_000
#: A vertex has moved when it is further than this share of the box's diagonal from where it was.
STILL_TOLERANCE = 1e-4


def dense_seconds(start: float, end: float, fps: float) -> list[float]:
    """Every frame from `start` to `end` seconds, both ends included, thinned evenly to MAX_SAMPLES."""
    n = min(max(round((end - start) * fps), 1) + 1, MAX_SAMPLES)
    return [float(t) for t in np.linspace(start, end, n)]


def moving_window(
    seconds: Sequence[float], vertices: npt.NDArray[np.floating], tolerance: float = STILL_TOLERANCE
) -> tuple[float, float] | None:
    """(first, last) moment in seconds that moves; None when nothing ever does.

    `vertices` is [T, V, 3] at `seconds` [T]. The window opens at the last sample before any vertex has
    left its first place by more than `tolerance` times the diagonal of the first box, and closes at the
    first sample after which every vertex stays at its last place. Slow motion counts, because places are
    compared with the ends and not from step to step.
    """
    if len(vertices) < 2 or vertices.shape[1] == 0:
        return None
    box = vertices[0].max(axis=0) - vertices[0].min(axis=0)
    limit = tolerance * float(np.linalg.norm(box))
    left = _furthest(vertices, vertices[0]) > limit
    if not left.any():
        return None
    away = _furthest(vertices, vertices[-1]) > limit
    first = int(np.argmax(left)) - 1
    last = len(away) - int(np.argmax(away[::-1])) if away.any() else len(away) - 1
    return float(seconds[first]), float(seconds[last])


def search_window(
    seconds: Sequence[float],
    places: Callable[[float], npt.NDArray[np.floating]],
    tolerance: float = STILL_TOLERANCE,
) -> tuple[float, float] | None:
    """What `moving_window` finds for `places(t)` [V, 3] at all `seconds`, looking only as far as it must.

    Most actions move at once and until their end, so that a few moments at either end decide. A change of the
    number of vertices counts as motion.
    """
    if len(seconds) < 2:
        return None
    start = np.array(places(seconds[0]), copy=True)
    if len(start) == 0:
        return None
    limit = tolerance * float(np.linalg.norm(start.max(axis=0) - start.min(axis=0)))
    first = next((i for i in range(1, len(seconds)) if _apart(places(seconds[i]), start) > limit), None)
    if first is None:
        return None
    end = np.array(places(seconds[-1]), copy=True)
    last = next(
        (i for i in range(len(seconds) - 2, -1, -1) if _apart(places(seconds[i]), end) > limit),
        len(seconds) - 2,
    )
    return float(seconds[first - 1]), float(seconds[last + 1])


def _apart(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> float:
    """Largest distance between vertices [V, 3] of two moments; infinite when their numbers differ."""
    return float(_furthest(a[None], b)[0]) if a.shape == b.shape else np.inf


def _furthest(
    vertices: npt.NDArray[np.floating], place: npt.NDArray[np.floating]
) -> npt.NDArray[np.floating]:
    """[T]: the largest distance of any vertex from `place` [V, 3]."""
    # einsum: numpy's sum over an axis of three is several times slower.
    squares = (np.einsum("vk,vk->v", d, d) for d in (moment - place for moment in vertices))
    return np.array([np.sqrt(each.max()) for each in squares])
