"""Many clips: bounded memory, the same results from one process and from many, nothing lost to a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import weakref
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.evaluate.cli import command
from orbit4d.evaluate.metrics.suite import Pair, Suite
from orbit4d.evaluate.results.rows import Results
from orbit4d.evaluate.runner import SuiteSpec, measure_cases, measure_job
from orbit4d.evaluate.tasks.cases import Case
from orbit4d.render.fleet.driver import Job

EVAL = (
    "import sys; from orbit4d.datasets.commands.command import leave, run; "
    "from orbit4d.evaluate.cli import command; "
    "leave(run(command))"
)


def drawn(number: int, frames: int = 6, size: int = 16) -> Pair:
    """A clip and its truth, made of its number alone."""
    generator = torch.Generator().manual_seed(number)
    truth = torch.rand(frames, 3, size, size, generator=generator)
    made = (truth + 0.1 * torch.randn(truth.shape, generator=generator)).clamp(0, 1)
    return Pair(f"clip-{number}", "dynamic_orbit", made, truth)


@pytest.mark.slow
def test_three_hundred_clips_never_hold_more_than_two_in_memory(tmp_path: Path) -> None:
    """Frames are counted where they are made and where they are freed."""
    alive, most, loaded = 0, 0, 0

    def freed() -> None:
        nonlocal alive
        alive -= 6

    def load(number: int) -> Pair:
        nonlocal alive, most, loaded
        pair = drawn(number)
        for video in (pair.rgb, pair.truth):
            alive += 6
            weakref.finalize(video, freed)
        most, loaded = max(most, alive), loaded + 1
        return pair

    cases = [Case(f"clip-{i}", partial(load, i)) for i in range(300)]
    results = Results(tmp_path / "out", {"task": "video"})
    measure_cases(cases, Suite(learned=False), results, SuiteSpec(learned=False), shown=0)
    # 12 frames a pair: the one that is measured, and the one before it that is just being let go.
    assert loaded == len(results) == 300 and most <= 24
    assert [row.name for row in results] == [f"clip-{i}" for i in range(300)]
    # What is there is not loaded again.
    again = Results(tmp_path / "out", {"task": "video"})
    measure_cases(cases, Suite(learned=False), again, SuiteSpec(learned=False), shown=0)
    assert loaded == 300 and again.summary() == results.summary()


def test_a_clip_that_cannot_be_measured_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    def short(number: int) -> Pair:
        pair = drawn(number)
        pair.truth = pair.truth[:3] if number == 1 else pair.truth
        return pair

    cases = [Case(f"clip-{i}", partial(short, i)) for i in range(3)]
    results = Results(tmp_path / "out", {"task": "video"})
    measure_cases(cases, Suite(learned=False), results, SuiteSpec())
    assert [row.name for row in results] == ["clip-0", "clip-2"]
    assert "6 frames of 16x16 against a truth of 3 frames" in results.failures["clip-1"]
    record = results.finish({}, {})
    assert record["clips"] == 2 and list(record["failed"]) == ["clip-1"]
    with pytest.raises(InputError, match="against a truth of 3 frames"):
        measure_cases(cases[1:2], Suite(learned=False), Results(tmp_path / "b", {}), SuiteSpec())


def start(*words: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", EVAL, *words],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        timeout=300,
        cwd=cwd,
        check=False,
    )


def measured(out: Path) -> dict[str, dict[str, float]]:
    record = json.loads((out / "results.json").read_text())
    return {row["name"]: row["values"] for row in record["rows"]} | record["summary"]


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_and_ends_the_same(
    synthetic_dataset: Path, micro_run: Path, tmp_path: Path
) -> None:
    """SIGKILL before the second row is kept: what was generated and measured is not made again."""
    words = ["run", str(micro_run), "--dataset", str(synthetic_dataset), "--split", "all", "--no-learned"]
    words += ["--steps", "2", "--ids", str(tmp_path / "ids.txt")]
    (tmp_path / "ids.txt").write_text("asset-000\nasset-002\n")
    out = tmp_path / "killed"
    died = start(*words, "--out", str(out), ORBIT4D_CRASH_AT="eval_before_row:2")
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert not (out / "results.json").exists() and len((out / "rows.jsonl").read_text().splitlines()) == 1
    made = {path: path.stat().st_mtime_ns for path in (out / "generated").glob("*.mp4")}
    assert len(made) == 2
    result = CliRunner().invoke(command, [*words, "--out", str(out)])
    assert result.exit_code == 0, result.output + repr(result.exception)
    assert all(path.stat().st_mtime_ns == when for path, when in made.items())
    result = CliRunner().invoke(command, [*words, "--out", str(tmp_path / "whole")])
    assert result.exit_code == 0, result.output + repr(result.exception)
    killed, whole = measured(out), measured(tmp_path / "whole")
    for values in (killed, whole):
        assert values["dynamic_orbit"].pop("seconds") > 0
    assert killed == whole and len(killed) == 3 + 1  # asset-002 has two actions
    assert killed["asset-000:Run"]["PSNR"] > 3 and "motion" in killed["asset-000:Run"]
    other = CliRunner().invoke(command, [*words, "--seed", "1", "--out", str(out)])
    assert isinstance(other.exception, InputError) and "another seed" in str(other.exception)


@pytest.mark.slow
@pytest.mark.parametrize("grain", [0.0, 0.1])
def test_an_orbit_becomes_a_scene_whose_front_is_measured(
    synthetic_dataset: Path, micro_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grain: float
) -> None:
    """The truth's own orbit takes the place of the generated one, so that there is an object to fit.

    `grain` is that of a model which has learnt little, sigma before values are clipped.
    """
    from dataclasses import replace

    from orbit4d.datasets.images.measures import composite
    from orbit4d.datasets.index.reader import read_clip
    from orbit4d.model.sampling.generate import write_orbit
    from orbit4d.recon4d.fitting import settings

    few = replace(settings.PRESETS["fast"], n_gaussians=500, coarse_steps=60, fine_steps=60)
    monkeypatch.setitem(settings.PRESETS, "fast", few)
    clip, out = read_clip(synthetic_dataset, "asset-000"), tmp_path / "out"
    path = out / "generated" / "asset-000__a0.mp4"
    path.parent.mkdir(parents=True)
    pixels = composite(clip.pixels())
    pixels = pixels + grain * np.random.default_rng(0).normal(size=pixels.shape)
    pixels = np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)
    write_orbit(path, pixels, list(clip.cameras), 8.0, {}, (255, 255, 255))
    path.with_suffix(".json").write_text(json.dumps({"seconds": 2.0}))
    (tmp_path / "ids.txt").write_text("asset-000\n")
    words = ["run", str(micro_run), "--dataset", str(synthetic_dataset), "--ids", str(tmp_path / "ids.txt")]
    words += ["--no-learned", "--reconstruct", "fast", "--out", str(out)]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output + repr(result.exception)
    rows = measured(out)
    assert rows["asset-000:Run/front"]["PSNR"] > 12
    assert rows["dynamic_orbit"]["seconds"] == 2 and rows["front_view"]["seconds"] > 2
    assert (out / "generated" / "asset-000__a0.scene" / "canonical.ply").is_file()


@pytest.mark.slow
def test_a_scene_is_shown_below_its_orbit_and_made_after_all_orbits(
    synthetic_dataset: Path, micro_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers would wait for one another if a scene's turn came beside its orbit's."""
    from orbit4d.evaluate.tasks import generated, reconstructed

    turns: list[str] = []

    def told(name: str, *_: object) -> Pair:
        turns.append(name)
        pair = drawn(len(turns))
        pair.name = name
        return pair

    monkeypatch.setattr(generated, "_pair", told)
    monkeypatch.setattr(reconstructed, "_pair", told)
    words = ["run", str(micro_run), "--dataset", str(synthetic_dataset), "--split", "all", "--no-learned"]
    result = CliRunner().invoke(command, [*words, "--reconstruct", "fast", "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output + repr(result.exception)
    orbits = [name for name in turns if not name.endswith("/front")]
    fronts = [f"{name}/front" for name in orbits]
    assert turns == orbits + fronts and len(orbits) == 8
    rows = [row["name"] for row in json.loads((tmp_path / "out" / "results.json").read_text())["rows"]]
    assert rows == [name for pair in zip(orbits, fronts) for name in pair]
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.index("<h3>asset-000:Run/front</h3>") < page.index("<h3>asset-001:Run</h3>")


def test_a_worker_that_would_measure_less_than_the_driver_is_refused(tmp_path: Path) -> None:
    """A machine without the weights: its rows would be missing from the means without a word."""
    case = Case("clip-0", partial(drawn, 0))
    spec = SuiteSpec(learned=False)
    payload = {"case": case, "spec": spec, "weights": {}, "show": False, "threads": 1}
    assert "row" in measure_job(Job("0", "", payload), {})
    payload["weights"] = {"LPIPS-alex": "1234"}
    with pytest.raises(
        WorkError, match=r"would not measure LPIPS-alex as the others do.*left out with"
    ) as one:
        measure_job(Job("0", "", payload), {})
    assert "\n" not in str(one.value)


@pytest.mark.ray
def test_ray_workers_measure_what_one_process_does(
    synthetic_dataset: Path, tmp_path: Path, moving: torch.Tensor, write
) -> None:
    from orbit4d.datasets.index.reader import read_clip
    from orbit4d.datasets.videos.video import write_video
    from orbit4d.evaluate.results.page import to_uint8
    from orbit4d.evaluate.tasks.frames import clip_frames

    videos = tmp_path / "videos"
    videos.mkdir()
    for uid in ("asset-000", "asset-001", "asset-003"):
        video = clip_frames(read_clip(synthetic_dataset, uid)).rgb.roll(1, dims=-1)
        write_video(videos / f"{uid}.mp4", to_uint8(video), 8.0)
    write_video(videos / "asset-002__a1.mp4", to_uint8(moving[:8, :, :32, :32]), 8.0)
    write_video(videos / "stranger.mp4", to_uint8(moving), 8.0)
    words = ["video", str(videos), "--truth", str(synthetic_dataset), "--no-learned"]
    here = CliRunner().invoke(command, [*words, "--out", str(tmp_path / "one")])
    assert here.exit_code == 0, here.output + repr(here.exception)
    # Relative paths: workers stand in another folder.
    near = ["video", "videos", "--truth", os.path.relpath(synthetic_dataset, tmp_path), "--no-learned"]
    spread = start(*near, "--out", "two", "--workers", "2", cwd=tmp_path)
    assert spread.returncode == 0, spread.stderr
    one, two = measured(tmp_path / "one"), measured(tmp_path / "two")
    assert list(one) == list(two) and len(one) == 4 + 1
    for name, values in one.items():
        # Sums of float32 in another number of threads.
        assert two[name] == pytest.approx(values, rel=1e-5), name
    for out in (tmp_path / "one", tmp_path / "two"):
        record = json.loads((out / "results.json").read_text())
        assert list(record["failed"]) == ["stranger.mp4"]
        assert len(list((out / "videos").glob("*.mp4"))) == 8
    assert "stranger.mp4: left out" in here.output and "4 clips, 1 left out" in spread.stdout
