# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Blender's glTF importer, patched while it runs: what it refuses, loses or stumbles over.

It refuses bytes after the end of a GLB and extensions that we serve ourselves (KHR_node_visibility,
EXT_meshopt_compression), it tells animated materials apart by their names (which files need not give), and a
pointer that it does not know, or trips over, is lost or ends the import.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from orbit4d.datasets.assets import meshopt
from orbit4d.render.blender.importers.patching import patched

VISIBILITY = "KHR_node_visibility"
_POINTER = "KHR_animation_pointer"
#: Pointers to these are served by the importer's node animation, or move what is never drawn.
_OTHERWISE = ("nodes", "meshes", "cameras")
#: What a pointer to a value that the file does not have raises.
_STUMBLES = (KeyError, IndexError, AttributeError, TypeError, ValueError, UnboundLocalError, AssertionError)


@dataclass
class Reading:
    """What one run of the importer left behind."""

    document: dict[str, Any] = field(default_factory=dict)
    importer: Any = None
    """The add-on's own object: accessors can be read from it, and nodes looked up."""
    names: list[tuple[str, str]] = field(default_factory=list)
    """(name of the NLA track, name in the file) of every animation, in file order."""
    unpacks: bool = False
    """Whether buffer views have to be decompressed."""
    played: set[str] = field(default_factory=set)
    """Pointers that became F-curves."""

    def ignored_pointers(self) -> list[str]:
        """Animated properties of the file that are drawn still."""
        ignored: dict[str, None] = {}
        for pointer in _pointers(self.document):
            parts = pointer.split("/")
            if pointer in self.played or parts[1:2] in ([key] for key in _OTHERWISE[1:]):
                continue
            if parts[1:2] == ["nodes"] and parts[3:4] != ["extensions"]:
                continue
            if parts[-2:] == [VISIBILITY, "visible"] or parts[1:3] == ["extensions", "KHR_lights_punctual"]:
                continue
            ignored[pointer] = None
        return list(ignored)


def _pointers(document: dict[str, Any]) -> Iterator[str]:
    for animation in document.get("animations", []):
        for channel in animation.get("channels", []):
            if (pointer := pointer_of(channel)) is not None:
                yield pointer


def pointer_of(channel: dict[str, Any]) -> str | None:
    """What a channel's KHR_animation_pointer points at, None for the channels of plain glTF."""
    extension = (channel.get("target", {}).get("extensions") or {}).get(_POINTER) or {}
    pointer = extension.get("pointer")
    return pointer if isinstance(pointer, str) else None


@contextmanager
def repaired() -> Iterator[Reading]:
    """Blender's importer, patched inside the `with`; afterwards the `Reading` says what it read."""
    from io_scene_gltf2.blender.imp import animation_pointer
    from io_scene_gltf2.blender.imp.animation import BlenderAnimation
    from io_scene_gltf2.blender.imp.blender_gltf import BlenderGlTF
    from io_scene_gltf2.io.imp.gltf2_io_binary import BinaryData
    from io_scene_gltf2.io.imp.gltf2_io_gltf import glTFImporter

    reading = Reading()
    with (
        patched(
            glTFImporter,
            load_glb=_without_trailing_bytes(glTFImporter.load_glb),
            load_json=staticmethod(_prepared(glTFImporter, reading)),
        ),
        patched(BinaryData, get_buffer_view=staticmethod(_unpacked(BinaryData, reading))),
        patched(BlenderGlTF, create=staticmethod(_remembered(BlenderGlTF, reading))),
        patched(BlenderAnimation, restore_animation=staticmethod(_plays_nothing)),
        _guarded_pointers(animation_pointer, BlenderGlTF, reading),
    ):
        yield reading
    if reading.importer is not None:
        reading.names = [
            (animation.track_name, animation.name or animation.track_name)
            for animation in reading.importer.data.animations or []
        ]


def _plays_nothing(gltf: Any, name: str) -> None:
    """The importer ends by playing animation 0, which overwrites the file's own values as soon as the scene
    is evaluated."""


