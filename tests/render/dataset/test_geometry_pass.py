"""The pass `geometry` on what Blender renders: it is where Cycles says, it costs the clips no byte, and what
has no constant triangles is refused with its images rendered all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orbit4d.datasets import DatasetWriter, Index, InputError, read_clip, read_geometry, verify
from orbit4d.datasets.added.rolling import roll_added
from orbit4d.datasets.geometry.skeleton import stored_skeleton
from orbit4d.datasets.sources.resolve import resolve
from orbit4d.render.dataset import add_passes as adding
from orbit4d.render.dataset.asset_job import asset_job
from orbit4d.render.fleet.child import BlenderChild
from orbit4d.render.fleet.worker import Worker, WorkerSettings
from orbit4d.render.planning.settings import RenderSettings, preset
from orbit4d.render.protocol.geometry_file import read_geometry_file, read_skeleton_file

#: One sample through each pixel's centre, so that passes of Cycles are those of the centre too.
SETTINGS = preset(
    "default", frames=3, resolution=64, samples=1, filter_width=0.01, rigs=("dynamic_orbit", "front_view")
)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    worker = Worker(WorkerSettings())
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def render(worker: Worker) -> Callable[..., Path]:
    """`render(source, out, **changes)`: a committed dataset, by one worker without Ray."""

    def run(source: Path, out: Path, **changes: Any) -> Path:
        settings = RenderSettings.from_config({**SETTINGS.as_config(), **changes})
        writer = DatasetWriter(str(out), settings.as_config())
        for asset in resolve([str(source)]).assets:
            reply = worker.run(asset_job(asset, str(out), settings.as_config()))
            assert reply.result is not None, reply
        writer.roll(final=True)
        roll_added(writer.store, writer.indexed(), final=True)
        return out

    return run


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, toy: Any) -> Path:
    return toy(tmp_path_factory.mktemp("toy") / "toy.glb")


@pytest.fixture(scope="module")
def plain(render: Any, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(source, tmp_path_factory.mktemp("plain") / "d")


@pytest.fixture(scope="module")
def full(render: Any, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("full") / "d"
    return render(source, out, passes=("geometry", "depth", "normal"))


def test_geometry_costs_the_clips_no_byte(render: Any, source: Path, plain: Path, tmp_path: Path) -> None:
    beside = render(source, tmp_path / "d", passes=("geometry",))
    one, other = verify(str(plain)), verify(str(beside))
    assert one.ok and other.ok and other.added == 6
    assert one.digest == one.image_digest == other.image_digest != other.digest
    shard = next((plain / "shards").iterdir())
    assert (beside / "shards" / shard.name).read_bytes() == shard.read_bytes()


def test_surfaces_lie_where_cycles_puts_them(full: Path) -> None:
    """Depth to 4e-4 clip units, 1/56 of a pixel's footprint at 64 px: the 0.005 px by which Cycles moves its
    sample on a slope of 3.5, above float32 (1e-6) and quantising (8e-6). What is off by more than that lies
    on an edge, and coverage there.
    """
    tested = 0
    for action in ("Go", "Jump"):
        found = read_geometry(full, "toy", action)
        for rig, orbit in found.clips:
            depths = read_clip(full, "toy", action, rig, orbit).pass_arrays("depth")
            for frame, truth in enumerate(depths):
                ours = found.clip(rig, orbit).depth(frame)
                assert (np.isfinite(ours) == np.isfinite(truth)).mean() > 0.999
                both = np.isfinite(ours) & np.isfinite(truth)
                assert (np.abs(ours[both] - truth[both]) <= 4e-4).mean() > 0.998
                tested += int(both.sum())
    assert tested > 3000


def test_flat_normals_are_those_of_cycles(full: Path) -> None:
    """The octahedra are flat, up to float16."""
    clip = read_geometry(full, "toy", "Go").clip()
    truth = read_clip(full, "toy", "Go").pass_arrays("normal")[1].astype(np.float32)
    ours = clip.normals(1)
    both = (clip.triangles(1) >= 0) & (np.abs(truth).sum(-1) > 0)
    assert both.sum() > 200 and (np.abs(ours - truth).max(-1)[both] < 2e-3).mean() > 0.98


def test_vertices_move_as_the_file_says(full: Path, source: Path) -> None:
    """One part stands; the other one is at its keys' places, scaled and centred as the clip is."""
    found = read_geometry(full, "toy", "Jump")
    row = next(r for r in Index(full).rows_of("toy") if r["action"] == "Jump")
    moved = found.vertices - found.vertices[:1]
    parts = [moved[:, np.unique(found.faces[found.mesh.object == k])] for k in (0, 1)]
    still, jumping = sorted(parts, key=lambda part: np.abs(part).max())
    assert np.abs(still).max() <= 2 * found.bound
    assert np.ptp(jumping, axis=1).max() <= 4 * found.bound, "a rigid part keeps its shape"
    heights = np.interp(found.seconds, [0.0, 0.5, 1.0], [0.5, 0.9, 0.5])
    rise = (heights - heights[0]) * row["scale"]
    np.testing.assert_allclose(jumping.mean(1)[:, 2], rise, atol=2e-4)


