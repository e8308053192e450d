"""What a run was asked for, and what plays in it: concepts from the cache or fitted, with their motions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from orbit4d.compose.characters.concepts import (
    RIG_MOMENTS,
    Clip,
    Concept,
    clip_of,
    fit_concept,
    rest_action,
    with_motion,
)
from orbit4d.compose.characters.gltf_rig import Character, NeedsBlender, read_gltf
from orbit4d.compose.characters.motion_swap import PLAIN
from orbit4d.compose.characters.reading import read_character
from orbit4d.compose.cli.options import open_libraries
from orbit4d.compose.library.casting import Cast as Picked
from orbit4d.compose.library.catalogue import Entry, Library
from orbit4d.compose.library.credits import Credit, credit
from orbit4d.compose.library.retrieval import action_fits, name_score, retrieve
from orbit4d.compose.library.terms import words_of_name
from orbit4d.compose.placement.planning import Cast as Placing
from orbit4d.compose.placement.planning import natural_speed
from orbit4d.compose.placement.sizes import metres_of
from orbit4d.compose.spec import Actor, Spec
from orbit4d.compose.strict_json import printable
from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.deformation.rigs.rig import Rig

#: What goes on foot, and the least score of a name that says it: a synonym and a word besides.
GAITS, NAMED = ("walk", "run"), 0.6

#: Frames of a film, its seconds where a prompt says none, and those lost to setting off and arriving.
MOST_FRAMES, SECONDS, EASE = 2000, 2.0, 0.25


@dataclass(frozen=True)
class Wanted:
    """What a run was asked for."""

    prompt: str
    libraries: tuple[str, ...]
    director: str = "rules"
    scene: str | None = None
    refine: str = "geometry"
    licences: tuple[str, ...] = ()
    strict: bool = False
    frames: int = 0
    """0: as many as the prompt's seconds or metres take, 48 where it says neither."""
    fps: float = 24.0
    size: int = 256
    seed: int = 0
    encoder: str = ""
    refine_model: str = "sd15"
    tau_units: str = "scene"
    depth_model: str = ""
    relight: bool = False
    rig_moment: str = "auto"

    def __post_init__(self) -> None:
        if self.frames != 0 and not 2 <= self.frames <= MOST_FRAMES:
            raise InputError(f"--frames {self.frames}: give 2 to {MOST_FRAMES}")
        if not 1 <= self.fps <= 120:
            raise InputError(f"--fps {self.fps:g}: give 1 to 120")
        if not 32 <= self.size <= 2048:
            raise InputError(f"--size {self.size}: give 32 to 2048 pixels")
        if self.rig_moment not in RIG_MOMENTS:
            raise InputError(f"--rig-moment {self.rig_moment[:40]}: give {', '.join(RIG_MOMENTS)}")


def joined(wanted: Wanted) -> Library:
    """The libraries that were given, without what their licences keep out."""
    return open_libraries(wanted.libraries, ",".join(wanted.licences))


def metres_for(actor: Actor, entry: Entry) -> float:
    """Height in the world: what the prompt says, else what is usual for its noun, times its size words."""
    if actor.size.metres is not None:
        return actor.size.metres
    return metres_of(actor.object, entry.caption, entry.uid) * actor.size.factor


@dataclass
class Part:
    """A concept that plays, with what placement and measuring read."""

    picked: Picked
    concept: Concept
    character: Character
    clip: Clip
    credits: tuple[Credit, ...]
    note: str = ""


def film_seconds(spec: Spec, casts: list[Placing]) -> float:
    """Seconds of a film: those that the prompt says, else what its metres take, else `SECONDS`."""
    if spec.duration_s is not None:
        return spec.duration_s
    found = [0.0]
    for actor, cast in zip(spec.actors, casts, strict=True):
        if actor.distance_m is not None:
            pace = actor.speed.mps or natural_speed(cast, actor, []) * actor.speed.factor
            found.append(actor.distance_m / pace + EASE)
    return max(found) or SECONDS


def refuse_length(spec: Spec, wanted: Wanted) -> None:
    """Raises InputError where the prompt's seconds are more frames than a film holds."""
    frames = round((spec.duration_s or 0.0) * wanted.fps)
    if not wanted.frames and frames > MOST_FRAMES:
        raise InputError(
            f"prompt: {spec.duration_s:g} s at {wanted.fps:g} frames a second are {frames} frames, more than "
            f"{MOST_FRAMES}; give --frames or a lower --fps"
        )


def sized(wanted: Wanted, spec: Spec, casts: list[Placing], notes: list[str]) -> Wanted:
    """`wanted` with as many frames as its film has; notes say where that is not what the prompt says."""
    if wanted.frames:
        seconds = wanted.frames / wanted.fps
        if spec.duration_s is not None and abs(seconds - spec.duration_s) > 0.5 / wanted.fps:
            notes.append(
                f"--frames {wanted.frames}: the film is {seconds:.2f} s long, where the prompt says "
                f"{spec.duration_s:g}"
            )
        return wanted
    refuse_length(spec, wanted)
    asked = film_seconds(spec, casts)
    frames = max(2, ceil(asked * wanted.fps - 1e-6))
    if frames > MOST_FRAMES:
        notes.append(
            f"the way takes {asked:.0f} s; the film ends after {MOST_FRAMES / wanted.fps:.0f} s, at "
            f"{MOST_FRAMES} frames"
        )
    return replace(wanted, frames=min(frames, MOST_FRAMES))


