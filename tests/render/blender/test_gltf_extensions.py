"""What Blender's glTF importer refuses, loses or stumbles over, and orbit4d does not."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orbit4d.datasets.assets.inspect import inspect
from orbit4d.datasets.assets.inspection import BadFile

VISIBLE = "/nodes/{}/extensions/KHR_node_visibility/visible"


class Glb:
    """A GLB taken apart, to be changed and written again."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        self.path, size = path, struct.unpack_from("<I", data, 12)[0]
        self.doc = json.loads(data[20 : 20 + size])
        self.blob = bytearray(data[28 + size :])

    def store(self, values: Any, kind: str, component: int = 5126) -> int:
        array = np.asarray(values, np.float32 if component == 5126 else np.uint8)
        self.blob += b"\0" * (-len(self.blob) % 4)
        view = {"buffer": 0, "byteOffset": len(self.blob), "byteLength": array.nbytes}
        self.doc["bufferViews"].append(view)
        self.blob += array.tobytes()
        entry = {"bufferView": len(self.doc["bufferViews"]) - 1, "componentType": component, "type": kind}
        self.doc["accessors"].append(entry | {"count": len(array)})
        return len(self.doc["accessors"]) - 1

    def point(self, animation: int, pointer: str, times: Any, values: Any, kind: str, step: bool) -> None:
        """Animate what `pointer` points at, as KHR_animation_pointer says."""
        played = self.doc["animations"][animation]
        component = 5121 if step else 5126
        sampler = {"input": self.store(times, "SCALAR"), "output": self.store(values, kind, component)}
        played["samplers"].append(sampler | {"interpolation": "STEP" if step else "LINEAR"})
        target = {"path": "pointer", "extensions": {"KHR_animation_pointer": {"pointer": pointer}}}
        played["channels"].append({"sampler": len(played["samplers"]) - 1, "target": target})
        self.use("KHR_animation_pointer")

    def use(self, name: str, required: bool = False) -> None:
        for key in ("extensionsUsed", "extensionsRequired")[: 1 + required]:
            if name not in self.doc.setdefault(key, []):
                self.doc[key].append(name)

    def write(self, trailing: bytes = b"") -> Path:
        self.doc["buffers"][0]["byteLength"] = len(self.blob)
        text = json.dumps(self.doc).encode()
        text, blob = text + b" " * (-len(text) % 4), bytes(self.blob) + b"\0" * (-len(self.blob) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        chunks += struct.pack("<I4s", len(blob), b"BIN\0") + blob
        self.path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks + trailing)
        return self.path


@pytest.fixture
def three(tmp_path: Path, gltf: Any, part: Any) -> Callable[..., Glb]:
    """`three(*animations)`: three octahedra, of which the first moves up in every animation, for 2 s."""

    def make(*animations: str) -> Glb:
        moves = {name: [(0.0, (0, 0, 0)), (2.0, (0, 0, 1))] for name in animations}
        parts = [part((0, 0, 0), moves=moves), part((1, 0, 0)), part((2, 0, 0))]
        return Glb(gltf(tmp_path / "three.glb", parts, animations))

    return make


def hidden(action: dict[str, Any], name: str) -> list[bool]:
    return [moment[name]["hidden"] for moment in action["moments"]]


def test_a_hidden_node_hides_what_is_below_it(three: Any, read_actions: Any) -> None:
    glb = three("Rise")
    glb.doc["nodes"][1] |= {"children": [2], "extensions": {"KHR_node_visibility": {"visible": False}}}
    glb.doc["scenes"][0]["nodes"] = [0, 1]
    glb.use("KHR_node_visibility", required=True)
    assert inspect(glb.write()).n_animations == 1
    [asset] = read_actions([glb.path], (0.0, 1.0))
    assert asset["meshes"] == ["part0"] and asset["flags"] == []
    assert {name: seen["hidden"] for name, seen in asset["still"].items()} == {
        "part0": False, "part1": True, "part2": True,
    }  # fmt: skip


