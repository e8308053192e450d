"""A film from a sentence: spec, retrieval, concepts, places, refinement, composition, metrics, credits."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from orbit4d.compose.characters.concepts import Clip, Concept, clip_of, fit_concept, rest_action, with_motion
from orbit4d.compose.characters.gltf_rig import Character
from orbit4d.compose.characters.reading import read_character
from orbit4d.compose.cli.measuring import boxes_of, film_metrics
from orbit4d.compose.director.chat import ChatSettings
from orbit4d.compose.director.directing import direct, spelling_lines
from orbit4d.compose.library.catalogue import Entry, Library, open_library
from orbit4d.compose.library.credits import Credit, credit, write_credits
from orbit4d.compose.library.retrieval import action_fits, object_score, retrieve
from orbit4d.compose.placement.planning import Cast, Plan, plan
from orbit4d.compose.placement.procedural import GROUNDS, shadow
from orbit4d.compose.placement.refinement import refined
from orbit4d.compose.placement.shooting import shoot
from orbit4d.compose.placement.sizes import metres_of
from orbit4d.compose.spec import Setting, Spec
from orbit4d.datasets.core.atomic import write_json
from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.composition import (
    FILE,
    FORMAT,
    Composition,
    camera_record,
    load_composition,
    track_of,
    track_record,
)
from orbit4d.recon4d.deformation.building import StillField
from orbit4d.recon4d.filming import film_directed
from orbit4d.recon4d.gaussians import Gaussians
from orbit4d.recon4d.raster.threads import alone
from orbit4d.recon4d.scene import Scene, load_scene

#: Score of an object below which it only stands in.
STANDS_IN = 0.15


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

    def __post_init__(self) -> None:
        if not 2 <= self.frames <= 2000:
            raise InputError(f"--frames {self.frames}: give 2 to 2000")
        if not 1 <= self.fps <= 120:
            raise InputError(f"--fps {self.fps:g}: give 1 to 120")
        if not 32 <= self.size <= 2048:
            raise InputError(f"--size {self.size}: give 32 to 2048 pixels")
        if self.refine == "sd15":
            raise InputError(
                "--refine sd15: no weights of Stable Diffusion 1.5 are set up; take --refine geometry"
            )


@dataclass(frozen=True)
class Picked:
    """What plays an actor."""

    actor: int
    entry: Entry
    score: float
    stands_in: bool
    best: tuple[tuple[str, str, float], ...] = ()


#: What a run says of who wrote its spec, where the spec is all that is known.
WROTE = {
    "rules": "rules (grammar; no language model ran)",
    "chat": "chat (the spec of an earlier run)",
    "recorded": "recorded (no language model ran)",
}


def with_scene(spec: Spec, wanted: Wanted) -> Spec:
    """The spec with the scene that --scene names."""
    if wanted.scene is not None and wanted.scene != "none":
        name = wanted.scene.removeprefix("procedural:")
        if name not in GROUNDS:
            raise InputError(
                f"--scene {wanted.scene[:60]}: take procedural: and one of {', '.join(GROUNDS)}, or none"
            )
        spec = replace(spec, scene=Setting(name))
    return spec


def picks(spec: Spec, library: Library, strict: bool) -> list[Picked]:
    """The best action of a library for each actor. InputError with `strict` where one would stand in."""
    found = []
    for actor in spec.actors:
        ranked = retrieve(actor.object, actor.action, library)
        uid, action, score = ranked[0]
        near = object_score(actor.object, uid, library)
        if near < STANDS_IN and strict:
            raise InputError(
                f"no asset for {actor.object[:60]!r} in {len(library.uids)} assets; nearest: {uid}; "
                "add a library or "
                "drop --strict"
            )
        found.append(Picked(actor.id, library.entry(uid, action), score, near < STANDS_IN, tuple(ranked[:5])))
    return found


@dataclass
class Part:
    """A concept that plays, with what placement and measuring read."""

    picked: Picked
    concept: Concept
    character: Character
    clip: Clip
    credits: tuple[Credit, ...]
    note: str = ""


def played(spec: Spec, picked: Picked, library: Library, cache: Path) -> Part:
    """The concept of an actor: fitted or from the cache, with another's motion where it lacks one."""
    entry, actor = picked.entry, spec.actors[picked.actor]
    path = Path(entry.file)
    if not path.is_file():
        raise InputError(
            f"{entry.uid}: its file {entry.file[:100]!r} is not there; mend the library's column `file`"
        )
    character = read_character(str(path))
    names = [motion.name for motion in character.rig.motions]
    concept = fit_concept(str(path), entry.uid, rest_action(names), cache)
    character = read_character(str(path), concept.scene.info["scale"], concept.scene.info["centre"])
    action, rows = entry.action, [credit("object", picked.actor, entry)]
    if entry.action not in names:
        action = names[min(entry.action_index, len(names) - 1)]
    note = ""
    if actor.action_given and not action_fits(actor.action, entry.uid, entry.action, library):
        lent = _lent(actor.action, entry, library, concept, cache)
        if lent is None:
            note = f"actor {actor.id}: no {actor.action[:40]} for it; {action} stands in"
        else:
            concept, action, giver, rig = lent
            rows.append(credit("motion", picked.actor, giver, f"retargeted to {entry.uid}"))
            character = replace(character, rig=rig)
            note = f"actor {actor.id}: {giver.action} of {giver.uid}, moved to its skeleton"
    return Part(picked, concept, character, clip_of(character, action), tuple(rows), note)


