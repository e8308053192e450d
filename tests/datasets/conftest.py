"""Small asset files made on the spot: pure-Python glTF, and one cube in every format Blender writes."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

_CUBE = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32) * 0.5
_FACES = np.array(
    [
        (0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1),
        (2, 3, 7), (2, 7, 6), (0, 2, 6), (0, 6, 4), (1, 5, 7), (1, 7, 3),
    ],
    np.uint16,
)  # fmt: skip


def glb_bytes(doc: dict, binary: bytes = b"") -> bytes:
    """A GLB file around a document; the binary chunk is left out when empty."""
    text = json.dumps(doc).encode()
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text
    if binary:
        body += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def moving_cube(
    actions: dict[str, list[tuple[float, float, float]]], seconds: float = 1.0, **asset
) -> tuple[dict, bytes]:
    """(document, binary) of a cube; each action lists its translations, evenly spread over `seconds`."""
    chunks: list[bytes] = []
    views, accessors, animations = [], [], []

    def add(array: np.ndarray, kind: str, component: int, **extra) -> int:
        data = array.tobytes()
        views.append({"buffer": 0, "byteOffset": sum(map(len, chunks)), "byteLength": len(data)})
        chunks.append(data + b"\0" * (-len(data) % 4))
        views[-1]["byteLength"] = len(data)
        count = array.size if kind == "SCALAR" else len(array)
        accessors.append(
            {"bufferView": len(views) - 1, "componentType": component, "count": count, "type": kind, **extra}
        )
        return len(accessors) - 1

    position = add(_CUBE, "VEC3", 5126, min=_CUBE.min(0).tolist(), max=_CUBE.max(0).tolist())
    index = add(_FACES.reshape(-1), "SCALAR", 5123)
    for name, places in actions.items():
        times = np.linspace(0.0, seconds, len(places), dtype=np.float32)
        source = add(times, "SCALAR", 5126, min=[0.0], max=[float(seconds)])
        target = add(np.array(places, np.float32), "VEC3", 5126)
        animations.append(
            {
                "name": name,
                "samplers": [{"input": source, "output": target, "interpolation": "LINEAR"}],
                "channels": [{"sampler": 0, "target": {"node": 0, "path": "translation"}}],
            }
        )
    binary = b"".join(chunks)
    doc = {
        "asset": {"version": "2.0", **asset},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "cube"}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": position}, "indices": index}]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    if animations:
        doc["animations"] = animations
    return doc, binary


@pytest.fixture(scope="session")
def make_cube():
    """make_cube(path, actions, seconds=1.0, **asset): write a moving cube as GLB; returns the path."""

    def make(path: Path, actions=None, seconds: float = 1.0, **asset) -> Path:
        path.write_bytes(glb_bytes(*moving_cube(actions or {}, seconds, **asset)))
        return path

    return make


@pytest.fixture(scope="session")
def cube_document():
    """cube_document() -> (document, binary) to be broken, and the function that packs it."""
    return lambda: moving_cube({"hop": [(0, 0, 0), (0, 0, 0.3), (0, 0, 0)]})


@pytest.fixture(scope="session")
def pack_glb():
    return glb_bytes


_EXPORT = """
import bpy, sys
folder = sys.argv[1]
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.mesh.primitive_cube_add()
cube = bpy.context.object
cube.keyframe_insert("location", frame=1)
cube.location.z = 1.0
cube.keyframe_insert("location", frame=20)
bpy.ops.wm.save_as_mainfile(filepath=folder + "/cube.blend", compress=False)
bpy.ops.export_scene.fbx(filepath=folder + "/cube.fbx")
bpy.ops.wm.usd_export(filepath=folder + "/cube.usdc")
bpy.ops.wm.usd_export(filepath=folder + "/cube.usda")
bpy.ops.wm.usd_export(filepath=folder + "/cube.usdz")
bpy.ops.wm.alembic_export(filepath=folder + "/cube.abc", start=1, end=5)
bpy.ops.wm.obj_export(filepath=folder + "/cube.obj")
bpy.ops.wm.ply_export(filepath=folder + "/cube.ply")
bpy.ops.wm.stl_export(filepath=folder + "/cube.stl")
bpy.ops.export_scene.gltf(filepath=folder + "/cube.glb")
bpy.ops.export_scene.gltf(filepath=folder + "/cube.gltf", export_format="GLTF_SEPARATE")
# A crate whose names pack well, and which names a picture beside its own folder.
import os
os.mkdir(folder + "/inner")
picture = bpy.data.images.new("secret", 8, 8)
picture.filepath_raw = folder + "/secret.png"
picture.file_format = "PNG"
picture.save()
material = bpy.data.materials.new("skin")
material.use_nodes = True
texture = material.node_tree.nodes.new("ShaderNodeTexImage")
texture.image = picture
shader = material.node_tree.nodes["Principled BSDF"]
material.node_tree.links.new(texture.outputs[0], shader.inputs[0])
cube.data.materials.append(material)
for i in range(40):
    bpy.ops.object.empty_add()
    bpy.context.object.name = f"limb_of_the_long_name_{i:03d}"
