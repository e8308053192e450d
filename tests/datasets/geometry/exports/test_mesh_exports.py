"""Exports of meshes and of points on them, each read by a parser that shares nothing with its writer."""

from __future__ import annotations

import io
import json
import pickle
import struct

import numpy as np
import pytest

from orbit4d.datasets import read_geometry
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.exports.geometry_files import export_geometry
from orbit4d.datasets.geometry.exports.glb import glb
from orbit4d.datasets.geometry.exports.job import GeometrySettings, Refused
from orbit4d.datasets.geometry.exports.mesh_sequences import merged

FIRST = "uid = 'a'"


@pytest.fixture(scope="module")
def truth(geometry_dataset):
    return read_geometry(str(geometry_dataset), "a", "Run")


@pytest.fixture
def export(geometry_dataset, tmp_path):
    """export(format, **settings) -> folder with what asset a became."""

    def run(name, where=FIRST, **settings):
        export_geometry(str(geometry_dataset), str(tmp_path), name, GeometrySettings(**settings), where)
        return tmp_path

    return run


def y_up(points):
    """(x, z, -y) by a rotation of -90 degrees about x, not by the writer's own index order."""
    return np.asarray(points) @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], float).T


class Glb:
    """An own small parser of what these files use, from the specification alone."""

    def __init__(self, data: bytes) -> None:
        magic, version, length = struct.unpack_from("<4sII", data)
        assert (magic, version, length) == (b"glTF", 2, len(data))
        size, kind = struct.unpack_from("<I4s", data, 12)
        assert kind == b"JSON"
        self.doc = json.loads(data[20 : 20 + size])
        rest, kind = struct.unpack_from("<I4s", data, 20 + size)
        assert kind == b"BIN\0"
        self.binary = data[28 + size : 28 + size + rest]

    def array(self, number):
        told = self.doc["accessors"][number]
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}[told["type"]]
        dtype = {5126: "<f4", 5125: "<u4"}[told["componentType"]]
        out = np.zeros((told["count"], width), dtype)
        if "bufferView" in told:
            out[:] = self.raw(told["bufferView"], dtype).reshape(-1, width)
        if "sparse" in told:
            sparse = told["sparse"]
            places = self.raw(sparse["indices"]["bufferView"], "<u4")
            assert len(places) == sparse["count"] and (np.diff(places.astype(int)) > 0).all()
            out[places] = self.raw(sparse["values"]["bufferView"], dtype).reshape(-1, width)
        if "min" in told:
            np.testing.assert_array_equal(out.min(axis=0), np.array(told["min"], dtype))
            np.testing.assert_array_equal(out.max(axis=0), np.array(told["max"], dtype))
        return out

    def raw(self, view, dtype):
        told = self.doc["bufferViews"][view]
        start = told["byteOffset"]
        assert start % 4 == 0
        return np.frombuffer(self.binary[start : start + told["byteLength"]], dtype)

    def moving(self):
        """(faces [M, 3], key times [T], vertices [T, V, 3]) by base + sum of weights times deltas."""
        (primitive,) = self.doc["meshes"][0]["primitives"]
        assert "rotation" not in self.doc["nodes"][0] and "matrix" not in self.doc["nodes"][0]
        base = self.array(primitive["attributes"]["POSITION"])
        faces = self.array(primitive["indices"]).reshape(-1, 3)
        if "targets" not in primitive:
            return faces, np.zeros(1), base[None]
        deltas = np.stack([self.array(t["POSITION"]) for t in primitive["targets"]])
        (sampler,) = self.doc["animations"][0]["samplers"]
        times = self.array(sampler["input"])[:, 0]
        weights = self.array(sampler["output"]).reshape(len(times), len(deltas))
        return faces, times, base + np.einsum("tk,kvc->tvc", weights, deltas)


