"""Half-precision weights with float32 masters: the losses of the plain loop, and what is kept how."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
import torch

from orbit4d.model.compute import half
from orbit4d.model.compute.half import HalfNetwork, half_dtype
from orbit4d.model.run import checkpoint as run_checkpoint
from orbit4d.model.run.log import read
from orbit4d.model.training.train import train


def test_half_weights_are_for_half_precision_and_by_default_for_gpus(micro_config):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")

    def of(device, *sets):
        return half_dtype(micro_config(*sets).optim, device)

    assert of(cuda, "optim.precision=bf16") == torch.bfloat16
    assert of(cuda, "optim.precision=fp16") == torch.float16
    assert of(cpu, "optim.precision=bf16") is None and of(cuda, "optim.precision=no") is None
    assert of(cuda, "optim.precision=bf16", "optim.weights=float32") is None
    assert of(cpu, "optim.precision=bf16", "optim.weights=half") == torch.bfloat16


def test_gradients_arrive_in_the_master_and_what_is_learned_in_the_copy(small_unet, small_inputs):
    master = small_unet("image", loud=True)
    master.motion_mean.fill_(-2.0078125001)
    half = HalfNetwork(master, torch.bfloat16)
    assert {p.dtype for p in half.copy.parameters()} == {torch.bfloat16}
    assert {b.dtype for b in half.copy.buffers() if b.is_floating_point()} == {torch.float32}
    inputs = small_inputs("image")
    out = half(**inputs).sample
    assert out.dtype == torch.float32
    exact = master(**inputs).sample
    assert (out - exact).abs().mean() < 0.03 * exact.abs().mean(), "8 bits of mantissa"
    for times in (1, 2):
        half(**inputs).sample.square().mean().backward()
        assert all(p.grad is None for p in half.copy.parameters()), "let go at once"
        if times == 1:
            first = {name: p.grad.clone() for name, p in master.named_parameters() if p.grad is not None}
    again = {name: p.grad for name, p in master.named_parameters() if p.grad is not None}
    assert first and {g.dtype for g in again.values()} == {torch.float32}
    assert all(torch.equal(again[name], 2 * g) for name, g in first.items()), "summed in float32"
    master.zero_grad()
    exact.square().mean().backward()
    for name, p in master.named_parameters():
        if p.grad is not None and p.grad.norm() > 1e-3:
            assert (first[name] - p.grad).norm() < 0.1 * p.grad.norm(), name
    with torch.no_grad():
        for p in master.parameters():
            p.add_(1e-4)
    half.follow()
    for own, copied in zip(master.parameters(), half.copy.parameters()):
        assert torch.equal(own.bfloat16(), copied)


def test_twenty_steps_go_through_the_losses_of_the_plain_loop(tmp_path, synthetic_dataset, micro_config):
    """Against autocast and against float32, at the published learning rate; and it can be resumed."""
    shared = ['stages=[{"name": "dynamic", "steps": 20}]', "optim.lr=3e-5", "optim.optimizer=adamw"]
    shared += [
        "validate_every=1000",
        "checkpoint_every=10",
        "model.unet.temporal_dropout=0.0",
        "optim.batch=1",
    ]
    ways = {
        "float32": ["optim.precision=no"],
        "autocast": ["optim.precision=bf16"],
        "half": ["optim.precision=bf16", "optim.weights=half"],
    }
    losses = {}
    for name, sets in ways.items():
        train(micro_config(*shared, *sets), str(synthetic_dataset), tmp_path / name)
        losses[name] = [row["loss"] for row in read(tmp_path / name / "log.jsonl")]
    assert len(losses["half"]) == 20 and losses["half"] != losses["autocast"] != losses["float32"]
    assert losses["half"] == pytest.approx(losses["autocast"], rel=1e-3)
    assert losses["half"] == pytest.approx(losses["float32"], rel=1e-3)
    saved = run_checkpoint.load(run_checkpoint.latest(tmp_path / "half"), torch.device("cpu"))
    assert {t.dtype for t in saved.model.values()} == {torch.float32}, "checkpoints hold the masters"
    steps = sorted((tmp_path / "half" / "checkpoints").iterdir())
    assert [step.name for step in steps] == ["step-000010", "step-000020"]
    import shutil

    shutil.rmtree(steps[1])
    shutil.rmtree(tmp_path / "half" / "model")
    train(micro_config(*shared, *ways["half"]), str(synthetic_dataset), tmp_path / "half", resume=True)
    assert [row["loss"] for row in read(tmp_path / "half" / "log.jsonl")] == losses["half"]


EXCHANGE = """
    import sys, torch, torch.distributed as dist
    from datetime import timedelta
    from orbit4d.model.compute import half
    def exchange(rank, file):
        dist.init_process_group(
            "gloo", init_method=f"file://{file}", rank=rank, world_size=2, timeout=timedelta(seconds=200)
        )
        try:
            network = half.HalfNetwork.__new__(half.HalfNetwork)
            torch.nn.Module.__init__(network)
            masters = [torch.nn.Parameter(torch.zeros(n)) for n in (3, 4, 7)]
            for k, p in enumerate(masters):
                p.grad = None if k == 1 else torch.full((len(p),), float(10 * k + 1 + 2 * rank))
            object.__setattr__(network, "_masters", masters)
            network.exchange()
        finally:
            dist.destroy_process_group()
        assert masters[1].grad is None
        assert masters[0].grad.tolist() == [2.0] * 3 and masters[2].grad.tolist() == [22.0] * 7
    if __name__ == "__main__":
        half._BUCKET = 5
        exchange(1, sys.argv[1])
"""


def test_processes_take_the_mean_of_their_gradients(tmp_path, monkeypatch):
    """Two processes, one of which is this one: torch is imported once more and not three times."""
    code, file = textwrap.dedent(EXCHANGE), str(tmp_path / "meeting")
    (tmp_path / "exchange.py").write_text(code)
    other = subprocess.Popen(
        [sys.executable, str(tmp_path / "exchange.py"), file], stderr=subprocess.PIPE, text=True,
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    with other:
        names = {"__name__": "exchange"}
        exec(compile(code, "exchange.py", "exec"), names)
        monkeypatch.setattr(half, "_BUCKET", 5)
        try:
            names["exchange"](0, file)
        finally:
            try:
                errors = other.communicate(timeout=240)[1]
            finally:
                other.kill()
        assert other.returncode == 0, errors[-3000:]
