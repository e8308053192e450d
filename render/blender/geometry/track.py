# SPDX-License-Identifier: GPL-3.0-or-later
# This module stands on surfaces, which imports bpy, which is GPL, so it is GPL too.
"""Visible surfaces over time, as constant vertices, though surfaces may come and go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from orbit4d.render.blender.geometry.surfaces import Key, Points, Surface, support
from orbit4d.render.planning import vertex_measures as geometry

_NOTHING = np.zeros((0, 3), np.float32)


class Track:
    """Samples of what is seen, time by time.

    Two rules make the vertices constant. A surface whose own vertex count changes (an Alembic fluid, say) is
    stood for by its 26 extreme points. One that is not seen at some times stands there where it was seen
    last, or before that where it is seen first: coming and going is no displacement.
    """

    def __init__(
        self,
        stride: int = 1,
        counts: Mapping[Key, int] | None = None,
        edges: npt.NDArray[np.integer] | None = None,
        extremes: bool = True,
    ) -> None:
        """`edges` [E, 2] of surfaces with `counts` vertices are measured at every time that shows those.
        Without `extremes` no window is looked for in what is kept.
        """
        self.stride = stride
        """Of each surface every `stride`-th vertex is kept, and beyond 1 its extreme points as well."""
        self.counts, self.edges, self._extremes = counts, edges, extremes
        self.lengths: list[npt.NDArray[np.float64] | None] = []
        """[E] lengths of the edges at each time, None where other surfaces, or vertices, are seen."""
        self.steps: list[dict[Key, Points]] = []
        self.extremes: list[dict[Key, Points]] = []
        self._boxes: list[npt.NDArray[np.float64]] = []

    def add(self, surfaces: Sequence[Surface]) -> Points:
        """One more time; all of its points [V, 3]."""
        whole = {surface.key: surface.points() for surface in surfaces}
        thin = self.stride > 1
        kept = {key: points[:: self.stride].copy() for key, points in whole.items()} if thin else whole
        self.steps.append(kept)
        beyond = {key: support(points) for key, points in whole.items()} if thin and self._extremes else {}
        self.extremes.append(beyond)
        every = np.concatenate(list(whole.values())) if whole else _NOTHING
        self._boxes.append(geometry.box_of(every if whole else np.zeros((1, 3), np.float32)))
        lengths = None
        if (
            whole
            and self.edges is not None
            and self.counts == {k: len(points) for k, points in whole.items()}
        ):
            lengths = geometry.edge_lengths(every, self.edges)
        self.lengths.append(lengths)
        return every

    def __len__(self) -> int:
        return len(self.steps)

    def places(self, i: int) -> Points:
        """[V, 3] of time `i` as it is, extreme points included: what a window is looked for in."""
        parts = [*self.steps[i].values(), *self.extremes[i].values()]
        return np.concatenate(parts) if parts else _NOTHING

    def is_finite(self) -> bool:
        """Whether every position at every time is a finite number."""
        return bool(np.isfinite(self._boxes).all())

    def changes(self, which: Sequence[int]) -> bool:
        """Whether the set of surfaces changes over the times `which`."""
        return any(self.steps[i].keys() != self.steps[which[0]].keys() for i in which)

    def body(self, which: Sequence[int]) -> Points:
        """[T, V, 3] at the times `which`."""
        return self._constant(which, self.steps, changing=True)

    def boxes(self, which: Sequence[int]) -> npt.NDArray[np.float64]:
        """[T, 2, 3]: the box of all that is seen at the times `which`; while the set of surfaces changes,
        of all that is ever seen there, each standing as `body` has it.
        """
        if not self.changes(which):
            return np.stack([self._boxes[i] for i in which])
        parts = self.body(which), self._constant(which, self.extremes, changing=False)
        return geometry.boxes(np.concatenate(parts, axis=1))

    def displacement(self, which: Sequence[int], body: Points | None = None) -> npt.NDArray[np.float64]:
        """[T]: RMS displacement from the first of the times `which`, of `body`, which is `body(which)`.

        Surfaces that come and go may show motion that none of them has, one pose after another: taken
        together, as one body stood for by its extreme points, they count by their vertices if that is more.
        """
        body = self.body(which) if body is None else body
        if body.shape[1] == 0:
            return np.zeros(len(which))
        found = geometry.rms_displacement(body)
        if not self.changes(which):
            return found
        always = set.intersection(*(set(self.steps[i]) for i in which))
        share = 1.0 - sum(len(self.steps[which[0]][key]) for key in always) / body.shape[1]
        steady = self._constant(which, [{k: m[k] for k in always & m.keys()} for m in self.steps], True)
        outlines: list[Points | None] = []
        for i in which:
            passing = [points for key, points in self.steps[i].items() if key not in always]
            outlines.append(support(np.concatenate(passing)) if passing else None)
        if all(outline is None for outline in outlines):
            return found
        flips = geometry.rms_displacement(np.stack(_held(outlines)))
        rest = geometry.rms_displacement(steady) if steady.shape[1] else np.zeros(len(which))
        return np.maximum(found, np.sqrt(max(share, 0.0) * flips**2 + (1.0 - max(share, 0.0)) * rest**2))

    def motion(self, which: Sequence[int]) -> float:
        """Largest displacement over the times `which`, in diameters of the first."""
        body = self.body(which)
        if body.shape[1] == 0:
            return 0.0
        return geometry.relative(float(self.displacement(which, body).max()), body[0])

    def _constant(self, which: Sequence[int], source: list[dict[Key, Points]], changing: bool) -> Points:
        columns = []
        for key in sorted({key for i in which for key in source[i]}):
            counts = {len(self.steps[i][key]) for i in which if key in self.steps[i]}
            if len(counts) == 1:
                seen = [source[i].get(key) for i in which]
            elif changing:
                # Its extreme points, of all vertices where they were kept.
                held = self.extremes if self.stride > 1 and self._extremes else self.steps
                seen = [support(held[i][key]) if key in held[i] else None for i in which]
            else:
                continue
            columns.append(np.stack(_held(seen)))
        return np.concatenate(columns, axis=1) if columns else np.zeros((len(which), 0, 3), np.float32)


def _held(seen: Sequence[Points | None]) -> list[Points]:
    """`seen` with every gap filled by what came before it, or at the start by the first."""
    last = next(points for points in seen if points is not None)
    filled = []
    for points in seen:
        last = last if points is None else points
        filled.append(last)
    return filled
