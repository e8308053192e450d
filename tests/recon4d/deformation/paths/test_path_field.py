"""Nodes on paths of a Gaussian process: the prior's laws, times of rest, and kernels against autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.deformation.paths.path_field import PathField
from orbit4d.recon4d.deformation.paths.path_motion import PathMotion
from orbit4d.recon4d.deformation.paths.prior import along_the_surface, covariance, root, time_blend
from orbit4d.recon4d.raster import threads

N = 300
KEYS = [i / 23 for i in range(24)]


def case(
    rests: tuple[float, ...] = (0.0, 1.0), seed: int = 3
) -> tuple[PathField, torch.Tensor, torch.Tensor]:
    """A field that moves, and Gaussians bound to it. 13 nodes fill no whole vector."""
    torch.manual_seed(seed)
    field = PathField(KEYS, rests, n_nodes=13)
    means = (0.2 * torch.randn(N, 3)).requires_grad_()
    field.bind(means)
    torch.nn.init.normal_(field.table)
    return field, means, torch.randn(N, 4).requires_grad_()


def test_white_numbers_become_paths_of_the_conditioned_process() -> None:
    """Weights of the keys times their transposes are the covariance given that the times of rest are 0."""
    keys, rests = torch.tensor(KEYS, dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    knots = torch.cat([keys, rests])
    whole = covariance((knots[:, None] - knots[None]).abs(), 0.25)
    given = whole[:24, :24] - whole[:24, 24:] @ torch.linalg.inv(whole[24:, 24:]) @ whole[24:, :24]
    shares = whole[:24] @ time_blend(keys, rests, 0.25)
    # Eigenvalues below a millionth of the largest are left out.
    torch.testing.assert_close(shares @ shares.T, given, rtol=0, atol=1e-5)
    assert float(given.diagonal()[12]) > 0.9 and float(given.diagonal()[1]) < 0.2


def test_between_keys_a_path_is_what_the_process_expects() -> None:
    """A smooth path that the keys have is met between them: linear interpolation misses by far more.

    Away from the ends, where what comes next is not known.
    """
    field = PathField(KEYS, [0.0], n_nodes=1)
    at_keys = field.shares(torch.tensor(KEYS))
    path = torch.sin(3.0 * torch.tensor(KEYS))
    # The first key is a time of rest: its row and its column are 0.
    table = torch.cat([torch.zeros(1, 1), torch.linalg.solve(at_keys[1:, 1:], path[1:, None])])
    middle = ((torch.tensor(KEYS[1:-1]) + torch.tensor(KEYS[2:])) / 2)[5:-5]
    off = (field.shares(middle) @ table)[:, 0] - torch.sin(3.0 * middle)
    straight = ((path[1:-1] + path[2:]) / 2)[5:-5] - torch.sin(3.0 * middle)
    assert off.abs().max() < 0.1 * straight.abs().max()


@pytest.mark.parametrize("rests", [(0.0,), (0.0, 1.0), (5 / 23,), (0.3,)])
def test_at_a_time_of_rest_nothing_moves_to_the_bit(rests: tuple[float, ...]) -> None:
    field, means, quats = case(rests)
    for time in rests:
        moved, turned, _ = field(means, quats, means, time)
        assert torch.equal(moved, means)
        torch.testing.assert_close(turned, quats, rtol=1e-6, atol=1e-6)
        near, _, _ = field(means, quats, means, min(time + 0.002, 1.0) if time < 1 else 0.998)
        assert 0 < float((near - means).detach().norm(dim=1).max()) < 0.05, "motion begins at 0"
    elsewhere, _, _ = field(means, quats, means, 0.6)
    assert float((elsewhere - means).detach().norm(dim=1).mean()) > 0.05


def test_neighbours_on_the_surface_move_alike_and_feet_do_not() -> None:
    """Two legs 0.15 apart that hang together at the top: distances run up one and down the other."""
    along = torch.linspace(0, 0.5, 26)
    legs = [torch.stack([torch.full_like(along, x), torch.zeros_like(along), -along], 1) for x in (0.0, 0.15)]
    hip = torch.tensor([[x, 0.0, 0.005] for x in (0.03, 0.06, 0.09, 0.12)])
    points = torch.cat([*legs, hip])
    apart = along_the_surface(points)
    assert float(apart[25, 51]) > 0.3, "by way of the hip, not 0.15 across"
    assert float(apart[24, 25]) == pytest.approx(0.02, abs=1e-6)
    torch.testing.assert_close(apart, apart.T, rtol=1e-12, atol=1e-15)  # sums, one way and back
    whole = root(covariance(apart, 0.08))
    together = whole @ whole.T
    assert float(together[24, 25]) > 0.7 and abs(float(together[25, 51])) < 0.05


def test_parts_that_do_not_hang_together_are_far_apart() -> None:
    ball = 0.05 * torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    apart = along_the_surface(torch.cat([ball, ball + 3.0]))
    assert float(apart[:20, 20:].min()) > 10 and float(apart[:20, :20].max()) < 1
    # Nodes repeat where there are fewer points than nodes.
    assert torch.isfinite(root(covariance(along_the_surface(torch.zeros(9, 3)), 0.1))).all()


@pytest.mark.parametrize(
    ("time", "step"), [(0.3, 0.1), (5 / 23, 1 / 23), (0.0, 0.1), (0.97, 0.1), (0.6, None)]
)
def test_kernels_move_and_pull_as_autograd_does(time: float, step: float | None) -> None:
    field, means, quats = case((1.0,))
    by_means, by_quats = torch.randn(N, 3), torch.randn(N, 4)
    moved, turned, _ = field(means, quats, means, time)
    loss, terms = (moved * by_means).sum() + (turned * by_quats).sum(), {}
    if step is not None:
        terms = field.regularisers(time, step)
        loss = loss + 30.0 * terms["rigidity"] + 50.0 * terms.get("smoothness", torch.zeros(()))
    loss.backward()
    motion = PathMotion(field, field.table.detach().numpy().reshape(-1), N)
    raw = (means.detach().numpy(), quats.detach().numpy())
    gradient = np.full(field.table.numel(), np.nan, np.float32)
    grads = np.full((N, 3), np.nan, np.float32), np.full((N, 4), np.nan, np.float32)
    motion.move(*raw, 0.11, 0.05)
    motion.pull(*raw, by_means.numpy(), by_quats.numpy(), *grads, gradient, (1.0, 1.0))
    for _ in range(2):  # buffers that were used before, at another time too, give the same
        motion.move(*raw, time, step)
        weights = None if step is None else (30.0, 50.0)
        motion.pull(*raw, by_means.numpy(), by_quats.numpy(), *grads, gradient, weights)
    for mine, theirs in (
        (motion.means, moved.detach()), (motion.quats, turned.detach()), (grads[0], means.grad),
        (grads[1], quats.grad),
    ):  # fmt: skip
        assert theirs is not None
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=2e-5, atol=5e-6)
    assert set(motion.terms) == set(terms)
    for name, value in terms.items():
        assert motion.terms[name] == pytest.approx(float(value.detach()), rel=1e-4)
    assert field.table.grad is not None
    off = np.linalg.norm(gradient - field.table.grad.numpy().reshape(-1))
    # float32 sums over 300 Gaussians in another order.
    assert off < 2e-5 * float(field.table.grad.norm())


def test_bits_do_not_depend_on_the_threads() -> None:
    field, means, quats = case()
    raw = (means.detach().numpy(), quats.detach().numpy())
    rng = np.random.default_rng(0)
    by = rng.normal(size=(N, 3)).astype(np.float32), rng.normal(size=(N, 4)).astype(np.float32)
    found = []
    for count in (1, 2, 3):
        with threads.alone(count):
            motion = PathMotion(field, field.table.detach().numpy().reshape(-1), N)
            grads = np.empty((N, 3), np.float32), np.empty((N, 4), np.float32)
            gradient = np.empty(field.table.numel(), np.float32)
            motion.move(*raw, 0.3, 0.1)
            motion.pull(*raw, *by, *grads, gradient, (1.0, 2.0))
        found.append((motion.means.tobytes(), *(g.tobytes() for g in grads), gradient.tobytes()))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("keys", [[0.5], [0.5, 0.5], [0.5, 0.2]])
def test_keys_that_do_not_rise_are_refused(keys: list[float]) -> None:
    with pytest.raises(InputError, match="2 rising key times"):
        PathField(keys)