def _lent(action: str, entry: Entry, library: Library, concept: Concept, cache: Path) -> Any:
    """(concept, action, giver, rig) with a motion of an asset whose skeleton matches, else None."""
    tried: set[str] = set()
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
        except InputError:
            continue
        field: Any = moved.scene.field
        return moved, name, giver, field.rig
    return None


def produce(
    wanted: Wanted, out: Path, cache: Path | None = None, chat: ChatSettings | None = None
) -> list[str]:
    """Make the film of a prompt in `out`; returns what is to be said at the end, line by line.

    `chat` says how an endpoint is asked, where it directs; its replies are kept in OUT/director/.

    Raises InputError, one line, for what cannot be honoured, WorkError where work fails.
    """
    began = time.monotonic()
    refuse_other(out, wanted)
    if (out / FILE).is_file() and (out / "film.mp4").is_file():
        return [f"{out}: already finished"]
    library = joined(wanted)
    done = direct(wanted.prompt, wanted.director, chat, out / "director" / "replies.jsonl")
    spec = with_scene(done.spec, wanted)
    chosen = picks(spec, library, wanted.strict)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "request.json", asdict(wanted))
    write_json(out / "spec.json", spec.as_json())
    kept = cache or out / "concepts"
    parts = [played(spec, picked, library, kept) for picked in chosen]
    lines = assemble(spec, parts, wanted, out, kept)
    lines[0] = f"director  {done.who}"
    lines[1:1] = [*(f"          {note}" for note in done.notes), *spelling_lines(done)]
    lines += [
        f"film {out / 'film.mp4'}: {wanted.frames} frames in {time.monotonic() - began:.1f} s, all told"
    ]
    return lines


def joined(wanted: Wanted) -> Library:
    """The libraries that were given, without what their licences keep out."""
    library = open_library(list(wanted.libraries) if len(wanted.libraries) > 1 else wanted.libraries[0])
    kept = library.keep_licences(wanted.licences)
    if not kept.entries:
        out = ", ".join(f"{count} {name}" for name, count in kept.dropped.items())
        raise InputError(f"--license: no asset is left ({out} fell out); name one of their licences"[:300])
    return kept


def refuse_other(out: Path, wanted: Wanted) -> None:
    """InputError where `out` holds another run, or other files."""
    if out.is_file():
        raise InputError(f"{out}: is a file; give a folder as --out")
    path = out / "request.json"
    if path.is_file():
        held = json.loads(path.read_text(encoding="utf-8"))
        if held != json.loads(json.dumps(asdict(wanted))):
            key = next(
                (k for k, v in json.loads(json.dumps(asdict(wanted))).items() if held.get(k) != v), "prompt"
            )
            raise InputError(f"{out}: holds a film made with another {key}; give another --out")
    elif out.is_dir() and any(entry.name != "director" for entry in out.iterdir()):
        raise InputError(f"{out}: holds other files; give an empty or new folder as --out")


