"""Skeletons of glTF files, their gaits, and motions that move from one to another."""

from __future__ import annotations

import csv
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial import cKDTree

from orbit4d.compose.characters.blender_rig import read_with_blender
from orbit4d.compose.characters.gaits import gait, gait_of, half_sample_mode
from orbit4d.compose.characters.gltf_rig import NeedsBlender, placing_of, read_gltf, usable
from orbit4d.compose.characters.motion_swap import clean_name, swapped
from orbit4d.compose.characters.reading import read_character
from orbit4d.datasets import InputError


def test_joint_maps_of_the_fixture(shared: Path) -> None:
    with np.load(shared / "fixtures" / "c3v" / "skin.npz") as stored:
        found = read_gltf(str(shared / "pool" / "animals_pack_wolf.glb"), np.eye(4))
        for t, seconds in enumerate(stored["seconds"]):
            wanted = stored["joint_world"][t] @ stored["inverse_bind"]
            ours = found.rig.maps(str(stored["action"]), float(seconds), slerp=True)
            # Keys of the file are float32; the maps hold entries of 100.
            assert np.abs(ours - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.blender
def test_against_blender_off_the_keys(shared: Path) -> None:
    path = str(shared / "assets" / "dev_trex.glb")
    scale, centre = 0.3, (0.1, -0.2, 0.5)
    ours, theirs = read_gltf(path, placing_of(scale, centre)), read_with_blender(path, scale, centre)
    assert [m.name for m in ours.rig.motions] == [m.name for m in theirs.rig.motions]
    assert len(ours.surface.vertices) == len(theirs.surface.vertices)
    motion = theirs.rig.motions[4]
    keys = motion.channels[1].times
    # Blender was asked at half frames: between those that are keys it blends as this reading does.
    for seconds in keys[1:-1][:: max(1, len(keys) // 8)]:
        x, y = (c.surface.posed(c.rig.maps(4, float(seconds))) for c in (ours, theirs))
        size = np.linalg.norm(np.ptp(x, axis=0))
        assert cKDTree(y).query(x)[0].max() <= 1e-5 * size
        assert cKDTree(x).query(y)[0].max() <= 1e-5 * size


@pytest.mark.blender
def test_packed_meshes_come_by_blender(shared: Path) -> None:
    path = str(shared / "assets" / "dev_skfox.glb")
    with pytest.raises(NeedsBlender):
        read_gltf(path)
    found = read_character(path)
    assert len(found.rig.motions) == 4 and np.allclose(found.surface.weights.sum(1), 1)


def test_weights_that_are_none(shared: Path) -> None:
    found = read_gltf(str(shared / "pool" / "easy_enemies_pack_wasp.glb"))
    assert 3 <= found.surface.repaired <= 12 and "repaired_weights" in found.notes[0]
    assert np.isfinite(found.surface.posed(found.rig.maps(0, 0.1))).all()
    places = np.array([[0.0, 0, 0], [1, 0, 0], [5, 0, 0]])
    index = np.array([[0, 1], [2, 3], [4, 5]])
    index, weights, count = usable("x", places, index, np.array([[np.nan, 1], [3.0, 1], [0, 0]]))
    assert count == 2 and weights.tolist() == [[0.75, 0.25]] * 3 and index.tolist() == [[2, 3]] * 3
    with pytest.raises(InputError, match="no vertex with a usable weight"):
        usable("x", places, index, np.zeros((3, 2)))


@pytest.mark.parametrize(
    ("name", "says"), [("dev_flighthelmet", "still"), ("dev_morphstress", "morph targets")]
)
def test_no_skeleton_is_refused(shared: Path, name: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as refused:
        read_gltf(str(shared / "assets" / f"{name}.glb"))
    assert len(str(refused.value)) <= 300


def glb(document: dict[str, Any], binary: bytes) -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 28 + len(text) + len(binary))
    return (
        head
        + struct.pack("<I4s", len(text), b"JSON")
        + text
        + struct.pack("<I4s", len(binary), b"BIN\0")
        + binary
    )


def bar(tmp_path: Path, weights: Any = None, joints: Any = None, **node: Any) -> str:
    """A triangle on one joint that is shifted by 2 along z; its mesh node has a transform, to be ignored."""
    places = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4")
    weights = np.full((3, 4), 51, "u1") if weights is None else weights
    joints = np.zeros((3, 4), "u1") if joints is None else joints
    parts = [places.tobytes(), joints.tobytes(), weights.tobytes()]
    views, offset = [], 0
    for part in parts:
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": len(part)})
        offset += len(part)
    document = {
        "asset": {"version": "2.0"},
        "buffers": [{"byteLength": offset}],
        "bufferViews": views,
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"},
            {"bufferView": 1, "componentType": 5121, "count": 3, "type": "VEC4"},
            {"bufferView": 2, "componentType": 5121, "count": 3, "type": "VEC4", "normalized": True},
        ],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "JOINTS_0": 1, "WEIGHTS_0": 2}}]}],
        "skins": [{"joints": [1]}],
        "nodes": [{"mesh": 0, "skin": 0, "translation": [9, 9, 9]}, {"translation": [0, 0, 2], **node}],
        "scenes": [{"nodes": [0, 1]}],
        "scene": 0,
    }
    path = tmp_path / "bar.glb"
    path.write_bytes(glb(document, b"".join(parts)))
    return str(path)


