"""Paces that are asked for, and the clip that plays at them; what swims and flies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from orbit4d.compose import rules_director
from orbit4d.compose.characters.concepts import Clip, floating
from orbit4d.compose.placement.planning import Cast, in_step, plan, rate_of

SECONDS = 2.0


def clip(action: str, pace: float | None, floats: bool = False) -> Clip:
    """A clip of a thing 1 high whose feet walk `pace` heights a second."""
    gait: dict[str, Any] = {
        "speed": pace, "share": 1.0, "slide": 0.1, "forward": [0.0, -1.0, 0.0], "height": 1.0,
        "usable": pace is not None,
    }  # fmt: skip
    return Clip(action, 1.0, 1.0, 0.0, 0.6, (0.2, 0.5), 1.0, gait, True, floats=floats)


WALK, RUN = clip("Walk", 1.0), clip("Gallop", 4.0)


def going(prompt: str, given: Clip, *others: Clip, metres: float = 1.0) -> tuple[Any, list[str]]:
    """(the individual in the plan, notes)."""
    spec = rules_director(prompt)
    found = plan(spec, [Cast(0, given, metres)], SECONDS, kin=lambda _: others)
    return found.placed[0], found.notes


@pytest.mark.parametrize(
    ("prompt", "given", "plays", "speed"),
    [
        ("a fox walks", WALK, "Walk", 1.0),
        ("a fox walks at 4 m/s", WALK, "Gallop", 4.0),
        ("a fox runs at 1 m/s", RUN, "Walk", 1.0),
        ("a fox walks at 1.3 m/s", WALK, "Walk", 1.3),  # within 0.7 to 1.4 of its own
        ("a fox walks quickly", WALK, "Walk", 1.5),  # 1.5 of the walk is nearer than 0.38 of the run
        ("a fox runs slowly", RUN, "Gallop", 2.0),  # 0.5 is as near as 2
        ("a fox walks 7 m", WALK, "Gallop", 4.0),
    ],
)
def test_beyond_its_own_pace_it_walks_or_runs(prompt: str, given: Clip, plays: str, speed: float) -> None:
    others = [one for one in (WALK, RUN) if one is not given]
    one, notes = going(prompt, given, *others)
    assert one.cast.clip.action == plays and one.speed == pytest.approx(speed)
    # Feet hold whatever plays: a second of the clip walks what its own feet walk.
    assert one.track.stride == pytest.approx(1.0 if plays == "Walk" else 4.0)
    assert any(f"{plays} instead of {given.action}" in note for note in notes) == (plays != given.action)


def test_a_pace_that_no_clip_has_is_said() -> None:
    one, notes = going("a fox walks at 9 m/s", WALK)
    assert one.cast.clip is WALK and any("its clip runs at 9.00 of its own pace" in note for note in notes)
    # One whose feet say nothing is no choice, and nothing is asked of one that stands.
    assert going("a fox walks at 9 m/s", WALK, clip("Run", None))[0].cast.clip is WALK
    assert going("a fox stands", WALK, RUN)[0].cast.clip is WALK


def test_a_pace_in_metres_is_of_its_size() -> None:
    """4 m/s is a walk for what is four metres high."""
    assert going("a fox walks at 4 m/s", WALK, RUN, metres=4.0)[0].cast.clip is WALK
    spec, cast = rules_director("a fox walks at 4 m/s"), Cast(0, WALK, 2.0)
    (chosen,) = in_step(spec, [cast], lambda _: [RUN], SECONDS, [])
    assert rate_of(cast, 4.0) == pytest.approx(2.0) and rate_of(Cast(0, RUN, 2.0), 4.0) == pytest.approx(0.5)
    assert chosen is cast


def test_a_distance_is_walked_in_the_film() -> None:
    one, _ = going("a fox walks 2 m", WALK, RUN)
    assert one.track.length == pytest.approx(2.0, rel=0.01) and one.track.end <= SECONDS + 1e-9


def test_a_way_shorter_than_the_ground_s_cells_is_gone() -> None:
    """A bee beside a frog: its way of 8 cm lies within one cell, and near an obstacle."""
    spec = rules_director("a frog jumps while a bee flies to the right")
    frog, bee = Cast(0, clip("Jump", None), 0.12), Cast(1, clip("Flying", None, floats=True), 0.03)
    found = plan(spec, [frog, bee], SECONDS)
    one = found.placed[1]
    assert found.ground is not None and found.ground.cell > 0.08
    way = one.track.points[-1] - one.track.points[0]
    assert one.track.length == pytest.approx(one.speed * 1.75, rel=1e-6) and way[0] > 0.07


def test_what_swims_and_flies_is_over_the_ground() -> None:
    fish = ["Armature|Swimming_Fast", "Armature|Attack", "Armature|Death"]
    assert all(floating(fish, name) for name in fish)
    frog = ["Frog_Idle", "Frog_Jump", "Frog_Swim"]
    assert [floating(frog, name) for name in frog] == [False, False, True]
    assert not floating(["Idle", "Walk"], "Walk") and floating(["Flying_Idle", "Headbutt"], "Headbutt")
    one, notes = going("a shark walks", clip("Swim", None, floats=True))
    assert np.allclose(one.track.points[:, 2], 0.5) and not any("say no speed" in note for note in notes)
    slow, said = going("a fox runs", clip("Walk", None))
    assert slow.speed == pytest.approx(0.6) and any("0.6 heights a second" in note for note in said)
    assert going("a fox runs", clip("Jog", None))[0].speed == pytest.approx(2.5)
    still, _ = going("a shark stands", clip("Swim", None, floats=True))
    assert np.allclose(still.track.points[:, 2], 0.5)