def test_added_later_it_is_what_it_would_have_been_at_first(
    worker: Worker, plain: Path, full: Path, source: Path, tmp_path: Path
) -> None:
    """Geometry to the byte; normal and depth to the byte; no byte of the dataset changes."""
    import shutil

    out = tmp_path / "d"
    shutil.copytree(plain, out)
    before = {f: f.read_bytes() for f in out.rglob("*") if f.is_file()}
    kinds = ["geometry", "normal", "depth", "albedo", "roughness", "metallic", "position"]
    writer = DatasetWriter(str(out), Index(out).manifest.config)
    asset = resolve([str(source)]).assets[0]
    index = Index(out)
    missing = adding.missing_kinds(index, index.rows_of("toy"), kinds)
    assert missing == kinds
    job = adding._job(asset, str(out), adding.stored_settings(str(out)), missing, index.rows_of("toy"))
    reply = worker.run(job)
    assert reply.result is not None, reply
    roll_added(writer.store, writer.indexed(), final=True)
    assert {f: f.read_bytes() for f in before} == before
    seen = verify(str(out))
    assert seen.ok and seen.image_digest == verify(str(plain)).digest
    ours, theirs = Index(out), Index(full)
    for row in theirs.added.table.to_pylist():
        same = ours.added.row("toy", row["sample"], row["kind"])
        assert same is not None and same["sha256"] == row["sha256"], row["sample"]
    for kind in ("normal", "depth"):
        assert read_clip(ours, "toy", "Go").passes[kind] == read_clip(theirs, "toy", "Go").passes[kind]
    assert adding.missing_kinds(Index(out), Index(out).rows_of("toy"), kinds) == []
    _check_materials(out)


def test_rigs_drawn_cameras_and_lights_get_it_later_as_at_first(
    worker: Worker, render: Any, source: Path, tmp_path: Path
) -> None:
    """Cameras above the object's ground, of a lens of their own, under two lights: planned again to the
    bit.
    """
    from orbit4d.render.planning.asked import fields_of

    asked = fields_of({"elevation": "uniform:5:25", "roll": "10", "n_lights": 2})
    sizes = {"frames": 3, "resolution": 64, "samples": 1, "filter_width": 0.01}
    changed = preset("default", **sizes, rigs=("dynamic_orbit", "sync:2"), **asked).as_config()
    first, later = (
        render(source, tmp_path / name, **{**changed, "passes": passes})
        for name, passes in (("first", ("geometry", "depth")), ("later", ()))
    )
    index = Index(later)
    settings = adding.stored_settings(str(later))
    kinds = ["geometry", "depth"]
    job = adding._job(resolve([str(source)]).assets[0], str(later), settings, kinds, index.rows_of("toy"))
    reply = worker.run(job)
    assert reply.result is not None, reply
    writer = DatasetWriter(str(later), index.manifest.config)
    roll_added(writer.store, writer.indexed(), final=True)
    assert verify(str(later)).ok and verify(str(first)).ok
    ours, theirs = Index(later), Index(first)
    rows = theirs.added.table.to_pylist()
    assert {row["sample"].rpartition("__")[2] for row in rows} >= {"l1", "o1"}
    for row in rows:
        same = ours.added.row("toy", row["sample"], row["kind"])
        assert same is not None and same["sha256"] == row["sha256"], row["sample"]
    for rig, light in (("sync_2", 1), ("dynamic_orbit", 0)):
        depths = (read_clip(i, "toy", "Go", rig, light=light).passes["depth"] for i in (ours, theirs))
        assert next(depths) == next(depths)


