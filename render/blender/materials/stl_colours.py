# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Colours of the facets of a binary STL, which Blender's importer passes over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

#: Name of the attribute that they become.
ATTRIBUTE = "orbit4d_facets"
_HEADER, _FACET = 80, np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
#: sRGB of facets without a colour among others that have one.
_BARE = 0.906


def facet_colours(path: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None:
    """(corners [F, 3, 3], sRGB [F, 3]) of a binary STL with colours, None for one without, or a text.

    Materialise Magics: `COLOR=` in the header gives all facets a colour, and facets whose bit 15 is 0 have
    their own, red in the lowest bits. VisCAM, SolidView: facets whose bit 15 is 1 have one, blue in the
    lowest bits.
    """
    data = path.read_bytes()
    count = int.from_bytes(data[_HEADER : _HEADER + 4], "little")
    if len(data) < _HEADER + 4 + count * _FACET.itemsize or count == 0:
        return None
    facets = np.frombuffer(data, _FACET, count, _HEADER + 4)
    bits, marked = facets["attribute"].astype(np.int64), facets["attribute"] >> 15 == 1
    fives = np.stack([bits >> 10 & 31, bits >> 5 & 31, bits & 31], axis=1) / 31.0
    header = data[:_HEADER]
    at = header.find(b"COLOR=")
    if 0 <= at <= _HEADER - 10:
        whole = np.frombuffer(header, np.uint8, 3, at + 6) / 255.0
        colours = np.where(marked[:, None], whole, fives[:, ::-1])
    elif marked.any():
        colours = np.where(marked[:, None], fives, _BARE)
    else:
        return None
    return facets["corners"].astype(np.float32), colours.astype(np.float32)


def add_facet_colours(obj: Any, path: Path) -> bool:
    """Store the file's facet colours on the faces of `obj`; False where there are some and the faces, which
    the importer may have thinned out, cannot be distinguished."""
    found = facet_colours(path)
    if found is None or obj.type != "MESH":
        return True
    mesh, (corners, colours) = obj.data, found
    places = np.empty(len(mesh.vertices) * 3, np.float32)
    mesh.vertices.foreach_get("co", places)
    vertex = np.empty(len(mesh.loops), np.int32)
    mesh.loops.foreach_get("vertex_index", vertex)
    if len(vertex) != 3 * len(corners) or not np.array_equal(places.reshape(-1, 3)[vertex].reshape(-1, 3, 3),
                                                             corners):  # fmt: skip
        return False
    attribute = mesh.attributes.new(ATTRIBUTE, "FLOAT_COLOR", "CORNER")
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    rgba = np.ones((len(colours), 3, 4), np.float32)
    rgba[..., :3] = linear[:, None]
    attribute.data.foreach_set("color", rgba.ravel())
    return True
