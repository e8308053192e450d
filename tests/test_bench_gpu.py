"""bench/gpu.py where there is no GPU: what it packs, and that a step that fails is a line of its own."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def bench(repo_root: Path) -> ModuleType:
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("orbit4d_bench_gpu", repo_root / "bench" / "gpu.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def test_the_pack_holds_a_dataset_that_can_be_read(
    bench: ModuleType, synthetic_dataset: Path, tmp_path: Path
) -> None:
    from orbit4d.datasets import open_reference

    bench.pack(tmp_path / "pack.zip", str(synthetic_dataset))
    with zipfile.ZipFile(tmp_path / "pack.zip") as file:
        file.extractall(tmp_path)
    reference = (tmp_path / "reference.txt").read_text()
    assert open_reference(f"{tmp_path / 'dataset'}:{reference}")[1:] == ("asset-000", "Run")
    assert (tmp_path / "pack.zip").stat().st_size < bench.MOST_BYTES


def test_a_pack_that_is_too_large_is_refused(
    bench: ModuleType, synthetic_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "MOST_BYTES", 1000)
    with pytest.raises(SystemExit, match="give a --dataset of one asset"):
        bench.pack(tmp_path / "pack.zip", str(synthetic_dataset))
    assert not (tmp_path / "pack.zip").exists()


def test_a_setting_that_fails_is_a_record_and_the_next_one_runs(
    bench: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    guarded = sys.modules["gpu_steps"].guarded

    def fails() -> dict[str, object]:
        raise RuntimeError("CUDA error: out of memory\nmore")

    def leaves() -> dict[str, object]:
        raise SystemExit(3)

    guarded("train", "one", fails)
    guarded("train", "two", leaves)
    guarded("train", "three", lambda: {"ms": 3})
    one, two, three = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert one["error"] == "RuntimeError: CUDA error: out of memory" and two["error"] == "SystemExit: 3"
    assert three["ms"] == 3 and "error" not in three


def test_a_step_that_dies_or_takes_too_long_is_a_record(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    monkeypatch.setattr(bench, "__file__", str(script))
    options = argparse.Namespace(small=False)
    script.write_text('import os\nprint(\'{"step": "raster", "ms": 1}\', flush=True)\nos.abort()\n')
    records = list(bench.lines_of("raster", options, str(tmp_path), 60))
    assert records[0] == {"step": "raster", "ms": 1} and "error" in records[1] and len(records) == 2
    script.write_text("import time\ntime.sleep(60)\n")
    (record,) = bench.lines_of("raster", options, str(tmp_path), 1)
    assert record["error"] == "ended after 1 s"


def test_without_a_gpu_it_says_what_can_be_done(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit, match=r"needs a CUDA GPU .*--pack FILE"):
        bench.main()
