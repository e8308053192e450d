"""What surrounds a step: checkpoints by the clock, where they are read to, the CUDA settings of a run."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner

from orbit4d.datasets.core.errors import WorkError
from orbit4d.model.cli import train as train_cli
from orbit4d.model.compute.device import device_settings
from orbit4d.model.network.conditioning import WholePool
from orbit4d.model.run import checkpoint as run_checkpoint
from orbit4d.model.run.log import read
from orbit4d.model.training.stages import Position
from orbit4d.model.training.train import train

SHORT = 'stages=[{"name": "dynamic", "steps": 4}]'


def test_a_checkpoint_is_written_after_so_many_minutes(
    tmp_path, synthetic_dataset, micro_config, monkeypatch
):
    """Each step takes ten minutes of a clock of its own: one is due after two, and none by steps."""
    late = []
    monkeypatch.setattr(
        Position, "checkpoint_is_late", lambda self, minutes: minutes == 15 and self.done - mark(self) >= 2
    )

    def mark(position):
        return late[-1] if late else 0

    real = run_checkpoint.save

    def save(run, content, keep):
        late.append(content.state.stage_step)
        return real(run, content, keep)

    monkeypatch.setattr(run_checkpoint, "save", save)
    config = micro_config('stages=[{"name": "dynamic", "steps": 5}]', "checkpoint_every=1000")
    config = type(config)(**{**vars(config), "checkpoint_minutes": 15.0})
    train(config, str(synthetic_dataset), tmp_path / "run")
    assert late == [2, 4, 5], "the last is the stage's end"


def test_minutes_count_from_the_last_checkpoint(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("orbit4d.model.training.stages.time.monotonic", lambda: now[0])
    position = Position.of(run_checkpoint.State(3, 0, 3, 50.0))
    now[0] += 60 * 29
    assert not position.checkpoint_is_late(30.0)
    now[0] += 61
    assert position.checkpoint_is_late(30.0) and not position.checkpoint_is_late(0.0)
    position.saved = now[0]
    assert not position.checkpoint_is_late(30.0) and position.seconds == 50 + 60 * 29 + 61


def test_a_checkpoint_is_read_to_the_cpu(tmp_path, synthetic_dataset, micro_config, monkeypatch):
    """A second copy of weights and optimizer beside the first would not fit a card that is nearly full."""
    config = micro_config(SHORT, "checkpoint_every=2", "optim.optimizer=adamw")
    train(config, str(synthetic_dataset), tmp_path / "run")
    before = read(tmp_path / "run" / "log.jsonl")
    import shutil

    shutil.rmtree(tmp_path / "run" / "model")
    shutil.rmtree(run_checkpoint.latest(tmp_path / "run"))
    devices, real = [], run_checkpoint.load

    def load(folder, device):
        devices.append(device)
        return real(folder, device)

    monkeypatch.setattr(run_checkpoint, "load", load)
    train(config, str(synthetic_dataset), tmp_path / "run", resume=True)
    assert devices == [torch.device("cpu")]
    after = read(tmp_path / "run" / "log.jsonl")
    assert [row["loss"] for row in after] == [row["loss"] for row in before]


def test_tf32_and_determinism_last_as_long_as_the_run(micro_config):
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn

    def state():
        return (
            matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark,
            torch.are_deterministic_algorithms_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled(),
        )  # fmt: skip

    before = state()
    with device_settings(micro_config().optim):
        assert state() == before
    with device_settings(micro_config("optim.tf32=true").optim):
        assert state()[:2] == (True, True)
    with device_settings(micro_config("optim.deterministic=true").optim):
        assert state()[2:] == (True, False, True, False)
    assert state() == before
    with (
        pytest.raises(WorkError, match=r"x_backward_cuda does not have.*--deterministic out") as caught,
        device_settings(micro_config("optim.deterministic=true").optim),
    ):
        raise RuntimeError(
            "x_backward_cuda does not have a deterministic implementation, but you set 'torch.use_...'.\nmore"
        )
    assert "\n" not in str(caught.value) and state() == before
    with pytest.raises(RuntimeError, match=r"^shapes$"), device_settings(micro_config().optim):
        raise RuntimeError("shapes")


def test_a_deterministic_run_on_a_cpu_is_the_same_run(tmp_path, synthetic_dataset, micro_config):
    for name, sets in (("plain", []), ("deterministic", ["optim.deterministic=true"])):
        train(micro_config(SHORT, *sets), str(synthetic_dataset), tmp_path / name)
    plain, ours = ([r["loss"] for r in read(tmp_path / n / "log.jsonl")] for n in ("plain", "deterministic"))
    assert plain == ours


@pytest.mark.parametrize("size", [(4, 4), (8, 8), (2, 8), (16, 16), (6, 10)])
def test_pooling_gives_the_bits_of_torchs_own(size):
    """At the size itself and at multiples of it without torch's kernel, whose backward no GPU repeats."""
    x = torch.randn(2, 3, *size, requires_grad=True)
    ours, plain = WholePool((8, 8))(x), torch.nn.AdaptiveAvgPool2d((8, 8))(x)
    assert torch.equal(ours, plain)
    weights = torch.randn_like(ours)
    gradients = [torch.autograd.grad((out * weights).sum(), x)[0] for out in (ours, plain)]
    assert torch.allclose(*gradients, atol=1e-6)
    adaptive = ours is not x and "AdaptiveAvgPool" in ours.grad_fn.name()
    assert adaptive == bool(8 % size[0] or 8 % size[1])


def test_the_options_reach_the_settings(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr("orbit4d.model.training.train.train", lambda config, *_: seen.append(config))

    def run(*words):
        return CliRunner().invoke(train_cli.train, ["data", "--out", str(tmp_path / "run"), *words])

    assert run("--batch", "auto", "--deterministic").exit_code == 0
    assert (seen[0].optim.batch, seen[0].optim.deterministic) == ("auto", True)
    assert run("--batch", "2").exit_code == 0
    assert (seen[1].optim.batch, seen[1].optim.deterministic) == (2, False)
    refused = run("--batch", "two")
    assert refused.exit_code == 2 and "'two' is not a valid integer" in refused.output
