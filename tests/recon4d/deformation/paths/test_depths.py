"""Depths of paths: what an orbit sees stays, and swings are as deep as their directions say."""

from __future__ import annotations

import math

import pytest
import torch

from orbit4d.recon4d.deformation.paths import depths
from orbit4d.recon4d.deformation.paths.depths import across_rays, likely_paths
from orbit4d.recon4d.deformation.paths.path_field import DEPTH_SPAN, PathField
from orbit4d.recon4d.deformation.paths.prior import between_rests
from orbit4d.recon4d.raster import threads

T = 24
TIMES = torch.linspace(0, 1, T, dtype=torch.float64)
PRIOR = between_rests(TIMES, torch.tensor([0.0, 1.0], dtype=torch.float64), DEPTH_SPAN)
ALL = torch.ones(T, dtype=torch.bool)


def centres(arc: float = 2 * math.pi) -> torch.Tensor:
    """Places [T, 3] of a camera on an orbit of radius 2."""
    turn = arc * torch.arange(T, dtype=torch.float64) / T
    return 2.0 * torch.stack([turn.sin(), -turn.cos(), torch.zeros_like(turn)], 1)


def rays_of(paths: torch.Tensor, nodes: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    away = nodes[:, None] + paths - at
    return away / away.norm(dim=-1, keepdim=True)


def swings(k: int = 12, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Nodes [K, 3] and their paths [K, T, 3], each to and fro along one line of its own, twice or thrice."""
    g = torch.Generator().manual_seed(seed)
    nodes = 0.2 * torch.randn(k, 3, generator=g, dtype=torch.float64)
    lines = torch.nn.functional.normalize(torch.randn(k, 3, generator=g, dtype=torch.float64), dim=1)
    phase = torch.rand(k, 1, generator=g, dtype=torch.float64)
    wave = torch.sin(2 * math.pi * (TIMES + phase)) - torch.sin(2 * math.pi * phase)
    return nodes, 0.1 * wave[..., None] * lines[:, None]


def alone(k: int) -> torch.Tensor:
    return torch.eye(k, dtype=torch.float64)


def along(paths: torch.Tensor, rays: torch.Tensor) -> torch.Tensor:
    return (paths * rays).sum(-1)


def off(found: torch.Tensor, truth: torch.Tensor, rays: torch.Tensor) -> float:
    """Error of depth over the depth there is, root mean square."""
    return float(along(found - truth, rays).norm() / along(truth, rays).norm())


def test_a_swing_is_found_from_what_one_orbit_sees_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One round is the same prior without directions: it leaves out several times as much of the depth."""
    nodes, truth = swings()
    rays = rays_of(truth, nodes, centres())
    flat = truth - along(truth, rays)[..., None] * rays
    found = likely_paths(flat, rays, ALL, PRIOR, alone(12))
    monkeypatch.setattr(depths, "ROUNDS", 1)
    same_everywhere = likely_paths(flat, rays, ALL, PRIOR, alone(12))
    assert off(found, truth, rays) < 0.15 < 0.3 < off(same_everywhere, truth, rays)


def test_what_the_images_show_stays_and_what_was_believed_of_depth_does_not_count() -> None:
    nodes, truth = swings()
    rays = rays_of(truth, nodes, centres())
    wrong = truth + 0.05 * torch.randn(12, T, 1, generator=torch.Generator().manual_seed(1)) * rays
    found, other = (likely_paths(given, rays, ALL, PRIOR, alone(12)) for given in (truth, wrong))
    torch.testing.assert_close(found, other, rtol=0, atol=1e-9)
    across = across_rays(rays)
    kept, given = (torch.einsum("ktij,ktj->kti", across, path) for path in (found, truth))
    torch.testing.assert_close(kept, given, rtol=0, atol=1e-9)


def test_what_stands_still_stays_and_rest_is_rest() -> None:
    nodes, truth = swings(3)
    rays = rays_of(truth, nodes, centres())
    assert torch.equal(likely_paths(torch.zeros_like(truth), rays, ALL, PRIOR, alone(3)), 0 * truth)
    found = likely_paths(truth, rays, ALL, PRIOR, alone(3))
    # What the rest's place says of depth is 0 but for rounding.
    assert float(found[:, [0, -1]].norm(dim=-1).max()) < 1e-9


def test_one_round_is_the_mean_of_the_gaussian_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the dense formula over 3 T numbers a node (Rasmussen and Williams 2006, equation 2.23)."""
    monkeypatch.setattr(depths, "ROUNDS", 1)
    nodes, truth = swings(2)
    rays = rays_of(truth, nodes, centres())
    seen = torch.arange(T) % 5 != 0
    found = likely_paths(truth, rays, seen, PRIOR, alone(2))
    whole = torch.kron(PRIOR, depths.LENGTH**2 * torch.eye(3, dtype=torch.float64))
    for k in range(2):
        across = torch.eye(3, dtype=torch.float64) - rays[k, :, :, None] * rays[k, :, None, :]
        looks = torch.block_diag(*(across * seen[:, None, None]))
        noisy = looks @ whole @ looks.T + depths.SEEN**2 * torch.eye(3 * T, dtype=torch.float64)
        mean = (whole @ looks.T @ torch.linalg.solve(noisy, looks @ truth[k].reshape(-1))).reshape(T, 3)
        torch.testing.assert_close(along(found[k], rays[k]), along(mean, rays[k]), rtol=0, atol=1e-9)
        torch.testing.assert_close(found[k][~seen], mean[~seen], rtol=0, atol=1e-9)


def test_a_long_video_is_taken_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Directions from every second time, nodes by fives: no other result than from all at once."""
    nodes, truth = swings()
    rays = rays_of(truth, nodes, centres())
    whole = likely_paths(truth, rays, ALL, PRIOR, alone(12))
    monkeypatch.setattr(depths, "ROOM", 5 * (2 * T) ** 2)
    torch.testing.assert_close(likely_paths(truth, rays, ALL, PRIOR, alone(12)), whole, rtol=0, atol=1e-9)
    monkeypatch.setattr(depths, "MOST", T // 2)
    some = likely_paths(truth, rays, ALL, PRIOR, alone(12))
    assert off(some, truth, rays) < 0.15


def test_more_rounds_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding once grew from round to round until paths left the world."""
    nodes, truth = swings()
    rays = rays_of(truth, nodes, centres())
    ends = []
    for rounds in (100, 200):
        monkeypatch.setattr(depths, "ROUNDS", rounds)
        ends.append(likely_paths(truth, rays, ALL, PRIOR, alone(12)))
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-3)
    assert off(ends[1], truth, rays) < 0.15


def field_that_swings() -> tuple[PathField, torch.Tensor]:
    """A field whose paths are what an orbit sees of the swings of a rod, with nothing of their depth."""
    field = PathField(TIMES.tolist(), [0.0, 1.0], n_nodes=20)
    rod = torch.linspace(0, 0.6, 20)
    field.bind(torch.stack([torch.zeros(20), torch.zeros(20), -rod], 1))
    line = torch.nn.functional.normalize(torch.tensor([1.0, 0.7, 0.1], dtype=torch.float64), dim=0)
    wave = torch.sin(2 * math.pi * TIMES) * (1 - 0.3 * TIMES)
    far = 0.3 * -field.nodes[:, 2:].double()
    truth = far[:, None] * wave[None, :, None] * line
    rays = rays_of(truth, field.nodes.double(), centres())
    flat = (truth - along(truth, rays)[..., None] * rays).transpose(0, 1)
    rows = torch.linalg.pinv(field.spread.double(), rtol=0.03) @ (flat / field.units[:3])
    shares = field.shares(TIMES.float()).double()
    with torch.no_grad():
        field.table[..., :3] = (torch.linalg.pinv(shares, rtol=1e-4) @ rows.flatten(1)).reshape(T, 20, 3)
    return field, truth


def test_a_field_swings_as_deep_as_its_nodes_do() -> None:
    field, truth = field_that_swings()
    before = field.motions_at(TIMES.float())[1].detach().double().transpose(0, 1)
    rays = rays_of(truth, field.nodes.double(), centres())
    table = field.table.detach().clone()
    field.settle_depths(TIMES.float(), centres(), ALL)
    after = field.motions_at(TIMES.float())[1].detach().double().transpose(0, 1)
    assert off(after, truth, rays) < 0.2 < 0.8 < off(before, truth, rays)
    # The nodes move as smoothly over space as the field can, so what is seen moves by a pixel of 1,000.
    seen = (after - before) - along(after - before, rays)[..., None] * rays
    assert float(seen.norm(dim=-1).max()) < 1e-3
    assert torch.equal(field.table[..., 3:], table[..., 3:]), "turns are not of depth"


@pytest.mark.parametrize("arc", [0.0, 0.5])
def test_a_camera_that_hardly_goes_round_says_nothing_of_directions(arc: float) -> None:
    field, _ = field_that_swings()
    before = field.table.detach().clone()
    field.settle_depths(TIMES.float(), centres(arc), ALL)
    assert torch.equal(field.table, before)


def test_bits_do_not_depend_on_the_threads() -> None:
    found = []
    for count in (1, 2, 3):
        with threads.alone(count):
            field, _ = field_that_swings()
            field.settle_depths(TIMES.float(), centres(), ALL)
        found.append(field.table.detach().numpy().tobytes())
    assert found[0] == found[1] == found[2]
