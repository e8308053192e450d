"""The count of what autograd keeps: against real passes, and what is known of the casts of CUDA."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from orbit4d.model.compute import saved
from orbit4d.model.network.build import build_unet, make_trainable
from orbit4d.model.training.memory import measured


def kept_really(config, half):
    """Bytes that a real forward pass keeps for its backward pass, of one clip, beside the weights."""
    unet = make_trainable(build_unet(config, 48), config)
    if half:
        nn.Module.to(unet, torch.bfloat16)
    parameters = {p.untyped_storage().data_ptr() for p in unet.parameters()}
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage.nbytes(), tensor
        return tensor

    x = torch.randn(1, 48, config.data.frames, 4, 4).to(unet.dtype)
    given = {"camera": torch.randn(1, config.data.frames, 16), "motion": torch.rand(1)}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        unet(x, torch.zeros(1), torch.zeros(1, 77, 16).to(x), image_latents=x[:, :, 0], **given)
    return sum(size for size, _ in storages.values())


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("recompute", ["", "blocks", "attention"])
def test_a_real_pass_keeps_what_is_counted(micro_config, recompute, half):
    """Without dropout, which keeps bytes on a GPU and numbers here. Of recomputed regions autograd sees
    nothing; the count has their inputs beside it and, as the backward pass will, the largest of them."""
    sets = ["model.unet.temporal_dropout=0.0"]
    sets += ["optim.precision=bf16", "optim.weights=half"] if half else []
    plain = micro_config(*sets)
    config = plain
    if recompute:
        config = micro_config(*sets, "optim.checkpointing=true", f"optim.recompute={recompute}")
    _, counted = measured(plain, 48, 4)
    expected = counted.bytes(recompute)
    if recompute:
        regions = getattr(counted, recompute)
        expected -= sum(region.inputs for region in regions) + max(region.saved for region in regions)
    assert kept_really(config, half) == pytest.approx(expected, rel=0.15)
    assert counted.bytes("blocks") < counted.bytes("attention") < counted.bytes()


def test_autocast_keeps_norms_at_four_bytes_and_products_at_two():
    """What torch's list says of CUDA: linear, convolution and products in half, norms in float32."""
    counter = saved.Kept()
    norm, linear = nn.GroupNorm(2, 4, device="meta"), nn.Linear(8, 8, device="meta")
    counter.ignore = {p.untyped_storage()._cdata for p in (*norm.parameters(), *linear.parameters())}
    x = torch.empty(3, 4, 8, device="meta", dtype=torch.bfloat16, requires_grad=True)
    with (
        torch.autograd.graph.saved_tensors_hooks(counter.pack, lambda t: t),
        saved._Autocast(counter),
    ):
        normed = norm(x)
        assert normed.dtype == torch.float32
        kept = counter.bytes
        assert kept == pytest.approx(4 * x.numel(), abs=64), "the input, cast; and two numbers a group"
        out = linear(normed)
        assert out.dtype == torch.bfloat16
        assert counter.bytes - kept == 2 * x.numel(), "the cast input; the cast weight counts as a weight"
        linear(normed)
        assert counter.bytes - kept == 4 * x.numel(), "each product has a cast of its own"


def test_gradients_that_come_as_activations_go_take_less_than_both():
    region = saved.Region(saved=100, inputs=10, parameters=5)
    both = saved.Saved(total=350, blocks=(region,) * 3, attention=())
    assert both.bytes() == 350 and both.bytes("blocks") == 50 + 30 + 100
    assert both.peak("", 4) == 350, "each block lets go of more than it leaves"
    assert both.peak("", 40) == 350 + 3 * (200 - 100), "or of less"
