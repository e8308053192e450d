# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""KHR_node_visibility: nodes of a glTF that are not seen, always or while an animation says so.

A node that is not visible hides everything below it. Blender's importer knows nothing of the extension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bpy

from orbit4d.render.blender.importers.gltf_addon import VISIBILITY, Reading, pointer_of
from orbit4d.render.blender.importers.imported import Action
from orbit4d.render.blender.importers.visibility import Steps, key_visibility, merged_steps


def hide_nodes(reading: Reading, actions: Sequence[Action], fps: float) -> None:
    """Hide from renders what the file hides: `actions` are its animations, in file order."""
    nodes = reading.document.get("nodes") or []
    if reading.importer is None:
        return
    parents = {child: i for i, node in enumerate(nodes) for child in node.get("children", [])}
    objects = _objects(reading.importer)
    animated = [_steps(reading.importer, a, fps) for a in reading.document.get("animations") or []]
    if all(_visible(node) for node in nodes) and not any(animated):
        return
    for index, found in objects.items():
        chain = [index]
        while chain[-1] in parents:
            chain.append(parents[chain[-1]])
        shown = {i: _visible(nodes[i]) for i in chain}
        for obj in found:
            obj.hide_render = not all(shown.values())
        for action, moving in zip(actions, animated):
            if not any(i in moving for i in chain):
                continue
            # Unanimated nodes of the chain hold their own value from before the first key.
            start = min(moving[i][0][0] for i in chain if i in moving)
            steps = merged_steps([moving.get(i, [(start, shown[i])]) for i in chain])
            for obj in found:
                key_visibility(action, obj, steps)


def _visible(node: dict[str, Any]) -> bool:
    extension = (node.get("extensions") or {}).get(VISIBILITY) or {}
    return extension.get("visible", True) is not False


def _objects(importer: Any) -> dict[int, list[bpy.types.Object]]:
    """Blender's objects of every node: its own, that of its mesh, those of its instances."""
    found: dict[int, list[bpy.types.Object]] = {}
    for key, vnode in importer.vnodes.items():
        obj = getattr(vnode, "blender_object", None)
        if obj is None:
            continue
        index = vnode.mesh_node_idx if vnode.mesh_node_idx is not None else key
        while not isinstance(index, int) and index is not None:
            # Made up by the importer: an instance, or a bone's mesh. It belongs to the node above.
            index = importer.vnodes[index].parent
        if index is not None:
            found.setdefault(index, []).append(obj)
    return found


def _steps(importer: Any, animation: dict[str, Any], fps: float) -> dict[int, Steps]:
    """(frame, visible) of every node whose visibility the animation moves."""
    from io_scene_gltf2.io.imp.gltf2_io_binary import BinaryData

    found: dict[int, Steps] = {}
    for channel in animation.get("channels", []):
        parts = (pointer_of(channel) or "").split("/")
        if len(parts) != 6 or parts[1] != "nodes" or parts[3:] != ["extensions", VISIBILITY, "visible"]:
            continue
        sampler = animation["samplers"][channel["sampler"]]
        times = BinaryData.get_data_from_accessor(importer, sampler["input"])
        values = BinaryData.get_data_from_accessor(importer, sampler["output"])
        if times and parts[2].isdecimal():
            found[int(parts[2])] = [(t[0] * fps, bool(v[0])) for t, v in zip(times, values, strict=False)]
    return found
