# SPDX-License-Identifier: GPL-3.0-or-later
# This module runs inside Blender, which is GPL, so it is GPL too.
"""Where a material's surface is, for a ray from a camera: alpha as a function of one texture at most.

Cycles takes as the surface the first layer whose alpha is at least one half; so does this. What is neither a
constant nor follows from one texture's alpha, point by point, is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.render.blender.materials.opacity import MAX_DEPTH, can_change
from orbit4d.render.blender.materials.see_through import CULLED

Values = npt.NDArray[np.float64]

#: Alpha at which a layer counts as the surface, as in Cycles' depth and position passes.
SURFACE = 0.5
#: Alphas of a texture at which the function is inspected.
_GRID = 4097
_WRAPS = {"REPEAT": "repeat", "EXTEND": "extend", "CLIP": "clip"}
_LINEAR = {"Linear": True, "Closest": False}
_OPAQUE = (
    *("EMISSION", "BSDF_DIFFUSE", "BSDF_GLOSSY", "BSDF_GLASS", "BSDF_REFRACTION", "BSDF_TRANSLUCENT"),
    *("BSDF_TOON", "BSDF_SHEEN", "BSDF_METALLIC", "BSDF_HAIR", "BSDF_HAIR_PRINCIPLED", "BACKGROUND"),
    *("BSDF_RAY_PORTAL", "SUBSURFACE_SCATTERING"),
)


class Undecided(Exception):
    """Alpha that depends on more than one texture's own alpha; the text says on what."""


@dataclass(frozen=True)
class Cut:
    """A texture that says where a surface is."""

    image: Any
    threshold: float
    """The surface is there where the texture's alpha is at least this."""
    wrap: str
    linear: bool
    uv: str
    """Name of the UV map, '' for the one that renders use."""

    def texels(self) -> npt.NDArray[np.uint8]:
        """[h, w] alpha in 255ths, bottom row first."""
        w, h = self.image.size
        if min(w, h) < 1 or self.image.alpha_mode == "NONE":
            return np.full((1, 1), 255, np.uint8)
        values = np.empty(w * h * self.image.channels, np.float32)
        self.image.pixels.foreach_get(values)
        if self.image.channels < 4:
            return np.full((1, 1), 255, np.uint8)
        return np.rint(values.reshape(h, w, -1)[..., 3].clip(0.0, 1.0) * 255.0).astype(np.uint8)


@dataclass(frozen=True)
class _Alpha:
    """A number that may depend on one texture's alpha."""

    of: Callable[[Values], Values]
    texture: Any = None
    """Image texture node, None for a constant."""

    def with_(self, other: _Alpha, join: Callable[[Values, Values], Values]) -> _Alpha:
        if self.texture is not None and other.texture is not None and self.texture != other.texture:
            raise Undecided("two textures decide its alpha")
        return _Alpha(lambda a: join(self.of(a), other.of(a)), self.texture or other.texture)


def _number(value: float) -> _Alpha:
    return _Alpha(lambda a: np.full_like(a, value))


def cut_of(material: Any) -> Cut | bool:
    """True for a surface that is everywhere, False for one that is nowhere, or the texture that decides.

    Raises Undecided.
    """
    if material is None or not material.use_nodes or material.node_tree is None:
        return True
    output = material.node_tree.get_output_node("CYCLES")
    if output is None or not output.inputs["Surface"].is_linked:
        return True
    alpha = _of_shader(output.inputs["Surface"], MAX_DEPTH)
    grid = np.linspace(0.0, 1.0, _GRID)
    there = alpha.of(grid) >= SURFACE - 1e-9
    if can_change(material) and not there.all():
        raise Undecided("its alpha may change over time")
    if there.all() or not there.any():
        return bool(there[0])
    if (np.diff(there.astype(int)) < 0).any():
        raise Undecided("its alpha falls where the texture's rises")
    low, high = float(grid[np.argmax(there) - 1]), float(grid[np.argmax(there)])
    for _ in range(60):
        middle = 0.5 * (low + high)
        if alpha.of(np.array([middle]))[0] >= SURFACE - 1e-9:
            high = middle
        else:
            low = middle
    return _cut(alpha.texture, high)


def _cut(node: Any, threshold: float) -> Cut:
    if node.image is None:
        raise Undecided("a texture without an image decides its alpha")
    if node.image.source not in ("FILE", "GENERATED") or node.projection != "FLAT":
        raise Undecided("a moving or projected image decides its alpha")
    if node.extension not in _WRAPS or node.interpolation not in _LINEAR:
        raise Undecided(f"its texture is read as {node.interpolation} and continues as {node.extension}")
    return Cut(
        node.image, threshold, _WRAPS[node.extension], _LINEAR[node.interpolation], _uv(node.inputs["Vector"])
    )


