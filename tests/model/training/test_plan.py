"""`optim.batch=auto`: what fits, and the fastest of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.model.config.presets import preset
from orbit4d.model.config.settings import override
from orbit4d.model.run.log import read
from orbit4d.model.training import plan as module
from orbit4d.model.training.memory import GIB, estimate
from orbit4d.model.training.plan import Plan, best_plan, divisors, plans
from orbit4d.model.training.train import train


@pytest.fixture(scope="module")
def full() -> list[Plan]:
    """Every way to cut a step of the published network."""
    return list(plans(preset("videomv-image")))


@pytest.fixture
def counted(full, monkeypatch):
    monkeypatch.setattr(module, "plans", lambda config, processes=1: iter(full))


def test_a_plan_takes_what_the_estimate_says(full):
    """The plan scales one clip; the estimate counts the whole micro-batch."""
    plan = next(p for p in full if (p.batch, p.recompute) == (2, "attention"))
    counted = estimate(plan.applied(preset("videomv-image")), 4, 8)
    assert plan.memory.total == pytest.approx(counted.total, rel=0.01)


def test_more_memory_never_makes_it_slower_and_nothing_exceeds_it(counted):
    speeds = []
    for gib in (40, 48, 60, 80, 141):
        best = best_plan(preset("videomv-image"), gib * GIB)
        assert best.memory.total <= 0.95 * gib * GIB and 128 % best.batch == 0
        speeds.append(best.speed)
    assert speeds == sorted(speeds) and speeds[0] < speeds[-1]
    assert best.recompute == "nothing" and best.recorded, "141 GiB"


def test_the_measured_steps_come_out_in_their_ratio(full):
    """One H100, launched kernel by kernel: batch 12 with checkpointing 5.85 clips/s, batch 2 without 4.5."""
    plain = [
        replace(full[0], batch=b, recompute=r, recorded=False) for b, r in ((12, "blocks"), (2, "nothing"))
    ]
    assert plain[0].speed / plain[1].speed == pytest.approx(5.85 / 4.5, rel=0.03)
    assert not any(p.recorded for p in full if p.recompute == "blocks"), "their dropout is drawn again"


def test_a_card_that_is_too_small_is_one_line(counted):
    with pytest.raises(
        WorkError, match=r"one clip takes \d+\.\d GiB at least, the device has 16\.0.*adamw8bit"
    ):
        best_plan(preset("videomv-image"), 16 * GIB)


def test_dry_run_says_what_is_chosen_on_which_card(counted):
    said = module.choices(preset("videomv-image")).splitlines()
    assert len(said) == 3 and "on 24 GiB: one clip takes" in said[0]
    assert said[2] == "optim.batch=auto on 80 GiB: micro-batch 2, nothing recomputed, 60.9 GiB"


def test_micro_batches_make_up_the_effective_batch(micro_config):
    config = micro_config("optim.effective_batch=12", "optim.batch=auto")
    assert divisors(config, 1) == [1, 2, 3, 4, 6, 12] and divisors(config, 4) == [1, 3]
    with pytest.raises(InputError, match="no multiple of 5 processes"):
        divisors(config, 5)


def test_the_plan_reaches_the_settings(full):
    config = override(preset("videomv-image"), ["optim.batch=auto"])
    none, attention = (
        replace(full[0], batch=4, recompute=r).applied(config).optim for r in ("nothing", "attention")
    )
    assert (none.batch, none.checkpointing) == (4, False)
    assert (attention.batch, attention.checkpointing, attention.recompute) == (4, True, "attention")


def test_a_cpu_takes_up_to_four_and_says_so(tmp_path, synthetic_dataset, micro_config, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = micro_config("optim.batch=auto", "steps=2")
    train(config, str(synthetic_dataset), tmp_path / "run")
    assert "optim.batch=auto: micro-batch 2\n" in capsys.readouterr().out
    assert '"batch": "auto"' in (tmp_path / "run" / "config.json").read_text(), "settled again on each device"
    assert len(read(tmp_path / "run" / "log.jsonl")) == 2
