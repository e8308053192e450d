"""Frames of a step: drawn, and their gradients taken back, with the graph cut between field and rasteriser.

A frame's rasteriser sees leaves; what it hands to them goes through the field once for all frames. So frames
are drawn side by side, and what each part costs is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from orbit4d.compose.animate.stages.clock import Clock
from orbit4d.datasets.images.over import over_premultiplied
from orbit4d.recon4d.gaussians import Gaussians
from orbit4d.recon4d.raster import threads
from orbit4d.recon4d.raster.api import trusted
from orbit4d.recon4d.scene import Placed

#: Means, quats, scales, opacities and colours, as the rasteriser takes them.
Posed = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


@dataclass
class Frame:
    """One frame with what is needed to take its gradient back."""

    posed: Posed
    leaf: Posed
    color: Tensor
    """[h, w, 3], premultiplied."""
    alpha: Tensor
    """[h, w, 1]"""


class Looks:
    """Scales, opacities and colours of Gaussians, made once where the field moves none of them."""

    def __init__(self, canonical: Gaussians) -> None:
        self.of = canonical
        self.made = _activated(canonical)

    def posed(self, moved: Gaussians) -> Posed:
        """What is drawn of Gaussians that were moved from these."""
        same = (
            moved.log_scales is self.of.log_scales
            and moved.logits is self.of.logits
            and moved.colors is self.of.colors
        )
        return (moved.means, moved.quats, *(self.made if same else _activated(moved)))


def _activated(g: Gaussians) -> tuple[Tensor, Tensor, Tensor]:
    return g.scales, g.opacities, g.colors.clamp(0, 1)


def draw_frames(
    posed: Sequence[Posed], cameras: Sequence[Placed], eps2d: float, clock: Clock, graph: bool = True
) -> list[Frame]:
    """Frames of posed Gaussians, each through its camera; without `graph` they cannot be pulled."""

    def one(tensors: Posed, camera: Placed) -> Frame:
        with torch.set_grad_enabled(graph):
            means, quats, scales, opacities, colors = leaf = tuple(
                t.detach().requires_grad_(graph and t.requires_grad) for t in tensors
            )
            color, alpha, _ = trusted(
                means, quats, scales, opacities, colors, camera.viewmats, camera.Ks, camera.width,
                camera.height, eps2d=eps2d,
            )  # fmt: skip
        return Frame(tensors, leaf, color[0], alpha[0])  # type: ignore[arg-type]  # five as given

    def part(i: int, n: int) -> list[Frame]:
        span = range(i * len(posed) // n, (i + 1) * len(posed) // n)
        return [one(posed[k], cameras[k]) for k in span]

    with clock.on("raster"):
        n = _parts(len(posed), posed[0][0])
        together = threads.each([lambda i=i: part(i, n) for i in range(n)])  # type: ignore[misc]
    return [frame for frames in together for frame in frames]


def on_background(frames: Sequence[Frame], background: Tensor) -> Tensor:
    """Images [F, 3, h, w] of frames on a colour [3], without graph."""
    color = torch.stack([frame.color.detach() for frame in frames])
    alpha = torch.stack([frame.alpha.detach() for frame in frames])
    shown = over_premultiplied(color, alpha, background.to(color))
    return shown.permute(0, 3, 1, 2).contiguous()


def pull_frames(
    frames: Sequence[Frame], colors: Tensor, alphas: Tensor, clock: Clock, penalty: Tensor | None = None
) -> None:
    """Take gradients of premultiplied colours [F, h, w, 3] and alphas [F, h, w, 1] back to the parameters.

    `penalty` [] is differentiated with them: it may share the field's graph.
    """

    def part(i: int, n: int) -> None:
        for k in range(i * len(frames) // n, (i + 1) * len(frames) // n):
            torch.autograd.backward([frames[k].color, frames[k].alpha], [colors[k], alphas[k]])

    with clock.on("raster"):
        n = _parts(len(frames), frames[0].color)
        threads.each([lambda i=i: part(i, n) for i in range(n)])  # type: ignore[misc]
    roots: dict[int, tuple[Tensor, Tensor]] = {}
    for frame in frames:
        for tensor, leaf in zip(frame.posed, frame.leaf):
            if tensor.requires_grad and leaf.grad is not None:
                held = roots.get(id(tensor))
                roots[id(tensor)] = (tensor, leaf.grad if held is None else held[1] + leaf.grad)
    if penalty is not None:
        roots[id(penalty)] = (penalty, torch.ones_like(penalty))
    torch.autograd.backward([t for t, _ in roots.values()], [g for _, g in roots.values()])


def image_gradients(grad_images: Tensor, background: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of images [F, 3, h, w] on a colour as those of colours and alphas (see `pull_frames`)."""
    colors = grad_images.permute(0, 2, 3, 1).contiguous()
    return colors, -(colors * background.to(colors)).sum(-1, keepdim=True)


def _parts(n: int, like: Tensor) -> int:
    return max(1, min(threads.count(), n)) if like.device.type == "cpu" else 1
