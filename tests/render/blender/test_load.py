"""Loading assets in Blender: every format, actions one at a time, repairs, and files that must not get
their way.
"""

from __future__ import annotations

import base64
import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orbit4d.datasets.assets.formats import FORMATS
from orbit4d.datasets.assets.inspect import inspect
from orbit4d.datasets.assets.inspection import BadFile
from orbit4d.render.dataset.asset_job import prepare
from orbit4d.render.fleet.worker import Job
from orbit4d.render.protocol.wire import RefusedInput

LOOK = """
import numpy as np
from orbit4d.render.blender.importers.load import load_asset, LoadError
from orbit4d.render.blender.scene.motion import moving_window, sample_vertices

def look(path):
    loaded = load_asset(path)
    rows = []
    for action in loaded.actions:
        window = moving_window(loaded, action)
        places = sample_vertices(loaded, [action.seconds_start, action.seconds_end])
        rows.append({"name": action.name, "range": [action.seconds_start, action.seconds_end], "window":
        window,
                     "moved": float(np.abs(places[1] - places[0]).max()), "low": places.min(axis=(0,
                     1)).tolist(), "high": places.max(axis=(0, 1)).tolist()})
    loaded.activate(None)
    still = sample_vertices(loaded, [0.0])[0]
    half, places = 0.0, []
    if rows:
        loaded.activate(0)
        half = (rows[0]["range"][0] + rows[0]["range"][1]) / 2
    for scale, centre in ((1.0, (0, 0, 0)), (0.25, (1, 2, 3))):
        loaded.normalise(scale, centre)
        places.append(sample_vertices(loaded, [half])[0].astype(float))
    expected = 0.25 * (places[0] - np.array((1, 2, 3)))
    return {"actions": rows, "flags": loaded.flags, "meshes": [o.name for o in loaded.meshes],
            "normalised": float(np.abs(places[1] - expected).max()),
            "vertices": int(still.shape[0]), "box": [still.min(axis=0).tolist(), still.max(axis=0).tolist()]}
"""

WRITE_EVERY_FORMAT = """
import bpy, os
bpy.ops.wm.read_factory_settings(use_empty=True)
scene = bpy.context.scene
scene.render.fps = 24
bpy.ops.mesh.primitive_cube_add(size=1.0)
cube = bpy.context.object
bpy.ops.mesh.primitive_cone_add(radius1=0.5, depth=1.0, location=(2, 0, 0.5))
cone = bpy.context.object
material = bpy.data.materials.new('paint')
material.use_nodes = True
for obj in (cube, cone):
    obj.data.materials.append(material)
cube.keyframe_insert('location', frame=0)
cube.location = (0, 0, 1)
cube.keyframe_insert('location', frame=24)
scene.frame_start, scene.frame_end = 0, 24
scene.frame_set(0)
answer = []
def out(ending):
    answer.append(ending)
    return os.path.join(folder, 'asset.' + ending)
bpy.ops.export_scene.gltf(filepath=out('glb'), export_format='GLB')
bpy.ops.export_scene.gltf(filepath=out('gltf'), export_format='GLTF_SEPARATE')
bpy.ops.export_scene.fbx(filepath=out('fbx'), bake_anim_use_all_actions=False, bake_anim_use_nla_strips=False)
for ending in ('usd', 'usda', 'usdc', 'usdz'):
    bpy.ops.wm.usd_export(filepath=out(ending), export_animation=True)
bpy.ops.wm.alembic_export(filepath=out('abc'), start=0, end=24)
bpy.ops.wm.obj_export(filepath=out('obj'))
bpy.ops.wm.ply_export(filepath=out('ply'))
bpy.ops.wm.stl_export(filepath=out('stl'))
bpy.ops.wm.save_as_mainfile(filepath=out('blend'))
if 'collada_export' in dir(bpy.ops.wm):
    bpy.ops.wm.collada_export(filepath=out('dae'))
"""

ANIMATED = {"glb", "gltf", "fbx", "usd", "usda", "usdc", "usdz", "abc", "blend", "dae"}


