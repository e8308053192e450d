"""The mesh of a scene: its surface is where the Gaussians are, and it moves as they do."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from orbit4d.datasets import InputError
from orbit4d.recon4d import Gaussians, Scene
from orbit4d.recon4d.deformation.field import HexPlaneField, NodeField
from orbit4d.recon4d.export.formats import export_scene
from orbit4d.recon4d.export.mesh_files import MovingMesh, mesh_glb_bytes, moving_mesh
from orbit4d.recon4d.gaussians import from_points
from orbit4d.recon4d.mesh.bones import bones_of
from orbit4d.recon4d.mesh.surface import normals, surface
from orbit4d.recon4d.world import World

pytest.importorskip("skimage", reason="scikit-image is not installed (pip install 'orbit4d[mesh]')")
pytest.importorskip("fast_simplification", reason="fast-simplification is not installed: orbit4d[mesh]")
pytest.importorskip("xatlas", reason="xatlas is not installed: orbit4d[mesh]")

RADIUS = 0.35


def ball(n: int = 2500) -> Gaussians:
    """A shell of opaque Gaussians: red above, blue below."""
    i = np.arange(n) + 0.5
    polar, turn = np.arccos(1 - 2 * i / n), np.pi * (1 + 5**0.5) * i
    unit = np.stack([np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], 1)
    colors = np.where(unit[:, 2:] > 0, (0.9, 0.1, 0.1), (0.1, 0.1, 0.9))
    g = from_points(RADIUS * unit, colors, opacity=0.95)
    g.log_scales -= 0.4
    return g


@pytest.fixture(scope="module")
def scene() -> Scene:
    torch.manual_seed(0)
    field = NodeField(n_nodes=30, width=16)
    with torch.no_grad():
        field.head.weight.normal_(0, 0.15)
    return Scene(ball(), field.eval().requires_grad_(False), world=World(2.0, (1.0, 0.0, 3.0)))


@pytest.fixture(scope="module")
def moving(scene: Scene) -> MovingMesh:
    return moving_mesh(scene, 5, 8.0)


def test_the_surface_of_a_ball_is_its_shell() -> None:
    vertices, faces, _ = surface(ball(), cells=64, triangles=3000)
    distance = np.linalg.norm(vertices, axis=1)
    # The silhouette, where alpha is one half, lies 1.1 scales outside of the shell of centres.
    scale = ball().scales.mean().item()
    assert 0 < distance.mean() - RADIUS < 1.2 * scale < 0.025 and distance.std() < 0.006
    # Simplification folds a sliver here and there (1 % of the vertices).
    facing = (normals(vertices, faces) * vertices).sum(1) / distance
    assert np.median(facing) > 0.98 and (facing > 0.8).mean() > 0.98, "normals look outwards"
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] % 2 == 0).all(), "it is closed"
    assert len(faces) <= 3000


def test_the_mesh_moves_as_gaussians_in_its_place_do(scene: Scene, moving: MovingMesh) -> None:
    on_it = (moving.mesh.vertices - np.array(scene.world.centre)) / scene.world.scale
    probe = from_points(on_it, np.zeros_like(on_it))
    import copy

    bound = copy.deepcopy(scene.field)
    bound.bind(probe.means)
    for time in range(5):
        wanted = scene.world.placed(bound.move(probe, time / 4)).means.numpy()
        np.testing.assert_allclose(moving.at(time), wanted, atol=1e-3)  # weights below 1e-4 are left out
    assert np.abs(moving.at(4) - moving.at(0)).max() > 0.02, "it moves"
    assert np.abs(moving.bones.weights.sum(1) - 1).max() < 1e-6
    assert (moving.bones.joints[moving.bones.weights == 0] == 0).all()


def test_the_texture_is_that_of_the_gaussians(moving: MovingMesh, scene: Scene) -> None:
    mesh = moving.mesh
    size = len(mesh.image)
    column, row = (np.clip(v * size, 0, size - 1).astype(int) for v in (mesh.uv[:, 0], 1 - mesh.uv[:, 1]))
    colors = mesh.image[row, column] / 255.0
    height = (mesh.vertices[:, 2] - 3.0) / 2.0
    above, below = height > 0.05, height < -0.05
    assert np.abs(colors[above] - (0.9, 0.1, 0.1)).mean() < 0.03
    assert np.abs(colors[below] - (0.1, 0.1, 0.9)).mean() < 0.03


def parts(data: bytes) -> tuple[dict, bytes]:
    size = struct.unpack_from("<I", data, 12)[0]
    return json.loads(data[20 : 20 + size]), data[28 + size :]


def test_the_glb_is_played_as_the_mesh_moves(moving: MovingMesh) -> None:
    """A reader of its own: joints, inverse bind matrices and keys give the vertices at each time."""
    from scipy.spatial.transform import Rotation

    document, binary = parts(mesh_glb_bytes(moving))

    def get(index: int) -> np.ndarray:
        told = document["accessors"][index]
        start = document["bufferViews"][told["bufferView"]]["byteOffset"]
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}[told["type"]]
        kind = {5126: "<f4", 5123: "<u2", 5125: "<u4"}[told["componentType"]]
        return np.frombuffer(binary, kind, told["count"] * width, start).reshape(told["count"], width)

    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    position, joints, weights = (get(attributes[k]) for k in ("POSITION", "JOINTS_0", "WEIGHTS_0"))
    skin, animation = document["skins"][0], document["animations"][0]
    bind = get(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
    np.testing.assert_allclose(get(animation["samplers"][0]["input"])[:, 0], np.arange(5) / 8, atol=1e-6)
    for time in (0, 3, 4):
        world = np.tile(np.eye(4), (len(bind), 1, 1))
        for channel in animation["channels"]:
            joint = skin["joints"].index(channel["target"]["node"])
            value = get(animation["samplers"][channel["sampler"]]["output"])[time]
            if channel["target"]["path"] == "rotation":
                world[joint, :3, :3] = Rotation.from_quat(value).as_matrix()
            else:
                world[joint, :3, 3] = value
        maps = ((world @ bind)[joints] * weights[..., None, None]).sum(1)
        shown = np.einsum("vij,vj->vi", maps[:, :3, :3], position) + maps[:, :3, 3]
        np.testing.assert_allclose(shown, moving.at(time, "y"), atol=1e-5)


def test_gltf_validator_finds_nothing(moving: MovingMesh, tmp_path: Path) -> None:
    held = Path(os.environ.get("ORBIT4D_NODE_MODULES", "node_modules")) / "gltf-validator"
    if shutil.which("node") is None or not held.is_dir():
        pytest.skip("gltf-validator is not here: npm install gltf-validator")
    (tmp_path / "a.glb").write_bytes(mesh_glb_bytes(moving))
    script = (
        "require(process.argv[1]).validateBytes(new Uint8Array(require('fs').readFileSync(process.argv[2])))"
        ".then(r => console.log(JSON.stringify(r.issues)))"
    )
    done = subprocess.run(
        ["node", "-e", script, str(held.resolve()), str(tmp_path / "a.glb")],
        capture_output=True,
        text=True,
        check=True,
    )
    issues = json.loads(done.stdout)
    assert issues["numErrors"] == issues["numWarnings"] == 0, issues["messages"]


def test_an_obj_for_each_time(scene: Scene, moving: MovingMesh, tmp_path: Path) -> None:
    written = export_scene(scene, tmp_path / "obj", "mesh-obj", frames=2)
    assert [p.name for p in written] == ["mesh.mtl", "mesh_0000.obj", "mesh_0001.obj", "texture.png"]
    lines = written[2].read_text().splitlines()
    points = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
    assert np.abs(points - moving.at(4)).max() < 1e-4, "the last time"
    faces = [line for line in lines if line.startswith("f ")]
    assert len(faces) == len(moving.mesh.faces) and "0/" not in faces[0].split()
    assert Image.open(written[3]).size == (512, 512)


def test_usd_has_the_points_over_time(scene: Scene, moving: MovingMesh, tmp_path: Path) -> None:
    Usd = pytest.importorskip("pxr.Usd", reason="usd-core is not installed")
    from orbit4d.recon4d.export.mesh_files import write_mesh_usd

    write_mesh_usd(moving, tmp_path / "a.usdc", "z", 8.0)
    stage = Usd.Stage.Open(str(tmp_path / "a.usdc"))
    points = stage.GetPrimAtPath("/scene/mesh").GetAttribute("points")
    for time in range(5):
        np.testing.assert_allclose(np.array(points.Get(time)), moving.at(time), atol=1e-6)
    write_mesh_usd(moving, tmp_path / "a.usdz", "z", 8.0)
    stage = Usd.Stage.Open(str(tmp_path / "a.usdz"))
    prim = stage.GetPrimAtPath("/scene/mesh")
    np.testing.assert_allclose(np.array(prim.GetAttribute("primvars:st").Get()), moving.mesh.uv, atol=1e-6)
    file = stage.GetPrimAtPath("/scene/surface/image").GetAttribute("inputs:file").Get()
    assert [str(t) for t in prim.GetRelationship("material:binding").GetTargets()] == ["/scene/surface"]
    with zipfile.ZipFile(tmp_path / "a.usdz") as held:  # stored, and found from within the package
        name = next(each for each in held.namelist() if each.endswith("texture.png"))
        assert file.resolvedPath.endswith(f"[{name}]")
        assert np.array_equal(np.array(Image.open(held.open(name))), moving.mesh.image)


def test_what_cannot_become_a_mesh_is_refused(scene: Scene, tmp_path: Path) -> None:
    wild = Scene(scene.gaussians, HexPlaneField().eval().requires_grad_(False))
    with pytest.raises(InputError, match="hexplane"):
        export_scene(wild, tmp_path / "a.glb", "mesh-glb")
    thin = scene.gaussians.detached()
    thin.logits[:] = -8.0
    with pytest.raises(InputError, match="transparent"):
        surface(thin)
    with pytest.raises(InputError, match="by Blender"):
        export_scene(scene, tmp_path / "a.abc", "mesh-alembic", frames=2)
    assert not list(tmp_path.iterdir())


def test_a_still_scene_has_one_bone(scene: Scene) -> None:
    from orbit4d.recon4d.export.readers import still_scene

    bones = bones_of(still_scene(scene.gaussians), np.eye(3), 2)
    np.testing.assert_allclose(bones.moved(np.eye(3), 1), np.eye(3))


def test_alembic_is_handed_to_blender(
    scene: Scene, moving: MovingMesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import contextlib

    from orbit4d.datasets.geometry.exports import alembic
    from orbit4d.recon4d.export.mesh_files import write_mesh_alembic

    told = {}

    def write(payload: dict) -> None:
        with np.load(payload["arrays"]) as held:
            told.update(payload, vertices=held["vertices"])
        Path(payload["out"]).write_bytes(b"abc")

    monkeypatch.setattr(alembic, "OPENER", [lambda: contextlib.nullcontext(write)])
    write_mesh_alembic(moving, tmp_path / "a.abc")
    assert (tmp_path / "a.abc").read_bytes() == b"abc" and told["step"] == 1 / 8
    np.testing.assert_allclose(told["vertices"][3], moving.at(3), atol=1e-6)
    with pytest.raises(InputError, match="--up z"):
        export_scene(scene, tmp_path / "b.abc", "mesh-alembic", up="z")


def test_a_package_that_is_cut_short_is_told(tmp_path: Path) -> None:
    """On a full disk usd-core leaves one without a word."""
    import zipfile

    from orbit4d.recon4d.export.mesh_files import _check_package

    with zipfile.ZipFile(tmp_path / "a.usdz", "w") as package:
        package.writestr("mesh.usdc", bytes(5000))
    _check_package(tmp_path / "a.usdz")
    data = (tmp_path / "a.usdz").read_bytes()
    for cut in (data[:3000], data[:-10], b""):
        (tmp_path / "a.usdz").write_bytes(cut)
        with pytest.raises(OSError, match="not whole"):
            _check_package(tmp_path / "a.usdz")
