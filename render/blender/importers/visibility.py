# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Animated visibility as keys of `hide_render`: what Blender's importers leave out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import bpy

from orbit4d.render.blender.importers.imported import Action, Binding

#: (frame, visible from there on), in order.
Steps = list[tuple[float, bool]]


def key_visibility(action: Action, obj: bpy.types.Object, steps: Sequence[tuple[float, bool]]) -> None:
    """Show or hide `obj` in renders while `action` plays, from each frame of `steps` on.

    `steps` are (frame, visible) in order; before the first one its own value holds.
    """
    binding = next((b for b in action.bindings if b.owner == obj), None)
    if binding is None:
        binding = _new_binding(action, obj)
        action.bindings.append(binding)
    curve = _bag(binding.action, binding.slot).fcurves.new("hide_render")
    curve.keyframe_points.add(len(steps))
    for point, (frame, visible) in zip(curve.keyframe_points, steps, strict=True):
        point.co = (frame, 0.0 if visible else 1.0)
        point.interpolation = "CONSTANT"
    curve.update()


def _new_binding(action: Action, obj: bpy.types.Object) -> Binding:
    block = bpy.data.actions.new(f"{action.name} visibility")
    slot = block.slots.new(obj.id_type, obj.name)
    block.layers.new("visibility").strips.new(type="KEYFRAME")
    return Binding(obj, block, slot)


def _bag(block: Any, slot: Any) -> Any:
    return block.layers[0].strips[0].channelbag(slot, ensure=True)


def merged_steps(parts: Sequence[Sequence[tuple[float, bool]]]) -> list[tuple[float, bool]]:
    """Steps of what is visible while all of `parts` are: each a list of (frame, visible) in order."""
    frames = sorted({frame for steps in parts for frame, _ in steps})
    merged: list[tuple[float, bool]] = []
    for frame in frames:
        visible = all(_at(steps, frame) for steps in parts)
        if not merged or merged[-1][1] != visible:
            merged.append((frame, visible))
    return merged


def _at(steps: Sequence[tuple[float, bool]], frame: float) -> bool:
    value = steps[0][1]
    for start, visible in steps:
        if start > frame:
            break
        value = visible
    return value
