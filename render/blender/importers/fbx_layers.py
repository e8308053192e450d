# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""FBX takes of several animation layers, composed to one curve a channel for Blender's importer.

The importer makes an action of every layer and plays the first. Rules of composition: FBX SDK, FbxAnimLayer
(blend mode, weight, rotation and scale accumulation). A layer adds to those before it, from the property's
own value on; rotations and scales are multiplied unless the layer says otherwise.

Two ways of writing a layer that comes first to a channel are distinguished by the default of its curve node:
where that is the property's own value, the curve holds whole values, and else what is added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import degrees, radians
from typing import Any

import numpy as np
import numpy.typing as npt
from mathutils import Euler, Quaternion

Values = npt.NDArray[np.float64]
#: Read from one curve: strictly increasing key times (FBX ticks), values.
Curve = tuple[npt.NDArray[np.int64], Values]
ROTATION, SCALING = b"Lcl Rotation", b"Lcl Scaling"
_TRANSFORM = {b"Lcl Translation": "loc", ROTATION: "rot", SCALING: "sca"}
_ADDITIVE = 0


@dataclass(frozen=True)
class Composed:
    """A curve as it is after all layers, in place of one of the file's own."""

    times: npt.NDArray[np.int64]
    values: Values


class Layers:
    """The layers of one file."""

    def __init__(self, root: Any, read_curve: Callable[[Any], Curve]) -> None:
        """`root` is the parsed file, `read_curve` turns one of its curves into times and values."""
        self.read_curve = read_curve
        self.defaults: dict[int, dict[int, float]] = {}
        """Curve node -> channel -> its default value."""
        self.flags: list[str] = []
        names: dict[int, str] = {}
        for element in elements_of(root, b"Objects"):
            if element.id == b"AnimationCurveNode":
                self.defaults[element.props[0]] = _channel_defaults(element)
            elif element.id == b"AnimationLayer":
                names[element.props[0]] = element.props[1].split(b"\0")[0].decode("utf-8", "replace")
        for link in elements_of(root, b"Connections"):
            if link.props[0] == b"OP" and link.props[3] == b"Weight" and link.props[2] in names:
                self.flags.append(f"ignored_layer_weight:{names[link.props[2]]}")

    def compose(self, layers: dict[int, Any]) -> dict[int, Any]:
        """All layers of one take, in the importer's own form, as a single one."""
        if len(layers) < 2:
            return layers
        first = next(iter(layers))
        played = _played({uuid: _Layer.of(layer[0][0], uuid == first) for uuid, layer in layers.items()})
        items: dict[Any, dict[Any, Any]] = {}
        for item in dict.fromkeys(item for uuid in played for item in layers[uuid][1]):
            parts = [(settings, layers[uuid][1].get(item, {})) for uuid, settings in played.items()]
            items[item] = self._item(item, parts)
        return {first: (layers[first][0], items)}

    def _item(self, item: Any, parts: list[tuple[_Layer, Any]]) -> dict[Any, Any]:
        composed: dict[Any, Any] = {}
        for prop in dict.fromkeys(prop for _, nodes in parts for _, prop in nodes.values()):
            curves = self._property(item, prop, [(s, self._channels(nodes, prop)) for s, nodes in parts])
            node = {("composed", channel): ((curve, None), channel) for channel, curve in curves.items()}
            composed["composed", prop] = (node, prop)
        return composed

    def _channels(self, nodes: Any, prop: bytes) -> dict[int, tuple[Curve, float | None]]:
        """Channel -> (curve, default of its curve node), of one layer and property."""
        found: dict[int, tuple[Curve, float | None]] = {}
        for uuid, (curves, of) in nodes.items():
            for (element, _), channel in curves.values() if of == prop else ():
                # A channel's first curve is the one that counts.
                default = self.defaults.get(uuid, {}).get(channel)
                found.setdefault(channel, (self.read_curve(element), default))
        return found

    def _property(self, item: Any, prop: bytes, parts: list[tuple[_Layer, Any]]) -> dict[int, Composed]:
        own = _own_values(item, prop)
        keys = [curve[0] for _, channels in parts for curve, _ in channels.values()]
        if not keys:
            return {}
        times = np.unique(np.concatenate(keys))
        now = np.repeat(np.array([own], np.float64), len(times), axis=0)
        moved: set[int] = set()
        for layer, channels in parts:
            added = {}
            for channel, (curve, default) in channels.items():
                value = np.interp(times, *curve)
                # Angles belong together, other channels stand alone.
                comes_first = not moved if prop == ROTATION else channel not in moved
                whole = default is not None and abs(default - own[channel]) < 1e-3 * max(1.0, abs(default))
                if layer.base or (comes_first and whole):
                    now[:, channel] = value
                elif layer.mode == _ADDITIVE:
                    added[channel] = value
                else:
                    now[:, channel] += layer.weight * (value - now[:, channel])
            moved |= set(channels)
            if added:
                now = _add(now, added, layer, prop, item)
                # A turn about one axis moves the angles about all three.
                moved |= {0, 1, 2} if prop == ROTATION else set()
        return {channel: Composed(times, now[:, channel]) for channel in sorted(moved)}


