"""A progress bar with rate and time left on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import IO, TypeVar

from tqdm import tqdm

T = TypeVar("T")


class Progress:
    """Counts finished units of one kind of work.

    On a terminal it draws a bar. Elsewhere (a log file, CI) it prints one line at most every
    `every_seconds`, and one at the end, so that logs stay readable.
    """

    def __init__(
        self,
        label: str,
        total: int | None = None,
        unit: str = "item",
        stream: IO[str] | None = None,
        every_seconds: float = 10.0,
    ) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0
        self._stream = stream or sys.stderr
        self._every = every_seconds
        self._start = self._last = time.monotonic()
        self._info: dict[str, object] = {}
        self._bar = (
            tqdm(total=total, desc=label, unit=unit, file=self._stream, dynamic_ncols=True)
            if self._stream.isatty()
            else None
        )

    def update(self, n: int = 1, **info: object) -> None:
        """Add `n` finished units; `info` (say loss=0.1) is shown behind the counts."""
        self.done += n
        self._info.update(info)
        if self._bar is not None:
            if info:
                self._bar.set_postfix(self._info, refresh=False)
            self._bar.update(n)
        elif time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            self._print()

    def _print(self) -> None:
        elapsed = max(time.monotonic() - self._start, 1e-9)
        rate = self.done / elapsed
        total = "" if self.total is None else f"/{self.total}"
        left = ""
        if self.total is not None and 0 < self.done < self.total:
            left = f", {(self.total - self.done) / rate:.0f} s left"
        info = "".join(f", {key} {value}" for key, value in self._info.items())
        print(
            f"{self.label}: {self.done}{total} {self.unit}s, {rate:.2f}/s{left}{info}",
            file=self._stream,
            flush=True,
        )

    def close(self) -> None:
        """Finish the bar, or print the last line."""
        if self._bar is not None:
            self._bar.close()
        else:
            self._print()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def track(items: Iterable[T], label: str, total: int | None = None, unit: str = "item") -> Iterator[T]:
    """Iterate over `items` under a `Progress`."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(label, total, unit) as progress:
        for item in items:
            yield item
            progress.update()
