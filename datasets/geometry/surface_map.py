"""Which triangle each pixel sees, and how a clip's maps are kept.

Drawing the stored triangles again gives the same maps to the bit on every machine, so that of a frame only
the CRC-32 of its map is kept (little-endian uint32, 0 for nothing, else triangle + 1), and a list of pixels
that are to be overwritten, which is empty unless the renderer knows better. A map that is not the one that
was stored raises WorkError: nothing is derived from another surface than the one that was rendered.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import WorkError
from orbit4d.datasets.geometry import container, kernels
from orbit4d.datasets.geometry.action import ActionMesh

MAGIC = b"O4DSMAP1"

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class StoredMaps:
    """What is kept of a clip's maps."""

    crc32: npt.NDArray[np.uint32]
    """[F] of each frame's map."""
    exceptions: npt.NDArray[np.uint32]
    """[E, 3] frame, pixel (row * width + column), triangle + 1: what stands there instead."""


def view_matrix(camera: Camera) -> npt.NDArray[np.float64]:
    """[3, 4] from the world to homogeneous pixels."""
    return np.ascontiguousarray(camera.K @ camera.w2c_opencv[:3])


def draw(mesh: ActionMesh, t: int, camera: Camera) -> tuple[Ids, npt.NDArray[np.float64]]:
    """(triangle [H, W] that each pixel's centre sees, -1 for none; its depth along the view axis, inf)."""
    h = kernels.homogeneous(mesh.welded[t], view_matrix(camera))
    posed = kernels.Posed(h, mesh.welded_faces, mesh.kind(t), mesh.alpha)
    return kernels.draw(posed, camera.w, camera.h)


def checksum(seen: Ids) -> int:
    """CRC-32 of a map as it is kept."""
    return zlib.crc32((seen + np.int32(1)).astype("<u4").tobytes())


def encode_maps(maps: Sequence[Ids], drawn: Sequence[Ids] | None = None) -> bytes:
    """The member of a clip whose maps are `maps` [H, W]; `drawn` are those that drawing gives, where they
    differ.
    """
    rows = []
    for frame, (seen, ours) in enumerate(zip(maps, drawn or maps, strict=True)):
        odd = np.flatnonzero(seen.reshape(-1) != ours.reshape(-1))
        rows += [(frame, int(px), int(seen.reshape(-1)[px]) + 1) for px in odd]
    exceptions = np.array(rows, np.uint32).reshape(-1, 3)
    crc = np.array([checksum(seen) for seen in maps], np.uint32)
    blocks = {"crc32": (crc, "zstd"), "exceptions": (exceptions, "delta+split+zstd")}
    return container.pack(MAGIC, {"mode": "raster"}, blocks)


def decode_maps(data: bytes, name: str) -> StoredMaps:
    """Inverse of `encode_maps`; damage raises WorkError naming `name`."""
    header, blocks = container.unpack(MAGIC, data, name)
    if header.get("mode") != "raster" or not {"crc32", "exceptions"} <= blocks.keys():
        raise WorkError(f"{name}: surface maps of a kind that this orbit4d does not know; upgrade orbit4d")
    return StoredMaps(blocks["crc32"], blocks["exceptions"].reshape(-1, 3))


def with_exceptions(seen: Ids, stored: StoredMaps, frame: int, n_triangles: int, where: str) -> Ids:
    """`seen` as it was stored; WorkError naming `where` when it is not."""
    if len(stored.exceptions):
        rows = stored.exceptions[stored.exceptions[:, 0] == frame].astype(np.int64)
        if len(rows) and (rows[:, 1].max() >= seen.size or rows[:, 2].max() > n_triangles):
            raise WorkError(f"{where}: damaged (an exception outside the map); run `orbit4d verify`")
        seen.reshape(-1)[rows[:, 1]] = (rows[:, 2] - 1).astype(np.int32)
    if checksum(seen) != int(stored.crc32[frame]):
        raise WorkError(
            f"{where}: frame {frame}'s surface map comes out otherwise than it was rendered; "
            "run `orbit4d verify`, and report the machine if that finds nothing"
        )
    return seen
