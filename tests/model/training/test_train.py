"""The loop end to end: what a run leaves, that a killed one continues bit by bit, and that mistakes are
named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import types
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.model.config.learning_rate import learning_rate
from orbit4d.model.config.settings import Stage, from_dict, to_dict
from orbit4d.model.data.clip_source import open_clips
from orbit4d.model.diffusion.objective import validation_loss
from orbit4d.model.diffusion.schedule import make_scheduler
from orbit4d.model.encoders.frozen import FrozenParts, PartsSpec
from orbit4d.model.network.build import build_unet
from orbit4d.model.run import checkpoint as run_checkpoint
from orbit4d.model.run.log import read
from orbit4d.model.training.optimizers import make_optimizer
from orbit4d.model.training.stages import micro_batches
from orbit4d.model.training.train import train


@pytest.fixture(scope="module")
def finished(tmp_path_factory, synthetic_dataset, micro_config):
    """(run, config) of a whole small training."""
    run = tmp_path_factory.mktemp("run") / "run"
    config = micro_config()
    torch.set_num_threads(1)
    train(config, str(synthetic_dataset), run)
    return run, config


def losses(run):
    return [(row["step"], row["stage"], row["loss"]) for row in read(run / "log.jsonl")]


def test_a_run_leaves_what_it_promises(finished):
    run, config = finished
    assert from_dict(json.loads((run / "config.json").read_text())) == config
    rows = read(run / "log.jsonl")
    assert [row["step"] for row in rows] == list(range(1, config.total_steps + 1))
    assert [row["stage"] for row in rows] == ["static"] * 3 + ["dynamic"] * 4
    for key in (
        "loss",
        "loss_diffusion",
        "loss_motion",
        "lr",
        "seconds",
        "step_seconds",
        "data_wait",
        "grad_norm",
    ):
        assert all(key in row for row in rows)
    assert all(a["seconds"] < b["seconds"] for a, b in pairwise(rows))
    assert (run / "model" / "model_index.json").is_file()
    assert (run / "base" / "config.json").is_file()
    assert len(run_checkpoint.complete(run)) == config.keep_checkpoints


def test_a_finished_run_is_not_overwritten(finished, synthetic_dataset):
    run, config = finished
    before = losses(run)
    with pytest.raises(InputError, match="already holds a run"):
        train(config, str(synthetic_dataset), run)
    with pytest.raises(InputError, match=r"optim\.lr"):
        train(replace(config, optim=replace(config.optim, lr=1.0)), str(synthetic_dataset), run, resume=True)
    assert losses(run) == before


def test_training_never_sees_the_test_split(tmp_path, make_dataset, micro_config):
    """40 assets: the splits are filled, and what training records having read is the training split alone."""
    from orbit4d.datasets import Index

    path = make_dataset(
        tmp_path / "data",
        assets=40,
        actions=("Run",),
        n_frames=4,
        size=16,
        rigs=("static_orbit", "dynamic_orbit"),
    )
    split = {
        row["uid"]: row["split"]
        for _, table in Index(path).read(["uid", "split"])
        for row in table.to_pylist()
    }
    assert "test" in split.values(), "a test that cannot fail: no test asset among 40"
    train(micro_config("steps=2"), str(path), tmp_path / "run")
    seen = json.loads((tmp_path / "run" / "data.json").read_text())
    assert seen["assets"] and {split[uid] for uid in seen["assets"]} == {"train"}
    assert {split[uid] for uid in seen["validation_assets"]} <= {"validation"}
    held = [row["val_loss"] for row in read(tmp_path / "run" / "log.jsonl") if "val_loss" in row]
    assert held and all(value > 0 for value in held), "and validation is looked at"


def test_same_seed_same_losses_other_seed_others(tmp_path, synthetic_dataset, micro_config, finished):
    run, config = finished
    train(config, str(synthetic_dataset), tmp_path / "same")
    assert losses(tmp_path / "same") == losses(run)
    train(micro_config("seed=1", "steps=2"), str(synthetic_dataset), tmp_path / "other")
    assert losses(tmp_path / "other")[0][2] != losses(run)[0][2]


# One process imports torch, then forks a child for each crash: what a kill leaves is what the child left.
KILLER = """
    import json, os, signal, sys
    from pathlib import Path
    import torch
    torch.set_num_threads(1)
    from orbit4d.model.config.settings import from_dict
    from orbit4d.model.training.train import train
    config = from_dict(json.loads(sys.argv[1]))
    dataset, root = sys.argv[2], Path(sys.argv[3])

    def session(run, resume, crash):
        child = os.fork()
        if child == 0:
            if crash:
                os.environ["ORBIT4D_CRASH_AT"] = crash
            else:
                os.environ.pop("ORBIT4D_CRASH_AT", None)
            code = 1
            try:
                train(config, dataset, run, resume=resume)
                code = 0
            finally:
                sys.stdout.flush(); sys.stderr.flush()
                os._exit(code)
        status = os.waitpid(child, 0)[1]
        return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    report = {"whole": session(root / "whole", False, "")}
    for crash in sys.argv[4:]:
        run = root / crash.replace(":", "-")
        killed = session(run, False, crash)
        left = sorted(p.name for p in (run / "checkpoints").glob("*"))
        report[crash] = [killed, left, session(run, True, "")]
    print(json.dumps(report))
