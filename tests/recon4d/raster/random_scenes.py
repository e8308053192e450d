"""Random scenes and cameras, and how two back ends are compared on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from orbit4d.datasets.cameras.camera import orbit
from orbit4d.recon4d.raster.api import rasterize

#: Float32 against float64: the largest differences seen on the fixture (6e-6 and 5e-6), with room.
IMAGE_LIMIT = 2e-5
GRADIENT_LIMIT = 5e-5
NAMES = ("means", "quats", "scales", "opacities", "colors")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def scene(n=300, seed=0, spread=0.5, scale=0.03, sh_degree=None, dtype=torch.float32):
    """Random Gaussians around the origin."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    colors = torch.rand(n, 3, generator=g, dtype=torch.float64)
    if sh_degree is not None:
        colors = 0.4 * normal(n, (sh_degree + 1) ** 2, 3)
    values = {
        "means": spread * normal(n, 3) * 0.5,
        "quats": normal(n, 4),
        "scales": scale * torch.exp(0.5 * normal(n, 3)),
        "opacities": torch.sigmoid(normal(n)),
        "colors": colors,
    }
    return {name: value.to(dtype) for name, value in values.items()}


def cameras(count=1, size=(72, 56), dtype=torch.float32, **options):
    views = orbit(count, size=size, elevation_deg=20.0, azimuth0_deg=30.0, **options)
    return {
        "viewmats": torch.tensor(np.stack([v.w2c_opencv for v in views]), dtype=dtype),
        "Ks": torch.tensor(np.stack([v.K for v in views]), dtype=dtype),
        "width": size[0],
        "height": size[1],
    }


def weights_like(tensor, seed):
    return torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def run(values, view, backend, alpha_loss=True, keep=None, **options):
    """Image, alphas, meta and all gradients of a random linear functional of image and alphas.

    `keep` [C, H, W] limits the functional to some pixels. An input that took no part has gradient 0.
    """
    leaves = {k: v.detach().clone().requires_grad_() for k, v in values.items()}
    viewmats = view["viewmats"].detach().clone().requires_grad_()
    rest = {k: v for k, v in view.items() if k != "viewmats"}
    image, alphas, meta = rasterize(**leaves, viewmats=viewmats, **rest, backend=backend, **options)
    mask = torch.ones(image.shape[:-1]) if keep is None else keep
    loss = (image.double() * weights_like(image, 1) * mask[..., None]).sum()
    if alpha_loss:
        loss = loss + (alphas.double() * weights_like(alphas, 2) * mask[..., None]).sum()
    loss.backward()
    gradients = {k: v.grad for k, v in leaves.items()} | {"viewmats": viewmats.grad}
    gradients = {k: torch.zeros(()) if v is None else v for k, v in gradients.items()}
    gradients["means2d"] = meta["means2d"].grad
    return image.detach(), alphas.detach(), meta, gradients


def relative(a, b):
    """Relative L2 distance; the floor is for gradients that are zero by symmetry (a ball's rotation)."""
    a, b = a.double(), b.double()
    return float((a - b).norm() / b.norm().clamp(min=0.1))


def on_a_threshold(values, view, **options):
    """Pixels [C, H, W] that jump when opacities move by 1e-5: there float32 may fall on the other side."""
    moved = []
    for factor in (1 - 1e-5, 1.0, 1 + 1e-5):
        nudged = {**values, "opacities": values["opacities"] * factor}
        moved.append(rasterize(**to64(nudged), **to64(view), backend="torch", **options)[1])
    return ((moved[0] - moved[1]).abs() + (moved[2] - moved[1]).abs())[..., 0] > 4e-5


def to64(values):
    return {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in values.items()}


def assert_agrees(values, view, image_limit=IMAGE_LIMIT, gradient_limit=GRADIENT_LIMIT, **options):
    """The numba back end against the twin in float64: image, alphas, culling, all gradients."""
    steady = ~on_a_threshold(values, view, **options)
    assert steady.float().mean() > 0.9
    image, alphas, meta, grads = run(values, view, "numba", keep=steady, **options)
    truth, truth_alphas, truth_meta, truth_grads = run(
        to64(values), to64(view), "torch", keep=steady, **options
    )
    scale = max(1.0, float(truth.abs().max()))
    assert float(((image - truth).abs().amax(-1) * steady).max()) <= image_limit * scale
    assert float(((alphas - truth_alphas).abs().amax(-1) * steady).max()) <= image_limit
    assert torch.equal(meta["radii"] > 0, truth_meta["radii"] > 0)
    for name, gradient in grads.items():
        assert torch.isfinite(gradient).all(), name
        assert relative(gradient, truth_grads[name]) <= gradient_limit, name
    return image, alphas, meta
