"""`--config FILE`: settings from YAML, under the options and over the preset."""

from __future__ import annotations

import inspect
import json

import pytest
from click.testing import CliRunner

from orbit4d.datasets.commands.command import run
from orbit4d.datasets.core.errors import InputError
from orbit4d.model.cli import encode as encode_cli
from orbit4d.model.cli import train as train_cli
from orbit4d.model.config.checks import UNET
from orbit4d.model.config.file import read_settings
from orbit4d.model.config.presets import preset
from orbit4d.model.config.settings import TrainConfig, override, to_dict
from orbit4d.model.network.unet import OrbitUNet


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """`settings(yaml, *words)`: what `orbit4d train --config` with that file trains with."""
    seen = []
    monkeypatch.setattr("orbit4d.model.training.train.train", lambda config, *_: seen.append(config))

    def resolve(text, *words):
        (tmp_path / "file.yaml").write_text(text, encoding="utf-8")
        line = ["data", "--out", str(tmp_path / "run"), "--config", str(tmp_path / "file.yaml"), *words]
        result = CliRunner().invoke(train_cli.train, line)
        if isinstance(result.exception, InputError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return seen[-1]

    return resolve


def test_a_file_stands_between_preset_and_options(settings):
    text = """
preset: tiny-text
steps: 50
optim: {lr: 2e-4, precision: no, batch: 2}
data:
  caption_suffix: ", a toy"
data.where: motion_magnitude > 0.01
model: {unet: {camera_harmonics: 3}}
"""
    config = settings(text)
    by_hand = override(
        preset("tiny-text"),
        ["steps=50", "optim.lr=2e-4", "optim.batch=2", "data.caption_suffix=, a toy",
         "data.where=motion_magnitude > 0.01", "model.unet.camera_harmonics=3"],
    )  # fmt: skip
    assert config == by_hand and config.optim.precision == "no" and config.optim.lr == 0.0002
    assert config.model.unet["first_view"] == "repeat", "what is not named keeps the preset's value"
    over = settings(text, "--batch", "4", "--steps", "70", "--set", "optim.lr=1")
    assert (over.optim.batch, over.total_steps, over.optim.lr) == (4, 70, 1)
    assert settings(text, "--preset", "tiny").model.variant == "image"


@pytest.mark.parametrize("name", ["tiny", "videomv-static3d"])
def test_the_settings_of_a_run_are_such_a_file(settings, name):
    config = override(preset(name), ["seed=5", "steps=9"])
    assert settings(json.dumps(to_dict(config), indent=1)) == config
    custom = override(TrainConfig(), ["optim.lr=0.125"])
    assert settings(json.dumps(to_dict(custom))) == custom


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("optim: {lrr: 3}", r"optim\.lrr: no such setting; the nearest is optim\.lr"),
        ("learning_rate: 3", r"learning_rate: no such setting; known are .*optim\.lr"),
        ("lr: 3", r"lr: no such setting; the nearest is optim\.lr"),
        ("step: 3", r"step: no such setting; the nearest is steps"),
        ("data: {resolutoin: 64}", r"data\.resolutoin.*the nearest is data\.resolution"),
        ("model: {unet: {block_out_chanels: [8]}}", r"block_out_chanels.*nearest is block_out_channels"),
        ("model: {unet: {variant: text}}", r"model\.unet\.variant: no such argument"),
        ("optim: {lr: fast}", r"file\.yaml: optim\.lr=fast: expected a float"),
        ("optim: {batch: 2.5}", "expected a int"),
        ("optim: {lr: }", r"optim\.lr=null: expected a float"),
        ("optim: {lr: 1, lr: 2}", "line 1 .*lr is given twice"),
        ("optim: {lr: 1}\noptim.lr: 2", r"optim\.lr is given twice"),
        ("optim: [lr", "line 1 is no YAML"),
        ("- optim", "holds no settings"),
        ("", "holds no settings"),
        ("preset: huge", "known presets are"),
        ("optim: 3", r"optim=3: expected a dict"),
        ("stages: [{name: static, steps: 4, speed: 2}]", r"stages\.speed"),
    ],
)
def test_what_a_file_cannot_say_is_one_line(settings, text, says):
    with pytest.raises(InputError, match=says) as caught:
        settings(text)
    assert "\n" not in str(caught.value)


def test_scalars_are_those_of_yaml_1_2(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("a: 1e-4\nb: no\nc: 010\nd: 1:30\ne: 2024-01-02\nf: true\ng: -3\nh: .5\ni: yes\n")
    assert read_settings(path) == {
        "a": 1e-4, "b": "no", "c": 10, "d": "1:30", "e": "2024-01-02", "f": True, "g": -3, "h": 0.5,
        "i": "yes",
    }  # fmt: skip


def test_a_file_that_is_not_there_is_one_line(tmp_path, capsys):
    for name in ("nothing.yaml", "."):
        assert run(encode_cli.encode, ["data", "--config", str(tmp_path / name)]) == 2
        assert "no such file" in capsys.readouterr().err


def test_the_names_of_the_network_are_its_arguments():
    arguments = list(inspect.signature(OrbitUNet.__init__).parameters)[1:]
    assert set(UNET) == set(arguments) - {"variant", "double_add_folded"}