def assemble(
    spec: Spec,
    parts: Sequence[Part],
    wanted: Wanted,
    out: Path,
    cache: Path,
    kept: Path | None = None,
    but: int | None = None,
) -> list[str]:
    """Place, refine, compose, measure, film; the lines that say how it went.

    `kept` is a film whose places are taken, but for what the actor `but` changes in its own.
    """
    seconds = wanted.frames / wanted.fps
    casts = [_cast(spec, part) for part in parts]
    placed = plan(spec, casts, seconds, wanted.seed)
    bounds: list[str] = []
    if kept is not None:
        keep_places(placed, kept, but)
    elif wanted.refine == "geometry":
        bounds = refined(placed)
    write_composition(spec, parts, placed, wanted, out, cache, kept)
    film = load_composition(out)
    _, speed = filmed(film, out)
    metrics = film_metrics(placed, {p.picked.actor: p.character for p in parts}, film)
    write_json(out / "metrics.json", {**metrics, "frames_per_second": speed})
    rows = [row for part in parts for row in part.credits]
    write_credits(out / "credits.csv", rows)
    lines = [f"director  {WROTE[spec.director]}"]
    for part in parts:
        actor = spec.actors[part.picked.actor]
        stands = f"stands in for {actor.object}; " if part.picked.stands_in else ""
        lines.append(
            f"actor {actor.id}   {actor.object!r} {actor.action}: {part.picked.entry.uid}, "
            f"{part.clip.action} "
            f"({stands}score {part.picked.score:.2f})"
        )
        if not actor.action_given:
            lines.append(f"actor {actor.id}   no motion named: {part.clip.action}")
        lines += [part.note] if part.note else []
    lines += [*placed.notes, *bounds]
    if spec.unused:
        lines.append("unused    " + ", ".join(json.dumps(word) for word in spec.unused))
    refined_by = "geometry (no diffusion model ran)" if wanted.refine == "geometry" else "nothing"
    unknown = [row.uid for row in rows if row.licence == "unknown"]
    lines += [f"refined   {refined_by}"]
    lines += [f"licence unknown: {', '.join(dict.fromkeys(unknown))}"] if unknown else []
    return lines


def _cast(spec: Spec, part: Part) -> Cast:
    actor = spec.actors[part.picked.actor]
    metres = actor.size.metres
    if metres is None:
        metres = metres_of(actor.object, part.picked.entry.caption, part.picked.entry.uid) * actor.size.factor
    return Cast(actor.id, part.clip, metres)


def filmed(film: Composition, out: Path) -> tuple[Any, float]:
    """Frames of film.mp4, and how many a second were drawn and written after the first, which compiles."""
    with alone():
        film.render(*film.shots[0])
        began = time.monotonic()
        frames = film_directed(film, out, out / "film.mp4")
    return frames, round(len(frames) / (time.monotonic() - began), 2)


