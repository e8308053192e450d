# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Whether a material lets everything through: surfaces of alpha 0, which are in the file and never seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: What is this close to fully transparent shows nothing at 8 bits.
NOTHING = 1e-3
#: Nodes followed from the output; materials of real files need fewer than ten.
MAX_DEPTH = 32


def shows_nothing(material: Any) -> bool:
    """Whether no ray can tell that a surface with `material` is there, by its values as they stand now.

    What cannot be decided from constants (a texture, a node of an unknown kind) counts as seen.
    """
    if material is None or not material.use_nodes or material.node_tree is None:
        return False
    output = material.node_tree.get_output_node("CYCLES")
    if output is None or not output.inputs["Surface"].is_linked:
        return False
    if output.inputs["Volume"].is_linked:
        return False
    return _lets_all_through(output.inputs["Surface"], MAX_DEPTH)


def can_change(material: Any) -> bool:
    """Whether the material's values may differ over time."""
    if material is None or material.node_tree is None:
        return False
    return material.node_tree.animation_data is not None or material.animation_data is not None


def _lets_all_through(socket: Any, depth: int) -> bool:
    if not socket.is_linked or depth == 0:
        return False
    node = socket.links[0].from_node
    if node.type == "REROUTE":
        return _lets_all_through(node.inputs[0], depth - 1)
    if node.type == "BSDF_PRINCIPLED":
        alpha = _constant(node.inputs["Alpha"], depth - 1)
        return alpha is not None and alpha < NOTHING
    if node.type == "BSDF_TRANSPARENT":
        colour = node.inputs["Color"]
        return not colour.is_linked and min(colour.default_value[:3]) > 1.0 - NOTHING
    if node.type == "EMISSION":
        strength = _constant(node.inputs["Strength"], depth - 1)
        return strength is not None and abs(strength) < NOTHING and _only_added(node)
    if node.type == "ADD_SHADER":
        return all(_lets_all_through(each, depth - 1) for each in node.inputs)
    if node.type == "MIX_SHADER":
        factor = _constant(node.inputs[0], depth - 1)
        first, second = node.inputs[1], node.inputs[2]
        if factor is not None and factor < NOTHING:
            return _lets_all_through(first, depth - 1)
        if factor is not None and factor > 1.0 - NOTHING:
            return _lets_all_through(second, depth - 1)
        return _lets_all_through(first, depth - 1) and _lets_all_through(second, depth - 1)
    return False


def _only_added(node: Any) -> bool:
    """An emission of strength 0 is nothing where it is added to something, and black alone."""
    return all(link.to_node.type == "ADD_SHADER" for link in node.outputs[0].links)


def _constant(socket: Any, depth: int) -> float | None:
    """The number that `socket` always has, None when it may vary over the surface."""
    if not socket.is_linked:
        value = socket.default_value
        return float(value) if isinstance(value, int | float) else None
    if depth <= 0:
        return None
    node = socket.links[0].from_node
    if node.type == "REROUTE":
        return _constant(node.inputs[0], depth - 1)
    if node.type == "VALUE":
        return float(node.outputs[0].default_value)
    if node.type == "CLAMP":
        return _constant(node.inputs[0], depth - 1)
    if node.type == "MATH":
        return _arithmetic(node, depth - 1)
    return None


def _arithmetic(node: Any, depth: int) -> float | None:
    a, b = (_constant(socket, depth) for socket in node.inputs[:2])
    if node.operation == "MULTIPLY":
        # A texture times 0 is 0 everywhere.
        if a == 0.0 or b == 0.0:
            return 0.0
        return a * b if a is not None and b is not None else None
    if a is None or (b is None and node.operation not in ("ROUND", "FLOOR", "CEIL")):
        return None
    x, y = a, 0.0 if b is None else b
    results: dict[str, Callable[[], float]] = {
        "ADD": lambda: x + y,
        "SUBTRACT": lambda: x - y,
        "GREATER_THAN": lambda: float(x > y),
        "LESS_THAN": lambda: float(x < y),
        "MINIMUM": lambda: min(x, y),
        "MAXIMUM": lambda: max(x, y),
        "ROUND": lambda: float(round(x)),
    }
    return results[node.operation]() if node.operation in results else None
