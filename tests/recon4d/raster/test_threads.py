"""Helpers leave the caller's CPU, and a run does not depend on whether they may."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from orbit4d.recon4d.raster import threads

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="CPU numbers are read on Linux alone")


def in_a_thread(task) -> object:
    """What `task` returns on a thread of its own, whose affinity dies with it."""
    found: list[object] = []
    worker = threading.Thread(target=lambda: found.append(task()))
    worker.start()
    worker.join()
    return found[0]


def test_a_helper_on_the_callers_cpu_moves_to_another() -> None:
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("one CPU: there is nowhere to go")
    home = min(allowed)

    def help_from_home() -> tuple[set[int], int]:
        os.sched_setaffinity(0, {home})
        ran: list[int] = []
        threads._help((home, caller), lambda: ran.append(threads._current_cpu()))
        return os.sched_getaffinity(0), ran[0]

    caller = threading.get_native_id()
    mask, cpu = in_a_thread(help_from_home)
    assert mask == allowed - {home} and cpu != home
    assert os.sched_getaffinity(0) == allowed, "the caller stays free"


@pytest.mark.parametrize("failing", [PermissionError, None])
def test_where_there_is_nowhere_to_go_the_work_is_done_all_the_same(
    monkeypatch: pytest.MonkeyPatch, failing: type[Exception] | None
) -> None:
    def ask(_: int) -> set[int]:
        if failing:
            raise failing("not here")
        return {threads._current_cpu()}

    monkeypatch.setattr(os, "sched_getaffinity", ask)

    def help_here() -> list[int]:
        ran: list[int] = []
        threads._help((threads._current_cpu(), 0), ran.append, 7)
        return ran

    assert in_a_thread(help_here) == [7]


def test_every_piece_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads.torch, "get_num_threads", lambda: 4)
    lock, done = threading.Lock(), []

    def kernel(counter: np.ndarray, pieces: int) -> None:
        while True:
            with lock:
                piece = int(counter[0])
                counter[0] += 1
            if piece >= pieces:
                return
            done.append(piece)

    for _ in range(20):
        done.clear()
        threads.run(kernel, 50, 50)
        assert sorted(done) == list(range(50))


def test_tasks_divide_the_threads_among_their_kernels() -> None:
    with threads.alone(5) as total:
        assert total == 5 and threads.count() == 5 and threads.torch.get_num_threads() == 1
        found = threads.each([lambda: (threads.count(), threading.get_ident())] * 2)
        assert [count for count, _ in found] == [2, 2]
        assert found[1][1] == threading.get_ident(), "the caller does the last one itself"
        assert threads.each([threads.count]) == [5], "one task has them all"
        with threads.alone(1):
            assert threads.each([threads.count, threads.count]) == [1, 1]
        assert threads.count() == 5


def test_a_task_that_fails_leaves_none_behind() -> None:
    done: list[int] = []

    def slow() -> None:
        threads.np.linalg.svd(threads.np.ones((60, 60)))
        done.append(1)

    def failing() -> None:
        raise ZeroDivisionError("first")

    before = threads.torch.get_num_threads()
    for tasks in ([failing, slow], [slow, failing]):
        with pytest.raises(ZeroDivisionError), threads.alone(2):
            threads.each(tasks)
    assert len(done) in (1, 2), "a task that nobody began is left out with its step"
    assert threads.torch.get_num_threads() == before


def test_nested_tasks_come_to_an_end() -> None:
    with threads.alone(4):
        inner = [lambda i=i: threads.each([lambda: i, lambda: -i]) for i in range(6)]
        assert threads.each(inner) == [[i, -i] for i in range(6)]


#: Two tasks of one product, each by a thread of its own, beside the caller's product.
PRODUCTS = """
import threading, torch
from orbit4d.recon4d.raster import threads

matrix = torch.randn(128, 128, generator=torch.Generator().manual_seed(0))
square = matrix @ matrix.T
both = threading.Barrier(2)

def product():
    return torch.addmm(square, square, square, beta=-4.775, alpha=2.0315)

def task():
    both.wait(timeout=60)
    return threading.get_ident(), product()

with threads.alone(2):
    found = threads.each([task, task])
    assert len({who for who, _ in found}) == 2
    assert all(torch.equal(one, product()) for _, one in found)
"""


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core: torch has one thread everywhere")
def test_products_have_the_same_bits_whoever_takes_the_task() -> None:
    """In a process of its own: a thread that torch meets first has as many threads as the variable says."""
    done = subprocess.run(
        [sys.executable, "-c", PRODUCTS], env={**os.environ, "OMP_NUM_THREADS": "2"}, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
