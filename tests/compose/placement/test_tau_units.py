"""--tau-units: refinement moves by at most 0.05 of the scene's metres, or of an actor's own height."""

from __future__ import annotations

import numpy as np
import pytest

from orbit4d.compose.characters.concepts import Clip
from orbit4d.compose.placement.bounds import bounded
from orbit4d.compose.placement.ground import Ground
from orbit4d.compose.placement.individuals import Cast, Placed, Plan
from orbit4d.compose.placement.procedural import build
from orbit4d.compose.placement.refinement import refined, tau_of
from orbit4d.recon4d.composition import Track

GAIT = {"usable": False, "slide": None, "forward": [0.0, -1.0, 0.0], "speed": 0.0, "height": 1.0}


def floating(metres: float) -> Plan:
    """One whose way of three points is 0.08 of its height above the ground."""
    clip = Clip("Idle", 1.0, 1.0, 0.0, 0.3, (0.2, 0.2), 1.0, GAIT, True)
    cast = Cast(0, clip, metres)
    ground = Ground.plane((-2.0, -2.0), (2.0, 2.0), 0.2)
    points = np.repeat(np.array([[0.0, 0.0, 0.08 * metres]]), 3, axis=0)
    track = Track(points, np.repeat(np.eye(3)[None], 3, axis=0), cast.scale)
    return Plan(build("plain", 2.0, 2.0, {}), [Placed(0, 0, cast, track, False)], 2.0, ground=ground)


@pytest.mark.parametrize(("metres", "scene"), [(0.1, 0.008), (3.0, 0.05)])
def test_an_actors_height_is_the_unit_where_it_is_asked_for(metres: float, scene: float) -> None:
    for units, wanted in (("scene", scene), ("height", 0.05 * metres)):
        plan = floating(metres)
        assert tau_of(plan.placed[0], units) / 2 == pytest.approx(0.05 * (metres if units == "height" else 1))
        lines = refined(plan, units)
        sunk = 0.08 * metres - plan.placed[0].track.points[:, 2]
        # 1 % of tau is what a coordinate at its bound may lack of it.
        assert sunk == pytest.approx(wanted, rel=0.02)
        bound = wanted < 0.07 * metres
        assert any("at_bound" in line and f"kept to {wanted:g}" in line for line in lines) == bound


def test_the_bound_is_half_of_tau_in_either_unit() -> None:
    for tau in (0.1, 0.3):
        assert float(np.asarray(bounded(np.array([1e6]), tau, 1.0))[0]) == 1.0 + tau / 2
