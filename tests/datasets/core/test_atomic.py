"""Writing at once: whatever fails, dies or runs beside it, a reader sees one whole version."""

from __future__ import annotations

import ast
import json
import multiprocessing
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from orbit4d.datasets.core import atomic
from orbit4d.datasets.core.atomic import (
    replacing_file,
    replacing_folder,
    write_bytes,
    write_json,
    write_text,
)


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.bin", b"\x00\xff\r\n")
    write_text(tmp_path / "b.txt", "größe\n\udcff", errors="surrogateescape")
    write_json(tmp_path / "c.json", {"a": [1, 2.5], "ö": None})
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\xff\r\n"
    assert (tmp_path / "b.txt").read_bytes() == "größe\n".encode() + b"\xff"
    text = (tmp_path / "c.json").read_text(encoding="utf-8")
    assert text == json.dumps({"a": [1, 2.5], "ö": None}, indent=1) + "\n"
    assert sorted(os.listdir(tmp_path)) == ["a.bin", "b.txt", "c.json"]


def test_a_draft_is_hidden_and_keeps_the_suffix(tmp_path: Path) -> None:
    with replacing_file(tmp_path / "clip.mp4") as draft:
        assert re.fullmatch(r"\.tmp-[0-9a-f]{12}-clip\.mp4", draft.name) and draft.parent == tmp_path
        draft.write_bytes(b"1")
        assert not (tmp_path / "clip.mp4").exists()
    with replacing_folder(tmp_path / "frames") as draft:
        assert re.fullmatch(r"\.tmp-[0-9a-f]{12}-frames", draft.name) and os.listdir(draft) == []
    assert sorted(os.listdir(tmp_path)) == ["clip.mp4", "frames"]


def fill(draft: Path, text: str) -> None:
    """A version of a file or folder in which every byte says which it is."""
    if draft.is_dir():
        for name in ("a", "b"):
            (draft / name).write_text(text, encoding="utf-8")
    else:
        draft.write_text(text * 2, encoding="utf-8")


def version(path: Path) -> str:
    """The version at `path`; fails where it is of two minds."""
    if path.is_dir():
        one, other = ((path / name).read_text(encoding="utf-8") for name in ("a", "b"))
    else:
        text = path.read_text(encoding="utf-8")
        one, other = text[: len(text) // 2], text[len(text) // 2 :]
    assert one == other
    return one


BOTH = pytest.mark.parametrize("replacing", [replacing_file, replacing_folder])


@BOTH
@pytest.mark.parametrize("durable", [False, True])
def test_the_last_version_stands(tmp_path: Path, replacing: Callable, durable: bool) -> None:
    for text in ("old", "new"):
        with replacing(tmp_path / "x", durable=durable) as draft:
            fill(draft, text)
    assert version(tmp_path / "x") == "new" and os.listdir(tmp_path) == ["x"]


@BOTH
@pytest.mark.parametrize("before", [False, True])
def test_a_failure_leaves_nothing(tmp_path: Path, replacing: Callable, before: bool) -> None:
    if before:
        with replacing(tmp_path / "x") as draft:
            fill(draft, "old")
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), replacing(tmp_path / "x") as draft:
            fill(draft, "new")
            raise error
    assert os.listdir(tmp_path) == ["x"] * before
    assert not before or version(tmp_path / "x") == "old"


@BOTH
def test_a_rename_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replacing: Callable
) -> None:
    with replacing(tmp_path / "x") as draft:
        fill(draft, "old")
    real = os.replace
    seen: list[str] = []

    def refuse(source: Path, target: Path) -> None:
        # A folder's first rename finds the old one in its place; the disk then refuses the second.
        seen.append(Path(target).name)
        if Path(target).name == "x" and "-x" in Path(source).name:
            text = version(Path(source))
            if text == "new" and (replacing is replacing_file or len(seen) > 1):
                raise OSError(5, "Input/output error")
        real(source, target)

    monkeypatch.setattr(atomic.os, "replace", refuse)
    with pytest.raises(OSError, match="Input/output"), replacing(tmp_path / "x") as draft:
        fill(draft, "new")
    assert version(tmp_path / "x") == "old" and os.listdir(tmp_path) == ["x"]


