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

from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.render.fleet.cluster import ray_cluster, share_cores
from orbit4d.render.fleet.driver import FleetSettings, Job, Outcome, run_fleet


def run(jobs: Any, token: str = "", **settings: Any) -> tuple[dict[str, Outcome], Any]:
    outcomes: dict[str, Outcome] = {}

    def note(outcome: Outcome) -> None:
        assert outcome.job.key not in outcomes, "a job ended twice"
        outcomes[outcome.job.key] = outcome

    settings.setdefault("workers", 2)
    summary = run_fleet(jobs, FleetSettings(child_env=(("ORBIT4D_TEST", token),), **settings), note)
    return outcomes, summary


def test_each_way_to_end_is_told_apart(shared_ray: Any, tmp_path: Path, no_orphans: Any) -> None:
    jobs = [
        Job("good", "selftest", {"echo": 7}),
        Job("aborts", "selftest", {"do": "abort"}),
        Job("aborts once", "selftest", {"do": "abort", "once_marker": str(tmp_path / "a")}),
        Job("raises once", "selftest", {"do": "raise", "once_marker": str(tmp_path / "b")}),
        Job("refuses", "selftest", {"do": "refuse"}),
        Job("hangs", "selftest", {"do": "hang"}),
        Job("nothing", ""),
    ]
    # The limit holds for the quick tasks as well, also on a busy machine.
    outcomes, summary = run(jobs, str(tmp_path), asset_timeout=5.0)
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


def kill_actor_of(children: Callable[[], list[psutil.Process]], killed: set[int]) -> None:
    """SIGKILL the process that owns a Blender child, once there is one that is not in `killed` yet."""
    deadline = time.monotonic() + 150
    while time.monotonic() < deadline:
        for child in children():
            try:
                owner = child.parent()
                # An actor that was killed a moment ago may still look alive, or be a zombie: still a parent,
                # its command line empty.
                if owner is None or owner.pid in killed:
                    continue
                if any("ray::" in part for part in owner.cmdline()[:1]):
                    owner.kill()
                    killed.add(owner.pid)
                    return
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.05)
    raise AssertionError("no actor with a child was seen")


def test_a_lost_actor_costs_a_preemption_and_no_attempt(
    shared_ray: Any, tmp_path: Path, no_orphans: Any
) -> None:
    killer = threading.Thread(target=kill_actor_of, args=(no_orphans, set()))
    killer.start()
    outcomes, summary = run([Job("sleeps", "selftest", {"do": "sleep", "seconds": 3.0})], str(tmp_path))
    killer.join()
    end = outcomes["sleeps"]
    assert (end.status, end.attempts, end.preemptions) == ("done", 1, 1)
    assert summary.preemptions == 1


def test_preemptions_are_free_up_to_their_limit(shared_ray: Any, tmp_path: Path, no_orphans: Any) -> None:
    def keep_killing() -> None:
        killed: set[int] = set()
        for _ in range(2):
            kill_actor_of(no_orphans, killed)

    killer = threading.Thread(target=keep_killing)
    killer.start()
    jobs = [Job("sleeps", "selftest", {"do": "sleep", "seconds": 200.0})]
    outcomes, _ = run(jobs, str(tmp_path), max_preemptions=1)
    killer.join()
    end = outcomes["sleeps"]
    assert (end.status, end.reason, end.attempts, end.preemptions) == ("failed", "preempted", 0, 2)


def test_jobs_are_pulled_no_faster_than_they_end(shared_ray: Any) -> None:
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


def test_the_largest_go_first(shared_ray: Any) -> None:
    jobs = [Job(str(size), "", size_bytes=size) for size in (3, 1, 4, 9)]
    order: list[str] = []
    run_fleet(jobs, FleetSettings(workers=1), lambda outcome: order.append(outcome.job.key))
    assert order == ["9", "4", "3", "1"]


