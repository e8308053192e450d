"""Closed streams, terminals that are not UTF-8, full disks: the commands as processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ORBIT4D = f"{sys.executable} -P -m orbit4d.app"
ASCII = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "LANG": "C"}


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, env={**os.environ, **environment}, check=False, timeout=120
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
@pytest.mark.parametrize("command", ["verify", "stats", "list"])
def test_closed_streams_change_nothing(command: str, closed: str, synthetic_dataset: Path) -> None:
    done = shell(f"{ORBIT4D} {command} {synthetic_dataset} {closed}")
    assert done.returncode == 0, done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_a_closed_output_is_not_taken_by_a_file(synthetic_dataset: Path, tmp_path: Path) -> None:
    """What is printed must not land in the first file that a command opens."""
    out = tmp_path / "view"
    assert shell(f"{ORBIT4D} select {synthetic_dataset} --out {out} >&- 2>&-").returncode == 0
    assert shell(f"{ORBIT4D} verify {out}").returncode == 0


def test_bad_use_with_closed_streams_keeps_its_code() -> None:
    assert shell(f"{ORBIT4D} stats nothing/there >&- 2>&-").returncode == 2


def test_a_full_disk_behind_the_output_is_one_line(synthetic_dataset: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    done = shell(f"{ORBIT4D} list {synthetic_dataset} >/dev/full")
    assert done.returncode == 1
    assert done.stderr.decode().count("\n") == 1 and "no space left" in done.stderr.decode()


def test_a_reader_that_leaves_is_no_fault(synthetic_dataset: Path) -> None:
    done = shell(f"{ORBIT4D} list {synthetic_dataset} | head -n 1; echo ${{PIPESTATUS[0]}}")
    assert done.stdout.decode().splitlines()[-1] == "0" and done.stderr == b""


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_what_a_terminal_cannot_show_is_escaped(encoding: str) -> None:
    code = (
        "import click\nfrom orbit4d.datasets.commands.command import leave, run\n"
        "@click.command()\ndef c():\n"
        "    click.echo('a \\u2192 b \\u4e2d')\n    raise SystemError('\\u2192')\n"
        "leave(run(c, []))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        check=False,
    )
    assert done.stdout == b"a \\u2192 b \\u4e2d\n" and done.returncode == 1
    assert done.stderr.startswith(b"error: SystemError: \\u2192")


def test_an_evaluation_in_the_c_locale_writes_utf8(synthetic_dataset: Path, tmp_path: Path) -> None:
    done = shell(f"{ORBIT4D} eval dataset {synthetic_dataset} --out {tmp_path / 'results'}", **ASCII)
    assert done.returncode == 0, done.stderr.decode()
    for name in ("index.html", "table.md"):
        (tmp_path / "results" / name).read_text(encoding="utf-8")
    assert (
        "–" in (tmp_path / "results" / "table.md").read_text(encoding="utf-8")
        or "clips" in done.stdout.decode()
    )


def test_a_path_beyond_the_locale_is_one_line(tmp_path: Path) -> None:
    done = shell(f"{ORBIT4D} stats '{tmp_path}/größe → 1'", **ASCII)
    assert done.returncode == 2
    assert done.stderr.decode().count("\n") == 1 and "PYTHONUTF8=1" in done.stderr.decode()


def test_a_long_tmpdir_is_no_hindrance(tmp_path: Path) -> None:
    """Sockets of loader workers and of Ray lie where their paths are short."""
    from orbit4d.datasets.core.scratch import LONGEST

    folder = tmp_path / ("t" * 120)
    folder.mkdir()
    code = (
        "import os\nfrom multiprocessing.connection import Listener\n"
        "from orbit4d.datasets.core.scratch import shorten_listeners, socket_folder\n"
        "shorten_listeners()\nListener(family='AF_UNIX').close()\nprint(socket_folder())"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) <= LONGEST


def test_nowhere_for_sockets_names_tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orbit4d.datasets.core import scratch
    from orbit4d.datasets.core.errors import InputError

    monkeypatch.setattr(scratch.tempfile, "gettempdir", lambda: str(tmp_path / ("t" * 90)))
    monkeypatch.setattr(scratch.os, "access", lambda *_: False)
    with pytest.raises(InputError, match="TMPDIR="):
        scratch.socket_folder()


def test_what_killed_processes_left_is_swept(tmp_path: Path, synthetic_dataset: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = tmp_path / f"orbit4d-scratch-{gone.pid}-abc"
    left.mkdir()
    (left / "file").write_text("x")
    assert shell(f"{ORBIT4D} stats {synthetic_dataset}", TMPDIR=str(tmp_path)).returncode == 0
    assert not left.exists()
