"""When somebody sets off, and where in its clip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from orbit4d.compose.placement.facing import face
from orbit4d.compose.placement.timing import APART, LONGEST_WAIT, Disc, meetings, phase_of, waited
from orbit4d.recon4d.composition import Track


def track(start: tuple[float, float], end: tuple[float, float], seconds: float = 4.0) -> Track:
    points = np.linspace([*start, 0.0], [*end, 0.0], 20)
    return Track(points, face(points), 1.0, begin=0.0, end=seconds, ease=0.25, stride=1.0)


def test_a_wait_is_the_shortest_that_lets_another_pass() -> None:
    first = Disc(track((-2, 0), (2, 0)), 0.3)
    second = Disc(track((0, -2), (0, 2)), 0.3)
    assert len(meetings(second, [first], 4.0)) and len(meetings(first, [second], 4.0))
    later = waited(second, [first], 4.0)
    assert later is not None and 0 < later.begin <= LONGEST_WAIT
    assert later.end - later.begin == pytest.approx(4.0) and np.array_equal(later.points, second.track.points)
    assert not len(meetings(Disc(later, 0.3), [first], 4.0))
    sooner = replace(later, begin=later.begin - 0.1, end=later.end - 0.1)
    assert len(meetings(Disc(sooner, 0.3), [first], 4.0))
    # Who meets nobody sets off at once; against who stands in the way, or comes along it, no wait helps.
    away = Disc(track((5, -2), (5, 2)), 0.3)
    assert waited(away, [first], 4.0) is away.track
    assert waited(first, [Disc(track((0, 0), (0, 0)), 0.3)], 4.0) is None
    assert waited(first, [Disc(track((2, 0), (-2, 0)), 0.3)], 4.0) is None


def test_a_clip_begins_where_what_is_shown_slides_least() -> None:
    moments = np.linspace(0, 1, 97)
    slides = 0.5 + 0.4 * np.cos(2 * np.pi * moments)  # least in its middle
    short = track((0, 0), (0.5, 0), 1.0)
    phase = phase_of(short, 1.0, 1.0, tuple(slides))
    shown = [phase + short.travelled(t) for t in np.linspace(0.25, 0.75, 33)]
    assert np.mean(shown) == pytest.approx(0.5, abs=0.03)
    fellow = phase_of(short, 1.0, 1.0, tuple(slides), [phase])
    assert APART <= abs(fellow - phase) <= APART + 0.05  # the next best that is out of step
    # Many cycles are the clip as a whole: members of a group keep their places in it.
    far = track((0, 0), (5, 0), 1.0)
    assert phase_of(far, 1.0, 1.0, tuple(slides)) == 0.0
    assert phase_of(far, 1.0, 1.0, tuple(slides), [0.0]) == pytest.approx(0.37)
    assert phase_of(short, 1.0, 1.0, ()) == 0.0
