"""A finished run is made longer by --resume with more --steps: what its schedule is, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.config.learning_rate import learning_rate
from orbit4d.model.run import checkpoint as run_checkpoint
from orbit4d.model.run.claim import claimed
from orbit4d.model.run.log import read
from orbit4d.model.training.train import train

CONSTANT = ("optim.schedule=constant", "optim.ema=0.9")


def losses(run):
    return [(row["step"], row["stage"], row["loss"]) for row in read(run / "log.jsonl")]


def weights(run):
    return load_file(run / "model" / "unet" / "diffusion_pytorch_model.safetensors")


def stages(static, dynamic):
    return f'stages=[{{"name": "static", "steps": {static}}}, {{"name": "dynamic", "steps": {dynamic}}}]'


@pytest.fixture(scope="module")
def five(tmp_path_factory, synthetic_dataset, micro_config):
    """A finished run of 2 static and 3 dynamic steps at a constant rate."""
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("five") / "run"
    train(micro_config(stages(2, 3), *CONSTANT), str(synthetic_dataset), run)
    return run


def test_at_a_constant_rate_it_is_the_run_of_as_many_steps(
    tmp_path, synthetic_dataset, micro_config, five, capsys
):
    """Losses and averaged weights equal to the bit, though it had finished in between, twice."""
    run = shutil.copytree(five, tmp_path / "run")
    # --steps shares 9 steps out as 4 and 5: the static stage is done and keeps its 2.
    train(micro_config(stages(2, 3), *CONSTANT, "steps=9"), str(synthetic_dataset), run, resume=True)
    assert "from 5 to 9 steps: its last stage (dynamic) has 7 where it had 3" in capsys.readouterr().out
    train(micro_config(stages(2, 3), *CONSTANT, "steps=11"), str(synthetic_dataset), run, resume=True)
    train(micro_config(stages(2, 9), *CONSTANT), str(synthetic_dataset), tmp_path / "straight")
    assert losses(run) == losses(tmp_path / "straight") and len(losses(run)) == 11
    ours, theirs = weights(run), weights(tmp_path / "straight")
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    assert [stage["steps"] for stage in json.loads((run / "config.json").read_text())["stages"]] == [2, 9]
    entries = json.loads((run / "extended.json").read_text())["extensions"]
    assert entries == [{"from_steps": 5, "to_steps": 9}, {"from_steps": 9, "to_steps": 11}]
    # Again with the same words: nothing is left to do.
    train(micro_config(stages(2, 3), *CONSTANT, "steps=11"), str(synthetic_dataset), run, resume=True)
    assert losses(run) == losses(tmp_path / "straight")


def test_a_cosine_goes_on_at_the_rates_of_the_longer_stage(tmp_path, synthetic_dataset, micro_config, capsys):
    run = tmp_path / "run"
    short = micro_config('stages=[{"name": "dynamic", "steps": 4}]', "optim.warmup=1", "optim.lr=0.01")
    long = replace(short, stages=(replace(short.stages[0], steps=10),))
    train(short, str(synthetic_dataset), run)
    train(long, str(synthetic_dataset), run, resume=True)
    rates = [row["lr"] for row in read(run / "log.jsonl")]
    want = [learning_rate(short, short.stages[0], done) for done in range(4)]
    want += [learning_rate(long, long.stages[0], done) for done in range(4, 10)]
    assert rates == want and rates[4] > rates[3], "it rises to where the longer cosine stands"
    said = re.search(
        r"cosine rates .*\((\S+) at step 4 of 4, (\S+) at the next of 10\)", capsys.readouterr().out
    )
    assert [float(word) for word in said.groups()] == pytest.approx(rates[3:5], rel=5e-3)


def test_stopped_while_it_is_extended_it_goes_on(
    tmp_path, synthetic_dataset, micro_config, five, monkeypatch
):
    from orbit4d.model.training import steps as module

    run, real, calls = shutil.copytree(five, tmp_path / "run"), module.training_loss, []
    longer = micro_config(stages(2, 3), *CONSTANT, "steps=10", "checkpoint_every=1")

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("pulled the plug")
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module, "training_loss", failing)
        with pytest.raises(RuntimeError, match="plug"):
            train(longer, str(synthetic_dataset), run, resume=True)
    assert run_checkpoint.latest(run).name == "step-000007"
    train(longer, str(synthetic_dataset), run, resume=True)
    train(micro_config(stages(2, 8), *CONSTANT), str(synthetic_dataset), tmp_path / "straight")
    assert losses(run) == losses(tmp_path / "straight")


def test_a_run_that_an_older_version_finished_can_be_extended(
    tmp_path, synthetic_dataset, micro_config, five
):
    """Its last checkpoint has averaged weights alone: the optimizer starts again, the steps continue."""
    run = shutil.copytree(five, tmp_path / "run")
    last = run_checkpoint.load(run_checkpoint.latest(run), torch.device("cpu"))
    shutil.rmtree(run / "checkpoints")
    state = run_checkpoint.State(step=5, stage=2, stage_step=0, seconds=last.state.seconds)
    old = replace(last, state=state, optimizer={}, ema=None, ema_step=0)
    old.model.update({k: v for k, v in weights(run).items() if k in old.model})
    run_checkpoint.save(run, old, keep=2)
    train(micro_config(stages(2, 3), *CONSTANT), str(synthetic_dataset), run, resume=True)
    assert len(losses(run)) == 5, "as it is, nothing is left to do"
    train(micro_config(stages(2, 3), *CONSTANT, "steps=7"), str(synthetic_dataset), run, resume=True)
    assert [row[:2] for row in losses(run)[4:]] == [(n, "dynamic") for n in (5, 6, 7)]


@pytest.mark.parametrize(
    ("asked", "resume", "says"),
    [
        (
            ("steps=8",),
            False,
            r"already holds a run of 5 steps: add --resume to extend it to 8.*--init \S*run",
        ),
        ((), False, r"already holds a run of 5 steps: add --resume to continue.*--init \S*run"),
        (("steps=4",), True, r"5 steps \(static 2, dynamic 3\).*asked for 4.*--steps 5.*--resume to extend"),
        (("steps=4",), False, r"asked for 4"),
        ((stages(3, 2),), True, r"\(static 3, dynamic 2\)"),
        (("steps=8", "optim.lr=0.5"), True, r"optim\.lr=.*another --out \(with --init \S*run"),
        (('stages=[{"name": "dynamic", "steps": 50}]',), True, "started with stages="),
    ],
)
def test_what_is_no_extension_is_refused_with_both_ways(tmp_path, micro_config, five, asked, resume, says):
    run = shutil.copytree(five, tmp_path / "run")
    config = micro_config(stages(2, 3), *CONSTANT, *asked)
    before = (run / "config.json").read_bytes()
    with pytest.raises(InputError, match=says) as caught, claimed(run, config, resume):
        pass
    assert "\n" not in str(caught.value) and (run / "config.json").read_bytes() == before
    assert not (run / "extended.json").exists()


def test_a_killed_extension_is_asked_for_again(tmp_path, micro_config, five, monkeypatch):
    """Killed between its two files: the record says more than the settings, and the command is repeated."""
    from orbit4d.model.run import extension as run_extension

    run, real = shutil.copytree(five, tmp_path / "run"), run_extension.write_json
    longer = micro_config(stages(2, 3), *CONSTANT, "steps=6")

    def killed(path, values):
        if path.name == "config.json":
            raise OSError("killed")
        real(path, values)

    with monkeypatch.context() as patch:
        patch.setattr(run_extension, "write_json", killed)
        with pytest.raises(OSError, match="killed"), claimed(run, longer, True):
            pass
    with claimed(run, longer, True) as config:
        assert [stage.steps for stage in config.stages] == [2, 4]
    entries = json.loads((run / "extended.json").read_text())["extensions"]
    assert entries == [{"from_steps": 5, "to_steps": 6}]
