"""Runs and videos at URIs: checkpoints are uploaded as they are written, and resumed from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orbit4d.datasets.commands.command import run
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.storage import Store
from orbit4d.model.cli import generate as generate_cli
from orbit4d.model.cli import train as train_cli
from orbit4d.model.config.settings import to_dict
from orbit4d.model.run.log import read


@pytest.fixture
def words(micro_config: Any) -> list[str]:
    """The micro configuration as words of `orbit4d train`."""
    config = to_dict(micro_config())
    sets = [f"model.unet={json.dumps(config['model']['unet'])}", f"stages={json.dumps(config['stages'])}"]
    sets += ["model.autoencoder=unshuffle:4", "data.resolution=16", "data.frames=4"]
    sets += ["optim.effective_batch=2", "optim.batch=2", "checkpoint_every=2"]
    return ["--preset", "tiny", *(word for pair in (("--set", text) for text in sets) for word in pair)]


def losses(log: Path) -> list[float]:
    return [row["loss"] for row in read(log)]


@pytest.mark.slow
def test_a_killed_run_is_resumed_from_s3_with_the_same_losses(
    bucket: str,
    words: list[str],
    synthetic_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    out = f"{bucket}/run-{uuid.uuid4().hex}"
    asked = [str(synthetic_dataset), *words, "--out", out]
    killed = subprocess.run(
        [sys.executable, "-P", "-m", "orbit4d.app", "train", *asked],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ORBIT4D_CRASH_AT": "train_step_done:6"},
        check=False,
        timeout=300,
    )
    assert killed.returncode == -9, killed.stderr
    there = list(Store(out).tree())
    assert "checkpoints/step-000005/state.json" in there, "uploaded when it was written"
    assert not any(name.startswith("model/") for name in there)
    assert run(train_cli.train, asked) == 2
    assert f"{out}: already holds a run" in capsys.readouterr().err
    assert run(train_cli.train, [*asked, "--resume"]) == 0
    said = capsys.readouterr().out
    assert f"resuming {out} at step 5 of 7" in said and f"model: {out}/model" in said
    kept = {name.split("/")[1] for name in Store(out).tree() if name.startswith("checkpoints/")}
    assert kept == {"step-000005", "step-000007"}, "old ones are deleted there too"
    assert list(tmp_path.iterdir()) == []

    assert run(train_cli.train, [*asked[:-1], "whole"]) == 0
    Store(out).download("log.jsonl", tmp_path / "log.jsonl")
    assert losses(tmp_path / "log.jsonl") == losses(tmp_path / "whole" / "log.jsonl")


def test_a_dry_run_and_ray_touch_no_uri(
    words: list[str], synthetic_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = f"memory://runs-{uuid.uuid4().hex}/run"
    assert run(train_cli.train, [str(synthetic_dataset), *words, "--out", out, "--ray", "2"]) == 2
    assert "--ray" in capsys.readouterr().err
    assert run(train_cli.train, [str(synthetic_dataset), *words, "--out", out, "--dry-run"]) == 0
    assert Store(out).tree() == {}


def test_a_video_is_generated_from_a_run_at_a_uri(
    words: list[str],
    synthetic_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    place = f"memory://runs-{uuid.uuid4().hex}"
    assert run(train_cli.train, [str(synthetic_dataset), *words, "--out", f"{place}/run"]) == 0
    photo = np.zeros((24, 24, 4), np.uint8)
    photo[6:18, 6:18] = (200, 40, 40, 255)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    Store(place).upload("photo.png", tmp_path / "photo.png")
    (tmp_path / "photo.png").unlink()
    ask = [f"{place}/run", "--image", f"{place}/photo.png", "--steps", "1", "--samples", "2"]
    assert run(generate_cli.generate, [*ask, "--out", f"{place}/made/fox.mp4"]) == 0
    assert f"wrote {place}/made/fox-1.mp4" in capsys.readouterr().out
    made = list(Store(f"{place}/made").tree())
    assert {"fox.mp4", "fox-1.mp4", "fox/transforms.json", "fox-1/frames/000.png"} <= set(made)
    about = Store(f"{place}/made").read("fox/transforms.json").decode()
    assert f"{place}/photo.png" in about and "orbit4d-scratch" not in about
    assert run(generate_cli.generate, [*ask, "--out", f"{place}/made/fox.mp4"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_generate_keeps_what_is_there(
    words: list[str], synthetic_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also a folder of the user's own that is named like the video."""
    model = tmp_path / "run"
    assert run(train_cli.train, [str(synthetic_dataset), *words, "--out", str(model)]) == 0
    photo = np.zeros((24, 24, 4), np.uint8)
    photo[6:18, 6:18] = (200, 40, 40, 255)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    (tmp_path / "fox").mkdir()
    (tmp_path / "fox" / "thesis.txt").write_text("years of work")
    ask = [
        str(model),
        "--image",
        str(tmp_path / "photo.png"),
        "--steps",
        "1",
        "--out",
        str(tmp_path / "fox.mp4"),
    ]
    for more in ([], ["--overwrite"]):
        assert run(generate_cli.generate, [*ask, *more]) == 2
        assert (tmp_path / "fox" / "thesis.txt").read_text() == "years of work"
        assert str(tmp_path / "fox") in capsys.readouterr().err.splitlines()[-1]
    (tmp_path / "fox" / "thesis.txt").unlink()
    (tmp_path / "fox").rmdir()
    assert run(generate_cli.generate, ask) == 0
    assert run(generate_cli.generate, ask) == 2
    assert run(generate_cli.generate, [*ask, "--overwrite"]) == 0


def test_python_refuses_a_run_at_a_uri(
    micro_config: Any, synthetic_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orbit4d.model.training.train import train

    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is a URI"):
        train(micro_config(), str(synthetic_dataset), Path("s3://bucket/run"))
    assert list(tmp_path.iterdir()) == []


def test_one_frame_is_no_orbit(micro_config: Any) -> None:
    with pytest.raises(InputError, match=r"data\.frames"):
        micro_config("data.frames=1")
