"""Tasks end to end: a truth against itself is perfect, worse clips are worse in the expected order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from orbit4d.datasets.errors import InputError
from orbit4d.evaluate.cli import command
from orbit4d.evaluate.results import Results, latex, markdown
from orbit4d.evaluate.suite import Pair, Row, Suite, summarise


@pytest.fixture
def moving() -> torch.Tensor:
    """A soft disc that walks through the picture, [12, 3, 48, 48]."""
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    frames = [torch.sigmoid(9 - ((x - 10 - 2.4 * i) ** 2 + (y - 24) ** 2).sqrt()) for i in range(12)]
    disc = torch.stack(frames).unsqueeze(1)
    return 1 - disc * torch.tensor([0.2, 0.6, 0.9]).view(1, 3, 1, 1)


def write(folder: Path, video: torch.Tensor) -> str:
    folder.mkdir()
    for i, frame in enumerate((video * 255).round().byte().permute(0, 2, 3, 1).numpy()):
        Image.fromarray(frame).save(folder / f"{i:03d}.png")
    return str(folder)


def run_video(tmp_path: Path, made: str, truth: str, name: str) -> dict[str, float]:
    out = tmp_path / name
    result = CliRunner().invoke(command, ["video", made, "--truth", truth, "--no-learned", "--out", str(out)])
    assert result.exit_code == 0, result.output + repr(result.exception)
    record = json.loads((out / "results.json").read_text())
    assert "not measured" in result.output and "LPIPS-alex" in record["not_measured"]
    assert (out / "table.md").read_text().count("|") > 5 and "tabular" in (out / "table.tex").read_text()
    return record["summary"]


def test_truth_shuffled_and_frozen_come_out_in_order(tmp_path: Path, moving: torch.Tensor) -> None:
    truth = write(tmp_path / "truth", moving)
    jittered = moving.roll(1, dims=-1)
    perfect = run_video(tmp_path, truth, truth, "self")
    near = run_video(tmp_path, write(tmp_path / "near", jittered), truth, "near")
    order = torch.from_numpy(np.random.default_rng(0).permutation(12))
    shuffled = run_video(tmp_path, write(tmp_path / "shuffled", moving[order]), truth, "shuffle")
    frozen = run_video(tmp_path, write(tmp_path / "frozen", moving[:1].expand_as(moving)), truth, "freeze")
    assert (
        perfect["SSIM"] == pytest.approx(1) and perfect["PSNR"] == pytest.approx(100) and perfect["IoU"] == 1
    )
    assert perfect["PSNR"] > near["PSNR"] > max(shuffled["PSNR"], frozen["PSNR"])
    assert perfect["SSIM"] > near["SSIM"] > max(shuffled["SSIM"], frozen["SSIM"])
    assert shuffled["flicker"] > 3 * perfect["flicker"] and frozen["flicker"] < 1e-6


def test_clips_that_do_not_fit_are_refused_in_one_line(tmp_path: Path, moving: torch.Tensor) -> None:
    suite = Suite(learned=False)
    with pytest.raises(InputError, match="12 frames of 48x48"):
        suite.measure(Pair("a", "dynamic_orbit", moving, moving[:5]))
    for source in (str(tmp_path / "nothing.mp4"), str(tmp_path)):
        result = CliRunner().invoke(
            command, ["video", source, "--truth", source, "--out", str(tmp_path / "o"), "--no-learned"]
        )
        assert isinstance(result.exception, InputError)
        assert not (tmp_path / "o").exists()


def test_measures_do_not_depend_on_the_batch(moving: torch.Tensor) -> None:
    noisy = (moving + 0.05 * torch.randn(moving.shape, generator=torch.Generator().manual_seed(0))).clamp(
        0, 1
    )
    rows = [
        Suite(learned=False, batch=b).measure(Pair("a", "dynamic_orbit", noisy, moving)) for b in (1, 5, 12)
    ]
    for row in rows[1:]:
        assert row.values == pytest.approx(rows[0].values, rel=1e-5)


def test_an_interrupted_evaluation_goes_on(tmp_path: Path) -> None:
    settings = {"task": "video", "truth": "x"}
    first = Results(tmp_path / "out", settings)
    first.add(Row("a", "dynamic_orbit", {"PSNR": 20.0}, {}))
    first.add(Row("b", "dynamic_orbit", {"PSNR": 30.0}, {}))
    rows = tmp_path / "out" / "rows.jsonl"
    rows.write_text(rows.read_text()[:-9])  # the kill came in the middle of the last line
    again = Results(tmp_path / "out", settings)
    assert list(again.rows) == ["a"]
    again.add(Row("b", "dynamic_orbit", {"PSNR": 30.0}, {}))
    assert Results(tmp_path / "out", settings).summary()["PSNR"] == 25.0
    with pytest.raises(InputError, match="another truth"):
        Results(tmp_path / "out", {"task": "video", "truth": "y"})


def test_fvd_of_sets_needs_two_and_is_zero_for_equal_ones() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(5, 8)).tolist()
    rows = [Row(str(i), "dynamic_orbit", {}, {}, (f, f)) for i, f in enumerate(features)]
    assert summarise(rows)["FVD-Diag"] == pytest.approx(0, abs=1e-6)
    assert "FVD-Diag" not in summarise(rows[:1])
    moved = [
        Row(str(i), "front_view", {}, {}, ((np.array(f) + 1).tolist(), f)) for i, f in enumerate(features)
    ]
    assert summarise(moved)["FVD-F"] == pytest.approx(8, rel=1e-6)


def test_published_rows_stand_beside_ours_only_under_their_protocol() -> None:
    summary = {"PSNR": 21.0, "SSIM": 0.9}
    assert "STAG4D" not in markdown(summary, {})
    table = markdown(summary, {"CLIP": "no weights"}, "diffusion4d-image")
    assert "STAG4D" in table and "675.4" in table and "CLIP: not measured: no weights" in table
    assert r"\uparrow" in latex(summary, "diffusion4d-image") and "SV4D" not in table


def test_quality_of_a_dataset(synthetic_dataset, tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["dataset", str(synthetic_dataset), "--out", str(tmp_path / "q")])
    assert result.exit_code == 0, result.output + repr(result.exception)
    record = json.loads((tmp_path / "q" / "results.json").read_text())
    assert record["summary"]["blank"] == 0 and 0 < record["summary"]["coverage"] < 1
    assert len(record["dataset_digest"]) == 64 and record["clips"] > 3
