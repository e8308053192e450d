"""Ctrl-C and SIGTERM as a request: the loop that asks stops where it loses nothing."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Literal

#: Seconds within which a second signal is the first one, passed on: a launcher sends its processes the
#: signal that the terminal has sent them already.
ECHO_SECONDS = 1.0


@contextmanager
def stop_request(second: Literal["usual", "interrupt"]) -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set. Handlers that were there before are back when the body ends.

    What the second signal does: `usual` puts the earlier handlers back at the first one, so that it has its
    usual effect; `interrupt` raises KeyboardInterrupt, not within a second of the first. Signals belong to
    the main thread; elsewhere (Ray Train) nothing is caught.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
    first = 0.0

    def restore() -> None:
        for kind, handler in before.items():
            signal.signal(kind, handler)

    def ask(kind: int, frame: FrameType | None) -> None:
        nonlocal first
        if second == "usual":
            restore()
        elif stop.is_set() and time.monotonic() - first > ECHO_SECONDS:
            raise KeyboardInterrupt
        first = first or time.monotonic()
        stop.set()

    for kind in before:
        signal.signal(kind, ask)
    try:
        yield stop
    finally:
        restore()
