"""An asset's rig and surface: from the glTF file itself where it says them plainly, else from Blender."""

from __future__ import annotations

from collections.abc import Sequence

from orbit4d.compose.characters.blender_rig import read_with_blender
from orbit4d.compose.characters.gltf_rig import Character, NeedsBlender, placing_of, read_gltf


def read_character(path: str, scale: float = 1.0, centre: Sequence[float] = (0.0, 0.0, 0.0)) -> Character:
    """Rig and surface of an asset shown at scale · (x - centre), +Z up.

    Raises InputError, one line, for a file without a skeleton and one that is damaged.
    """
    if path.lower().endswith((".glb", ".gltf")):
        try:
            return read_gltf(path, placing_of(scale, centre))
        except NeedsBlender:
            pass
    return read_with_blender(path, scale, centre)