def write_composition(
    spec: Spec,
    parts: Sequence[Part],
    placed: Plan,
    wanted: Wanted,
    out: Path,
    cache: Path,
    kept: Path | None = None,
) -> None:
    """concepts/ and composition.json, which comes last but for scene.json."""
    folder = out / "concepts"
    rows: list[dict[str, Any]] = []
    if wanted.scene != "none":
        held = None if kept is None else _scene_of(kept)
        key = held or still(placed.stage.gaussians, folder)
        rows.append({"concept": key, "role": "scene", "track": None})
    for one in placed.placed:
        part = next(p for p in parts if p.picked.actor == one.actor)
        if not (folder / part.concept.key / "scene.json").is_file():
            shutil.copytree(cache / part.concept.key, folder / part.concept.key, dirs_exist_ok=True)
        if wanted.scene != "none":
            # Drawn with the actor's own path and turn; nothing of it plays.
            key = still(shadow(1.7 * part.clip.half[0], 1.7 * part.clip.half[1]), folder)
            track = track_record(replace(one.track, ground=0.0))
            rows.append({"concept": key, "role": "shadow", "actor": one.actor, "track": track})
        rows.append(
            {
                "concept": part.concept.key, "role": "actor", "actor": one.actor, "member": one.member,
                "uid": part.picked.entry.uid, "action": part.clip.action, "track": track_record(one.track),
            }
        )  # fmt: skip
    boxes, forward, actors = boxes_of(placed, wanted.frames)
    seconds = placed.seconds
    cameras = shoot(spec.camera, boxes, forward, actors, seconds, wanted.size)
    times = np.linspace(0, 1, wanted.frames, endpoint=False)
    record = {
        "format": FORMAT, "prompt": spec.prompt, "seconds": seconds, "fps": wanted.fps, "seed": wanted.seed,
        "parts": rows, "camera": [camera_record(c, float(t)) for c, t in zip(cameras, times, strict=True)],
    }  # fmt: skip
    write_json(out / "plan.json", plan_record(parts, placed))
    write_json(out / FILE, record)
    write_json(out / "scene.json", {"format": 1, "kind": "composition"})


def _scene_of(film: Path) -> str | None:
    """Key of the scene of a film, None where it has none."""
    rows = json.loads((film / FILE).read_text(encoding="utf-8"))["parts"]
    return next((row["concept"] for row in rows if row["role"] == "scene"), None)


def keep_places(placed: Plan, film: Path, but: int | None) -> None:
    """Give everybody the place and way of a film; who is exchanged keeps path, turns and times, and has a
    scale, ground and stride of its own."""
    rows = json.loads((film / FILE).read_text(encoding="utf-8"))["parts"]
    old = {(row["actor"], row["member"]): track_of(row["track"]) for row in rows if row["role"] == "actor"}
    for one in placed.placed:
        held = old.get((one.actor, one.member))
        if held is None:
            continue
        if one.actor != but:
            one.track = held
            continue
        own = one.track
        one.track = replace(
            held, scale=own.scale, ground=own.ground, rate=own.rate, phase=own.phase, loop=own.loop,
            stride=own.stride if held.length > 0 else 0.0,
        )  # fmt: skip
        one.going = held.length > 0
        span = held.end - held.begin - held.ease
        one.speed = held.length / span if one.going and span > 0 else 0.0


def plan_record(parts: Sequence[Part], placed: Plan) -> dict[str, Any]:
    """What was found, with the five best, and where it stands."""
    found = [
        {
            "actor": part.picked.actor, "uid": part.picked.entry.uid, "action": part.clip.action,
            "score": part.picked.score, "stands_in": part.picked.stands_in, "best": list(part.picked.best),
            "gait": part.clip.gait,
        }
        for part in parts
    ]  # fmt: skip
    where = [
        {"actor": one.actor, "member": one.member, "metres": one.cast.metres, "speed_mps": one.speed,
         "start": one.track.points[0].tolist(), "end": one.track.points[-1].tolist()}
        for one in placed.placed
    ]  # fmt: skip
    marks = [{"name": m.name, "low": list(m.low), "high": list(m.high)} for m in placed.stage.landmarks]
    return {
        "found": found,
        "placed": where,
        "scene": placed.stage.name,
        "landmarks": marks,
        "notes": placed.notes,
    }


def still(gaussians: Gaussians, folder: Path) -> str:
    """Key of a concept in which nothing moves, written to `folder` where it is not there yet."""
    digest = hashlib.sha256(b"".join(t.numpy().tobytes() for t in gaussians.tensors().values()))
    key = digest.hexdigest()[:32]
    if not (folder / key / "scene.json").is_file():
        Scene(gaussians, StillField()).save(folder / key)
    return key


def cached(folder: Path, key: str) -> Scene:
    """A concept of a film."""
    return load_scene(folder / "concepts" / key)
