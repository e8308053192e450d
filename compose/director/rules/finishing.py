"""From what was read to a spec: announced groups, chases, defaults, refusals."""

from __future__ import annotations

from orbit4d.compose.director.rules.draft import ActorDraft, FilmDraft, PlaceDraft, ShotDraft
from orbit4d.compose.language.nouns import SWIMMERS
from orbit4d.compose.language.verbs import RELATING, VERB_FORMS
from orbit4d.compose.spec import (
    MAX_ACTORS,
    MAX_SHOTS,
    MAX_THEN,
    Actor,
    Path,
    Place,
    Relation,
    Setting,
    Shot,
    Size,
    Spec,
    Speed,
)
from orbit4d.datasets.core.errors import InputError

EXAMPLE = "write for example 'a fox walks through a forest'"


def finish(film: FilmDraft, prompt: str, unused: tuple[str, ...]) -> Spec:
    """The spec of a film that was read.

    Raises:
        InputError: nobody is in it, everybody is excluded, or there are more actors than a film holds.
    """
    _drop_unknown(film)
    _drop_announced(film)
    if film.excluded and not film.actors:
        raise InputError(f"prompt: every actor is excluded; {EXAMPLE}")
    if not film.actors:
        raise InputError(f"prompt: there is nobody in it who could act; {EXAMPLE}")
    if len(film.actors) > MAX_ACTORS:
        raise InputError(f"prompt: {len(film.actors)} actors, at most {MAX_ACTORS}; {EXAMPLE}")
    for actor in film.actors:
        if actor.action is None and actor.weak_action is not None:
            actor.action = actor.weak_action
        if film.slow and actor.speed == 1.0 and not actor.mps:
            actor.speed = 0.5
        _in_its_element(actor)
    ids = {id(actor): index for index, actor in enumerate(film.actors)}
    actors = tuple(_actor(actor, ids) for actor in film.actors)
    camera = tuple(_shot(shot, ids) for shot in film.shots[:MAX_SHOTS])
    excluded = tuple(film.excluded[:MAX_ACTORS])
    return Spec(
        prompt=prompt,
        actors=actors,
        director="rules",
        scene=Setting(_scene(film)),
        excluded=excluded,
        camera=camera,
        duration_s=film.seconds,
        unused=unused,
    )


def _in_its_element(actor: ActorDraft) -> None:
    """A fish that follows, leads or approaches swims: the verb says where to, not how."""
    verb = VERB_FORMS.get(actor.action_text.split(" ")[0], ("", ""))[0]
    if actor.action == "walk" and actor.head in SWIMMERS and (verb in RELATING or not actor.action_text):
        actor.action = "swim"


def _drop_unknown(film: FilmDraft) -> None:
    """An unknown noun is an actor only with a verb that is known; excluded objects are none."""
    gone = [a for a in film.actors if (not a.known and not a.verb_known) or a.object in film.excluded]
    film.actors = [actor for actor in film.actors if actor not in gone]
    _forget(film, gone)


def _drop_announced(film: FilmDraft) -> None:
    """ "Four characters ... a man, a woman, a clown and a ghost": the four are these."""
    for actor in list(film.actors):
        after = film.actors[film.actors.index(actor) + 1 :]
        if actor.announced and sum(one.count for one in after) >= actor.count:
            for one in after:
                if one.action is None and actor.action is not None:
                    one.weak_action = one.weak_action or actor.action
            film.actors.remove(actor)
            _forget(film, [actor])


def _forget(film: FilmDraft, gone: list[ActorDraft]) -> None:
    for actor in film.actors:
        if actor.relation is not None and actor.relation[1] in gone:
            actor.relation = None
        for name in ("start", "end", "around"):
            place = getattr(actor, name)
            if place is not None and place.value in gone:
                setattr(actor, name, None)
    for shot in film.shots:
        shot.of = None if shot.of in gone else shot.of


def _scene(film: FilmDraft) -> str | None:
    if film.scene is None:
        words = [
            w.split(" ", 1)[1] if w.split(" ")[0] in ("at", "in", "on", "under", "during") else w
            for w in film.weather
        ]
        return " ".join(words)[:200].strip() or None
    return " ".join([film.scene, *film.weather])[:200].strip()


def _actor(draft: ActorDraft, ids: dict[int, int]) -> Actor:
    relation = draft.relation and Relation(draft.relation[0], ids[id(draft.relation[1])])
    given = draft.action is not None
    return Actor(
        id=ids[id(draft)],
        object=draft.object,
        action=draft.action or "idle",
        action_text=draft.action_text[:200],
        action_given=given,
        then=tuple(draft.then[:MAX_THEN]),
        count=draft.count,
        size=Size(1.0 if draft.metres else round(draft.factor, 6), draft.metres),
        start=_place(draft.start, ids),
        end=_place(draft.end, ids),
        path=Path(draft.shape, _place(draft.around, ids), tuple(dict.fromkeys(draft.path_words))),
        speed=Speed(1.0 if draft.mps else draft.speed, draft.mps),
        distance_m=draft.distance_m,
        relation=relation,
    )


def _place(draft: PlaceDraft | None, ids: dict[int, int]) -> Place | None:
    if draft is None:
        return None
    value = ids[id(draft.value)] if isinstance(draft.value, ActorDraft) else draft.value
    return Place(draft.kind, value, draft.relation)  # type: ignore[arg-type]


def _shot(draft: ShotDraft, ids: dict[int, int]) -> Shot:
    of = ids[id(draft.of)] if draft.of is not None else None
    return Shot(draft.move, draft.shot, draft.angle, of)  # type: ignore[arg-type]