def test_visibility_is_animated_in_the_animation_that_says_so(three: Any, read_actions: Any) -> None:
    glb = three("Blink", "Stay")
    glb.doc["nodes"][1] |= {"children": [2], "extensions": {"KHR_node_visibility": {"visible": False}}}
    glb.doc["scenes"][0]["nodes"] = [0, 1]
    glb.use("KHR_node_visibility")
    glb.point(0, VISIBLE.format(1), [0.5, 1.0], [1, 0], "SCALAR", step=True)
    glb.point(0, VISIBLE.format(2), [0.0, 0.75], [0, 1], "SCALAR", step=True)
    [asset] = read_actions([glb.write()], (0.0, 0.6, 0.8, 1.5))
    blink, stay = asset["actions"]
    # Before its first key a sampler has the value of that key.
    assert hidden(blink, "part1") == [False, False, False, True]
    assert hidden(blink, "part2") == [True, True, False, True]
    assert hidden(stay, "part1") == hidden(stay, "part2") == [True] * 4
    assert asset["meshes"] == ["part0", "part1", "part2"] and asset["still"]["part1"]["hidden"]


PAINT = """
import bpy
from orbit4d.render.blender.importers.load import load_asset
loaded = load_asset(path)
loaded.activate(0)
answer = {"flags": loaded.flags, "names": [a.name for a in loaded.actions], "colours": []}
for t in (0.0, 1.0, 2.0):
    loaded.set_seconds(t)
    answer["colours"].append([
        [round(v, 3) for v in obj.material_slots[0].material.node_tree.nodes["Principled BSDF"]
         .inputs["Base Color"].default_value[:3]] for obj in loaded.meshes])
"""


def test_the_colour_of_an_unlit_material_is_animated(
    tmp_path: Path, gltf: Any, part: Any, in_blender: Any
) -> None:
    """Blender's importer stumbles over its alpha, which counts where the material is not opaque."""
    moves = {"Glow": [(0.0, (0, 0, 0)), (2.0, (0, 0, 1))]}
    glb = Glb(gltf(tmp_path / "unlit.glb", [part(unlit=True, moves=moves), part(unlit=True)], ("Glow",)))
    glb.doc["materials"][1]["alphaMode"] = "BLEND"
    pointers = [f"/materials/{i}/pbrMetallicRoughness/baseColorFactor" for i in range(2)]
    for pointer in pointers:
        glb.point(0, pointer, [0.0, 2.0], [(0, 0, 1, 1), (0, 1, 0, 1)], "VEC4", step=False)
    code = PAINT.replace("Principled BSDF", "Emission").replace("Base Color", "Color")
    found = in_blender(code, path=str(glb.write()))
    assert [moment[0] for moment in found["colours"]] == [[0, 0, 1], [0, 0.5, 0.5], [0, 1, 0]]
    assert f"ignored_pointer:{pointers[0]}" not in found["flags"]


@pytest.mark.parametrize("names", [(None, None), ("skin", "skin"), ("", "skin")])
def test_pointers_find_their_material_whatever_it_is_called(
    names: tuple[str | None, str | None], three: Any, in_blender: Any
) -> None:
    glb = three("Glow")
    for entry, name in zip(glb.doc["materials"], names, strict=False):
        if name is not None:
            entry["name"] = name
    paint = "/materials/{}/pbrMetallicRoughness/baseColorFactor"
    for i, (start, end) in enumerate((((0, 0, 1, 1), (0, 1, 0, 1)), ((1, 1, 0, 1), (0, 0, 0, 1)))):
        glb.point(0, paint.format(i), [0.0, 2.0], [start, end], "VEC4", step=False)
    found = in_blender(PAINT, path=str(glb.write()))
    assert found["names"] == ["Glow"] and found["flags"] == []
    assert [moment[:2] for moment in found["colours"]] == [
        [[0, 0, 1], [1, 1, 0]], [[0, 0.5, 0.5], [0.5, 0.5, 0]], [[0, 1, 0], [0, 0, 0]],
    ]  # fmt: skip


def test_a_pointer_that_leads_nowhere_is_a_flag_and_not_the_end(three: Any, read_actions: Any) -> None:
    glb = three("Rise")
    lost = ["/materials/0/normalTexture/scale", "/materials/9/alphaCutoff", "/nodes/0/extensions/X/glow"]
    for pointer in lost:
        glb.point(0, pointer, [0.0, 1.0], [0.0, 1.0], "SCALAR", step=False)
    [asset] = read_actions([glb.write()], (0.0, 2.0))
    assert asset["flags"] == [f"ignored_pointer:{pointer}" for pointer in lost]
    assert [m["part0"]["place"][2] for m in asset["actions"][0]["moments"]] == pytest.approx([0, 1])


