"""From a spec and what stands for its actors to places, paths and times on one ground.

World units are metres; the camera looks along +Y, so left is -X and near is -Y. Feet decide speed: a clip is
played by the way that is walked, so that contacts stay where they are whatever the pace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from orbit4d.compose.characters.concepts import Clip
from orbit4d.compose.placement.ground import Ground
from orbit4d.compose.placement.individuals import (
    GOING,
    GOING_RELATIONS,
    Cast,
    Maker,
    Placed,
    Plan,
    breadth,
    landmark_word,
    natural_speed,
    rows_of,
)
from orbit4d.compose.placement.of_scenes import scene_ground
from orbit4d.compose.placement.procedural import LANDMARKS, Stage, build, ground_name
from orbit4d.compose.spec import Spec
from orbit4d.datasets.core.errors import WorkError
from orbit4d.recon4d.gaussians import Gaussians

__all__ = ["Cast", "Placed", "Plan", "in_step", "landmark_word", "natural_speed", "plan"]

#: Share of a clip's own pace at which it still looks as it was made.
SLOWEST, FASTEST = 0.7, 1.4
#: The other clips by which an actor of the spec could go: its walk, its run.
Kin = Callable[[int], Sequence[Clip]]


def plan(
    spec: Spec, casts: list[Cast], seconds: float, seed: int = 0, given: Gaussians | None = None,
    kin: Kin | None = None,
) -> Plan:  # fmt: skip
    """Places, paths and times for every individual; same arguments, same plan.

    `given` is a scene of the user's, whose unit is taken as a metre; ways are as long as its ground allows.
    With `kin` an actor walks instead of running, or the other way round, where that is nearer to the pace
    that is asked for: `Placed.cast` has the clip. WorkError where a scene has no ground, and where an actor
    finds no free place.
    """
    notes: list[str] = []
    if kin is not None:
        casts = in_step(spec, casts, kin, seconds, notes)
    speeds = _speeds(spec, casts, seconds, notes)
    lengths = [0.0 if v == 0 else v * max(seconds - 0.25, 0.1) for v in speeds]
    if given is not None:
        return _on_scene(spec, casts, speeds, lengths, given, seconds, seed, notes)
    half_width = max(1.2, 0.62 * max(lengths, default=0.0), *(1.6 * c.half[1] for c in casts))
    lanes, half_depth = _lanes(spec, casts)
    name, said = ground_name(spec.scene.text)
    if spec.scene.text and not said:
        notes.append(f"scene {spec.scene.text!r}: not known; a {name} stands in")
    places = _landmarks(spec, casts, half_width, half_depth, lanes, lengths)
    notes += [f"landmark {word!r}: not known; a rock stands in" for word in places if word not in LANDMARKS]
    stage = build(name, half_width + 1.0, half_depth + 0.5, places, seed)
    low = (-2.5 * half_width - 3, -half_depth - 4)
    high = (2.5 * half_width + 3, half_depth + 4)
    cell = max(0.05 * min(c.metres for c in casts), (high[0] - low[0]) / 128)
    ways: list[str] = []
    maker = Maker(spec, casts, speeds, lengths, lanes, stage, seconds, seed, ways)
    maker.ground = Ground.plane(low, high, cell, stage.obstacles())
    return Plan(stage, maker.all(), seconds, notes, maker.ground, ways)


def _on_scene(
    spec: Spec, casts: list[Cast], speeds: list[float], lengths: list[float], given: Gaussians,
    seconds: float, seed: int, notes: list[str],
) -> Plan:  # fmt: skip
    """The plan on the ground of a scene's own Gaussians, moved so that its ground's middle is the origin."""
    ground = scene_ground(given, min(c.metres for c in casts))
    free = np.argwhere(~ground.blocked)
    if not len(free):
        raise WorkError("--scene: nothing on its ground is free to stand on; give another scene")
    (y0, x0), (y1, x1) = free.min(axis=0), free.max(axis=0)
    middle = (ground.place_of((int(y0), int(x0))) + ground.place_of((int(y1), int(x1)))) / 2
    ground = replace(
        ground, origin=(ground.origin[0] - float(middle[0]), ground.origin[1] - float(middle[1]))
    )
    shift = torch.tensor([float(middle[0]), float(middle[1]), 0.0])
    half_width, half_depth = 0.5 * (x1 - x0) * ground.cell, 0.5 * (y1 - y0) * ground.cell
    notes.append(
        f"scene: a unit is taken as 1 m; its ground is {2 * half_width:.2f} by {2 * half_depth:.2f} m"
    )
    lanes, _ = _lanes(spec, casts)
    most = max((abs(lane) for lane in lanes), default=0.0)
    lanes = [lane * min(1.0, 0.8 * half_depth / most) if most > 0 else lane for lane in lanes]
    shorter = [min(length, 1.6 * half_width) for length in lengths]
    for actor, length, short in zip(spec.actors, lengths, shorter, strict=True):
        if short < length:
            notes.append(f"actor {actor.id}: the ground ends after {short:.2f} m; it stands then")
    stage = Stage("scene", replace(given, means=given.means - shift), float(half_width), float(half_depth))
    ways: list[str] = []
    maker = Maker(spec, casts, speeds, shorter, lanes, stage, seconds, seed, ways)
    maker.ground = ground
    return Plan(stage, maker.all(), seconds, notes, ground, ways)


def in_step(spec: Spec, casts: list[Cast], kin: Kin, seconds: float, notes: list[str]) -> list[Cast]:
    """The casts, each with the clip whose own pace is nearest to the one that is asked of it.

    A clip keeps to 0.7 to 1.4 of its pace; only beyond it another is looked at.
    """
    found = []
    for actor, cast, speed in zip(spec.actors, casts, _speeds(spec, casts, seconds, []), strict=True):
        rate = rate_of(cast, speed)
        if speed <= 0 or rate is None or SLOWEST <= rate <= FASTEST:
            found.append(cast)
            continue
        best, nearest = cast, abs(float(np.log(rate)))
        for clip in kin(actor.id):
            other = replace(cast, clip=clip, pace=speed)
            own = rate_of(other, speed)
            if own is not None and abs(float(np.log(own))) < nearest - 1e-6:
                best, nearest = other, abs(float(np.log(own)))
        if best is not cast:
            notes.append(
                f"actor {actor.id}: {best.clip.action} instead of {cast.clip.action}, of whose own pace "
                f"{speed:.2f} m/s is {rate:.2f}"
            )
        found.append(best)
    return found


def rate_of(cast: Cast, speed: float) -> float | None:
    """Share of its own pace at which a clip plays that goes at `speed`, m/s; None where its feet say none."""
    gait = cast.clip.gait
    return speed / (gait["speed"] * gait["height"] * cast.scale) if gait["usable"] else None


def _speeds(spec: Spec, casts: list[Cast], seconds: float, notes: list[str]) -> list[float]:
    """Metres a second of each actor of the spec, 0 for one that stays; pursuers keep their quarry's pace."""
    found = []
    for actor, cast in zip(spec.actors, casts, strict=True):
        goes = actor.action in GOING or actor.end is not None or actor.distance_m is not None
        goes = goes or (actor.relation is not None and actor.relation.kind in GOING_RELATIONS)
        if actor.relation is not None and actor.relation.kind == "facing":
            goes = False
        natural = natural_speed(cast, actor, notes) if goes else 0.0
        asked = natural * actor.speed.factor
        if goes and actor.distance_m is not None:
            asked = actor.distance_m / max(seconds - 0.25, 0.1)
        if goes and actor.speed.mps is not None:
            asked = actor.speed.mps
        found.append(asked if cast.pace is None or not goes else cast.pace)
    for actor in spec.actors:
        if actor.relation is not None and actor.relation.kind in ("chase", "follow", "lead"):
            other = actor.relation.actor
            if found[other] > 0 and found[actor.id] > 0:
                shared = (
                    found[other] if actor.relation.kind == "follow" else min(found[other], found[actor.id])
                )
                found[actor.id] = found[other] = shared
    for actor, cast, speed in zip(spec.actors, casts, found, strict=True):
        rate = rate_of(cast, speed)
        if speed > 0 and rate is not None and not SLOWEST <= rate <= FASTEST:
            notes.append(f"actor {actor.id}: its clip runs at {rate:.2f} of its own pace, so that feet hold")
    return found


