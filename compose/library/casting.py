"""Which asset plays each actor of a spec, and with which motion: the choice, its rivals, what stands in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orbit4d.compose.library.catalogue import Entry, Library
from orbit4d.compose.library.credits import Credit, credit
from orbit4d.compose.library.retrieval import STANDS_IN, Encoder, action_fits, object_score, retrieve
from orbit4d.compose.spec import Actor, Spec
from orbit4d.compose.strict_json import printable
from orbit4d.datasets.core.errors import InputError

N_BEST = 5


@dataclass(frozen=True)
class Cast:
    """Who plays an actor: the entry, its score, the five best answers, and what about it stands in."""

    actor: int
    entry: Entry
    score: float
    best: tuple[tuple[str, str, float], ...]
    object_stands_in: bool
    action_stands_in: bool

    def line(self, actor: Actor, plays: str | None = None) -> str:
        """One line for the end of a run; `plays` is the motion, where it is not the entry's own."""
        motion = self.entry.action if plays is None else plays
        said = f'"{printable(actor.object, 60)} {printable(actor.action_text or actor.action, 40)}"'
        who = f"{said}: {printable(self.entry.uid, 80)}, {printable(motion or 'still', 80)}"
        parts = []
        if self.object_stands_in:
            parts.append(f"stands in for {printable(actor.object, 40)}")
        lent = motion != self.entry.action
        if self.action_stands_in and actor.action_given and not lent:
            parts.append(f"no motion for {printable(actor.action, 40)}")
        parts += [] if actor.action_given else [f"no motion named: {printable(motion or 'still', 40)}"]
        return f"{who} ({'; '.join([*parts, f'score {self.score:.2f}'])})"

    def as_json(self) -> dict[str, Any]:
        best = [{"uid": uid, "action": action, "score": round(score, 6)} for uid, action, score in self.best]
        return {
            "actor": self.actor,
            "uid": self.entry.uid,
            "action": self.entry.action,
            "file": self.entry.file,
            "licence": self.entry.licence,
            "score": round(self.score, 6),
            "object_stands_in": self.object_stands_in,
            "action_stands_in": self.action_stands_in,
            "best": best,
        }


def cast(spec: Spec, library: Library, strict: bool = False, encoder: Encoder | None = None) -> list[Cast]:
    """The cast of a spec, in the order of its actors.

    Raises:
        InputError: with `strict`, an object that the library does not have; the line names the nearest.
    """
    return [_cast_one(actor, library, strict, encoder) for actor in spec.actors]


def _cast_one(actor: Actor, library: Library, strict: bool, encoder: Encoder | None) -> Cast:
    found = retrieve(actor.object, actor.action.replace("_", " "), library, encoder)
    uid, action, score = found[0]
    near = object_score(actor.object, uid, library)
    named = _is_named(actor.object, library.entry(uid, action))
    if strict and near < STANDS_IN:
        raise InputError(
            f"no asset for {printable(actor.object, 60)!r} in {len(library.uids)} assets; nearest: "
            f"{printable(uid, 60)}; add a library or drop --strict"
        )
    return Cast(
        actor=actor.id,
        entry=library.entry(uid, action),
        score=score,
        best=tuple(found[:N_BEST]),
        object_stands_in=near < STANDS_IN or not named,
        action_stands_in=not action_fits(actor.action.replace("_", " "), uid, action, library),
    )


def _is_named(object_: str, entry: Entry) -> bool:
    """Whether the asset is called what was asked for, or is a kind of it."""
    from orbit4d.compose.library.terms import nouns_of, widened, words_of_name

    words = nouns_of(object_)
    if not words:
        return False
    have = set(nouns_of(entry.caption or " ".join(words_of_name(entry.uid))))
    kinds = {word for word, weight in widened(words[-1]) if weight >= 0.6}
    return words[-1] in have or bool(kinds & have)


def credits_of(casts: list[Cast]) -> list[Credit]:
    """One row per concept used: each object, and the motion of another asset where one is borrowed."""
    return [credit("object", one.actor, one.entry) for one in casts]
