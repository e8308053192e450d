"""Ctrl-C and SIGTERM end a run after the step it is in."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_request() -> Iterator[Callable[[], bool]]:
    """A function that says whether Ctrl-C or SIGTERM came: the loop stops after the step it is in.

    A second Ctrl-C stops at once; not within a second of the first, since a launcher passes on to its
    processes the signal that the terminal has sent them already. Signals belong to the main thread;
    elsewhere (Ray Train) nothing is caught.
    """
    asked = threading.Event()
    first = 0.0
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}

    def ask(kind: int, frame: FrameType | None) -> None:
        nonlocal first
        if asked.is_set() and time.monotonic() - first > 1.0:
            raise KeyboardInterrupt
        first = first or time.monotonic()
        asked.set()

    for kind in before:
        signal.signal(kind, ask)
    try:
        yield asked.is_set
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
