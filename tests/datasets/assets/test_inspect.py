"""Bad files get a reason code each: no other exception, no hang, nothing read outside the asset's folder."""

from __future__ import annotations

import json
import os
import struct
import time
import tracemalloc
import zipfile
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orbit4d.datasets.assets.inspect import Inspection, inspect
from orbit4d.datasets.assets.inspection import LIMITS, REASONS, BadFile

#: Seconds of processor time for a inspect one file.
PATIENCE = 5.0


def look(path) -> str:
    """'' when the file passes, else its code. Any other exception, or slowness, fails the test."""
    cpu = time.process_time()
    try:
        found = inspect(path)
        assert isinstance(found, Inspection)
        code = ""
    except BadFile as bad:
        assert bad.code.removeprefix("bad_file:") in REASONS
        assert "\n" not in str(bad)
        code = bad.code
    # Processor time, which other work on the machine does not use up; waiting for what never comes is
    # ended by pytest's own time limit.
    assert time.process_time() - cpu < PATIENCE
    return code


def code_of(path, data: bytes) -> str:
    path.write_bytes(data)
    return look(path)


def test_blenders_own_files_pass(cubes):
    assert {"glb", "gltf", "fbx", "obj", "usdc", "usda", "usdz", "abc", "blend", "ply", "stl"} <= set(cubes)
    for suffix, path in cubes.items():
        found = inspect(path)
        assert found.format == suffix
        if suffix in ("glb", "gltf", "fbx", "stl"):
            assert found.n_triangles == 12, suffix
    assert inspect(cubes["fbx"]).n_animations == inspect(cubes["glb"]).n_animations == 1


@pytest.mark.parametrize(
    "suffix", ["glb", "fbx", "usdc", "usda", "usdz", "abc", "blend", "ply", "stl", "dae"]
)
def test_truncated_files_are_refused(cubes, tmp_path, suffix):
    if suffix not in cubes:
        pytest.skip(f"this Blender does not write {suffix}")
    data = cubes[suffix].read_bytes()
    for share in (0.02, 0.3, 0.6, 0.9):
        assert code_of(tmp_path / f"cut.{suffix}", data[: int(len(data) * share)]), share


@pytest.mark.parametrize("suffix", ["glb", "fbx", "usdc", "usdz", "abc", "blend", "ply", "stl"])
def test_another_formats_bytes_are_refused(cubes, tmp_path, suffix):
    foreign = cubes["obj"] if suffix != "ply" else cubes["abc"]
    assert code_of(tmp_path / f"wrong.{suffix}", foreign.read_bytes()) in (
        "bad_file:magic", "bad_file:truncated",
    )  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_corrupt_bytes_never_raise_anything_but_bad_file(cubes, tmp_path, data):
    suffix = data.draw(st.sampled_from(sorted(set(cubes) - {"gltf"})))
    content = bytearray(cubes[suffix].read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        kind = data.draw(st.sampled_from(["flip", "word", "cut", "insert"]))
        # Headers and tables lie at the ends: look there more often than chance would.
        at = data.draw(
            st.one_of(st.integers(0, min(200, len(content) - 1)), st.integers(0, len(content) - 1))
        )
        if kind == "flip":
            content[at] ^= data.draw(st.integers(1, 255))
        elif kind == "word":
            word = data.draw(st.sampled_from([0, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 1]))
            content[at : at + 4] = struct.pack("<I", word)
        elif kind == "cut":
            del content[at : at + data.draw(st.integers(1, 64))]
        else:
            content[at:at] = data.draw(st.binary(max_size=64))
        if not content:
            break
    path = tmp_path / f"corrupt.{suffix}"
    code_of(path, bytes(content))


OUTSIDE = [
    "../secret.bin", "%2e%2e/secret.bin", "..%2Fsecret.bin", "a/../../secret.bin", "link.bin",
    "link/secret.bin", "/etc/passwd", "file:///etc/passwd", "http://example.org/x.bin",
    "C:/secret.bin", "C:\\secret.bin",
    "..\\secret.bin", "~/x",
]  # fmt: skip


@pytest.mark.parametrize("uri", OUTSIDE)
@pytest.mark.parametrize("where", ["buffer", "image", "extension"])
def test_nothing_outside_the_folder_is_read(cube_document, tmp_path, uri, where):
    (tmp_path / "secret.bin").write_bytes(b"x" * 4096)
    folder = tmp_path / "asset"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "link").symlink_to(tmp_path)
    doc, binary = cube_document()
    (folder / "own.bin").write_bytes(binary)
    doc["buffers"][0]["uri"] = "own.bin"
    path = folder / "asset.gltf"
    assert code_of(path, json.dumps(doc).encode()) == ""
    if where == "buffer":
        doc["buffers"][0]["uri"] = uri
    elif where == "image":
        doc["images"] = [{"uri": uri}]
    else:
        doc["extensions"] = {"VENDOR_thing": {"files": [{"uri": uri}]}}
    assert code_of(path, json.dumps(doc).encode()) == "bad_file:outside"