def test_waiting_for_a_cluster_without_room_is_said_and_can_be_stopped(
    shared_ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orbit4d.render.fleet.driver.SAY_WAITING_EVERY", 0.2)
    said: list[str] = []

    def say(text: str, **where: Any) -> None:
        said.append(text)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("orbit4d.render.fleet.driver.print", say, raising=False)
    outcomes, summary = run([Job("a", "")], workers=1, threads_per_worker=64)
    assert summary.interrupted and not outcomes
    assert len(said) == 1 and "waiting for a worker" in said[0]


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


def test_a_worker_asks_for_no_more_cores_than_a_machine_has() -> None:
    """16 workers on 20 machines of 16 cores: 20 threads each would wait for ever."""
    assert share_cores(16, None, 320, largest=16) == (16, 16)
    assert share_cores(1, None, 2, largest=1) == (1, 1)
    assert share_cores(None, None, 320, largest=16) == (320, 1)
    assert share_cores(16, 20, 320, largest=16) == (16, 20)  # asked for


def test_settings_without_sense_are_refused() -> None:
    for bad in ({"workers": 0}, {"attempts": 0}, {"order": "random"}):
        with pytest.raises(InputError):
            FleetSettings(**bad)


@pytest.fixture(scope="module")
def root_run(repo_root: Path, tmp_path_factory: pytest.TempPathFactory, children_of: Any) -> list[str]:
    """What a fleet prints that is started in the repository root, finds its worker's path, and gets SIGTERM
    while a child works; the process has to end well. Its TMPDIR is too long for sockets."""
    token = str(tmp_path_factory.mktemp("root_run"))
    code = """
import json
from orbit4d.render.fleet.cluster import ray_cluster
from orbit4d.render.fleet.driver import FleetSettings, Job, run_fleet
with ray_cluster(FleetSettings(workers=1)) as ray:
    @ray.remote(num_cpus=0)
    def look():
        import importlib.util, os, sys
        spec = importlib.util.find_spec("datasets")
        return [None if spec is None else spec.origin, sys.path, os.getcwd()]
    print("found", json.dumps(ray.get(look.remote())))
    jobs = [Job(str(i), "selftest", {"do": "sleep", "seconds": 600}) for i in range(3)]
    print("interrupted", run_fleet(jobs, FleetSettings(workers=1), print).interrupted)
import os
print("tokens", [name for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN") if name in os.environ])
"""
    home, temporary = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("t" * 100)
    unset = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_TMPDIR")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**env, "ORBIT4D_TEST": token, "HOME": str(home), "TMPDIR": str(temporary)},
        cwd=repo_root,
    )
    try:
        deadline = time.monotonic() + 150
        while not children_of(token) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert children_of(token), "no child was started"
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 0
    deadline = time.monotonic() + 60
    while children_of(token) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not children_of(token), "a Blender child outlived what started it"
    return [*output.splitlines(), f"kept {[path.name for path in home.rglob('auth_token')]}"]


def test_our_datasets_folder_is_on_no_workers_path(root_run: list[str], repo_root: Path) -> None:
    """From the repository root, `import datasets` in a Ray worker must find Hugging Face's package or
    nothing.
    """
    line = next(line for line in root_run if line.startswith("found "))
    origin, path, cwd = json.loads(line[len("found ") :])
    assert origin is None or not Path(origin).is_relative_to(repo_root / "datasets")
    assert str(repo_root) not in path and cwd != str(repo_root)


def test_sigterm_ends_a_run_soon_and_in_order(root_run: list[str]) -> None:
    assert "interrupted True" in root_run


def test_a_local_ray_leaves_no_token_behind(root_run: list[str]) -> None:
    """`--address` of a plain cluster, and `ray start` on this machine, would take it for the cluster's."""
    assert root_run[-2:] == ["tokens []", "kept []"]


def test_a_cluster_out_of_reach_is_one_line_that_names_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def refuse(**options: Any) -> None:
        raise ConnectionError("Failed to connect to Ray cluster\nat 10.0.0.1:6379")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for settings, says in (
        (FleetSettings(address="10.0.0.1:6379"), "RAY_AUTH_MODE="),
        (FleetSettings(), "memory"),
    ):
        with pytest.raises(WorkError, match=says) as caught, ray_cluster(settings):
            pass
        assert "\n" not in str(caught.value)
