# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Animated visibility of FBX models, which Blender's importer leaves out, as keys of `hide_render`.

A model is hidden where the curve of its property Visibility is 0, and with it the models below it that
inherit visibility, as they do unless they say otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import bpy

from orbit4d.render.blender.importers.fbx_layers import Curve, element_properties, elements_of
from orbit4d.render.blender.importers.imported import Action
from orbit4d.render.blender.importers.visibility import Steps, key_visibility, merged_steps


class Visibility:
    """The models of one parsed file, and when each take shows them."""

    def __init__(self, root: Any, read_curve: Callable[[Any], Curve]) -> None:
        objects = list(elements_of(root, b"Objects"))
        self.models = {e.props[0]: e for e in objects if e.id == b"Model"}
        self.names = Counter(self._name(model) for model in self.models)
        self.flags: list[str] = []
        curves = {e.props[0]: e for e in objects if e.id == b"AnimationCurve"}
        takes = {e.props[0] for e in objects if e.id == b"AnimationStack"}
        above: dict[int, list[int]] = {}
        self.parents: dict[int, int] = {}
        of_model: dict[int, int] = {}
        """Curve node -> the model whose visibility it moves."""
        of_node: dict[int, int] = {}
        """Curve node -> its curve."""
        for link in elements_of(root, b"Connections"):
            kind, source, target = link.props[:3]
            if kind == b"OP" and link.props[3] == b"Visibility" and target in self.models:
                of_model[source] = target
            elif kind == b"OP" and source in curves:
                of_node[target] = source
            elif kind == b"OO":
                above.setdefault(source, []).append(target)
                if source in self.models and target in self.models:
                    self.parents[source] = target
        self.curves: dict[int, dict[int, Curve]] = {}
        """Take -> model -> its curve, where that is not constant."""
        for node, model in of_model.items():
            curve = read_curve(curves[of_node[node]]) if node in of_node else None
            if curve is None or len({value > 0 for value in curve[1]}) < 2:
                continue
            for layer in above.get(node, []):
                for take in takes.intersection(above.get(layer, [])):
                    self.curves.setdefault(take, {}).setdefault(model, curve)

    def key(self, take: int, action: Action, frames_per_tick: float) -> None:
        """Show and hide objects while `action` plays, as the take does."""
        moving: dict[int, Steps] = {
            model: [(float(t) * frames_per_tick, value > 0) for t, value in zip(*curve, strict=True)]
            for model, curve in self.curves.get(take, {}).items()
        }
        for model in self.models if moving else ():
            chain = self._chain(model)
            if not any(link in moving for link in chain):
                continue
            start = min(moving[link][0][0] for link in chain if link in moving)
            steps = merged_steps([moving.get(link, [(start, self._shown(link))]) for link in chain])
            obj = self._object(model)
            if obj is not None:
                key_visibility(action, obj, steps)
            elif model in moving and (flag := f"ignored_visibility:{self._name(model)}") not in self.flags:
                self.flags.append(flag)

    def _chain(self, model: int) -> list[int]:
        """The model and those above it whose visibility it inherits."""
        chain = [model]
        while chain[-1] in self.parents and self.parents[chain[-1]] not in chain:
            if not element_properties(self.models[chain[-1]]).get(b"Visibility Inheritance", 1):
                break
            chain.append(self.parents[chain[-1]])
        return chain

    def _shown(self, model: int) -> bool:
        return element_properties(self.models[model]).get(b"Visibility", 1.0) > 0

    def _name(self, model: int) -> str:
        return self.models[model].props[1].split(b"\0")[0].decode("utf-8", "replace")

    def _object(self, model: int) -> bpy.types.Object | None:
        """Blender's object of a model; None for a bone, and where several models share a name."""
        name = self._name(model)
        return bpy.data.objects.get(name) if self.names[name] == 1 else None
