"""`orbit4d render` as a whole: every input accounted for, and the same dataset whatever is killed on the
way.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orbit4d.datasets.core.errors import WorkError
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.index.reader import read_clip
from orbit4d.datasets.store import parts
from orbit4d.datasets.store.clip import RIGS
from orbit4d.datasets.store.digest import dataset_digest
from orbit4d.datasets.store.rejections import Rejection
from orbit4d.datasets.store.rejections import read as read_rejections
from orbit4d.render.fleet.child import BlenderChild, TaskRefused
from orbit4d.render.fleet.driver import FleetSettings, Outcome
from orbit4d.render.planning.settings import preset

pytestmark = [pytest.mark.blender, pytest.mark.ray]

POISON = "toy_poison"
TOYS = ("toy_a", "toy_b", "toy_c", "toy_d")
SMALL = ["--preset", "draft", "--frames", "3", "--resolution", "16", "--samples", "2", "--shard-size", "1K"]
RUN = (
    "import sys; from orbit4d.datasets.commands.command import leave, run; "
    "from orbit4d.render.cli import command; "
    "leave(run(command))"
)


def start(arguments: list[str], **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", RUN, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "ORBIT4D_POISON_UID": POISON, **env},
        start_new_session=True,
    )


def render(source: Path, out: Path, *more: str, **env: str) -> tuple[int, str, str]:
    process = start([str(source), "--out", str(out), *SMALL, *more], **env)
    output, errors = process.communicate(timeout=300)
    return process.returncode, output, errors


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, toy: Callable[..., Path], gltf: Any, part: Any) -> Path:
    """Four toys, one that aborts Blender, one that is still, one cut short, and a copy of the first."""
    folder = tmp_path_factory.mktemp("source")
    for seed, name in enumerate((*TOYS, POISON)):
        toy(folder / f"{name}.glb", seed)
    gltf(folder / "still.glb", [part()])
    data = (folder / "toy_a.glb").read_bytes()
    (folder / "cut.glb").write_bytes(data[: len(data) // 2])
    shutil.copy(folder / "toy_b.glb", folder / "zz_copy.glb")
    return folder


@dataclass
class Calm:
    """What a run in which nothing is killed gives."""

    out: Path
    digest: str
    output: str


@pytest.fixture(scope="module")
def calm(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Calm:
    out = tmp_path_factory.mktemp("calm") / "dataset"
    # Named from where the command runs, which is not where workers do.
    code, output, errors = render(Path(os.path.relpath(source)), out, "--workers", "1")
    assert code == 0, errors
    return Calm(out, dataset_digest(Store(out)), output)


def rejections(out: Path) -> dict[tuple[str, str], Rejection]:
    return {(row.uid, row.action): row for row in read_rejections(Store(out))}


LINE = "input 8 = done 4 + rejected 2 + quarantined 1 + duplicate 1"


def test_every_input_is_accounted_for(calm: Calm) -> None:
    assert calm.output.splitlines()[-1] == LINE
    found = rejections(calm.out)
    assert found["cut", ""].reason == "bad_file:truncated"
    assert found["still", ""].reason == "still" and found["still", ""].attempts == 1
    assert "--rigs static_orbit" in found["still", ""].detail
    assert "still: 1 (--rigs static_orbit" in calm.output
    poison = found[POISON, ""]
    assert (poison.reason, poison.attempts) == ("quarantined:crash", 2) and "SIGABRT" in poison.detail
    # An action that does not move is reported, and the asset's others are rendered.
    assert all(found[toy, "Rest"].reason == "still" for toy in TOYS)
    assert len(found) == 3 + len(TOYS)
    assert list((calm.out / "staging").iterdir()) == []


def test_clips_carry_what_they_were_made_with(calm: Calm) -> None:
    for rig in RIGS:
        clip = read_clip(str(calm.out), "toy_c", "Go", rig, 0)
        assert len(clip.frames) == 3 and clip.pixels().shape == (3, 16, 16, 4)
        assert clip.action_index == 1 and clip.window == pytest.approx((0.25, 1.0), abs=1.01 / 24)
        assert clip.renderer["preset"] == "draft" and clip.renderer["samples"] == 2
        assert clip.measures["coverage"] > 0 and clip.measures["boundary_touch"] == 0.0
        assert clip.measures["motion_geometry"] > 0.01
    assert read_clip(str(calm.out), "toy_c", "Go", "dynamic_orbit", 0).measures["motion_magnitude"] > 0


def test_finished_work_is_not_done_again(calm: Calm, source: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in calm.out.rglob("*") if path.is_file()}
    code, output, errors = render(source, calm.out)
    assert code == 0, errors
    assert output.splitlines()[-1] == LINE and "0 assets, 0 clips, 0 images" in output
    assert {path: path.stat().st_mtime_ns for path in calm.out.rglob("*") if path.is_file()} == before


def test_what_was_refused_is_refused_for_its_contents_alone(toy: Callable[..., Path], tmp_path: Path) -> None:
    """A file cut short, then whole; an action that a table names and the file does not have."""
    (tmp_path / "in").mkdir()
    toy(tmp_path / "in" / "late.glb", 5)
    out, whole = tmp_path / "dataset", (tmp_path / "in" / "late.glb").read_bytes()
    for share, line in ((3, "done 0 + rejected 1"), (2, "done 0 + rejected 1"), (1, "done 1 + rejected 0")):
        (tmp_path / "in" / "late.glb").write_bytes(whole[: len(whole) // share])
        code, output, errors = render(tmp_path / "in", out, "--workers", "1")
        assert line in output.splitlines()[-1], errors
    (tmp_path / "some.csv").write_text(
        "uid,path,action,action_index\n07,in/late.glb,Go,1\n07,in/late.glb,No,9\n"
    )
    code, output, errors = render(tmp_path / "some.csv", tmp_path / "other", "--workers", "1")
    assert code == 0, errors
    assert rejections(tmp_path / "other")["07", "#9"].reason == "no_such_action"
    assert read_clip(str(tmp_path / "other"), "07", "Go", "dynamic_orbit", 0).action_index == 1


def test_a_refusal_holds_for_the_contents_it_was_about() -> None:
    from orbit4d.datasets.sources.asset import Asset
    from orbit4d.render.dataset.render_assets import _is_refused, _of_contents

    asset = Asset("u", "u.glb", "ab" * 32, "glb", 1)
    for reason in ("bad_file:truncated", "quarantined:crash", "no_such_thing"):
        row = Rejection("u", "", "render", reason, _of_contents("why", asset.sha256))
        assert _is_refused(row, asset) and not _is_refused(row, Asset("u", "u.glb", "cd" * 32, "glb", 1))
        assert _is_refused(Rejection("u", "", "render", reason, "an older row"), asset)
    for reason in ("bad_file:missing", "bad_file:unreadable", "bad_file:changed", "download_failed"):
        assert not _is_refused(Rejection("u", "", "render", reason), asset)
    assert not _is_refused(Rejection("u", "Run", "render", "still"), asset) and not _is_refused(None, asset)


def test_another_configuration_is_refused_in_one_line(calm: Calm, source: Path) -> None:
    code, _, errors = render(source, calm.out, "--frames", "4")
    assert code == 2 and errors.count("\n") == 1 and "frames" in errors
    code, _, errors = render(source, calm.out, "--no-resume")
    assert code == 2 and "not empty" in errors


def test_another_file_under_a_stored_uid_is_refused(
    calm: Calm, tmp_path: Path, toy: Callable[..., Path]
) -> None:
    toy(tmp_path / "toy_a.glb", 99)
    code, _, errors = render(tmp_path, calm.out)
    assert code == 2 and "toy_a" in errors and "other contents" in errors


def test_children_and_actors_killed_at_named_points_change_nothing(
    calm: Calm, source: Path, tmp_path: Path, no_orphans: Any
) -> None:
    """SIGKILL after import and in mid-frame (the child), before and after the commit of an asset (the actor).

    Meanwhile a reader opens the dataset again and again: what the index names can always be read.
    """
    marks = tmp_path / "marks"
    marks.mkdir()
    points = ["render_after_import", "render_mid_frame", "stage_after_tar", "stage_done"]
    out = tmp_path / "dataset"
    process = start(
        # Both kills of children may hit the same asset.
        [str(source), "--out", str(out), *SMALL, "--workers", "2", "--attempts", "3"],
        ORBIT4D_CRASH_AT=",".join(points),
        ORBIT4D_CRASH_ONCE=str(marks),
    )
    most = 0
    while process.poll() is None:
        most = max(most, read_everything(out))
        time.sleep(0.1)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert {path.name for path in marks.iterdir()} == set(points)
    assert output.splitlines()[-1] == LINE
    assert dataset_digest(Store(out)) == calm.digest
    preemptions = re.search(r"(\d+) preemptions", output)
    assert preemptions is not None and int(preemptions.group(1)) == 2
    assert read_everything(out) == 24


def test_kills_on_an_object_store_change_nothing(
    calm: Calm, source: Path, bucket: str, tmp_path: Path, no_orphans: Any
) -> None:
    """The same kills where assets and dataset are in a bucket, and the driver's within a commit as well."""
    for file in source.iterdir():
        Store(f"{bucket}/assets").put(file.name, file.read_bytes())
    marks = tmp_path / "marks"
    marks.mkdir()
    points = ["render_after_import", "render_mid_frame", "stage_after_tar", "stage_done", "roll_after_shard"]
    points.append("roll_after_index")
    out = f"{bucket}/killed"
    arguments = [f"{bucket}/assets", "--out", out, *SMALL, "--workers", "2", "--attempts", "3"]
    codes = []
    while len(codes) < 3:
        process = start(arguments, ORBIT4D_CRASH_AT=",".join(points), ORBIT4D_CRASH_ONCE=str(marks))
        output, errors = process.communicate(timeout=300)
        codes.append(process.returncode)
        deadline = time.monotonic() + 60
        while no_orphans() and time.monotonic() < deadline:
            time.sleep(0.1)
    assert codes == [-signal.SIGKILL, -signal.SIGKILL, 0], errors
    assert {path.name for path in marks.iterdir()} == set(points)
    assert output.splitlines()[-1] == LINE
    store = Store(out)
    assert dataset_digest(store) == calm.digest
    left = [name for name in store.tree() if name.startswith(("staging/", ".lease", ".tmp"))]
    assert not left


