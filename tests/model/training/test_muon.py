"""Muon: orthogonal steps, torch's own as the oracle, AdamW untouched beside it, nothing lost on resume."""

import copy

import pytest
import torch
from torch import nn

from orbit4d.model.network.build import make_trainable
from orbit4d.model.training import memory
from orbit4d.model.training.muon import LEAST_SIDE, MuonAdamW, orthogonalised, split
from orbit4d.model.training.optimizers import make_optimizer


@pytest.mark.parametrize("shape", [(20, 64), (64, 20), (32, 32)])
def test_an_update_keeps_directions_and_levels_their_sizes(shape):
    torch.manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(3, *shape), full_matrices=False)
    matrices = u * torch.linspace(0.1, 3.0, min(shape)) @ vh
    found = torch.linalg.svdvals(orthogonalised(matrices))
    # The published iteration ends between 0.7 and 1.2 where it has come to its end.
    assert found.min() > 0.6 and found.max() < 1.3
    core = u.transpose(1, 2) @ orthogonalised(matrices) @ vh.transpose(1, 2)
    off = core - torch.diag_embed(core.diagonal(dim1=1, dim2=2))
    # bfloat16 has eight bits, a relative error of 4e-3 in each of the fifteen products.
    assert off.abs().max() < 0.03, "singular vectors turned"


def test_matrices_of_one_shape_do_not_mix():
    torch.manual_seed(1)
    matrices = torch.randn(4, 24, 48)
    together = orthogonalised(matrices)
    for k in range(4):
        # Another order of sums rounds bfloat16's eight bits another way.
        torch.testing.assert_close(together[k], orthogonalised(matrices[k : k + 1])[0], rtol=0, atol=0.01)


def test_no_gradient_at_all_is_no_step():
    assert not orthogonalised(torch.zeros(2, 16, 16)).any()


def steps(optimizer, parameters, count, seed=2):
    """`count` steps along drawn gradients."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for p in parameters:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()


def drawn(*shapes):
    torch.manual_seed(3)
    return [nn.Parameter(torch.randn(shape)) for shape in shapes]


def test_matrices_go_as_with_torchs_own_muon():
    ours, theirs = drawn((24, 48), (48, 24), (24, 48)), drawn((24, 48), (48, 24), (24, 48))
    start = [p.detach().clone() for p in ours]
    steps(MuonAdamW(ours, [], lr=0.01, weight_decay=0.1), ours, 5)
    oracle = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    steps(oracle, theirs, 5)
    for p, q, before in zip(ours, theirs, start):
        # Products of many matrices at once may round the last of bfloat16's eight bits another way.
        assert (p - q).norm() < 0.03 * (p - before).norm()


def test_a_convolution_is_the_matrix_of_its_rows():
    (conv,), (flat,) = drawn((32, 8, 3, 3)), drawn((32, 8, 3, 3))
    flat = nn.Parameter(flat.detach().reshape(32, 72))
    generator = torch.Generator().manual_seed(4)
    gradient = torch.randn(conv.shape, generator=generator)
    conv.grad, flat.grad = gradient, gradient.reshape(32, 72)
    for p in (conv, flat):
        MuonAdamW([p], [], lr=0.1).step()
    assert torch.equal(conv.reshape(32, 72), flat)


def test_what_is_no_matrix_goes_as_with_adamw_to_the_bit():
    matrices, ours, theirs = drawn((20, 30)), drawn((7,), (3, 5)), drawn((7,), (3, 5))
    both = MuonAdamW(matrices, ours, lr=0.02, weight_decay=0.1)
    plain = torch.optim.AdamW(theirs, lr=0.02, weight_decay=0.1)
    for _ in range(4):
        matrices[0].grad = torch.ones(20, 30)
        for p, q in zip(ours, theirs):
            p.grad = q.grad = torch.randn(p.shape)
        both.step()
        plain.step()
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs))


def test_steps_are_as_large_as_adamws():
    """So that one learning rate fits both: root mean square near 0.2, whatever the shape."""
    parameters = drawn((16, 400), (64, 64), (64, 16, 3, 3))
    start = [p.detach().clone() for p in parameters]
    steps(MuonAdamW(parameters, [], lr=1.0), parameters, 1)
    for p, before in zip(parameters, start):
        assert 0.15 < (p - before).square().mean().sqrt() < 0.25


def test_a_loaded_optimizer_goes_on_to_the_bit():
    def fresh():
        parameters = drawn((20, 30), (9,))
        return parameters, MuonAdamW(parameters[:1], parameters[1:], lr=0.01)

    whole, optimizer = fresh()
    steps(optimizer, whole, 3)
    state, weights = copy.deepcopy(optimizer.state_dict()), [p.detach().clone() for p in whole]
    steps(optimizer, whole, 3, seed=5)

    resumed, optimizer = fresh()
    for p, weight in zip(resumed, weights):
        p.data.copy_(weight)
    optimizer.load_state_dict(state)
    steps(optimizer, resumed, 3, seed=5)
    assert all(torch.equal(p, q) for p, q in zip(resumed, whole))


def test_the_learning_rate_of_the_groups_counts():
    parameters = drawn((20, 30), (9,))
    start = [p.detach().clone() for p in parameters]
    optimizer = MuonAdamW(parameters[:1], parameters[1:], lr=0.01)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    steps(optimizer, parameters, 2)
    assert all(torch.equal(p, before) for p, before in zip(parameters, start))


def test_without_a_gradient_a_weight_stays():
    parameters = drawn((20, 30), (9,))
    start = [p.detach().clone() for p in parameters]
    MuonAdamW(parameters[:1], parameters[1:], lr=0.1, weight_decay=0.5).step()
    assert all(torch.equal(p, before) for p, before in zip(parameters, start))


def test_a_vector_is_refused():
    with pytest.raises(ValueError, match="two axes"):
        MuonAdamW(drawn((9,)), drawn((9,)), lr=0.1)


@pytest.mark.parametrize("lora", [0, 2])
def test_every_trained_weight_is_in_one_half(micro_config, small_unet, lora):
    config = micro_config("optim.optimizer=muon", f"optim.lora={lora}")
    unet = make_trainable(small_unet("image"), config)
    matrices, others = split(unet)
    trained = [id(p) for p in unet.parameters() if p.requires_grad]
    assert sorted(map(id, matrices + others)) == sorted(trained)
    assert all(p.ndim > 1 and min(len(p), p[0].numel()) >= LEAST_SIDE for p in matrices)
    beside = {
        id(p)
        for name, p in unet.named_parameters()
        if name.startswith(("camera_", "motion_", "unet.time_", "unet.fps_", "unet.conv_out"))
    }
    assert beside and not beside & {id(p) for p in matrices}
    assert isinstance(make_optimizer(unet, config), MuonAdamW)


def test_it_is_estimated_at_one_number_for_a_weight_of_a_matrix(micro_config):
    plain, muon = (
        memory.estimate(micro_config(f"optim.optimizer={name}"), 48, 4).optimizer
        for name in ("adamw", "muon")
    )
    assert 0.5 * plain < muon < 0.75 * plain
