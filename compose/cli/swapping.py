"""One concept of a film exchanged: every other concept's files and arrays stay as they are, bit for bit."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

from orbit4d.compose.cli.options import encoder_of
from orbit4d.compose.cli.parts import Wanted, joined, played
from orbit4d.compose.cli.production import assemble, refuse_other
from orbit4d.compose.library.casting import cast
from orbit4d.compose.spec import Setting, Spec
from orbit4d.datasets.core.atomic import write_json
from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.composition import FILE


def swap_film(
    film: Path, out: Path, actor: int | None, object_: str | None, action: str | None, scene: str | None,
    path: str | None, place_anew: bool, cache: Path | None = None,
) -> list[str]:  # fmt: skip
    """Write `out`: the film with one thing exchanged. The lines to be said at the end.

    Raises InputError for a folder that is no composition, an actor that is not there, and nothing to swap.
    """
    if not (film / FILE).is_file():
        raise InputError(
            f"{film}: no composition (no {FILE}); make one with `orbit4d compose PROMPT --out DIR`"
        )
    spec = Spec.from_json(
        json.loads((film / "spec.json").read_text(encoding="utf-8")), str(film / "spec.json")
    )
    there = ", ".join(f"{a.id} {a.object}" for a in spec.actors)
    if not any((object_, action, scene, path)):
        raise InputError(
            f"nothing to swap: give --object, --action, --scene or --path; the actors are {there}"[:300]
        )
    if (object_ or action or path) and (actor is None or not 0 <= actor < len(spec.actors)):
        raise InputError(f"--actor {actor}: none of that id; the actors are {there}"[:300])
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: holds other files; give an empty or new folder as --out")
    record = json.loads((film / "request.json").read_text(encoding="utf-8"))
    wanted = Wanted(
        **{**record, "libraries": tuple(record["libraries"]), "licences": tuple(record["licences"])}
    )
    own = scene is not None and Path(scene).is_dir()
    if scene:
        wanted = replace(wanted, scene=str(Path(scene).resolve()) if own else None)
    changed = _changed(spec, actor, object_, action, None if own else scene, path)
    refuse_other(out, wanted)
    library = joined(wanted)
    chosen = cast(changed, library, wanted.strict, encoder_of(wanted.encoder))
    kept = {
        row["actor"]: row for row in json.loads((film / "plan.json").read_text(encoding="utf-8"))["found"]
    }
    for i, picked in enumerate(chosen):
        if picked.actor != actor and picked.actor in kept:
            # Who is not exchanged is played by whom it was.
            row = kept[picked.actor]
            if picked.entry.uid != row["uid"]:
                chosen[i] = replace(picked, entry=library.entry(row["uid"], row["action"]))
    out.mkdir(parents=True, exist_ok=True)
    shutil.copytree(film / "concepts", out / "concepts", dirs_exist_ok=True)
    write_json(out / "request.json", asdict(wanted))
    write_json(out / "spec.json", changed.as_json())
    cache = cache or out / "concepts"
    parts = [played(changed, picked, library, cache, wanted.rig_moment) for picked in chosen]
    tracks = None if scene or path or place_anew else film
    lines = assemble(changed, parts, wanted, out, cache, tracks, actor)
    if scene:
        lines.append("paths     planned anew for the new scene")
    return lines


def _changed(
    spec: Spec, actor: int | None, object_: str | None, action: str | None, scene: str | None,
    path: str | None,
) -> Spec:  # fmt: skip
    """The spec with one thing exchanged, its words read by the rules as a prompt's are."""
    from orbit4d.compose import rules_director

    if scene:
        words = scene.lower().removeprefix("procedural:").split()
        spec = replace(spec, scene=Setting(" ".join(w for w in words if w not in ("a", "an", "the"))))
    if actor is None:
        return spec
    old = spec.actors[actor]
    if object_ or action or path:
        read = rules_director(
            f"{object_ or 'a ' + old.object} {action or 'walks'} {path or ''}".strip()
        ).actors[0]
        if object_:
            old = replace(old, object=read.object)
        if action:
            old = replace(old, action=read.action, action_text=read.action_text, action_given=True)
        if path:
            old = replace(old, start=read.start, end=read.end, path=read.path)
    actors = tuple(old if a.id == actor else a for a in spec.actors)
    return replace(spec, actors=actors)
