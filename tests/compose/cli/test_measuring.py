"""What is measured of a film."""

from __future__ import annotations

import numpy as np

from orbit4d.compose.cli.measuring import occluded
from orbit4d.datasets.cameras.camera import orbit
from orbit4d.recon4d.composition import Composition, Part, Track
from orbit4d.recon4d.deformation.building import StillField
from orbit4d.recon4d.gaussians import from_points
from orbit4d.recon4d.scene import Scene


def test_who_hides_whom() -> None:
    """A wall behind which a ball stands, and a ball beside it."""
    x, z = (a.ravel() for a in np.meshgrid(np.linspace(-1, 1, 40), np.linspace(-1, 1, 40)))
    wall = np.column_stack([x, np.full(1600, -1.0), z])
    ball = np.random.default_rng(0).normal(size=(400, 3)) * 0.1
    track = Track(np.zeros((2, 3)), np.repeat(np.eye(3)[None], 2, axis=0), 1.0)
    parts = []
    for points in (wall, ball, ball + np.array([2.4, 0, 0])):
        found = from_points(points, np.full((len(points), 3), 0.5), opacity=0.95)
        found.log_scales[:] = float(np.log(0.05))
        parts.append(Part("k", Scene(found, StillField()), track, "x"))
    camera = orbit(1, radius=9.0, size=(64, 64))[0]
    composition = Composition.of(parts, 1.0, shots=[(camera, 0.0)])
    shown, hidden, beside = occluded(composition)
    assert shown < 0.02 and hidden > 0.95 and beside < 0.02