def _check_materials(out: Path) -> None:
    """The toy's colours are linear base colours of the file; glTF's roughness and metallic default to 1."""
    clip = read_clip(out, "toy", "Go")
    hit = read_geometry(out, "toy", "Go").clip().triangles(1) >= 0
    albedo = clip.pass_arrays("albedo")[1]
    assert albedo.shape == (64, 64, 3) and albedo.dtype == np.uint8
    colours = np.random.default_rng(0).uniform(0.2, 0.9, (2, 3))
    srgb = np.rint(255 * (1.055 * colours ** (1 / 2.4) - 0.055)).astype(int)
    distance = np.abs(albedo[hit].astype(int)[:, None] - srgb[None]).max(-1).min(-1)
    assert (distance <= 1).mean() > 0.99
    # The surface map against Cycles' own place of the same sample: 1/56 of a pixel's footprint, as for depth.
    places = clip.pass_arrays("position")[1]
    both = hit & (np.abs(places).sum(-1) > 0)
    ours = read_geometry(out, "toy", "Go").clip().points(1)
    assert both.sum() > 200 and (np.abs(places - ours).max(-1)[both] < 4e-4).mean() > 0.99
    for kind in ("roughness", "metallic"):
        values = clip.pass_arrays(kind)[1]
        assert values.shape == (64, 64) and (values[hit] == 255).mean() > 0.99


# What is refused ------------------------------------------------------------------------------------------