@BOTH
def test_a_kill_in_between_leaves_what_was_there(tmp_path: Path, replacing: Callable) -> None:
    with replacing(tmp_path / "x") as draft:
        fill(draft, "old")
    code = f"""
import os, signal, sys
from pathlib import Path
from orbit4d.datasets.core.atomic import {replacing.__name__} as replacing
with replacing(Path({str(tmp_path)!r}) / "x") as draft:
    (draft / "a" if draft.is_dir() else draft).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], check=False)
    assert done.returncode == -9 and version(tmp_path / "x") == "old"
    (left,) = (name for name in os.listdir(tmp_path) if name != "x")
    assert left.startswith(".tmp-")
    # A young draft may be another writer's at work; an old one is nobody's.
    with replacing(tmp_path / "x") as draft:
        fill(draft, "new")
    assert left in os.listdir(tmp_path)
    os.utime(tmp_path / left, (0, 0))
    for other in ("y", "xx"):
        with replacing(tmp_path / other) as draft:
            fill(draft, "other")
    assert left in os.listdir(tmp_path), "it is the draft of another name"
    with replacing(tmp_path / "x") as draft:
        fill(draft, "newer")
    assert sorted(os.listdir(tmp_path)) == ["x", "xx", "y"] and version(tmp_path / "x") == "newer"


def test_who_writes_alone_removes_every_draft(tmp_path: Path) -> None:
    for name in (".tmp-0123456789ab-x", ".tmp-0123456789ab-y"):
        (tmp_path / name).mkdir()
    with replacing_folder(tmp_path / "x", alone=True) as draft:
        fill(draft, "new")
    assert sorted(os.listdir(tmp_path)) == [".tmp-0123456789ab-y", "x"] and version(tmp_path / "x") == "new"


def write_again_and_again(path: Path, kind: str, text: str, rounds: int) -> None:
    for _ in range(rounds):
        with (replacing_file if kind == "file" else replacing_folder)(path) as draft:
            fill(draft, text)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_two_writers_never_mix(tmp_path: Path, kind: str) -> None:
    context = multiprocessing.get_context("fork")
    writers = [
        context.Process(target=write_again_and_again, args=(tmp_path / "x", kind, text * 1000, 200))
        for text in ("a", "b")
    ]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        if kind == "file" and (tmp_path / "x").exists():
            # A folder's two files are two reads, between which the folder may be replaced.
            seen.add(version(tmp_path / "x")[0])
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert seen <= {"a", "b"} and version(tmp_path / "x")[0] in "ab"
    assert os.listdir(tmp_path) == ["x"]


def test_threads_of_one_process_do_not_share_a_draft(tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=write_again_and_again, args=(tmp_path / "x", "folder", text, 100))
        for text in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert version(tmp_path / "x") in "abcd" and os.listdir(tmp_path) == ["x"]


def test_errors_are_the_systems(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_bytes(tmp_path / "no" / "x", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_bytes(tmp_path / "folder", b"")
    write_bytes(tmp_path / "file", b"")
    with pytest.raises(NotADirectoryError), replacing_folder(tmp_path / "file"):
        pass
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_nothing_else_renames_what_it_wrote(repo_root: Path) -> None:
    """`os.replace(a, b)` and `path.replace(b)` stand here alone, and where a draft outlives its process."""
    allowed = {
        "datasets/core/atomic.py",
        "datasets/sources/objaverse/cache.py",  # a download that a later run resumes
        "evaluate/tasks/truth_cache.py",  # a dataset that many workers render
    }
    found = set()
    for room in ("datasets", "render", "curate", "model", "recon4d", "compose", "evaluate", "app"):
        for path in (repo_root / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    of_os = isinstance(node.func.value, ast.Name) and node.func.value.id == "os"
                    renames = node.func.attr in ("replace", "rename", "renames")
                    if renames and (of_os or (len(node.args) == 1 and not node.keywords)):
                        found.add(path.relative_to(repo_root).as_posix())
    assert found <= allowed
