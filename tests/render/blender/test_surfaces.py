"""The set of visible surfaces is that of a render of the file's own scene, wherever the asset is put."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orbit4d.datasets.store.clip import decode
from orbit4d.render.dataset.asset_job import clips_of_action
from orbit4d.render.fleet.child import BlenderChild
from orbit4d.render.planning.settings import preset

#: Helpers of the scripts that build a .blend file.
KIT = """
import bpy, math
bpy.ops.wm.read_factory_settings(use_empty=True)
scene = bpy.context.scene
scene.frame_start, scene.frame_end, scene.render.fps = 0, 30, 30

def collection(name, parent=None, **how):
    made = bpy.data.collections.new(name)
    if parent is not False:
        (parent or scene.collection).children.link(made)
    for key, value in how.items():
        setattr(made, key, value)
    return made

def box(name, place=(0, 0, 0), size=1.0, where=None, kind="MESH"):
    bpy.ops.mesh.primitive_cube_add(size=size, location=place)
    made = bpy.context.object
    made.name = made.data.name = name
    for old in list(made.users_collection):
        old.objects.unlink(made)
    for each in where if isinstance(where, list) else [where or scene.collection]:
        each.objects.link(made)
    return made

def empty(name, place=(0, 0, 0), where=None):
    made = bpy.data.objects.new(name, None)
    made.location = place
    (where or scene.collection).objects.link(made)
    return made

def rise(obj, path="location", value=0.7, first=0, last=30, index=2):
    obj.keyframe_insert(path, frame=first, **({} if index is None else {"index": index}))
    if index is None:
        setattr(obj, path, value)
    else:
        getattr(obj, path)[index] += value
    obj.keyframe_insert(path, frame=last, **({} if index is None else {"index": index}))

def layer(name, at=None):
    at = at or bpy.context.view_layer.layer_collection
    if at.name == name:
        return at
    return next((found for child in at.children if (found := layer(name, child))), None)

def nodes(obj, name="tree"):
    tree = bpy.data.node_groups.new(name, "GeometryNodeTree")
    tree.interface.new_socket("Geometry", in_out="INPUT", socket_type="NodeSocketGeometry")
    tree.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
    modifier = obj.modifiers.new(name, "NODES")
    modifier.node_group = tree
    return tree, tree.nodes.new("NodeGroupInput"), tree.nodes.new("NodeGroupOutput")
"""

#: What collections, instancers and modifiers do to what a render shows.
SCENES = {
    "collections": """
shown, off = collection("shown"), collection("off")
inner = collection("inner", off)
dark = collection("dark", hide_render=True)
deep = collection("deep", dark)
eye = collection("eye", hide_viewport=True)
rise(box("hero", (0, 0, 0), 1, shown))
box("excluded", (5, 0, 0), 1, off)
box("unlit", (0, 7, 0), 1, deep)
box("twice", (-2, 0, 0), 0.5, [off, shown])
box("inside", (0, -3, 0), 0.5, inner)
box("monitor", (0, 0, -2), 0.5, eye).hide_viewport = True
box("camera_off", (9, 9, 9), 1, shown).hide_render = True
bpy.context.view_layer.update()
layer("off").exclude = True
layer("inner").exclude = False
layer("eye").hide_viewport = True
""",
    "collection instances": """
bird = collection("bird")
wing = box("wing", (1, 0, 0), 0.6, bird)
beak = bpy.data.curves.new("beak", "FONT")
beak.body, beak.extrude = "V", 0.2
bird.objects.link(bpy.data.objects.new("beak", beak))
rise(wing, "rotation_euler", 1.1, index=1)
box("hidden_part", (0, 0, 4), 1, bird).hide_render = True
bird.instance_offset = (0.5, 0, 0)
flock = collection("flock", False)
for k in range(3):
    one = empty(f"bird{k}", (0, 1.5 * k, 0.2 * k), flock)
    one.rotation_euler = (0, 0, 0.3 * k)
    one.instance_type, one.instance_collection = "COLLECTION", bird
