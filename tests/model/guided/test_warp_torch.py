"""The warp in torch against the one in numba."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from orbit4d.model.guided.warp import Source, Warped, warp_frames, warp_to
from tests.model.guided.test_warp import EYE, H, K, W, moved, pattern

DEVICES = ["torch:cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def stepped(seed: int, unknown: float = 0.0) -> Source:
    """A near disc before a far slope, with noise of depth, thin parts and holes."""
    generator = np.random.default_rng(seed)
    u, v = np.meshgrid(np.arange(W) + 0.5, np.arange(H) + 0.5)
    depth = 3 + 0.01 * u + 0.004 * generator.standard_normal((H, W))
    depth[(u - 25) ** 2 + (v - 18) ** 2 < 90] = 2.0
    depth[:, 40:41] = 1.5
    depth[generator.random((H, W)) < unknown] = np.inf
    return Source(pattern(u, v).astype(np.float32), depth.astype(np.float32), K, EYE)


def same(found: Warped, wanted: Warped) -> None:
    """Both keep float32; where two depths tie to rounding one may draw another triangle or splat, or an edge
    may be hit by one alone: at most 0.1 % of pixels, as the document of the rules allows.
    """
    assert (found.seen != wanted.seen).mean() <= 1e-3
    both = found.seen & wanted.seen
    assert both.mean() > 0.2
    off = np.abs(found.image - wanted.image).max(-1) > 1e-5 * 255
    off |= both & ~np.isclose(found.depth, wanted.depth, rtol=1e-5, atol=0)
    off |= np.abs(found.confidence - wanted.confidence) > 1e-4
    assert (off & both).mean() <= 1e-3
    assert (found.image[~found.seen] == 0).all() and np.isinf(found.depth[~found.seen]).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_torch_is_numba(device: str, soft: bool, seed: int) -> None:
    for unknown in (0.0, 0.3):
        source = stepped(seed, unknown)
        for pose in (moved(x=0.3, turn=(0, -6, 2)), moved(z=-1.2), moved(z=1.5), moved(turn=(0, 40, 0))):
            for size in ((W, H), (33, 47)):
                wanted = warp_to(source, K, pose, size, soft=soft)
                if wanted.seen.mean() > 0.3:
                    same(warp_to(source, K, pose, size, soft=soft, device=device), wanted)


@pytest.mark.parametrize("device", DEVICES)
def test_several_sources_and_frames(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with boxes of triangles taken a few at a time."""
    monkeypatch.setattr("orbit4d.model.guided.warp_torch.CANDIDATES", 700)
    sources = [[stepped(0), stepped(1)], [stepped(2)]]
    poses = [moved(x=0.1), moved(y=0.2, turn=(3, 0, 0))]
    wanted = warp_frames(sources, [K, K], poses, (W, H))
    for one, other in zip(warp_frames(sources, [K, K], poses, (W, H), device=device), wanted):
        same(one, other)


@pytest.mark.parametrize("device", DEVICES)
def test_nothing_in_view_is_nothing_seen(device: str) -> None:
    found = warp_to(stepped(0), K, moved(turn=(0, 180, 0)), (W, H), device=device)
    assert not found.seen.any() and not found.image.any()