for kind in ("usdc", "usda"):
    bpy.ops.wm.usd_export(filepath=f"{folder}/inner/leak.{kind}", export_textures_mode="KEEP")
if hasattr(bpy.ops.wm, "collada_export"):
    try:
        bpy.ops.wm.collada_export(filepath=folder + "/cube.dae")
    except AttributeError:
        print("no collada in this build")
"""


@pytest.fixture(scope="session")
def cubes(tmp_path_factory) -> dict[str, Path]:
    """suffix -> a cube, as Blender itself writes it."""
    folder = tmp_path_factory.mktemp("cubes")
    subprocess.run(
        [sys.executable, "-P", "-c", _EXPORT, str(folder)], check=True, capture_output=True, timeout=180
    )
    return {path.suffix[1:]: path for path in folder.glob("cube.*") if path.suffix not in (".bin", ".mtl")}


# Geometry beside clips ------------------------------------------------------------------------------------


def surfaces_beside(clips, refused: str = "") -> list:
    """What a render with `--passes geometry` adds to the clips of one action: here of a box that slides."""
    from orbit4d.datasets.added.rows import Added, action_sample
    from orbit4d.datasets.geometry.action import Material, encode_mesh, stored_mesh
    from orbit4d.datasets.geometry.surface_map import draw, encode_maps
    from orbit4d.datasets.store.clip import sample_name

    first = clips[0]
    named = (first.uid, first.action, first.action_index)
    sample = action_sample(first.uid, first.action_index)
    if refused:
        return [Added(*named, sample, "geometry", refused=refused, detail="for a test")]
    seconds = sorted({t for clip in clips for t in clip.seconds})
    places = np.stack([_CUBE * 0.5 + [0.1 * t, 0.0, 0.05 * t] for t in seconds])
    mesh = stored_mesh(
        places,
        first.cameras,
        seconds=np.array(seconds),
        faces=_FACES.astype(np.int32),
        material=np.zeros(12, np.uint16),
        object=np.zeros(12, np.uint16),
        materials=(Material("paint"),),
        objects=("box",),
        shown=np.ones((len(seconds), 1), bool),
    )
    rows = [Added(*named, sample, "geometry", (encode_mesh(mesh),))]
    for clip in clips:
        maps = [draw(mesh, seconds.index(t), c)[0] for t, c in zip(clip.seconds, clip.cameras)]
        rows.append(Added(*named, sample_name(clip.key), "surface", (encode_maps(maps),)))
    return rows


@pytest.fixture(scope="session")
def beside():
    """`beside(clips, refused="")`: see surfaces_beside."""
    return surfaces_beside


@pytest.fixture(scope="session")
def make_geometry_dataset(make_clips):
    """`make_geometry_dataset(out, uids=("a", "b"), refuse=(), without=())`: a committed dataset of drawn
    clips (8 frames of 32x32, three rigs, the action Run) with a sliding box beside them; actions of `refuse`
    refuse it, those of `without` have nothing beside.
    """
    from orbit4d.datasets import DatasetWriter
    from orbit4d.datasets.added.rolling import roll_added
    from orbit4d.datasets.added.staging import stage_added

    def make(out, uids=("a", "b"), refuse=(), without=()):
        writer = DatasetWriter(out, {"frames": 8})
        for uid in uids:
            clips = make_clips(uid)
            writer.stage(uid, clips)
            if uid not in without:
                stage_added(
                    writer.store,
                    uid,
                    surfaces_beside(clips, "geometry:topology" if uid in refuse else ""),
                )
        writer.roll(final=True)
        roll_added(writer.store, writer.indexed(), final=True)
        return out

    return make


@pytest.fixture(scope="session")
def geometry_dataset(tmp_path_factory, make_geometry_dataset):
    """Assets a and b with geometry, c that refuses it, d without. Shared: do not write to it."""
    out = tmp_path_factory.mktemp("geometry") / "dataset"
    return make_geometry_dataset(out, ("a", "b", "c", "d"), refuse=("c",), without=("d",))
