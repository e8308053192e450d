"""Measures are of what is seen: hidden, see-through and collapsed geometry, bind poses, drivers."""

from __future__ import annotations

import copy
import struct
import subprocess
import sys

import numpy as np
import pytest

from orbit4d.curate import columns
from orbit4d.curate.rule_settings import Rules
from orbit4d.curate.rules import decide
from orbit4d.render.fleet.child import BlenderChild


@pytest.fixture(scope="module")
def child():
    with BlenderChild(threads=1) as child:
        yield child


def measured(child, path, previews="none") -> list[dict]:
    payload = {"path": str(path), "previews": previews, "preview_size": 48, "preview_samples": 1}
    found = child.call("measure", payload, 120)
    return [{"flags": found["asset"]["flags"], **row} for row in found["actions"]]


def verdict(row: dict, rules: Rules | None = None) -> list[str]:
    table = columns.build([{"status": "measured", **row, "preview": None}], {})
    return decide(table, rules or Rules()).to_pylist()[0]["reasons"]


class Scene:
    """The hopping cube of the fixture, and more nodes beside it."""

    def __init__(self, cube_document):
        self.document, self.binary = cube_document()
        self.document["materials"] = []

    def accessor(self, array: np.ndarray, kind: str) -> int:
        data = np.ascontiguousarray(array)
        code = 5126 if data.dtype == np.float32 else 5123
        self.document["bufferViews"].append(
            {"buffer": 0, "byteOffset": len(self.binary), "byteLength": data.nbytes}
        )
        self.binary += data.tobytes() + b"\0" * (-data.nbytes % 4)
        self.document["buffers"][0]["byteLength"] = len(self.binary)
        entry = {
            "bufferView": len(self.document["bufferViews"]) - 1,
            "componentType": code,
            "count": len(data),
            "type": kind,
        }
        if code == 5126:
            flat = data.reshape(len(data), -1)
            entry |= {"min": flat.min(axis=0).tolist(), "max": flat.max(axis=0).tolist()}
        self.document["accessors"].append(entry)
        return len(self.document["accessors"]) - 1

    def cube(self, material: dict | None = None, **node) -> int:
        """Another cube; the number of its node."""
        mesh = copy.deepcopy(self.document["meshes"][0])
        if material is not None:
            self.document["materials"].append(material)
            mesh["primitives"][0]["material"] = len(self.document["materials"]) - 1
        self.document["meshes"].append(mesh)
        return self.node(mesh=len(self.document["meshes"]) - 1, **node)

    def node(self, **node) -> int:
        self.document["nodes"].append(node)
        self.document["scenes"][0]["nodes"].append(len(self.document["nodes"]) - 1)
        return len(self.document["nodes"]) - 1

    def keys(self, node: int, path: str, times, values, step: bool = False) -> None:
        animation = self.document["animations"][0]
        source = self.accessor(np.array(times, np.float32), "SCALAR")
        target = self.accessor(np.array(values, np.float32), "VEC3")
        kind = "STEP" if step else "LINEAR"
        animation["samplers"].append({"input": source, "output": target, "interpolation": kind})
        animation["channels"].append(
            {"sampler": len(animation["samplers"]) - 1, "target": {"node": node, "path": path}}
        )

    def only(self) -> None:
        """Drop the cube's own hop."""
        self.document["animations"][0] |= {"samplers": [], "channels": []}

    def write(self, path, pack_glb):
        self.document["buffers"][0]["byteLength"] = len(self.binary)
        if not self.document["materials"]:
            del self.document["materials"]
        path.write_bytes(pack_glb(self.document, self.binary))
        return path


@pytest.fixture
def scene(cube_document):
    return Scene(cube_document)


def see_through(alpha: float, mode: str = "BLEND") -> dict:
    return {"alphaMode": mode, "pbrMetallicRoughness": {"baseColorFactor": [1, 0, 0, alpha]}}


