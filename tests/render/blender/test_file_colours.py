"""Colours that files give to vertices, names of textures that are not there, and what may light a scene."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orbit4d.datasets.core.errors import InputError
from orbit4d.render.fleet.child import TaskRefused
from orbit4d.render.planning.environment import check_environment

USD_MESH = """#usda 1.0
( upAxis = "Z" )
def Xform "top"
{
def Mesh "m"
{
    int[] faceVertexCounts = [3, 3, 3, 3]
    int[] faceVertexIndices = [0, 2, 1, 0, 1, 3, 0, 3, 2, 1, 2, 3]
    point3f[] points = [(0, -0.3, 1), (1, -0.6, -1), (-1, -0.6, -1), (0, 0.8, -1)]
    uniform token subdivisionScheme = "none"
    COLOURS
}
}
"""
_GREENS = "color3f[] primvars:displayColor = [(0,0.7,0), (0,0.7,0), (0,0.7,0), (0,0.7,0)]"
USD_COLOURS = {
    "no interpolation": "color3f[] primvars:displayColor = [(0.02, 0.8, 0.05)]",
    "uniform": f'{_GREENS} (interpolation = "uniform")',
    "vertex": f'{_GREENS} (interpolation = "vertex")',
    "indexed": 'color3f[] primvars:displayColor = [(0.9,0,0),(0,0.7,0)] (interpolation = "faceVarying")\n'
    "    int[] primvars:displayColor:indices = [1,1,1,1,1,1,1,1,1,1,1,1]",
}


@pytest.mark.parametrize("kind", sorted(USD_COLOURS))
def test_usd_is_drawn_in_its_display_colour(tmp_path: Path, look: Any, share: Any, kind: str) -> None:
    path = tmp_path / "shown.usda"
    path.write_text(USD_MESH.replace("COLOURS", USD_COLOURS[kind]))
    frames, _ = look(path, rigs=("static_orbit",))
    assert all(share(frame, 1) > 0.6 for frame in frames["static_orbit"])


def test_a_display_colour_of_a_parent_is_flagged(tmp_path: Path, look: Any) -> None:
    """Blender's importer does not read what children inherit."""
    path = tmp_path / "heir.usda"
    colour = USD_COLOURS["no interpolation"]
    path.write_text(
        USD_MESH.replace("COLOURS", "").replace(
            "def Mesh", f'{colour} (interpolation = "constant")\ndef Mesh'
        )
    )
    assert "colours_not_drawn" in look(path, rigs=("static_orbit",))[1]
    path.write_text(USD_MESH.replace("COLOURS", ""))
    assert "colours_not_drawn" not in look(path, rigs=("static_orbit",))[1]


def test_usd_is_drawn_in_its_display_opacity(tmp_path: Path, look: Any) -> None:
    path = tmp_path / "veil.usda"
    text = USD_COLOURS["no interpolation"] + "\n    float[] primvars:displayOpacity = [0.5]"
    path.write_text(USD_MESH.replace("COLOURS", text))
    alpha = look(path, rigs=("static_orbit",), samples=64)[0]["static_orbit"][0][..., 3]
    # Two sides, each a half.
    assert abs(float(np.median(alpha[alpha > 64])) - 191) < 20


CORNERS = [(-1, -0.2, -1), (1, -0.2, -1), (1, -0.2, 1), (-1, -0.2, 1), (0, 0.6, 0)]
SIDES = [(0, 1, 2), (0, 2, 3), (0, 4, 1), (1, 4, 2), (2, 4, 3), (3, 4, 0)]


def _ply(kind: str, colour: tuple[int, int, int]) -> bytes:
    lines = ["ply", f"format {kind} 1.0", f"element vertex {len(CORNERS)}"]
    lines += [f"property float {axis}" for axis in "xyz"]
    lines += [f"property uchar {name}" for name in ("red", "green", "blue")]
    lines += [f"element face {len(SIDES)}", "property list uchar int vertex_indices", "end_header", ""]
    head = "\n".join(lines).encode()
    if kind == "ascii":
        rows = [" ".join(map(str, (*p, *colour))) for p in CORNERS]
        return head + "\n".join([*rows, *(f"3 {a} {b} {c}" for a, b, c in SIDES), ""]).encode()
    body = b"".join(struct.pack("<3f3B", *p, *colour) for p in CORNERS)
    return head + body + b"".join(struct.pack("<B3i", 3, *f) for f in SIDES)


def _obj(head: str = "", use: str = "") -> bytes:
    rows = [f"v {x} {z} {-y} 0.05 0.1 0.9" for x, y, z in CORNERS]
    faces = [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in SIDES]
    return "\n".join([head, *rows, use, *faces, ""]).encode()


def _stl(header: bytes, attribute: int) -> bytes:
    facets = b"".join(
        struct.pack("<12fH", 0, 0, 0, *(c for i in f for c in CORNERS[i]), attribute) for f in SIDES
    )
    return header.ljust(80, b"\0") + struct.pack("<I", len(SIDES)) + facets