def test_glb_gives_every_time_back(export, truth, tmp_path):
    data = (export("glb") / "a.glb").read_bytes()
    read = Glb(data)
    faces, times, vertices = read.moving()
    np.testing.assert_array_equal(faces, truth.faces)
    np.testing.assert_allclose(times, truth.seconds - truth.seconds[0], atol=1e-6)
    assert times[0] == 0.0
    # base + (v - base) in float32 is v to one rounding of numbers below 1.
    np.testing.assert_allclose(vertices, y_up(truth.vertices), atol=2e-7)
    assert np.abs(vertices[-1] - vertices[0]).max() > 0.1


def test_our_own_reader_takes_the_glb(export):
    from orbit4d.datasets.assets.inspect import inspect

    found = inspect(export("glb") / "a.glb")
    assert "motion" in str(found)


def test_deltas_of_a_mesh_that_hardly_moves_are_sparse():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(300, 3)).astype(np.float32)
    still, some = base.copy(), base.copy()
    some[[5, 250]] += np.float32(0.25)
    faces = np.arange(300).reshape(-1, 3)
    data = glb(np.stack([base, some, still]), faces, [1.0, 1.5, 2.0])
    read = Glb(data)
    np.testing.assert_allclose(read.moving()[2], np.stack([base, some, still]), atol=2e-7)
    assert read.doc["accessors"][2]["sparse"]["count"] == 2
    full = Glb(glb(np.stack([base, base + np.float32(1)]), faces, [0.0, 1.0]))
    assert not any("sparse" in accessor for accessor in full.doc["accessors"])


def test_motion80_frames_are_the_datasets_vertices(export, truth):
    folder = export("motion80") / "a_pointclouds"
    faces = np.load(folder / "faces.npy")
    frames = [np.load(folder / f"frame_{k:04d}.npy") for k in range(len(truth.seconds))]
    assert len(list(folder.glob("frame_*.npy"))) == len(frames)
    assert faces.max() < len(frames[0]) and {f.shape for f in frames} == {truth.vertices.shape[1:]}
    np.testing.assert_array_equal(np.stack(frames), truth.vertices)
    meta = json.loads((folder / "meta.json").read_text())
    assert "+Z up" in meta["axes"] and meta["seconds"] == truth.seconds.tolist()


def to_triangle(points, corners):
    """Distance [N] of points to triangles [N, 3, 3], each to its own, by the plane and the barycentrics."""
    a, b, c = np.moveaxis(corners, 1, 0)
    system = np.stack([b - a, c - a], axis=-1)
    uv = np.stack([np.linalg.lstsq(m, p, rcond=None)[0] for m, p in zip(system, points - a)])
    uv = np.clip(uv, 0.0, 1.0)
    return np.linalg.norm(a + np.einsum("nij,nj->ni", system, uv) - points, axis=1)


def test_actionbench_points_stay_on_their_triangles(export, truth):
    folder = export("actionbench", points=200, moments=4) / "a"
    surfaces = np.load(folder / "surfaces.npy")
    assert surfaces.dtype == np.float32 and surfaces.shape == (4, 200, 6)
    np.testing.assert_allclose(np.linalg.norm(surfaces[..., 3:], axis=-1), 1.0, atol=1e-5)
    meshes = [Glb((folder / f"mesh_{k:02d}.glb").read_bytes()).moving() for k in range(4)]
    nearest = []
    for k, (faces, _, vertices) in enumerate(meshes):
        corners = vertices[0].astype(float)[faces]
        all_of = np.stack([to_triangle(surfaces[k, :, :3], np.repeat(t[None], 200, 0)) for t in corners])
        assert all_of.min(axis=0).max() < 1e-5
        nearest.append(all_of)
    # The triangle a point lies on at first is the one it lies on at last.
    own = nearest[0].argmin(axis=0)
    assert nearest[-1][own, np.arange(200)].max() < 1e-5
    # The box slides by the same for all points.
    slide = y_up(truth.vertices[-1, 0] - truth.vertices[0, 0])
    np.testing.assert_allclose(surfaces[-1, :, :3] - surfaces[0, :, :3], np.tile(slide, (200, 1)), atol=1e-5)


def test_actionbench_has_the_published_size_unless_told_otherwise(export):
    surfaces = np.load(export("actionbench", points=20) / "a" / "surfaces.npy")
    assert surfaces.shape == (16, 20, 6)


