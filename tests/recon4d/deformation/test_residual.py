"""The residual field: its nodes to the bit until it learns, exact at its keys, kernels as autograd."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d import Gaussians, Scene, load_scene
from orbit4d.recon4d.deformation.building import build_field
from orbit4d.recon4d.deformation.field import NodeField
from orbit4d.recon4d.deformation.residual import MOST_KEYS, ResidualField, key_times
from orbit4d.recon4d.deformation.residual_motion import ResidualMotion
from orbit4d.recon4d.export.html.motion import motion_of
from orbit4d.recon4d.fitting.settings import DensitySettings, ReconstructionSettings
from orbit4d.recon4d.fitting.state import new_fit
from orbit4d.recon4d.mesh.bones import bones_of
from orbit4d.recon4d.raster import threads

N, KEYS = 90, (0.0, 0.2, 0.5, 0.6, 1.0)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def gaussians() -> Gaussians:
    # Some colours lie near their bounds, so that a difference takes them over.
    colors = 0.5 + 0.6 * drawn(N, 3, seed=4).tanh()
    return Gaussians(
        0.2 * drawn(N, 3), drawn(N, 3, seed=2) - 4, drawn(N, 4, seed=1), drawn(N, seed=3), colors
    )


def field_of(gaussians: Gaussians, scale: float = 0.3, **options: object) -> ResidualField:
    torch.manual_seed(3)
    field = ResidualField(KEYS, N, n_nodes=13, width=32, **options)
    torch.nn.init.normal_(field.head.weight, std=0.2)
    with torch.no_grad():
        field.table.copy_(scale * drawn(*field.table.shape, seed=5))
    field.bind(gaussians.means)
    return field


@pytest.mark.parametrize("anchor", [None, 0.5])
def test_until_it_learns_it_is_its_nodes_and_at_first_the_identity(
    gaussians: Gaussians, anchor: float | None
) -> None:
    field = field_of(gaussians, 0.0, anchor=anchor)
    torch.manual_seed(3)
    nodes = NodeField(n_nodes=13, width=32, anchor=anchor)
    nodes.load_state_dict({k: v for k, v in field.state_dict().items() if k != "table"})
    nodes.bind(gaussians.means)
    for time in (0.0, 0.37, 1.0):
        for name, mine in field.move(gaussians, time).tensors().items():
            assert torch.equal(mine, nodes.move(gaussians, time).tensors()[name]), name
    fresh = ResidualField(KEYS, N, n_nodes=13, width=32, anchor=anchor)
    fresh.bind(gaussians.means)
    for name, mine in fresh.move(gaussians, 0.37).tensors().items():
        assert torch.equal(mine, gaussians.tensors()[name]), name


def test_keys_are_met_and_between_them_it_is_linear(gaussians: Gaussians) -> None:
    field = field_of(gaussians)
    unit = field.columns["means"][2]
    for k, time in enumerate(KEYS):
        assert torch.equal(field.differences(time)["means"], field.table[k, :, :3] * unit)
    a, b, middle = (field.differences(t)["colors"] for t in (0.2, 0.5, 0.29))
    assert torch.allclose(middle, 0.7 * a + 0.3 * b, atol=1e-6)
    inner = ResidualField((0.3, 0.6), N, n_nodes=13, width=32)
    with torch.no_grad():
        inner.table.copy_(drawn(*inner.table.shape))
    for outside, key in ((0.0, 0.3), (1.0, 0.6)):
        assert torch.equal(inner.differences(outside)["means"], inner.differences(key)["means"])


@pytest.mark.parametrize("heads", [("means", "colors"), ("means",), ("colors",)])
@pytest.mark.parametrize(("time", "step"), [(0.3, 0.1), (0.6, None), (1.0, 0.1)])
def test_kernels_move_and_pull_as_autograd_does(
    gaussians: Gaussians, heads: tuple[str, ...], time: float, step: float | None
) -> None:
    field = field_of(gaussians, heads=heads, anchor=0.5)
    leaves = {
        name: getattr(gaussians, name).clone().requires_grad_() for name in ("means", "quats", "colors")
    }
    by = {name: drawn(*leaf.shape, seed=9) for name, leaf in leaves.items()}
    moved = field.move(replace(gaussians, **leaves), time)
    shown = {"means": moved.means, "quats": moved.quats, "colors": moved.colors.clamp(0, 1)}
    loss = sum((shown[name] * by[name]).sum() for name in by)
    if step is not None:
        terms = field.regularisers(time, step)
        loss = loss + 30.0 * terms["rigidity"] + 50.0 * terms.get("smoothness", torch.zeros(()))
    loss.backward()

    values = torch.cat([p.detach().reshape(-1) for p in field.parameters()]).numpy()
    motion = ResidualMotion(field, values, N)
    raw = {name: leaf.detach().numpy() for name, leaf in leaves.items()}
    gradient = np.full(len(values), np.nan, np.float32)
    grads = {name: np.full(leaf.shape, np.nan, np.float32) for name, leaf in leaves.items()}
    for _ in range(2):  # buffers that were used before give the same
        motion.move(raw["means"], raw["quats"], time, step)
        lit = motion.lit(raw["colors"])
        motion.pull_colors(by["colors"].numpy(), grads["colors"], gradient)
        motion.pull(
            raw["means"], raw["quats"], by["means"].numpy(), by["quats"].numpy(), grads["means"],
            grads["quats"], gradient, None if step is None else (30.0, 50.0),
        )  # fmt: skip
    for name, mine in (("means", motion.means), ("quats", motion.quats), ("colors", lit)):
        np.testing.assert_allclose(mine, shown[name].detach().numpy(), rtol=2e-5, atol=2e-6)
        np.testing.assert_allclose(grads[name], leaves[name].grad, rtol=2e-5, atol=2e-5)
    assert field.table.grad is not None
    np.testing.assert_allclose(
        gradient[: motion.at].reshape(field.table.shape), field.table.grad, rtol=2e-5, atol=2e-6
    )
    theirs = torch.cat([p.grad.reshape(-1) for p in list(field.parameters())[1:]]).numpy()
    # float32 sums over Gaussians and rows in another order.
    assert np.linalg.norm(gradient[motion.at :] - theirs) < 2e-5 * np.linalg.norm(theirs)


def test_bits_do_not_depend_on_the_threads(gaussians: Gaussians) -> None:
    field = field_of(gaussians)
    values = torch.cat([p.detach().reshape(-1) for p in field.parameters()]).numpy()
    g, found = gaussians, []
    by = drawn(N, 4, seed=9).numpy()
    for count in (1, 2):
        with threads.alone(count):
            motion, gradient = ResidualMotion(field, values, N), np.empty(len(values), np.float32)
            out = np.empty((N, 3), np.float32), np.empty((N, 4), np.float32)
            motion.move(g.means.numpy(), g.quats.numpy(), 0.3, 0.1)
            motion.pull_colors(motion.lit(g.colors.numpy()), out[0], gradient)
            args = (g.means.numpy(), g.quats.numpy(), by[:, :3].copy(), by, *out, gradient, (1.0, 2.0))
            motion.pull(*args)
        found.append((motion.means.tobytes(), gradient.tobytes()))
    assert found[0] == found[1]


def test_keys_are_the_times_of_the_training_images() -> None:
    assert key_times([0.5, 0.0, 0.5, 1.0]) == [0.0, 0.5, 1.0]
    assert key_times([0.3]) == [0.0, 1.0]
    many = [i / 299 for i in range(300)]
    thinned = key_times(many)
    assert len(thinned) == MOST_KEYS and thinned[0] == 0 and thinned[-1] == 1 and set(thinned) <= set(many)


def test_what_cannot_be_honoured_is_refused(gaussians: Gaussians) -> None:
    for keys in ((0.5,), (0.2, 0.2), (0.6, 0.1)):
        with pytest.raises(InputError, match="at least 2 rising key times"):
            ResidualField(keys, N)
    with pytest.raises(InputError, match=r"residual heads \['logits'\]: choose from means, colors"):
        ResidualField(KEYS, N, heads=("logits",))
    with pytest.raises(InputError, match="moves 90 Gaussians, not 7"):
        field_of(gaussians).bind(gaussians.means[:7])
    config = {"kind": "residual", "keys": list(KEYS), "n_nodes": 13, "width": 32}
    with pytest.raises(InputError, match="fixed number of Gaussians"):
        new_fit(gaussians, ReconstructionSettings(deformation=config, density=DensitySettings(every=10)), 0)
    assert new_fit(gaussians, ReconstructionSettings(deformation=config), 0).field.table.shape == (5, N, 6)


def test_a_scene_of_it_comes_back_and_every_export_shows_it(
    gaussians: Gaussians, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The player takes each Gaussian's own numbers; a mesh has the nodes alone, and says so."""
    field = field_of(gaussians)
    rebuilt = build_field(field.config)
    rebuilt.load_state_dict(field.state_dict())
    assert torch.equal(rebuilt.differences(0.4)["means"], field.differences(0.4)["means"])
    scene = Scene(gaussians, field.requires_grad_(False))
    scene.save(tmp_path)
    again = load_scene(tmp_path)
    for time in (0.0, 0.4):
        for name, mine in scene.at(time).tensors().items():
            theirs = again.at(time).tensors()[name]
            if name == "quats":  # a file keeps no length
                mine, theirs = (torch.nn.functional.normalize(q, dim=-1) for q in (mine, theirs))
            assert torch.allclose(mine, theirs, rtol=0, atol=2e-6), name
    gaussians, field = scene.gaussians, scene.field
    motion = motion_of(scene, 6)
    assert motion.kind == "each"
    np.testing.assert_array_equal(motion.values[3][:, :3], field.move(gaussians, 0.6).means.detach().numpy())
    np.testing.assert_array_equal(
        motion.values[3][:, 12:15], field.move(gaussians, 0.6).colors.clamp(0, 1).numpy()
    )
    bones = bones_of(scene, np.eye(3), 3)
    assert bones.places.shape == (3, 13, 3)
    assert "the mesh follows the control nodes alone" in capsys.readouterr().out
