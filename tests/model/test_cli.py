"""The commands around the trainer: one set of options for both halves, and one voice for many processes."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from orbit4d.datasets.commands.command import run
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.model.cli import encode as encode_cli
from orbit4d.model.cli import train as train_cli


def test_encode_and_train_take_the_same_frozen_parts(monkeypatch, tmp_path):
    """What was encoded is what training looks for: the same words give the same settings."""
    seen = []
    monkeypatch.setattr(
        "orbit4d.model.data.encode.encode_dataset", lambda dataset, config: seen.append(config)
    )
    monkeypatch.setattr("orbit4d.model.training.train.train", lambda config, *_: seen.append(config))
    words = ["data", "--preset", "videomv-image", "--vae", "weights/vae", "--text-encoder", "clip.bin"]
    words += ["--image-encoder", "clip.bin"]
    for command, more in ((encode_cli.encode, []), (train_cli.train, ["--out", str(tmp_path / "run")])):
        result = CliRunner().invoke(command, words + more)
        assert result.exit_code == 0, result.output
    assert seen[0] == seen[1]
    model = seen[0].model
    assert (model.autoencoder, model.text_encoder, model.image_encoder) == ("weights/vae", *["clip.bin"] * 2)


@pytest.fixture
def launched(monkeypatch, tmp_path, capsys):
    """`launched(rank, local_rank, error)`: exit code, stdout and stderr of one process of a launch."""

    def launch(rank, local_rank, error=None):
        def training(*args):
            print("note: a note")
            if error is not None:
                raise error
            return "RUN/model"

        monkeypatch.setattr("orbit4d.model.training.train.train", training)
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(local_rank))
        code = run(train_cli.train, ["data", "--out", str(tmp_path / "run")])
        return code, *capsys.readouterr()

    return launch


def test_notes_come_from_the_first_process_alone(launched):
    assert launched(0, 0) == (0, "note: a note\nmodel: RUN/model\n", "")
    for place in ((1, 1), (8, 0)):
        assert launched(*place) == (0, "", "")


def test_bad_input_is_said_once_on_each_machine(launched):
    bad = InputError("data: not there")
    for place in ((0, 0), (8, 0)):
        assert launched(*place, bad)[::2] == (2, "error: data: not there\n")
    assert launched(3, 3, bad) == (2, "", ""), "the exit code stays"


def test_failed_work_is_said_by_whom_it_befell(launched):
    """Memory may run out in one process alone: its line must not be lost."""
    failed = WorkError("out of memory")
    assert launched(0, 0, failed)[::2] == (1, "error: out of memory\n")
    assert launched(3, 3, failed)[::2] == (1, "error: process 3: out of memory\n")
