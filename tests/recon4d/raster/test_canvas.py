"""Drawing in kept buffers gives the bits of the differentiable rasteriser."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from orbit4d.datasets.cameras.camera import orbit
from orbit4d.recon4d.raster.api import rasterize
from orbit4d.recon4d.raster.canvas import Canvas, Spread
from orbit4d.recon4d.scene import place


def gaussians(n: int, seed: int) -> list[torch.Tensor]:
    rng = np.random.default_rng(seed)
    values = (
        0.2 * rng.normal(size=(n, 3)), rng.normal(size=(n, 4)), 0.03 * np.exp(0.5 * rng.normal(size=(n, 3))),
        rng.uniform(0.0, 1.0, n), rng.uniform(size=(n, 3)),
    )  # fmt: skip
    return [torch.tensor(v, dtype=torch.float32).requires_grad_() for v in values]


@pytest.mark.parametrize(("width", "height"), [(48, 48), (37, 21)])
def test_images_and_gradients_are_those_of_the_differentiable_way(width: int, height: int) -> None:
    n = 400
    canvas = Canvas(n, width, height, 0.3)
    rng = np.random.default_rng(9)
    for seed in (0, 1):  # the second finds used buffers, and needs other slots
        tensors = gaussians(n, seed)
        with torch.no_grad():
            tensors[0][:3] += 50.0  # off the screen and behind the camera
        camera = place(orbit(4)[seed].resized(width, height))
        by_color = rng.normal(size=(height, width, 3)).astype(np.float32)
        by_alpha = rng.normal(size=(height, width, 1)).astype(np.float32)
        color, alpha, meta = rasterize(*tensors, camera.viewmats, camera.Ks, width, height)
        torch.autograd.backward(
            [color, alpha], [torch.from_numpy(by_color)[None], torch.from_numpy(by_alpha)[None]]
        )
        spread = Spread(*(t.detach().numpy() for t in tensors))
        grads = Spread(*(np.full(t.shape, np.nan, np.float32) for t in tensors))
        mine = canvas.draw(spread, camera.viewmats[0].numpy(), camera.Ks[0].numpy())
        np.testing.assert_array_equal(mine[0], color[0].detach().numpy())
        np.testing.assert_array_equal(mine[1], alpha[0].detach().numpy())
        canvas.pull(spread, by_color, by_alpha, grads)
        for got, tensor in zip(grads, tensors):
            np.testing.assert_array_equal(got, tensor.grad.numpy())
        np.testing.assert_array_equal(canvas.grad_means2d, meta["means2d"].grad[0].numpy())
        np.testing.assert_array_equal(canvas.radii, meta["radii"][0].numpy())
