# SPDX-License-Identifier: GPL-3.0-or-later
# Runs inside Blender: imports bpy, which is GPL.
"""Build the demo's assets and export each as one GLB file: ten that move and four that must be turned away.

    python -m orbit4d.render.blender.tasks.demo_assets OUT [--only dino,fish]

Nothing is read from disk and no file differs between two runs. Beside the files stands `captions.csv`
(uid, caption). All assets are CC0.
"""

from __future__ import annotations

import csv
import hashlib
import json
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy

from orbit4d.datasets.core.atomic import write_bytes
from orbit4d.render.blender.demo import creatures as demo_creatures
from orbit4d.render.blender.demo import figures as demo_figures
from orbit4d.render.blender.demo import toys as demo_toys


@dataclass(frozen=True)
class DemoAsset:
    """One asset of the demo and what curation should make of it."""

    name: str
    """File stem, and so the uid."""
    build: Callable[[], None]
    """Fills an empty scene."""
    last_frame: int
    """Length in frames at 24 a second."""
    animations: tuple[str, ...]
    """Names in the file, in order."""
    accepted: tuple[str, ...]
    """Those of them that deserve a clip."""
    caption: str
    """One English sentence."""


ASSETS = (
    DemoAsset("dino", demo_creatures.dino, 32, ("Walk",), ("Walk",), "a baby long-necked dinosaur walking"),
    DemoAsset(
        "slime",
        demo_figures.slime,
        48,
        ("Wobble",),
        ("Wobble",),
        "a green slime with a smile that hops and wobbles",
    ),
    DemoAsset(
        "windmill", demo_toys.windmill, 72, ("Turn",), ("Turn",), "a windmill turning its sails and its cap"
    ),
    DemoAsset(
        "robot", demo_figures.robot, 60, ("Idle", "Jump", "Wave"), ("Jump", "Wave"), "a yellow tin robot"
    ),
    DemoAsset("fish", demo_creatures.fish, 48, ("Swim",), ("Swim",), "a clown fish swimming"),
    DemoAsset("bird", demo_creatures.bird, 36, ("Flap",), ("Flap",), "a small blue bird flapping its wings"),
    DemoAsset("ball", demo_toys.ball, 48, ("Bounce",), ("Bounce",), "a beach ball bouncing on a drum"),
    DemoAsset("jellyfish", demo_figures.jellyfish, 60, ("Pulse",), ("Pulse",), "a pink jellyfish pulsing"),
    DemoAsset("orrery", demo_toys.orrery, 96, ("Orbit",), ("Orbit",), "a brass orrery with turning planets"),
    DemoAsset(
        "flower",
        demo_figures.flower,
        60,
        ("Bloom",),
        ("Bloom",),
        "a pink flower in a pot that opens and closes",
    ),
    DemoAsset("vase", demo_toys.vase, 0, (), (), "a painted vase"),
    DemoAsset("lantern", demo_toys.lantern, 96, ("Sway",), (), "a lantern"),
    DemoAsset("rocket", demo_toys.rocket, 48, ("Launch",), (), "a toy rocket taking off"),
)
#: A copy of this asset, cut off in the middle, stands for files damaged on the way.
TRUNCATED, CUT_FROM = "truncated", "windmill"
#: What `orbit4d demo --small` builds: a rig, morph targets, rigid parts, three actions, and all rejects.
SMALL = ("dino", "slime", "windmill", "robot", "vase", "lantern", "rocket")


