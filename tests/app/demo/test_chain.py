"""The order of the demo's stages, going on after a stop, and its refusals; no stage does real work here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orbit4d.app.demo import chain as demo
from orbit4d.app.demo.chain import Book, Plan, Stage, run_stages
from orbit4d.datasets.core.errors import InputError, WorkError

PLAN = Plan()
#: Stands in for `orbit4d`: writes the file it is given, unless it is told to fail or to wait.
FAKE = """
import sys, time
verb, path = sys.argv[1:3]
if verb == "fail":
    sys.exit(3)
if verb == "wait":
    open(path + ".begun", "w").close()
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        open(path + ".stopped", "a").write("x")
        sys.exit(130)
open(path, "a").write("x")
print("made", path)
"""


@pytest.fixture(autouse=True)
def fake_orbit4d(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "ORBIT4D", (sys.executable, "-c", FAKE))


def chain(folder: Path, *verbs: str) -> list[Stage]:
    return [
        Stage(
            f"s{i}", f"Stage {i}", (verb, str(folder / f"out{i}")), (f"out{i}",), None, lambda f, ln: ln[-1]
        )
        for i, verb in enumerate(verbs)
    ]


def runs(folder: Path, i: int) -> int:
    path = folder / f"out{i}"
    return len(path.read_text()) if path.exists() else 0


def test_finished_stages_are_not_run_twice(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    run_stages(folder, PLAN, chain(folder, "make", "make"), Book.open(folder, PLAN))
    run_stages(folder, PLAN, chain(folder, "make", "make"), Book.open(folder, PLAN))
    assert [runs(folder, i) for i in (0, 1)] == [1, 1]


def test_other_workers_are_the_same_work_and_other_options_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "demo"

    def one(*options: str) -> list[Stage]:
        return [Stage("s", "S", ("make", str(folder / "out0"), *options), ("out0",))]

    for options in (("--workers", "2"), ("--workers", "16"), (), ("--frames", "8")):
        run_stages(folder, PLAN, one(*options), Book.open(folder, PLAN))
    assert runs(folder, 0) == 2


def test_what_follows_a_repeated_stage_is_repeated(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    run_stages(folder, PLAN, chain(folder, "make", "make", "make"), Book.open(folder, PLAN))
    (folder / "out1").unlink()
    run_stages(folder, PLAN, chain(folder, "make", "make", "make"), Book.open(folder, PLAN))
    assert [runs(folder, i) for i in (0, 1, 2)] == [1, 1, 2]


def test_what_became_stale_stays_stale_after_a_failure(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    run_stages(folder, PLAN, chain(folder, "make", "make", "make"), Book.open(folder, PLAN))
    (folder / "out0").unlink()
    with pytest.raises(WorkError):
        run_stages(folder, PLAN, chain(folder, "make", "fail", "make"), Book.open(folder, PLAN))
    run_stages(folder, PLAN, chain(folder, "make", "make", "make"), Book.open(folder, PLAN))
    assert [runs(folder, i) for i in (0, 1, 2)] == [1, 2, 2]


def test_a_finished_folder_is_cleared_for_new_input_and_an_unfinished_one_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "demo"

    def two(second: str) -> list[Stage]:
        (folder / "kept").mkdir(parents=True, exist_ok=True)
        last = Stage("s1", "S", (second, str(folder / "kept" / "out")), ("kept/out",), clear="kept")
        return [*chain(folder, "make"), last]

    book = Book.open(folder, PLAN)
    (folder / "kept").mkdir()
    (folder / "kept" / "half").write_text("done")
    run_stages(folder, PLAN, two("make"), book)
    assert (folder / "kept" / "half").exists(), "never finished: its command continues from there"
    (folder / "out0").unlink()
    with pytest.raises(WorkError):
        run_stages(folder, PLAN, two("fail"), Book.open(folder, PLAN))
    assert not (folder / "kept" / "half").exists()
    assert "s1" not in Book.open(folder, PLAN).records


def test_a_failing_stage_ends_in_one_line_and_the_next_run_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with pytest.raises(WorkError, match=r"stage s1 failed \(exit code 3.*continues from here") as error:
        run_stages(folder, PLAN, chain(folder, "make", "fail", "make"), Book.open(folder, PLAN))
    assert "\n" not in str(error.value)
    assert runs(folder, 2) == 0
    run_stages(folder, PLAN, chain(folder, "make", "make", "make"), Book.open(folder, PLAN))
    assert [runs(folder, i) for i in (0, 1, 2)] == [1, 1, 1]
    assert [s["name"] for s in json.loads((folder / "demo.json").read_text())["stages"]] == ["s0", "s1", "s2"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_reaches_the_running_command_once(tmp_path: Path, number: int) -> None:
    folder = tmp_path / "demo"
    script = tmp_path / "drive.py"
    script.write_text(
        f"import sys\nfrom pathlib import Path\nfrom orbit4d.app.demo import chain as demo\n"
        f"demo.ORBIT4D = (sys.executable, '-c', {FAKE!r})\nfolder = Path({str(folder)!r})\n"
        "book = demo.Book.open(folder, demo.FULL)\n"
        "chain = [demo.Stage(n, n, (v, str(folder / n)), (n,)) for n, v in (('a', 'make'), ('b', 'wait'))]\n"
        "try:\n    with demo._terminate_as_interrupt():\n"
        "        demo.run_stages(folder, demo.FULL, chain, book)\n"
        "except KeyboardInterrupt:\n    sys.exit(130)\n"
    )
    process = subprocess.Popen([sys.executable, "-P", str(script)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (folder / "b.begun").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, number)
    assert process.wait(30) == 130
    assert (folder / "b.stopped").read_text() == "x"
    assert [s["name"] for s in json.loads((folder / "demo.json").read_text())["stages"]] == ["a"]


def test_refusals_write_nothing(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"thesis\.tex.*choose another --out"):
        Book.open(other, PLAN)
    assert os.listdir(other) == ["thesis.tex"]

    held = tmp_path / "held"
    Book.open(held, PLAN)
    with pytest.raises(InputError, match="other settings"):
        Book.open(held, demo.small_plan())
    assert Book.open(held, PLAN).records == {}

    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(InputError, match="is a file"):
        Book.open(file, PLAN)
    with pytest.raises(InputError, match="cannot be written"):
        Book.open(file / "below", PLAN)

    (held / "demo.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        Book.open(held, PLAN)


def test_the_chain_names_real_commands(tmp_path: Path) -> None:
    import click

    from orbit4d.app.cli import command as umbrella

    for stage in demo.stages(tmp_path / "demo", PLAN, 2):
        if stage.argv:
            found = umbrella.get_command(click.Context(umbrella), stage.argv[0])
            assert found is not None, stage.argv
            # Parsing alone: every option of the chain exists and takes its value.
            found.make_context(stage.argv[0], list(stage.argv[1:]))


def test_demo_is_a_source_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orbit4d.app.demo import source as demo_source
    from orbit4d.datasets.sources.resolve import resolve

    def build(out: Path, only: object = None, on_file: object = None) -> list[dict[str, str]]:
        out.mkdir(parents=True)
        for name in ("dino", "vase"):
            (out / f"{name}.glb").write_bytes(name.encode())
        (out / "captions.csv").write_text("uid,caption\ndino,a dinosaur\n")
        return [{"name": name, "file": f"{name}.glb"} for name in ("dino", "vase")]

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(demo_source, "build_assets", build)
    demo_source.register()
    found = resolve(["demo:"])
    assert [(a.uid, a.caption) for a in found.assets] == [("dino", "a dinosaur"), ("vase", "")]
    with pytest.raises(InputError, match="demo:small"):
        resolve(["demo:huge"])
