"""Depth by a network (Depth Anything): metric depth, or disparity up to scale and shift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.guided.models.video_model import hub, licence_of

Floats = npt.NDArray[np.float32]

#: As the released code of NVS-Solver: nothing is nearer than 1 / this share of its scale.
LEAST_DISPARITY = 1e-5
_ROUNDS, _INLIER = 3, 0.1


@dataclass(frozen=True)
class Estimate:
    """What a network says of frames, at their size."""

    values: Floats
    """[F, H, W]: depth in the network's metres if `metric`, else disparity, larger = nearer."""
    metric: bool
    licence: str


def estimate_depth(name: str, frames: Floats) -> Estimate:
    """Depth or disparity of frames [F, H, W, 3] in [0, 1] by a model folder or hub name.

    InputError where it is not there or is no model of depth. The network's output is resized bilinearly: of a
    relative one the disparity, never its reciprocal.
    """
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with hub(name, "--depth-model"):
        processor: Any = AutoImageProcessor.from_pretrained(name)
        network: Any = AutoModelForDepthEstimation.from_pretrained(name).to(device).eval()
    metric = getattr(network.config, "depth_estimation_type", "relative") == "metric"
    out = []
    for frame in frames:
        inputs = processor(images=np.rint(frame * 255).astype(np.uint8), return_tensors="pt").to(device)
        with torch.no_grad():
            found = network(**inputs).predicted_depth
        size = frame.shape[:2]
        whole = torch.nn.functional.interpolate(found[:, None].float(), size, mode="bilinear")
        out.append(whole[0, 0].cpu().numpy())
    values = np.stack(out)
    if not np.isfinite(values).all():
        raise InputError(f"--depth-model {name}: its output is not finite; give another model")
    return Estimate(values.astype(np.float32), metric, licence_of(name))


def centred_depth(disparity: Floats, centre: float, object_: npt.NDArray[np.bool_] | None = None) -> Floats:
    """Depth s / disparity [F, H, W] whose median over the object is `centre`: one s for all frames.

    `object_` [F, H, W]; None: the central third of the frames.
    """
    disparity = np.maximum(disparity, np.float32(LEAST_DISPARITY))
    if object_ is None or not object_.any():
        h, w = disparity.shape[-2:]
        object_ = np.zeros(disparity.shape, bool)
        object_[..., h // 3 : -(h // 3) or None, w // 3 : -(w // 3) or None] = True
    scale = centre / float(np.median(1.0 / disparity[object_]))
    return (np.float32(scale) / disparity).astype(np.float32)


def fitted_depth(disparity: Floats, known: Floats) -> Floats:
    """Depth 1 / (a disparity + b) [F, H, W] with one (a, b) that fits the known depths [F, H, W].

    Least squares of 1 / z over finite known values, three rounds with inliers within 10 %. InputError where
    fewer than two depths are known, or where nearer is not larger.
    """
    valid = np.isfinite(known) & (known > 0)
    x, y = disparity[valid].astype(np.float64), 1.0 / known[valid].astype(np.float64)
    if len(x) < 2:
        raise InputError(f"{len(x)} known depths: at least two are needed to fit a network's disparity")
    use = np.ones(len(x), bool)
    a = b = 0.0
    for _ in range(_ROUNDS):
        (a, b), *_ = np.linalg.lstsq(np.stack([x[use], np.ones(int(use.sum()))], 1), y[use], rcond=None)
        inlier = np.abs(a * x + b - y) <= _INLIER * np.abs(y)
        if inlier.sum() < 2:
            break
        use = inlier
    if not a > 0:
        raise InputError("the network's disparity falls where the known depth does: it does not fit them")
    return (1.0 / np.maximum(a * disparity + b, LEAST_DISPARITY)).astype(np.float32)
