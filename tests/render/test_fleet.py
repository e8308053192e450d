"""The fleet: every job ends once, whatever dies on the way; and nothing outlives a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orbit4d.datasets.errors import InputError
from orbit4d.render.fleet import FleetSettings, Job, Outcome, run_fleet, share_cores


@pytest.fixture(scope="module")
def ray_local() -> Iterator[Any]:
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 << 20,
    )
    yield ray
    ray.shutdown()


def run(jobs: Any, token: str = "", **settings: Any) -> tuple[dict[str, Outcome], Any]:
    outcomes: dict[str, Outcome] = {}

    def note(outcome: Outcome) -> None:
        assert outcome.job.key not in outcomes, "a job ended twice"
        outcomes[outcome.job.key] = outcome

    settings.setdefault("workers", 2)
    summary = run_fleet(jobs, FleetSettings(child_env=(("ORBIT4D_TEST", token),), **settings), note)
    return outcomes, summary


def test_each_way_to_end_is_told_apart(ray_local: Any, tmp_path: Path, no_orphans: Any) -> None:
    jobs = [
        Job("good", "selftest", {"echo": 7}),
        Job("aborts", "selftest", {"do": "abort"}),
        Job("aborts once", "selftest", {"do": "abort", "once_marker": str(tmp_path / "a")}),
        Job("raises once", "selftest", {"do": "raise", "once_marker": str(tmp_path / "b")}),
        Job("refuses", "selftest", {"do": "refuse"}),
        Job("hangs", "selftest", {"do": "hang"}),
        Job("nothing", ""),
    ]
    began = time.monotonic()
    outcomes, summary = run(jobs, str(tmp_path), asset_timeout=2.0)
    assert time.monotonic() - began < 60
    ends = {key: (o.status, o.reason, o.attempts, o.preemptions) for key, o in outcomes.items()}
    assert ends == {
        "good": ("done", "", 1, 0),
        "aborts": ("failed", "crash", 2, 0),
        "aborts once": ("done", "", 2, 0),
        "raises once": ("done", "", 2, 0),
        "refuses": ("failed", "bad_file:selftest", 1, 0),
        "hangs": ("failed", "time_out", 2, 0),
        "nothing": ("done", "", 1, 0),
    }
    assert outcomes["good"].result is not None and outcomes["good"].result["echo"] == 7
    assert "about to abort" in outcomes["aborts"].log_tail
    assert outcomes["refuses"].refused and not outcomes["aborts"].refused
    assert (summary.done, summary.failed, summary.attempts) == (4, 3, 11)


def kill_actor_of(children: Callable[[], list[psutil.Process]]) -> None:
    """SIGKILL the process that owns a Blender child, once there is one."""
    deadline = time.monotonic() + 80
    while time.monotonic() < deadline:
        for child in children():
            try:
                owner = child.parent()
                # An actor that was killed a moment ago is a zombie: still a parent, its command line empty.
                if owner is not None and any("ray::" in part for part in owner.cmdline()[:1]):
                    owner.kill()
                    return
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.05)
    raise AssertionError("no actor with a child was seen")


def test_a_lost_actor_costs_a_preemption_and_no_attempt(
    ray_local: Any, tmp_path: Path, no_orphans: Any
) -> None:
    killer = threading.Thread(target=kill_actor_of, args=(no_orphans,))
    killer.start()
    outcomes, summary = run([Job("sleeps", "selftest", {"do": "sleep", "seconds": 3.0})], str(tmp_path))
    killer.join()
    end = outcomes["sleeps"]
    assert (end.status, end.attempts, end.preemptions) == ("done", 1, 1)
    assert summary.preemptions == 1


def test_preemptions_are_free_up_to_their_limit(ray_local: Any, tmp_path: Path, no_orphans: Any) -> None:
    def keep_killing() -> None:
        for _ in range(2):
            kill_actor_of(no_orphans)

    killer = threading.Thread(target=keep_killing)
    killer.start()
    jobs = [Job("sleeps", "selftest", {"do": "sleep", "seconds": 90.0})]
    outcomes, _ = run(jobs, str(tmp_path), max_preemptions=1)
    killer.join()
    end = outcomes["sleeps"]
    assert (end.status, end.reason, end.attempts, end.preemptions) == ("failed", "preempted", 0, 2)


def test_jobs_are_pulled_no_faster_than_they_end(ray_local: Any) -> None:
    ended, ahead = 0, []

    def stream() -> Iterator[Job]:
        for i in range(300):
            ahead.append(i - ended)
            yield Job(str(i), "")

    def note(outcome: Outcome) -> None:
        nonlocal ended
        ended += 1

    summary = run_fleet(stream(), FleetSettings(workers=2, order="given"), note)
    assert summary.done == ended == 300
    # One for each worker, and one in the driver's hand.
    assert max(ahead) <= 3


def test_the_largest_go_first(ray_local: Any) -> None:
    jobs = [Job(str(size), "", size_bytes=size) for size in (3, 1, 4, 9)]
    order: list[str] = []
    run_fleet(jobs, FleetSettings(workers=1), lambda outcome: order.append(outcome.job.key))
    assert order == ["9", "4", "3", "1"]


def test_waiting_for_a_cluster_without_room_is_said_and_can_be_stopped(
    ray_local: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("orbit4d.render.fleet.SAY_WAITING_EVERY", 0.5)
    stop = threading.Timer(3.0, lambda: os.kill(os.getpid(), signal.SIGTERM))
    stop.start()
    outcomes, summary = run([Job("a", "")], workers=1, threads_per_worker=64)
    stop.join()
    assert summary.interrupted and not outcomes
    assert "waiting for a worker" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("workers", "threads", "cores", "expected"),
    [
        (None, None, 8, (8, 1)),
        (2, None, 8, (2, 4)),
        (None, 3, 8, (2, 3)),
        (4, 4, 8, (4, 4)),
        (5, None, 2, (5, 1)),
        (None, 9, 2, (1, 9)),
    ],
)
def test_cores_are_shared_without_oversubscribing(
    workers: int | None, threads: int | None, cores: int, expected: tuple[int, int]
) -> None:
    assert share_cores(workers, threads, cores) == expected
    if workers is None and threads is not None and threads <= cores:
        assert expected[0] * expected[1] <= cores


def test_settings_without_sense_are_refused() -> None:
    for bad in ({"workers": 0}, {"attempts": 0}, {"order": "random"}):
        with pytest.raises(InputError):
            FleetSettings(**bad)


def test_our_datasets_folder_is_on_no_workers_path(repo_root: Path) -> None:
    """From the repository root, `import datasets` in a Ray worker must find Hugging Face's package or
    nothing.
    """
    code = """
import json
from orbit4d.render.fleet import FleetSettings, ray_cluster
with ray_cluster(FleetSettings(workers=1)) as ray:
    @ray.remote
    def look():
        import importlib.util, os, sys
        spec = importlib.util.find_spec("datasets")
        return [None if spec is None else spec.origin, sys.path, os.getcwd()]
    print("found", json.dumps(ray.get(look.remote())))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("found "))
    origin, path, cwd = json.loads(line[len("found ") :])
    assert origin is None or not Path(origin).is_relative_to(repo_root / "datasets")
    assert str(repo_root) not in path and cwd != str(repo_root)


def test_sigterm_ends_a_run_soon_and_in_order(tmp_path: Path, no_orphans: Any) -> None:
    code = """
from orbit4d.render.fleet import FleetSettings, Job, run_fleet
jobs = [Job(str(i), "selftest", {"do": "sleep", "seconds": 600}) for i in range(3)]
print("summary", run_fleet(jobs, FleetSettings(workers=1), print).interrupted)
"""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
        cwd=tmp_path,
    )
    deadline = time.monotonic() + 60
    while not no_orphans() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert no_orphans(), "no child was started"
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and output.splitlines()[-1] == "summary True"