def test_gvfd_points_deltas_and_cameras(export, truth):
    import torch

    root = export("gvfd", points=100, moments=4)
    folder = root / "a"
    assert (root / "list.txt").read_text() == "a\n"
    static, delta = (
        torch.load(folder / "objs/mesh_data" / name, weights_only=True).numpy()
        for name in ("static_frame_vertices.pt", "moving_frame_deltas.pt")
    )
    assert static.shape == (100, 3) and delta.shape == (4, 100, 3) and not delta[0].any()
    meta = json.loads((folder / "meta.json").read_text())
    objs = []
    for k in range(4):
        lines = [line.split() for line in (folder / f"objs/frame{k}.obj").read_text().splitlines()]
        vertices = np.array([line[1:] for line in lines if line[0] == "v"], float)
        faces = np.array([line[1:] for line in lines if line[0] == "f"], int) - 1
        corners = vertices[faces]
        points = (static + delta[k]).astype(float)
        far = np.stack([to_triangle(points, np.repeat(t[None], 100, 0)) for t in corners]).min(axis=0)
        assert far.max() < 1e-5
        objs.append(vertices)
    assert np.ptp(objs[0], axis=0).max() == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(objs[0].max(axis=0) + objs[0].min(axis=0), 0.0, atol=1e-6)
    # A vertex of the first mesh goes to the same pixel through the written camera as through the dataset's.
    told = json.loads((folder / "meta_data/timestep_02_view_00.json").read_text())
    c2w, (width, height) = np.array(told["matrix_world"]), (32, 32)
    local = (objs[2] - c2w[:3, 3]) @ c2w[:3, :3]
    focal = width / (2 * np.tan(told["x_fov"] / 2))
    pixels = np.stack([focal * local[:, 0], -focal * local[:, 1]], 1) / -local[:, 2:] + [
        width / 2,
        height / 2,
    ]
    clip = truth.clip("dynamic_orbit")
    t = int(np.argmin(np.abs(truth.seconds - meta["seconds"][2])))
    camera = clip.cameras[clip.times.index(t)]
    np.testing.assert_allclose(pixels, camera.project(truth.vertices[t])[0], atol=1e-4)
    assert (folder / "imgs/timestep_02_view_00.png").is_file()


class Restricted(pickle.Unpickler):
    """Arrays and plain values, nothing else."""

    def find_class(self, module, name):
        assert module.split(".")[0] == "numpy", f"{module}.{name}"
        return super().find_class(module, name)


def test_dymesh_reads_as_animate_any_mesh_reads_it(export, truth):
    told = Restricted(io.BytesIO((export("dymesh") / "a.bin").read_bytes())).load()
    vertices, faces = told["vertices"], told["faces"]
    assert vertices.dtype == np.float32 and faces.dtype == np.int64 and vertices.shape[::2] == (16, 3)
    assert told["caption"] == " " and faces.max() < vertices.shape[1]
    assert len(np.unique(vertices[0], axis=0)) == vertices.shape[1] == 8
    centre = 0.5 * (vertices[0].max(0) + vertices[0].min(0))
    read = vertices - centre
    read = read / (np.abs(read[0]).max() + 1e-8)
    assert np.abs(read[0]).max() == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(vertices[-1], truth.vertices[-1], atol=1e-7)


def test_dymesh_merges_what_is_one_and_refuses_what_parts():
    square = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)], np.float32)
    faces = np.array([(0, 1, 2), (3, 4, 5), (1, 3, 4), (2, 0, 1)])
    kept, corners = merged(np.stack([square, square + 1]), faces, 0.0)
    np.testing.assert_array_equal(kept, [0, 1, 2, 4])
    # The third has two equal corners, the fourth is the first one again.
    np.testing.assert_array_equal(corners, [(0, 1, 2), (1, 3, 2)])
    torn = np.stack([square, square])
    torn[1, 3:] += 1.0
    with pytest.raises(Refused) as caught:
        merged(torn, faces, 1e-6)
    assert caught.value.code == "dymesh:parting"


