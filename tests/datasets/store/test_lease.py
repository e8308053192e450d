"""One driver at a time: who holds a dataset, who may take it over, and what a late one can still break."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from orbit4d.datasets import DatasetWriter, InputError, stage_asset
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.operations.verify import verify
from orbit4d.datasets.store.lease import Holder, Lease, LeaseLost, holder


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store(tmp_path / "d")
    bucket = request.getfixturevalue("bucket") if request.param == "s3" else "memory:/"
    return Store(f"{bucket}/lease-{uuid.uuid4().hex}")


def leases(store: Store) -> list[str]:
    return [name for name in store.list("") if name.startswith(".lease-")]


def elsewhere(store: Store, **changes: Any) -> Holder:
    """A lease that a driver on another machine has taken."""
    now = time.time()
    other = Holder(1, "abc", "node7", "kim", 4711, now - 3600 * 5, now - 5, "render", "another boot", "1")
    other = replace(other, **changes)
    store.put(f".lease-{other.number:06d}.json", json.dumps(asdict(other)).encode())
    return other


def test_of_several_that_create_a_file_one_does(store: Store) -> None:
    store.put("there", b"0")
    won: list[int] = []
    gate = threading.Barrier(6)

    def create(i: int) -> None:
        gate.wait()
        try:
            store.put_new("new", b"%d" % i)
        except FileExistsError:
            return
        won.append(i)

    threads = [threading.Thread(target=create, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The memory of one process is no place for two writers at once; the others decide.
    if not store.uri.startswith("memory"):
        assert len(won) == 1 and store.read("new") == b"%d" % won[0]
    with pytest.raises(FileExistsError):
        store.put_new("there", b"1")
    assert store.read("there") == b"0"
    assert not store.list("", temporary=True)


def test_a_second_driver_is_refused_with_who_and_since(store: Store) -> None:
    with Lease(store, "render") as lease:
        lease.check()
        now = holder(store)
        assert now is not None and now.pid == os.getpid() and now.what == "render"
        with (
            pytest.raises(InputError, match=rf"render of .*process {os.getpid()}\) since \d{{4}}-"),
            Lease(store),
        ):
            raise AssertionError
        lease.check()
    assert leases(store) == [] and holder(store) is None
    with Lease(store):
        pass


def test_a_killed_driver_of_this_machine_is_taken_over_at_once(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from orbit4d.datasets.core.storage import Store; "
        "from orbit4d.datasets.store.lease import Lease; "
        "Lease(Store(sys.argv[1])).__enter__(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    store = Store(tmp_path)
    assert leases(store) == [".lease-000001.json"]
    began = time.monotonic()
    with Lease(store, dead_after=60.0) as lease:
        assert time.monotonic() - began < 5
        assert max(leases(store)) == ".lease-000002.json"
        lease.check()
    assert leases(store) == []


def test_a_driver_elsewhere_is_dead_when_it_gives_no_sign(store: Store) -> None:
    said: list[str] = []
    elsewhere(store)
    with Lease(store, dead_after=0.5, say=said.append) as lease:
        lease.check()
    assert "of kim on node7" in said[0] and leases(store) == []
    elsewhere(store, seen=time.time() - 7200)
    began = time.monotonic()
    with Lease(store, dead_after=30.0):
        assert time.monotonic() - began < 10, "nobody waits for one that has been silent for hours"


def test_a_driver_elsewhere_that_beats_is_left_alone(store: Store) -> None:
    other = elsewhere(store)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.05):
            elsewhere(store, seen=time.time())

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(InputError, match="of kim on node7"), Lease(store, dead_after=20.0, say=str):
            raise AssertionError
    finally:
        ended.set()
        thread.join()
    now = holder(store)
    assert now is not None and now.id == other.id


def test_a_driver_that_was_taken_over_stops(store: Store) -> None:
    with Lease(store, beat=0.05) as lease:
        elsewhere(store, number=2, id="new")
        with pytest.raises(LeaseLost, match=r"taken over by render of kim on node7"):
            lease.check()
        time.sleep(0.3)
    # It gives back its own and leaves the other's.
    assert leases(store) == [".lease-000002.json"]


def test_signs_of_life_tell_how_far_the_work_is(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with Lease(store, beat=0.02) as lease:
        first = holder(store)
        lease.note(done=3, total=7)
        until = time.monotonic() + 20
        while (now := holder(store)) is None or not now.progress:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert first is not None and now.seen > first.seen and now.progress == {"done": 3, "total": 7}


CONFIG = {"n": 1}
UIDS = ["a", "b", "c", "d"]


@pytest.fixture
def raced(tmp_path: Path, make_clips: Callable[..., Any]) -> tuple[Path, str]:
    """A dataset whose four assets are staged, and the digest of one that was rolled in peace."""
    for name in ("calm", "raced"):
        writer = DatasetWriter(tmp_path / name, CONFIG)
        for uid_ in UIDS:
            stage_asset(writer.store, uid_, make_clips(uid_, n_frames=2, size=8))
    calm = DatasetWriter(tmp_path / "calm", CONFIG)
    calm.roll(final=True)
    return tmp_path / "raced", calm.digest()


def overtake(folder: Path, partial: bool = False) -> None:
    """What a driver does that takes the dataset over: it commits all that is staged."""
    store = Store(folder)
    elsewhere(store, number=2, id="new")
    other = DatasetWriter(folder, CONFIG)
    other.term = 2
    if partial:
        other.commit(other.waiting()[:2])
    else:
        other.roll(final=True)


@pytest.mark.parametrize("partial", [False, True], ids=["all", "some"])
@pytest.mark.parametrize("at", ["read", "shard", "checked", "written"])
def test_commits_stay_right_when_two_drivers_race(at: str, partial: bool, raced: tuple[Path, str]) -> None:
    """A driver sleeps in the middle of a commit, another takes over and commits the same; then it wakes."""
    folder, digest = raced
    late = DatasetWriter(folder, CONFIG)
    put, put_stream = late.store.put, late.store.put_stream

    def slow_put(name: str, data: bytes) -> None:
        before = name.startswith("index/") and at == "checked"
        if before:
            overtake(folder, partial)
        put(name, data)
        if name.startswith("index/") and at == "written":
            overtake(folder, partial)

    def slow_shard(name: str, pieces: Any) -> None:
        if at == "read":
            overtake(folder, partial)
        put_stream(name, pieces)
        if at == "shard":
            overtake(folder, partial)

    late.store.put, late.store.put_stream = slow_put, slow_shard  # type: ignore[method-assign]
    with Lease(Store(folder)) as lease:
        late.guard = lease.check
        with pytest.raises(LeaseLost):
            late.commit(late.waiting())
    # The one that took over ends its work.
    last = DatasetWriter(folder, CONFIG)
    last.term = 2
    last.roll(final=True)
    assert last.digest() == digest
    assert verify(str(folder)).findings == []
    assert last.finished() == set(UIDS)


def test_what_two_drivers_committed_stands_once(raced: tuple[Path, str]) -> None:
    """Without a lease at all: two writers commit the same assets, and the end of either fixes it."""
    folder, digest = raced
    one, two = DatasetWriter(folder, CONFIG), DatasetWriter(folder, CONFIG)
    two.term = 2
    group = one.waiting()
    put = one.store.put

    def slow_put(name: str, data: bytes) -> None:
        if name.startswith("index/"):
            two.commit(group[1:3])
        put(name, data)

    one.store.put = slow_put  # type: ignore[method-assign]
    one.commit(group)
    assert not verify(str(folder)).ok, "assets stand twice"
    two.roll(final=True)
    assert DatasetWriter(folder, CONFIG).digest() == digest
    assert verify(str(folder)).findings == []
