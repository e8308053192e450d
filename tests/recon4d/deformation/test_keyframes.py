"""The keyframes field: exact at its keys, linear between them, and the identity until it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d import Gaussians, KeyframeField, keyframe_tv
from orbit4d.recon4d.deformation.building import build_field


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def gaussians() -> Gaussians:
    n = 60
    return Gaussians(
        means=0.3 * drawn(n, 3), quats=torch.nn.functional.normalize(drawn(n, 4, seed=1), dim=-1),
        log_scales=drawn(n, 3, seed=2) - 4, logits=drawn(n, seed=3), colors=drawn(n, 3, seed=4).sigmoid(),
    )  # fmt: skip


def field_over(over: str, gaussians: Gaussians, n_keys: int = 5, scale: float = 0.1) -> KeyframeField:
    heads = ("means", "quats", "log_scales", "colors", "logits")
    field = KeyframeField(n_keys, over, heads, n_nodes=12)
    field.bind(gaussians.means)
    with torch.no_grad():
        field.table.copy_(scale * drawn(*field.table.shape, seed=5))
    return field


@pytest.mark.parametrize("n_keys", [2, 3, 17, 24, 50, 64])
def test_keys_are_met_to_the_bit(n_keys: int) -> None:
    table = drawn(n_keys, 4, 3)
    for k in range(n_keys):
        assert torch.equal(KeyframeField.blend(table, k / (n_keys - 1)), table[k])


def test_linear_between_keys() -> None:
    table = drawn(6, 4, 3).double()
    for k, u in ((0, 0.25), (3, 0.7), (4, 0.999)):
        expected = (1 - u) * table[k] + u * table[k + 1]
        assert torch.allclose(KeyframeField.blend(table, (k + u) / 5), expected, rtol=0, atol=1e-12)


def test_gradients_reach_the_two_keys_around_a_time() -> None:
    table = drawn(6, 4, 3).requires_grad_()
    KeyframeField.blend(table, 2.25 / 5).sum().backward()
    weights = table.grad[:, 0, 0]
    assert torch.allclose(weights, torch.tensor([0, 0, 0.75, 0.25, 0, 0]), atol=1e-6)
    table.grad = None
    KeyframeField.blend(table, 0.6).sum().backward()
    assert table.grad[:, 0, 0].tolist() == [0, 0, 0, 1, 0, 0]


@pytest.mark.parametrize("over", ["nodes", "gaussians"])
def test_a_zero_table_and_equal_keys_move_nothing_in_time(over: str, gaussians: Gaussians) -> None:
    still = field_over(over, gaussians, scale=0.0)
    moved = still.move(gaussians, 0.37)
    assert torch.equal(moved.means, gaussians.means) and torch.equal(moved.log_scales, gaussians.log_scales)
    assert torch.equal(moved.colors, gaussians.colors) and torch.equal(moved.logits, gaussians.logits)
    assert torch.allclose(moved.quats, gaussians.quats, atol=1e-6)
    same = field_over(over, gaussians)
    with torch.no_grad():
        same.table.copy_(same.table[:1].expand_as(same.table).clone())
    first = same.move(gaussians, 0.0)
    for time in (0.1, 0.5, 0.99, 1.0):
        later = same.move(gaussians, time)
        assert all(torch.equal(a, b) for a, b in zip(first.tensors().values(), later.tensors().values()))


@pytest.mark.parametrize("over", ["nodes", "gaussians"])
def test_midpoints_change_nothing_and_a_field_is_read_back(over: str, gaussians: Gaussians) -> None:
    field = field_over(over, gaussians)
    finer = field.with_midpoints()
    again = build_field(field.config)
    again.load_state_dict(field.state_dict())
    again.bind(gaussians.means)
    for time in (0.0, 0.13, 0.5, 0.81, 1.0):
        a, b, c = (f.move(gaussians, time).tensors() for f in (field, finer, again))
        assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)
        assert all(torch.equal(a[name], c[name]) for name in a)
    assert finer.config["n_keys"] == 9
    moved = field.move(gaussians, 0.3)
    assert not torch.allclose(moved.means, gaussians.means, atol=1e-3)


def test_nodes_carry_their_gaussians_rigidly(gaussians: Gaussians) -> None:
    """Equal shifts of every node are one shift of all, and rigidity is 0."""
    field = field_over("nodes", gaussians)
    with torch.no_grad():
        field.table.copy_(field.table[:, :1].expand_as(field.table).clone())
        field.table[..., 3:] = 0  # about their own nodes they would turn apart
    moved = field.move(gaussians, 0.6)
    apart = moved.means - gaussians.means
    assert torch.allclose(apart, apart[:1].expand_as(apart), atol=1e-6) and apart.abs().max() > 0.01
    assert field.regularisers(0.6, 0.1)["rigidity"] < 1e-10


def test_variation_over_time() -> None:
    ramp = torch.arange(5.0).view(5, 1, 1) * torch.tensor([0.1, 0.2, -0.2])
    assert keyframe_tv(ramp.expand(5, 7, 3)) == pytest.approx(0.09, abs=1e-6)
    assert keyframe_tv(torch.ones(4, 7, 3)) == 0


def test_the_released_blend(shared: Path) -> None:
    with np.load(shared / "fixtures" / "score_distillation" / "keyframes.npz") as z:
        table = torch.from_numpy(z["table"])
        for time, released in zip(z["time"], z["blended_released"], strict=True):
            got = KeyframeField.blend(table, float(time))
            assert torch.allclose(got.float(), torch.from_numpy(released).float(), rtol=0, atol=1e-5)
        assert float(keyframe_tv(table.double())) == pytest.approx(float(z["tv"]), rel=1e-6)
        assert float(keyframe_tv(torch.from_numpy(z["ramp"]))) == pytest.approx(float(z["tv_ramp"]), rel=1e-5)
        assert float(keyframe_tv(torch.from_numpy(z["constant"]))) == float(z["tv_constant"])


def test_bad_input(gaussians: Gaussians) -> None:
    for options, words in (({"n_keys": 1}, "at least 2"), ({"over": "grid"}, "nodes or gaussians"),
                           ({"heads": ("size",)}, "choose from means")):  # fmt: skip
        with pytest.raises(InputError, match=words):
            KeyframeField(**options)
    field = field_over("gaussians", gaussians)
    with pytest.raises(InputError, match="moves 60 Gaussians, not 59"):
        field.bind(gaussians.means[1:])
    with pytest.raises(InputError, match="0 to 1"):
        field.move(replace(gaussians), 1.2)
