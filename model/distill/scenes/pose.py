"""The way from a reference view to a camera, as view-conditioned models take it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from orbit4d.datasets.core.errors import InputError


def relative_pose(
    cameras: Tensor, reference: Tensor | tuple[float, float, float], stable: bool = False
) -> Tensor:
    """Zero-1-to-3's condition for cameras [N, 3] (elevation, azimuth in degrees, distance), as [N, 4].

    [rad(e_ref - e), sin(a - a_ref), cos(a - a_ref), r - r_ref]: azimuth counter-clockwise from above, as
    everywhere here. Codes with left-handed cameras feed the sine with the other sign. `stable`: the last
    number is rad(90 - e_ref).

    Raises:
        InputError: a distance that is not positive, or another shape.
    """
    at = torch.as_tensor(reference, dtype=cameras.dtype, device=cameras.device)
    if cameras.ndim != 2 or cameras.shape[1] != 3 or at.shape != (3,):
        raise InputError(f"cameras are [N, 3] (elevation, azimuth, distance), got {list(cameras.shape)}")
    if not (torch.isfinite(cameras).all() and (cameras[:, 2] > 0).all() and at[2] > 0):
        raise InputError("a camera needs finite angles and a distance above 0")
    turn = torch.deg2rad(cameras[:, 1] - at[1])
    last = torch.deg2rad(90 - at[0]).expand(len(cameras)) if stable else cameras[:, 2] - at[2]
    return torch.stack([torch.deg2rad(at[0] - cameras[:, 0]), turn.sin(), turn.cos(), last], dim=1)


def camera_of_pose(pose: Tensor, reference: tuple[float, float, float]) -> tuple[float, float, float]:
    """The camera (elevation, azimuth in degrees, distance) that `relative_pose` [4] came from."""
    up, sine, cosine, further = (float(x) for x in pose)
    elevation, azimuth, distance = reference
    return (
        elevation - math.degrees(up),
        azimuth + math.degrees(math.atan2(sine, cosine)),
        distance + further,
    )
