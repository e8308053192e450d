"""A scene's textured mesh that its nodes move: GLB with a skin, USD, Alembic, and an OBJ per time."""

from __future__ import annotations

import io
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.geometry.exports import alembic
from orbit4d.datasets.geometry.exports.glb import INDEX_DATA, VERTEX_DATA, GlbBuffer, pack_glb
from orbit4d.recon4d.export.upright import UP
from orbit4d.recon4d.export.usd import os_errors, save_stage
from orbit4d.recon4d.mesh.bones import Bones, bones_of
from orbit4d.recon4d.mesh.surface import surface
from orbit4d.recon4d.mesh.texture import Textured, textured
from orbit4d.recon4d.scene import Scene

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class MovingMesh:
    """A textured mesh and its bones, in the world of the cameras."""

    mesh: Textured
    bones: Bones
    seconds: Array
    """[T] times of the bones' keys."""

    def at(self, time: int, up: str = "z") -> Array:
        """Vertices [V, 3] at the time of this number."""
        return self.bones.moved(self.mesh.vertices, time) @ np.array(UP[up]).T


def moving_mesh(scene: Scene, frames: int, fps: float) -> MovingMesh:
    """The surface of a scene with its motion at `frames` times, `fps` a second.

    InputError where a part is missing (`pip install 'orbit4d[mesh]'`), the field has no nodes, or nothing
    solid is seen.
    """
    # Asked first: a surface takes seconds.
    bones_of(scene, np.zeros((0, 3)), 1)
    vertices, faces, views = surface(scene.gaussians)
    mesh = textured(vertices, faces, views)
    bones = bones_of(scene, mesh.vertices, frames)
    scale, centre = scene.world.scale, np.array(scene.world.centre)
    placed = Textured(mesh.vertices * scale + centre, mesh.faces, mesh.uv, mesh.normals, mesh.image)
    moved = Bones(
        bones.rest * scale + centre, bones.places * scale + centre, bones.quats, bones.joints, bones.weights
    )
    return MovingMesh(placed, moved, np.arange(frames) / fps)


def _png(image: Array) -> bytes:
    held = io.BytesIO()
    Image.fromarray(image).save(held, "PNG", optimize=True)
    return held.getvalue()


def mesh_glb_bytes(moving: MovingMesh, name: str = "scene") -> bytes:
    """GLB with a skin: a joint a node, their translations and rotations as keys; +Y up, as glTF means it."""
    from scipy.spatial.transform import Rotation

    mesh, bones, buffer = moving.mesh, moving.bones, GlbBuffer()
    turn = np.array(UP["y"])
    rest, places = bones.rest @ turn.T, bones.places @ turn.T
    # A rotation R of our world is T R T^-1 in the turned one; its quaternion's axis turns.
    xyz = bones.quats[..., 1:] @ turn.T
    quats = np.concatenate([xyz, bones.quats[..., :1]], -1)
    attributes = {
        "POSITION": buffer.accessor(_f4(mesh.vertices @ turn.T), "VEC3", True, VERTEX_DATA),
        "NORMAL": buffer.accessor(_f4(_unit(mesh.normals @ turn.T)), "VEC3", False, VERTEX_DATA),
        "TEXCOORD_0": buffer.accessor(_f4(mesh.uv * (1, -1) + (0, 1)), "VEC2", False, VERTEX_DATA),
        "JOINTS_0": buffer.accessor(bones.joints.astype("<u2"), "VEC4", False, VERTEX_DATA),
        "WEIGHTS_0": buffer.accessor(_f4(bones.weights), "VEC4", False, VERTEX_DATA),
    }
    indices = buffer.accessor(mesh.faces.astype("<u4").reshape(-1), "SCALAR", False, INDEX_DATA)
    inverse = np.tile(np.eye(4), (len(rest), 1, 1))
    inverse[:, :3, 3] = -rest
    bind = buffer.accessor(_f4(inverse.swapaxes(1, 2).reshape(-1, 16)), "MAT4", False)
    image = buffer.view(np.frombuffer(_png(mesh.image), np.uint8))
    nodes: list[dict[str, Any]] = [{"name": name, "mesh": 0, "skin": 0}, {"name": f"{name}-bones"}]
    nodes[1]["children"] = list(range(2, 2 + len(rest)))
    first = Rotation.from_quat(quats[0]).as_quat()
    for k in range(len(rest)):
        pose = {"translation": _f4(places[0, k]).tolist(), "rotation": _f4(first[k]).tolist()}
        nodes.append({"name": f"node{k:03d}", **pose})
    document = {
        "asset": {"version": "2.0", "generator": "orbit4d"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0, 1]}],
        "nodes": nodes,
        "meshes": [
            {"name": name, "primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}
        ],
        "skins": [{"joints": nodes[1]["children"], "inverseBindMatrices": bind, "skeleton": 1}],
        "materials": [_material()],
        "textures": [{"source": 0, "sampler": 0}],
        "samplers": [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}],
        "images": [{"bufferView": image, "mimeType": "image/png"}],
    }
    if len(moving.seconds) > 1:
        document["animations"] = [_keys(buffer, moving.seconds, places, quats)]
    document |= {
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": buffer.length}],
    }
    return pack_glb(document, b"".join(buffer.chunks))


