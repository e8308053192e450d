# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Actions that a .blend keeps and that nothing plays as it is opened: in tracks, stashed, or unused.

Each counts once, under its own name, whatever tracks hold it. A slot says which data-block it is for by the
name of that block; slots of files before Blender 4.4 do not, so that the properties they move decide.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import bpy

from orbit4d.render.blender.importers.imported import (
    Action,
    Binding,
    animatable_ids,
    animated_ids,
    curves_of,
)


def stored_actions(playing: Collection[Any]) -> tuple[list[Action], list[str]]:
    """Actions of the file other than the Blender actions `playing`, and flags for those that fit no object.

    Mutes every track. Order is that of Blender, by name.
    """
    tracks = _track_bindings()
    found, flags = [], []
    for block in bpy.data.actions:
        if block in playing:
            continue
        bindings = tracks.get(block, [])
        held = {binding.slot.handle for binding in bindings}
        for slot in block.slots:
            if slot.handle not in held:
                bindings += _owners(block, slot)
        moving = [binding for binding in bindings if curves_of(binding)]
        if moving:
            found.append(Action(block.name, moving).measure())
        elif any(curves_of(Binding(None, block, slot)) for slot in block.slots):
            flags.append(f"unbound_action:{block.name}")
    return found, flags


def _track_bindings() -> dict[Any, list[Binding]]:
    """Blender action -> what the strips of all tracks play it on."""
    found: dict[Any, list[Binding]] = {}
    for owner in animated_ids():
        for track in owner.animation_data.nla_tracks:
            track.mute = True
            for strip in _flat(track.strips):
                if strip.action is None:
                    continue
                slot = strip.action_slot or next(iter(strip.action_suitable_slots), None)
                binding = Binding(owner, strip.action, slot)
                if slot is not None and binding not in found.setdefault(strip.action, []):
                    found[strip.action].append(binding)
    return found


def _flat(strips: Iterable[Any]) -> Iterator[Any]:
    for strip in strips:
        yield strip
        yield from _flat(strip.strips)


def _owners(block: Any, slot: Any) -> list[Binding]:
    """The data-block that the slot is for; none where several fit equally well."""
    paths = {curve.data_path for curve in curves_of(Binding(None, block, slot))}
    best: list[Any] = []
    best_rank: tuple[Any, ...] = ()
    for owner in animatable_ids():
        if not paths or slot.target_id_type not in (owner.id_type, "UNSPECIFIED"):
            continue
        fitting = sum(_has(owner, path) for path in paths)
        # An action for a rig may move bones that this rig lacks, but not most of them.
        if fitting * 2 < len(paths):
            continue
        rank = (slot.name_display == owner.name, fitting, owner.animation_data is not None)
        if rank > best_rank:
            best, best_rank = [owner], rank
        elif rank == best_rank:
            best.append(owner)
    return [Binding(best[0], block, slot)] if len(best) == 1 else []


def _has(owner: Any, path: str) -> bool:
    try:
        owner.path_resolve(path)
    except ValueError:
        return False
    return True