def test_the_mesh_node_is_ignored_and_weights_are_made_whole(tmp_path: Path) -> None:
    found = read_gltf(bar(tmp_path), np.eye(4))
    assert np.allclose(found.surface.weights.sum(1), 1)
    assert np.allclose(found.surface.posed(found.rig.maps(None, 0.0))[:, 2], 2.0)
    turned = read_gltf(bar(tmp_path, matrix=[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 3, 0, 0, 1]), np.eye(4))
    assert np.allclose(turned.surface.posed(turned.rig.maps(None, 0.0))[0], [3, 0, 0])


def test_a_joint_out_of_range_and_a_cut_file_are_refused(tmp_path: Path) -> None:
    joints = np.zeros((3, 4), "u1")
    joints[1, 2] = 7
    with pytest.raises(InputError, match="follows joint 7 of 1"):
        read_gltf(bar(tmp_path, joints=joints))
    path = Path(bar(tmp_path))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="bad_file:truncated"):
        read_gltf(str(path))


def test_gaits_of_the_fixture(shared: Path) -> None:
    rows = list(csv.DictReader((shared / "fixtures" / "c3v" / "gait.csv").open()))
    rows = [row for row in rows if row["uid"].startswith(("animals", "dinosaurs", "platformer", "dev_"))]
    read: dict[str, Any] = {}
    near, flags, usable_clips = [], [], 0
    for row in rows[::2]:
        place = "assets" if row["uid"].startswith("dev_") else "pool"
        if row["uid"] not in read:
            read[row["uid"]] = read_gltf(str(shared / place / f"{row['uid']}.glb"))
        found = gait_of(read[row["uid"]], row["action"])
        flags.append(found["usable"] == (row["usable"] == "1"))
        if row["usable"] == "1":
            usable_clips += 1
            near.append(abs(found["speed"] / float(row["speed_heights_per_s"]) - 1))
            assert found["forward"][1] < -0.95
    assert usable_clips > 10 and np.mean(flags) >= 0.95
    assert np.mean(np.array(near) < 0.05) >= 0.85 and np.mean(np.array(near) < 0.15) >= 0.95


def test_a_gait_of_known_speed() -> None:
    """Two feet, each back along +y at 2 units a second while low, forward in the air; a head 4 above."""
    t = np.linspace(0, 1, 97)
    phase = (t[:, None] + np.array([0.0, 0.5])) % 1.0
    stance = phase < 0.6
    y = np.where(stance, 2 * phase, 1.2 - (phase - 0.6) * 3.0)
    z = np.where(stance, 0.0, 0.5 * np.sin((phase - 0.6) / 0.4 * np.pi))
    feet = np.stack([np.zeros_like(y), y, z], axis=-1)
    head = np.tile([[[0.0, 0.0, 4.0]]], (97, 1, 1))
    found = gait(t, np.concatenate([feet, head], axis=1))
    assert found["usable"] and np.isclose(found["speed"], 0.5, rtol=0.02)
    assert np.allclose(found["forward"], [0, -1, 0], atol=1e-6) and found["height"] == 4.0
    assert gait(t, head)["usable"] is False
    assert half_sample_mode(np.array([0.0, 5.0, 5.1, 5.2, 11.0])) == pytest.approx(5.1, abs=0.11)


#: Section 5.5's column of rotations and translations.
TABLE = [
    ("animals_pack_wolf", "animals_pack_fox", "AnimalArmature|Gallop", 0.40),
    ("animals_pack_bull", "animals_pack_cow", "AnimalArmature|Gallop", 0.00),
    ("mech_pack_mike", "mech_pack_stan", "Walk", 3.68),
    ("animals_pack_horse", "animals_pack_cow", "AnimalArmature|Walk", 2.10),
]


@pytest.mark.parametrize(("source", "target", "clip", "wanted"), TABLE)
def test_motion_swap(shared: Path, source: str, target: str, clip: str, wanted: float) -> None:
    a, b = (read_gltf(str(shared / "pool" / f"{name}.glb")) for name in (source, target))
    own = next(m for m in b.rig.motions if m.name.endswith(clip))
    theirs = next(m for m in a.rig.motions if m.name.endswith(clip))
    motion, match = swapped(a.rig, theirs, b.rig)
    errors = []
    for u in np.linspace(0, 1, 9):
        x = b.surface.posed(b.rig.maps(own, own.start + u * own.seconds))
        y = b.surface.posed(b.rig.maps(motion, motion.start + u * motion.seconds))
        errors.append(100 * np.sqrt(((x - y) ** 2).sum(1).mean()) / np.linalg.norm(np.ptp(x, axis=0)))
    assert abs(np.mean(errors) - wanted) <= 0.3 and match.coverage > 0.9


def test_skeletons_that_do_not_match_are_refused(shared: Path) -> None:
    knight = read_gltf(str(shared / "pool" / "single_knight_pack_knightcharacter.glb")).rig
    man = read_gltf(str(shared / "assets" / "dev_cesiumman.glb")).rig
    with pytest.raises(InputError, match="0% of its joints have a partner"):
        swapped(knight, knight.motions[0], man)


def test_names_of_joints_are_cleaned() -> None:
    assert clean_name("mixamorig:LeftArm") == clean_name("Arm.L") == clean_name("arm_l")
    assert clean_name("Bone.001") == "bone" and clean_name("RightFoot") == clean_name("foot.R.002")
    assert clean_name("Leg.L") != clean_name("Leg.R")
