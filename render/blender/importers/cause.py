# SPDX-License-Identifier: GPL-3.0-or-later
# This module runs beside bpy, which is GPL, so it is GPL too.
"""What to say of an error on one line: its cause first, however long the traceback around it."""

from __future__ import annotations

import re

_FRAME = re.compile(r'File "([^"]*)", line (\d+), in (\S+)')
_LONGEST = 500


def cause_of(error: BaseException) -> str:
    """At most 500 characters. An operator of Blender hands on a traceback as its message: of that, the last
    line, which is the cause, and the place that raised it."""
    text = str(error)
    if "Traceback (most recent call last)" in text:
        # Blender adds where the operator was called from.
        trace = text.rpartition("\nLocation: ")[0] or text
        lines = [line for line in trace.splitlines() if line.strip()]
        # Carets and source lines of a traceback are indented; a message may have further lines of its own.
        last = max((i for i, line in enumerate(lines) if line.startswith(" ")), default=-1)
        cause = " ".join(" ".join(lines[last + 1 :]).split())
        places = _FRAME.findall(trace)
        if cause and places:
            path, number, function = places[-1]
            place = re.split(r"[\\/]", path)[-1]
            return f"{cause[: _LONGEST - 100]} ({place}, line {number}, in {function})"[:_LONGEST]
    return (" ".join(text.split()) or type(error).__name__)[:_LONGEST]
