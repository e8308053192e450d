"""FBX takes of several animation layers are composed as the FBX SDK documents it."""

from __future__ import annotations

import math
from typing import Any

import pytest

#: Exports two boxes that move, takes the file apart, and writes takes with layers of our own instead.
WRITE = """
import bpy, os
import numpy as np
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.context.scene.render.fps = 25
bpy.context.scene.frame_end = 25
for name, x in (("fox", 0), ("owl", 4), ("egg", 0)):
    bpy.ops.mesh.primitive_cube_add(location=(x, 0, 0))
    obj = bpy.context.object
    obj.name = name
    if name == "egg":
        obj.parent = bpy.data.objects["owl"]
    obj.keyframe_insert("location", frame=0)
    obj.keyframe_insert("location", frame=25)
bpy.ops.export_scene.fbx(filepath=plain, axis_up="Z", axis_forward="Y", apply_scale_options="FBX_SCALE_ALL",
                         bake_anim_use_nla_strips=False, bake_anim_use_all_actions=False)
from io_scene_fbx import encode_bin, parse_fbx
root, version = parse_fbx.parse(plain)
ADD = {"Z": "int8", "Y": "int16", "C": "char", "B": "bool", "I": "int32", "F": "float32", "D": "float64",
       "L": "int64", "R": "bytes", "S": "string", "f": "float32_array", "d": "float64_array",
       "i": "int32_array", "l": "int64_array", "b": "bool_array", "c": "byte_array"}

def rebuilt(element):
    made = encode_bin.FBXElem(element.id)
    for kind, value in zip(element.props_type, element.props):
        getattr(made, "add_" + ADD[chr(kind)])(value)
    made.elems = [rebuilt(child) for child in element.elems if child is not None]
    return made

def child(parent, name, *values):
    made = encode_bin.FBXElem(name)
    for value in values:
        if isinstance(value, bytes):
            made.add_string(value)
        elif isinstance(value, float):
            made.add_float64(value)
        elif value >= 1 << 31:
            made.add_int64(value)
        else:
            made.add_int32(value)
    parent.elems.append(made)
    return made

def props(parent, values):
    block = child(parent, b"Properties70")
    for name, value in values.items():
        child(block, b"P", name.encode(), b"", b"", b"", value)

def numbered(parent, name, number, title, kind):
    made = encode_bin.FBXElem(name)
    made.add_int64(number)
    made.add_string(title + b"\\0\\1" + kind)
    made.add_string(b"")
    parent.elems.append(made)
    return made

tree = rebuilt(root)
objects = next(e for e in tree.elems if e.id == b"Objects")
links = next(e for e in tree.elems if e.id == b"Connections")
models = {}
for element in next(e for e in root.elems if e.id == b"Objects").elems:
    if element.id == b"Model":
        models[element.props[1].split(b"\\0")[0].decode()] = element.props[0]
gone = {e.props[0] for e in next(e for e in root.elems if e.id == b"Objects").elems
        if e.id.startswith(b"Animation")}
objects.elems = [e for e in objects.elems if not e.id.startswith(b"Animation")]
kept = [e for e in next(e for e in root.elems if e.id == b"Connections").elems
        if e.props[1] not in gone and e.props[2] not in gone]
links.elems = [rebuilt(e) for e in kept]
TICKS, number = 46186158000, iter(range(1 << 40, 1 << 41))

def link(kind, source, target, *name):
    made = encode_bin.FBXElem(b"C")
    made.add_string(kind)
    made.add_int64(source)
    made.add_int64(target)
    for text in name:
        made.add_string(text)
    links.elems.append(made)

for title, layers in takes.items():
    stack = next(number)
    numbered(objects, b"AnimationStack", stack, title.encode(), b"AnimStack")
    for i, layer in enumerate(layers):
        uuid = next(number)
        props(numbered(objects, b"AnimationLayer", uuid, f"layer {i}".encode(), b"AnimLayer"), layer["set"])
        link(b"OO", uuid, stack)
        for model, prop, defaults, curves in layer["nodes"]:
            node = next(number)
            block = numbered(objects, b"AnimationCurveNode", node, b"N", b"AnimCurveNode")
            props(block, {f"d|{axis}": float(v) for axis, v in zip("XYZ", defaults)})
            link(b"OO", node, uuid)
            link(b"OP", node, models[model], b"Lcl " + prop.encode())
            for axis, keys in curves.items():
                curve = next(number)
                block = numbered(objects, b"AnimationCurve", curve, b"", b"AnimCurve")
                times = encode_bin.FBXElem(b"KeyTime")
                times.add_int64_array(np.array([round(t * TICKS) for t, _ in keys], np.int64))
                values = encode_bin.FBXElem(b"KeyValueFloat")
                values.add_float32_array(np.array([v for _, v in keys], np.float32))
                block.elems += [times, values]
                link(b"OP", curve, node, f"d|{axis}".encode())
    if title in seen:
        for model, keys in seen[title].items():
            node, curve = next(number), next(number)
            props(numbered(objects, b"AnimationCurveNode", node, b"Visibility", b"AnimCurveNode"),
                  {"d|Visibility": 1.0})
            link(b"OO", node, uuid)
            link(b"OP", node, models[model], b"Visibility")
            block = numbered(objects, b"AnimationCurve", curve, b"", b"AnimCurve")
            times, values = encode_bin.FBXElem(b"KeyTime"), encode_bin.FBXElem(b"KeyValueFloat")
            times.add_int64_array(np.array([round(t * TICKS) for t, _ in keys], np.int64))
            values.add_float32_array(np.array([v for _, v in keys], np.float32))
            block.elems += [times, values]
            link(b"OP", curve, node, b"d|Visibility")
encode_bin.write(layered, tree, version)
answer = {m: None for m in models}
"""


