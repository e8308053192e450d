"""Small animated assets written by hand, and a way to run checks inside Blender's own process."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from orbit4d.datasets.sources.resolve import resolve
from orbit4d.datasets.store.writer import DatasetWriter
from orbit4d.render.dataset.asset_job import asset_job, clips_of_action
from orbit4d.render.fleet.child import BlenderChild
from orbit4d.render.fleet.worker import Worker, WorkerSettings
from orbit4d.render.planning.settings import RenderSettings, preset

OCTAHEDRON = np.array([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)], dtype=np.float32)
OCTAHEDRON_FACES = np.array(
    [(0, 2, 4), (2, 1, 4), (1, 3, 4), (3, 0, 4), (2, 0, 5), (1, 2, 5), (3, 1, 5), (0, 3, 5)], dtype=np.uint16
)


@dataclass
class Part:
    """An octahedron in Blender's axes (Z up): where it stands, how big it is, where its keys take it."""

    place: tuple[float, float, float] = (0.0, 0.0, 0.0)
    size: float = 0.3
    colour: tuple[float, float, float] = (0.8, 0.2, 0.1)
    moves: dict[str, list[tuple[float, tuple[float, float, float]]]] = field(default_factory=dict)
    """animation -> [(seconds, place)]"""
    unlit: bool = False
    texture: str | None = None


def write_gltf(path: Path, parts: Sequence[Part], animations: Sequence[str] = ()) -> Path:
    """A .glb (or a .gltf with its .bin beside it) of octahedra that move along straight lines."""
    blob, views, accessors = bytearray(), [], []

    def store(array: np.ndarray, kind: str, component: int) -> int:
        while len(blob) % 4:
            blob.append(0)
        views.append({"buffer": 0, "byteOffset": len(blob), "byteLength": array.nbytes})
        blob.extend(array.tobytes())
        entry = {"bufferView": len(views) - 1, "componentType": component, "count": len(array), "type": kind}
        if kind in ("VEC3", "SCALAR") and component == 5126:
            flat = array.reshape(len(array), -1)
            entry |= {"min": flat.min(axis=0).tolist(), "max": flat.max(axis=0).tolist()}
        accessors.append(entry)
        return len(accessors) - 1

    def y_up(points: Any) -> np.ndarray:
        points = np.asarray(points, np.float32)
        return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1).astype(np.float32)

    document: dict[str, Any] = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(parts)))}],
        "nodes": [],
        "meshes": [],
        "materials": [],
    }
    samplers: dict[str, list[dict[str, Any]]] = {name: [] for name in animations}
    channels: dict[str, list[dict[str, Any]]] = {name: [] for name in animations}
    for i, part in enumerate(parts):
        positions = store(y_up(OCTAHEDRON * part.size), "VEC3", 5126)
        faces = store(OCTAHEDRON_FACES.reshape(-1), "SCALAR", 5123)
        material: dict[str, Any] = {"pbrMetallicRoughness": {"baseColorFactor": [*part.colour, 1.0]}}
        attributes = {"POSITION": positions}
        if part.texture is not None:
            document.setdefault("images", []).append({"uri": part.texture})
            document.setdefault("textures", []).append({"source": len(document["images"]) - 1})
            material["pbrMetallicRoughness"]["baseColorTexture"] = {"index": len(document["textures"]) - 1}
            attributes["TEXCOORD_0"] = store(np.zeros((6, 2), np.float32), "VEC2", 5126)
        if part.unlit:
            material["extensions"] = {"KHR_materials_unlit": {}}
            document["extensionsUsed"] = ["KHR_materials_unlit"]
        document["materials"].append(material)
        document["meshes"].append(
            {"primitives": [{"attributes": attributes, "indices": faces, "material": i}]}
        )
        document["nodes"].append({"mesh": i, "name": f"part{i}", "translation": y_up(part.place).tolist()})
        for name, keys in part.moves.items():
            times = store(np.array([t for t, _ in keys], np.float32), "SCALAR", 5126)
            places = store(y_up([p for _, p in keys]), "VEC3", 5126)
            channels[name].append(
                {"sampler": len(samplers[name]), "target": {"node": i, "path": "translation"}}
            )
            samplers[name].append({"input": times, "output": places, "interpolation": "LINEAR"})
    document["animations"] = [
        {"name": name, "samplers": samplers[name], "channels": channels[name]}
        for name in animations
        if channels[name]
    ]
    if not document["animations"]:
        del document["animations"]
    document |= {"bufferViews": views, "accessors": accessors, "buffers": [{"byteLength": len(blob)}]}
    if path.suffix == ".gltf":
        document["buffers"][0]["uri"] = path.stem + ".bin"
        (path.parent / (path.stem + ".bin")).write_bytes(blob)
        path.write_text(json.dumps(document))
        return path
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    blob += b"\0" * (-len(blob) % 4)
    size = 12 + 8 + len(text) + 8 + len(blob)
    path.write_bytes(
        struct.pack("<4sII", b"glTF", 2, size)
        + struct.pack("<II", len(text), 0x4E4F534A)
        + text
        + struct.pack("<II", len(blob), 0x004E4942)
        + blob
    )
    return path


