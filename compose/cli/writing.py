"""The folder of a film: its concepts, composition.json, plan.json; places taken from another film."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from orbit4d.compose.characters.concepts import clip_of
from orbit4d.compose.characters.relighting import LEAST, MOST, relighting_gain
from orbit4d.compose.cli.measuring import boxes_of
from orbit4d.compose.cli.parts import Part, Wanted
from orbit4d.compose.director.scenes import expert_scene
from orbit4d.compose.library.catalogue import UNKNOWN
from orbit4d.compose.library.credits import Credit, made_credit
from orbit4d.compose.placement.planning import Plan, landmark_word
from orbit4d.compose.placement.procedural import shadow
from orbit4d.compose.placement.shooting import Mark, anybody, shoot
from orbit4d.compose.spec import Spec
from orbit4d.datasets.core.atomic import write_json
from orbit4d.datasets.core.errors import WorkError
from orbit4d.model.guided.models.video_model import licence_of
from orbit4d.recon4d.composition import FILE, FORMAT, camera_record, gain_of, track_of, track_record
from orbit4d.recon4d.deformation.building import StillField
from orbit4d.recon4d.gaussians import Gaussians
from orbit4d.recon4d.scene import Scene

#: What red, green and blue are multiplied by.
Gain = tuple[float, float, float]


def write_composition(
    spec: Spec,
    parts: Sequence[Part],
    placed: Plan,
    wanted: Wanted,
    out: Path,
    cache: Path,
    kept: Path | None = None,
    gains: dict[int, Gain] | None = None,
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
            # Drawn with the actor's own path and turn, on the ground below it; nothing of it plays.
            key = still(shadow(1.7 * part.clip.half[0], 1.7 * part.clip.half[1]), folder)
            down = one.track.points - [0.0, 0.0, placed.above(one)]
            track = track_record(replace(one.track, points=down, ground=0.0))
            rows.append({"concept": key, "role": "shadow", "actor": one.actor, "track": track})
        rows.append(
            {
                "concept": part.concept.key, "role": "actor", "actor": one.actor, "member": one.member,
                "uid": part.picked.entry.uid, "action": part.clip.action, "track": track_record(one.track),
                **({"gain": list(gains[one.actor])} if gains and one.actor in gains else {}),
            }
        )  # fmt: skip
    boxes, forward, actors = boxes_of(placed, wanted.frames)
    seconds = placed.seconds
    marks = [] if wanted.scene == "none" else marks_of(spec, placed)
    cameras = shoot(spec.camera, boxes, forward, actors, seconds, wanted.size, marks)
    if not anybody(cameras, boxes):
        asked = ", ".join(shot.move or shot.shot or "wide" for shot in spec.camera) or "establishing"
        raise WorkError(
            f"no actor is in the image in any of {wanted.frames} frames of camera {asked}; say another"
        )
    times = np.linspace(0, 1, wanted.frames, endpoint=False)
    record = {
        "format": FORMAT, "prompt": spec.prompt, "seconds": seconds, "fps": wanted.fps, "seed": wanted.seed,
        "parts": rows, "camera": [camera_record(c, float(t)) for c, t in zip(cameras, times, strict=True)],
    }  # fmt: skip
    write_json(out / "plan.json", plan_record(parts, placed))
    write_json(out / FILE, record)
    write_json(out / "scene.json", {"format": 1, "kind": "composition"})


def relit(
    parts: Sequence[Part], placed: Plan, bare: bool, kept: dict[int, Gain]
) -> tuple[dict[int, Gain], list[str]]:
    """Gain of each actor, and a line for each; `kept` are those of a film whose others stay as they are.

    `bare`: the film has no scene.
    """
    if bare:
        return {}, ["relight   nothing: the film has no scene; actors keep the light of their fit"]
    gains, lines = dict(kept), []
    for part in parts:
        actor = part.picked.actor
        if actor in gains:
            continue
        ones = [one for one in placed.placed if one.actor == actor]
        way = np.concatenate([one.track.points - [0, 0, placed.above(one)] for one in ones])
        actor_set = part.concept.scene.gaussians
        found = relighting_gain(actor_set, placed.stage.gaussians, way, ones[0].cast.metres)
        if found is None:
            lines.append(f"relight   actor {actor}: no ground near its way; it keeps the light of its fit")
            continue
        r, g, b = (round(float(v), 4) for v in found[0])
        gains[actor] = (r, g, b)
        held = f" (held within {LEAST:g} to {MOST:g})" if found[1] else ""
        lines.append(f"relight   actor {actor}: red {r:.2f}, green {g:.2f}, blue {b:.2f}{held}")
    return gains, lines


def kept_gains(film: Path | None, but: int | None) -> dict[int, Gain]:
    """Gains that a film gives its actors, but for the one that is exchanged."""
    if film is None:
        return {}
    rows = json.loads((film / FILE).read_text(encoding="utf-8"))["parts"]
    return {
        row["actor"]: gain_of(row["gain"])
        for row in rows
        if row["role"] == "actor" and row["actor"] != but and row.get("gain") is not None
    }


def marks_of(spec: Spec, placed: Plan) -> list[Mark]:
    """The landmarks that the prompt names, and when in the film each is to be seen."""
    going = {one.actor for one in placed.placed if one.going}
    when: dict[str, str] = {}
    for actor in spec.actors:
        for time, place in (("start", actor.start), ("end", actor.end), ("always", actor.path.around)):
            if place is not None and place.kind == "landmark":
                stays = actor.id not in going or place.relation != "at"
                when.setdefault(landmark_word(str(place.value)), "always" if stays else time)
    return [(np.array([m.low, m.high]), when[m.name]) for m in placed.stage.landmarks if m.name in when]


def _scene_of(film: Path) -> str | None:
    """Key of the scene of a film, None where it has none."""
    rows = json.loads((film / FILE).read_text(encoding="utf-8"))["parts"]
    return next((row["concept"] for row in rows if row["role"] == "scene"), None)


def as_before(part: Part, film: Path | None, but: int | None) -> Part:
    """The part with the clip that it plays in a film, unless it is the one that is exchanged."""
    actor = part.picked.actor
    if film is None or actor == but:
        return part
    rows = json.loads((film / FILE).read_text(encoding="utf-8"))["parts"]
    action = next((row["action"] for row in rows if row["role"] == "actor" and row["actor"] == actor), None)
    if action is None or action == part.clip.action:
        return part
    return replace(part, clip=clip_of(part.character, action))


def keep_places(placed: Plan, film: Path, but: int | None, anew: bool = False) -> None:
    """Give everybody the place and way of a film; who is exchanged keeps path, turns and times, and has a
    scale, ground and stride of its own, and with `anew` a way of its own."""
    rows = json.loads((film / FILE).read_text(encoding="utf-8"))["parts"]
    old = {(row["actor"], row["member"]): track_of(row["track"]) for row in rows if row["role"] == "actor"}
    for one in placed.placed:
        held = old.get((one.actor, one.member))
        if held is None or (anew and one.actor == but):
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


def credits_of_film(parts: Sequence[Part], placed: Plan, wanted: Wanted) -> list[Credit]:
    """A row for each object and motion that is used, for the scene, and for each model that ran."""
    rows = [row for part in parts for row in part.credits]
    made = None if wanted.scene is None else expert_scene(wanted.scene, wanted.seed)
    if made is not None:
        rows += made.credits or [made_credit("scene", made.made_by, UNKNOWN, "placed under the actors")]
    elif wanted.scene is not None and Path(wanted.scene).is_dir():
        rows.append(made_credit("scene", Path(wanted.scene).name, UNKNOWN, "placed under the actors"))
    elif wanted.scene != "none":
        rows.append(
            made_credit("scene", f"procedural:{placed.stage.name}", "generated", "made for this film")
        )
    models = {wanted.refine_model: "refined places"} if wanted.refine == "sd15" else {}
    models |= {wanted.depth_model: "estimated depth"} if wanted.depth_model else {}
    rows += [made_credit("model", name, licence_of(name) or UNKNOWN, used) for name, used in models.items()]
    return rows


def plan_record(parts: Sequence[Part], placed: Plan) -> dict[str, Any]:
    """What was found, with the five best, and where it stands."""
    found = [
        {
            "actor": part.picked.actor, "uid": part.picked.entry.uid, "action": part.clip.action,
            "score": part.picked.score, "stands_in": part.picked.object_stands_in,
            "best": list(part.picked.best),
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
        "notes": [*placed.notes, *placed.path_notes],
    }


def still(gaussians: Gaussians, folder: Path) -> str:
    """Key of a concept in which nothing moves, written to `folder` where it is not there yet."""
    digest = hashlib.sha256(b"".join(t.numpy().tobytes() for t in gaussians.tensors().values()))
    key = digest.hexdigest()[:32]
    if not (folder / key / "scene.json").is_file():
        Scene(gaussians, StillField()).save(folder / key)
    return key