def test_usd_text_says_every_time(truth):
    """The text that is written without `pxr`, by a reader of this one prim."""
    import re

    from orbit4d.datasets.geometry.exports.usd import usda

    text = usda(truth.vertices, truth.faces, truth.seconds, "z", None, "a")
    assert 'upAxis = "Z"' in text and "timeCodesPerSecond = 24" in text
    samples = re.search(r"points\.timeSamples = \{(.*?)\n        \}", text, re.DOTALL).group(1)
    codes, points = [], []
    for line in samples.strip().splitlines():
        code, rest = line.split(":", 1)
        codes.append(float(code))
        numbers = np.array(re.findall(r"[-0-9.e+]+", rest), float)
        points.append(numbers.reshape(-1, 3))
    np.testing.assert_allclose(np.array(codes) / 24.0, truth.seconds, atol=1e-12)
    np.testing.assert_array_equal(np.array(points, np.float32), truth.vertices)


def test_usd_is_read_by_pxr(export, truth):
    Usd = pytest.importorskip("pxr.Usd", reason="usd-core is not installed")
    from pxr import UsdGeom

    stage = Usd.Stage.Open(str(export("usd") / "a.usd"))
    assert UsdGeom.GetStageUpAxis(stage) == "Z" and UsdGeom.GetStageMetersPerUnit(stage) == 1.0
    (mesh,) = (UsdGeom.Mesh(p) for p in stage.Traverse() if p.IsA(UsdGeom.Mesh))
    corners = np.array(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)
    np.testing.assert_array_equal(corners, truth.faces)
    codes = mesh.GetPointsAttr().GetTimeSamples()
    np.testing.assert_allclose(np.array(codes) / 24.0, truth.seconds, atol=1e-9)
    read = np.stack([np.array(mesh.GetPointsAttr().Get(code)) for code in codes])
    np.testing.assert_allclose(read, truth.vertices, atol=1e-6)


def test_what_has_no_geometry_is_told_and_the_rest_goes_on(geometry_dataset, tmp_path):
    done = export_geometry(str(geometry_dataset), str(tmp_path), "glb")
    assert done.actions == 2 and sorted(p.name for p in tmp_path.iterdir()) == ["a.glb", "b.glb"]
    assert any("geometry:topology" in note for note in done.notes)
    assert any("--add-passes geometry" in note for note in done.notes)
    for uid, said in (("c", "geometry:topology"), ("d", "--add-passes geometry")):
        with pytest.raises(InputError, match=said):
            export_geometry(str(geometry_dataset), str(tmp_path / uid), "gvfd", where=f"uid = '{uid}'")


def test_alembic_is_handed_even_times_and_needs_a_writer(geometry_dataset, tmp_path, monkeypatch, truth):
    import contextlib

    from orbit4d.datasets.geometry.exports import alembic

    monkeypatch.setattr(alembic, "OPENER", [])
    with pytest.raises(InputError, match="written by Blender"):
        export_geometry(str(geometry_dataset), str(tmp_path), "alembic", where=FIRST)
    seen = []

    @contextlib.contextmanager
    def opener():
        def write(told):
            with np.load(told["arrays"]) as held:
                seen.append((told["step"], held["vertices"], held["faces"]))
            with open(told["out"], "wb") as file:
                file.write(b"abc")

        yield write

    monkeypatch.setattr(alembic, "OPENER", [opener])
    export_geometry(str(geometry_dataset), str(tmp_path), "alembic", where=FIRST)
    ((step, vertices, faces),) = seen
    assert step == pytest.approx(float(np.diff(truth.seconds).mean()))
    np.testing.assert_array_equal(vertices, truth.vertices)
    np.testing.assert_array_equal(faces, truth.faces)
    assert (tmp_path / "a.abc").read_bytes() == b"abc"
    # 0, 2, 5, 7 of the eight times: not even.
    with pytest.raises(InputError, match="alembic:uneven"):
        export_geometry(str(geometry_dataset), str(tmp_path), "alembic", GeometrySettings(moments=4), FIRST)
