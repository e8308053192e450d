"""Both fields: identity at the start, whole range of time, gradients, and the laws of their penalties."""

from __future__ import annotations

import pytest
import torch

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d import rotations
from orbit4d.recon4d.deformation.building import build_field
from orbit4d.recon4d.deformation.field import farthest_points
from orbit4d.recon4d.deformation.skinning import skin, skin_reference
from orbit4d.recon4d.gaussians import Gaussians

FIELDS = [
    {"kind": "nodes", "n_nodes": 30, "width": 32},
    {"kind": "hexplane", "resolution": 8, "time_resolution": 6, "channels": 4},
    {"kind": "paths", "keys": [0.0, 0.25, 0.5, 1.0], "rests": [1.0], "n_nodes": 30},
]


def cloud(n: int = 200, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    means = (torch.rand(n, 3, generator=generator) - 0.5) * 0.8
    quats = torch.nn.functional.normalize(torch.randn(n, 4, generator=generator), dim=-1)
    return means, quats, torch.full((n, 3), -4.0)


def shaken(config: dict, seed: int = 1):
    """A field whose last layers are not zero."""
    torch.manual_seed(seed)
    field = build_field(config)
    field.bind(cloud()[0])
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return field


@pytest.mark.parametrize("config", FIELDS, ids=lambda c: c["kind"])
def test_zero_heads_are_the_identity(config: dict) -> None:
    field = build_field(config)
    means, quats, log_scales = cloud()
    field.bind(means)
    for time in (0.0, 0.3, 1.0):
        moved, turned, scaled = field(means, quats, log_scales, time)
        torch.testing.assert_close(moved, means, rtol=0, atol=0)
        torch.testing.assert_close(turned, quats, rtol=0, atol=1e-6)
        torch.testing.assert_close(scaled, log_scales, rtol=0, atol=0)


@pytest.mark.parametrize("config", FIELDS, ids=lambda c: c["kind"])
def test_a_config_and_a_state_make_the_same_field(config: dict) -> None:
    field = shaken(config)
    again = build_field(field.config)
    again.load_state_dict(field.state_dict())
    inputs = cloud()
    again.bind(inputs[0])
    for ours, theirs in zip(field(*inputs, 0.7), again(*inputs, 0.7)):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("config", FIELDS, ids=lambda c: c["kind"])
def test_every_parameter_gets_a_gradient(config: dict) -> None:
    field = shaken(config)
    moved, turned, scaled = field(*cloud(), 0.4)
    terms = field.regularisers(0.4, 0.1)
    (moved.square().sum() + turned[:, 1].sum() + scaled.square().sum() + sum(terms.values())).backward()
    for name, parameter in field.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_hexplane_uses_its_time_planes_from_end_to_end() -> None:
    """Time enters as [-1, 1]: the first and the last row of a time plane are what times 0 and 1 read."""
    field = shaken(FIELDS[1])
    inputs = cloud()
    rows = field.config["time_resolution"]
    for time, row in ((0.0, 0), (1.0, rows - 1)):
        field.zero_grad()
        sum(out.square().sum() for out in field(*inputs, time)).backward()
        for plane, (_, b) in zip(field.planes, field.PLANES * 2):
            if b == 3:
                used = plane.grad.abs().sum((0, 1, 3)) > 0
                assert used[row] and used.sum() == 1


def test_hexplane_heads_choose_what_changes_over_time() -> None:
    config = {**FIELDS[1], "heads": ["means", "colors", "logits"]}
    means, quats, log_scales = cloud()
    g = Gaussians(means, log_scales, quats, torch.zeros(len(means)), torch.full((len(means), 3), 0.5))
    still = build_field(config).move(g, 0.3)
    for name, tensor in g.tensors().items():
        torch.testing.assert_close(getattr(still, name), tensor, rtol=0, atol=1e-6)
    moved = shaken(config).move(g, 0.3)
    assert moved.colors.shape == (200, 3) and moved.logits.shape == (200,)
    for name in ("means", "colors", "logits"):
        assert not torch.equal(getattr(moved, name), getattr(g, name))
    torch.testing.assert_close(moved.log_scales, g.log_scales, rtol=0, atol=0)
    torch.testing.assert_close(moved.quats, g.quats, rtol=0, atol=1e-6)
    again = build_field(shaken(config).config)
    assert set(again.heads) == {"means", "colors", "logits"}
    with pytest.raises(InputError, match="velocity"):
        build_field({**FIELDS[1], "heads": ["velocity"]})


def test_nodes_that_move_alike_carry_the_gaussians_rigidly() -> None:
    """One turn and shift for all nodes: every Gaussian is turned about its own centre and moved with them."""
    field = build_field({"kind": "nodes", "n_nodes": 20, "width": 16})
    means, quats, log_scales = cloud()
    field.bind(means)
    with torch.no_grad():
        field.head.bias.copy_(torch.tensor([0.1, -0.2, 0.05, 0.0, 0.0, 0.0]))
    moved, turned, _ = field(means, quats, log_scales, 0.5)
    torch.testing.assert_close(moved, means + torch.tensor([0.1, -0.2, 0.05]), atol=1e-6, rtol=0)
    torch.testing.assert_close(turned, quats, atol=1e-6, rtol=0)
    assert field.regularisers(0.5, 0.1)["rigidity"] < 1e-12


def test_rigidity_sees_stretching_and_smoothness_sees_jerks() -> None:
    field = shaken(FIELDS[0])
    assert field.regularisers(0.5, 0.1)["rigidity"] > 1e-6
    assert field.regularisers(0.5, 0.1)["smoothness"] > 0
    assert "smoothness" not in field.regularisers(0.0, 0.1), "there is no frame before the first"


def test_penalties_are_the_same_with_and_without_a_forward_before_them() -> None:
    field = shaken(FIELDS[0])
    alone = {name: value.item() for name, value in field.regularisers(0.4, 0.1).items()}
    field(*cloud(), 0.4)
    after = {name: value.item() for name, value in field.regularisers(0.4, 0.1).items()}
    assert alone == pytest.approx(after, rel=1e-5)


@pytest.mark.parametrize("k", [1, 4])
def test_skinning_kernel_holds_against_its_twin(k: int) -> None:
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    inputs = [draw(300, 3), draw(300, 4), 0.3 * draw(9, 16)]
    index = torch.randint(9, (300, k), generator=generator)
    weights = torch.rand(300, k, generator=generator)
    weights = weights / weights.sum(1, keepdim=True)
    pulls = (draw(300, 3), draw(300, 4))
    fast = [t.clone().requires_grad_() for t in inputs]
    slow = [t.double().requires_grad_() for t in inputs]
    ours = skin(*fast, index, weights)
    theirs = skin_reference(*slow, index, weights.double())
    torch.autograd.backward(ours, pulls)
    torch.autograd.backward(theirs, [p.double() for p in pulls])
    for a, b in zip([*ours, *(t.grad for t in fast)], [*theirs, *(t.grad for t in slow)]):
        # float32 sums over up to 300 Gaussians.
        torch.testing.assert_close(a.double(), b, atol=5e-5, rtol=5e-5)


def test_skinning_twin_holds_against_finite_differences() -> None:
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    index, weights = torch.tensor([[0, 1], [1, 2], [2, 0]]), torch.full((3, 2), 0.5, dtype=torch.float64)
    inputs = [draw(3, 3).requires_grad_(), draw(3, 4).requires_grad_(), draw(3, 16).requires_grad_()]
    assert torch.autograd.gradcheck(lambda m, q, maps: skin_reference(m, q, maps, index, weights), inputs)


def test_rotations_compose_and_quaternions_match_matrices() -> None:
    generator = torch.Generator().manual_seed(2)
    a, b = (torch.nn.functional.normalize(torch.randn(20, 4, generator=generator), dim=-1) for _ in range(2))
    joined = rotations.to_matrix(rotations.multiply(a, b))
    torch.testing.assert_close(joined, rotations.to_matrix(a) @ rotations.to_matrix(b), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        joined @ joined.transpose(1, 2), torch.eye(3).expand(20, 3, 3), atol=1e-6, rtol=0
    )


def test_farthest_points_spread() -> None:
    points = torch.cat([torch.zeros(100, 3), torch.ones(1, 3), -torch.ones(1, 3)])
    chosen = {tuple(p.tolist()) for p in farthest_points(points, 3)}
    assert chosen == {(0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (-1.0, -1.0, -1.0)}
    assert len(farthest_points(points[:2], 5)) == 5
