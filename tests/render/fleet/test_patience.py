"""Waiting for storage, with a clock and a screen of the test's own; what a worker checks before it works."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orbit4d.datasets.core import errors
from orbit4d.datasets.core.errors import StorageFailed, StorageFault, StorageRefused
from orbit4d.datasets.core.storage import Store
from orbit4d.render.fleet import preflight as module
from orbit4d.render.fleet.patience import LONGEST_PAUSE, SAY_EVERY, Patience, pause_after
from orbit4d.render.fleet.preflight import full_disk, preflight
from orbit4d.render.fleet.settings import StorageCheck
from orbit4d.render.fleet.worker import Job, Worker, WorkerSettings


class Clock:
    def __init__(self) -> None:
        self.now, self.said = 0.0, list[str]()

    def __call__(self) -> float:
        return self.now

    def patience(self, seconds: float) -> Patience:
        return Patience(seconds, self, self.said.append)


def test_pauses_grow_to_a_minute() -> None:
    assert [pause_after(n) for n in (1, 2, 3, 4)] == [1, 2, 4, 8]
    assert pause_after(7) == pause_after(1000) == LONGEST_PAUSE


def test_a_line_now_and_then_and_an_end() -> None:
    clock = Clock()
    patience = clock.patience(100.0)
    for second in range(100):
        clock.now = float(second)
        patience.fault("cannot write s3://b/x: SlowDown")
    assert len(clock.said) == int(100 // SAY_EVERY) + 1
    assert "SlowDown" in clock.said[0] and "the run ends in 100 s" in clock.said[0]
    clock.now = 100.0
    with pytest.raises(StorageFailed, match=r"failed for 100 s: .*SlowDown; .*run the same command again"):
        patience.check()


def test_one_success_starts_the_time_anew() -> None:
    clock = Clock()
    patience = clock.patience(10.0)
    patience.fault("x")
    clock.now = 9.0
    patience.worked()
    assert clock.said[-1] == "storage: works again after 9 s" and not patience.waiting
    clock.now = 15.0
    patience.fault("x")
    clock.now = 24.0
    patience.check()
    clock.now = 25.0
    with pytest.raises(StorageFailed):
        patience.check()


def test_work_is_done_again_until_it_succeeds_or_is_stopped() -> None:
    clock, stop, tries = Clock(), threading.Event(), 0
    patience = clock.patience(10.0)

    def work() -> int:
        nonlocal tries
        tries += 1
        if tries < 2:
            raise StorageFailed("busy")
        return 7

    assert patience.retry(work, stop) == 7 and tries == 2
    stop.set()
    tries = 0
    with pytest.raises(StorageFailed, match="busy"):
        patience.retry(work, stop)
    with pytest.raises(ValueError, match="a bug"):
        patience.retry(lambda: (_ for _ in ()).throw(ValueError("a bug")).send(None), stop)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(28, "No space left on device"), StorageFailed, "the disk is full"),
        (OSError(122, "Disk quota exceeded"), StorageFailed, "the disk is full"),
        (OSError(16, "Please reduce your request rate."), StorageFailed, "reduce your request rate"),
        (PermissionError("Access Denied"), StorageRefused, "credentials"),
        (RuntimeError("Unable to locate credentials"), StorageRefused, "the address and the credentials"),
    ],
)  # fmt: skip
def test_what_an_exception_stands_for(error: Exception, kind: type[StorageFault], words: str) -> None:
    fault = errors.storage_fault("cannot write s3://b/x", error)
    assert type(fault) is kind and words in str(fault) and str(fault).startswith("cannot write s3://b/x: ")
    assert fault.exit_code == (1 if kind is StorageFailed else 2)


def test_a_worker_that_can_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{}")
    assert preflight(StorageCheck(str(tmp_path), "dataset.json")) == ""
    assert [path.name for path in tmp_path.iterdir()] == ["dataset.json"]
    assert preflight(StorageCheck()) == ""


def test_a_disk_that_is_not_mounted_is_seen(tmp_path: Path) -> None:
    why = preflight(StorageCheck(str(tmp_path / "nfs"), "dataset.json"))
    assert "mount the same disk on every machine" in why and not (tmp_path / "nfs").exists()


def test_what_passes_within_seconds_is_no_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.0))
    put, tries = Store.put, []

    def weak(store: Store, name: str, data: bytes) -> None:
        tries.append(name)
        if len(tries) < 3:
            raise StorageFailed(f"cannot write {store.path(name)}: busy")
        put(store, name, data)

    monkeypatch.setattr(Store, "put", weak)
    assert preflight(StorageCheck(str(tmp_path))) == "" and len(tries) == 3
    tries.clear()
    monkeypatch.setattr(module, "PAUSES", ())
    why = preflight(StorageCheck(str(tmp_path)))
    assert "busy" in why and "probe" not in why


def fails(job: Job, *_: Any) -> dict[str, Any]:
    """A hook whose storage fails as often as the file `marks` has lines left."""
    marks = Path(job.payload["marks"])
    left = marks.read_text().splitlines() if marks.exists() else []
    if left:
        marks.write_text("\n".join(left[1:]))
        raise StorageFailed(f"cannot write there: {left[0]}")
    return {"stored": True, "learned": job.payload.get("learned")}


def learns(job: Job) -> dict[str, Any]:
    job.payload["learned"] = {"sha256": "ab"}
    return dict(job.payload)


@pytest.fixture
def hooked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Job]:
    import orbit4d.render.fleet.worker as worker

    hooks = {"t:fails": fails, "t:learns": learns}
    monkeypatch.setattr(worker, "resolve", lambda name: hooks[name])
    monkeypatch.setattr(worker, "HOLD_PAUSES", (0.01, 0.01))
    return lambda marks: Job("a", "", {"marks": str(marks)}, 0, "t:learns", "t:fails")


def test_a_worker_holds_its_result_for_a_while(tmp_path: Path, hooked: Callable[..., Job]) -> None:
    worker = Worker(WorkerSettings())
    job = hooked(tmp_path / "marks")
    (tmp_path / "marks").write_text("busy\nbusy")
    reply = worker.run(job)
    assert reply.result is not None and reply.result["stored"] and not reply.storage
    (tmp_path / "marks").write_text("busy\nbusy\nbusy")
    reply = worker.run(job)
    assert reply.storage and reply.result is None and reply.retry
    assert reply.detail == f"worker on {os.uname().nodename}: cannot write there: busy"
    assert reply.learned == {"sha256": "ab"} and "learned" not in job.payload, "the driver's job is its own"


def test_a_worker_that_storage_failed_looks_before_it_works(
    tmp_path: Path, hooked: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(WorkerSettings(storage=StorageCheck(str(tmp_path / "out"), "dataset.json")))
    assert "mount the same disk" in worker.ready()["unfit"]
    reply = worker.run(hooked(tmp_path / "marks"))
    assert reply.storage and "mount the same disk" in reply.detail
    assert reply.learned == {}, "no hook ran"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dataset.json").write_text("{}")
    assert worker.run(hooked(tmp_path / "marks")).result is not None


def test_a_full_disk_is_told_from_a_free_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not full_disk(str(tmp_path)) and list(tmp_path.iterdir()) == []

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert full_disk(str(tmp_path)) and list(tmp_path.iterdir()) == []