def write_toy(path: Path, seed: int = 0) -> Path:
    """Two octahedra: one stands, one moves in `Go` and in `Jump`; `Rest` has keys and does not move."""
    rng = np.random.default_rng(seed)
    colours = rng.uniform(0.2, 0.9, (2, 3))
    there = tuple(float(x) for x in rng.uniform(0.3, 0.6, 3))
    here = (0.0, 0.0, 0.5)
    standing = Part((0.0, 0.0, 0.0), 0.4, tuple(colours[0]))
    moving = Part(
        here,
        0.25,
        tuple(colours[1]),
        {
            "Rest": [(0.0, here), (0.5, here)],
            "Go": [(0.0, here), (0.25, here), (1.0, there), (1.5, there)],
            "Jump": [(0.0, here), (0.5, (0.0, 0.0, 0.9)), (1.0, here)],
        },
    )
    return write_gltf(path, [standing, moving], ("Rest", "Go", "Jump"))


@pytest.fixture(scope="session")
def gltf() -> Callable[..., Path]:
    """`gltf(path, parts, animations)`: see write_gltf."""
    return write_gltf


@pytest.fixture(scope="session")
def part() -> type[Part]:
    return Part


@pytest.fixture(scope="session")
def toy() -> Callable[..., Path]:
    """`toy(path, seed=0)`: an asset with the actions Rest (still), Go and Jump."""
    return write_toy