def test_own_folder_below_and_escaped_names_are_fine(cube_document, tmp_path):
    doc, binary = cube_document()
    (tmp_path / "sub dir").mkdir()
    (tmp_path / "sub dir" / "own ä.bin").write_bytes(binary)
    doc["buffers"][0]["uri"] = "sub%20dir/../sub%20dir/own%20%C3%A4.bin"
    assert code_of(tmp_path / "asset.gltf", json.dumps(doc).encode()) == ""


def test_a_missing_texture_is_counted_and_a_missing_buffer_refused(cube_document, tmp_path):
    doc, binary = cube_document()
    (tmp_path / "own.bin").write_bytes(binary)
    doc["buffers"][0]["uri"] = "own.bin"
    doc["images"] = [{"uri": "skin.png"}]
    path = tmp_path / "asset.gltf"
    path.write_text(json.dumps(doc))
    assert inspect(path).n_missing_textures == 1
    (tmp_path / "own.bin").unlink()
    assert look(path) == "bad_file:missing"


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.glb")
    assert look(tmp_path / "pipe.glb") == "bad_file:unreadable"
    (tmp_path / "folder.glb").mkdir()
    assert look(tmp_path / "folder.glb").startswith("bad_file:")


def test_a_pipe_as_buffer_does_not_hang(cube_document, tmp_path):
    doc, _ = cube_document()
    os.mkfifo(tmp_path / "own.bin")
    doc["buffers"][0]["uri"] = "own.bin"
    assert code_of(tmp_path / "asset.gltf", json.dumps(doc).encode()) == "bad_file:unreadable"


def test_materials_and_textures_outside_are_refused_where_they_exist(cubes, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"x")
    folder = tmp_path / "asset"
    folder.mkdir()
    text = cubes["obj"].read_text()
    assert code_of(folder / "a.obj", f"mtllib ../elsewhere/gone.mtl\n{text}".encode()) == ""
    assert code_of(folder / "a.obj", f"mtllib {tmp_path}/secret.png\n{text}".encode()) == "bad_file:outside"
    (folder / "a.mtl").write_text("newmtl a\nmap_Kd -s 1 1 1 ../secret.png\n")
    assert code_of(folder / "a.obj", f"mtllib a.mtl\n{text}".encode()) == "bad_file:outside"


@pytest.mark.parametrize("kind", ["usdc", "usda", "usdz"])
def test_a_layer_that_names_a_picture_outside_is_refused_where_it_exists(cubes, tmp_path, kind):
    folder = tmp_path / "inner"
    folder.mkdir()
    layer = (cubes["usdc"].parent / "inner" / f"leak.{'usda' if kind == 'usda' else 'usdc'}").read_bytes()
    if kind == "usdz":
        with zipfile.ZipFile(folder / "leak.usdz", "w") as archive:
            archive.writestr("leak.usdc", layer)
    else:
        (folder / f"leak.{kind}").write_bytes(layer)
    # "../secret.png", at which nothing lies here: no harm.
    assert look(folder / f"leak.{kind}") == ""
    (tmp_path / "secret.png").write_bytes(b"secret")
    assert look(folder / f"leak.{kind}") == "bad_file:outside"


def test_an_archive_whose_groups_or_data_lie_outside_it_is_refused(cubes, tmp_path):
    data = cubes["abc"].read_bytes()
    (root,) = struct.unpack_from("<Q", data, 8)
    (count,) = struct.unpack_from("<Q", data, root)
    assert count > 2
    for k in range(count):
        at = root + 8 + 8 * k
        (child,) = struct.unpack_from("<Q", data, at)
        wrong = (child & 1 << 63) | len(data) - 4
        assert code_of(tmp_path / "far.abc", data[:at] + struct.pack("<Q", wrong) + data[at + 8 :]) in (
            "bad_file:truncated", "bad_file:header",
        )  # fmt: skip
        # A group that is its own child does not hang.
        look_at = data[:at] + struct.pack("<Q", root) + data[at + 8 :]
        assert code_of(tmp_path / "loop.abc", look_at) == ""


