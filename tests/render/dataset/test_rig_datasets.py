"""The promises of a run hold for rigs of many cameras, for lights and for drawn cameras."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.index.reader import read_clip
from orbit4d.datasets.operations.verify import verify
from orbit4d.datasets.store.digest import dataset_digest
from orbit4d.render.planning.asked import fields_of
from orbit4d.render.planning.settings import RenderSettings, preset

pytestmark = [pytest.mark.blender, pytest.mark.ray]

RUN = (
    "import sys; from orbit4d.datasets.commands.command import leave, run; "
    "from orbit4d.render.cli import command; "
    "leave(run(command))"
)
ARGUMENTS = (
    *("--preset", "draft", "--frames", "2", "--resolution", "16", "--samples", "1"),
    *("--shard-size", "1G", "--order", "given", "--lights", "2"),
    *("--rigs", "hemi36_4m_15,sync_moving:2,front_view"),
    *("--elevation", "uniform:-10:40", "--roll", "uniform:-5:5"),
)


def as_settings() -> RenderSettings:
    options = {"n_lights": 2, "elevation": "uniform:-10:40", "roll": "uniform:-5:5"}
    rigs = ("hemi36_4m_15", "sync_moving:2", "front_view")
    return preset(
        "draft", **fields_of({**options, "frames": 2, "resolution": 16, "samples": 1, "rigs": rigs})
    )


def start(source: Path, out: Path, *more: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", RUN, str(source), "--out", str(out), *ARGUMENTS, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, toy: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for seed in range(2):
        toy(folder / f"toy_{seed}.glb", seed)
    return folder


@pytest.fixture(scope="module")
def calm(source: Path, tmp_path_factory: pytest.TempPathFactory, calm_digest: Callable[..., str]) -> str:
    """Digest of a run in which nothing is killed, by one worker without Ray."""
    return calm_digest(source, tmp_path_factory.mktemp("calm") / "dataset", as_settings())


def test_kills_and_resumption_leave_the_digest_of_a_rig_of_36_cameras(
    source: Path, calm: str, tmp_path: Path, no_orphans: Any
) -> None:
    """SIGKILL of a child in mid-frame, of an actor before its commit, and of the driver between shard and
    index."""
    marks, out = tmp_path / "marks", tmp_path / "dataset"
    marks.mkdir()
    points = ["render_mid_frame", "stage_after_tar", "roll_after_shard"]
    process = start(
        source,
        out,
        *("--workers", "2", "--attempts", "3"),
        ORBIT4D_CRASH_AT=",".join(points),
        ORBIT4D_CRASH_ONCE=str(marks),
    )
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert {path.name for path in marks.iterdir()} == set(points)
    process = start(source, out, "--workers", "1")
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert output.splitlines()[-1].startswith("input 2 = done 2")
    assert dataset_digest(Store(out)) == calm

    assert verify(str(out)).findings == []
    index = Index(str(out))
    # Two assets of two actions, 36 + 2 cameras and a front view, under two lights.
    assert len(index) == 2 * 2 * (36 + 2 + 1) * 2
    clip = read_clip(index, "toy_1", "Jump", "hemi36_4m_15", 17, light=1)
    assert (clip.camera_label, clip.lens_mm, clip.azimuth0_deg, clip.radius) == ("cam18", 18.0, 0.0, 2.0)
    assert clip.lighting["kind"] == "suns" and clip.key == ("toy_1", 2, "hemi36_4m_15", 17, 1)
    front = read_clip(index, "toy_1", "Jump", "front_view", 0)
    assert front.lighting == {} and -10 <= front.elevation_deg <= 40 and front.camera_draw["roll_deg"]
