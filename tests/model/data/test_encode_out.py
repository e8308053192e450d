"""`encode --out FOLDER` and `train --latents FOLDER`: the cache of a dataset that cannot be written."""

from __future__ import annotations

import json
import os
import shutil

import fsspec
import pytest
from click.testing import CliRunner

from orbit4d.datasets.commands.command import run
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.storage import Store
from orbit4d.model.cli import encode as encode_cli
from orbit4d.model.cli import train as train_cli
from orbit4d.model.data.encode import encode_dataset
from orbit4d.model.run.log import read
from orbit4d.model.training.train import train

ONE = 'stages=[{"name": "dynamic", "steps": 2}]'


@pytest.fixture
def sealed(synthetic_dataset, tmp_path, monkeypatch):
    """A dataset on which every write is refused, as on a read-only mount."""
    path = shutil.copytree(synthetic_dataset, tmp_path / "sealed")
    real = Store._put_local

    def refuse(self, name, pieces):
        if str(self.local).startswith(str(path)):
            raise OSError(30, "Read-only file system")
        real(self, name, pieces)

    monkeypatch.setattr(Store, "_put_local", refuse)
    return path


def losses(folder):
    return [row["loss"] for row in read(folder / "log.jsonl")]


@pytest.mark.parametrize("uri", [False, True])
def test_latents_of_a_read_only_dataset_are_found_by_training(
    sealed, tmp_path, micro_config, monkeypatch, uri
):
    before = sorted(os.walk(sealed))
    folder = "memory://latents-out/of/sealed" if uri else str(tmp_path / "some" / "latents")
    with pytest.raises(
        InputError, match=r"sealed/latents: cannot be written.*--out FOLDER.*--latents FOLDER"
    ):
        encode_dataset(str(sealed), micro_config(ONE))
    config = micro_config(ONE, f"data.latents_folder={folder}", "data.latents=cache")
    said = encode_dataset(str(sealed), config)
    assert said.startswith("encoded 8 clips, 0 were there") and said.endswith(
        f"train with --latents {folder}"
    )
    assert encode_dataset(str(sealed), config).startswith("encoded 0 clips, 8 were there")
    assert sorted(os.walk(sealed)) == before
    train(config, str(sealed), tmp_path / "cached")
    assert json.loads((tmp_path / "cached" / "data.json").read_text())["latents"] == "cache"
    train(micro_config(ONE, "data.latents=fly"), str(sealed), tmp_path / "fly")
    assert losses(tmp_path / "cached") == pytest.approx(losses(tmp_path / "fly"), rel=1e-5)
    # Another place of the latents does not make another run of it.
    moved = micro_config(ONE, "data.latents=fly", "steps=3")
    train(moved, str(sealed), tmp_path / "cached", resume=True)
    assert len(losses(tmp_path / "cached")) == 3
    if uri:
        fsspec.filesystem("memory").rm("/latents-out", recursive=True)


def test_the_two_commands_meet(synthetic_dataset, tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(
        "orbit4d.model.data.encode.encode_dataset", lambda dataset, config: seen.append(config)
    )
    monkeypatch.setattr("orbit4d.model.training.train.train", lambda config, *_: seen.append(config))
    for command, words in (
        (encode_cli.encode, ["data", "--out", "over/there"]),
        (train_cli.train, ["data", "--out", str(tmp_path / "run"), "--latents", "over/there"]),
    ):
        assert CliRunner().invoke(command, words).exit_code == 0
    assert seen[0] == seen[1] and seen[0].data.latents_folder == "over/there"


def test_a_folder_without_the_latents_is_refused(synthetic_dataset, tmp_path, micro_config, capsys):
    folder = tmp_path / "latents"
    for mode in ("auto", "cache"):
        config = micro_config(ONE, f"data.latents_folder={folder}", f"data.latents={mode}")
        with pytest.raises(InputError, match=rf"{folder}: holds no latents.*--out {folder}"):
            train(config, str(synthetic_dataset), tmp_path / mode)
    other = micro_config(ONE, f"data.latents_folder={folder}", "data.latents=cache")
    encode_dataset(str(synthetic_dataset), other)
    larger = micro_config(ONE, f"data.latents_folder={folder}", "data.latents=cache", "data.resolution=32")
    with pytest.raises(InputError, match="holds no latents"):
        train(larger, str(synthetic_dataset), tmp_path / "larger")
    assert f"note: {folder} has latents made with resolution=16" in capsys.readouterr().out
    words = [str(synthetic_dataset), "--out", str(tmp_path / "clash"), "--latents", str(folder)]
    assert run(train_cli.train, [*words, "--set", "data.latents=fly"]) == 2
    assert "set one of them otherwise" in capsys.readouterr().err