for k in range(2):
    whole = empty(f"flock{k}", (0, 0, 3 * k + 3))
    whole.scale = (1 - 0.4 * k,) * 3
    whole.instance_type, whole.instance_collection = "COLLECTION", flock
    rise(whole, value=0.5)
dark = empty("dark", (9, 9, 9))
dark.instance_type, dark.instance_collection, dark.hide_render = "COLLECTION", bird, True
""",
    "geometry nodes": """
dark = collection("dark", hide_render=True)
pebble = box("pebble", (4, 4, 0), 0.4, dark)
pebble.hide_render = True
leaves = collection("leaves", dark)
leaf = box("leaf", (0.5, 0, 3), 0.3, leaves)
rise(leaf)
for relative in (0, 1):
    ground = box(f"ground{relative}", (3 * relative, 0, 1), 2)
    ground.rotation_euler = (0, 0, 0.4)
    tree, start, end = nodes(ground, f"scatter{relative}")
    source = tree.nodes.new("GeometryNodeCollectionInfo" if relative else "GeometryNodeObjectInfo")
    if relative:
        source.transform_space = "RELATIVE"
        source.inputs["Collection"].default_value = leaves
    else:
        source.inputs["Object"].default_value = pebble
        source.inputs["As Instance"].default_value = True
    spread = tree.nodes.new("GeometryNodeInstanceOnPoints")
    join = tree.nodes.new("GeometryNodeJoinGeometry")
    side = tree.nodes.new("GeometryNodeIsViewport")
    switch = tree.nodes.new("GeometryNodeSwitch")
    tree.links.new(start.outputs[0], spread.inputs["Points"])
    tree.links.new(source.outputs["Instances" if relative else "Geometry"], spread.inputs["Instance"])
    tree.links.new(side.outputs[0], switch.inputs["Switch"])
    tree.links.new(spread.outputs[0], switch.inputs["False"])
    tree.links.new(switch.outputs[0], join.inputs[0])
    tree.links.new(start.outputs[0], join.inputs[0])
    tree.links.new(join.outputs[0], end.inputs[0])
    rise(ground)
""",
    "instancers": """
bpy.ops.mesh.primitive_plane_add(size=3, location=(0, 0, 1))
plane = bpy.context.object
plane.name = "plane"
plane.instance_type = "FACES"
tile = box("tile", (0, 0, 0), 0.5)
tile.parent = plane
post = bpy.data.objects.new("post", bpy.data.meshes.new("post"))
post.data.from_pydata([(2, 0, 0), (2, 0, 2), (2, 1, 1)], [], [])
scene.collection.objects.link(post)
post.instance_type = "VERTS"
hull = box("hull", (0, 0, 5), 2)
hull.instance_type, hull.show_instancer_for_render = "VERTS", False
knob = box("knob", (0, 0, 0), 0.4)
knob.parent = post
rise(post)
""",
    "modifiers": """
ball = box("ball", (0, 0, 0), 1)
smooth = ball.modifiers.new("s", "SUBSURF")
smooth.levels, smooth.render_levels = 0, 2
twin = box("twin", (3, 0, 0), 1)
array = twin.modifiers.new("a", "ARRAY")
array.count, array.show_viewport = 4, False
seen = box("seen", (0, 3, 0), 1)
only = seen.modifiers.new("a", "ARRAY")
only.count, only.show_render = 4, False
cutter = box("cutter", (3, 0, 0.5), 0.4)
cutter.hide_render = True
rise(cutter, value=0.3)
cut = twin.modifiers.new("cut", "BOOLEAN")
cut.object, cut.operation = cutter, "DIFFERENCE"
twin.modifiers.move(1, 0)
curve = bpy.data.curves.new("tube", "CURVE")
curve.dimensions, curve.bevel_depth = "3D", 0.1
curve.resolution_u, curve.render_resolution_u = 1, 7
line = curve.splines.new("BEZIER")
line.bezier_points.add(2)
for k, point in enumerate(line.bezier_points):
    point.co, point.handle_left_type, point.handle_right_type = (k, -2, k % 2), "AUTO", "AUTO"
