"""Rigs: joints, weights and poses, read with numpy alone."""

from __future__ import annotations

import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from orbit4d.datasets.geometry.action import Material, stored_mesh
from orbit4d.datasets.geometry.exports.job import ExportAction, GeometrySettings, Refused
from orbit4d.datasets.geometry.exports.rigs import articulation_xl, rig, unirig
from orbit4d.datasets.geometry.skeleton import stored_skeleton

TIMES = 5


def turn_z(angle, centre):
    out = np.eye(4)
    c, s = np.cos(angle), np.sin(angle)
    out[:2, :2] = (c, -s), (s, c)
    out[:3, 3] = np.asarray(centre, float) - out[:3, :3] @ centre
    return out


def arm(two_roots=False):
    """(skeleton, mesh) of a strip along x whose upper part bends about z, or with a second root."""
    x = np.linspace(0.0, 2.0, 9)
    basis = np.array([(a, b, 0.3 * b) for a in x for b in (-0.2, 0.2)])
    faces = [(i, i + 2, i + 1) for i in range(0, 16, 2)] + [(i + 1, i + 2, i + 3) for i in range(0, 16, 2)]
    rest = np.stack([np.eye(4), np.eye(4), np.eye(4)])
    rest[:, 0, 3] = 0.0, 0.7, 1.4
    rest[:, :3, :3] *= 1.7  # the world's scale lies in the joints' matrices
    parents = np.array([-1, -1 if two_roots else 0, 1])
    pose = []
    for t in range(TIMES):
        lower = turn_z(0.3 * t, (0, 0, 0))
        upper = lower @ turn_z(0.2 * t, (0.7, 0, 0))
        pose.append(np.stack([lower, upper, upper @ turn_z(-0.4 * t, (1.4, 0, 0))]) @ rest)
    share = np.clip(basis[:, 0] / 2, 0, 1)
    coo = [
        (v, j, w) for v, s in enumerate(share) for j, w in ((0, 1 - s), (1, 0.6 * s), (2, 0.4 * s)) if w > 0
    ]
    skeleton = stored_skeleton(
        ("hip", "knee", "foot"), (), np.array(coo), parents=parents, rest=rest, pose=np.stack(pose),
        basis=basis, deltas=np.zeros((0, len(basis), 3)), morph_weights=np.zeros((TIMES, 0)),
    )  # fmt: skip
    mesh = stored_mesh(
        np.stack([skeleton.skinned(t) for t in range(TIMES)]), (),
        seconds=np.linspace(0, 1, TIMES), faces=np.array(faces, np.int32),
        material=np.zeros(len(faces), np.uint16), object=np.zeros(len(faces), np.uint16),
        materials=(Material("m"),), objects=("o",), shown=np.ones((TIMES, 1), bool),
    )  # fmt: skip
    return skeleton, mesh


def action_of(skeleton, mesh):
    geometry = SimpleNamespace(skeleton=skeleton, mesh=mesh, vertices=mesh.vertices)
    row = {"uid": "arm", "action": "Bend", "action_index": 0, "split": "validation"}
    return ExportAction("arm", None, (row,), geometry, GeometrySettings())


def blended(vertices, weights, motion):
    """[T, V, 3] linear blend skinning, vertex by vertex and joint by joint."""
    out = np.zeros((len(motion), len(vertices), 3))
    for t, matrices in enumerate(motion):
        for v, place in enumerate(vertices):
            for j, weight in enumerate(weights[v]):
                out[t, v] += weight * (matrices[j] @ [*place, 1.0])[:3]
    return out


def arrays(data):
    with np.load(io.BytesIO(data), allow_pickle=True) as file:
        return {name: file[name] for name in file}


