"""Individuals in a film: what plays each, and where it stands, goes and looks, one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.compose.characters.concepts import Clip
from orbit4d.compose.language.verbs import GOING_VERBS
from orbit4d.compose.placement.facing import capped, face
from orbit4d.compose.placement.ground import POINTS, Ground, resampled, shaped, walk
from orbit4d.compose.placement.procedural import LANDMARKS, Stage
from orbit4d.compose.placement.timing import Disc, meetings, phase_of, waited
from orbit4d.compose.spec import Actor, Place, Spec
from orbit4d.recon4d.composition import MOST_TURN, Track

Floats = npt.NDArray[np.float64]

#: Heights per second where feet say nothing.
DEFAULT_SPEED = {"run": 2.5, "swim": 0.8, "fly": 1.5, "drive": 2.0}
WALK = 0.6
#: Actions that go somewhere.
GOING = {"walk", "run", "swim", "fly", "drive", "roll", "move", "bounce", *GOING_VERBS}
GOING_RELATIONS = {"chase", "follow", "lead", "toward", "away_from", "around"}
#: What floats over the ground.
FLOATING = {"swim", "fly"}
#: Actions that go on and on; others are played once and held.
ONGOING = GOING | {
    "idle",
    "dance",
    "eat",
    "turn",
    "wave",
    "clap",
    "sit",
    "hit",
    "attack",
    "punch",
    "kick",
    "jump",
}


@dataclass(frozen=True)
class Cast:
    """What plays one actor of the spec."""

    actor: int
    clip: Clip
    metres: float
    """Height in the world."""
    pace: float | None = None
    """Metres a second that it goes, where another clip than the one asked for plays at that pace."""

    @property
    def scale(self) -> float:
        """World units of a concept unit."""
        return self.metres / self.clip.height

    @property
    def half(self) -> tuple[float, float]:
        """Half its breadth and length, metres."""
        return self.clip.half[0] * self.scale, self.clip.half[1] * self.scale

    @property
    def radius(self) -> float:
        """Half its breadth, metres, and a little: what it needs to pass."""
        return 1.1 * min(self.half) + 0.05


@dataclass
class Placed:
    """One individual in the film."""

    actor: int
    member: int
    cast: Cast
    track: Track
    going: bool
    speed: float = 0.0
    """Metres a second away from its ends."""


@dataclass
class Plan:
    """Where everything is."""

    stage: Stage
    placed: list[Placed]
    seconds: float
    notes: list[str] = field(default_factory=list)
    ground: Ground | None = None
    path_notes: list[str] = field(default_factory=list)
    """Of the ways: who starts elsewhere, or does not arrive."""

    def above(self, one: Placed) -> float:
        """Metres over the ground at which an individual starts: 0 but for what swims or flies."""
        x, y, z = (float(v) for v in one.track.points[0])
        over = z - (0.0 if self.ground is None else self.ground.height_at(x, y))
        return over if over > 0.1 * one.cast.metres else 0.0


def natural_speed(cast: Cast, actor: Actor, notes: list[str]) -> float:
    """Metres a second that the clip's feet walk; a default of its class, noted, where they do not say."""
    gait = cast.clip.gait
    if gait["usable"]:
        return float(gait["speed"] * gait["height"] * cast.scale)
    floats = actor.action in FLOATING or cast.clip.floats
    plays = cast.clip.action.rpartition("|")[2].lower()
    # What stands in for a run may be a walk, and the other way round.
    action = next((gait for gait in ("walk", "run") if gait in plays), actor.action)
    pace = DEFAULT_SPEED.get(action, DEFAULT_SPEED["swim"] if floats else WALK)
    if not floats:
        notes.append(
            f"actor {actor.id}: the feet of {cast.clip.action} say no speed; {pace:g} heights a second "
            "stand in"
        )
    return pace * cast.metres


def disc_of(one: Placed) -> Disc:
    """What others keep clear of."""
    return Disc(one.track, min(one.cast.half))


def landmark_word(text: str) -> str:
    """The known landmark that a phrase names, else its last word."""
    words = text.lower().replace("-", " ").split()
    for word in words[::-1]:
        for known in (word, word.removesuffix("s")):
            if known in LANDMARKS:
                return known
    return words[-1] if words else "rock"


