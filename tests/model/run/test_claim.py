"""Whose RUN it is: a start that failed before its first step leaves the folder to the corrected command, a
run that has taken steps does not, and two processes never train in one folder."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.model.config.settings import from_dict, to_dict
from orbit4d.model.network.build import build_unet
from orbit4d.model.network.unet import OrbitUNet
from orbit4d.model.run import checkpoint as run_checkpoint
from orbit4d.model.run.claim import claimed
from orbit4d.model.run.log import read, write_json
from orbit4d.model.training.train import train

SHORT = 'stages=[{"name": "dynamic", "steps": 4}]'


def losses(run):
    return [row["loss"] for row in read(run / "log.jsonl")]


def out_of_memory_at(monkeypatch, call):
    """The training loss finds no memory when it is asked for the `call`-th time."""
    from orbit4d.model.training import steps as module

    real, calls = module.training_loss, []

    def refuse(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "training_loss", refuse)


def test_after_a_mistyped_init_the_corrected_command_runs(tmp_path, synthetic_dataset, micro_config):
    build_unet(micro_config(), 48).save_pretrained(tmp_path / "init")
    with pytest.raises(InputError, match="no such file"):
        train(micro_config(SHORT, "model.init=intt"), str(synthetic_dataset), tmp_path / "run")
    config = micro_config(SHORT, "steps=1", f"model.init={tmp_path / 'init'}")
    train(config, str(synthetic_dataset), tmp_path / "run")
    assert from_dict(json.loads((tmp_path / "run" / "config.json").read_text())) == config


def test_the_new_start_finds_nothing_of_the_failed_one(
    tmp_path, synthetic_dataset, micro_config, monkeypatch
):
    """The frozen base of the first start, above all: it belongs to another --init."""
    settings = []
    for seed in (0, 1):
        init = tmp_path / f"init{seed}"
        build_unet(micro_config(f"seed={seed}"), 48).save_pretrained(init)
        settings.append(micro_config(SHORT, "steps=1", f"model.init={init}", "sample.w2=0.5"))
    with monkeypatch.context() as patch:
        out_of_memory_at(patch, 1)
        with pytest.raises(WorkError, match="out of memory in step 1"):
            train(settings[0], str(synthetic_dataset), tmp_path / "run")
    assert (tmp_path / "run" / "base").exists()
    train(settings[1], str(synthetic_dataset), tmp_path / "run")
    base, init = (OrbitUNet.from_pretrained(p) for p in (tmp_path / "run" / "base", tmp_path / "init1"))
    assert torch.equal(base.unet.conv_in.weight, init.unet.conv_in.weight)


@pytest.mark.parametrize("resume", [False, True])
def test_the_advice_after_the_first_step_found_no_memory_can_be_followed(
    tmp_path, synthetic_dataset, micro_config, monkeypatch, resume
):
    with monkeypatch.context() as patch:
        out_of_memory_at(patch, 1)
        with pytest.raises(WorkError, match=r"try --set optim\.batch=1.*optim\.precision=bf16"):
            train(micro_config(SHORT), str(synthetic_dataset), tmp_path / "run")
    config = micro_config(SHORT, "steps=1", "optim.batch=1", "optim.precision=bf16")
    train(config, str(synthetic_dataset), tmp_path / "run", resume=resume)
    assert len(losses(tmp_path / "run")) == 1


def test_the_advice_in_the_middle_of_a_run_can_be_followed(
    tmp_path, synthetic_dataset, micro_config, monkeypatch
):
    """Half the micro-batch and recomputed activations: the same samples and noise, so the losses of a run
    that had them differ by rounding alone (without dropout, whose draws depend on the micro-batch)."""
    plain = (SHORT, "model.unet.temporal_dropout=0.0")
    train(micro_config(*plain), str(synthetic_dataset), tmp_path / "whole")
    with monkeypatch.context() as patch:
        out_of_memory_at(patch, 4)
        with pytest.raises(WorkError, match=r"--resume --set optim\.batch=1.*another --out.*precision"):
            train(micro_config(*plain), str(synthetic_dataset), tmp_path / "run")
    less = micro_config(*plain, "optim.batch=1", "optim.checkpointing=true", "checkpoint_every=1")
    train(less, str(synthetic_dataset), tmp_path / "run", resume=True)
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)
    with pytest.raises(InputError, match=r"optim\.precision"):
        train(micro_config(*plain, "optim.precision=bf16"), str(synthetic_dataset), tmp_path / "run", True)


@pytest.mark.parametrize("step_taken", ["log", "checkpoint", "model"])
def test_a_run_that_has_taken_a_step_is_kept(tmp_path, micro_config, step_taken):
    with claimed(tmp_path, micro_config(), resume=False):
        pass
    if step_taken == "log":
        (tmp_path / "log.jsonl").write_text('{"step": 1}\n')
    elif step_taken == "checkpoint":
        state = run_checkpoint.State(2, 0, 2, 1.0)
        content = run_checkpoint.Checkpoint(state, {"w": torch.ones(3)}, {}, None, 0, None)
        run_checkpoint.save(tmp_path, content, keep=1)
    else:
        (tmp_path / "model").mkdir()
    with (
        pytest.raises(InputError, match="already holds a run"),
        claimed(tmp_path, micro_config(), resume=False),
    ):
        pass
    other = micro_config("optim.lr=1.0")
    for resume in (False, True):
        with pytest.raises(InputError, match=r"optim\.lr"), claimed(tmp_path, other, resume):
            pass
    with claimed(tmp_path, micro_config(), resume=True):
        pass


def test_settings_of_something_else_are_not_overwritten(tmp_path, micro_config):
    """A model's folder has a config.json too, and a source tree may have a folder named model."""
    write_json(tmp_path / "config.json", {"_class_name": "OrbitUNet"})
    with pytest.raises(InputError, match="no settings of a run"), claimed(tmp_path, micro_config(), False):
        pass
    assert json.loads((tmp_path / "config.json").read_text()) == {"_class_name": "OrbitUNet"}
    (tmp_path / "tree" / "model").mkdir(parents=True)
    with (
        pytest.raises(InputError, match="no settings of a run"),
        claimed(tmp_path / "tree", micro_config(), False),
    ):
        pass


HOLDER = """
import json, sys
from pathlib import Path
from orbit4d.model.config.settings import from_dict
from orbit4d.model.run.claim import claimed
with claimed(Path(sys.argv[1]), from_dict(json.loads(sys.argv[2])), False):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_do_not_claim_one_folder(tmp_path, micro_config):
    """Before the first step as well, when neither would see anything of the other; a kill sets it free."""
    config = micro_config()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), json.dumps(to_dict(config))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == "held\n"
        for resume in (False, True):
            with pytest.raises(InputError, match="another process"), claimed(tmp_path, config, resume):
                pass
    finally:
        holder.kill()
        holder.communicate()
    with claimed(tmp_path, config, resume=False):
        pass
