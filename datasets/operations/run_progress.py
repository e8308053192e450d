"""How a run that fills a dataset is getting on: `progress.json`, written by its driver while it works.

It is a note for people (`orbit4d status`) and nothing else reads it: what is done, rejected and quarantined
follows from the dataset itself. A driver that cannot write it continues.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import TracebackType
from typing import Any

from orbit4d.datasets.core.errors import OrbitError
from orbit4d.datasets.core.storage import Store

NAME = "progress.json"
#: Seconds between two notes: on a disk, and in object storage, where each costs a request.
EVERY_S, EVERY_REMOTE_S = 2.0, 10.0
#: Seconds over which the rate is taken: long enough for slow assets, short enough to follow lost nodes.
RATE_OVER_S = 600.0
#: A running driver that was silent for so many of its intervals, and for so many seconds at least, is gone.
SILENT_NOTES, SILENT_S = 6, 60.0


@dataclass(frozen=True)
class RunProgress:
    """One note."""

    state: str = "running"
    """running, finished, interrupted or failed."""
    host: str = ""
    pid: int = 0
    started: float = 0.0
    """Seconds since the epoch, on the driver's clock."""
    updated: float = 0.0
    every: float = EVERY_S
    """Seconds until the next note."""
    input: int = 0
    """Assets that the command names, duplicates included."""
    todo: int = 0
    """Assets that had no end when the run began."""
    done: int = 0
    """Of those of this run, as the two below."""
    rejected: int = 0
    quarantined: int = 0
    duplicate: int = 0
    images: int = 0
    workers: int = 0
    """Up or starting."""
    busy: int = 0
    assets_per_s: float = 0.0
    """Assets that ended, over the last ten minutes."""
    images_per_s: float = 0.0
    message: str = ""
    """What holds the run up, or ended it."""

    @property
    def left(self) -> int:
        """Assets of this run without an end."""
        return max(0, self.todo - self.done - self.rejected - self.quarantined)

    @property
    def seconds_left(self) -> float | None:
        """Until the run ends, at the present rate; None where there is none."""
        return self.left / self.assets_per_s if self.assets_per_s > 0 else None

    def alive(self, now: float) -> bool:
        """Whether the driver still writes, at `now` on a clock like its own."""
        return self.state == "running" and now - self.updated <= max(SILENT_S, SILENT_NOTES * self.every)


def read_progress(store: Store) -> RunProgress | None:
    """The newest note of a dataset, None where there is none or it cannot be read as one."""
    try:
        given = json.loads(store.read(NAME))
        known = {field.name for field in fields(RunProgress)}
        made = replace(RunProgress(), **{key: value for key, value in given.items() if key in known})
        float(made.updated), float(made.every), int(made.todo), float(made.assets_per_s)
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return None
    return made


class Reporter:
    """Writes notes from a thread of its own for the time of a `with` body, and a last one at its end."""

    def __init__(
        self, store: Store, counts: Callable[[], Mapping[str, Any]], every: float | None = None
    ) -> None:
        """`counts()` gives fields of RunProgress; it is called from another thread, so it only reads."""
        self._store, self._counts = store, counts
        self._every = every or (EVERY_S if store.local is not None else EVERY_REMOTE_S)
        now = time.time()
        self._note = RunProgress(
            host=socket.gethostname(), pid=os.getpid(), started=now, updated=now, every=self._every
        )
        self._history: deque[tuple[float, int, int]] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="orbit4d-progress", daemon=True)

    def __enter__(self) -> Reporter:
        self._write("running")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=60)
        if error is None:
            self._write("finished")
        else:
            interrupted = isinstance(error, KeyboardInterrupt)
            text = " ".join(str(error).split())[:300]
            self._write("interrupted" if interrupted else "failed", text)

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            self._write("running")

    def _write(self, state: str, message: str = "") -> None:
        now = time.time()
        given = {"state": state, **self._counts(), "updated": now}
        given["message"] = message or given.get("message", "")
        note = replace(self._note, **given)
        ended = note.done + note.rejected + note.quarantined
        self._history.append((now, ended, note.images))
        while len(self._history) > 2 and now - self._history[0][0] > RATE_OVER_S:
            self._history.popleft()
        then, ended_then, images_then = self._history[0]
        if now > then:
            note = replace(
                note,
                assets_per_s=round((ended - ended_then) / (now - then), 6),
                images_per_s=round((note.images - images_then) / (now - then), 4),
            )
        try:
            self._store.put(NAME, json.dumps(asdict(note), indent=1).encode())
        except (OrbitError, OSError):
            return  # the run itself meets the fault, and says so where it counts