tube = bpy.data.objects.new("tube", curve)
scene.collection.objects.link(tube)
text = bpy.data.curves.new("text", "FONT")
text.body, text.extrude = "Ab", 0.1
scene.collection.objects.link(bpy.data.objects.new("text", text))
thread = bpy.data.objects.new("thread", curve.copy())
thread.data.bevel_depth, thread.location = 0.0, (0, 0, 40)
scene.collection.objects.link(thread)
rise(ball)
""",
    "constraints": """
kept, near = box("kept", (0, 0, 0), 1), box("near", (3, 0, 0), 1)
rise(kept)
limit = kept.constraints.new("LIMIT_LOCATION")
limit.use_max_z, limit.max_z, limit.owner_space = True, 0.35, "WORLD"
follow = near.driver_add("location", 1).driver
follow.type = "AVERAGE"
variable = follow.variables.new()
variable.type, variable.targets[0].id = "TRANSFORMS", kept
variable.targets[0].transform_type, variable.targets[0].transform_space = "LOC_Z", "WORLD_SPACE"
""",
    "keyed visibility": """
late, early, body = box("late", (0, 0, 2), 1), box("early", (2, 0, 0), 1), box("body", (0, 0, 0), 1)
for obj, states in ((late, (True, False)), (early, (False, True))):
    for frame, state in zip((0, 14), states):
        obj.hide_render = obj.hide_viewport = state
        obj.keyframe_insert("hide_render", frame=frame)
        obj.keyframe_insert("hide_viewport", frame=0)
rise(body)
group = collection("group", hide_render=True)
for name, states in (("first", (False, True)), ("second", (True, False))):
    member = box(name, (0, 4, 0), 1, group)
    for frame, state in zip((0, 14), states):
        member.hide_render = state
        member.keyframe_insert("hide_render", frame=frame)
whole = empty("whole", (3, 0, 0))
whole.instance_type, whole.instance_collection = "COLLECTION", group
driven = box("driven", (0, -4, 0), 1)
driver = driven.driver_add("hide_render").driver
driver.type, driver.expression = "SCRIPTED", "frame < 8"
""",
}

#: What a render of the file's own scene shows: (name, number of vertices, box) of each mesh with faces.
ORACLE = """
import bpy
import numpy as np
bpy.ops.wm.open_mainfile(filepath=path)
scene = bpy.context.scene
scene.render.engine, scene.cycles.samples = "CYCLES", 1
scene.render.resolution_x = scene.render.resolution_y = 8
scene.camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
scene.collection.objects.link(scene.camera)
seen = []

def look(scene, depsgraph=None):
    if depsgraph is None or depsgraph.mode != "RENDER":
        return
    seen.clear()
    for instance in depsgraph.object_instances:
        obj = instance.object
        if obj.type != "MESH":
            continue
        mesh = obj.data
        flat = np.empty(len(mesh.vertices) * 3, np.float32)
        mesh.vertices.foreach_get("co", flat)
        if len(mesh.polygons):
            matrix = np.array(instance.matrix_world)
            points = flat.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]
            seen.append([obj.name, len(points), points.min(0).tolist() + points.max(0).tolist()])

bpy.app.handlers.frame_change_post.append(look)
answer = []
for frame in frames:
    scene.frame_set(frame)
    bpy.ops.render.render()
    answer.append(sorted(seen, key=str))
"""

OURS = """
import numpy as np
from orbit4d.render.blender.importers.load import load_asset
from orbit4d.render.blender.geometry.surfaces import visible_surfaces
loaded = load_asset(path)
loaded.normalise(0.4, (1.0, -2.0, 0.5))
answer = []
for frame in frames:
    loaded.set_seconds(frame / 30)
    rows = []
    for surface in visible_surfaces(loaded):
        points = surface.points().astype(float) / 0.4 + (1.0, -2.0, 0.5)
        rows.append([surface.key[0], len(points), points.min(0).tolist() + points.max(0).tolist()])
    answer.append(sorted(rows, key=str))