@pytest.fixture(scope="module")
def every_format(tmp_path_factory: pytest.TempPathFactory, in_blender: Callable[..., Any]) -> dict[str, Path]:
    """One scene in each format: a cube that rises by 1 in one second, and a cone that stands."""
    folder = tmp_path_factory.mktemp("formats")
    written = in_blender(WRITE_EVERY_FORMAT, folder=str(folder))
    return {ending: folder / f"asset.{ending}" for ending in written}


@pytest.fixture(scope="module")
def looked(every_format: dict[str, Path], in_blender: Callable[..., Any]) -> dict[str, Any]:
    code = LOOK + "\nanswer = {ending: look(path) for ending, path in paths.items()}\n"
    return in_blender(code, paths={ending: str(path) for ending, path in every_format.items()})


def test_every_promised_format_is_written_by_this_test(every_format: dict[str, Path]) -> None:
    assert {"dae", *every_format} == set(FORMATS.values())


@pytest.mark.parametrize("ending", sorted(FORMATS.values()))
def test_a_format_gives_the_same_scene(
    ending: str, every_format: dict[str, Path], looked: dict[str, Any]
) -> None:
    if ending not in every_format:
        pytest.skip(f"this Blender writes no .{ending}")
    found = looked[ending]
    # The union of both meshes at the start: cube around the origin, cone around (2, 0, 0.5).
    low, high = np.array(found["box"])
    # Blender's Collada writer bakes from frame 1 on.
    tolerance = 1e-2 if ending == "dae" else 1e-4
    np.testing.assert_allclose(low, [-0.5, -0.5, -0.5], atol=tolerance)
    np.testing.assert_allclose(high, [2.5, 0.5, 1.0], atol=tolerance)
    # Scale and centre reach every mesh, also where a cache or a constraint places it.
    assert found["normalised"] < 1e-5
    if ending in ANIMATED:
        assert len(found["actions"]) == 1, found["actions"]
        action = found["actions"][0]
        assert action["name"] and action["moved"] == pytest.approx(1.0, abs=tolerance)
        start, end = action["window"]
        assert end - start == pytest.approx(1.0, abs=0.1)
    else:
        assert found["actions"] == []


def test_actions_are_played_one_at_a_time_and_in_file_order(
    tmp_path: Path, toy: Callable[..., Path], in_blender: Callable[..., Any]
) -> None:
    path = toy(tmp_path / "toy.glb")
    found = in_blender(LOOK + "\nanswer = look(path)\n", path=str(path))
    rest, go, jump = found["actions"]
    assert [a["name"] for a in (rest, go, jump)] == ["Rest", "Go", "Jump"]
    assert rest["window"] is None and rest["moved"] == 0.0
    # Go stands still until 0.25 s and after 1 s.
    assert go["window"] == pytest.approx([0.25, 1.0], abs=1.01 / 24) and go["moved"] > 0.2
    # Jump ends where it began, which two samples at its ends would call still.
    assert jump["window"] == pytest.approx([0.0, 1.0]) and jump["moved"] == pytest.approx(0.0, abs=1e-6)


def test_the_order_in_which_actions_are_played_does_not_matter(
    tmp_path: Path, gltf: Callable[..., Path], part: Any, in_blender: Callable[..., Any]
) -> None:
    """An action leaves properties that the next one does not animate where they were: they must go home
    first.
    """
    a = part((0, 0, 0), 0.3, moves={"A": [(0.0, (0.0, 0, 0)), (1.0, (0.0, 0, 2.0))]})
    b = part((1, 0, 0), 0.3, moves={"B": [(0.0, (1.0, 0, 0)), (1.0, (1.0, 0, 3.0))]})
    path = gltf(tmp_path / "two.glb", [a, b], ("A", "B"))
    code = LOOK + (
        "\nloaded = load_asset(path)\nanswer = []\n"
        "for index in (1, 0, 1, None, 0):\n"
        "    loaded.activate(index)\n"
        "    answer.append([index, sample_vertices(loaded, [1.0])[0].max(axis=0).tolist()])\n"
    )
    tops = [(index, high[2]) for index, high in in_blender(code, path=str(path))]
    assert tops == [(1, pytest.approx(3.3)), (0, pytest.approx(2.3)), (1, pytest.approx(3.3)),
                    (None, pytest.approx(0.3)), (0, pytest.approx(2.3))]  # fmt: skip