PLY_HEAD = """ply
format {} 1.0
element vertex 3
property float x
property float y
property float z
element face 1
property list uchar int vertex_indices
property uchar shade
end_header
"""


@pytest.mark.parametrize(
    ("corners", "reason"),
    [((0, 1, 2), ""), ((0, 1, 3), "index"), ((0, -1, 2), "index"), ((0, 1, 2, 2), ""), ((), "corrupt")],
)
def test_a_ply_face_names_vertices_that_are_there(tmp_path, corners, reason):
    # Blender's reader does not look, and ends with a segmentation fault.
    places = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    expected = f"bad_file:{reason}" if reason else ""
    for order, kind in (("<", "binary_little_endian"), (">", "binary_big_endian")):
        body = struct.pack(f"{order}9fB{len(corners)}iB", *places, len(corners), *corners, 7)
        data = PLY_HEAD.format(kind).encode() + body + b"\0" * 16
        assert code_of(tmp_path / "face.ply", data) == expected
        if not reason:
            cut = PLY_HEAD.format(kind).encode() + body[:-2]
            assert code_of(tmp_path / "face.ply", cut) == "bad_file:truncated"
    text = "0 0 0\n1 0 0\n0 1 0\n" + " ".join(map(str, (len(corners), *corners, 7))) + "\n"
    assert code_of(tmp_path / "face.ply", (PLY_HEAD.format("ascii") + text).encode()) == expected


def test_xml_entities_are_refused(tmp_path):
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><COLLADA>&b;</COLLADA>'
    assert code_of(tmp_path / "bomb.dae", f"<?xml version='1.0'?>{bomb}".encode()) == "bad_file:corrupt"
    assert code_of(tmp_path / "fine.dae", b"<?xml version='1.0'?><COLLADA><mesh/></COLLADA>") == ""