def _material() -> dict[str, Any]:
    """The light is in the texture already."""
    return {
        "name": "surface",
        "pbrMetallicRoughness": {
            "baseColorTexture": {"index": 0}, "metallicFactor": 0.0, "roughnessFactor": 1.0,
        },
        "extensions": {"KHR_materials_unlit": {}},
        "doubleSided": True,
    }  # fmt: skip


def _keys(buffer: GlbBuffer, seconds: Array, places: Array, quats: Array) -> dict[str, Any]:
    times = buffer.accessor(_f4(seconds), "SCALAR", True)
    animation: dict[str, Any] = {"name": "motion", "samplers": [], "channels": []}
    for k in range(places.shape[1]):
        for path, values, kind in (("translation", places, "VEC3"), ("rotation", _unit(quats), "VEC4")):
            output = buffer.accessor(_f4(values[:, k]), kind, False)
            target = {"node": 2 + k, "path": path}
            animation["channels"].append({"sampler": len(animation["samplers"]), "target": target})
            animation["samplers"].append({"input": times, "output": output, "interpolation": "LINEAR"})
    return animation


def _f4(array: Any) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(array, "<f4")


def _unit(array: Array) -> Array:
    return array / np.maximum(np.linalg.norm(array, axis=-1, keepdims=True), 1e-30)


def write_mesh_obj(moving: MovingMesh, folder: Path, up: str) -> None:
    """mesh_0000.obj ..., one mesh.mtl and texture.png; vertices and triangles keep their numbers."""
    mesh = moving.mesh
    (folder / "texture.png").write_bytes(_png(mesh.image))
    (folder / "mesh.mtl").write_text(
        "newmtl surface\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd texture.png\n", encoding="utf-8"
    )
    uv = "".join(f"vt {u:.6f} {v:.6f}\n" for u, v in mesh.uv)
    faces = "".join(f"f {a}/{a} {b}/{b} {c}/{c}\n" for a, b, c in mesh.faces + 1)
    for i in range(len(moving.seconds)):
        points = "".join(f"v {x:.6f} {y:.6f} {z:.6f}\n" for x, y, z in moving.at(i, up))
        text = f"mtllib mesh.mtl\no mesh\n{points}{uv}usemtl surface\n{faces}"
        (folder / f"mesh_{i:04d}.obj").write_text(text, encoding="utf-8")


def needs_blender() -> None:
    """InputError where nothing brought Blender along."""
    if not alembic.OPENER:
        raise InputError("alembic is written by Blender: use `orbit4d export SCENE --format mesh-alembic`")


def write_mesh_alembic(moving: MovingMesh, out: Path) -> None:
    """An .abc of the moving vertices, through Blender, which turns +Z up to Alembic's +Y itself.

    InputError where nothing brought Blender along.
    """
    needs_blender()
    step = float(moving.seconds[1]) if len(moving.seconds) > 1 else 1.0 / 24.0
    with alembic.OPENER[-1]() as write, tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / "mesh.npz"
        vertices = np.stack([moving.at(i) for i in range(len(moving.seconds))]).astype(np.float32)
        np.savez(arrays, vertices=vertices, faces=moving.mesh.faces)
        made = Path(folder) / "mesh.abc"
        write({"arrays": str(arrays), "step": step, "name": "scene", "out": str(made)})
        out.write_bytes(made.read_bytes())


def write_mesh_usd(moving: MovingMesh, out: Path, up: str, fps: float) -> None:
    """A mesh with points over time, texture coordinates, and its colours at the vertices.

    A .usdz holds the texture beside the stage, as a surface that shines by itself, since the light is in it
    already; the other suffixes hold no image. InputError without usd-core.
    """
    try:
        from pxr import Sdf, Usd, UsdUtils
    except ImportError:
        raise InputError("USD needs usd-core: pip install 'usd-core>=26.3'") from None
    if out.suffix.lower() != ".usdz":
        stage = _mesh_stage(moving, Usd.Stage.CreateNew(str(out)), up, fps)
        save_stage(stage)  # a layer goes with its stage, which needs a name
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "texture.png").write_bytes(_png(moving.mesh.image))
        stage = _mesh_stage(moving, Usd.Stage.CreateNew(f"{folder}/mesh.usdc"), up, fps)
        _usd_material(stage, "./texture.png")
        save_stage(stage)
        with os_errors():
            if not UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(f"{folder}/mesh.usdc"), str(out)):
                raise OSError(None, "usd-core made no package")
        _check_package(out)


