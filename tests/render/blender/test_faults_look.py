"""How surfaces look: from behind, in many layers, through glass."""

from __future__ import annotations

import csv
import json
import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orbit4d.render.fleet.child import TaskRefused
from orbit4d.render.planning.settings import PRESETS, RenderSettings

Frames = dict[str, np.ndarray]


def middle(frame: np.ndarray, half: int = 3) -> np.ndarray:
    """Mean straight RGBA of a square in the middle of a frame."""
    h, w = frame.shape[0] // 2, frame.shape[1] // 2
    return frame[h - half : h + half, w - half : w + half].reshape(-1, 4).mean(0)


# ------------------------------------------------------------------ a glTF of a few shapes


def ball(radius: float, inwards: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(positions, triangles) of a sphere of 24 x 12 patches, Y up."""
    u, v = np.meshgrid(np.linspace(0, 2 * np.pi, 25), np.linspace(0, np.pi, 13))
    points = radius * np.stack([np.sin(v) * np.sin(u), np.cos(v), np.sin(v) * np.cos(u)], -1).reshape(-1, 3)
    a = (np.arange(12)[:, None] * 25 + np.arange(24)).ravel()
    faces = np.concatenate([np.stack([a, a + 25, a + 1], 1), np.stack([a + 1, a + 25, a + 26], 1)])
    return points, faces[:, ::-1] if inwards else faces


def box(size: float, inwards: bool = False) -> tuple[np.ndarray, np.ndarray]:
    corners = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float) * size / 2
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    return corners, faces[:, ::-1] if inwards else faces


def card(width: float, height: float, z: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A rectangle that faces +Z, glTF's front."""
    x, y = width / 2, height / 2
    return np.array([(-x, -y, z), (x, -y, z), (x, y, z), (-x, y, z)]), np.array([(0, 1, 2), (0, 2, 3)])


def material(colour: Sequence[float], unlit: bool = False, **more: Any) -> dict[str, Any]:
    pbr = {"baseColorFactor": [*colour, 1.0][:4], "metallicFactor": 0.0, "roughnessFactor": 1.0}
    extensions = {**({"KHR_materials_unlit": {}} if unlit else {}), **more.pop("extensions", {})}
    return {"pbrMetallicRoughness": pbr, **({"extensions": extensions} if extensions else {}), **more}


def write_glb(path: Path, shapes: Sequence[dict[str, Any]], **more: Any) -> Path:
    """A GLB of shapes {mesh, material or None, node, colours}; shape 0 rises by a tenth and comes back."""
    blob, views, accessors = bytearray(), [], []

    def store(array: Any, kind: str, dtype: str, component: int) -> int:
        data = np.ascontiguousarray(array, dtype)
        views.append({"buffer": 0, "byteOffset": len(blob), "byteLength": data.nbytes})
        blob.extend(data.tobytes() + b"\0" * (-data.nbytes % 4))
        entry = {"bufferView": len(views) - 1, "componentType": component, "type": kind}
        entry["count"] = data.size if kind == "SCALAR" else len(data)
        if component == 5126:
            flat = data.reshape(entry["count"], -1)
            entry |= {"min": flat.min(0).tolist(), "max": flat.max(0).tolist()}
        accessors.append(entry)
        return len(accessors) - 1

    meshes, nodes, materials = [], [], []
    for i, shape in enumerate(shapes):
        points, faces = shape["mesh"]
        attributes = {"POSITION": store(points, "VEC3", "<f4", 5126)}
        if "colours" in shape:
            attributes["COLOR_0"] = store(shape["colours"], "VEC3", "<f4", 5126)
        if "uv" in shape:
            attributes["TEXCOORD_0"] = store(shape["uv"], "VEC2", "<f4", 5126)
        primitive = {"attributes": attributes, "indices": store(faces.ravel(), "SCALAR", "<u4", 5125)}
        if shape.get("material") is not None:
            primitive["material"] = len(materials)
            materials.append(shape["material"])
        meshes.append({"primitives": [primitive]})
        nodes.append({"name": f"n{i}", "mesh": i, **shape.get("node", {})})
    times = store([0.0, 0.5, 1.0], "SCALAR", "<f4", 5126)
    rise = np.array([(0, 0, 0), (0, 0.1, 0), (0, 0, 0)]) + nodes[0].get("translation", (0.0, 0.0, 0.0))
    sampler = {"input": times, "output": store(rise, "VEC3", "<f4", 5126)}
    channel = {"sampler": 0, "target": {"node": 0, "path": "translation"}}
    document = {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": list(range(len(nodes)))}],
        "nodes": nodes, "meshes": meshes, "accessors": accessors, "bufferViews": views,
        "animations": [{"name": "Rise", "samplers": [sampler], "channels": [channel]}],
        "buffers": [{"byteLength": len(blob)}], **more,
    }  # fmt: skip
    if materials:
        document["materials"] = materials
        used = sorted({name for m in materials for name in m.get("extensions", {})})
        document["extensionsUsed"] = [*used, *document.get("extensionsUsed", [])]
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    total = 28 + len(text) + len(blob)
    path.write_bytes(
        struct.pack("<4sIII4s", b"glTF", 2, total, len(text), b"JSON") + text
        + struct.pack("<I4s", len(blob), b"BIN\0") + blob
    )  # fmt: skip
    return path


BLUE, GREY, RED = (0.02, 0.05, 0.9), (0.4, 0.4, 0.4), (0.9, 0.02, 0.02)


# ------------------------------------------------------------------ seen from behind


@pytest.mark.parametrize("unlit", [False, True])
def test_what_is_inside_a_hull_that_faces_inwards_is_seen(tmp_path: Path, look: Any, unlit: bool) -> None:
    core = {"mesh": ball(0.5), "material": material(BLUE, unlit)}
    hull = {"mesh": ball(0.58, inwards=True), "material": material((0, 0, 0), unlit)}
    frames, _ = look(write_glb(tmp_path / "hull.glb", [core, hull]))
    for rig in ("front_view", "dynamic_orbit"):
        for frame in frames[rig]:
            r, _, b, a = middle(frame)
            assert a == 255 and b > 90 and b > r + 60, (rig, middle(frame))
    # The far side of the hull faces the camera around the core: the outline.
    frame = frames["static_orbit"][1]
    assert ((frame[..., :3].max(-1) < 70) & (frame[..., 3] > 200)).sum() > 100


def test_a_room_whose_walls_face_inwards_shows_what_is_in_it(
    tmp_path: Path, look: Any, share: Any, child: Any
) -> None:
    inside = {"mesh": ball(0.3), "material": material(RED)}
    walls = {"mesh": box(2.0, inwards=True), "material": material(GREY, name="wall")}
    path = write_glb(tmp_path / "room.glb", [inside, walls])
    frames, _ = look(path)
    for frame in frames["dynamic_orbit"]:
        assert share(frame[22:42, 22:42], 0) > 0.3
    sizes = {"previews": "window", "preview_size": 64, "preview_samples": 4}
    measured = child.call("measure", {"path": str(path), **sizes}, 60)["actions"][0]
    assert measured["ssim_object_half"] < 0.999, "the preview sees the ball move behind the wall"


@pytest.mark.parametrize(("double", "mirrored", "seen"), [
    (False, False, (True, False)), (True, False, (True, True)), (True, True, (True, True)),
    (False, True, (False, True)),
])  # fmt: skip
def test_a_card_is_seen_from_its_front_and_a_double_sided_one_from_both_sides(
    tmp_path: Path, look: Any, share: Any, double: bool, mirrored: bool, seen: tuple[bool, bool]
) -> None:
    """Mirrored along the depth it faces away: a mirror turns the winding with it."""
    node = {"scale": [1, 1, -1]} if mirrored else {}
    rod = {"mesh": box(0.1), "material": material(GREY), "node": {"translation": [0, 1.1, 0]}}
    face = {"mesh": card(1.5, 1.0), "material": material(BLUE, doubleSided=double), "node": node}
    frames, _ = look(write_glb(tmp_path / "card.glb", [rod, face]))
    orbit = frames["static_orbit"]
    assert tuple(bool(share(orbit[i], 2) > 0.3) for i in (0, 2)) == seen


def test_mirrored_along_the_width_a_card_still_faces_the_same_way(
    tmp_path: Path, look: Any, share: Any
) -> None:
    rod = {"mesh": box(0.1), "material": material(GREY), "node": {"translation": [0, 1.1, 0]}}
    face = {"mesh": card(1.5, 1.0), "material": material(BLUE), "node": {"scale": [-1, 1, 1]}}
    frames, _ = look(write_glb(tmp_path / "card.glb", [rod, face]))
    assert share(frames["static_orbit"][0], 2) > 0.3 and share(frames["static_orbit"][2], 2) == 0.0


def test_gltf_without_a_material_is_single_sided_and_looks_as_before(tmp_path: Path, look: Any) -> None:
    rod = {"mesh": box(0.1), "material": material(GREY, doubleSided=True), "node": {"translation": [0, 1, 0]}}
    path = write_glb(tmp_path / "bare.glb", [rod, {"mesh": card(1.5, 1.0)}])
    frames, _ = look(path, rigs=("static_orbit",))
    before, _ = look(path, rigs=("static_orbit",), backface_culling=False)
    front, back = (middle(frames["static_orbit"][i])[3] for i in (0, 2))
    assert (front, back) == (255, 0)
    assert (frames["static_orbit"][0] == before["static_orbit"][0]).all()


def test_culling_of_a_blend_with_and_without_nodes(
    tmp_path: Path, look: Any, share: Any, in_blender: Any
) -> None:
    path = tmp_path / "culled.blend"
    in_blender(
        """
        import bpy
        bpy.ops.wm.read_factory_settings(use_empty=True)
        balls = (("core", 0.6, (0, 0.8, 0), True), ("hull", 0.7, (0, 0, 0), False))
        for name, radius, colour, nodes in balls:
            bpy.ops.mesh.primitive_uv_sphere_add(radius=radius)
            obj = bpy.context.object
            material = bpy.data.materials.new(name)
            material.use_nodes = nodes
            material.diffuse_color = (*colour, 1.0)
            material.use_backface_culling = True
            if nodes:
                shader = material.node_tree.nodes["Principled BSDF"]
                shader.inputs["Base Color"].default_value = (*colour, 1.0)
            obj.data.materials.append(material)
            if name == "hull":
                obj.data.flip_normals()
            obj.keyframe_insert("location", frame=1)
            obj.location.z = 0.3
            obj.keyframe_insert("location", frame=20)
        bpy.ops.wm.save_as_mainfile(filepath=path)
        """,
        path=str(path),
    )
    frames, _ = look(path)
    assert all(share(frame, 1) > 0.5 for frame in frames["dynamic_orbit"])
    with pytest.raises(TaskRefused, match="one colour"):
        look(path, backface_culling=False)


def test_closed_surfaces_keep_every_bit(tmp_path: Path, look: Any, toy: Callable[..., Path]) -> None:
    """Neither culling, nor bounces that nothing needs, nor the glass that is not there change a pixel."""
    path = toy(tmp_path / "toy.glb")
    for shadows in (False, True):
        now, _ = look(path, shadows=shadows)
        before, _ = look(
            path, shadows=shadows, backface_culling=False, transparent_glass=False,
            transparent_bounces=3, transmission_bounces=3,
        )  # fmt: skip
        assert all((now[rig] == before[rig]).all() for rig in now)


def test_a_single_sided_card_throws_its_shadow(tmp_path: Path, look: Any) -> None:
    """Its front faces the lamp: so the ground below, which sees its back, lies in the shadow."""
    flat = card(2.0, 2.0)
    up = np.array([(1, 0, 0), (0, 0, -1), (0, 1, 0)]).T  # from +Z to +Y

    def lying(size: float, y: float) -> tuple[np.ndarray, np.ndarray]:
        return card(size, size)[0] @ up.T + (0, y, 0), flat[1]

    ground = {"mesh": lying(2.0, 0.0), "material": material((0.5, 0.5, 0.5))}
    leaf = {"mesh": lying(0.9, 0.5), "material": material(BLUE)}
    path = write_glb(tmp_path / "leaf.glb", [ground, leaf])
    how = {"rigs": ("static_orbit",), "elevation_deg": 25.0, "samples": 16}
    dark, bright = (look(path, shadows=s, **how)[0]["static_orbit"] for s in (True, False))
    assert bright[..., :3].astype(int).sum() > 1.02 * dark[..., :3].astype(int).sum()


def test_diffusion4d_draws_both_sides_and_three_layers_as_published() -> None:
    engine = PRESETS["diffusion4d"].engine
    assert (engine.backface_culling, engine.transparent_glass, engine.transparent_bounces) == (
        False,
        False,
        3,
    )
    for name in ("default", "draft"):
        engine = PRESETS[name].engine
        assert engine.backface_culling and engine.transparent_glass and engine.transparent_bounces == 64
    # A dataset rendered before there was the choice can be resumed.
    config = PRESETS["diffusion4d"].as_config()
    assert not {"backface_culling", "transparent_glass"} & set(config["engine"])
    assert RenderSettings.from_config(json.loads(json.dumps(config))) == PRESETS["diffusion4d"]


# ------------------------------------------------------------------ layers


@pytest.mark.parametrize(("layers", "name"), [(4, "default"), (25, "draft"), (60, "default")])
def test_many_veils_stay_clear(tmp_path: Path, look: Any, layers: int, name: str) -> None:
    alpha = 1 - 0.5 ** (1 / layers)  # together they leave a half
    veil = material((0.0, 0.0, 0.0, alpha), unlit=True, alphaMode="BLEND", doubleSided=True)
    shapes = [{"mesh": card(1.0, 1.0, -0.5), "material": material((0, 1, 0), unlit=True)}]
    shapes += [
        {"mesh": card(1.4, 1.4, 0.2 + 0.5 * i / layers), "material": {**veil, "name": f"v{i}"}}
        for i in range(layers)
    ]
    frames, _ = look(
        write_glb(tmp_path / "veils.glb", shapes), name, rigs=("front_view",), frames=2, samples=24
    )
    r, g, b, a = middle(frames["front_view"][0])
    # Half of linear green is 188 in sRGB.
    assert a == 255 and abs(g - 188) < 25 and max(r, b) < 10, (r, g, b, a)


# ------------------------------------------------------------------ glass


def glass(roughness: float = 0.0, colour: Sequence[float] = (1.0, 1.0, 1.0), weight: float = 1.0) -> dict:
    made = material(colour, extensions={"KHR_materials_transmission": {"transmissionFactor": weight}})
    made["pbrMetallicRoughness"]["roughnessFactor"] = roughness
    return made


@pytest.mark.parametrize("roughness", [0.0, 0.4])
@pytest.mark.parametrize("shells", [1, 2])
def test_the_background_shows_through_glass(tmp_path: Path, look: Any, roughness: float, shells: int) -> None:
    stand = {"mesh": box(0.2), "material": material(RED), "node": {"translation": [0, -0.8, 0]}}
    balls = [{"mesh": ball(0.7 - 0.2 * i), "material": glass(roughness)} for i in range(shells)]
    path = write_glb(tmp_path / "glass.glb", [stand, *balls])
    how = {"samples": 16, "rigs": ("front_view",), "frames": 2}
    frames, _ = look(path, **how)
    assert middle(frames["front_view"][0])[3] < 140
    frames, _ = look(path, **how, transparent_glass=False)
    assert middle(frames["front_view"][0])[3] == 255


@pytest.mark.parametrize("unlit", [True, False])
def test_what_stands_in_glass_is_seen_through_it(tmp_path: Path, look: Any, unlit: bool) -> None:
    core = {"mesh": ball(0.3), "material": material(BLUE, unlit)}
    # A core of one colour alone in clear glass is flat; a lit rod beside it is not.
    rod = {"mesh": box(0.2), "material": material(RED), "node": {"translation": [0, -0.8, 0]}}
    frames, _ = look(
        write_glb(tmp_path / "jar.glb", [core, {"mesh": ball(0.6), "material": glass()}, rod]), samples=32
    )
    for frame in frames["dynamic_orbit"]:
        r, _, b, a = middle(frame)
        assert a > 200 and b > 120 and b > r + 60, middle(frame)


def test_an_unlit_surface_behind_glass_lights_nothing(tmp_path: Path, look: Any) -> None:
    """A white card glows for the camera, also through a pane; the wall before it gets no light of it."""
    wall = {"mesh": card(1.5, 1.5, -0.6), "material": material((0.8, 0.8, 0.8), doubleSided=True)}
    bulb = {"mesh": ball(0.45), "material": glass()}
    found = []
    # Not quite black: black glows with nothing, which Cycles leaves out, and then draws other numbers.
    for grey in (1.0, 0.002):
        lamp = {"mesh": ball(0.4), "material": material((grey, grey, grey), unlit=True)}
        path = write_glb(tmp_path / "lamp.glb", [wall, bulb, lamp])
        found.append(look(path, rigs=("static_orbit",), samples=32)[0]["static_orbit"][0])
    lit, dark = found
    assert middle(lit)[0] > 200 > 60 > middle(dark)[0]
    assert (lit[12:18, 20:44] == dark[12:18, 20:44]).all() and np.median(lit[12:18, 20:44, 0]) > 60


@pytest.mark.parametrize("with_material", [True, False])
def test_gltf_colours_are_drawn_from_the_front(
    tmp_path: Path, look: Any, share: Any, with_material: bool
) -> None:
    mesh = card(1.2, 1.2)
    colours = np.tile((0.9, 0.05, 0.05), (len(mesh[0]), 1))
    own = material((1, 1, 1)) if with_material else None
    rod = {"mesh": box(0.1), "material": material(GREY), "node": {"translation": [0, 1, 0]}}
    frames, _ = look(
        write_glb(tmp_path / "c.glb", [rod, {"mesh": mesh, "colours": colours, "material": own}])
    )
    assert share(frames["static_orbit"][0], 0) > 0.6
    assert middle(frames["static_orbit"][2])[3] == 0, "single-sided, with the default material too"


# ------------------------------------------------------------------ names of missing textures


def _basisu(name: dict[str, Any]) -> dict[str, Any]:
    return {
        "images": [{"bufferView": 0, "mimeType": "image/ktx2"}, {"mimeType": "image/ktx2", **name}],
        "textures": [{"extensions": {"KHR_texture_basisu": {"source": 1}}}],
        "extensionsUsed": ["KHR_texture_basisu"],
    }


@pytest.mark.parametrize(("name", "flag"), [
    ({"bufferView": 0, "name": "bark of oak"}, "bark of oak"),
    ({"uri": "textures/moss%20one.ktx2"}, "moss one.ktx2"),
    ({"bufferView": 0}, "image 1"),
])  # fmt: skip
def test_a_texture_that_cannot_be_read_is_named(
    tmp_path: Path, look: Any, name: dict[str, Any], flag: str
) -> None:
    skin = material((1, 1, 1))
    skin["pbrMetallicRoughness"]["baseColorTexture"] = {"index": 0}
    mesh = ball(0.6)
    shape = {"mesh": mesh, "material": skin, "uv": np.zeros((len(mesh[0]), 2))}
    _, flags = look(write_glb(tmp_path / "t.glb", [shape], **_basisu(name)))
    assert flags == [f"missing_texture:{flag}"]


# ------------------------------------------------------------------ the cases beside a development checkout

KINDS = re.compile(r"A|B|P|W|M1|9-4")


def _cases() -> list[dict[str, str]]:
    table = Path(__file__).resolve().parents[3] / "shared" / "faults" / "cases.csv"
    if not table.is_file():
        return []
    with table.open(newline="") as file:
        return [row for row in csv.DictReader(file) if KINDS.match(row["id"])]


def _holds(check: dict[str, Any], frames: Frames, flags: list[str]) -> bool:
    kind = check["c"]
    if kind == "any":
        return any(all(_holds(one, frames, flags) for one in some) for some in check["of"])
    if kind == "flag":
        return any(re.search(check["re"], flag) for flag in flags)
    if kind == "verdict":  # a render that is refused raises; the verdict itself is curate's
        return check["is"] == "accepted"
    frame = frames[check.get("rig", "front_view")][check["frame"]]
    if kind in ("colour", "alpha"):
        left, top, width, height = check["at"]
        mean = frame[top : top + height, left : left + width].reshape(-1, 4).mean(0)
        if kind == "alpha":
            return check["min"] <= mean[3] <= check["max"]
        return bool((mean[:3] >= check["lo"]).all() and (mean[:3] <= check["hi"]).all())
    rgb = frame[frame[..., 3] > 64][:, :3].astype(int)
    if "over" in check:
        like = np.all([rgb[:, i] > rgb[:, j] + m for i, j, m in check["over"]], axis=0)
    else:
        like = ((rgb >= check["lo"]) & (rgb <= check["hi"])).all(1)
    return check.get("min", 0.0) <= like.mean() <= check.get("max", 1.0)


@pytest.mark.parametrize("case", _cases(), ids=lambda case: case["id"])
def test_a_case_gives_what_it_should(case: dict[str, str], shared: Path, look: Any) -> None:
    words = case["render"].split()
    options = dict(zip(words[::2], words[1::2]))
    changes = {"rigs": tuple(options["--rigs"].split(","))} if "--rigs" in options else {}
    frames, flags = look(shared / "faults" / case["file"], options.get("--preset", "default"), **changes)
    for check in json.loads(case["check"]):
        assert _holds(check, frames, flags), (check, flags)