@dataclass(frozen=True)
class _Layer:
    base: bool
    """The first of its take: its values are whole ones."""
    mute: bool
    solo: bool
    weight: float
    mode: int
    """0 additive, 1 override, 2 override passthrough."""
    by_channel: bool
    """Rotations are added as Euler angles."""
    adds_scale: bool

    @classmethod
    def of(cls, element: Any, base: bool) -> _Layer:
        values = element_properties(element)
        return cls(
            base=base,
            mute=bool(values.get(b"Mute", 0)),
            solo=bool(values.get(b"Solo", 0)),
            weight=min(max(float(values.get(b"Weight", 100.0)) / 100.0, 0.0), 1.0),
            mode=int(values.get(b"BlendMode", _ADDITIVE)),
            by_channel=int(values.get(b"RotationAccumulationMode", 0)) == 1,
            adds_scale=int(values.get(b"ScaleAccumulationMode", 0)) == 1,
        )


def _played(layers: dict[int, _Layer]) -> dict[int, _Layer]:
    solo = any(layer.solo for layer in layers.values())
    return {k: layer for k, layer in layers.items() if not layer.mute and (layer.solo or not solo)}


def _add(now: Values, added: dict[int, Values], layer: _Layer, prop: bytes, item: Any) -> Values:
    """`now` [K, channels] with one additive layer on top."""
    neutral = 1.0 if prop == SCALING and not layer.adds_scale else 0.0
    values = np.full_like(now, neutral)
    for channel, value in added.items():
        values[:, channel] = value
    if prop == SCALING and not layer.adds_scale:
        return now * np.sign(values) * np.abs(values) ** layer.weight
    if prop == ROTATION and not layer.by_channel:
        return _turned(now, values, layer.weight, item.fbx_transform_data.rot_ord)
    return now + layer.weight * values


def _turned(now: Values, values: Values, weight: float, order: str) -> Values:
    """Euler angles [K, 3] in degrees of the rotations `now`, each followed by a part of that of `values`."""
    result, before = [], None
    for a, b in zip(now, values, strict=True):
        turn = Quaternion().slerp(Euler([radians(v) for v in b], order).to_quaternion(), weight)
        whole = Euler([radians(v) for v in a], order).to_quaternion() @ turn
        before = whole.to_euler(order, before) if before is not None else whole.to_euler(order)
        result.append([degrees(v) for v in before])
    return np.array(result, np.float64)


def _own_values(item: Any, prop: bytes) -> list[float]:
    """The property's value outside of animation, a number a channel."""
    if prop in _TRANSFORM:
        return [float(v) for v in getattr(item.fbx_transform_data, _TRANSFORM[prop])]
    if prop == b"DeformPercent":
        return [item.value * 100.0]
    return [0.0, 0.0, 0.0]


def elements_of(element: Any, name: bytes) -> Iterator[Any]:
    """The children of the first child of that name."""
    for child in element.elems:
        if child is not None and child.id == name:
            yield from (below for below in child.elems if below is not None)
            return


def element_properties(element: Any) -> dict[bytes, Any]:
    """Name -> first value of the element's own properties."""
    return {p.props[0]: p.props[4] for p in elements_of(element, b"Properties70") if len(p.props) > 4}


def _channel_defaults(element: Any) -> dict[int, float]:
    channels = {b"d|X": 0, b"d|Y": 1, b"d|Z": 2, b"d|DeformPercent": 0}
    return {channels[n]: float(v) for n, v in element_properties(element).items() if n in channels}