def breadth(cast: Cast) -> float:
    """Depth of the strip that one individual takes, whichever way it faces."""
    return 1.3 * max(2 * cast.half[0], 1.2 * cast.half[1]) + 0.1


def rows_of(count: int) -> int:
    return 1 if count == 1 else 2 if count <= 6 else 3


class Maker:
    """Places the individuals one after the other; later ones see the earlier."""

    ground: Ground

    def __init__(
        self, spec: Spec, casts: list[Cast], speeds: list[float], lengths: list[float], lanes: list[float],
        stage: Stage, seconds: float, seed: int, notes: list[str],
    ) -> None:  # fmt: skip
        self.spec, self.casts, self.speeds, self.lengths = spec, casts, speeds, lengths
        self.lanes, self.stage, self.seconds, self.seed, self.notes = lanes, stage, seconds, seed, notes
        self.done: list[Placed] = []

    def all(self) -> list[Placed]:
        # Those that others stand to come first.
        order = sorted(self.spec.actors, key=lambda a: (a.relation is not None, a.id))
        for actor in order:
            for member in range(actor.count):
                self.done.append(self._member(actor, member))
        return sorted(self.done, key=lambda p: (p.actor, p.member))

    def _member(self, actor: Actor, member: int) -> Placed:
        cast, who = self.casts[actor.id], f"actor {actor.id}"
        start, end = self._ends(actor, cast)
        aside = self._aside(actor, cast, member, end - start)
        start, end = start + aside, end + aside
        speed = self.speeds[actor.id]
        going = speed > 0 and float(np.linalg.norm(end - start)) > 1e-6
        if going:
            points = self._path(actor, cast, start, end, who)
        else:
            points = walk(self.ground, start, start, cast.radius, self.notes, who, POINTS)
        forward = tuple(cast.clip.gait["forward"]) if cast.clip.gait["usable"] else (0.0, -1.0, 0.0)
        turns = (
            capped(face(points, forward), points, speed, MOST_TURN)
            if going
            else np.repeat(self._stance(actor, points[0], forward)[None], POINTS, 0)
        )
        track = self._timed(actor, cast, points, turns, going, speed, member)
        if going:
            track = self._yielding(actor, cast, track, start, end, forward)
        return Placed(actor.id, member, cast, track, going, speed if going else 0.0)

    def _yielding(
        self, actor: Actor, cast: Cast, track: Track, start: Floats, end: Floats, forward: Any
    ) -> Track:
        """The track of one that lets the others pass: it waits, else goes around where it would meet them."""
        related = actor.relation.actor if actor.relation is not None else None
        others = [
            disc_of(p) for p in self.done
            if p.actor not in (actor.id, related) and not self._related_to(p.actor, actor.id)
        ]  # fmt: skip
        disc, who = Disc(track, min(cast.half)), f"actor {actor.id}"
        if not others or not len(meetings(disc, others, self.seconds)):
            return track
        later = waited(disc, others, self.seconds)
        if later is not None:
            self.notes.append(f"{who}: waits {later.begin:.1f} s to let another pass")
            return later
        if actor.path.shape == "straight":
            ground = self._with_still(actor).without(meetings(disc, others, self.seconds))
            points = walk(ground, start, end, cast.radius, [], who)
            points[:, 2] += track.points[0, 2] - self.ground.height_at(*track.points[0, :2])
            turns = capped(face(points, forward), points, self.speeds[actor.id], MOST_TURN)
            longer = float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum()) / max(track.length, 1e-9)
            span = (track.end - track.begin - track.ease) * longer + track.ease
            around = replace(track, points=points, turns=turns, end=track.begin + span)
            if not len(meetings(Disc(around, disc.radius), others, self.seconds)):
                self.notes.append(f"{who}: goes around another")
                return around
        self.notes.append(f"{who}: meets another on its way; no wait of 2 s and no way around avoids it")
        return track

    def _related_to(self, one: int, other: int) -> bool:
        """Whether the spec says of `one` how it stands to `other`."""
        relation = self.spec.actors[one].relation
        return relation is not None and relation.actor == other

    def _ends(self, actor: Actor, cast: Cast) -> tuple[Floats, Floats]:
        """Start and end [2] on the ground."""
        length, lane = self.lengths[actor.id], self.lanes[actor.id]
        start, end = np.array([-length / 2, lane]), np.array([length / 2, lane])
        related = self._related(actor, cast, length)
        if related is not None:
            return related
        a = self._place(actor.start, cast, lane, length > 0)
        b = self._place(actor.end, cast, lane, length > 0)
        if length == 0:
            place = a if a is not None else b if b is not None else np.array([self._standing_x(actor), lane])
            return place, place
        if a is not None and b is not None:
            way = b - a
            size = float(np.linalg.norm(way))
            if size > 1e-6:
                centre = (a + b) / 2
                return centre - way / size * length / 2, centre + way / size * length / 2
        if b is not None and float(np.linalg.norm(b - start)) > 1e-6:
            way = (b - np.array([0.0, lane])) / max(float(np.linalg.norm(b - np.array([0.0, lane]))), 1e-9)
            return np.array([0.0, lane]) - way * length / 2, np.array([0.0, lane]) + way * length / 2
        if a is not None and actor.start is not None and actor.start.kind == "side":
            way = np.array([0.0, lane]) - a
            way = way / max(float(np.linalg.norm(way)), 1e-9)
            return np.array([0.0, lane]) - way * length / 2, np.array([0.0, lane]) + way * length / 2
        return start, end

    def _standing_x(self, actor: Actor) -> float:
        still = [a.id for a in self.spec.actors if self.speeds[a.id] == 0]
        if len(still) < 2:
            return 0.0
        i = still.index(actor.id)
        return float(np.linspace(-0.5, 0.5, len(still))[i] * 2 * self.stage.half_width * 0.6)

    def _place(self, place: Place | None, cast: Cast, lane: float, going: bool) -> Floats | None:
        if place is None:
            return None
        w, d = 0.9 * (self.stage.half_width - 1.0), 0.9 * max(self.stage.half_depth - 0.5, 0.5)
        if place.kind == "side":
            sides = {"left": (-w, lane), "right": (w, lane), "near": (0, -d), "far": (0, d), "centre": (0, 0)}
            return np.array(sides[str(place.value)], np.float64)
        if place.kind == "landmark":
            word = landmark_word(str(place.value))
            mark = next((m for m in self.stage.landmarks if m.name == word), None)
            if mark is None:
                return None
            if mark.walkable or (going and place.relation == "at"):
                return np.array([mark.centre[0], lane])
            if place.relation in ("behind",):
                return np.array([mark.centre[0], mark.high[1] + cast.radius + 0.2])
            return np.array([mark.centre[0], mark.low[1] - max(cast.half) - 0.15])
        if place.kind == "actor":
            other = next((p for p in self.done if p.actor == place.value), None)
            return None if other is None else other.track.points[0][:2] + self._beside(other, cast)
        return None

    def _beside(self, other: Placed, cast: Cast) -> Floats:
        return np.array([1.2 * (max(other.cast.half) + max(cast.half)), 0.0])

    def _related(self, actor: Actor, cast: Cast, length: float) -> tuple[Floats, Floats] | None:
        relation = actor.relation
        others = [] if relation is None else [p for p in self.done if p.actor == relation.actor]
        if relation is None or not others:
            return None
        other, kind = others[0], relation.kind
        a, b = other.track.points[0][:2], other.track.points[-1][:2]
        way = b - a if other.going else np.array([1.0, 0.0])
        way = way / max(float(np.linalg.norm(way)), 1e-9)
        gap = 1.2 * (max(other.cast.half) + max(cast.half))
        if kind in ("chase", "follow", "lead") and length > 0:
            members = max(p.member for p in others)
            behind = other.cast.half[1] + cast.half[1] + 0.5 * 2 * cast.half[1]
            shift = way * (behind + members * 2.4 * other.cast.half[1])
            shift = shift if kind == "lead" else -shift
            return a + shift, b + shift
        if kind == "toward" and length > 0:
            end = a - way * gap
            return end - way * length, end
        if kind == "away_from" and length > 0:
            start = a + way * gap
            return start, start + way * length
        offsets = {
            "left_of": (-gap, 0), "right_of": (gap, 0), "in_front_of": (0, -gap), "behind": (0, gap),
            "on": (0, 0), "above": (0, 0), "under": (0, 0),
        }  # fmt: skip
        shift = np.array(offsets.get(kind, (gap, 0.0)), np.float64)
        if length > 0:
            return a + shift, a + shift + (b - a if other.going else np.array([length, 0.0]))
        return a + shift, a + shift

    def _aside(self, actor: Actor, cast: Cast, member: int, way: Floats) -> Floats:
        """Offset [2] of a member of a group: rows, then staggered."""
        if actor.count == 1:
            return np.zeros(2)
        rows = rows_of(actor.count)
        row, column = member % rows, member // rows
        size = float(np.linalg.norm(way))
        along = way / size if size > 1e-6 else np.array([1.0, 0.0])
        across = np.array([-along[1], along[0]])
        step = 2.5 * cast.half[1] if size > 1e-6 else 2.6 * max(cast.half)
        back = -(column + 0.5 * (row % 2)) * step
        return along * back + across * (row - (rows - 1) / 2) * breadth(cast)

    def _path(self, actor: Actor, cast: Cast, start: Floats, end: Floats, who: str) -> Floats:
        shape = actor.path.shape
        if shape == "straight":
            return walk(self._with_still(actor), start, end, cast.radius, self.notes, who)
        centre = None
        radius = max(1.5 * 2 * cast.half[1], 0.5)
        around = actor.path.around
        if around is not None and around.kind == "landmark":
            word = landmark_word(str(around.value))
            mark = next((m for m in self.stage.landmarks if m.name == word), None)
            if mark is not None:
                centre = mark.centre
                radius = float(np.hypot(mark.high[0] - mark.low[0], mark.high[1] - mark.low[1])) / 2 + 1
        elif around is not None and around.kind == "actor":
            other = next((p for p in self.done if p.actor == around.value), None)
            if other is not None:
                centre = other.track.points[0][:2]
                radius = max(radius, max(other.cast.half) + max(cast.half) + 0.3)
        flat = resampled(
            shaped(shape, start, end, self.seed + actor.id, radius, centre),
            60 if shape == "circle" else POINTS,
        )
        if shape == "circle":
            # As much of the circle as is walked in the film's time.
            around_length = 2 * np.pi * radius
            share = min(1.0, self.lengths[actor.id] / around_length)
            flat = resampled(flat[: max(2, int(np.ceil(share * 59)) + 1)])
        return np.column_stack([flat, [self.ground.height_at(x, y) for x, y in flat]])

    def _with_still(self, actor: Actor) -> Ground:
        """The ground with those that stand on it as obstacles."""
        still = [
            (*other.track.points[0][:2], 0.8 * max(other.cast.half))
            for other in self.done
            if not other.going and other.actor != actor.id
        ]
        return self.ground.without(still)

    def _stance(self, actor: Actor, point: Floats, forward: Any) -> Floats:
        """Rotation of one that stays: to whom it has to do with, else three quarters to the camera."""
        way = np.array([0.55 if (actor.id % 2 == 0) else -0.55, -0.83, 0.0])
        if actor.relation is not None:
            other = next((p for p in self.done if p.actor == actor.relation.actor), None)
            if other is not None and actor.relation.kind in ("facing", "toward", "chase", "follow"):
                to = other.track.points[0] - point
                way = to if float(np.linalg.norm(to[:2])) > 1e-6 else way
        return face(np.stack([point, point + way]), forward)[0]

    def _timed(
        self, actor: Actor, cast: Cast, points: Floats, turns: Floats, going: bool, speed: float, member: int
    ) -> Track:
        clip = cast.clip
        floats = (actor.action in FLOATING or clip.floats) and not clip.gait["usable"]
        if floats:
            points = points + np.array([0, 0, 0.5 * cast.metres])
        length = float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())
        span = length / speed + 0.25 if going else 0.0
        gait = clip.gait
        stride = 0.0
        if going and gait["usable"]:
            stride = gait["speed"] * gait["height"] * cast.scale
        loop = "cycle" if clip.closes else "fade"
        if actor.action not in ONGOING:
            loop = "hold" if not clip.closes else "cycle"
        track = Track(
            points, turns, cast.scale, clip.ground, 0.0, min(span, self.seconds * 4), stride=stride,
            rate=actor.speed.factor if not going else 1.0, phase=0.37 * member * clip.seconds, loop=loop,
        )  # fmt: skip
        if not stride:
            return track
        fellows = [p.track.phase for p in self.done if p.actor == actor.id]
        return replace(track, phase=phase_of(track, self.seconds, clip.seconds, clip.slides, fellows))