SCENES = """
import bpy
def fresh():
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.context.scene.frame_start, bpy.context.scene.frame_end = 0, 10
    bpy.ops.mesh.primitive_cube_add(size=1.0)
    box = bpy.context.object
    box.keyframe_insert("location", frame=0, index=2)
    box.location.z = 0.6
    box.keyframe_insert("location", frame=10, index=2)
    return box
def material(box):
    made = bpy.data.materials.new("m")
    made.use_nodes = True
    box.data.materials.append(made)
    return made.node_tree, made.node_tree.nodes["Principled BSDF"], made
def topology(box):
    array = box.modifiers.new("a", "ARRAY")
    array.count = 1
    array.keyframe_insert("count", frame=0)
    array.count = 3
    array.keyframe_insert("count", frame=10)
def hair(box):
    box.modifiers.new("p", "PARTICLE_SYSTEM")
    settings = box.particle_systems[0].settings
    settings.type, settings.count, settings.hair_length = "HAIR", 20, 0.5
def displacement(box):
    tree, _, made = material(box)
    made.displacement_method = "DISPLACEMENT"
    tree.links.new(tree.nodes.new("ShaderNodeDisplacement").outputs[0],
                   tree.nodes["Material Output"].inputs["Displacement"])
def alpha(box):
    tree, shader, made = material(box)
    tree.links.new(tree.nodes.new("ShaderNodeTexChecker").outputs["Fac"], shader.inputs["Alpha"])
def hides(box):
    bpy.ops.mesh.primitive_cube_add(size=0.4, location=(0.9, 0, 0))
    other = bpy.context.object
    other.name = "other"
    for frame, hidden in ((0, False), (5, True), (10, True)):
        other.hide_render = hidden
        other.keyframe_insert("hide_render", frame=frame)
def copies(box):
    shelf = bpy.data.collections.new("shelf")
    for each in list(box.users_collection):
        each.objects.unlink(box)
    shelf.objects.link(box)
    for x in (-1.0, 1.0):
        stand = bpy.data.objects.new("stand", None)
        stand.instance_type, stand.instance_collection, stand.location.x = "COLLECTION", shelf, x
        bpy.context.scene.collection.objects.link(stand)
def mirrored(box):
    _, _, made = material(box)
    made.use_backface_culling = True
    box.scale.x = -1.0
def rigged(box, **how):
    # A bar that bends at its middle while the whole swings.
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.context.scene.frame_start, bpy.context.scene.frame_end = 0, 10
    bpy.ops.mesh.primitive_cylinder_add(vertices=8, radius=0.2, depth=2.0, location=(0, 0, 1))
    bar = bpy.context.object
    bpy.ops.object.mode_set(mode="EDIT")
    bpy.ops.mesh.select_all(action="SELECT")
    bpy.ops.mesh.subdivide(number_cuts=3)
    bpy.ops.object.mode_set(mode="OBJECT")
    bpy.ops.object.armature_add(location=(0, 0, 0))
    rig = bpy.context.object
    bpy.ops.object.mode_set(mode="EDIT")
    first = rig.data.edit_bones[0]
    first.name, first.head, first.tail = "low", (0, 0, 0), (0, 0, 1)
    second = rig.data.edit_bones.new("high")
    second.head, second.tail, second.parent = (0, 0, 1), (0, 0, 2), first
    second.use_connect = True
    bpy.ops.object.mode_set(mode="OBJECT")
    low, high = bar.vertex_groups.new(name="low"), bar.vertex_groups.new(name="high")
    for v in bar.data.vertices:
        share = min(max((v.co.z + 0.5), 0.0), 1.0)
        low.add([v.index], 3.0 * (1 - share), "REPLACE")
        high.add([v.index], 3.0 * share, "REPLACE")
    bar.parent = rig
    bar.modifiers.new("a", "ARMATURE").object = rig
    for frame, angle in ((0, 0.0), (10, 1.2)):
        for bone, share in ((rig.pose.bones["high"], 1.0), (rig.pose.bones["low"], 0.2)):
            bone.rotation_mode = "XYZ"
            bone.rotation_euler.x = angle * share
            bone.keyframe_insert("rotation_euler", frame=frame)
        rig.rotation_euler.z = angle / 2
        rig.keyframe_insert("rotation_euler", frame=frame)
    return bar, rig
def skin(box):
    rigged(box)
def skin_key(box):
    bar, _ = rigged(box)
    bar.shape_key_add(name="Basis")
    key = bar.shape_key_add(name="fat")
    for point in key.data:
        point.co.x *= 1.5
    for frame, value in ((0, 0.2), (10, 0.9)):
        key.value = value
        key.keyframe_insert("value", frame=frame)
def skin_volume(box):
    rigged(box)[0].modifiers["a"].use_deform_preserve_volume = True
def skin_bendy(box):
    rigged(box)[1].data.bones["high"].bbone_segments = 6
def skin_masked(box):
    rigged(box)[0].modifiers["a"].vertex_group = "high"
def skin_twice(box):
    bar, rig = rigged(box)
    bar.modifiers.new("b", "ARMATURE").object = rig
def skin_smooth(box):
    rigged(box)[0].modifiers.new("s", "SUBSURF").render_levels = 1
for name in names_of:
    box = fresh()
    globals()[name](box)
    bpy.ops.wm.save_as_mainfile(filepath=folder + "/" + name + ".blend")
"""

REFUSED = {
    "topology": "geometry:topology",
    "hair": "geometry:hair",
    "displacement": "geometry:displacement",
    "alpha": "geometry:alpha",
}
KEPT = ("hides", "mirrored", "copies", "skin", "skin_key")
#: Scenes whose surfaces are kept and whose skeleton is refused.
NO_SKELETON = {
    "hides": "skeleton:none",
    "mirrored": "skeleton:none",
    "skin_volume": "skeleton:dual_quaternion",
    "skin_bendy": "skeleton:bendy",
    "skin_masked": "skeleton:masked",
    "skin_twice": "skeleton:several",
    "skin_smooth": "skeleton:modifier",
}


