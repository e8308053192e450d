"""Gaussians and cameras in worlds with another axis up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.gaussians import Gaussians
from orbit4d.recon4d.raster.reference import spherical_harmonics_basis
from orbit4d.recon4d.rotations import multiply

#: Names of the axis that points up -> rows of the rotation out of our world: z is ours, y is (x, z, -y).
UP = {
    "z": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "y": ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0)),
}
#: Names of whole sets of axes, the same way: rdf is X right, Y down, Z forward (COLMAP); y-down-180 what
#: SuperSplat takes a PLY to be.
AXES = {
    "z-up": UP["z"],
    "y-up": UP["y"],
    "rdf": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0)),
    "y-down-180": ((-1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, -1.0, 0.0)),
}


def check_up(up: str) -> None:
    """Raises InputError for anything but y and z."""
    if up not in UP:
        raise InputError(f"--up {up}: choose y or z")


def turn_gaussians(gaussians: Gaussians, up: str) -> Gaussians:
    """The same Gaussians in a world whose `up` axis points up: centres, rotations and harmonics turned."""
    check_up(up)
    return gaussians if up == "z" else rotated(gaussians, torch.tensor(UP[up]))


def to_axes(gaussians: Gaussians, axes: str) -> Gaussians:
    """Gaussians of our world in others' axes (`AXES`); "file" leaves the numbers. InputError for others."""
    return gaussians if (turn := _turn_of(axes)) is None else rotated(gaussians, turn)


def from_axes(gaussians: Gaussians, axes: str) -> Gaussians:
    """Inverse of `to_axes`."""
    return gaussians if (turn := _turn_of(axes)) is None else rotated(gaussians, turn.T)


def _turn_of(axes: str) -> Tensor | None:
    if axes not in ("file", *AXES):
        raise InputError(f"--axes {axes}: choose from file, {', '.join(AXES)}")
    return None if axes in ("file", "z-up") else torch.tensor(AXES[axes])


def rotated(gaussians: Gaussians, turn: Tensor) -> Gaussians:
    """Gaussians turned by a rotation [3, 3]: centres, rotations and harmonics."""
    g = gaussians.detached()
    harmonics = g.harmonics
    if g.sh_degree:
        by_degree = harmonics.split([2 * degree + 1 for degree in range(1, g.sh_degree + 1)], dim=1)
        turned = (
            torch.einsum("jk,nkc->njc", _band(turn, degree).to(part), part)
            for degree, part in enumerate(by_degree, start=1)
        )
        harmonics = torch.cat(list(turned), dim=1)
    quats = multiply(_quat_of(turn).to(g.quats).expand_as(g.quats), g.quats)
    return replace(g, means=g.means @ turn.T, quats=quats, harmonics=harmonics)


def _quat_of(turn: Tensor) -> Tensor:
    """The quaternion w x y z of a rotation matrix."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(turn.double().numpy()).as_quat()
    return torch.tensor((w, x, y, z))


def turn_camera(camera: Camera, up: str) -> Camera:
    """The same view in a world whose `up` axis points up."""
    check_up(up)
    c2w = np.array(camera.c2w)
    c2w[:3] = np.array(UP[up]) @ c2w[:3]
    return replace(camera, c2w=c2w)


def _band(turn: Tensor, degree: int) -> Tensor:
    """[2d + 1, 2d + 1] float64: coefficients of one degree after `turn` [3, 3] from those before it.

    Y(turn · d) · after = Y(d) · before for every direction d; solved over 64 of them, exact to rounding.
    """
    directions = torch.from_numpy(np.random.default_rng(0).normal(size=(64, 3)))
    directions /= directions.norm(dim=1, keepdim=True)
    band = slice(degree**2, (degree + 1) ** 2)
    before = spherical_harmonics_basis(directions, degree)[:, band]
    after = spherical_harmonics_basis(directions @ turn.to(directions).T, degree)[:, band]
    return torch.linalg.lstsq(after, before).solution
