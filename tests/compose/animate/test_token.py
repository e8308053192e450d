"""`orbit4d animate token`: from images to a file that later runs read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from orbit4d.app.cli import command
from orbit4d.datasets.commands.command import run
from orbit4d.model.distill import load_score
from orbit4d.model.distill.scores.text import read_token
from tests.model.distill.tiny_pipelines import write_pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("sd15"), "sd15")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("photo") / "fox.png"
    image = Image.new("RGBA", (80, 80), (0, 0, 0, 0))
    image.paste((200, 60, 40, 255), (20, 20, 60, 60))
    image.save(path)
    return str(path)


def words(photo: str, folder: Path, out: Path, *more: str) -> list[str]:
    asked = ["animate", "token", photo, "--out", str(out), "--model", str(folder), "--device", "cpu"]
    return [*asked, "--steps", "3", "--batch", "2", "--token", "<fox>", "--init", "f", *more]


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_word_is_learned_and_read_back(
    suffix: str, folder: Path, photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"token{suffix}"
    assert run(command, words(photo, folder, out)) == 0
    said = capsys.readouterr().out
    assert "(random, " in said and "loss " in said and f"word <fox>: {out}" in said
    word, vectors = read_token(out)
    assert word == "<fox>" and vectors.shape == (1, 32) and torch.isfinite(vectors).all()
    score: Any = load_score(str(folder), "2d", token=out)
    with_word, with_init = (
        score.condition(prompt=f"a {said}").cond["encoder_hidden_states"] for said in ("<fox>", "f")
    )
    # Three steps of 1e-4 away from the word it started from: other numbers, close by.
    assert 0 < (with_word - with_init).abs().max() < 0.1


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (("--token", "fox"), "--token fox: a learned word stands in angle brackets"),
        (("--token", "<a fox>"), "angle brackets without spaces"),
        (("--init", " "), "--init: is empty"),
        (("--init", "fox"), "--init 'fox': is 3 entries"),
        (("--out", "token.txt"), "ends in .safetensors or .bin"),
        (("--model", "sd51"), "the nearest is sd15"),
        (("--model", "modelscope"), "text-to-video"),
        (("none.png",), "none.png: no such file"),
    ],
)
def test_refusals_are_one_line(
    more: tuple[str, ...], line: str, folder: Path, photo: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert run(command, words(photo, folder, tmp_path / "token.safetensors", *more)) == 2
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1, said
    assert not list(tmp_path.iterdir())


def test_a_file_that_exists_and_a_model_for_gpus(
    folder: Path, photo: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "token.safetensors"
    out.write_bytes(b"mine")
    assert run(command, words(photo, folder, out)) == 2
    assert "exists" in capsys.readouterr().err and out.read_bytes() == b"mine"
    if torch.cuda.is_available():
        pytest.skip("what is refused without a GPU")
    asked = words(photo, folder, tmp_path / "b.bin", "--model", "sd15", "--device", "auto")
    assert run(command, asked) == 2
    assert "give --device cpu" in capsys.readouterr().err


def test_an_image_called_token_is_given_with_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["./token", "it moves", "--out", str(tmp_path / "o"), "--steps", "0,0,0"]
    assert run(command, ["animate", *words]) == 2
    assert "--steps 0,0,0" in capsys.readouterr().err
