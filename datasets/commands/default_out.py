"""Where a command writes when no --out is given: beside a local input, else in the current folder."""

from __future__ import annotations

import glob
import os
import re

from orbit4d.datasets.index.reference import split_reference


def default_scene(source: str) -> str:
    """`clip.mp4` -> `clip.scene` beside it; DATASET:uid[:action] -> `uid.scene` in the current folder."""
    uid = split_reference(source)[1]
    if uid is not None:
        return f"{uid}.scene"
    return _beside(source, ".scene")


def default_table(source: str) -> str:
    """`assets/` -> `assets.curated.parquet` beside it; objaverse:animated -> `objaverse-animated.…` here."""
    return _beside(source, ".curated.parquet")


def _beside(source: str, ending: str) -> str:
    if "://" in source:
        last = re.split(r"[?#]", source.rstrip("/"))[0].rpartition("/")[2]
        return _clean(os.path.splitext(last)[0] or "remote") + ending
    if not os.path.exists(source):
        if not glob.has_magic(source) or re.fullmatch(r"[a-z][a-z0-9-]+:.*", source):
            # A name and no path: objaverse:animated?limit=100, demo:
            return _clean(source.partition("?")[0]) + ending
        return _of_pattern(source, ending)
    path = os.path.abspath(source)
    folder, name = os.path.split(path)
    stem = name if os.path.isdir(path) else os.path.splitext(name)[0]
    # As it was typed: a relative source gives a relative name, which is shorter to read and to type again.
    typed = os.path.dirname(source.rstrip("/"))
    near = os.path.basename(source.rstrip("/")) == name
    return os.path.join(typed if near else folder, stem + ending)


def _of_pattern(pattern: str, ending: str) -> str:
    """Beside the deepest folder that a pattern names outright; in the current folder where it names none."""
    folder = os.path.dirname(pattern)
    while glob.has_magic(folder):
        folder = os.path.dirname(folder)
    if not folder:
        return (os.path.basename(os.getcwd()) or "assets") + ending
    return _beside(folder, ending) if os.path.exists(folder) else _clean(folder) + ending


def _clean(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.") or "out"
