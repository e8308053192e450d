"""Every format of this folder by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from orbit4d.datasets.geometry.exports import (
    alembic,
    flow_files,
    mesh_sequences,
    point_sequences,
    rigs,
    skinned_glb,
    track_files,
    tracks_video,
    usd,
)
from orbit4d.datasets.geometry.exports.job import ExportAction, Files, each_action

FORMATS: dict[str, Callable[[Iterable[ExportAction]], Files]] = {
    **point_sequences.FORMATS,
    **mesh_sequences.FORMATS,
    **track_files.FORMATS,
    **flow_files.FORMATS,
    **tracks_video.FORMATS,
    "glb": each_action(skinned_glb.action_glb),
    **usd.FORMATS,
    **rigs.FORMATS,
    **alembic.FORMATS,
}
#: Formats that hold whole meshes, where an object cannot come and go.
MESHES = ("actionbench", "motion80", "gvfd", "dymesh", "glb", "usd", "alembic")