def read_everything(out: Path) -> int:
    """Read every clip that the index names; any half-written shard would raise."""
    store = Store(out)
    count = 0
    for name in parts.live_parts(store)[0]:
        try:
            rows = parts.read_part(store, name, ["uid", "action", "rig", "orbit"]).to_pylist()
        except (FileNotFoundError, WorkError):
            if not (out / name).exists():
                continue  # merged into a larger part since it was listed
            raise
        for row in rows:
            clip = read_clip(str(out), row["uid"], row["action"], row["rig"], row["orbit"])
            assert len(clip.pixels()) == 3
            count += 1
    return count


def wait_for_staged(out: Path, process: subprocess.Popen[str], n: int) -> None:
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline and process.poll() is None:
        staged = list((out / "staging").glob("*.parquet")) if out.exists() else []
        if len(staged) >= n:
            return
        time.sleep(0.02)
    raise AssertionError(f"{n} staged assets were not seen; the run ended with {process.poll()}")


def test_an_interrupted_and_a_killed_driver_are_gone_on_with(
    calm: Calm, source: Path, tmp_path: Path, no_orphans: Any
) -> None:
    out = tmp_path / "dataset"
    # A large shard size keeps finished assets in staging, where they can be counted.
    arguments = [
        str(source),
        "--out",
        str(out),
        *SMALL,
        "--shard-size",
        "1G",
        "--workers",
        "1",
        "--order",
        "given",
    ]
    process = start(arguments)
    wait_for_staged(out, process, 1)
    # As a terminal does it: to the whole group, Ray's own processes included.
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in errors.splitlines()[-1]

    process = start(arguments)
    wait_for_staged(out, process, 2)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while no_orphans() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not no_orphans(), "a Blender outlived its driver"

    process = start(arguments, ORBIT4D_CRASH_AT="roll_after_shard")
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    process = start(arguments, ORBIT4D_CRASH_AT="roll_after_index")
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    process = start(arguments)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert output.splitlines()[-1] == LINE
    assert dataset_digest(Store(out)) == calm.digest


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["/nowhere/at/all"], "no such file"),
        (["EMPTY"], "empty"),
        (["SOURCE", "--rigs", "sideways"], "sideways"),
        (["SOURCE", "--workers", "0"], "workers"),
        (["SOURCE", "--max-rss", "much"], "size"),
    ],
)
def test_bad_use_ends_in_one_line_and_leaves_nothing(
    tmp_path: Path, source: Path, arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from orbit4d.datasets.commands.command import run
    from orbit4d.render.cli import command

    (tmp_path / "empty").mkdir()
    names = {"EMPTY": str(tmp_path / "empty"), "SOURCE": str(source)}
    out = tmp_path / "out"
    code = run(command, [*(names.get(a, a) for a in arguments), "--out", str(out)])
    text = capsys.readouterr().err
    assert code == 2 and word in text and text.count("\n") == 1, text
    assert not out.exists()


def test_a_device_that_is_not_there_stops_the_run_and_leaves_no_dataset(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no asset would escape is no asset's fault: none is rejected for it."""
    module = importlib.import_module("orbit4d.render.dataset.render_assets")

    def one_worker_answers(jobs: Any, settings: Any, on_outcome: Any) -> None:
        with BlenderChild() as child, pytest.raises(TaskRefused) as refused:
            child.call("render_clips", {**jobs[0].payload, "scratch": str(tmp_path)}, 60)
        why = refused.value
        on_outcome(Outcome(jobs[0], "failed", None, why.reason, why.detail, 1, refused=not why.retry))

    monkeypatch.setattr(module, "run_fleet", one_worker_answers)
    settings = preset("draft", device="hip")
    with pytest.raises(WorkError, match=r"hip.*--device cpu"):
        module.render_assets(
            [str(source / "toy_a.glb")], str(tmp_path / "out"), settings, FleetSettings(), quiet=True
        )
    assert not (tmp_path / "out" / "dataset.json").exists()
