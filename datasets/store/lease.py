"""One driver at a time: a lease beside the dataset says who writes it, and that he is alive.

`.lease-000001.json` holds who and since when, and is written again every few seconds. The lease of the
highest number counts. Taking over a dead driver's lease is creating the next number, which only one of
several can (`Store.put_new`). A driver that finds a higher number than its own, or its own gone, has lost the
dataset and stops: it may have been asleep. No clocks are compared: a driver counts as dead when its lease
does not change for a while, at once when it ran on this machine and its process is gone.
"""

from __future__ import annotations

import getpass
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from types import TracebackType
from typing import Any

from orbit4d.datasets.core.errors import InputError, StorageFault, StorageRefused, WorkError
from orbit4d.datasets.core.paths import place_is_gone
from orbit4d.datasets.core.storage import Store

PREFIX = ".lease-"
#: Seconds between signs of life.
BEAT_SECONDS = 15.0
#: Seconds without one after which a driver on another machine counts as dead.
DEAD_AFTER = 60.0
#: Age, by both clocks, at which nobody waits to see it.
LONG_DEAD = 3600.0


class LeaseLost(WorkError):
    """Another driver has taken the dataset over."""


@dataclass(frozen=True)
class Holder:
    """Who writes a dataset."""

    number: int
    id: str
    host: str
    user: str
    pid: int
    since: float
    """Seconds since 1970, by the holder's clock; so is `seen`."""
    seen: float
    """Last sign of life."""
    what: str = ""
    """The command."""
    machine: str = ""
    """The machine's boot and the process's namespace: where they are ours, `pid` can be looked for."""
    started: str = ""
    """Start of the process in ticks: a number that is in use again is another process."""
    progress: dict[str, Any] = field(default_factory=dict)
    """What the driver says of its work: total, done, rejected, quarantined, images, seconds."""

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.since))
        return f"{self.what} of {self.user} on {self.host} (process {self.pid}) since {since}"


def holder(store: Store) -> Holder | None:
    """Who writes the dataset, or wrote it and died; None where nobody does."""
    for name in sorted(_names(store), reverse=True):
        try:
            return Holder(**json.loads(store.read_small(name)))
        except FileNotFoundError:
            continue  # given back since
        except (ValueError, TypeError) as error:
            raise WorkError(
                f"{store.path(name)}: not a readable lease; delete it if nobody writes"
            ) from error
    return None


def _names(store: Store) -> list[str]:
    found = [name for name in store.list("") if name.startswith(PREFIX)]
    if not found and place_is_gone(store.uri):
        raise StorageRefused(f"{store.uri}: no such bucket; check the address")
    return found


def _name(number: int) -> str:
    return f"{PREFIX}{number:06d}.json"


class Lease:
    """Held within the `with` block; entering raises InputError where another driver lives.

    `check` before whatever must not be done twice: it raises LeaseLost once the dataset is another's.
    """

    def __init__(
        self,
        store: Store,
        what: str = "render",
        beat: float = BEAT_SECONDS,
        dead_after: float = DEAD_AFTER,
        say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
    ) -> None:
        self.store, self.beat, self.dead_after, self._say = store, beat, dead_after, say
        now, machine = time.time(), _machine()
        self._mine = Holder(
            0, secrets.token_hex(8), os.uname().nodename, _user(), os.getpid(), now, now, what,
            machine, _started(os.getpid()),
        )  # fmt: skip
        self._lost = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    @property
    def number(self) -> int:
        """1 for the first driver, one more for each that took over."""
        return self._mine.number

    def note(self, **progress: Any) -> None:
        """Tell, with the next sign of life, how far the work is."""
        self._mine.progress.update(progress)

    def check(self) -> None:
        """Raise LeaseLost where another driver has taken over. One listing."""
        if not self._lost.is_set() and max(_names(self.store), default="") != _name(self._mine.number):
            self._lost.set()
        if self._lost.is_set():
            other = holder(self.store)
            who = f"by {other}" if other is not None else "and ended"
            raise LeaseLost(
                f"{self.store.uri}: was taken over {who} while this run gave no sign of life; it stops here"
            )

    def __enter__(self) -> Lease:
        while not self._try():
            pass
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        try:
            mine = [n for n in _names(self.store) if n <= _name(self._mine.number)]
            self.store.delete(mine)
        except StorageFault as fault:
            # The next driver finds this process gone, or sees no sign of life.
            self._say(f"note: the lease cannot be given back: {fault}")

    def _try(self) -> bool:
        """Take the lease where it is free; False where another driver was faster."""
        other = holder(self.store)
        if other is not None:
            self._await_death(other)
        number = 1 if other is None else other.number + 1
        self._mine = replace(self._mine, number=number, seen=time.time())
        try:
            self.store.put_new(_name(number), self._text())
        except FileExistsError:
            return False
        # A store that ignores the condition lets several through; the last one stands in the file.
        now = holder(self.store)
        return now is not None and now.id == self._mine.id

    def _await_death(self, other: Holder) -> None:
        """Return once `other` is dead; raise InputError once he shows a sign of life."""
        alive = _alive(other)
        refused = InputError(
            f"{self.store.uri}: is being written by {other}; wait for its end, or choose another output"
        )
        if alive:
            raise refused
        if alive is False or abs(time.time() - other.seen) > LONG_DEAD:
            return
        self._say(f"{self.store.uri}: written by {other}; waiting {self.dead_after:.0f} s for a sign of life")
        until = time.monotonic() + self.dead_after
        while time.monotonic() < until:
            time.sleep(min(1.0, self.dead_after / 10))
            now = holder(self.store)
            if now is None or now.id != other.id:
                return
            if now.seen != other.seen:
                raise refused
        self._say(f"{self.store.uri}: no sign of life; taken over")

    def _text(self) -> bytes:
        return json.dumps(asdict(self._mine), indent=1).encode()

    def _keep(self) -> None:
        """Give signs of life until the end, or until another driver has taken over."""
        while not self._ended.wait(self.beat):
            try:
                now = holder(self.store)
                if now is None or now.id != self._mine.id:
                    self._lost.set()
                    return
                self._mine = replace(self._mine, seen=time.time())
                self.store.put(_name(self._mine.number), self._text())
            except (StorageFault, WorkError):
                continue  # an outage; others see no lease then either


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _machine() -> str:
    """Names this boot of this machine and the namespace of process numbers; '' where it is not known."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process was started, in ticks since the boot; '' where there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _alive(other: Holder) -> bool | None:
    """Whether a holder's process runs; None where it is on another machine."""
    if not other.machine or other.machine != _machine():
        return None
    return bool(other.started) and _started(other.pid) == other.started