def test_a_box_does_not_depend_on_what_was_loaded_before(
    tmp_path: Path, toy: Callable[..., Path], in_blender: Callable[..., Any]
) -> None:
    first, second = toy(tmp_path / "a.glb", 1), toy(tmp_path / "b.glb", 2)
    code = LOOK + (
        "\nfrom orbit4d.render.blender.scene.motion import vertices_now\n"
        "def now(path): return np.concatenate(vertices_now(load_asset(path))).tolist()\n"
        "alone = now(second)\n"
        "loaded = load_asset(first); loaded.activate(1); loaded.set_seconds(1.3)\n"
        "loaded.normalise(3.0, (1, 2, 3))\n"
        "answer = now(second) == alone\n"
    )
    assert in_blender(code, first=str(first), second=str(second)) is True


PLANT = """
import bpy
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.mesh.primitive_cube_add()
cube = bpy.context.object
cube.keyframe_insert('location', frame=0)
cube.location.z = 2
cube.keyframe_insert('location', frame=24)
evil = "open(%r, 'w').write('ran')" % marker
text = bpy.data.texts.new('evil.py')
text.write(evil)
text.use_module = True
bpy.app.driver_namespace['evil'] = lambda: 0.0
driver = cube.driver_add('scale', 0).driver
driver.type = 'SCRIPTED'
driver.expression = "__import__('os').path.exists(%r) or 1.0 + 0 * len(str(%s))" % (marker, evil)
open(marker, 'w').write('control')
import os
os.unlink(marker)
bpy.ops.wm.save_as_mainfile(filepath=path)
"""


def test_scripts_planted_in_a_blend_file_do_not_run(tmp_path: Path, in_blender: Callable[..., Any]) -> None:
    marker, path = tmp_path / "marker", tmp_path / "evil.blend"
    in_blender(PLANT, marker=str(marker), path=str(path))
    marker.unlink(missing_ok=True)
    # The plant is real: a Blender that trusts the file runs it.
    in_blender(
        "import bpy\nbpy.ops.wm.open_mainfile(filepath=path, use_scripts=True)\n"
        "bpy.context.scene.frame_set(3)\nbpy.context.evaluated_depsgraph_get()\n",
        path=str(path),
    )
    assert marker.read_text() == "ran"
    marker.unlink()
    found = in_blender(LOOK + "\nanswer = look(path)\n", path=str(path))
    assert not marker.exists()
    assert len(found["actions"]) == 1 and found["actions"][0]["moved"] == pytest.approx(2.0, abs=1e-4)


def load_error(in_blender: Callable[..., Any], path: Path) -> list[str] | None:
    code = LOOK + (
        "\ntry:\n    load_asset(path)\nexcept LoadError as error:\n    answer = [error.code, str(error)]\n"
    )
    return in_blender(code, path=str(path))


@pytest.mark.parametrize("uri", ["../secret.png", "/etc/hostname", "file:///etc/hostname", "..%2fsecret.png"])
def test_a_gltf_that_reaches_out_of_its_folder_is_refused_before_blender(
    tmp_path: Path, gltf: Callable[..., Path], part: Any, uri: str
) -> None:
    (tmp_path / "asset").mkdir()
    (tmp_path / "secret.png").write_bytes(PNG)
    path = gltf(tmp_path / "asset" / "a.gltf", [part(texture=uri)])
    job = Job(
        "a",
        "render_clips",
        {"path": str(path), "sha256": "0" * 64, "scratch": str(tmp_path), "provenance": {}},
    )
    with pytest.raises(RefusedInput) as refused:
        prepare(job)
    assert refused.value.code.startswith("bad_file:")