def test_what_no_image_shows_changes_no_measure(child, scene, cube_document, pack_glb, tmp_path):
    (tmp_path / "alone.glb").write_bytes(pack_glb(*cube_document()))
    [alone] = measured(child, tmp_path / "alone.glb")
    # Helper lines beside the cube and in its own mesh, a collider, an unlit one, and one scaled to nothing.
    ends = scene.accessor(np.array([(-9, 0, 0), (9, 0, 0), (0, -7, 0), (0, 11, 0)], np.float32), "VEC3")
    lines = {"attributes": {"POSITION": ends}, "mode": 1}
    scene.document["meshes"].append({"primitives": [lines]})
    scene.node(mesh=len(scene.document["meshes"]) - 1, name="axes")
    scene.document["meshes"][0]["primitives"].append(copy.deepcopy(lines))
    scene.cube(see_through(0.0), scale=[5, 3, 7], name="collider")
    scene.cube(see_through(0.0) | {"extensions": {"KHR_materials_unlit": {}}}, scale=[4, 4, 4], name="ghost")
    scene.cube(see_through(0.3, "MASK"), scale=[6, 6, 6], name="cut")
    scene.document["extensionsUsed"] = ["KHR_materials_unlit"]
    scene.cube(scale=[0, 0, 0], translation=[0, 8, 0], name="spare")
    scene.cube(scale=[1e-6] * 3, translation=[0, -8, 0], name="speck")
    scene.cube(scale=[3, 0, 0], translation=[0, -8, 0], name="thread")
    [row] = measured(child, scene.write(tmp_path / "hidden.glb", pack_glb))
    for name in ("size", "motion_geometry", "union_growth", "drift", "coverage_mean", "window_end"):
        assert row[name] == pytest.approx(alone[name], rel=1e-4, abs=1e-6), name


def test_what_is_seen_counts_though_it_is_thin_or_faint(child, scene, pack_glb, tmp_path):
    scene.cube(see_through(0.04), translation=[4, 0, 0], name="veil")
    scene.cube(see_through(0.6, "MASK"), translation=[0, 0, -4], name="kept")
    scene.cube(scale=[2, 2, 0], translation=[0, 0, 4], name="card")
    [row] = measured(child, scene.write(tmp_path / "seen.glb", pack_glb))
    assert row["size"] == pytest.approx(8.5)


def test_a_body_that_appears_opens_the_window_and_one_that_joins_later_does_not(
    child, scene, pack_glb, tmp_path
):
    late = scene.cube(translation=[2, 0, 0], name="late")
    scene.only()
    scene.keys(0, "scale", [0.0, 0.7], [(0, 0, 0), (1, 1, 1)], step=True)
    scene.keys(0, "translation", [0.0, 0.7, 1.5, 3.0], [(0, 0, 0), (0, 0, 0), (0, 0.4, 0), (0, 0, 0)])
    scene.keys(late, "scale", [0.0, 2.0], [(0, 0, 0), (1, 1, 1)], step=True)
    [row] = measured(child, scene.write(tmp_path / "late.glb", pack_glb), "window")
    assert row["window_start"] == pytest.approx(0.7, abs=0.05) and row["window_end"] == pytest.approx(3.0)
    # Diameters are those of both cubes together, and the second one's arrival is no flight.
    assert 0.05 < row["motion_geometry"] < 0.3 and row["union_growth"] < 1.2
    assert verdict(row) == []


def test_poses_that_are_shown_in_turn_are_motion(child, scene, pack_glb, tmp_path):
    scene.only()
    for k in range(4):
        node = scene.cube(translation=[0, 0.25 * k, 0], name=f"pose{k}")
        values = [(float(i == k),) * 3 for i in range(4)]
        scene.keys(node, "scale", [0.0, 0.5, 1.0, 1.5], values, step=True)
    scene.document["scenes"][0]["nodes"].remove(0)
    [row] = measured(child, scene.write(tmp_path / "flip.glb", pack_glb), "window")
    # In diameters of the four where they are first seen: a tower 1.75 high.
    assert row["motion_geometry"] == pytest.approx(0.75 / 2.25, rel=0.01)
    assert verdict(row) == []


