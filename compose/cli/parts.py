"""What a run was asked for, and what plays in it: concepts from the cache or fitted, with their motions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from orbit4d.compose.characters.gltf_rig import Character
from orbit4d.compose.characters.motion_swap import PLAIN
from orbit4d.compose.characters.reading import read_character
from orbit4d.compose.cli.options import open_libraries
from orbit4d.compose.library.casting import Cast as Picked
from orbit4d.compose.library.catalogue import Entry, Library
from orbit4d.compose.library.credits import Credit, credit
from orbit4d.compose.library.retrieval import action_fits, name_score, retrieve
from orbit4d.compose.library.terms import words_of_name
from orbit4d.compose.placement.sizes import metres_of
from orbit4d.compose.spec import Actor, Spec
from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.deformation.rigs.rig import Rig

#: What goes on foot, and the least score of a name that says it: a synonym and a word besides.
GAITS, NAMED = ("walk", "run"), 0.6


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
    frames: int = 48
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
        if not 2 <= self.frames <= 2000:
            raise InputError(f"--frames {self.frames}: give 2 to 2000")
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


def played(spec: Spec, picked: Picked, library: Library, cache: Path, moment: str = "auto") -> Part:
    """The concept of an actor: fitted or from the cache, with another's motion where it lacks one."""
    entry, actor = picked.entry, spec.actors[picked.actor]
    path = Path(entry.file)
    if not path.is_file():
        raise InputError(
            f"{entry.uid}: its file {entry.file[:100]!r} is not there; mend the library's column `file`"
        )
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