def not_shown(spec: Spec) -> list[str]:
    """A line for every actor whose further actions no film shows."""
    found = [(a.id, ", ".join(a.then), a.action) for a in spec.actors if a.then]
    return [f"actor {id_}: then {later}: not shown, {first} is all it does" for id_, later, first in found]


def look_before(picked: Sequence[Picked]) -> None:
    """Refuse what no film can be made of before anything is written or rendered. Raises InputError."""
    for entry in (one.entry for one in picked):
        if not Path(entry.file).is_file():
            raise InputError(
                f"{printable(entry.uid, 80)}: its file {printable(entry.file, 100)!r} is not there; fix the "
                "library's column `file`"
            )
        if Path(entry.file).suffix.lower() in (".glb", ".gltf"):
            with suppress(NeedsBlender):
                read_gltf(entry.file)  # refuses a file without a rig, and a damaged one


def played(spec: Spec, picked: Picked, library: Library, cache: Path, moment: str = "auto") -> Part:
    """The concept of an actor: fitted or from the cache, with another's motion where it lacks one."""
    entry, actor = picked.entry, spec.actors[picked.actor]
    path = Path(entry.file)
    character = read_character(str(path))
    names = [motion.name for motion in character.rig.motions]
    if not names:
        raise InputError(f"{entry.uid}: {entry.file[:100]!r} has no action; keep it out of the library")
    concept = fit_concept(str(path), entry.uid, rest_action(names), cache, moment=moment)
    character = read_character(str(path), concept.scene.info["scale"], concept.scene.info["centre"])
    action, rows = entry.action, [credit("object", picked.actor, entry)]
    if entry.action not in names:
        action = names[min(entry.action_index, len(names) - 1)]
    note = ""
    if actor.action_given and not action_fits(actor.action, entry.uid, entry.action, library):
        lent, why = _lent(actor.action, entry, library, concept, cache)
        if lent is None:
            if actor.action in GAITS:
                # One that cannot run walks, before it slides along at rest.
                action = next(iter(gaits_of(entry.uid, names).values()), action)
            note = f"actor {actor.id}: no {actor.action[:40]} for it; {action} stands in{why}"
        else:
            concept, action, giver, rig = lent
            rows.append(credit("motion", picked.actor, giver, f"retargeted to {entry.uid}"))
            character = replace(character, rig=rig)
            note = f"actor {actor.id}: {giver.action} of {giver.uid}, moved to its skeleton{why}"
    return Part(picked, concept, character, clip_of(character, action), tuple(rows), note)


def forget_concept(picked: Picked, cache: Path) -> None:
    """Drop what was fitted of an asset, whatever pose it was fitted in, so that it is fitted anew."""
    for path in cache.glob("*/scene.json"):
        try:
            uid = json.loads(path.read_text(encoding="utf-8")).get("uid")
        except (OSError, ValueError, AttributeError):
            continue
        if uid == picked.entry.uid:
            shutil.rmtree(path.parent)


def other_paces(part: Part) -> list[Clip]:
    """Its best walk and its best run, but for the clip that it plays already."""
    names = [motion.name for motion in part.character.rig.motions]
    others = [name for name in gaits_of(part.picked.entry.uid, names).values() if name != part.clip.action]
    return [clip_of(part.character, name) for name in others]


def gaits_of(uid: str, names: Sequence[str]) -> dict[str, str]:
    """The action that says best that it walks, and the one that it runs, of those that say it at all."""
    of_object = set(words_of_name(uid))
    found = {}
    for gait in GAITS:
        scores = [name_score(gait, name, of_object) for name in names]
        best = max(range(len(names)), key=lambda i: (scores[i], -i), default=None)
        if best is not None and scores[best] >= NAMED:
            found[gait] = names[best]
    return found


def _lent(
    action: str, entry: Entry, library: Library, concept: Concept, cache: Path
) -> tuple[tuple[Concept, str, Entry, Rig] | None, str]:
    """(concept, action, giver, rig) with a motion of an asset whose skeleton matches, else None; what is to
    be said of the match, or why there is none."""
    tried: set[str] = set()
    why = ""
    for uid, name, _ in retrieve(action, action, library):
        if (
            uid == entry.uid
            or uid in tried
            or len(tried) >= 12
            or not action_fits(action, uid, name, library)
        ):
            continue
        tried.add(uid)
        giver = library.entry(uid, name)
        try:
            source = read_character(giver.file)
            moved = with_motion(concept, source, source.rig.motion(name), cache, uid)
        except InputError as error:
            why = why or f" ({uid[:60]}: {error})"
            continue
        field: Any = moved.scene.field
        coverage = field.rig.motions[-1].facts["coverage"]
        said = f" ({coverage:.0%} of the joints that it moves have a partner)" if coverage < PLAIN else ""
        return (moved, name, giver, field.rig), said
    return None, why