"""


@pytest.mark.parametrize("name", SCENES)
def test_what_is_measured_is_what_a_render_of_the_file_draws(
    name: str, tmp_path: Path, in_blender: Callable[..., Any]
) -> None:
    path = str(tmp_path / "scene.blend")
    in_blender(KIT + SCENES[name] + "\nbpy.ops.wm.save_as_mainfile(filepath=path)\n", path=path)
    frames = [5, 13, 30]
    wanted = in_blender(ORACLE, path=path, frames=frames)
    found = in_blender(OURS, path=path, frames=frames)
    for frame, theirs, ours in zip(frames, wanted, found, strict=True):
        assert len(theirs) > 0
        assert [row[:2] for row in ours] == [row[:2] for row in theirs], frame
        np.testing.assert_allclose([r[2] for r in ours], [r[2] for r in theirs], atol=1e-4, err_msg=name)


#: What has no triangles, or is drawn beside an object's own.
STRANDS = {
    "hair curves": """
head = box("head", (0, 0, 0), 0.5)
hair = bpy.data.hair_curves.new("hair")
hair.add_curves([5] * 9)
for k in range(9):
    for j, point in enumerate(hair.curves[k].points):
        point.position = (0.25 * (k % 3 - 1), 0.25 * (k // 3 - 1), 0.3 + 0.4 * j)
        point.radius = 0.05
strands = bpy.data.objects.new("strands", hair)
scene.collection.objects.link(strands)
strands.parent = head
rise(head)
""",
    "particle hair": """
ball = box("ball", (0, 0, 0), 0.5)
fur = ball.modifiers.new("fur", "PARTICLE_SYSTEM").particle_system.settings
fur.type, fur.count, fur.hair_length, fur.display_step = "HAIR", 400, 2.0, 1
fur.root_radius = fur.tip_radius = 0.5
rise(ball)
""",
    "points": """
ball = box("ball", (0, 0, 0), 2)
tree, start, end = nodes(ball)
dots = tree.nodes.new("GeometryNodeMeshToPoints")
dots.inputs["Radius"].default_value = 0.6
tree.links.new(start.outputs[0], dots.inputs[0])
tree.links.new(dots.outputs[0], end.inputs[0])
rise(ball)
""",
}


@pytest.mark.parametrize("name", STRANDS)
def test_hair_and_points_fill_the_frame_and_stay_inside(
    name: str, tmp_path: Path, in_blender: Callable[..., Any], clips_of: Any
) -> None:
    path = tmp_path / "strands.blend"
    in_blender(KIT + STRANDS[name] + "\nbpy.ops.wm.save_as_mainfile(filepath=path)\n", path=str(path))
    [front] = clips_of(path, ("front_view",))
    alpha = front[..., 3].max(axis=0)
    assert max(alpha[0].max(), alpha[-1].max(), alpha[:, 0].max(), alpha[:, -1].max()) <= 64
    rows, cols = np.nonzero(alpha > 64)
    # `fit` holds every azimuth, and perspective: what is seen from the front alone is somewhat smaller.
    assert max(np.ptp(rows), np.ptp(cols)) > 0.6 * 96


@pytest.fixture(scope="module")
def clips_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., list[np.ndarray]]]:
    """`clips_of(path, rigs)`: [F, H, W, 4] of each rig at 96 pixels."""
    with BlenderChild() as child:

        def run(path: Path, rigs: tuple[str, ...]) -> list[np.ndarray]:
            settings = preset("draft", frames=4, resolution=96, samples=8, rigs=rigs)
            payload = {"uid": "x", "path": str(path), "sha256": "", "settings": settings.as_config(),
                       "scratch": str(tmp_path_factory.mktemp("clips")), "provenance": {},
                       "actions": None}  # fmt: skip
            result = child.call("render_clips", payload, 120)
            clips = clips_of_action(payload, settings, result["actions"][0], result)
            return [np.stack([decode(image) for image in clip.frames]) for clip in clips]

        yield run
