"""The Blender child: whatever it does costs one child, and nothing outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orbit4d.datasets.core.scratch import sweep_scratch
from orbit4d.render.fleet.child import BlenderChild, ChildDied, TaskFailed, TaskRefused
from orbit4d.render.fleet.settings import Limits
from orbit4d.render.fleet.worker import Job, Worker, WorkerSettings
from orbit4d.render.protocol import wire as protocol


@pytest.fixture(scope="module")
def child() -> Iterator[BlenderChild]:
    with BlenderChild(limits=Limits(max_rss_bytes=2 << 30)) as child:
        yield child


def test_prints_are_log_and_never_answers(child: BlenderChild) -> None:
    """bpy and its add-ons print to stdout, fd 1 included; even a forged answer there is only noise."""
    result = child.call("selftest", {"do": "print", "echo": "äé\n"}, 60)
    assert result["echo"] == "äé\n" and "forged" not in result
    for noise in ("noise on stdout", "noise on fd 1", "noise on stderr"):
        assert noise in child.log_tail()


def test_the_log_of_a_task_is_its_own(child: BlenderChild) -> None:
    child.call("selftest", {"do": "print"}, 60)
    child.call("selftest", {"do": "echo"}, 60)
    assert child.log_tail() == ""


def test_the_working_directory_is_not_on_the_childs_path(child: BlenderChild, repo_root: Path) -> None:
    path = child.call("selftest", {}, 60)["path"]
    assert "" not in path and str(repo_root) not in path


def test_failures_that_leave_the_child_alive(child: BlenderChild) -> None:
    pid = child.call("selftest", {}, 60)["pid"]
    with pytest.raises(TaskFailed) as failed:
        child.call("selftest", {"do": "raise"}, 60)
    assert failed.value.reason == "error" and failed.value.retry and "selftest.py" in failed.value.log_tail
    with pytest.raises(TaskRefused) as refused:
        child.call("selftest", {"do": "refuse"}, 60)
    assert refused.value.reason == "bad_file:selftest" and not refused.value.retry
    with pytest.raises(TaskRefused):
        child.call("../../etc/passwd", {}, 60)
    assert child.call("selftest", {}, 60)["pid"] == pid


def test_an_abort_a_hang_and_a_glut_cost_one_child_each(child: BlenderChild) -> None:
    with pytest.raises(ChildDied) as died:
        child.call("selftest", {"do": "abort"}, 60)
    assert (died.value.reason, died.value.detail) == ("crash", "the child ended with SIGABRT")
    assert "about to abort" in died.value.log_tail
    child.start()
    with pytest.raises(ChildDied) as died:  # the hang is one of an hour, so an earlier end is the limit's
        child.call("selftest", {"do": "hang"}, 1.0)
    assert (died.value.reason, died.value.detail) == ("time_out", "no answer within the time limit")
    with pytest.raises(ChildDied) as died:
        child.call("selftest", {"do": "hang"}, 60.0, import_timeout=0.5)
    assert died.value.reason == "time_out" and "not read" in died.value.detail
    with pytest.raises(ChildDied) as died:
        child.call("selftest", {"do": "allocate", "bytes": 3 << 30}, 60)
    assert died.value.reason == "memory"
    assert child.pid is None
    assert child.call("selftest", {"echo": 1}, 60)["echo"] == 1


def test_the_time_limit_is_one_of_each_action(child: BlenderChild) -> None:
    events: list[dict[str, Any]] = []
    # Four sleeps of 1 s are longer than the limit, each of them is not.
    child.call("selftest", {"do": "actions", "count": 4, "seconds": 1.0}, 3.5, events.append)
    assert [event["index"] for event in events if event["event"] == "action"] == [0, 1, 2, 3]
    with pytest.raises(ChildDied):
        child.call("selftest", {"do": "actions", "count": 1, "seconds": 30.0}, 1.0)


def test_a_child_is_replaced_after_its_share_of_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    with BlenderChild(limits=Limits(recycle_after=2)) as child:
        pids = [child.call("selftest", {}, 60)["pid"] for _ in range(3)]
    assert pids[0] == pids[1] != pids[2] and child.starts == 2


def test_the_child_dies_with_its_parent(tmp_path: Path) -> None:
    """SIGKILL leaves the parent no chance to clean up; the kernel tells the child."""
    code = (
        "from orbit4d.render.fleet.child import BlenderChild; import sys\n"
        "child = BlenderChild(); child.start()\n"
        "print(child.pid, flush=True)\n"
        "child.call('selftest', {'do': 'hang'}, 600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid) and os.getpgid(pid) == pid != os.getpgid(parent.pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_lines_are_json_whatever_the_numbers() -> None:
    line = protocol.encode({"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": -float("inf")}})
    assert protocol.decode(line) == {"a": None, "b": [None, 1.5], "c": {"d": None}}
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    for noise in (b"", b"Fra:1 Mem:12M", b"[1, 2]", b"\xff\xfe", b'{"type": '):
        assert protocol.decode(noise) is None


def leave_a_file(job: Job) -> dict[str, Any]:
    """A `before` hook."""
    Path(job.payload["scratch"], "left").write_text("x")
    return {**job.payload, "echo": "from before"}


def explode(job: Job, result: dict[str, Any]) -> dict[str, Any]:
    """An `after` hook."""
    raise OSError("storage hiccup")


def test_a_worker_answers_every_job_and_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    here = "test_child_hooks"
    monkeypatch.setitem(sys.modules, here, sys.modules[__name__])
    worker = Worker(WorkerSettings(limits=Limits(asset_timeout=60.0)))
    try:
        reply = worker.run(Job("a", "selftest", {}, before=f"{here}:leave_a_file"))
        assert reply.result is not None and reply.result["echo"] == "from before"
        reply = worker.run(Job("b", "", {}, after=f"{here}:explode"))
        assert (reply.result, reply.reason, reply.retry) == (None, "error", True)
        assert "storage hiccup" in reply.detail and "Traceback" in reply.log_tail
        reply = worker.run(Job("c", "selftest", {"do": "refuse"}))
        assert (reply.reason, reply.retry) == ("bad_file:selftest", False)
        reply = worker.run(Job("d", "selftest", {"do": "abort"}))
        assert (reply.reason, reply.retry) == ("crash", True)
        assert list(tmp_path.glob("orbit4d-scratch-*")) == []
        assert worker.run(Job("e", "selftest", {})).result is not None
        [folder] = tmp_path.glob("orbit4d-scratch-*")
        assert [path.name[:8] for path in folder.iterdir()] == ["blender_"]
    finally:
        worker.close()
    assert list(tmp_path.iterdir()) == []


def test_scratch_of_the_dead_is_swept_and_of_the_living_kept(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = tmp_path / f"orbit4d-scratch-{gone.pid}-abc"
    alive = tmp_path / f"orbit4d-scratch-{os.getpid()}-abc"
    dead.mkdir()
    alive.mkdir()
    sweep_scratch(str(tmp_path))
    assert alive.exists() and not dead.exists()
