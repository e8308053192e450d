"""Tasks end to end: a truth against itself is perfect, worse clips are worse in the expected order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from orbit4d.datasets.core.errors import InputError
from orbit4d.evaluate.cli import command
from orbit4d.evaluate.metrics.suite import Pair, Row, Suite, summarise
from orbit4d.evaluate.results.rows import Results
from orbit4d.evaluate.results.tables import latex, markdown


def run_video(tmp_path: Path, made: str, truth: str, name: str) -> dict[str, float]:
    out = tmp_path / name
    result = CliRunner().invoke(command, ["video", made, "--truth", truth, "--no-learned", "--out", str(out)])
    assert result.exit_code == 0, result.output + repr(result.exception)
    record = json.loads((out / "results.json").read_text())
    assert "not measured" in result.output and "LPIPS-alex" in record["not_measured"]
    assert (out / "table.md").read_text().count("|") > 5 and "tabular" in (out / "table.tex").read_text()
    return record["summary"]["dynamic_orbit"]


@pytest.mark.slow
def test_truth_shuffled_and_frozen_come_out_in_order(tmp_path: Path, moving: torch.Tensor, write) -> None:
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
    assert [row.name for row in again] == ["a"] and "b" not in again
    again.add(Row("b", "dynamic_orbit", {"PSNR": 30.0}, {}))
    assert Results(tmp_path / "out", settings).summary()["dynamic_orbit"]["PSNR"] == 25.0
    with pytest.raises(InputError, match="another truth"):
        Results(tmp_path / "out", {"task": "video", "truth": "y"})


def test_fvd_of_sets_needs_two_and_is_zero_for_equal_ones() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(5, 8)).tolist()
    rows = [Row(str(i), "dynamic_orbit", {}, {}, {"FVD-Diag": [(f, f)]}) for i, f in enumerate(features)]
    assert summarise(rows)[0]["dynamic_orbit"]["FVD-Diag"] == pytest.approx(0, abs=1e-6)
    summary, lacking = summarise(rows[:1])
    assert "FVD-Diag" not in summary["dynamic_orbit"] and "two videos" in lacking["FVD-Diag (dynamic_orbit)"]
    moved = [
        Row(str(i), "front_view", {}, {}, {"FVD-F": [((np.array(f) + 1).tolist(), f)]})
        for i, f in enumerate(features)
    ]
    assert summarise(moved)[0]["front_view"]["FVD-F"] == pytest.approx(8, rel=1e-6)


class Mean(torch.nn.Module):
    """Stands in for I3D: the mean of each quarter of a video, so that the forms can be told apart."""

    min_frames = 3

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        return torch.stack([part.mean((1, 2, 3, 4)) for part in video.tensor_split(4, dim=1)], 1)


def test_a_matrix_has_the_four_forms_of_fvd(tmp_path: Path) -> None:
    suite = Suite(learned=False)
    suite.i3d = Mean()  # type: ignore[assignment]
    truth = torch.rand(5 * 4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    results = Results(tmp_path / "out", {"task": "scene"})
    for name, made in (("a", truth), ("b", truth)):
        pair = Pair(name, "matrix", made, truth, grid=(5, 4))
        row = suite.measure(pair)
        assert {form: len(videos) for form, videos in row.features.items()} == {
            "FVD-F": 5,  # of 4 moments each
            "FVD-V": 4,  # of 5 views each
            "FVD-Diag": 1,
            "FV4D": 1,
        }
        results.add(row)
    summary = results.summary()["matrix"]  # read back from disk
    for form in ("FVD-F", "FVD-V", "FVD-Diag", "FV4D"):
        assert summary[form] == pytest.approx(0, abs=1e-9)
    # Views in another order: as sets of frames over time the same, not so along the views.
    mixed = truth.unflatten(0, (5, 4))[[3, 0, 4, 1, 2]].flatten(0, 1)
    rows = [suite.measure(Pair("c", "matrix", mixed, truth, grid=(5, 4)))]
    summary = summarise(rows)[0]["matrix"]
    assert summary["FVD-F"] == pytest.approx(0, abs=1e-6) and summary["FVD-V"] > 1e-4
    # A side shorter than the network needs is no video.
    short = suite.measure(Pair("d", "matrix", truth[:8], truth[:8], grid=(2, 4)))
    assert "FVD-V" not in short.features and len(short.features["FVD-F"]) == 2
    # One FVD of each form: where the matrix is measured, the front view alone is left out.
    assert not suite.measure(Pair("e", "front_view", truth, truth, fvd=False)).features


def test_published_rows_stand_beside_ours_only_under_their_protocol(tmp_path: Path) -> None:
    summary = {"dynamic_orbit": {"PSNR": 21.0, "SSIM": 0.9, "LPIPS-alex": 0.2, "FVD-Diag": 500.0}}
    assert "STAG4D" not in markdown(summary, {})
    table = markdown(summary, {"CLIP": "no weights"}, "diffusion4d-image")
    assert "STAG4D" in table and "675.4" in table and "CLIP: not measured: no weights" in table
    assert "| orbit4d | – | – | 0.900 | 21.00 | 0.200 | 500.0 |" in table
    assert r"\uparrow" in latex(summary, "diffusion4d-image") and "SV4D" not in table

    def told(task: str, uids: list[str], frames: int = 24, size: int = 256, **more: str) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        settings = {"task": task, "protocol": "diffusion4d-image", **more}
        results = Results(folder, settings)
        for uid in uids:
            row = Row(f"{uid}:Run", "dynamic_orbit", {"PSNR": 20.0}, {}, frames=frames, size=(size, size))
            results.add(row)
        misfit = results.finish({}, {})["misfit"]
        assert ("STAG4D" in (folder / "table.md").read_text()) == (misfit == "")
        return misfit

    twenty = [f"asset-{i}" for i in range(20)]
    assert told("run image", twenty) == ""
    assert "another task" in told("run text", twenty)
    assert "20 assets, this one 3" in told("run image", twenty[:3])
    assert "24 frames at 256 pixels, this one of 8 at 32" in told("run image", twenty, 8, 32)
    assert "20 listed uids, of which 0" in told("scene", twenty, protocol="objaversedy-4d")
    assert "do not say which" in told("scene", twenty, protocol="consistent4d-4d")


def test_quality_of_a_dataset(synthetic_dataset, tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["dataset", str(synthetic_dataset), "--out", str(tmp_path / "q")])
    assert result.exit_code == 0, result.output + repr(result.exception)
    record = json.loads((tmp_path / "q" / "results.json").read_text())
    for measured in record["summary"].values():
        assert measured["blank"] == 0 and 0 < measured["coverage"] < 1
    assert set(record["summary"]) == {"static_orbit", "dynamic_orbit", "front_view"}
    assert len(record["dataset_digest"]) == 64 and record["clips"] > 3