SCANS = {
    "text.ply": _ply("ascii", (20, 40, 240)),
    "binary.ply": _ply("binary_little_endian", (20, 40, 240)),
    "plain.obj": _obj(),
    "named.obj": _obj("mtllib named.mtl", "usemtl paint"),
    "lost.obj": _obj("mtllib lost.mtl", "usemtl paint"),
    "viscam.stl": _stl(b"made by hand", 1 << 15 | 1 << 10 | 2 << 5 | 30),
    "magics.stl": _stl(b"COLOR=\xf0\x10\x10\xff", 1 | 2 << 5 | 30 << 10),
    "whole.stl": _stl(b"COLOR=\x10\x10\xf0\xff", 1 << 15),
}


@pytest.mark.parametrize("name", sorted(SCANS))
def test_a_scan_is_drawn_in_its_own_colours(tmp_path: Path, look: Any, share: Any, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(SCANS[name])
    (tmp_path / "named.mtl").write_text("newmtl paint\nKd 1 1 1\n")
    frames, flags = look(path, rigs=("static_orbit",))
    assert all(share(frame, 2) > 0.6 for frame in frames["static_orbit"]), flags


def test_an_stl_without_colours_stays_grey(tmp_path: Path, look: Any, share: Any) -> None:
    path = tmp_path / "grey.stl"
    path.write_bytes(_stl(b"made by hand", 0))
    frames, flags = look(path, rigs=("static_orbit",))
    assert share(frames["static_orbit"][0], 2, 10) == 0.0 and "colours_not_drawn" not in flags


@pytest.mark.parametrize(("with_material", "red"), [(False, True), (True, False)])
def test_fbx_colours_are_drawn_where_there_is_no_material(
    tmp_path: Path, look: Any, share: Any, in_blender: Any, with_material: bool, red: bool
) -> None:
    """With a material they are data for a shader, as often as not."""
    path = tmp_path / "painted.fbx"
    in_blender(
        """
        import bpy
        bpy.ops.wm.read_factory_settings(use_empty=True)
        bpy.ops.mesh.primitive_uv_sphere_add(radius=0.7)
        mesh = bpy.context.object.data
        attribute = mesh.color_attributes.new("paint", "BYTE_COLOR", "CORNER")
        for entry in attribute.data:
            entry.color = (0.8, 0.03, 0.03, 1.0)
        if with_material:
            mesh.materials.append(bpy.data.materials.new("skin"))
        bpy.ops.export_scene.fbx(filepath=path, bake_anim=False)
        """,
        path=str(path),
        with_material=with_material,
    )
    frames, _ = look(path, rigs=("static_orbit",))
    assert (share(frames["static_orbit"][0], 0) > 0.6) == red


def test_missing_textures_of_usd_and_obj_are_named(tmp_path: Path, look: Any) -> None:
    stage = tmp_path / "bark.usda"
    shader = """
def Material "mat"
{
  token outputs:surface.connect = </mat/s.outputs:surface>
  def Shader "s"
  {
    uniform token info:id = "UsdPreviewSurface"
    color3f inputs:diffuseColor.connect = </mat/t.outputs:rgb>
    token outputs:surface
  }
  def Shader "t"
  {
    uniform token info:id = "UsdUVTexture"
    asset inputs:file = @maps/oak.png@
    color3f outputs:rgb
  }
}
"""
    stage.write_text(USD_MESH.replace("COLOURS", "rel material:binding = </mat>") + shader)
    assert look(stage, rigs=("static_orbit",))[1][-1] == "missing_texture:oak.png"
    model = tmp_path / "planks.obj"
    model.write_bytes(_obj("mtllib planks.mtl", "usemtl paint"))
    (tmp_path / "planks.mtl").write_text("newmtl paint\nmap_Kd C:\\maps\\wood grain.png\n")
    assert look(model, rigs=("static_orbit",))[1][-1] == "missing_texture:wood grain.png"


# ------------------------------------------------------------------ what lights the scene


@pytest.mark.parametrize(("content", "word"), [
    (b"glTF\x02\0\0\0" + b"\0" * 40, "not an image"), (b"PK\x03\x04" + b"\0" * 40, "not an image"),
    (b"\x89PNG\r\n\x1a\n" + b"cut", "not an image"), (None, "cannot be read"),
])  # fmt: skip
def test_an_environment_must_be_an_image(tmp_path: Path, content: bytes | None, word: str) -> None:
    path = tmp_path / "sky.exr"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=word):
        check_environment(str(path))


@pytest.mark.parametrize("magic", [b"\x76\x2f\x31\x01", b"#?RADIANCE\n", b"#?RGBE\n"])
def test_a_panorama_may_light_the_scene_but_a_cut_one_stops_the_run(
    tmp_path: Path, look: Any, toy: Callable[..., Path], magic: bytes
) -> None:
    path = tmp_path / "sky.hdr"
    path.write_bytes(magic + b"\0" * 30)
    check_environment(str(path))
    with pytest.raises(TaskRefused, match="cannot read it as an image"):
        look(toy(tmp_path / "toy.glb"), environment=str(path))


def test_an_environment_at_a_uri_is_refused() -> None:
    with pytest.raises(InputError, match="must be a file"):
        check_environment("s3://bucket/sky.exr")
    check_environment(None)
