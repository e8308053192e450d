"""The built-in assets: built by Blender on demand, for `orbit4d demo` and as the source `demo:`."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from orbit4d.datasets.core.atomic import write_json
from orbit4d.datasets.core.errors import InputError, WorkError

#: Enough of them for a quick run: a rig, morph targets, rigid parts, three actions, and all that is rejected.
SMALL = ("dino", "slime", "windmill", "robot", "vase", "lantern", "rocket")
MANIFEST = "assets.json"
#: Seconds after which the child that builds them is given up; it needs about 10.
TIMEOUT = 240.0


def recipe_sha256() -> str:
    """Hash of the code that builds the assets: equal hashes mean equal files (for one Blender build)."""
    blender = files("orbit4d.render.blender")
    recipes = [f for f in blender.joinpath("demo").iterdir() if f.name.endswith(".py")]
    if len(recipes) < 2:
        raise WorkError("the recipes of the built-in assets are not installed; install orbit4d again")
    recipes = [*sorted(recipes, key=lambda f: f.name), blender.joinpath("tasks", "demo_assets.py")]
    digest = hashlib.sha256()
    for recipe in recipes:
        digest.update(recipe.read_bytes())
    return digest.hexdigest()


def build_assets(
    out: Path, only: Sequence[str] | None = None, on_file: Callable[[int, int, str], None] | None = None
) -> list[dict[str, Any]]:
    """Build the assets named in `only` (default all) into `out` as GLB files, unless they are there already.

    Returns name, file, bytes, sha256, animations and accepted of each. `on_file` hears (done, total, name).
    `out`/assets.json is written last and says what the files must hash to, so a torn build is built again.
    """
    want = {"recipe": recipe_sha256(), "only": sorted(only) if only else None}
    try:
        known = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    if known.get("want") == want and all(
        _intact(out / row["file"], row["sha256"]) for row in known["assets"]
    ):
        return known["assets"]
    from orbit4d.render.fleet.child import BlenderChild, ChildError

    def heard(event: dict[str, Any]) -> None:
        if on_file and event.get("event") == "progress":
            on_file(event["done"], event["total"], event["name"])

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); choose another --out") from None
    try:
        with BlenderChild() as child:
            payload = {"out": str(out.resolve()), "only": list(only) if only else None}
            rows = child.call("demo_assets", payload, TIMEOUT, heard)["assets"]
    except ChildError as error:
        raise WorkError(
            f"Blender could not build the assets: {error.detail} (see `orbit4d doctor`)"
        ) from error
    write_json(out / MANIFEST, {"want": want, "assets": rows})
    return rows


def _intact(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def register() -> None:
    """Teach `curate` and `render` the source `demo:` (or `demo:small`), kept in the user's cache folder."""
    from orbit4d.datasets.sources.asset import Candidate, Expanded
    from orbit4d.datasets.sources.expand import register_scheme

    def expand(source: str) -> Expanded:
        kind = source.partition(":")[2]
        if kind not in ("", "small"):
            raise InputError(f"{source}: write demo: or demo:small")
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        out = cache / "orbit4d" / f"demo-{kind or 'all'}-{recipe_sha256()[:12]}"
        print(f"building the demo assets in {out}", file=sys.stderr)
        rows = build_assets(out, SMALL if kind else None)
        with (out / "captions.csv").open(newline="", encoding="utf-8") as file:
            captions = {row["uid"]: row["caption"] for row in csv.DictReader(file)}
        return Expanded(
            [
                Candidate(row["name"], str(out / row["file"]), caption=captions.get(row["name"], ""))
                for row in rows
            ]
        )

    register_scheme("demo", expand)