def _lanes(spec: Spec, casts: list[Cast]) -> tuple[list[float], float]:
    """y of each actor's line, and half the depth of the strip; those that follow share a line."""
    own: dict[int, int] = {}
    for actor in spec.actors:
        follows = actor.relation is not None and actor.relation.kind in ("chase", "follow", "lead")
        own[actor.id] = actor.relation.actor if follows and actor.relation is not None else actor.id
    for _ in spec.actors:
        own = {a: own[b] for a, b in own.items()}
    heads = sorted(set(own.values()))
    widths = {}
    for head in heads:
        rows = [rows_of(spec.actors[a].count) for a, b in own.items() if b == head]
        wide = max(breadth(casts[a]) for a, b in own.items() if b == head)
        widths[head] = wide * max(rows)
    total = sum(widths.values())
    at, middle = total / 2, {}
    for head in heads:  # the first actor is the farthest, so that those named later do not hide behind it
        middle[head] = at - widths[head] / 2
        at -= widths[head]
    return [middle[own[a.id]] for a in spec.actors], max(1.0, total / 2)


def _landmarks(
    spec: Spec,
    casts: list[Cast],
    half_width: float,
    half_depth: float,
    lanes: list[float],
    lengths: list[float],
) -> dict[str, tuple[float, float]]:
    """Places of the landmarks that the spec names: ends at the ends, what one stands near behind it."""
    found: dict[str, tuple[float, float]] = {}
    stood_at = [
        landmark_word(str(a.start.value))
        for a, length in zip(spec.actors, lengths, strict=True)
        if length == 0 and a.start is not None and a.start.kind == "landmark"
    ]
    spread = _spread(list(dict.fromkeys(stood_at)), half_width, any(length > 0 for length in lengths))
    for actor, cast, lane, length in zip(spec.actors, casts, lanes, lengths, strict=True):
        for end, place in ((-1, actor.start), (1, actor.end), (0, actor.path.around)):
            if place is None or place.kind != "landmark":
                continue
            word = landmark_word(str(place.value))
            if word in found:
                continue
            (w, d, _), _, walkable = LANDMARKS.get(word, LANDMARKS["rock"])
            columns = int(np.ceil(actor.count / rows_of(actor.count)))
            aside = length / 2 + 1.3 * cast.half[1] + (columns - 0.5) * 2.5 * cast.half[1] * (actor.count > 1)
            if place.relation in ("at", "on") and (end == 1 or actor.end is not None or length > 0):
                # One walks into a river; a barn stands behind where one sets off or arrives, so that a
                # camera that holds the actor holds it too.
                beside = end == 0 or length == 0
                x = end * (aside + (0 if walkable else 0.2) + w / 2)
                y = lane if walkable or end == 0 else lane + 0.3 * d
                if not walkable and not beside:
                    x, y = end * length / 2, half_depth + d / 2 + 0.3
            else:
                x = spread.get(word, 0.0) if length == 0 and len(spec.actors) > 1 else 0.6 * w
                y = half_depth + d / 2 + 0.3
            found[word] = (float(x), float(y))
    return found


def _spread(words: list[str], half_width: float, passed: bool) -> dict[str, float]:
    """x of landmarks that somebody stands near: one in the middle where others pass it, else side by side."""
    if len(words) == 1:
        return {words[0]: 0.0 if passed else -0.5 * half_width}
    return dict(zip(words, np.linspace(-0.5, 0.5, max(len(words), 1)) * half_width))
