"""The trained copy of a prior: the prior itself at first, another one after lessons, and the same to the bit
when it comes back from a checkpoint."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.model.distill import gradient, load_score
from orbit4d.model.distill.lora import LoraCopy, injected
from orbit4d.model.distill.memory import GIB, PriorMemory, stage_plan, with_lora
from tests.model.distill.tiny_pipelines import write_pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_pipeline(tmp_path_factory.mktemp("modelscope"), "modelscope"))


@pytest.fixture
def score(folder: str) -> Any:
    return load_score(folder, "video")


@pytest.fixture(scope="module")
def clip() -> torch.Tensor:
    return torch.randn(1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(5))


def estimate(model: Any, z_t: torch.Tensor, told: Any) -> torch.Tensor:
    return model.noise(z_t, torch.tensor([400]), told)  # type: ignore[no-any-return]


def test_before_its_first_lesson_it_is_the_prior_to_the_bit(score: Any, clip: torch.Tensor) -> None:
    """And so is the prior once adapters lie in its network: law E6, vsd gives 0 without guidance."""
    told = score.condition(prompt="a b")
    untouched = estimate(score, clip, told)
    copy = LoraCopy(score, seed=3)
    assert torch.equal(estimate(score, clip, told), untouched)
    assert torch.equal(estimate(copy, clip, told), untouched)
    t, noise = torch.tensor([300]), torch.randn(clip.shape, generator=torch.Generator().manual_seed(1))
    g = gradient("vsd", clip, t, noise, score, conditions=told, phi=lambda x, when: copy.noise(x, when, told))
    assert not g.any()


def test_it_learns_what_it_is_shown_and_the_prior_stays(score: Any, clip: torch.Tensor) -> None:
    told = score.condition(prompt="a b")
    copy = LoraCopy(score, rate=1e-2)
    untouched = estimate(score, clip, told)
    others = {n: p.detach().clone() for n, p in score.network.named_parameters() if ".lora_" not in n}
    calls = score.calls

    def measured() -> float:
        draws = torch.Generator().manual_seed(9)
        return sum(float(copy.denoising_loss(clip, told, draws).detach()) for _ in range(6)) / 6

    before, draws = measured(), torch.Generator().manual_seed(2)
    for _ in range(30):
        copy.learn(clip, told, draws)
    assert measured() < 0.98 * before
    assert score.calls == calls, "lessons are no questions to the prior"
    assert torch.equal(estimate(score, clip, told), untouched)
    assert not torch.equal(estimate(copy, clip, told), untouched)
    for name, value in score.network.named_parameters():
        assert not value.requires_grad and (".lora_" in name or torch.equal(value, others[name])), name


def test_its_gradient_is_that_of_the_loss(score: Any, clip: torch.Tensor) -> None:
    """Central differences of one weight of B, at which the copy is still the prior."""
    told, copy = score.condition(prompt="a b"), LoraCopy(score)
    name = next(name for name in copy.weights if ".lora_B." in name)
    weight = copy.weights[name]

    def loss() -> float:
        return float(copy.denoising_loss(clip, told, torch.Generator().manual_seed(4)).detach())

    loss()
    assert weight.grad is not None
    at = int(weight.grad.abs().argmax())
    found, step = float(weight.grad.flatten()[at]), 1e-2
    sides = []
    for sign in (1, -1):
        weight.data.view(-1)[at] = sign * step
        sides.append(loss())
    # float32 losses of about 1 differ by 1e-7: two of them over 2e-2.
    assert (sides[0] - sides[1]) / (2 * step) == pytest.approx(found, rel=0.05, abs=2e-5)


def test_a_copy_that_comes_back_goes_on_to_the_bit(folder: str, score: Any, clip: torch.Tensor) -> None:
    told, draws = score.condition(prompt="a b"), torch.Generator().manual_seed(2)
    copy = LoraCopy(score)
    for _ in range(2):
        copy.learn(clip, told, draws)
    held, at = copy.record(), draws.get_state()
    held["adam"] = {**held["adam"], "state": {k: {n: v.clone() for n, v in s.items()}
                                               for k, s in held["adam"]["state"].items()}}  # fmt: skip
    copy.learn(clip, told, draws)
    other = LoraCopy(load_score(folder, "video"), seed=8)
    other.restore(held)
    draws.set_state(at)
    other.learn(clip, told, draws)
    assert other.steps == copy.steps == 3 and other.loss == copy.loss
    assert all(torch.equal(w, other.weights[name]) for name, w in copy.weights.items())
    with pytest.raises(ValueError, match="another network"):
        LoraCopy(load_score(folder, "video"), rank=2).restore(held)


def test_what_cannot_be_adapted_and_a_loss_that_is_none(score: Any, clip: torch.Tensor) -> None:
    with pytest.raises(InputError, match="no attention to adapt"):
        injected(nn.Sequential(nn.Linear(2, 2)))
    copy = LoraCopy(score)
    with pytest.raises(WorkError, match="LoRA copy is no number at its step 1"):
        copy.learn(clip * float("nan"), score.condition(prompt="a"), None)


def test_the_plan_counts_it() -> None:
    prior = PriorMemory("sd15", 2 * GIB, GIB, GIB // 4, GIB // 2, GIB // 8, 1)
    taught = with_lora(prior, 1, 4, (64, 64))
    # 16 blocks of two attentions: q, k, v and out of rank 4, in the widths of the published network.
    assert taught.lora == 16 * 797_184 and taught.lora_graph > 0
    idle = [stage_plan("motion", [p], 0).total(True, "idle") for p in (prior, taught)]
    # Its network stays on the card, since gradients go through it.
    assert idle[1] >= idle[0] + taught.lora
    plan = stage_plan("motion", [taught], 0)
    assert plan.moved == 0 and "its LoRA" in plan.row()
    assert plan.total(True, "idle") == plan.total(True)
