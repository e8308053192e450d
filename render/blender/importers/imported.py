# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""What an importer hands back: actions, each a group of bindings, or a refusal.

An action is a list of bindings (data-block, Blender action, slot): one glTF animation or FBX take may move
many objects, and since Blender 4.4 an action without a chosen slot silently moves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import bpy

#: Collections of bpy.data whose members can be animated.
ANIMATED_COLLECTIONS = (
    "objects",
    "shape_keys",
    "materials",
    "node_groups",
    "meshes",
    "curves",
    "armatures",
    "lattices",
    "cameras",
    "lights",
    "textures",
)


class Refused(Exception):
    """The file asks for something that is not done with untrusted files."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def animatable_ids() -> Iterator[Any]:
    """Every data-block that an action may move, a material's own node tree included."""
    for collection in ANIMATED_COLLECTIONS:
        for owner in getattr(bpy.data, collection):
            yield owner
            tree = getattr(owner, "node_tree", None)
            if tree is not None:
                yield tree


def animated_ids() -> Iterator[Any]:
    """Those of `animatable_ids` that carry animation data."""
    return (owner for owner in animatable_ids() if owner.animation_data is not None)


@dataclass(frozen=True)
class Binding:
    """One data-block played by one slot of one Blender action."""

    owner: Any
    action: Any
    slot: Any

    def assign(self) -> None:
        data = self.owner.animation_data or self.owner.animation_data_create()
        data.action = self.action
        data.action_slot = self.slot


@dataclass
class Action:
    """A named group of bindings with its range in frames."""

    name: str
    bindings: list[Binding] = field(default_factory=list)
    frame_start: float = 0.0
    frame_end: float = 0.0

    def measure(self) -> Action:
        """Set the frame range from the keys that the bindings play."""
        keys = [
            key
            for binding in self.bindings
            for curve in curves_of(binding)
            for key in (
                (curve.keyframe_points[0].co[0], curve.keyframe_points[-1].co[0])
                if len(curve.keyframe_points)
                else ()
            )
        ]
        if keys:
            self.frame_start, self.frame_end = float(min(keys)), float(max(keys))
        return self


@dataclass
class Imported:
    """What an importer left in the scene."""

    fps: float
    actions: list[Action] = field(default_factory=list)
    rest: list[tuple[Callable[[Any], None], Any]] = field(default_factory=list)
    """(setter, value) of every animated property as it stands in the file, before any action played."""
    flags: list[str] = field(default_factory=list)
    first_frame: int = 0


def curves_of(binding: Binding) -> list[Any]:
    """The F-curves that the binding plays."""
    curves = []
    for layer in binding.action.layers:
        for strip in layer.strips:
            bag = strip.channelbag(binding.slot)
            if bag is not None:
                curves.extend(bag.fcurves)
    return curves


def rest_values(actions: list[Action]) -> list[tuple[Callable[[Any], None], Any]]:
    """Current values of all properties that any of the actions animates."""
    seen: set[tuple[int, str]] = set()
    rest: list[tuple[Callable[[Any], None], Any]] = []
    for action in actions:
        for binding in action.bindings:
            for curve in curves_of(binding):
                key = (binding.owner.as_pointer(), curve.data_path)
                if key not in seen:
                    seen.add(key)
                    rest += _rest_value(binding.owner, curve.data_path)
    return rest


def _rest_value(owner: Any, data_path: str) -> list[tuple[Callable[[Any], None], Any]]:
    head, _, name = data_path.rpartition(".")
    if not name.isidentifier() or name in ("hide_viewport", "show_viewport"):
        # A custom property such as pose.bones["x"]["y"]: drivers may read it, nothing we draw does. What the
        # viewport shows follows what renders show (see `as_rendered`).
        return []
    try:
        holder = owner.path_resolve(head) if head else owner
        value = getattr(holder, name)
    except (ValueError, AttributeError):
        return []
    if hasattr(value, "__len__") and not isinstance(value, str):
        value = tuple(value)

    def put(given: Any) -> None:
        setattr(holder, name, given)

    return [(put, value)]
