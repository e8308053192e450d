"""Times and cameras of clips: frequencies by enumeration, and where cameras may stand."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest

from orbit4d.compose import clip_times
from orbit4d.compose.animate.sampling import View, draw_clip_views, draw_view, side_of
from orbit4d.compose.animate.settings import OURS, PUBLISHED, Rig

N = 30_000


def counted(**options: float) -> dict[str, float]:
    rng, first, last, start = random.Random(5), 0, 0, 0
    for _ in range(N):
        times, starts = clip_times(rng, 16, **options)  # type: ignore[arg-type]
        quanta = times * 256
        assert np.array_equal(quanta, np.rint(quanta)) and (np.diff(times) > 0).all()
        assert times[0] >= 0 and times[-1] <= 1
        assert not starts or times[0] == 0
        first, last, start = first + (times[0] == 0), last + (times[-1] == 1), start + starts
    return {"first_is_zero": first / N, "last_is_one": last / N, "start_clip": start / N}


@pytest.mark.parametrize(("kind", "options"), [("exact", {}), ("off", {"zero_rate": 0.0, "mirror": 0.0})])
def test_times_come_as_often_as_by_enumeration(shared: Path, kind: str, options: dict[str, float]) -> None:
    with np.load(shared / "fixtures" / "score_distillation" / "times.npz") as file:
        exact = {
            name: float(file[f"{kind}_{name}"]) for name in ("first_is_zero", "last_is_one", "start_clip")
        }
    for name, share in counted(**options).items():
        p = exact[name]
        # Four deviations of a binomial: a wrong rule is off by tenths.
        assert abs(share - p) <= 4 * math.sqrt(p * (1 - p) / N) + 1e-12, name


def test_the_histogram_of_times_is_the_enumerated_one(shared: Path) -> None:
    with np.load(shared / "fixtures" / "score_distillation" / "times.npz") as file:
        exact = file["exact_histogram"]
    rng, counts, n = random.Random(2), np.zeros(257), 8_000
    for _ in range(n):
        counts[np.rint(clip_times(rng, 16)[0] * 256).astype(int)] += 1
    got = counts / counts.sum()
    # Frames of a clip differ, so counts of one quantum are binomial over clips: 5 deviations over 257 bins.
    assert (np.abs(got - exact) <= 5 * np.sqrt(exact * 16 * n) / (16 * n) + 1e-12).all()


def test_times_need_no_more_frames_than_quanta() -> None:
    assert clip_times(random.Random(0), 4, precision=4)[0].tolist() in (
        [0, 0.25, 0.5, 0.75],
        [0.25, 0.5, 0.75, 1],
    )
    for n in (0, 257):
        with pytest.raises(ValueError, match="1 to 256"):
            clip_times(random.Random(0), n)


def test_cameras_stay_where_the_rig_has_them() -> None:
    rng = random.Random(1)
    for _ in range(500):
        views, moving = draw_clip_views(rng, OURS.rig, 8)
        assert all(abs(view.elevation) <= 40 and view.radius == 2.0 for view in views)
        assert abs(views[0].elevation) <= 30
        assert moving or len(set(views)) == 1
        # Frame i stands at i / F of the way, so the way's end is never reached.
        assert abs(views[-1].azimuth - views[0].azimuth) <= 90 * 7 / 8
    shares = [draw_clip_views(rng, OURS.rig, 2)[1] for _ in range(2_000)]
    assert abs(np.mean(shares) - 0.9) < 4 * math.sqrt(0.09 / 2_000)


def test_half_of_the_published_cameras_are_on_the_upper_sphere() -> None:
    rng = random.Random(3)
    high = np.mean([draw_view(rng, PUBLISHED.rig).elevation > 45 for _ in range(4_000)])
    # Half of the draws are even over the upper half sphere, of which 1 - sin 45 lies above 45 degrees.
    p = 0.5 * (1 - math.sin(math.radians(45)))
    assert abs(high - p) < 4 * math.sqrt(p * (1 - p) / 4_000)
    assert PUBLISHED.rig == Rig(1.8, 40.0, 45.0, 0.9, 90.0, 45.0, 90.0, 0.5)


def test_angles_and_sides() -> None:
    front = View(0.0, 0.0, 2.0)
    assert front.angle_to(front) == 0
    assert front.angle_to(View(0.0, 180.0, 1.0)) == pytest.approx(180)
    assert front.angle_to(View(30.0, 0.0, 2.0)) == pytest.approx(30)
    sides = [side_of(View(0.0, a, 2.0)) for a in (0, 44, 90, -100, 170, 540)]
    assert sides == ["front view", "front view", "side view", "side view", "back view", "back view"]