def test_a_bind_pose_does_not_open_the_window(child, scene, pack_glb, tmp_path):
    scene.only()
    arm = scene.cube(translation=[0, 0, 0], name="arm")
    times = [0.0, 1 / 24, *np.arange(0.25, 3.0, 0.25)]
    places = [(3, 0, 0), *((0, 1 + 0.2 * np.sin(2 * t), 0) for t in times[1:])]
    scene.keys(arm, "translation", times, places)
    [row] = measured(child, scene.write(tmp_path / "bind.glb", pack_glb))
    assert row["window_start"] == pytest.approx(1 / 24, abs=1e-3)
    assert row["window_end"] == pytest.approx(2.75)
    assert row["motion_geometry"] < 0.2


@pytest.mark.parametrize(
    ("at", "width", "end"), [(27.31, 1 / 60, 52.0), (1.013, 1 / 200, 2.0), (63.2, 0.05, 700.0)]
)
def test_a_blink_of_a_long_action_is_found(child, scene, pack_glb, tmp_path, at, width, end):
    scene.only()
    still = [(0, 0, 0)]
    scene.keys(0, "translation", [0, at - width, at, at + width, end], [*still * 2, (0, 0.5, 0), *still * 2])
    [row] = measured(child, scene.write(tmp_path / "blink.glb", pack_glb))
    assert at - width - 0.05 <= row["window_start"] <= at <= row["window_end"] <= at + width + 0.05
    assert row["motion_geometry"] > 0.1
    assert ("long_window" in row["flags"]) == (end > 100.0)


@pytest.mark.parametrize("seconds", [20_000.0, 3.0])
def test_an_action_without_end_is_flagged(child, make_cube, tmp_path, seconds):
    hop = [(0, 0, 0), (0, 0, 0.3), (0, 0, 0)]
    [row] = measured(child, make_cube(tmp_path / "slow.glb", {"slow": hop}, seconds=seconds))
    assert row["flags"] == (["long_window"] if seconds > 1000 else [])
    assert row["window_end"] == pytest.approx(seconds)


def test_motion_that_is_never_seen_is_unseen_and_motion_behind_is_not(child, scene, pack_glb, tmp_path):
    scene.cube(scale=[3, 3, 3], name="crate")
    [row] = measured(child, scene.write(tmp_path / "crate.glb", pack_glb), "window")
    assert row["ssim_object_peak"] == pytest.approx(1.0, abs=1e-9)
    assert verdict(row) == ["unseen"]
    assert verdict(row, Rules(max_alike=None)) == []
    # A wall that hides it from the front alone; glTF looks along its -Z.
    scene.document["nodes"][-1] |= {"scale": [3, 3, 0.2], "translation": [0, 0, 2]}
    (tmp_path / "wall.glb").write_bytes(pack_glb(scene.document, scene.binary))
    [row] = measured(child, tmp_path / "wall.glb", "window")
    assert row["ssim_object_quarter"] == row["ssim_object_half"] == pytest.approx(1.0)
    assert row["ssim_object_peak"] < 0.99 and verdict(row) == []