def layer(*nodes: Any, **settings: int | float) -> dict[str, Any]:
    return {"set": settings, "nodes": [list(node) for node in nodes]}


def move(model: str, **curves: list[tuple[float, float]]) -> tuple[Any, ...]:
    return (model, "Translation", (0, 0, 0), curves)


def turn(model: str, **curves: list[tuple[float, float]]) -> tuple[Any, ...]:
    return (model, "Rotation", (0, 0, 0), curves)


UP, HALF = [(0.0, 0.0), (1.0, 2.0)], [(0.0, 0.0), (0.5, 0.8), (1.0, 0.0)]
FULL = [(0.0, 90.0), (1.0, 90.0)]
TAKES = {
    "sum": [layer(move("fox", Z=UP)), layer(move("fox", Z=HALF, X=UP)), layer(move("fox", Z=HALF))],
    "weight": [layer(move("fox", Z=UP)), layer(move("fox", Z=HALF), Weight=25.0)],
    "override": [layer(move("fox", Z=UP)), layer(move("fox", Z=HALF), BlendMode=1, Weight=50.0)],
    "mute": [layer(move("fox", Z=UP)), layer(move("fox", Z=HALF), Mute=1), layer(move("owl", Z=HALF))],
    "solo": [layer(move("fox", Z=UP)), layer(move("fox", Z=HALF), Solo=1)],
    # The owl stands at x = 4: a layer whose default says so holds whole places, one of 0 adds to them.
    "whole": [
        layer(move("fox", Z=UP)),
        layer(("owl", "Translation", (4, 0, 0), {"X": [(0, 4), (1, 6)]})),
    ],
    "added": [layer(move("fox", Z=UP)), layer(move("owl", X=[(0, 0), (1, 2)]))],
    "turned": [layer(turn("fox", X=FULL)), layer(turn("fox", Y=FULL))],
    "angles": [layer(turn("fox", X=FULL)), layer(turn("fox", Y=FULL), RotationAccumulationMode=1)],
    "scaled": [
        layer(("fox", "Scaling", (1, 1, 1), {"Z": [(0, 2), (1, 2)]})),
        layer(("fox", "Scaling", (1, 1, 1), {"Z": [(0, 3), (1, 3)]})),
        layer(("fox", "Scaling", (0, 0, 0), {"Z": [(0, 3), (1, 3)]}), ScaleAccumulationMode=1),
    ],
}  # fmt: skip
#: Take -> model -> (seconds, visibility). A curve that never hides says nothing.
SEEN = {
    "mute": {"owl": [(0.0, 1.0), (0.4, 0.0), (0.8, 1.0)], "fox": [(0.0, 1.0), (1.0, 1.0)]},
    "solo": {"egg": [(0.2, 0.0), (0.6, 1.0)]},
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: Any, in_blender: Any, read_actions: Any) -> dict[str, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("fbx")
    plain, layered = folder / "plain.fbx", folder / "layered.fbx"
    names = in_blender(WRITE, plain=str(plain), layered=str(layered), takes=TAKES, seen=SEEN)
    assert names.keys() == {"fox", "owl", "egg"}
    [asset] = read_actions([layered], (0.0, 0.5, 1.0))
    assert asset["flags"] == []
    actions = {action["name"]: action for action in asset["actions"]}
    assert list(actions) == list(TAKES) and all(a["range"] == [0.0, 1.0] for a in actions.values())
    return {name: action["moments"] for name, action in actions.items()}


def places(moments: list[dict[str, Any]], model: str, axis: int) -> Any:
    return pytest.approx([moment[model]["place"][axis] for moment in moments], abs=1e-4)


def hidden(moments: list[dict[str, Any]], model: str) -> list[bool]:
    return [moment[model]["hidden"] for moment in moments]


def test_visibility_is_shown_over_time_in_its_take(found: dict[str, Any]) -> None:
    for model, mute, solo in (
        ("owl", [False, True, False], [False, False, False]),
        ("egg", [False, True, False], [True, True, False]),
        ("fox", [False, False, False], [False, False, False]),
    ):
        assert hidden(found["mute"], model) == mute, model
        assert hidden(found["solo"], model) == solo, model
        assert hidden(found["sum"], model) == [False, False, False]


def test_layers_add_up(found: dict[str, Any]) -> None:
    assert places(found["sum"], "fox", 2) == [0, 1 + 0.8 + 0.8, 2]
    assert places(found["sum"], "fox", 0) == [0, 1, 2]
    assert places(found["weight"], "fox", 2) == [0, 1 + 0.2, 2]


def test_a_layer_may_override_be_mute_or_solo(found: dict[str, Any]) -> None:
    assert places(found["override"], "fox", 2) == [0, 0.9, 1]
    assert places(found["mute"], "fox", 2) == [0, 1, 2] and places(found["mute"], "owl", 2) == [0, 0.8, 0]
    assert places(found["solo"], "fox", 2) == [0, 0.8, 0]


def test_whole_values_and_added_ones_are_told_apart(found: dict[str, Any]) -> None:
    assert places(found["whole"], "owl", 0) == [4, 5, 6]
    assert places(found["added"], "owl", 0) == [4, 5, 6]
    assert places(found["whole"], "fox", 2) == [0, 1, 2]


def test_rotations_and_scales_are_multiplied_unless_the_layer_says_otherwise(found: dict[str, Any]) -> None:
    half = math.sqrt(0.5)
    # w, x, y, z. A quarter about x, then one about the turned y; as angles, y comes after x.
    about_x, about_y = (half, half, 0, 0), (half, 0, half, 0)
    for name, first, second in (("turned", about_x, about_y), ("angles", about_y, about_x)):
        w, x, y, z = first
        a, b, c, d = second
        product = [w * a - x * b - y * c - z * d, w * b + x * a + y * d - z * c,
                   w * c - x * d + y * a + z * b, w * d + x * c - y * b + z * a]  # fmt: skip
        turned = found[name][1]["fox"]["turn"]
        assert abs(sum(p * q for p, q in zip(product, turned))) == pytest.approx(1, abs=1e-5), name
    assert found["scaled"][1]["fox"]["scale"][2] == pytest.approx(2 * 3 + 3, abs=1e-4)