def test_a_compressed_or_escaping_usdz_is_refused(cubes, tmp_path):
    with zipfile.ZipFile(tmp_path / "packed.usdz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(cubes["usda"], "cube.usda")
    assert look(tmp_path / "packed.usdz") == "bad_file:header"
    with zipfile.ZipFile(tmp_path / "escape.usdz", "w") as archive:
        archive.writestr("../../cube.usda", cubes["usda"].read_bytes())
    assert look(tmp_path / "escape.usdz") == "bad_file:outside"


def test_a_picture_bomb_is_refused(cube_document, pack_glb, tmp_path):
    chunk = struct.pack(">4sIIBBBBB", b"IHDR", 100_000, 100_000, 8, 2, 0, 0, 0)
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    header += struct.pack(">I4s", 0, b"IDAT")
    doc, binary = cube_document()
    at = len(binary)
    binary += header + b"\0" * 32
    doc["buffers"][0]["byteLength"] = len(binary)
    doc["bufferViews"].append({"buffer": 0, "byteOffset": at, "byteLength": len(header) + 32})
    doc["images"] = [{"bufferView": len(doc["bufferViews"]) - 1, "mimeType": "image/png"}]
    assert code_of(tmp_path / "bomb.glb", pack_glb(doc, binary)) == "bad_file:absurd"


def test_overlapping_accessors_cannot_make_it_slow(cube_document, pack_glb, tmp_path):
    doc, binary = cube_document()
    big = b"\0" * (3 << 20)
    doc["bufferViews"].append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(big)})
    doc["buffers"][0]["byteLength"] = len(binary) + len(big)
    primitive = doc["meshes"][0]["primitives"][0]
    view = len(doc["bufferViews"]) - 1
    for _ in range(20_000):
        doc["accessors"].append(
            {"bufferView": view, "componentType": 5126, "count": len(big) // 12, "type": "VEC3"}
        )
        doc["meshes"].append({"primitives": [{"attributes": {"POSITION": len(doc["accessors"]) - 1}}]})
    del primitive["indices"]
    assert code_of(tmp_path / "overlap.glb", pack_glb(doc, binary + big)) == "bad_file:absurd"


def test_a_sparse_nan_is_seen(cube_document, pack_glb, tmp_path):
    doc, binary = cube_document()
    at = len(binary)
    binary += struct.pack("<H2x3f", 3, 0.0, float("nan"), 0.0)
    doc["buffers"][0]["byteLength"] = len(binary)
    views = doc["bufferViews"]
    views += [
        {"buffer": 0, "byteOffset": at, "byteLength": 4},
        {"buffer": 0, "byteOffset": at + 4, "byteLength": 12},
    ]
    doc["accessors"][0]["sparse"] = {
        "count": 1,
        "indices": {"bufferView": len(views) - 2, "componentType": 5123},
        "values": {"bufferView": len(views) - 1},
    }
    assert code_of(tmp_path / "sparse.glb", pack_glb(doc, binary)) == "bad_file:non_finite"


def test_a_stride_of_zero_means_packed(cube_document, pack_glb, tmp_path):
    doc, binary = cube_document()
    doc["bufferViews"][0]["byteStride"] = 0
    assert code_of(tmp_path / "packed.glb", pack_glb(doc, binary)) == ""


@pytest.mark.parametrize(
    ("suffix", "head", "filler"),
    [
        ("stl", b"solid x\n", b"\n"),
        ("stl", b"solid x\n", b" "),
        ("stl", b"solid x\nvertex ", b"na"),
        ("usda", b"#usda 1.0\n", b'\\"'),
        ("usda", b"#usda 1.0\n", b'"'),
        ("usda", b"#usda 1.0\n", b"@"),
        ("usda", b"#usda 1.0\n", b"@a"),
        ("obj", b"v 0 0 0\n", b"v "),
        ("obj", b"v ", b"in"),
        ("obj", b"v 0 0 0\n", b"mtllib "),
        ("dae", b"<COLLADA>", b"<a>"),
        ("ply", b"ply\n", b"property "),
        ("gltf", b'{"asset":', b"["),
    ],
)
def test_hostile_text_takes_no_longer_than_honest_text(tmp_path, suffix, head, filler):
    code_of(tmp_path / f"hostile.{suffix}", head + filler * (3_000_000 // len(filler)))


def test_what_sketchfab_says_of_an_asset_is_read(make_cube, tmp_path):
    extras = {
        "author": "somebody (https://sketchfab.com/somebody)",
        "license": "CC-BY-4.0 (http://creativecommons.org/licenses/by/4.0/)",
        "source": "https://sketchfab.com/3d-models/x",
        "title": "X",
    }
    found = inspect(make_cube(tmp_path / "a.glb", {"hop": [(0, 0, 0), (0, 0, 1)]}, extras=extras))
    assert (found.author, found.license, found.title) == ("somebody", "CC-BY-4.0", "X")
    assert found.source_url == extras["source"]
    assert (found.n_animations, found.animation_names, found.n_vertices) == (1, ("hop",), 8)
    found = inspect(make_cube(tmp_path / "b.glb", copyright="CC-BY 4.0 Somebody"))
    assert found.license == "CC-BY-4.0"


def test_the_shared_real_assets_pass(shared):
    files = [*sorted((shared / "assets").glob("dev_*")), *sorted((shared / "pool").glob("*.glb"))[:20]]
    assert len(files) > 30
    assert {path.name: look(path) for path in files} == {path.name: "" for path in files}
    assert inspect(shared / "assets" / "dev_astronaut_draco.glb").draco


def test_memory_stays_small_whatever_the_size_of_the_file(cube_document, pack_glb, tmp_path):
    doc, binary = cube_document()
    vertices = LIMITS.vertices - 100
    doc["bufferViews"].append({"buffer": 0, "byteOffset": len(binary), "byteLength": vertices * 12})
    doc["accessors"].append(
        {"bufferView": len(doc["bufferViews"]) - 1, "componentType": 5126, "count": vertices, "type": "VEC3"}
    )
    doc["meshes"].append({"primitives": [{"attributes": {"POSITION": len(doc["accessors"]) - 1}}]})
    doc["buffers"][0]["byteLength"] += vertices * 12
    head = bytearray(pack_glb(doc, binary))
    size = len(head) + vertices * 12
    # The last chunk and the file itself grow by a hole of zeros, which takes no room on the disk.
    struct.pack_into("<I", head, 8, size)
    at = len(head) - len(binary) - (-len(binary) % 4) - 8
    struct.pack_into("<I", head, at, len(binary) + vertices * 12)
    path = tmp_path / "big.glb"
    path.write_bytes(head)
    os.truncate(path, size)
    assert size > 200 << 20
    tracemalloc.start()
    try:
        assert look(path) == ""
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20