def _check_package(out: Path) -> None:
    """OSError for a package that is not whole: on a full disk usd-core leaves one without a word."""
    try:
        with zipfile.ZipFile(out) as package:
            whole = package.testzip() is None
    except zipfile.BadZipFile:
        whole = False
    if not whole:
        raise OSError(None, "the package is not whole; the disk may be full")


def _usd_material(stage: Any, texture: str) -> None:
    """A preview surface that shows a texture as it is."""
    from pxr import Sdf, UsdShade

    material = UsdShade.Material.Define(stage, "/scene/surface")
    reader = UsdShade.Shader.Define(stage, "/scene/surface/coordinates")
    reader.CreateIdAttr("UsdPrimvarReader_float2")
    reader.CreateInput("varname", Sdf.ValueTypeNames.String).Set("st")
    image = UsdShade.Shader.Define(stage, "/scene/surface/image")
    image.CreateIdAttr("UsdUVTexture")
    image.CreateInput("file", Sdf.ValueTypeNames.Asset).Set(texture)
    image.CreateInput("sourceColorSpace", Sdf.ValueTypeNames.Token).Set("sRGB")
    for axis in ("wrapS", "wrapT"):
        image.CreateInput(axis, Sdf.ValueTypeNames.Token).Set("clamp")
    place = reader.CreateOutput("result", Sdf.ValueTypeNames.Float2)
    image.CreateInput("st", Sdf.ValueTypeNames.Float2).ConnectToSource(place)
    shader = UsdShade.Shader.Define(stage, "/scene/surface/shader")
    shader.CreateIdAttr("UsdPreviewSurface")
    shader.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f).Set((0.0, 0.0, 0.0))
    shader.CreateInput("roughness", Sdf.ValueTypeNames.Float).Set(1.0)
    shader.CreateInput("ior", Sdf.ValueTypeNames.Float).Set(1.0)
    color = image.CreateOutput("rgb", Sdf.ValueTypeNames.Float3)
    shader.CreateInput("emissiveColor", Sdf.ValueTypeNames.Color3f).ConnectToSource(color)
    material.CreateSurfaceOutput().ConnectToSource(shader.ConnectableAPI(), "surface")
    UsdShade.MaterialBindingAPI.Apply(stage.GetPrimAtPath("/scene/mesh")).Bind(material)


def _mesh_stage(moving: MovingMesh, stage: Any, up: str, fps: float) -> Any:
    """The stage with the mesh in it, not saved."""
    from pxr import Sdf, UsdGeom, Vt

    mesh = moving.mesh
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y if up == "y" else UsdGeom.Tokens.z)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    root = UsdGeom.Xform.Define(stage, "/scene")
    stage.SetDefaultPrim(root.GetPrim())
    prim = UsdGeom.Mesh.Define(stage, "/scene/mesh")
    prim.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(mesh.faces), 3, np.int32)))
    prim.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(mesh.faces.astype(np.int32).reshape(-1)))
    prim.CreateSubdivisionSchemeAttr("none")
    prim.CreateDoubleSidedAttr(True)
    size = len(mesh.image)
    column, row = (np.clip(v * size, 0, size - 1).astype(int) for v in (mesh.uv[:, 0], 1 - mesh.uv[:, 1]))
    srgb = mesh.image[row, column] / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    colors = prim.CreateDisplayColorPrimvar(UsdGeom.Tokens.vertex)
    colors.Set(Vt.Vec3fArray.FromNumpy(_f4(linear)))
    places = UsdGeom.PrimvarsAPI(prim).CreatePrimvar(
        "st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.vertex
    )
    places.Set(Vt.Vec2fArray.FromNumpy(_f4(mesh.uv)))
    frames = len(moving.seconds)
    points, extent = prim.CreatePointsAttr(), prim.CreateExtentAttr()
    for i in range(frames):
        now = _f4(moving.at(i, up))
        code = (i,) if frames > 1 else ()
        points.Set(Vt.Vec3fArray.FromNumpy(now), *code)
        extent.Set(Vt.Vec3fArray.FromNumpy(_f4([now.min(0), now.max(0)])), *code)
    if frames > 1:
        stage.SetStartTimeCode(0)
        stage.SetEndTimeCode(frames - 1)
        stage.SetTimeCodesPerSecond(fps)
    return stage