def test_long_names_of_actions_are_the_files_own(three: Any, read_actions: Any) -> None:
    names = ["läuft " * 15 + "vor", "läuft " * 15 + "zurück", "läuft " * 15 + "vor", ""]
    glb = three("a", "b", "c", "d")
    for animation, name in zip(glb.doc["animations"], names, strict=True):
        animation["name"] = name
    [asset] = read_actions([glb.write()], (2.0,))
    found = [action["name"] for action in asset["actions"]]
    assert found[:3] == names[:3] and found[3]
    assert all(a["moments"][0]["part0"]["place"][2] == pytest.approx(1) for a in asset["actions"])


def test_bytes_after_the_end_of_a_glb_are_no_part_of_it(three: Any, read_actions: Any) -> None:
    glb = three("Rise")
    path = glb.write(trailing=bytes(range(256)) * 5)
    assert inspect(path).n_meshes == 3
    [asset] = read_actions([path], (2.0,))
    assert asset["actions"][0]["moments"][0]["part0"]["place"][2] == pytest.approx(1)
    path.write_bytes(path.read_bytes()[: 12 + 40])
    with pytest.raises(BadFile, match="truncated"):
        inspect(path)


def pack(glb: Glb, extension: str) -> None:
    """Compress all buffer views in place, as gltfpack does."""
    meshopt = pytest.importorskip("meshopt")
    packed, size = bytearray(), 0
    indices = {primitive["indices"] for mesh in glb.doc["meshes"] for primitive in mesh["primitives"]}
    for accessor, view in zip(glb.doc["accessors"], glb.doc["bufferViews"], strict=True):
        start, length = view["byteOffset"], view["byteLength"]
        rows = np.frombuffer(bytes(glb.blob[start : start + length]), np.uint8).reshape(accessor["count"], -1)
        triangles = glb.doc["accessors"].index(accessor) in indices
        mode = "TRIANGLES" if triangles else "ATTRIBUTES"
        data = meshopt.encode_gltf_buffer(rows.reshape(-1).view(np.uint16) if triangles else rows, mode)
        packed += b"\0" * (-len(packed) % 4)
        part = {"buffer": 0, "byteOffset": len(packed), "byteLength": len(data), "mode": mode}
        part |= {"byteStride": rows.shape[1], "count": len(rows)}
        view |= {"buffer": 1, "byteOffset": size, "extensions": {extension: part}}
        packed += data
        size += length + -length % 4
    glb.blob = packed
    glb.doc["buffers"].append({"byteLength": size, "extensions": {extension: {"fallback": True}}})
    glb.use(extension, required=True)


@pytest.mark.parametrize("extension", ["EXT_meshopt_compression", "KHR_meshopt_compression"])
def test_meshopt_is_unpacked(extension: str, three: Any, read_actions: Any) -> None:
    glb = three("Rise")
    plain = inspect(glb.write())
    pack(glb, extension)
    path = glb.write()
    found = inspect(path)
    assert (found.n_vertices, found.n_triangles) == (plain.n_vertices, plain.n_triangles) == (18, 24)
    [asset] = read_actions([path], (0.0, 2.0))
    assert asset["meshes"] == ["part0", "part1", "part2"]
    assert [m["part0"]["place"][2] for m in asset["actions"][0]["moments"]] == pytest.approx([0, 1])
    glb.doc["bufferViews"][0]["extensions"][extension]["byteLength"] -= 3
    with pytest.raises(BadFile, match=r"corrupt.*bufferView 0"):
        inspect(glb.write())
    glb.doc["bufferViews"][0]["extensions"][extension]["count"] = 1 << 40
    with pytest.raises(BadFile, match="absurd"):
        inspect(glb.write())


def test_meshopt_without_its_decoder_names_what_to_do(three: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "meshopt", None)
    glb = three("Rise")
    glb.use("EXT_meshopt_compression", required=True)
    with pytest.raises(BadFile, match=r"orbit4d\[meshopt\].*gltfpack"):
        inspect(glb.write())
