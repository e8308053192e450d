"""What a film shows, measured on the posed surfaces: feet, sliding, facing, and who is in the image."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.compose.characters.concepts import SAMPLES
from orbit4d.compose.characters.gltf_rig import Character
from orbit4d.compose.placement.planning import Placed, Plan
from orbit4d.compose.placement.shooting import inside_share
from orbit4d.recon4d.composition import Composition, Track

Floats = npt.NDArray[np.float64]

#: Times of a film at which feet are inspected.
MOMENTS = 97


def boxes_of(plan: Plan, frames: int) -> tuple[Floats, Floats, list[int]]:
    """(boxes [F, A, 2, 3], forward [F, A, 3], actor of each of A individuals) over a film."""
    times = np.linspace(0, plan.seconds, frames, endpoint=False)
    boxes, ways = [], []
    for one in plan.placed:
        half, top = one.cast.half, one.cast.clip.top * one.cast.scale
        corners = np.array([(x, y, 0.0) for x in (-half[0], half[0]) for y in (-half[1], half[1])])
        forward = np.array(
            one.cast.clip.gait["forward"] if one.cast.clip.gait["usable"] else (0.0, -1.0, 0.0)
        )
        row, way = [], []
        for t in times:
            point, turn = one.track.place(float(t))
            flat = corners @ turn.T + point
            row.append([flat.min(axis=0), flat.max(axis=0) + np.array([0, 0, top])])
            way.append(turn @ forward)
        boxes.append(row)
        ways.append(way)
    return np.array(boxes).swapaxes(0, 1), np.array(ways).swapaxes(0, 1), [one.actor for one in plan.placed]


def posed_in_world(
    character: Character, action: str, track: Track, seconds: float, loop: bool = True
) -> Floats:
    """[V, 3] vertices of an actor at a time of the film."""
    motion = character.rig.motion(action)
    clip = track.clip_seconds(seconds)
    inside = (
        clip % motion.seconds
        if loop and track.loop != "hold" and motion.seconds > 0
        else min(clip, motion.seconds)
    )
    posed = character.surface.posed(character.rig.maps(motion, motion.start + inside))
    point, turn = track.place(seconds)
    return track.scale * (posed - [0, 0, track.ground]) @ turn.T + point


def film_metrics(plan: Plan, characters: dict[int, Character], film: Composition) -> dict[str, Any]:
    """Of each individual feet, sliding and facing; of the film who is inside the image."""
    rows = [_individual(one, characters[one.actor], plan.seconds, plan.above(one) > 0) for one in plan.placed]
    boxes, _, _ = boxes_of(plan, len(film.shots))
    share, least = inside_share([camera for camera, _ in film.shots], boxes)
    grounded = [row for row in rows if row["grounded"]]
    return {
        "individuals": rows,
        "feet_sink_max": max((row["sink"] for row in grounded), default=0.0),
        "feet_gap_max": max((row["gap_median"] for row in grounded), default=0.0),
        "sliding_excess_max": max(
            (row["slide"] - row["own_slide"] for row in rows if row["slide"] is not None), default=0.0
        ),
        "facing_deg_max": max(
            (row["facing_deg"] for row in rows if row["facing_deg"] is not None), default=0.0
        ),
        "in_picture": share,
        "smallest_height_px": round(least, 1),
        "overlaps": overlapping(plan),
    }


def overlapping(plan: Plan) -> list[list[int]]:
    """Pairs of individuals whose discs overlap at any time."""
    times = np.linspace(0, plan.seconds, 25)
    places = np.array([[one.track.place(float(t))[0][:2] for t in times] for one in plan.placed])
    found = []
    for i in range(len(places)):
        for j in range(i + 1, len(places)):
            reach = min(plan.placed[i].cast.half) + min(plan.placed[j].cast.half)
            if float(np.linalg.norm(places[i] - places[j], axis=1).min()) < reach:
                found.append([i, j])
    return found


def _individual(one: Placed, character: Character, seconds: float, floats: bool) -> dict[str, Any]:
    action, track = one.cast.clip.action, one.track
    times = np.linspace(0, seconds, MOMENTS)
    world = np.stack([posed_in_world(character, action, track, float(t)) for t in times])
    floor = np.array([track.place(float(t))[0][2] for t in times])
    lowest = (world[..., 2].min(axis=1) - floor) / one.cast.metres
    found: dict[str, Any] = {
        "actor": one.actor, "member": one.member, "grounded": not floats,
        "sink": round(float(max(-lowest.min(), 0.0)), 4), "gap_median": round(float(np.median(lowest)), 4),
        "contact_p2": round(float(np.percentile(lowest, 2)), 4),
        "slide": None, "own_slide": one.cast.clip.gait["slide"], "facing_deg": None, "speed_ratio": None,
    }  # fmt: skip
    if not one.going:
        return found
    motion = character.rig.motion(action)
    clip = np.linspace(motion.start, motion.end, SAMPLES)
    z = np.stack([character.surface.posed(character.rig.maps(motion, float(t)))[:, 2] for t in clip])
    found |= _moving(one, world, times, (z - track.ground) * track.scale)
    return found


def _moving(one: Placed, world: Floats, times: Floats, cycle: Floats) -> dict[str, Any]:
    """Sliding and facing away from the ends of the path; cycle [C, V] are heights over the whole clip."""
    track, height = one.track, one.cast.clip.top * one.cast.scale
    roots = np.array([track.place(float(t))[0] for t in times])
    pace = np.gradient(roots[:, :2], times, axis=0)
    fast = np.linalg.norm(pace, axis=1)
    steady = (times > track.begin + track.ease + 0.05) & (
        times < min(track.end, times[-1]) - track.ease - 0.05
    )
    z = world[..., 2] - roots[:, None, 2]
    low, high = cycle.min(axis=0), cycle.max(axis=0)
    feet = (high - low > 0.03 * height) & (low < cycle.min() + 0.08 * height)
    speed = np.gradient(world[:, feet, :2], times, axis=0)
    contact = (z[:, feet] <= low[feet] + 0.1 * (high - low)[feet]) & steady[:, None]
    slides = np.linalg.norm(speed[contact], axis=-1) / max(
        float(np.median(fast[steady])) if steady.any() else 0, 1e-9
    )
    forward = np.array(one.cast.clip.gait["forward"] if one.cast.clip.gait["usable"] else (0.0, -1.0, 0.0))
    turns = np.stack([track.place(float(t))[1] @ forward for t in times])
    cosine = (turns[:, :2] * pace).sum(1) / np.maximum(fast * np.linalg.norm(turns[:, :2], axis=1), 1e-12)
    angle = np.degrees(np.arccos(cosine.clip(-1, 1)))
    usable = one.cast.clip.gait["usable"] and len(slides) > 0
    return {
        "slide": round(float(np.median(slides)), 4) if usable else None,
        "facing_deg": round(float(angle[steady].max()), 3) if steady.any() else None,
        "speed_ratio": round(float(np.median(fast[steady])) / one.speed, 4) if steady.any() else None,
    }
