"""A skinned GLB, played by a small player written from the specification: hierarchy, skin, morph targets."""

from __future__ import annotations

import importlib.util
import json
import struct
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.geometry.exports.job import ExportAction, GeometrySettings
from orbit4d.datasets.geometry.exports.skinned_glb import action_glb

_SPEC = importlib.util.spec_from_file_location("orbit4d_tests_rigs", Path(__file__).parent / "test_rigs.py")
_rigs = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_rigs)
arm, action_of = _rigs.arm, _rigs.action_of


class Player:
    """What a viewer does with the file at each of its key times."""

    def __init__(self, data: bytes) -> None:
        size = struct.unpack_from("<I", data, 12)[0]
        self.doc, self.binary = json.loads(data[20 : 20 + size]), data[28 + size :]

    def array(self, number: int) -> np.ndarray:
        told = self.doc["accessors"][number]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}[told["type"]]
        dtype = {5126: "<f4", 5125: "<u4", 5123: "<u2"}[told["componentType"]]
        out = np.zeros((told["count"], width), dtype)

        def raw(view: int, kind: str) -> np.ndarray:
            at = self.doc["bufferViews"][view]
            assert at["byteOffset"] % 4 == 0
            return np.frombuffer(self.binary[at["byteOffset"] : at["byteOffset"] + at["byteLength"]], kind)

        if "bufferView" in told:
            out[:] = raw(told["bufferView"], dtype).reshape(-1, width)
        if "sparse" in told:
            places = raw(told["sparse"]["indices"]["bufferView"], "<u4")
            out[places] = raw(told["sparse"]["values"]["bufferView"], dtype).reshape(-1, width)
        return out

    def played(self) -> tuple[np.ndarray, np.ndarray]:
        """(times [T], vertices [T, V, 3])."""
        (mesh,), (skin,), (animation,) = self.doc["meshes"], self.doc["skins"], self.doc["animations"]
        (primitive,) = mesh["primitives"]
        attributes = {k: self.array(v) for k, v in primitive["attributes"].items()}
        inverse = self.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).swapaxes(1, 2)
        keys = {}
        for channel in animation["channels"]:
            sampler = animation["samplers"][channel["sampler"]]
            assert sampler["interpolation"] == "LINEAR"
            times = self.array(sampler["input"])[:, 0]
            keys[channel["target"]["node"], channel["target"]["path"]] = self.array(sampler["output"])
        assert np.allclose(attributes["WEIGHTS_0"].sum(1), 1, atol=1e-6)
        targets = [self.array(t["POSITION"]) for t in primitive.get("targets", ())]
        weights = next((v for (_, path), v in keys.items() if path == "weights"), np.zeros(0))
        out = []
        for t in range(len(times)):
            world = self.world(keys, t)
            base = attributes["POSITION"].astype(float)
            for k, delta in enumerate(targets):
                base = base + weights.reshape(len(times), -1)[t, k] * delta
            matrices = np.stack([world[j] @ inverse[i] for i, j in enumerate(skin["joints"])])
            moved = np.einsum(
                "vkij,vj->vki", matrices[attributes["JOINTS_0"]], np.c_[base, np.ones(len(base))]
            )
            out.append((moved[..., :3] * attributes["WEIGHTS_0"][..., None]).sum(1))
        return times, np.stack(out)

    def world(self, keys: dict, t: int) -> dict[int, np.ndarray]:
        found: dict[int, np.ndarray] = {}

        def visit(node: int, above: np.ndarray) -> None:
            told = self.doc["nodes"][node]
            part = {
                p: keys[node, p][t] if (node, p) in keys else told.get(p)
                for p in ("translation", "rotation", "scale")
            }
            local = np.eye(4)
            if part["rotation"] is not None:
                local[:3, :3] = Rotation.from_quat(part["rotation"]).as_matrix()
            if part["scale"] is not None:
                local[:3, :3] *= np.asarray(part["scale"], float)
            if part["translation"] is not None:
                local[:3, 3] = part["translation"]
            found[node] = above @ local
            for child in told.get("children", ()):
                visit(child, found[node])

        for root in self.doc["scenes"][0]["nodes"]:
            visit(root, np.eye(4))
        return found


def y_up(points: np.ndarray) -> np.ndarray:
    return np.asarray(points) @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], float).T


@pytest.mark.parametrize("two_roots", [False, True])
@pytest.mark.parametrize("up", ["y", "z"])
def test_a_player_gives_the_vertices_of_every_time(two_roots: bool, up: str) -> None:
    """1e-5 besides what the stored vertices are rounded by."""
    skeleton, mesh = arm(two_roots)
    action = replace(action_of(skeleton, mesh), settings=GeometrySettings(up=up))
    ((name, data),) = action_glb(action)
    times, vertices = Player(data).played()
    wanted = np.stack([skeleton.skinned(t) for t in range(len(times))])
    assert name == "arm.glb" and np.allclose(times, mesh.seconds - mesh.seconds[0])
    assert np.abs(vertices - (y_up(wanted) if up == "y" else wanted)).max() < 1e-5
    assert np.abs(vertices[-1] - vertices[0]).max() > 0.1 and not action.notes


def test_morph_targets_of_the_source_go_with_the_skin() -> None:
    skeleton, mesh = arm()
    rng = np.random.default_rng(0)
    deltas = 0.1 * rng.normal(size=(2, len(skeleton.basis), 3)).astype(np.float32)
    moving = rng.random((len(skeleton.pose), 2))
    skeleton = replace(skeleton, morphs=("o/a", "o/b"), deltas=deltas, morph_weights=moving)
    ((_, data),) = action_glb(action_of(skeleton, mesh))
    player = Player(data)
    wanted = np.stack([skeleton.skinned(t) for t in range(len(skeleton.pose))])
    assert np.abs(player.played()[1] - y_up(wanted)).max() < 1e-5
    assert player.doc["meshes"][0]["extras"]["targetNames"] == ["o/a", "o/b"]


def test_what_gltf_cannot_say_of_joints_becomes_morph_targets() -> None:
    skeleton, mesh = arm()
    sheared = skeleton.pose.copy()
    sheared[2, 1, 0, 1] += 0.3
    action = action_of(replace(skeleton, pose=sheared), mesh)
    ((_, data),) = action_glb(action)
    doc = Player(data).doc
    assert "skins" not in doc and len(doc["meshes"][0]["primitives"][0]["targets"]) == len(mesh.seconds) - 1
    assert any("shear" in note for note in action.notes)


def test_without_a_skeleton_there_are_morph_targets_and_no_note() -> None:
    _, mesh = arm()

    class Bare(SimpleNamespace):
        @property
        def skeleton(self):
            raise InputError("no skeleton")

    row = {"uid": "arm", "action": "Bend", "action_index": 0, "split": "validation"}
    bare = Bare(mesh=mesh, vertices=mesh.vertices)
    action = ExportAction("arm", None, (row,), bare, GeometrySettings())
    ((_, data),) = action_glb(action)
    assert "skins" not in Player(data).doc and not action.notes
