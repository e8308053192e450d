# SPDX-License-Identifier: GPL-3.0-or-later
# This module runs beside bpy, which is GPL, so it is GPL too.
"""Stand-ins for functions of Blender's add-ons, for the length of one import."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def patched(holder: Any, **stand_ins: Any) -> Iterator[None]:
    """Set attributes of a module or class; what was there comes back at the end, however it ends."""
    # As stored: getattr would turn a staticmethod into the function below it.
    before = {name: vars(holder)[name] for name in stand_ins}
    try:
        for name, value in stand_ins.items():
            setattr(holder, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(holder, name, value)
