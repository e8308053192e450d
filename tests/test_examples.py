"""Each example runs as its first lines say, on small data."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    folder = tmp_path_factory.mktemp("examples")

    def start(name: str, *words: object) -> str:
        command = [sys.executable, str(EXAMPLES / name), *map(str, words)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return start


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, run: Callable[..., str], synthetic_dataset: Path) -> Path:
    folder = tmp_path_factory.mktemp("scene") / "scene"
    said = run("04_reconstruct.py", f"{synthetic_dataset}:asset-000", folder, 20)
    assert "unseen.png" in said and (folder / "unseen.png").stat().st_size > 500
    return folder


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, run: Callable[..., str], synthetic_dataset: Path
) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    said = run("07_train_tiny.py", synthetic_dataset, folder, 4)
    assert re.search(r"loss [\d.]+ at step 1, [\d.]+ at 4", said), said
    return folder


def test_every_example_is_short_and_says_what_it_takes() -> None:
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert [s.name[:2] for s in scripts] == [f"{i:02d}" for i in range(1, len(scripts) + 1)]
    for script in scripts:
        text = script.read_text()
        assert 20 <= len(text.splitlines()) <= 45, script.name
        assert f"python examples/{script.name}" in text.split('"""')[1], script.name


def test_read_a_dataset(run: Callable[..., str], synthetic_dataset: Path) -> None:
    said = run("01_read_a_dataset.py", synthetic_dataset)
    assert "motion magnitude" in said and "8 frames of (32, 32, 4)" in said


def test_train_loop_on_clips(run: Callable[..., str], synthetic_dataset: Path) -> None:
    said = run("02_train_loop_on_clips.py", synthetic_dataset)
    losses = [float(x) for x in re.findall(r"loss ([\d.]+)", said)]
    assert len(losses) == 2 and losses[1] < losses[0]


def test_rasterize(run: Callable[..., str], tmp_path: Path) -> None:
    from PIL import Image

    said = run("03_rasterize.py", tmp_path / "gaussians.png")
    assert "images (4, 128, 128, 3)" in said
    low, high = Image.open(tmp_path / "gaussians.png").convert("L").getextrema()
    assert low < 128 < high


def test_reconstruct_export_and_film(run: Callable[..., str], scene: Path, tmp_path: Path) -> None:
    said = run("09_export_and_film.py", scene, tmp_path / "out")
    assert "8 frames of 64 x 64" in said
    assert {p.name for p in (tmp_path / "out" / "ply").iterdir()} >= {"000.ply", "001.ply", "002.ply"}
    assert (tmp_path / "out" / "half.splat").stat().st_size % 32 == 0


def test_render_an_asset(run: Callable[..., str], toy: Any, tmp_path: Path) -> None:
    asset = toy(tmp_path / "toy.glb")
    said = run("05_render_an_asset.py", asset, tmp_path / "dataset")
    assert "input 1 = done 1 + rejected 0 + quarantined 0 + duplicate 0" in said
    assert "dynamic_orbit" in said


def test_own_curation_rule(run: Callable[..., str], toy: Any, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    asset = toy(tmp_path / "toy.glb")
    said = run("06_own_curation_rule.py", asset, tmp_path / "mine.parquet")
    assert "accepted" in said
    assert pq.read_table(tmp_path / "mine.parquet")["uid"].to_pylist() == ["toy"]


def test_generate(run: Callable[..., str], trained: Path, synthetic_dataset: Path, tmp_path: Path) -> None:
    from PIL import Image

    from orbit4d.datasets import decode, read_clip

    image = tmp_path / "image.png"
    clip = read_clip(synthetic_dataset, "asset-000", "Run", "front_view")
    Image.fromarray(decode(clip.frames[0])).save(image)
    said = run("08_generate.py", trained, image, tmp_path / "orbit", 2)
    assert said.count(".mp4: m = ") == 2