_BLENDS = """
import bpy, math, sys
folder = sys.argv[1]

def start():
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end, scene.render.fps = 10, 70, 30
    bpy.ops.mesh.primitive_cube_add(size=1)
    return scene, bpy.context.object

def drive(owner, path, index, kind, expression=""):
    driver = owner.driver_add(path, index).driver
    driver.type = kind
    if expression:
        driver.expression = expression
    return driver

scene, cube = start()
drive(cube, "location", 2, "SCRIPTED", "sin(frame / 9) * 0.6")
bpy.ops.wm.save_as_mainfile(filepath=folder + "/expression.blend")

scene, cube = start()
variable = drive(cube, "rotation_euler", 1, "AVERAGE").variables.new()
variable.targets[0].id_type, variable.targets[0].id = "SCENE", scene
variable.targets[0].data_path = "frame_current"
bpy.ops.wm.save_as_mainfile(filepath=folder + "/frame_current.blend")

scene, cube = start()
cube.shape_key_add(name="Basis")
for point in cube.shape_key_add(name="wide").data:
    point.co.x *= 2
scene["wave"] = 0.05
driver = drive(cube.data.shape_keys.key_blocks["wide"], "value", -1, "SCRIPTED", "frame * wave / 4")
variable = driver.variables.new()
variable.name, variable.targets[0].id_type = "wave", "SCENE"
variable.targets[0].id, variable.targets[0].data_path = scene, '["wave"]'
bpy.ops.wm.save_as_mainfile(filepath=folder + "/shape_key.blend")

scene, cube = start()
tree = bpy.data.node_groups.new("inner", "GeometryNodeTree")
for side in ("INPUT", "OUTPUT"):
    tree.interface.new_socket("Geometry", in_out=side, socket_type="NodeSocketGeometry")
time, turn = tree.nodes.new("GeometryNodeInputSceneTime"), tree.nodes.new("GeometryNodeTransform")
along = tree.nodes.new("ShaderNodeCombineXYZ")
tree.links.new(tree.nodes.new("NodeGroupInput").outputs[0], turn.inputs[0])
tree.links.new(time.outputs["Seconds"], along.inputs[1])
tree.links.new(along.outputs[0], turn.inputs["Rotation"])
tree.links.new(turn.outputs[0], tree.nodes.new("NodeGroupOutput").inputs[0])
cube.modifiers.new("time", "NODES").node_group = tree
bpy.ops.wm.save_as_mainfile(filepath=folder + "/scene_time.blend")

scene, cube = start()
drive(cube, "location", 2, "SCRIPTED", "2 * 0.3")
bpy.ops.wm.save_as_mainfile(filepath=folder + "/constant.blend")

# FBX writes an object that the viewport hides with Visibility 0.
scene, cube = start()
cube.keyframe_insert("location", frame=10)
cube.location.z = 0.5
cube.keyframe_insert("location", frame=70)
cube.location = (0, 0, 0)
group = bpy.data.objects.new("group", None)
scene.collection.objects.link(group)
for name, parent in (("proxy", None), ("member", group)):
    bpy.ops.mesh.primitive_cube_add(size=2, location=(0, 7, 0))
    hidden = bpy.context.object
    hidden.name, hidden.parent = name, parent
    (parent or hidden).hide_viewport = True
bpy.ops.export_scene.fbx(filepath=folder + "/hidden.fbx", bake_anim_use_all_actions=False)
"""


@pytest.fixture(scope="module")
def blends(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blends")
    subprocess.run(
        [sys.executable, "-P", "-c", _BLENDS, str(folder)], check=True, capture_output=True, timeout=180
    )
    return folder


@pytest.mark.parametrize("name", ["expression", "frame_current", "shape_key", "scene_time"])
def test_motion_without_keys_is_looked_for_over_the_scene_s_frames(child, blends, name):
    [row] = measured(child, blends / f"{name}.blend")
    assert (row["window_start"], row["window_end"]) == pytest.approx((10 / 30, 70 / 30), abs=0.05)
    assert row["motion_geometry"] > 0.1


def test_a_driver_that_holds_still_is_no_action(child, blends):
    [row] = measured(child, blends / "constant.blend")
    assert row["action"] == "" and row["window_start"] is None


def test_hidden_objects_of_an_fbx_are_not_seen(child, blends):
    data = (blends / "hidden.fbx").read_bytes()
    name = b"S" + struct.pack("<I", 10) + b"Visibility"
    # Name, type twice (once empty), animatable, and the number 0.0.
    assert data.count(name + name + b"S\0\0\0\0" + b"S\1\0\0\0A" + b"D" + bytes(8)) == 2
    [row] = measured(child, blends / "hidden.fbx")
    assert row["size"] == pytest.approx(1.0, rel=0.02)
