"""Latent gradients of many frames with the graph of one: render and encode all, then each again with a graph.

One graph over F frames through rasteriser, resize and encoder keeps everything at once (0.37 GiB a frame at
256 x 256). The first pass keeps latents alone; the second builds one frame's graph at a time. Frames are
visited from last to first, as autograd sums in one graph: then every gradient is the same to the bit where
the rasteriser's is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from orbit4d.datasets.core.errors import InputError

#: Frame index -> image [3, h, w] or [1, 3, h, w], with a graph when gradients are enabled.
Render = Callable[[int], Tensor]
#: Images [1, 3, h, w] and posterior noise (None: the mode) -> latents [1, C, h', w'].
Encode = Callable[[Tensor, Tensor | None], Tensor]
#: Latents of all frames [F, C, h', w'] -> their gradient, like them.
Gradient = Callable[[Tensor], Tensor]


def latent_gradients(
    frames: int,
    render: Render,
    encode: Encode,
    gradient: Gradient,
    *,
    noise: Tensor | None = None,
    frames_with_gradient: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Add the gradient of `gradient` at the frames' latents to the leaves of `render`; returns the latents.

    frames: F. render: must give the same image both times (same background, same time, no dropout).
    noise: [F, C, h', w'] of the encoder's posterior, drawn once; None takes its mode.
    frames_with_gradient: let a random subset of this size carry the gradient, scaled by F / k so that the sum
        is unbiased; None: all frames.

    Raises:
        InputError: no frame, or a subset that is none.
    """
    if frames < 1:
        raise InputError(f"latent gradients need at least one frame, got {frames}")
    chosen, scale = list(range(frames)), 1.0
    if frames_with_gradient is not None:
        if not 1 <= frames_with_gradient <= frames:
            raise InputError(f"frames_with_gradient {frames_with_gradient}: needs 1 to {frames}")
        order = torch.randperm(frames, generator=generator)[:frames_with_gradient]
        chosen, scale = sorted(order.tolist()), frames / frames_with_gradient
    with torch.no_grad():
        z = torch.cat([encode(_image(render(f)), _at(noise, f)) for f in range(frames)])
    g = gradient(z) * scale
    for f in reversed(chosen):
        with torch.enable_grad():
            image = _image(render(f))
            seen = image.detach().requires_grad_(True)
            encode(seen, _at(noise, f)).backward(g[f : f + 1])  # type: ignore[no-untyped-call]
            image.backward(seen.grad)  # type: ignore[no-untyped-call]
    return z


def one_graph(
    frames: int, render: Render, encode: Encode, gradient: Gradient, noise: Tensor | None = None
) -> Tensor:
    """The same with one graph over all frames, frame by frame encoded: what `latent_gradients` is held to."""
    with torch.enable_grad():
        z = torch.cat([encode(_image(render(f)), _at(noise, f)) for f in range(frames)])
        z.backward(gradient(z.detach()))  # type: ignore[no-untyped-call]
    return z.detach()


def _image(image: Tensor) -> Tensor:
    return image if image.ndim == 4 else image[None]


def _at(noise: Tensor | None, f: int) -> Tensor | None:
    return None if noise is None else noise[f : f + 1]
