"""One concept of a film exchanged: every other concept's files and arrays stay as they are, bit for bit."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from orbit4d.compose.cli.options import encoder_of
from orbit4d.compose.cli.parts import Wanted, joined, look_before, played
from orbit4d.compose.cli.production import assemble
from orbit4d.compose.director.scenes import expert_of, ground_of
from orbit4d.compose.library.casting import cast
from orbit4d.compose.spec import Actor, Setting, Spec
from orbit4d.compose.strict_json import printable
from orbit4d.datasets.core.atomic import write_json
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.recon4d.composition import FILE

#: Files of a film that say how it was made.
_RECORDS = ("spec", "request", "plan")


def swap_film(
    film: Path, out: Path, actor: int | None, object_: str | None, action: str | None, scene: str | None,
    path: str | None, place_anew: bool, cache: Path | None = None,
) -> list[str]:  # fmt: skip
    """Write `out`: the film with one thing exchanged. The lines to be said at the end.

    Raises InputError for a folder that is no composition, an actor that is not there, and nothing to swap;
    WorkError where the film is damaged. Nothing is written before.
    """
    spec, wanted, played_by, frames = _held(film)
    there = ", ".join(f"{a.id} {printable(a.object, 40)}" for a in spec.actors)
    if not any((object_, action, scene, path)):
        raise InputError(
            f"nothing to swap: give --object, --action, --scene or --path; the actors are {there}"[:300]
        )
    if (object_ or action or path or actor is not None) and (
        actor is None or not 0 <= actor < len(spec.actors)
    ):
        said = "missing" if actor is None else f"{actor}: none of that id"
        raise InputError(f"--actor {said}; the actors are {there}"[:300])
    own = scene is not None and (Path(scene).is_dir() or expert_of(scene) is not None)
    if scene and own:
        wanted = replace(wanted, scene=str(Path(scene).resolve()) if Path(scene).is_dir() else scene)
        ground_of(wanted.scene)
    elif scene:
        wanted = replace(wanted, scene=None)
    changed = _changed(spec, actor, object_, action, None if own else scene, path)
    if _finished(out, wanted, changed):
        return [f"{out}: already finished"]
    library = joined(wanted)
    chosen = cast(changed, library, wanted.strict, encoder_of(wanted.encoder))
    for i, picked in enumerate(chosen):
        row = played_by.get(picked.actor)
        if row is not None and picked.actor != actor and picked.entry.uid != row["uid"]:
            # Who is not exchanged is played by whom it was.
            chosen[i] = replace(picked, entry=library.entry(row["uid"], row["action"]))
    look_before(chosen)
    out.mkdir(parents=True, exist_ok=True)
    shutil.copytree(film / "concepts", out / "concepts", dirs_exist_ok=True)
    write_json(out / "request.json", asdict(wanted))
    write_json(out / "spec.json", changed.as_json())
    cache = cache or out / "concepts"
    parts = [played(changed, picked, library, cache, wanted.rig_moment) for picked in chosen]
    tracks = None if scene else film
    # As long as the film before, whatever its prompt says now.
    lines = assemble(
        changed,
        parts,
        replace(wanted, frames=frames),
        out,
        cache,
        tracks,
        actor,
        anew=bool(path) or place_anew,
    )
    if scene:
        lines.append("paths     planned again for the new scene")
    return lines


def _finished(out: Path, wanted: Wanted, spec: Spec) -> bool:
    """Whether `out` holds this very film; InputError where it holds something else. One that was stopped
    goes on."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    record = json.loads(json.dumps(asdict(wanted)))
    for name, value in (("request.json", record), ("spec.json", spec.as_json())):
        try:
            same = json.loads((out / name).read_text(encoding="utf-8")) == value
        except (OSError, ValueError):
            same = False
        if not same:
            raise InputError(f"{out}: holds other files; give an empty or new folder as --out")
    return (out / FILE).is_file() and (out / "film.mp4").is_file()


def _held(film: Path) -> tuple[Spec, Wanted, dict[int, dict[str, Any]], int]:
    """(spec, what was asked for, actor -> its row of plan.json, frames) of a film's folder.

    InputError where it is no composition, WorkError where a file of it is missing or damaged.
    """
    if not (film / FILE).is_file():
        raise InputError(
            f"{film}: no composition (no {FILE}); make one with `orbit4d compose PROMPT --out DIR`"
        )
    try:
        texts = {name: (film / f"{name}.json").read_text(encoding="utf-8") for name in _RECORDS}
        frames = len(json.loads((film / FILE).read_text(encoding="utf-8"))["camera"])
        spec = Spec.from_json(texts["spec"], "spec.json")
        record = json.loads(texts["request"])
        wanted = Wanted(
            **{**record, "libraries": tuple(record["libraries"]), "licences": tuple(record["licences"])}
        )
        rows = {int(row["actor"]): row for row in json.loads(texts["plan"])["found"]}
        for row in rows.values():
            str(row["uid"]) + str(row["action"])
    except (OSError, ValueError, KeyError, TypeError, InputError) as error:
        raise WorkError(
            f"{film}: damaged film ({printable(error, 160)}); make it again with `orbit4d compose`"
        ) from None
    return spec, wanted, rows, frames


def _changed(
    spec: Spec, actor: int | None, object_: str | None, action: str | None, scene: str | None,
    path: str | None,
) -> Spec:  # fmt: skip
    """The spec with one thing exchanged, its words read by the rules as a prompt's are."""
    if scene:
        words = scene.lower().removeprefix("procedural:").split()
        text = " ".join(w for w in words if w not in ("a", "an", "the"))[:200].strip()
        if not any(letter.isalpha() for letter in text):
            raise InputError(f"--scene {printable(scene, 60)!r}: names no scene; give one such as `a beach`")
        spec = replace(spec, scene=Setting(text))
    if actor is None:
        return spec
    old = spec.actors[actor]
    if object_:
        old = replace(old, object=_read("--object", object_, f"{object_} walks").object)
    if action:
        read = _read("--action", action, f"a {old.object} {action}")
        if not read.action_given:
            raise InputError(f"--action {printable(action, 60)}: names no motion; give one such as gallop")
        old = replace(
            old, action=read.action, action_text=read.action_text, action_given=True, then=read.then
        )
    if path:
        read = _read("--path", path, f"a {old.object} walks {path}")
        if read.start is None and read.end is None and read.path.shape == "straight":
            raise InputError(
                f"--path {printable(path, 60)}: says no way; give one such as `from left to right` or "
                "`in a circle`"
            )
        old = replace(old, start=read.start, end=read.end, path=read.path)
    actors = tuple(old if a.id == actor else a for a in spec.actors)
    return replace(spec, actors=actors)


def _read(option: str, said: str, sentence: str) -> Actor:
    """The actor of a sentence that an option is put into. Raises InputError that names the option."""
    from orbit4d.compose import rules_director

    try:
        return rules_director(sentence.strip()).actors[0]
    except InputError as error:
        raise InputError(f"{option} {printable(said, 60)}: {error}"[:300]) from None