def _uv(vector: Any) -> str:
    """Name of the UV map that a texture is read with."""
    while vector.is_linked:
        node = vector.links[0].from_node
        if node.type == "UVMAP" and not node.from_instancer:
            return str(node.uv_map)
        if node.type == "TEX_COORD" and vector.links[0].from_socket.name == "UV":
            return ""
        if node.type == "REROUTE":
            vector = node.inputs[0]
            continue
        if node.type == "MAPPING" and _changes_nothing(node):
            vector = node.inputs["Vector"]
            continue
        raise Undecided("its alpha's texture is not placed by a UV map alone")
    return ""


def _changes_nothing(mapping: Any) -> bool:
    for name, neutral in (("Location", 0.0), ("Rotation", 0.0), ("Scale", 1.0)):
        socket = mapping.inputs.get(name)
        if socket is not None and (socket.is_linked or any(v != neutral for v in socket.default_value)):
            return False
    return mapping.vector_type in ("POINT", "TEXTURE")


def _of_shader(socket: Any, depth: int) -> _Alpha:
    if not socket.is_linked:
        return _number(1.0)
    if depth <= 0:
        raise Undecided("its nodes run too deep")
    node = socket.links[0].from_node
    if node.type == "REROUTE":
        return _of_shader(node.inputs[0], depth - 1)
    if node.name == CULLED:
        return _of_shader(node.inputs[1], depth - 1)
    if node.type == "BSDF_PRINCIPLED":
        return _clipped(_scalar(node.inputs["Alpha"], depth - 1))
    if node.type == "BSDF_TRANSPARENT":
        colour = node.inputs["Color"]
        if colour.is_linked:
            raise Undecided("a texture tints what is seen through it")
        return _number(1.0 - float(np.mean(colour.default_value[:3])))
    if node.type == "MIX_SHADER":
        factor = _clipped(_scalar(node.inputs[0], depth - 1))
        parts = [_of_shader(node.inputs[k], depth - 1) for k in (1, 2)]
        first = parts[0].with_(factor, lambda a, f: a * (1.0 - f))
        return first.with_(parts[1].with_(factor, lambda a, f: a * f), np.add)
    if node.type == "ADD_SHADER":
        one, other = (_of_shader(each, depth - 1) for each in node.inputs)
        return _clipped(one.with_(other, lambda a, b: a + b - 1.0))
    if node.type in _OPAQUE:
        return _number(1.0)
    raise Undecided(f"its alpha hangs on a node of the kind {node.type}")


def _clipped(alpha: _Alpha) -> _Alpha:
    return _Alpha(lambda a: np.clip(alpha.of(a), 0.0, 1.0), alpha.texture)


def _scalar(socket: Any, depth: int) -> _Alpha:
    if not socket.is_linked:
        return _number(float(socket.default_value))
    if depth <= 0:
        raise Undecided("its nodes run too deep")
    link = socket.links[0]
    node = link.from_node
    if node.type == "REROUTE":
        return _scalar(node.inputs[0], depth - 1)
    if node.type == "VALUE":
        return _number(float(node.outputs[0].default_value))
    if node.type == "LIGHT_PATH":
        return _number(1.0 if link.from_socket.name == "Is Camera Ray" else 0.0)
    if node.type == "CLAMP":
        if node.inputs[1].is_linked or node.inputs[2].is_linked:
            raise Undecided("a clamp between textures decides its alpha")
        low, high = (float(node.inputs[k].default_value) for k in (1, 2))
        inner = _scalar(node.inputs[0], depth - 1)
        return _Alpha(lambda a: np.clip(inner.of(a), low, high), inner.texture)
    if node.type == "TEX_IMAGE" and link.from_socket.name == "Alpha":
        return _Alpha(lambda a: a, node)
    if node.type == "MATH":
        return _arithmetic(node, depth - 1)
    raise Undecided(f"its alpha hangs on a node of the kind {node.type}")


_JOINS: dict[str, Callable[[Values, Values], Values]] = {
    "ADD": np.add,
    "SUBTRACT": np.subtract,
    "MULTIPLY": np.multiply,
    "MINIMUM": np.minimum,
    "MAXIMUM": np.maximum,
    "GREATER_THAN": lambda x, y: (x > y).astype(np.float64),
    "LESS_THAN": lambda x, y: (x < y).astype(np.float64),
    # Blender rounds a half up.
    "ROUND": lambda x, _: np.floor(x + 0.5),
    "FLOOR": lambda x, _: np.floor(x),
    "CEIL": lambda x, _: np.ceil(x),
    "ABSOLUTE": lambda x, _: np.abs(x),
    "POWER": lambda x, y: np.power(np.maximum(x, 0.0), y),
}


def _arithmetic(node: Any, depth: int) -> _Alpha:
    if node.operation not in _JOINS:
        raise Undecided(f"arithmetic of the kind {node.operation} decides its alpha")
    alone = node.operation in ("ROUND", "FLOOR", "CEIL", "ABSOLUTE")
    one = _scalar(node.inputs[0], depth)
    other = _number(0.0) if alone else _scalar(node.inputs[1], depth)
    found = one.with_(other, _JOINS[node.operation])
    return _clipped(found) if node.use_clamp else found
