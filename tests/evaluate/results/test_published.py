"""Published rows: beside ours where the protocol is the same, and nowhere else."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orbit4d.evaluate.metrics.suite import Row
from orbit4d.evaluate.results.published import OBJAVERSE_DY
from orbit4d.evaluate.results.rows import Results
from orbit4d.evaluate.results.tables import beside_published, latex
from orbit4d.evaluate.tasks import cases as tasks
from orbit4d.recon4d import reconstruct

TWENTY = [f"asset-{i}" for i in range(20)]


def misfit(folder: Path, task: str, protocol: str, rows: list[Row]) -> str:
    """What keeps the published rows away; the tables are held against it."""
    results = Results(folder / str(len(list(folder.iterdir()))), {"task": task, "protocol": protocol})
    for row in rows:
        results.add(row)
    why = results.finish({}, {})["misfit"]
    for name in ("table.md", "table.tex"):
        assert ("arXiv" in (results.folder / name).read_text()) == (why == "")
    return why


def matrix(uid: str, views: int = 9, moments: int = 21, size: int = 576, **extra: Any) -> Row:
    values, extra = {"LPIPS-alex": 0.1}, {"grid": [views, moments], **extra}
    return Row(f"{uid}:Run/m", "matrix", values, {}, {}, extra, views * moments, (size, size))


def clip(uid: str, rig: str = "dynamic_orbit", frames: int = 24, size: int = 256, **extra: Any) -> Row:
    return Row(f"{uid}:Run", rig, {"PSNR": 20.0}, {}, {}, extra, frames, (size, size))


def test_sv4ds_rows_want_its_whole_matrix_of_its_size(tmp_path: Path) -> None:
    def told(*rows: Row) -> str:
        return misfit(tmp_path, "scene", "objaversedy-4d", list(rows))

    uids = sorted(OBJAVERSE_DY)
    assert told(*map(matrix, uids)) == ""
    small = [matrix(uid, 3, 4, 96) for uid in uids]
    assert "9 x 21 frames at 576 pixels, this one of 3 x 4 at 96" in told(*small)
    assert "this one of 21 x 9 at 576" in told(*(matrix(uid, 21, 9) for uid in uids))
    fronts = [clip(uid, "front_view", 21, 576) for uid in uids]
    assert "matrix rows, which 0 of 20 assets have" in told(*fronts)
    # The fronts of all do not make up for a matrix that could not be rendered.
    assert "matrix rows, which 19 of 20 assets have" in told(*fronts, *map(matrix, uids[1:]))
    assert "fitted to the ground truth" in told(*map(matrix, uids[1:]), matrix(uids[0], fitted_to_truth=True))
    bare = [matrix(uid) for uid in uids]
    for row in bare:
        row.values = {"PSNR": 20.0}
    assert "none of its metrics was measured" in told(*bare)


def test_videos_have_no_matrix_for_sv4ds_rows(tmp_path: Path) -> None:
    rows = [clip(uid, frames=21, size=576) for uid in sorted(OBJAVERSE_DY)]
    assert "matrix rows, which 0 of 20" in misfit(tmp_path, "video", "objaversedy-video", rows)


@pytest.mark.parametrize("task", ["scene", "video", "run static"])
def test_diffusion4ds_rows_want_orbits_generated_by_its_task(tmp_path: Path, task: str) -> None:
    """Fits of the ground truth's own orbits reach 28 dB; the published 16.8 dB is of generated ones."""
    rows = [clip(uid) for uid in TWENTY]
    assert misfit(tmp_path, "run image", "diffusion4d-image", rows) == ""
    assert "another task" in misfit(tmp_path, task, "diffusion4d-image", rows)
    for flaw, why in {"seen_in_training": "seen in training", "train_split": "training split"}.items():
        known = [*rows[1:], clip(TWENTY[0], **{flaw: True})]
        assert why in misfit(tmp_path, "run image", "diffusion4d-image", known)


def test_two_outputs_of_ours_are_two_rows() -> None:
    """The orbit as generated, and the front of the scene that was fitted to it."""
    summary = {"dynamic_orbit": {"PSNR": 21.0, "CLIP-O": 0.7}, "front_view": {"CLIP-F": 0.8, "PSNR": 25.0}}
    table = beside_published(summary, "diffusion4d-image")
    assert table is not None
    assert table[1][-2:] == [
        ["orbit4d, front", "0.800", "–", "–", "–", "–", "–"],
        ["orbit4d, orbit", "–", "0.700", "–", "21.00", "–", "–"],
    ]


def test_latex_names_the_protocol_and_what_differs() -> None:
    summary = {"dynamic_orbit": {"PSNR": 21.0}}
    text = latex(summary, "diffusion4d-image")
    assert text.startswith("% Protocol: Diffusion4D table 1") and "other assets" in text.splitlines()[0]
    assert "%" not in latex(summary)


def test_a_scene_knows_whether_it_was_fitted_to_the_truth(synthetic_dataset: Path, tmp_path: Path) -> None:
    from orbit4d.recon4d.fitting.settings import PRESETS

    few = replace(PRESETS["fast"], n_gaussians=100, coarse_steps=1, fine_steps=1)
    reconstruct(f"{synthetic_dataset}:asset-000", tmp_path / "fitted", settings=few)
    assert tasks.fitted_to_truth(str(tmp_path / "fitted"))
    shutil.copytree(tmp_path / "fitted", tmp_path / "other")
    told = json.loads((tmp_path / "fitted" / "scene.json").read_text())
    (tmp_path / "other" / "scene.json").write_text(json.dumps(told | {"source": "videos/uid.mp4"}))
    assert not tasks.fitted_to_truth(str(tmp_path / "other"))