def _without_trailing_bytes(original: Any) -> Any:
    def load_glb(self: Any, content: memoryview) -> Any:
        # The header's length says where the GLB ends; what follows is no part of it.
        length = struct.unpack_from("<I", content, 8)[0]
        return original(self, content[:length])

    return load_glb


def _prepared(importer: Any, reading: Reading) -> Any:
    original = importer.load_json

    def load_json(content: Any) -> Any:
        document = original(content)
        required = document.get("extensionsRequired") or []
        reading.unpacks = any(name in required for name in meshopt.EXTENSIONS)
        served = {VISIBILITY, *meshopt.EXTENSIONS}
        document["extensionsRequired"] = [name for name in required if name not in served]
        if _POINTER in (document.get("extensionsUsed") or []):
            _name_apart(document)
        reading.document = document
        return document

    return load_json


def _name_apart(document: dict[str, Any]) -> None:
    """Give materials, cameras and lights a name each: the importer files their animation under it."""
    lights = (document.get("extensions") or {}).get("KHR_lights_punctual") or {}
    for kind, entries in (
        ("material", document.get("materials") or []),
        ("camera", document.get("cameras") or []),
        ("light", lights.get("lights") or []),
    ):
        taken = {entry.get("name") for entry in entries}
        seen: set[str] = set()
        for i, entry in enumerate(entries):
            name = entry.get("name")
            if not name or name in seen:
                name = f"{name or kind}.{i:03d}"
                while name in taken:
                    name += "_"
                entry["name"] = name
                taken.add(name)
            seen.add(name)


def _unpacked(binary: Any, reading: Reading) -> Any:
    original = binary.get_buffer_view
    cache: dict[int, bytes] = {}

    def get_buffer_view(gltf: Any, index: int) -> Any:
        view = gltf.data.buffer_views[index]
        packed = meshopt.packed_view({"extensions": view.extensions}) if reading.unpacks else None
        if packed is None:
            return original(gltf, index)
        if index not in cache:
            if packed["buffer"] not in gltf.buffers:
                gltf.load_buffer(packed["buffer"])
            cache[index] = meshopt.unpack(packed, memoryview(gltf.buffers[packed["buffer"]]))
        return memoryview(cache[index])

    return get_buffer_view


def _remembered(blender_gltf: Any, reading: Reading) -> Any:
    original = blender_gltf.create

    def create(gltf: Any) -> None:
        reading.importer = gltf
        original(gltf)

    return create


def _is_opaque_colour(document: dict[str, Any], pointer: str) -> bool:
    parts = pointer.split("/")
    if len(parts) != 5 or parts[1] != "materials" or parts[4] != "baseColorFactor":
        return False
    return document["materials"][int(parts[2])].get("alphaMode", "OPAQUE") == "OPAQUE"


@contextmanager
def _guarded_pointers(module: Any, blender_gltf: Any, reading: Reading) -> Iterator[None]:
    """Pointers that the importer stumbles over stay unplayed; those that it plays are written down."""
    make_curve, do_channel = module.make_fcurve, module.BlenderPointerAnim.do_channel
    dispatch = blender_gltf.dispatch_animation_pointer
    playing = ""

    def make_fcurve(*args: Any, **options: Any) -> Any:
        reading.played.add(playing)
        return make_curve(*args, **options)

    def guarded_channel(gltf: Any, animation: int, channel: Any, *args: Any, **options: Any) -> None:
        nonlocal playing
        playing = channel.target.extensions[_POINTER]["pointer"]
        try:
            do_channel(gltf, animation, channel, *args, **options)
        except _STUMBLES as error:
            # It stumbles over the alpha of an unlit colour, with the colour itself done: opaque, that is all.
            if not _is_opaque_colour(reading.document, playing):
                reading.played.discard(playing)
            print(f"pointer {playing}: {type(error).__name__}: {error}")

    def guarded_dispatch(*args: Any) -> None:
        try:
            dispatch(*args)
        except _STUMBLES as error:
            print(f"pointer: {type(error).__name__}: {error}")

    with (
        patched(module, make_fcurve=make_fcurve),
        patched(module.BlenderPointerAnim, do_channel=staticmethod(guarded_channel)),
        patched(blender_gltf, dispatch_animation_pointer=staticmethod(guarded_dispatch)),
    ):
        yield
