"""Storage that does not answer is waited for: with longer and longer pauses, a line on screen, and an end.

The clock and the screen are handed in, so that tests need neither.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from orbit4d.datasets.core.errors import StorageFailed, StorageFault

T = TypeVar("T")

#: Longest pause between two tries, in seconds.
LONGEST_PAUSE = 60.0
#: Seconds between lines on screen.
SAY_EVERY = 30.0


def pause_after(faults: int) -> float:
    """Seconds to wait after that many faults in a row: 1, 2, 4, ... up to LONGEST_PAUSE."""
    return min(LONGEST_PAUSE, 2.0 ** (max(1, faults) - 1))


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Patience:
    """How long storage has not worked for anybody. Used from several threads."""

    def __init__(
        self,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = _print,
    ) -> None:
        self.seconds = seconds
        self._clock, self._say = clock, say
        self._since: float | None = None
        self._said = float("-inf")
        self._why = ""
        self._lock = threading.Lock()

    @property
    def waiting(self) -> bool:
        """Whether something failed since storage worked last."""
        return self._since is not None

    @property
    def message(self) -> str:
        """What is waited for, '' while storage works."""
        return f"storage: {self._why}" if self.waiting else ""

    def fault(self, why: str, who: str = "the driver") -> None:
        """Note a fault. Raises StorageFailed once nothing has worked for `seconds`."""
        with self._lock:
            now = self._clock()
            self._why = why
            if self._since is None:
                self._since = now
            left = self.seconds - (now - self._since)
            if left > 0 and now - self._said >= SAY_EVERY:
                self._said = now
                self._say(
                    f"storage: {why}; {who} waits and tries again, the run ends in {left:.0f} s "
                    "unless it works by then"
                )
        self.check()

    def check(self) -> None:
        """Raise StorageFailed once nothing has worked for `seconds`."""
        with self._lock:
            if self._since is None or self._clock() - self._since < self.seconds:
                return
            raise StorageFailed(
                f"storage has failed for {self._clock() - self._since:.0f} s: {self._why}; nothing that is "
                "done is lost: fix it and run the same command again (--storage-patience waits longer)"
            )

    def worked(self) -> None:
        """Note that storage worked."""
        with self._lock:
            if self._since is not None and self._said > float("-inf"):
                self._say(f"storage: works again after {self._clock() - self._since:.0f} s")
                self._said = float("-inf")
            self._since = None

    def retry(self, work: Callable[[], T], stop: threading.Event) -> T:
        """Do `work` again after each StorageFault, until it succeeds, time is up, or `stop` is set."""
        faults = 0
        while True:
            try:
                done = work()
            except StorageFault as error:
                faults += 1
                self.fault(str(error))
                if stop.wait(pause_after(faults)):
                    raise
            else:
                if faults:
                    self.worked()
                return done