@pytest.mark.parametrize("two_roots", [False, True])
def test_unirig_skins_to_the_vertices_of_every_time(two_roots):
    skeleton, mesh = arm(two_roots)
    files = dict(unirig(action_of(skeleton, mesh)))
    raw, poses = arrays(files["arm/raw_data.npz"]), arrays(files["arm/poses.npz"])
    parents = raw["parents"].tolist()
    assert parents[0] is None and all(p is not None and p < j for j, p in enumerate(parents) if j)
    assert raw["names"].tolist() == (["root"] if two_roots else []) + ["hip", "knee", "foot"]
    np.testing.assert_allclose(raw["skin"].sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(raw["vertex_normals"], axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(raw["face_normals"], axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.ptp(raw["vertices"], axis=0).max(), 2.0, atol=1e-6)
    # Joints are rigid: the world's scale is not in them.
    matrices = raw["matrix_local"].astype(float)
    np.testing.assert_allclose(np.linalg.det(matrices[:, :3, :3]), 1.0, atol=1e-6)
    np.testing.assert_allclose(matrices[:, :3, 3], raw["joints"], atol=1e-7)
    # The strip is two units long, so that a unit of the file is one of the world.
    centre = 0.5 * (skeleton.basis.max(axis=0) + skeleton.basis.min(axis=0))
    moved = blended(raw["vertices"].astype(float), raw["skin"], poses["motion"]) + centre
    np.testing.assert_allclose(moved, mesh.vertices, atol=1e-5 + mesh.bound)
    np.testing.assert_allclose(raw["joints"][-1] + centre, [1.4, 0, 0], atol=1e-6)
    if two_roots:
        assert not raw["skin"][:, 0].any()


def test_articulation_xl_has_the_published_keys():
    skeleton, mesh = arm()
    files = dict(articulation_xl([action_of(skeleton, mesh)]))
    (entry,) = arrays(files["validation.npz"])["arr_0"]
    count = len(skeleton.basis)
    weights = np.zeros(entry["skinning_weights_shape"])
    weights[entry["skinning_weights_row"], entry["skinning_weights_col"]] = entry["skinning_weights_value"]
    assert weights.shape == (count, 3)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-5)
    assert entry["bones"].tolist() == [[0, 1], [1, 2]] and entry["root_index"] == 0
    assert entry["joint_names"] == ["hip", "knee", "foot"] and entry["uuid"] == "arm"
    assert entry["pc_w_norm"].shape == (8192, 6)
    np.testing.assert_allclose(np.linalg.norm(entry["pc_w_norm"][:, 3:], axis=1), 1.0, atol=1e-5)
    # The strip is the plane z = 0.3 y: its points too, and the normals stand on it.
    x, y, z = entry["pc_w_norm"][:, :3].T
    assert np.abs(z - 0.3 * y).max() < 1e-6 and np.ptp(x) > 1.9
    table = files["metadata.csv"].decode().splitlines()
    assert table[1].split(",")[:6] == ["arm", "orbit4d", str(count), str(len(mesh.faces)), "3", "2"]
    poses = arrays(files["poses/arm.npz"])
    moved = blended(entry["vertices"].astype(float), weights, poses["motion"])
    centre = 0.5 * (skeleton.basis.max(axis=0) + skeleton.basis.min(axis=0))
    np.testing.assert_allclose(moved + centre, mesh.vertices, atol=1e-5 + mesh.bound)


def test_what_skinning_does_not_give_is_refused():
    skeleton, mesh = arm()
    bent = skeleton.pose.copy()
    bent[3, 2, 2, 3] += 0.01
    with pytest.raises(Refused) as caught:
        rig(action_of(replace(skeleton, pose=bent), mesh))
    assert caught.value.code == "rig:skinning"
    morphing = replace(
        skeleton, morphs=("o/smile",), deltas=np.zeros((1, len(skeleton.basis), 3), np.float32),
        morph_weights=np.full((TIMES, 1), 0.5),
    )  # fmt: skip
    action = action_of(morphing, mesh)
    assert not list(articulation_xl([action])) and "rig:morphs" in action.notes[0]