@pytest.fixture(scope="session")
def in_blender() -> Callable[..., Any]:
    """`in_blender(code, **names)`: run code where bpy may be imported; what it assigns to `answer` comes
    back.
    """

    def run(code: str, **names: Any) -> Any:
        head = "import json, sys\nnames = json.loads(sys.argv[1])\nglobals().update(names)\nanswer = None\n"
        tail = (
            "\nopen(answer_file, 'w').write(json.dumps(answer))\nimport os\nsys.stdout.flush()\nos._exit(0)\n"
        )
        import tempfile

        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            names["answer_file"] = file.name
            done = subprocess.run(
                [sys.executable, "-P", "-c", head + textwrap.dedent(code) + tail, json.dumps(names)],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
            return json.loads(Path(file.name).read_text())

    return run


READ_ACTIONS = """
from orbit4d.render.blender.importers.load import load_asset, LoadError
import bpy

def seen():
    graph, found = bpy.context.evaluated_depsgraph_get(), {}
    for obj in bpy.data.objects:
        if obj.type == "MESH":
            place, turn, scale = obj.evaluated_get(graph).matrix_world.decompose()
            found[obj.name] = {"hidden": obj.hide_render, "place": list(place), "scale": list(scale),
                               "turn": list(turn)}
    return found

def read(path):
    try:
        loaded = load_asset(path)
    except LoadError as error:
        return {"code": error.code, "detail": str(error)}
    actions = []
    for action in loaded.actions:
        loaded.activate(action.index)
        moments = []
        for t in seconds:
            loaded.set_seconds(t)
            moments.append(seen())
        actions.append({"name": action.name, "range": [action.seconds_start, action.seconds_end],
                        "moments": moments})
    loaded.activate(None)
    loaded.set_seconds(0.0)
    return {"actions": actions, "flags": loaded.flags, "still": seen(),
            "meshes": [obj.name for obj in loaded.meshes]}

answer = [read(path) for path in paths]
"""


@pytest.fixture(scope="session")
def read_actions(in_blender: Callable[..., Any]) -> Callable[..., list[dict[str, Any]]]:
    """`read_actions(paths, seconds)`: what load_asset makes of each file.

    Its actions (name, range, and all meshes at each of `seconds`), flags, drawn meshes and still pose; or the
    code and detail of its refusal.
    """

    def run(paths: Sequence[Path], seconds: Sequence[float] = ()) -> list[dict[str, Any]]:
        return in_blender(READ_ACTIONS, paths=[str(path) for path in paths], seconds=list(seconds))

    return run


def blender_children(token: str) -> list[psutil.Process]:
    """Blender children whose environment holds ORBIT4D_TEST=token."""
    found = []
    for process in psutil.process_iter():
        try:
            if (
                "orbit4d.render.blender.main" in process.cmdline()
                and process.environ().get("ORBIT4D_TEST") == token
            ):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


@pytest.fixture(scope="session")
def children_of() -> Callable[[str], list[psutil.Process]]:
    """`children_of(token)`: see blender_children."""
    return blender_children


@pytest.fixture(scope="session")
def calm_digest() -> Callable[..., str]:
    """`calm_digest(source, out, settings)`: the digest of a dataset rendered by one worker without Ray."""

    def run(source: Path, out: Path, settings: RenderSettings) -> str:
        writer = DatasetWriter(str(out), settings.as_config())
        worker = Worker(WorkerSettings())
        try:
            for asset in resolve([str(source)]).assets:
                reply = worker.run(asset_job(asset, str(out), settings.as_config()))
                assert reply.result is not None, reply
        finally:
            worker.close()
        writer.roll(final=True)
        return writer.digest()

    return run


@pytest.fixture
def no_orphans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Marks every Blender child that the test starts, and demands at its end that none is left."""
    token = str(tmp_path)
    monkeypatch.setenv("ORBIT4D_TEST", token)
    yield lambda: blender_children(token)
    deadline = time.monotonic() + 60.0
    while blender_children(token) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not blender_children(token), "a Blender child outlived what started it"


# How an asset looks ------------------------------------------------------------


@pytest.fixture(scope="module")
def child() -> Iterator[BlenderChild]:
    """One Blender for the tests of a module."""
    with BlenderChild() as started:
        yield started


@pytest.fixture
def look(child: BlenderChild, tmp_path: Path) -> Callable[..., tuple[dict[str, np.ndarray], list[str]]]:
    """`look(path, preset="default", **changes)`: (rig -> straight RGBA uint8 [4, 64, 64, 4], flags)."""

    def run(path: Path, name: str = "default", **changes: Any) -> tuple[dict[str, np.ndarray], list[str]]:
        settings = preset(name, **{"frames": 4, "resolution": 64, "samples": 8, **changes})
        payload = {
            "uid": path.stem, "path": str(path), "sha256": "", "scratch": str(tmp_path), "actions": None,
            "settings": settings.as_config(), "provenance": {},
        }  # fmt: skip
        result = child.call("render_clips", payload, 120)
        clips = [c for a in result["actions"] for c in clips_of_action(payload, settings, a, result)]
        return {clip.rig: clip.pixels() for clip in reversed(clips)}, result["flags"]

    return run


@pytest.fixture(scope="session")
def share() -> Callable[..., float]:
    """`share(frame, channel, margin=40)`: part of the covered pixels with `channel` that far above others."""

    def part(frame: np.ndarray, channel: int, margin: int = 40) -> float:
        rgb = frame[frame[..., 3] > 64][:, :3].astype(int)
        others = [i for i in range(3) if i != channel]
        return float((rgb[:, [channel]] > rgb[:, others] + margin).all(1).mean()) if len(rgb) else 0.0

    return part