def run(payload: Mapping[str, Any], emit: Callable[..., None]) -> dict[str, Any]:
    """Child task: build the assets named in payload["only"] (default all) into the folder payload["out"].

    Emits the event "progress" with done, total and name after each file. Returns {"assets": [...]} with name,
    file, bytes, sha256, animations, accepted and seconds of each.
    """
    out = Path(payload["out"])
    out.mkdir(parents=True, exist_ok=True)
    only = payload.get("only") or [asset.name for asset in ASSETS]
    unknown = sorted(set(only) - {asset.name for asset in ASSETS})
    if unknown:
        raise ValueError(f"no demo asset is called {', '.join(unknown)}")
    wanted = [asset for asset in ASSETS if asset.name in only]
    rows = []
    for asset in wanted:
        start = time.monotonic()
        data = build(asset)
        rows.append(_write(out, asset.name, data, asset.animations, asset.accepted, start))
        emit("progress", done=len(rows), total=len(wanted) + 1, name=asset.name)
    source = next((asset for asset in wanted if asset.name == CUT_FROM), wanted[0])
    whole = (out / f"{source.name}.glb").read_bytes()
    rows.append(_write(out, TRUNCATED, whole[: len(whole) * 3 // 5], (), (), time.monotonic()))
    emit("progress", done=len(rows), total=len(wanted) + 1, name=TRUNCATED)
    with (out / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("uid", "caption"))
        table.writerows((asset.name, asset.caption) for asset in wanted)
    return {"assets": rows}


def _write(
    out: Path, name: str, data: bytes, animations: Sequence[str], accepted: Sequence[str], start: float
) -> dict[str, Any]:
    path = out / f"{name}.glb"
    write_bytes(path, data)
    return {
        "name": name,
        "file": path.name,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "animations": list(animations),
        "accepted": list(accepted),
        "seconds": round(time.monotonic() - start, 3),
    }


def build(asset: DemoAsset) -> bytes:
    """The bytes of one asset's GLB file."""
    from orbit4d.render.blender.demo import kit

    kit.empty_scene(asset.last_frame)
    asset.build()
    bpy.context.scene.frame_set(0)
    rigged = any(thing.type == "ARMATURE" for thing in bpy.data.objects)
    path = Path(bpy.app.tempdir) / f"{asset.name}.glb"
    bpy.ops.export_scene.gltf(
        filepath=str(path),
        export_format="GLB",
        export_yup=True,
        export_animations=bool(asset.animations),
        # Rigs: every action is an animation. Otherwise all moving objects play together as one.
        export_animation_mode="ACTIONS" if rigged else "SCENE",
        export_anim_scene_split_object=False,
        export_force_sampling=True,
        export_optimize_animation_size=True,
        export_morph_normal=False,
        export_image_format="AUTO",
        export_extras=False,
        export_cameras=False,
        export_lights=False,
    )
    data = path.read_bytes()
    path.unlink()
    return _sign(data, asset)


def _sign(data: bytes, asset: DemoAsset) -> bytes:
    """Name the animations; note licence and title where Sketchfab's exports, and so Objaverse, have them."""
    length = struct.unpack_from("<I", data, 12)[0]
    tree = json.loads(data[20 : 20 + length])
    rest = data[20 + length :]
    if len(tree.get("animations", [])) != len(asset.animations):
        found = [a["name"] for a in tree.get("animations", [])]
        raise RuntimeError(f"{asset.name}: exported {found}, expected {list(asset.animations)}")
    for animation, name in zip(tree.get("animations", []), asset.animations):
        if len(asset.animations) > 1 and animation["name"] != name:
            raise RuntimeError(f"{asset.name}: exported action {animation['name']} where {name} belongs")
        animation["name"] = name
    tree["asset"]["copyright"] = "CC0-1.0"
    tree["asset"]["extras"] = {"author": "orbit4d demo", "license": "CC0-1.0", "title": asset.name}
    text = json.dumps(tree, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 20 + len(text) + len(rest))
    return head + struct.pack("<I4s", len(text), b"JSON") + text + rest


def main(argv: Sequence[str] | None = None) -> int:
    """Stand-alone entry: build into a folder and print one JSON line."""
    args = list(sys.argv[1:] if argv is None else argv)
    only = args[args.index("--only") + 1].split(",") if "--only" in args else None

    def emit(event: str, **fields: Any) -> None:
        print(f"{fields['done']}/{fields['total']} {fields['name']}", file=sys.stderr, flush=True)

    print(json.dumps(run({"out": args[0], "only": only}, emit)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
