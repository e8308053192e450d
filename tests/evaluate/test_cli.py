"""What the commands take, remember and refuse before anything long begins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.measures import composite
from orbit4d.datasets.images.metric_weights import NotMeasured
from orbit4d.datasets.index.reader import read_clip
from orbit4d.datasets.store.schema import split_of
from orbit4d.evaluate import cli
from orbit4d.evaluate.cli import command
from orbit4d.evaluate.metrics import suite
from orbit4d.evaluate.tasks.truth import Truth
from orbit4d.model.sampling.generate import write_orbit


def called(*words: str | Path) -> Result:
    return CliRunner().invoke(command, list(map(str, words)))


@pytest.fixture
def asks(synthetic_dataset: Path, micro_run: Path, tmp_path: Path) -> list[str]:
    """An `eval run` of one asset and two steps."""
    (tmp_path / "ids.txt").write_text("asset-000\n")
    words = ["run", str(micro_run), "--dataset", str(synthetic_dataset), "--steps", "2"]
    return [*words, "--ids", str(tmp_path / "ids.txt"), "--out", str(tmp_path / "out")]


def test_protocols_are_listed_and_checked_before_anything_is_measured(tmp_path: Path) -> None:
    shown = called("run", "--help").output
    assert "objaversedy-4d" in shown and "diffusion4d-image" in shown
    result = called("video", "a.mp4", "--truth", "b.mp4", "--out", tmp_path / "o", "--protocol", "sv4d")
    assert result.exit_code == 2 and "'sv4d' is not one of" in result.output


def test_a_finished_evaluation_is_shown_under_another_protocol(
    tmp_path: Path, moving: torch.Tensor, write, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = write(tmp_path / "truth", moving)
    words = ["video", truth, "--truth", truth, "--no-learned", "--out", tmp_path / "out"]
    assert called(*words).exit_code == 0
    monkeypatch.setattr(suite.Suite, "measure", lambda *_: pytest.fail("measured again"))
    for protocol in ("diffusion4d-image", "objaversedy-video"):
        result = called(*words, "--protocol", protocol)
        assert result.exit_code == 0, repr(result.exception)
        assert (
            f"published rows of {protocol} are not shown: it was" in result.output
            or "listed" in result.output
        )
        assert json.loads((tmp_path / "out" / "results.json").read_text())["settings"]["protocol"] == protocol


class Eye(torch.nn.Module):
    """Stands in for CLIP: a picture's mean colour."""

    def images(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(images.mean((-2, -1)), dim=-1)

    def scores(self, images: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return (images * self.images(condition[None])).sum(-1)

    def digest(self) -> str:
        return "eye"


def test_with_further_weights_rows_are_measured_again_and_nothing_is_generated_again(
    asks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First without any weights, then, as the table advises, with those of one metric."""

    def absent(*_: Any) -> Any:
        raise NotMeasured("no weights here")

    for name, where in (("LPIPS", "from_weights"), ("I3D", "from_weights"), ("ClipScore", "from_pretrained")):
        monkeypatch.setattr(getattr(suite, name), where, absent)
    out = tmp_path / "out"
    first = called(*asks)
    assert first.exit_code == 0, repr(first.exception)
    made = {path: path.stat().st_mtime_ns for path in (out / "generated").glob("*.mp4")}
    psnr = json.loads((out / "rows.jsonl").read_text())["values"]["PSNR"]

    monkeypatch.setattr(suite.ClipScore, "from_pretrained", lambda *_: Eye())
    second = called(*asks)
    assert second.exit_code == 0, repr(second.exception)
    row = json.loads((out / "rows.jsonl").read_text())
    assert row["values"]["PSNR"] == psnr and row["values"]["CLIP-S"] > 0
    assert made and {path: path.stat().st_mtime_ns for path in made} == made

    # What was measured with weights is not thrown away for want of them.
    monkeypatch.setattr(suite.ClipScore, "from_pretrained", absent)
    third = called(*asks)
    assert isinstance(third.exception, InputError) and "measured CLIP too" in str(third.exception)
    assert "CLIP-S" in (out / "rows.jsonl").read_text()


def test_guidance_weights_reach_the_model_and_the_results(
    asks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orbit4d.model.sampling.pipeline import OrbitPipeline

    given: dict[str, Any] = {}
    plainly = OrbitPipeline.__call__

    def listening(self: OrbitPipeline, **how: Any) -> Any:
        given.update(how)
        return plainly(self, **how)

    monkeypatch.setattr(OrbitPipeline, "__call__", listening)
    result = called(*asks, "--no-learned", "--w1", "1.5", "--w-motion", "2.5")
    assert result.exit_code == 0, repr(result.exception)
    assert (given["w1"], given["w2"], given["w_motion"]) == (1.5, None, 2.5)
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    config = OrbitPipeline.of_folder(asks[1]).config
    used = {"steps": 2, "w1": 1.5, "w2": config.w2, "w_motion": 2.5, "background": [255, 255, 255]}
    assert record["sampling"] == used and record["settings"]["w1"] == 1.5
    assert record["rows"][0]["extra"]["train_split"] == (split_of("asset-000") == "train")
    other = called(*asks, "--no-learned", "--w1", "2")
    assert isinstance(other.exception, InputError) and "another w1" in str(other.exception)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--motion", "much"], "--motion much: give a raw magnitude"),
        (["--motion", "q7"], "--motion q7: a quantile"),
        (["--task", "text"], "was not trained for it; give --task image"),
        (["--device", "cuda:99"], "--device cuda:99: not here"),
    ],
)
def test_what_the_model_cannot_do_is_said_before_the_truth_is_rendered(
    asks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], why: str
) -> None:
    monkeypatch.setattr(Truth, "subjects", lambda *_: pytest.fail("the truth was looked at"))
    result = called(*asks, *words)
    assert isinstance(result.exception, InputError) and why in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_orbits_are_held_against_the_truth_on_the_models_background(
    asks: list[str], synthetic_dataset: Path, tmp_path: Path
) -> None:
    """The truth itself on grey takes the place of a generated orbit: it is met to the last bit of a byte."""
    clip, grey = read_clip(synthetic_dataset, "asset-000"), (128, 128, 128)
    pixels = np.rint(composite(clip.pixels(), 128 / 255) * 255).astype(np.uint8)
    path = tmp_path / "out" / "generated" / "asset-000__a0.mp4"
    path.parent.mkdir(parents=True)
    write_orbit(path, pixels, list(clip.cameras), 8.0, {}, grey)
    path.with_suffix(".json").write_text(json.dumps({"seconds": 2.0}))
    result = called(*asks, "--no-learned")
    assert result.exit_code == 0, repr(result.exception)
    row = json.loads((tmp_path / "out" / "rows.jsonl").read_text())
    assert row["values"]["PSNR"] > 50 and row["values"]["SSIM"] > 0.999
    assert row["values"]["motion"] == pytest.approx(row["extra"]["motion_of_truth"], rel=0.01)
    # The same frames named as a video are put on the same background.
    orbit = path.with_suffix("")
    for number, made in enumerate((orbit / "frames", path)):
        out = tmp_path / f"video{number}"
        words = ["video", made, "--truth", f"{synthetic_dataset}:asset-000", "--no-learned", "--out", out]
        result = called(*words)
        assert result.exit_code == 0, repr(result.exception)
        assert json.loads((out / "rows.jsonl").read_text())["values"]["PSNR"] > 25


def test_measuring_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    option: Any = None
    assert cli._device(option, option, "cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli._device(option, option, None) == "cpu" and "measuring on cpu" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H1")
    assert cli._device(option, option, None) == "cuda" and "cuda (H1)" in capsys.readouterr().err
    # Workers, which see the GPUs that Ray gives them and no other, share those of one machine.
    shared = {"workers": 3, "address": None, "shared_paths": False}
    for gpus, each in ((1, 1 / 3), (2, 1 / 2), (4, 1)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        spread = cli._spread(shared, "cuda")
        assert spread is not None and spread.gpus_per_worker == each
    spread = cli._spread({**shared, "address": "auto"}, "cuda")
    assert spread is not None and spread.gpus_per_worker == 1
    assert cli._spread(shared, "cpu").gpus_per_worker == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_every_listed_uid_is_measured_or_named(
    synthetic_dataset: Path, tmp_path: Path, mark: str, encoding: str
) -> None:
    """The first uid is none the less one for a byte-order mark, and what is not there is said."""
    lines = ["asset-003", "yeti", "# none", "asset-001", "asset-003", "kraken  # neither"]
    (tmp_path / "ids.txt").write_text(mark + "\n".join(lines), encoding=encoding)
    result = called("dataset", synthetic_dataset, "--ids", tmp_path / "ids.txt", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "6 clips, 2 left out" in result.output
    assert "yeti: left out" in result.output and "kraken: left out" in result.output
    failed = json.loads((tmp_path / "out" / "results.json").read_text())["failed"]
    assert sorted(failed) == ["kraken", "yeti"]


def test_a_list_of_nothing_that_is_there_is_refused(synthetic_dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("yeti\n")
    words = ["dataset", synthetic_dataset, "--ids", tmp_path / "ids.txt", "--out", tmp_path / "out"]
    result = called(*words)
    assert isinstance(result.exception, InputError) and "no clip in the listed uids" in str(result.exception)
    (tmp_path / "ids.txt").write_text("# nothing\n")
    assert "no entries" in str(called(*words).exception)
    result = called("dataset", synthetic_dataset, "--split", "holdout", "--out", tmp_path / "out")
    assert "no clip in the split 'holdout'" in str(result.exception)