"""
CRASHES = [
    "train_step_done:6",
    "checkpoint_half:2",
    "checkpoint_before_rename:3",
    "checkpoint_after_rename:4",  # the last one: nothing is left to train
    "pipeline_half",
]


def test_killed_anywhere_it_resumes_to_bit_identical_losses(tmp_path, synthetic_dataset, micro_config):
    config = micro_config()
    done = subprocess.run(
        [
            sys.executable, "-c", textwrap.dedent(KILLER),
            json.dumps(to_dict(config)), str(synthetic_dataset), str(tmp_path), *CRASHES,
        ],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["whole"] == 0, done.stderr[-2000:]
    expected = losses(tmp_path / "whole")
    assert len(expected) == config.total_steps
    for crash in CRASHES:
        killed, left, resumed = report[crash]
        run = tmp_path / crash.replace(":", "-")
        assert killed == -9, f"{crash} was never passed"
        if crash.startswith(("checkpoint_half", "checkpoint_before")):
            assert any(name.startswith(".") for name in left), "it died with a checkpoint half written"
        assert resumed == 0, done.stderr[-2000:]
        assert losses(run) == expected, crash
        ours, theirs = (
            torch.load(p / "checkpoints/step-000005/optimizer.pt") for p in (run, tmp_path / "whole")
        )
        for k, state in theirs["state"].items():
            assert all(
                torch.equal(torch.as_tensor(v), torch.as_tensor(ours["state"][k][n]))
                for n, v in state.items()
            )
        from safetensors.torch import load_file

        weights = [
            load_file(p / "model/unet/diffusion_pytorch_model.safetensors") for p in (run, tmp_path / "whole")
        ]
        assert all(torch.equal(weights[0][key], value) for key, value in weights[1].items())


def test_resuming_a_finished_run_leaves_its_weights(tmp_path, synthetic_dataset, finished):
    run = shutil.copytree(finished[0], tmp_path / "run")
    files = [p.relative_to(run) for p in (run / "model").rglob("*.safetensors")]
    assert len(files) == 2, "the network and its base"
    before = [(run / name).read_bytes() for name in files]
    train(finished[1], str(synthetic_dataset), run, resume=True)
    assert [(run / name).read_bytes() for name in files] == before
    assert losses(run) == losses(finished[0])


def test_equal_weights_are_validated_to_equal_values(synthetic_dataset, micro_config):
    """The noise is fixed: what is drawn elsewhere in the meantime changes nothing, other weights do."""
    config = micro_config()
    frozen = FrozenParts.load(PartsSpec.of(config), torch.device("cpu"))
    scheduler = make_scheduler(config.model.schedule, config.model.prediction, config.sample.spacing)
    clips = open_clips(str(synthetic_dataset), config, frozen, "train")
    unet, values = build_unet(config, frozen.latent_channels), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        values.append(validation_loss(unet, clips, config.stages[1], frozen, scheduler, config))
    assert values[0] == values[1] > 0
    torch.nn.init.ones_(unet.unet.conv_out.bias)
    assert validation_loss(unet, clips, config.stages[1], frozen, scheduler, config) != values[0]


def test_half_precision_without_a_gpu_is_one_clear_line(
    tmp_path, synthetic_dataset, micro_config, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"optim\.precision=fp16 needs a GPU"):
        train(micro_config("optim.precision=fp16"), str(synthetic_dataset), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_resume_needs_a_run(tmp_path, synthetic_dataset, micro_config):
    with pytest.raises(InputError, match="no run to resume"):
        train(micro_config(), str(synthetic_dataset), tmp_path / "nothing", resume=True)
    assert not (tmp_path / "nothing").exists()


def test_a_damaged_checkpoint_is_named(tmp_path):
    folder = tmp_path / "checkpoints" / "step-000002"
    state = run_checkpoint.State(2, 0, 2, 1.0)
    content = run_checkpoint.Checkpoint(state, {"w": torch.ones(3)}, {"a": 1}, [torch.ones(3)], 2, None)
    run_checkpoint.save(tmp_path, content, keep=1)
    back = run_checkpoint.load(folder, torch.device("cpu"))
    assert torch.equal(run_checkpoint.load(folder, torch.device("cpu", 0)).model["w"], torch.ones(3))
    assert back.state == state and back.ema_step == 2 and torch.equal(back.ema[0], torch.ones(3))
    for name in ("model.safetensors", "optimizer.pt", "state.json"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(WorkError, match=r"step-000002.*damaged"):
            run_checkpoint.load(folder, torch.device("cpu"))
        (folder / name).write_bytes(whole)


def test_a_loss_that_is_no_number_stops_the_run_with_advice(tmp_path, synthetic_dataset, micro_config):
    config = micro_config("optim.lr=1e30", "optim.warmup=0", "optim.clip=0.0")
    with pytest.raises(WorkError, match=r"not a number in step \d+.*optim\.lr"):
        train(config, str(synthetic_dataset), tmp_path / "run")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
    ],
)
def test_out_of_memory_is_answered_with_settings(
    tmp_path, synthetic_dataset, micro_config, monkeypatch, error
):
    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr("orbit4d.model.training.steps.training_loss", refuse)
    with pytest.raises(WorkError, match=r"out of memory in step 1.*optim\.batch=1.*checkpointing"):
        train(micro_config(), str(synthetic_dataset), tmp_path / "run")


@pytest.mark.parametrize("place", ["stages.build_unet", "stages.make_optimizer", "steps.write_checkpoint"])
def test_out_of_memory_beside_a_step_is_answered_too(
    tmp_path, synthetic_dataset, micro_config, monkeypatch, place
):
    def refuse(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(f"orbit4d.model.training.{place}", refuse)
    with pytest.raises(WorkError, match=r"out of memory beside its steps.*optim\.batch=1"):
        train(micro_config(), str(synthetic_dataset), tmp_path / "run")


def test_ctrl_c_leaves_a_resumable_state(tmp_path, synthetic_dataset, micro_config, finished, monkeypatch):
    import signal

    from orbit4d.model.training import steps as module

    real, calls = module.training_loss, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*args, **kwargs)

    config = micro_config("checkpoint_every=100")
    monkeypatch.setattr(module, "training_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(config, str(synthetic_dataset), tmp_path / "run")
    assert run_checkpoint.latest(tmp_path / "run").name == "step-000005", "the step it was in is kept"
    monkeypatch.setattr(module, "training_loss", real)
    train(config, str(synthetic_dataset), tmp_path / "run", resume=True)
    assert losses(tmp_path / "run") == losses(finished[0])


def test_learning_rate_follows_its_stage(micro_config):
    config = micro_config("optim.warmup=4", "optim.lr=1.0")
    stage = Stage("dynamic", 100, lr_scale=0.5)
    rates = [learning_rate(config, stage, done) for done in range(100)]
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert max(rates) <= 0.5 and rates[-1] == pytest.approx(0.025, rel=0.05)
    constant = replace(config, optim=replace(config.optim, schedule="constant"))
    assert learning_rate(constant, stage, 50) == 0.5


def test_effective_batch_is_kept_for_any_number_of_processes(micro_config):
    config = micro_config("optim.effective_batch=128", "optim.batch=4")
    assert [micro_batches(config, n) for n in (1, 2, 8, 32)] == [32, 16, 4, 1]
    with pytest.raises(InputError, match="no multiple"):
        micro_batches(config, 3)


def test_accumulated_steps_equal_one_large_batch(tmp_path, synthetic_dataset, micro_config):
    """Two micro-batches of 1 give the loss of one batch of 2: the samples are the same."""
    plain = ("steps=2", "model.unet.temporal_dropout=0.0", "loss.motion_weight=0.0")
    train(micro_config(*plain, "optim.batch=2"), str(synthetic_dataset), tmp_path / "one")
    train(micro_config(*plain, "optim.batch=1"), str(synthetic_dataset), tmp_path / "two")
    for (_, _, a), (_, _, b) in zip(losses(tmp_path / "one"), losses(tmp_path / "two")):
        assert a == pytest.approx(b, rel=1e-4)


def test_lora_trains_adapters_and_leaves_a_plain_model(tmp_path, synthetic_dataset, micro_config, finished):
    pytest.importorskip("peft")
    from orbit4d.model import OrbitUNet

    source = finished[0] / "model" / "unet"
    config = micro_config(
        "optim.lora=2", f"model.init={source}", "steps=2", "optim.lr=0.05", "optim.warmup=0"
    )
    train(config, str(synthetic_dataset), tmp_path / "run")
    saved = run_checkpoint.load(run_checkpoint.latest(tmp_path / "run"), torch.device("cpu")).model
    assert any("lora" in key for key in saved)
    assert not any(key.endswith("conv_in.weight") for key in saved), "frozen weights are not in checkpoints"
    before, after = OrbitUNet.from_pretrained(source), OrbitUNet.from_pretrained(tmp_path / "run/model/unet")
    old, new = before.state_dict(), after.state_dict()
    assert old.keys() == new.keys(), "adapters are folded in"
    changed = {key for key in old if not torch.equal(old[key], new[key])}
    assert any("to_q" in key for key in changed)
    assert not any("conv" in key or "norm" in key for key in changed)


@pytest.mark.parametrize("how", ["optim.checkpointing=true", "optim.precision=bf16"])
def test_cheaper_arithmetic_keeps_the_losses(tmp_path, synthetic_dataset, micro_config, finished, how):
    """Recomputing activations changes nothing (dropout is replayed); bfloat16 changes late digits."""
    train(
        micro_config(how, 'stages=[{"name": "static", "steps": 2}]'), str(synthetic_dataset), tmp_path / "run"
    )
    tolerance = 1e-5 if "checkpointing" in how else 3e-2
    for (_, _, a), (_, _, b) in zip(losses(tmp_path / "run"), losses(finished[0])):
        assert a == pytest.approx(b, rel=tolerance)


def test_tensorboard_gets_the_same_numbers(tmp_path, synthetic_dataset, micro_config):
    pytest.importorskip("torch.utils.tensorboard")
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(micro_config("steps=2"), str(synthetic_dataset), tmp_path / "run", trackers=("tensorboard",))
    events = event_accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    logged = [(event.step, event.value) for event in events.Scalars("loss")]
    assert logged == [(step, pytest.approx(loss)) for step, _, loss in losses(tmp_path / "run")]


def test_eight_bit_adam_is_one_clear_line(tmp_path, synthetic_dataset, micro_config):
    try:
        import bitsandbytes  # noqa: F401

        pytest.skip("bitsandbytes is installed: the refusal cannot be seen")
    except ImportError:
        pass
    with pytest.raises(InputError, match="needs bitsandbytes"):
        train(micro_config("optim.optimizer=adamw8bit"), str(synthetic_dataset), tmp_path / "run")


def test_eight_bit_adam_without_a_gpu_is_one_clear_line(micro_config, small_unet, monkeypatch):
    """Installed, it would fail at its first step with an error from deep inside."""
    monkeypatch.setitem(sys.modules, "bitsandbytes", types.ModuleType("bitsandbytes"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="needs a CUDA GPU"):
        make_optimizer(small_unet("image"), micro_config("optim.optimizer=adamw8bit"))
