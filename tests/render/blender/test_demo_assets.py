"""The built-in assets, read as files: no Blender looks at them here, it only builds them once."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orbit4d.app.demo.source import MANIFEST, build_assets
from orbit4d.datasets.assets.inspect import inspect
from orbit4d.datasets.assets.inspection import BadFile

TYPES = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "assets"
    build_assets(out)
    return out


@pytest.fixture(scope="module")
def manifest(assets: Path) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads((assets / MANIFEST).read_text())["assets"]}


class Glb:
    """A GLB file, its JSON and its binary chunk."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        magic, version, length = struct.unpack_from("<4sII", data)
        assert (magic, version, length) == (b"glTF", 2, len(data))
        size, kind = struct.unpack_from("<I4s", data, 12)
        assert kind == b"JSON"
        self.tree = json.loads(data[20 : 20 + size])
        start = 20 + size
        size, kind = struct.unpack_from("<I4s", data, start)
        assert kind == b"BIN\0"
        self.binary = data[start + 8 : start + 8 + size]

    def accessor(self, number: int) -> np.ndarray:
        """Float accessor, [count, components]."""
        a = self.tree["accessors"][number]
        assert a["componentType"] == 5126
        view = self.tree["bufferViews"][a["bufferView"]]
        n = TYPES[a["type"]]
        start = view.get("byteOffset", 0) + a.get("byteOffset", 0)
        return np.frombuffer(self.binary, "<f4", a["count"] * n, start).reshape(a["count"], n)

    def animations(self) -> list[str]:
        return [a["name"] for a in self.tree.get("animations", [])]

    def moving(self, animation: int, path: str, least: float = 1e-4) -> dict[str, np.ndarray]:
        """Node name -> values of the channels of that path that change."""
        entry = self.tree["animations"][animation]
        out = {}
        for channel in entry["channels"]:
            if channel["target"]["path"] == path:
                values = self.accessor(entry["samplers"][channel["sampler"]]["output"])
                if np.ptp(values, axis=0).max() > least:
                    out[self.tree["nodes"][channel["target"]["node"]]["name"]] = values
        return out


def test_there_are_enough_of_every_kind(assets: Path, manifest: dict[str, dict[str, Any]]) -> None:
    accepted = [name for name, row in manifest.items() if row["accepted"]]
    assert len(accepted) >= 8
    assert {"vase", "lantern", "rocket", "truncated"} == set(manifest) - set(accepted)
    assert sum(path.stat().st_size for path in assets.glob("*.glb")) < 3 * 2**20


def test_every_file_holds_the_actions_it_promises(assets: Path, manifest: dict[str, dict[str, Any]]) -> None:
    for name, row in manifest.items():
        if name == "truncated":
            continue
        glb = Glb(assets / row["file"])
        assert glb.animations() == row["animations"], name
        assert glb.tree["asset"]["extras"]["license"] == "CC0-1.0"
        found = inspect(str(assets / row["file"]))
        assert found.n_animations == len(row["animations"])
        assert found.license == "CC0-1.0"


def test_no_helper_travels_along(assets: Path, manifest: dict[str, dict[str, Any]]) -> None:
    for name, row in manifest.items():
        if name == "truncated":
            continue
        tree = Glb(assets / row["file"]).tree
        assert "cameras" not in tree
        assert "KHR_lights_punctual" not in tree.get("extensionsUsed", [])
        joints = {joint for skin in tree.get("skins", []) for joint in skin["joints"]}
        holders = {"bounce"} | {f"{name}_rig"}
        for number, node in enumerate(tree["nodes"]):
            assert "mesh" in node or number in joints or node["name"] in holders, (name, node["name"])


def test_kinds_of_animation(assets: Path) -> None:
    dino = Glb(assets / "dino.glb")
    assert dino.tree["skins"] and len(dino.tree["skins"][0]["joints"]) >= 12
    image = dino.tree["images"][0]
    assert "bufferView" in image and "uri" not in image, "the skin's texture is packed in the file"
    legs = [bone for bone in dino.moving(0, "rotation") if bone.startswith(("front", "back"))]
    assert len(legs) == 8

    slime = Glb(assets / "slime.glb")
    assert len(slime.tree["meshes"][0]["primitives"][0]["targets"]) == 4
    assert slime.moving(0, "weights")

    windmill = Glb(assets / "windmill.glb")
    assert "skins" not in windmill.tree
    assert set(windmill.moving(0, "rotation")) == {"sails", "cap"}
    assert sum("mesh" in node for node in windmill.tree["nodes"]) == 3


def test_the_first_of_three_actions_holds_still(assets: Path) -> None:
    robot = Glb(assets / "robot.glb")
    assert robot.animations() == ["Idle", "Jump", "Wave"]
    for path in ("rotation", "translation", "scale"):
        assert not robot.moving(0, path)
    assert "torso" in robot.moving(1, "rotation") and "armL" in robot.moving(2, "rotation")


def test_what_must_be_rejected_deserves_it(assets: Path, manifest: dict[str, dict[str, Any]]) -> None:
    assert Glb(assets / "vase.glb").animations() == []

    sway = Glb(assets / "lantern.glb").moving(0, "rotation")["lantern"]
    angles = np.degrees(2 * np.arccos(np.clip(np.abs(sway[:, 3]), 0, 1)))
    assert 0.3 < angles.max() < 0.5

    rocket = Glb(assets / "rocket.glb")
    sizes = [a for a in rocket.tree["accessors"] if "max" in a and a["type"] == "VEC3"]
    length = max(np.ptp([a["min"], a["max"]], axis=0).max() for a in sizes)
    assert np.ptp(rocket.moving(0, "translation")["rocket"], axis=0).max() > 3 * length

    torn = assets / "truncated.glb"
    assert struct.unpack_from("<I", torn.read_bytes(), 8)[0] > torn.stat().st_size
    with pytest.raises(BadFile) as refusal:
        inspect(str(torn))
    assert refusal.value.code == "bad_file:truncated"


def test_a_build_repeats_to_the_byte_and_only_when_needed(
    assets: Path, manifest: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    only = ["ball", "lantern", "vase"]
    again = {row["name"]: row for row in build_assets(tmp_path, only)}
    for name in only:
        assert again[name]["sha256"] == manifest[name]["sha256"]

    before = (tmp_path / "ball.glb").stat().st_mtime_ns
    build_assets(tmp_path, only)
    assert (tmp_path / "ball.glb").stat().st_mtime_ns == before

    whole = (tmp_path / "vase.glb").read_bytes()
    (tmp_path / "vase.glb").write_bytes(whole[:-1] + b"x")
    build_assets(tmp_path, only)
    assert (tmp_path / "vase.glb").read_bytes() == whole