@pytest.fixture(scope="module")
def odd(in_blender: Any, render: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of every scene, refused and kept."""
    folder = tmp_path_factory.mktemp("scenes")
    in_blender(SCENES, names_of=[*{*REFUSED, *KEPT, *NO_SKELETON}], folder=str(folder))
    out = tmp_path_factory.mktemp("odd") / "d"
    return render(folder, out, passes=("geometry", "skeleton"), rigs=("dynamic_orbit",))


def test_what_has_no_constant_triangles_is_refused_and_rendered_all_the_same(odd: Path) -> None:
    index = Index(odd)
    for name, code in REFUSED.items():
        assert read_clip(index, name).pixels()[..., 3].any()
        with pytest.raises(InputError, match=code):
            read_geometry(index, name)
    rows = DatasetWriter(str(odd), index.manifest.config).rejections()
    assert {row.uid: row.reason for row in rows if row.stage == "geometry"} == REFUSED
    assert verify(str(odd)).ok


def test_skeletons_give_the_vertices_or_say_why_not(odd: Path) -> None:
    """Linear blend skinning of what is stored, against what is stored of the surface: 1e-5 and quantising."""
    index = Index(odd)
    for name, morphs in (("skin", 0), ("skin_key", 1)):
        found = read_geometry(index, name)
        skeleton = found.skeleton
        assert skeleton.names[:2] == ("low", "high") and skeleton.parents[:2].tolist() == [-1, 0]
        sums = np.bincount(skeleton.vertex, skeleton.weight, len(skeleton.basis))
        np.testing.assert_allclose(sums, 1.0, atol=1e-6)
        for t in range(len(found.seconds)):
            assert np.abs(skeleton.skinned(t) - found.vertices[t]).max() <= 1e-5 + found.bound
        assert len(skeleton.morphs) == morphs and np.ptp(skeleton.pose[:, 1], axis=0).max() > 0.1
        joints, weights, error = skeleton.top(4)
        assert error < 1e-6 and joints.shape == weights.shape == (len(skeleton.basis), 4)
        assert skeleton.top(1)[2] > 1e-3
        pixels, in_frame, in_front = skeleton.joints_2d(found.clip(), 1)
        expected, _ = found.clip().cameras[1].project(skeleton.pose[found.clip().times[1]][:, :3, 3])
        np.testing.assert_allclose(pixels, expected, atol=1e-3)
        assert in_frame[:2].all() and in_front[:2].all()
    assert np.ptp(read_geometry(index, "skin_key").skeleton.morph_weights) > 0.5
    rows = {name: index.added.row(name, f"{name}__a0", "skeleton") for name in NO_SKELETON}
    assert {name: row and row["refused"] for name, row in rows.items()} == NO_SKELETON
    with pytest.raises(InputError, match="dual_quaternion"):
        read_geometry(index, "skin_volume").skeleton  # noqa: B018
    row = index.added.row("topology", "topology__a0", "skeleton")
    assert row is not None and row["refused"] == "skeleton:no_geometry"


def test_an_object_that_hides_is_kept_and_not_seen_then(odd: Path) -> None:
    found = read_geometry(odd, "hides")
    other = found.mesh.objects.index("other")
    assert found.mesh.shown[:, other].tolist() == [True, False, False]
    clip = found.clip()
    assert (clip.objects(0) == other).any() and not (clip.objects(1) == other).any()
    alpha = read_clip(odd, "hides").pixels()[..., 3] == 255
    for frame in range(3):
        assert ((clip.triangles(frame) >= 0) == alpha[frame]).mean() > 0.999


def test_each_instance_stands_for_itself(odd: Path) -> None:
    found = read_geometry(odd, "copies")
    assert len(found.mesh.objects) == 2 and found.faces.shape == (24, 3)
    alpha = read_clip(odd, "copies").pixels()[..., 3] == 255
    for frame in range(3):
        assert ((found.clip().triangles(frame) >= 0) == alpha[frame]).mean() > 0.999
        assert set(np.unique(found.clip().objects(0))) == {-1, 0, 1}
    one, other = (found.vertices[:, np.unique(found.faces[found.mesh.object == k])] for k in (0, 1))
    apart = np.sort(other, axis=1) - np.sort(one, axis=1)
    np.testing.assert_allclose(apart, np.broadcast_to(apart[0, 0], apart.shape), atol=4 * found.bound)


def test_mirrored_single_sided_surfaces_keep_their_front(odd: Path) -> None:
    """Wound the wrong way round nothing would be seen, or the far side."""
    clip = read_geometry(odd, "mirrored").clip()
    alpha = read_clip(odd, "mirrored").pixels()[..., 3] == 255
    for frame in range(3):
        hit = clip.triangles(frame) >= 0
        assert (hit == alpha[frame]).mean() > 0.999
        away = clip.points(frame)[hit] - clip.cameras[frame].position
        corners = clip.mesh.vertices[clip.times[frame]][clip.mesh.faces[clip.triangles(frame)[hit]]]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        assert (away * normals).sum(1).max() < 0


def test_the_task_skeleton_tells_of_a_file_without_a_dataset(
    child: BlenderChild, in_blender: Any, tmp_path: Path
) -> None:
    in_blender(SCENES, names_of=["skin"], folder=str(tmp_path))
    payload = {
        "path": str(tmp_path / "skin.blend"), "scratch": str(tmp_path), "action": 0,
        "seconds": [0.0, 0.2, 0.4], "scale": 0.5, "centre": [0.0, 0.0, 1.0],
    }  # fmt: skip
    told = child.call("skeleton", payload, 120)
    surface = read_geometry_file(tmp_path / told["geometry"]["file"])
    skeleton = stored_skeleton(**read_skeleton_file(tmp_path / told["skeleton"]["file"]))
    for t in range(3):
        assert np.abs(skeleton.skinned(t) - surface["vertices"][t]).max() <= 1e-5
    assert np.ptp(surface["vertices"][..., 2]) < 1.1


# Real assets ----------------------------------------------------------------------------------------------


def test_a_real_skinned_character(render: Any, shared: Path, tmp_path: Path) -> None:
    """Cesium Man: depth as Cycles has it, joints that give the surface, tracks that agree with the depth
    pass where a pixel can tell, flow there and back.
    """
    out = render(
        shared / "assets" / "dev_cesiumman.glb",
        tmp_path / "d",
        passes=("geometry", "skeleton", "depth"),
        rigs=("dynamic_orbit",),
        resolution=96,
    )
    assert verify(str(out)).ok
    found = read_geometry(out, "dev_cesiumman")
    truth = read_clip(out, "dev_cesiumman").pass_arrays("depth")
    clip = found.clip()
    for frame, depth in enumerate(truth):
        both = np.isfinite(depth) & np.isfinite(clip.depth(frame))
        assert (np.isfinite(depth) == np.isfinite(clip.depth(frame))).mean() > 0.999 and both.sum() > 300
        assert (np.abs(depth - clip.depth(frame))[both] <= 3e-4).mean() > 0.99
    for t in range(3):
        assert np.abs(found.skeleton.skinned(t) - found.vertices[t]).max() <= 1e-5 + found.bound
    assert found.skeleton.top(4)[2] < 1e-5
    xyz, pixels, visible = clip.tracks(400, seed=0)
    agree = []
    for frame, camera in enumerate(clip.cameras):
        depth = camera.project(xyz[:, frame])[1]
        inside = (pixels[:, frame] >= 0).all(1) & (pixels[:, frame] < 96).all(1)
        column, row = pixels[inside, frame].astype(int).T
        # The pixel's own depth is of its centre: it can only tell what lies 3 % in front of it.
        agree.append((truth[frame][row, column] > depth[inside] * 0.97) >= visible[inside, frame])
    assert np.concatenate(agree).mean() > 0.99 and 0.2 < visible.mean() < 0.8


def test_a_real_rigid_vehicle_keeps_its_parts(render: Any, shared: Path, tmp_path: Path) -> None:
    """Milk truck: each object moves rigidly, so its scene flow is one twist, up to quantising."""
    out = render(
        shared / "assets" / "dev_milktruck.glb", tmp_path / "d", passes=("geometry",), rigs=("dynamic_orbit",)
    )
    found = read_geometry(out, "dev_milktruck")
    moved = 0.0
    for k in range(len(found.mesh.objects)):
        mine = np.unique(found.faces[found.mesh.object == k])
        a, b = (found.vertices[t][mine].astype(np.float64) for t in (0, 1))
        centre_a, centre_b = a.mean(0), b.mean(0)
        u, _, v = np.linalg.svd((a - centre_a).T @ (b - centre_b))
        turn = (u @ np.diag([1, 1, np.sign(np.linalg.det(u @ v))]) @ v).T
        left = (a - centre_a) @ turn.T + centre_b - b
        assert np.abs(left).max() <= 4 * found.bound
        moved = max(moved, float(np.abs(a - b).max()))
    assert moved > 0.01
