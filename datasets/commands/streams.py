"""Standard streams as commands need them: open, and able to print any text."""

from __future__ import annotations

import io
import os
import sys


def prepare_streams() -> None:
    """Open closed standard streams on the null device, and let no text be refused for its letters.

    A closed descriptor (`orbit4d stats ds >&-`) would be taken by the next file that is opened, and a native
    library or a child process would print into it. A terminal that is not UTF-8 shows `\\u2192` for what it
    lacks.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            _open_null(number)
        stream = getattr(sys, name)
        if stream is None or stream.closed:
            mode = "r" if number == 0 else "w"
            null = open(os.devnull, mode, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
            setattr(sys, name, null)
        elif number and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _open_null(number: int) -> None:
    opened = os.open(os.devnull, os.O_RDWR)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
    os.set_inheritable(number, True)
