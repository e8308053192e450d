"""Two passes give the gradients of one graph, to the bit, through the rasteriser and a real encoder."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from orbit4d.datasets import orbit
from orbit4d.datasets.core.errors import InputError
from orbit4d.model.distill import latent_gradients
from orbit4d.model.distill.two_pass import one_graph
from orbit4d.recon4d import rasterize
from tests.model.distill.tiny_pipelines import autoencoder

FRAMES, EDGE = 4, 16


class Moving:
    """60 Gaussians that shift with the frame; leaves are what carries gradients."""

    def __init__(self) -> None:
        made = torch.Generator().manual_seed(0)
        self.means = (torch.rand(60, 3, generator=made) - 0.5).requires_grad_(True)
        self.colors = torch.rand(60, 3, generator=made).requires_grad_(True)
        self.shift = torch.zeros(3).requires_grad_(True)

    @property
    def leaves(self) -> list[Tensor]:
        return [self.means, self.colors, self.shift]

    def render(self, f: int) -> Tensor:
        camera = orbit(FRAMES, radius=2.0, fov_x_deg=40.0, size=(EDGE, EDGE))[f]
        image, _, _ = rasterize(
            means=self.means + self.shift * (f + 1),
            quats=torch.tensor([[1.0, 0, 0, 0]]).expand(60, 4),
            scales=torch.full((60, 3), 0.08),
            opacities=torch.full((60,), 0.9),
            colors=self.colors,
            viewmats=torch.from_numpy(camera.w2c_opencv).float()[None],
            Ks=torch.from_numpy(camera.K).float()[None],
            width=EDGE,
            height=EDGE,
            backgrounds=torch.ones(3),
        )
        return image[0].permute(2, 0, 1)


def encoder() -> Callable[[Tensor, Tensor | None], Tensor]:
    torch.manual_seed(1)
    vae = autoencoder().eval().requires_grad_(False)

    def encode(images: Tensor, noise: Tensor | None) -> Tensor:
        posterior = vae.encode(2 * images - 1).latent_dist
        return posterior.mode() if noise is None else posterior.mean + posterior.std * noise

    return encode


def pulled(z: Tensor) -> Tensor:
    return (z - z.mean(0, keepdim=True)) * torch.linspace(0.5, 1.5, len(z)).view(-1, 1, 1, 1)


@pytest.mark.parametrize("noisy", [False, True])
def test_two_passes_are_one_graph_to_the_bit(noisy: bool) -> None:
    noise = torch.randn(FRAMES, 4, 8, 8, generator=torch.Generator().manual_seed(2)) if noisy else None
    encode, scenes = encoder(), (Moving(), Moving())
    one = one_graph(FRAMES, scenes[0].render, encode, pulled, noise)
    two = latent_gradients(FRAMES, scenes[1].render, encode, pulled, noise=noise)
    assert torch.equal(one, two)
    for a, b in zip(scenes[0].leaves, scenes[1].leaves):
        assert a.grad is not None and b.grad is not None and a.grad.abs().sum() > 0
        assert torch.equal(a.grad, b.grad)


def test_a_subset_of_frames_is_unbiased() -> None:
    """Mean over every subset of two of four frames, each scaled by 4 / 2, is the whole gradient."""
    encode, whole = encoder(), Moving()
    latent_gradients(FRAMES, whole.render, encode, pulled)
    parts, seen = [], set()
    for seed in range(200):
        drawn = torch.Generator().manual_seed(seed)
        subset = tuple(sorted(torch.randperm(FRAMES, generator=drawn)[:2].tolist()))
        if subset in seen:
            continue
        seen.add(subset)
        scene = Moving()
        drawn = torch.Generator().manual_seed(seed)
        latent_gradients(FRAMES, scene.render, encode, pulled, frames_with_gradient=2, generator=drawn)
        assert scene.colors.grad is not None
        parts.append(scene.colors.grad)
        if len(seen) == 6:
            break
    assert whole.colors.grad is not None and len(parts) == 6
    # Six float32 sums in another order.
    torch.testing.assert_close(torch.stack(parts).mean(0), whole.colors.grad, rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="needs 1 to 4"):
        latent_gradients(FRAMES, whole.render, encode, pulled, frames_with_gradient=5)
