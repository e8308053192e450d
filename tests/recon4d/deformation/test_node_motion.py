"""The node field without autograd: kernels against the field's own operations, forward and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from orbit4d.recon4d.deformation.field import HexPlaneField, NodeField
from orbit4d.recon4d.deformation.node_motion import NodeMotion, has_kernels
from orbit4d.recon4d.raster import threads

N = 300


def case(anchor: float | None, seed: int = 3, **shape: int) -> tuple[NodeField, torch.Tensor, torch.Tensor]:
    """A field that moves, and Gaussians bound to it. 13 nodes and 27 inputs fill no whole vector."""
    torch.manual_seed(seed)
    field = NodeField(**{"n_nodes": 13, "width": 32, **shape}, anchor=anchor)
    torch.nn.init.normal_(field.head.weight, std=0.2)
    torch.nn.init.normal_(field.head.bias, std=0.1)
    means = (0.2 * torch.randn(N, 3)).requires_grad_()
    field.bind(means)
    return field, means, torch.randn(N, 4).requires_grad_()


def flat(field: NodeField) -> np.ndarray:
    return torch.cat([p.detach().reshape(-1) for p in field.parameters()]).numpy()


@pytest.mark.parametrize("anchor", [None, 0.25])
@pytest.mark.parametrize(("time", "step"), [(0.3, 0.1), (0.0, 0.1), (0.97, 0.1), (0.6, None)])
def test_kernels_move_and_pull_as_autograd_does(
    anchor: float | None, time: float, step: float | None
) -> None:
    field, means, quats = case(anchor)
    by_means, by_quats = torch.randn(N, 3), torch.randn(N, 4)
    moved, turned, _ = field(means, quats, means, time)
    loss, terms = (moved * by_means).sum() + (turned * by_quats).sum(), {}
    if step is not None:
        terms = field.regularisers(time, step)
        loss = loss + 30.0 * terms["rigidity"] + 50.0 * terms.get("smoothness", torch.zeros(()))
    loss.backward()

    motion = NodeMotion(field, flat(field), N)
    raw = (means.detach().numpy(), quats.detach().numpy())
    gradient = np.full(sum(p.numel() for p in field.parameters()), np.nan, np.float32)
    grads = np.full((N, 3), np.nan, np.float32), np.full((N, 4), np.nan, np.float32)
    for _ in range(2):  # buffers that were used before give the same
        motion.move(*raw, time, step)
        weights = None if step is None else (30.0, 50.0)
        motion.pull(*raw, by_means.numpy(), by_quats.numpy(), *grads, gradient, weights)
    close(motion.means, moved)
    close(motion.quats, turned)
    close(grads[0], means.grad)
    close(grads[1], quats.grad)
    assert set(motion.terms) == set(terms)
    for name, value in terms.items():
        assert motion.terms[name] == pytest.approx(float(value.detach()), rel=1e-4)
    at = 0
    scale = max(float(p.grad.norm()) for p in field.parameters())
    for name, parameter in field.named_parameters():
        mine = gradient[at : at + parameter.numel()].reshape(parameter.shape)
        at += parameter.numel()
        # float32 sums over 300 Gaussians and 52 rows in another order; an anchored bias cancels to nothing.
        off = np.linalg.norm(mine - parameter.grad.numpy())
        assert off < 2e-5 * float(parameter.grad.norm()) + 1e-6 * scale, name


def close(mine: np.ndarray, theirs: torch.Tensor | None) -> None:
    assert theirs is not None
    np.testing.assert_allclose(mine, theirs.detach().numpy(), rtol=2e-5, atol=2e-6)


def test_what_was_asked_before_at_other_times_leaves_no_trace() -> None:
    field, means, quats = case(0.5)
    raw = (means.detach().numpy(), quats.detach().numpy())
    by = (np.ones((N, 3), np.float32), np.ones((N, 4), np.float32))
    found = []
    for before in (None, 0.1):
        motion = NodeMotion(field, flat(field), N)
        grads = np.empty((N, 3), np.float32), np.empty((N, 4), np.float32)
        gradient = np.empty(len(flat(field)), np.float32)
        if before is not None:
            motion.move(*raw, before, 0.05)
            motion.pull(*raw, *by, *grads, gradient, (1.0, 1.0))
        motion.move(*raw, 0.7, None)
        motion.pull(*raw, *by, *grads, gradient, None)
        found.append((motion.means.tobytes(), *(g.tobytes() for g in grads), gradient.tobytes()))
    assert found[0] == found[1]


def test_bits_do_not_depend_on_the_threads() -> None:
    field, means, quats = case(0.5)
    raw = (means.detach().numpy(), quats.detach().numpy())
    rng = np.random.default_rng(0)
    by = rng.normal(size=(N, 3)).astype(np.float32), rng.normal(size=(N, 4)).astype(np.float32)
    found = []
    for count in (1, 2, 3):
        with threads.alone(count):
            motion = NodeMotion(field, flat(field), N)
            grads = np.empty((N, 3), np.float32), np.empty((N, 4), np.float32)
            gradient = np.empty(len(flat(field)), np.float32)
            motion.move(*raw, 0.3, 0.1)
            motion.pull(*raw, *by, *grads, gradient, (1.0, 2.0))
        found.append((motion.means.tobytes(), *(g.tobytes() for g in grads), gradient.tobytes()))
    assert found[0] == found[1] == found[2]


def test_a_zero_head_moves_nothing() -> None:
    torch.manual_seed(0)
    field = NodeField(n_nodes=9, width=16)
    means, quats = torch.randn(N, 3), torch.randn(N, 4)
    field.bind(means)
    motion = NodeMotion(field, flat(field), N)
    motion.move(means.numpy(), quats.numpy(), 0.4, None)
    assert (motion.means == means.numpy()).all() and (motion.quats == quats.numpy()).all()


def test_only_what_the_kernels_know_goes_to_them() -> None:
    assert has_kernels(NodeField(n_nodes=4, width=48))
    assert not has_kernels(NodeField(n_nodes=4, width=40)), "no whole vectors"
    assert not has_kernels(NodeField(n_nodes=4, width=48).double())
    assert not has_kernels(NodeField(n_nodes=4, width=48).to("meta"))
    assert not has_kernels(HexPlaneField(resolution=4, time_resolution=3, channels=2))