LINKING_BLENDS = """
import bpy, os
def save(name, what, compress):
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.mesh.primitive_cube_add()
    cube = bpy.context.object
    if what in ("outside", "packed", "inside", "gone"):
        material = bpy.data.materials.new('m')
        material.use_nodes = True
        node = material.node_tree.nodes.new('ShaderNodeTexImage')
        node.image = bpy.data.images.load(inner if what == "inside" else secret)
        if what == "packed":
            node.image.pack()
        if what == "gone":
            node.image.filepath = "//../../textures/nowhere.png"
        cube.data.materials.append(material)
    elif what == "cache":
        cube.modifiers.new("m", "MESH_CACHE").filepath = secret
    elif what == "library":
        with bpy.data.libraries.load(library, link=True) as (source, target):
            target.objects = source.objects[:1]
        bpy.context.collection.objects.link(target.objects[0])
    path = os.path.join(folder, name + ".blend")
    bpy.ops.wm.save_as_mainfile(filepath=path, relative_remap=False, compress=compress)
for what in ("outside", "packed", "inside", "gone", "cache"):
    save(what, what, False)
save("outside_zstd", "outside", True)
save("inside_zstd", "inside", True)
library = os.path.join(folder, "inside.blend")
save("library_inside", "library", False)
library = os.path.join(folder, "outside.blend")
save("library_that_links_out", "library", True)
os.rename(os.path.join(folder, "library_inside.blend"), os.path.join(folder, "deep", "library_outside.blend"))
"""

