"""What a stopped training says is the command that continues with it; --ray from any current folder."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click
import pytest

from orbit4d.datasets.commands.command import run
from orbit4d.datasets.commands.command_line import command_line
from orbit4d.model.cli import train as train_cli
from orbit4d.model.config.settings import from_dict
from orbit4d.model.network.build import build_unet
from orbit4d.model.run.log import read
from orbit4d.model.training import ray_launch
from orbit4d.model.training.train import train


@pytest.fixture
def stopped(monkeypatch, tmp_path, capsys):
    """`stopped(*words, begun)`: what the command says on standard error when Ctrl-C ends it."""

    def stop(*words, begun):
        out = tmp_path / "my run"

        def training(config, dataset, path, *_):
            path.mkdir(exist_ok=True)
            if begun:
                (path / "log.jsonl").write_text('{"step": 1}\n')
            raise KeyboardInterrupt

        monkeypatch.setattr("orbit4d.model.training.train.train", training)
        command = click.Group(commands={"train": train_cli.train})
        code = run(command, ["train", "data", "--out", str(out), *words], prog_name="orbit4d")
        assert code == 130
        return capsys.readouterr().err.strip()

    return stop


@pytest.mark.parametrize(
    "words",
    [
        ("--steps", "40"),
        ("--where", "uid <> 'a b'", "--set", "optim.lr=1e-4", "--set", "seed=3", "--track", "tensorboard"),
        ("--sample-every", "7", "--allow-missing"),
        ("--resume", "--seed", "2"),
    ],
)
def test_a_stopped_run_names_the_command_that_goes_on(stopped, tmp_path, words):
    said = stopped(*words, begun=True)
    before, _, command = said.partition("continue with: ")
    assert "what was learned is kept" in before and "\n" not in said
    parts = shlex.split(command)
    assert parts[:5] == ["orbit4d", "train", "data", "--out", str(tmp_path / "my run")]
    assert parts.count("--resume") == 1 and sorted(set(parts[5:])) == sorted({*words, "--resume"})


def test_before_its_first_step_the_same_command_starts_anew(stopped, monkeypatch):
    said = stopped("--steps", "40", begun=False)
    assert "no step was finished" in said and "--resume" not in said and said.endswith("--steps 40")
    monkeypatch.setenv("RANK", "0")
    assert stopped(begun=True).endswith("continue with: the same command again with --resume")
    monkeypatch.setenv("RANK", "3")
    assert stopped(begun=True) == ""


def test_flags_and_defaults_are_said_as_they_were_given(capsys):
    @click.command()
    @click.argument("names", nargs=-1)
    @click.option("-c", "--crop/--no-crop", default=None)
    @click.option("--size", type=int, default=3)
    @click.option("--both", nargs=2, type=int)
    @click.pass_context
    def draw(context, **_):
        print(command_line(context, "--crop", "--again"))

    draw.main(["a b", "c", "--no-crop", "--both", "1", "2"], prog_name="draw", standalone_mode=False)
    assert capsys.readouterr().out == "draw 'a b' c --no-crop --both 1 2 --crop --again\n"
    draw.main(["--crop", "x"], prog_name="draw", standalone_mode=False)
    assert capsys.readouterr().out == "draw x --crop --again\n"


def test_relative_paths_reach_workers_elsewhere(tmp_path, synthetic_dataset, micro_config, monkeypatch):
    """Workers have another current folder than the driver; the run may continue without Ray afterwards."""
    import ray.train.torch

    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    (here / "data").symlink_to(synthetic_dataset)
    build_unet(micro_config(), 48).save_pretrained(here / "start")
    started = []

    class Trainer:
        def __init__(self, loop, train_loop_config, **_):
            self.loop, self.settings = loop, train_loop_config

        def fit(self):
            started.append(self.settings)
            with monkeypatch.context() as patch:
                patch.chdir(there)
                self.loop(self.settings)

    monkeypatch.setattr(ray.train.torch, "TorchTrainer", Trainer)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.chdir(here)
    config = micro_config('stages=[{"name": "dynamic", "steps": 2}]', "model.init=start", "sample.w2=0.0")
    model = ray_launch.train_on_ray(config, "data", Path("run"), workers=1)
    assert model == Path("run/model") and (here / "run" / "model" / "model_index.json").is_file()
    assert started[0]["dataset"] == str(here / "data") and os.listdir(there) == []
    assert from_dict(started[0]["config"]).model.init == str(here / "start")
    longer = micro_config('stages=[{"name": "dynamic", "steps": 3}]', "model.init=./start", "sample.w2=0.0")
    train(longer, "data", Path("run"), resume=True)
    assert len(read(here / "run" / "log.jsonl")) == 3
