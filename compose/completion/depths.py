"""Depth of the inputs by a network, at the scale that what is known of them gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from orbit4d.compose.completion.inputs import Given
from orbit4d.compose.completion.view import SOLID, View
from orbit4d.datasets.core.errors import InputError

Floats = npt.NDArray[np.float32]

#: Fewer matched points than this say nothing of a scale.
_LEAST = 12


class Asked(Protocol):
    """What a request says of depth."""

    @property
    def depth_model(self) -> str:
        """Name or folder."""

    @property
    def depth_centre(self) -> float | None:
        """Depth of the object's median, where it is given."""


def estimated(asked: Asked, given: Given) -> tuple[list[Floats], dict[str, Any]]:
    """Depth [H, W] of each input by `--depth-model`, and what the report says of it.

    A network of metric depth is taken at its word. Else the scale is, in this order: that of
    `--depth-centre`; fitted to depths that the inputs have; fitted to points that several posed images
    share; a guess from the distance to the path's centre.
    """
    from orbit4d.model.guided.depth.network import centred_depth, estimate_depth

    views = given.views
    found = estimate_depth(asked.depth_model, np.stack([view.on((255, 255, 255)) for view in views]))
    about: dict[str, Any] = {"depth": "model", "depth_model": asked.depth_model}
    about["depth_licence"] = found.licence
    if found.metric:
        about["depth_scale"] = "metres, as the network says"
        return list(found.values), about
    if asked.depth_centre is None:
        known, what = _known(given)
        if known is not None:
            maps, about["depth_scale"] = _fitted(found.values, known, what, views[0].name)
            print(f"note: depth from {asked.depth_model} is {about['depth_scale']}")
            return maps, about
    camera = views[0].camera
    assert camera is not None
    centre = asked.depth_centre or float(np.linalg.norm(camera.position))
    about["depth_scale"] = f"a guess: the median of the object is put at {centre:g}"
    print(f"note: depth from {asked.depth_model} is up to scale; {about['depth_scale']} (--depth-centre)")
    return list(centred_depth(found.values, centre, _solid(views, False))), about


def _known(given: Given) -> tuple[Floats | None, str]:
    """Depths [F, H, W] that are known of the inputs, inf elsewhere, and where from; None: none can be."""
    views = given.views
    if any(view.depth is not None for view in views):
        nothing = np.full(views[0].image.shape[:2], np.inf, np.float32)
        return np.stack([nothing if v.depth is None else v.solid_depth for v in views]), "known depths"
    cameras = [view.camera for view in views if view.camera is not None]
    apart = max(float(np.linalg.norm(c.position - cameras[0].position)) for c in cameras)
    # Frames of a video show other times: its points may have moved.
    if given.video or len(cameras) < 2 or apart < 1e-6:
        return None, ""
    from orbit4d.model.guided.depth.matched import matched_depth

    images = np.stack([view.on((255, 255, 255)) for view in views])
    poses = [camera.w2c_opencv for camera in cameras]
    return matched_depth(images, [c.K for c in cameras], poses, _solid(views, True)), "points matched"


def _fitted(disparity: Floats, known: Floats, what: str, name: str) -> tuple[list[Floats], str]:
    from orbit4d.model.guided.depth.network import fitted_depth

    count = int(np.isfinite(known).sum())
    if count < _LEAST:
        raise InputError(
            f"{name}: {count} {what} between the images, too few for the scale of --depth-model: give "
            "--depth, or --depth-centre Z"
        )
    try:
        maps = fitted_depth(disparity, known)
    except InputError as error:
        raise InputError(f"{name}: {error}: give --depth, or --depth-centre Z") from None
    valid = np.isfinite(known)
    off = np.abs(maps[valid] / known[valid] - 1)
    record = f"fitted to {count} {what}, {np.median(off):.1%} off in the median"
    return list(maps), record


def _solid(views: Sequence[View], otherwise: bool) -> npt.NDArray[np.bool_]:
    """Where each image shows the object [F, H, W]; `otherwise` where it has no alpha."""
    return np.stack(
        [
            view.alpha > SOLID if view.alpha is not None else np.full(view.image.shape[:2], otherwise)
            for view in views
        ]
    )