#: File name without ending -> whether it may pass. Paths that lead to nothing are harmless, and common.
BLENDS = {
    "outside": False, "outside_zstd": False, "outside_gzip": False, "cache": False,
    "deep/library_outside": False, "library_that_links_out": False,
    "inside": True, "inside_zstd": True, "inside_gzip": True, "packed": True, "gone": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def linking_blends(tmp_path_factory: pytest.TempPathFactory, in_blender: Callable[..., Any]) -> Path:
    root = tmp_path_factory.mktemp("blends")
    folder = root / "asset"
    (folder / "deep").mkdir(parents=True)
    for path in (root / "secret.png", folder / "inner.png"):
        path.write_bytes(PNG)
    names = {"secret": str(root / "secret.png"), "inner": str(folder / "inner.png"), "folder": str(folder)}
    in_blender(LINKING_BLENDS, **names)
    for name in ("outside", "inside"):
        data = (folder / f"{name}.blend").read_bytes()
        (folder / f"{name}_gzip.blend").write_bytes(gzip.compress(data))
    return folder


@pytest.mark.parametrize("name", BLENDS)
def test_a_blend_that_links_out_of_its_folder_is_refused_before_blender(
    linking_blends: Path, name: str
) -> None:
    if BLENDS[name]:
        assert inspect(linking_blends / f"{name}.blend").notes == ()
        return
    with pytest.raises(BadFile) as refused:
        inspect(linking_blends / f"{name}.blend")
    assert refused.value.code == "bad_file:outside"


def test_a_blend_is_checked_again_by_what_blender_loaded(
    linking_blends: Path, in_blender: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    error = load_error(in_blender, linking_blends / "outside_zstd.blend")
    assert error is not None and error[0] == "bad_file:outside_reference" and "secret.png" in error[1]
    # That is all there is where no decoder is installed, and the asset says so.
    monkeypatch.setitem(sys.modules, "zstandard", None)
    notes = inspect(linking_blends / "outside_zstd.blend").notes
    assert notes == ("blend_unchecked:no_zstandard_module",)


@pytest.mark.parametrize("name", ["inside", "inside_zstd", "inside_gzip"])
def test_a_blend_cut_short_or_flipped_ends_in_a_reason(
    linking_blends: Path, tmp_path: Path, name: str
) -> None:
    data = (linking_blends / f"{name}.blend").read_bytes()
    path = tmp_path / "a.blend"
    for share in (0.01, 0.3, 0.7, 0.99):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(BadFile):
            inspect(path)
    rng = np.random.default_rng(0)
    for _ in range(25):
        hurt = bytearray(data)
        for at in rng.integers(0, len(data), 8):
            hurt[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(hurt)
        try:
            inspect(path)
        except BadFile as bad:
            assert bad.code.startswith("bad_file:")


def test_a_file_blender_cannot_read_is_an_error_with_a_code(
    tmp_path: Path, in_blender: Callable[..., Any]
) -> None:
    names = ("a.glb", "a.fbx", "a.blend", "a.usdz", "a.abc")
    for name in names:
        (tmp_path / name).write_bytes(b"nonsense" * 100)
    code = LOOK + (
        "\nanswer = {}\nfor path in paths:\n    try:\n        load_asset(path)\n"
        "    except LoadError as error:\n        answer[path] = error.code\n"
    )
    paths = [str(tmp_path / name) for name in names]
    codes = in_blender(code, paths=paths)
    assert set(codes) == set(paths)
    assert all(code.startswith("bad_file:") for code in codes.values())


PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)


def test_missing_textures_are_flagged_and_neutral_not_magenta(
    tmp_path: Path, gltf: Callable[..., Path], part: Any, in_blender: Callable[..., Any]
) -> None:
    path = gltf(tmp_path / "a.gltf", [part(texture="gone.png"), part((1, 0, 0), texture="here.png")])
    (tmp_path / "here.png").write_bytes(PNG)
    code = LOOK + (
        "\nimport bpy\nloaded = load_asset(path)\n"
        "images = [n.image.name for m in bpy.data.materials if m.node_tree for n in m.node_tree.nodes"
        " if n.type == 'TEX_IMAGE']\nanswer = [loaded.flags, images]\n"
    )
    flags, images = in_blender(code, path=str(path))
    assert flags == ["missing_texture:gone.png"] and len(images) == 1


def test_fbx_materials_with_alpha_zero_are_repaired(
    tmp_path: Path, every_format: dict[str, Path], in_blender: Callable[..., Any]
) -> None:
    """What an importer made of old transparency is undone for FBX, and an honest glass of another format
    stays.
    """
    code = """
    import bpy
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.mesh.primitive_cube_add()
    m = bpy.data.materials.new('m'); m.use_nodes = True
    m.node_tree.nodes['Principled BSDF'].inputs['Alpha'].default_value = 0.0
    m.blend_method = 'BLEND'
    bpy.context.object.data.materials.append(m)
    bpy.ops.export_scene.fbx(filepath=fbx)
    bpy.ops.export_scene.gltf(filepath=glb)
    from orbit4d.render.blender.importers.load import load_asset
    answer = []
    for path in (fbx, glb):
        flags = load_asset(path).flags
        alpha = [n.inputs['Alpha'].default_value for m in bpy.data.materials for n in m.node_tree.nodes
                 if n.type == 'BSDF_PRINCIPLED']
        answer.append([flags, alpha])
    """
    fbx, glb = in_blender(code, fbx=str(tmp_path / "a.fbx"), glb=str(tmp_path / "a.glb"))
    assert fbx == [["alpha_repaired:1"], [1.0]]
    assert glb == [[], [0.0]]


def test_real_assets_that_set_traps(shared: Path, in_blender: Callable[..., Any]) -> None:
    names = ["malecasual_fbx.fbx", "morphstress.glb", "kenneychar.glb", "cesiumman.glb"]
    code = LOOK + "\nanswer = {path: look(path) for path in paths}\n"
    paths = [str(shared / "assets" / f"dev_{name}") for name in names]
    male, morph, kenney, cesium = in_blender(code, paths=paths).values()
    assert male["flags"] == ["alpha_repaired:7"] and len(male["actions"]) == 11
    assert all(action["window"] is not None for action in male["actions"]), (
        "an FBX take without its slot is still"
    )
    assert [a["name"] for a in morph["actions"]] == ["Individuals", "TheWave", "Pulse"]
    assert all(action["window"] is not None for action in morph["actions"])
    assert [a["window"] is None for a in kenney["actions"]] == [True, False, False, False]
    assert not any("Icosphere" in name for name in cesium["meshes"])
    assert json.dumps(cesium)  # finite numbers only
