"""Alembic of a moving mesh. Blender writes it, in a process that whoever runs the export brings along."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.geometry.exports.job import LEFT_OUT, ExportAction, Files, Refused, leave_out

#: Writes one file: arrays (path of an npz), step in seconds, name, out. See render/blender/tasks/alembic.py.
Write = Callable[[dict[str, Any]], None]
#: Opens what writes; filled by `orbit4d export`.
OPENER: list[Callable[[], AbstractContextManager[Write]]] = []
#: Share of a step by which times may differ from even ones.
_UNEVEN = 1e-3


def alembic(actions: Iterable[ExportAction]) -> Files:
    """`<name>.abc` of each action: time k at k even steps from 0, vertices and triangles in their order.

    InputError where nothing brought Blender along.
    """
    if not OPENER:
        raise InputError("alembic is written by Blender: use the command `orbit4d export --format alembic`")
    with OPENER[-1]() as write, tempfile.TemporaryDirectory() as folder:
        for action in actions:
            try:
                yield f"{action.name}.abc", _written(action, write, folder)
            except LEFT_OUT as error:
                leave_out(action.name, error, action.notes)


def _written(action: ExportAction, write: Write, folder: str) -> bytes:
    moments = action.moments()
    steps = np.diff(action.mesh.seconds[moments])
    step = float(steps.mean()) if len(steps) else 1.0 / 24.0
    if step <= 0.0 or (len(steps) and np.abs(steps - step).max() > _UNEVEN * step):
        raise Refused("alembic:uneven", "its times are not evenly spaced; usd and glb can say them")
    arrays, out = os.path.join(folder, "mesh.npz"), os.path.join(folder, "mesh.abc")
    np.savez(arrays, vertices=action.geometry.vertices[moments], faces=action.mesh.faces)
    write({"arrays": arrays, "step": step, "name": action.name, "out": out})
    with open(out, "rb") as file:
        return file.read()


FORMATS = {"alembic": alembic}
