"""What a prepositional phrase says: of its subject, of other actors, of the scene and the weather."""

from __future__ import annotations

from orbit4d.compose.director.rules.draft import ActorDraft, PlaceDraft
from orbit4d.compose.director.rules.noun_phrases import NounPhrase
from orbit4d.compose.director.rules.state import State
from orbit4d.compose.language.nouns import BODY, CLOTHES, SCENES, TALK, VESSELS
from orbit4d.compose.spec import RelationKind

RELATION_OF: dict[str, RelationKind] = {
    "near": "beside",
    "beside": "beside",
    "behind": "behind",
    "in_front_of": "in_front_of",
    "left_of": "left_of",
    "right_of": "right_of",
    "under": "under",
    "on": "on",
}


def place_phrase(state: State, kind: str, said: str, phrase: NounPhrase, start: int) -> None:
    if kind == "without" or phrase.negated:
        exclude(state, phrase)
    elif not phrase.words and kind in ("to", "from"):
        _another(state, kind, phrase)
    elif phrase.kind == "weather" or kind == "time" or (kind == "under" and phrase.head in ("moon", "sky")):
        set_weather(state, phrase, said)
    elif phrase.head in TALK and kind != "to":
        phrase.use()
    elif (
        said in ("in", "on", "with")
        and phrase.head in CLOTHES | BODY
        and not phrase.words[-1].text.endswith("'s")
    ):
        state.clause.belonging = True
    elif kind == "with" or (kind == "other" and said != "like"):
        _companion(state, phrase, said)
    elif said == "like":
        phrase.use()
    elif phrase.head in VESSELS and kind in ("scene", "under", "on") and not state._named_before(phrase):
        _landmark(state, kind, said, phrase, start)
    elif phrase.kind == "actor" or not phrase.words or state._named_before(phrase):
        relate(state, kind, said, state.actor_of(phrase))
    else:
        _landmark(state, kind, said, phrase, start)


def _another(state: State, kind: str, phrase: NounPhrase) -> None:
    """ "from one tree to another": the noun stands in the place before."""
    phrase.use()
    before = next((actor.start for actor in state.targets() if actor.start), None)
    if before is not None and before.kind == "landmark":
        give_place(
            state, PlaceDraft("landmark", f"another {before.value}"), "end" if kind == "to" else "start"
        )


def relate(state: State, kind: str, said: str, other: ActorDraft) -> None:
    """What a preposition before an actor makes of the subject."""
    relation: RelationKind | None = RELATION_OF.get(kind)
    if kind == "to":
        relation = "toward"
    elif kind == "away" or (kind == "from" and state.before != "np"):
        relation = "away_from"
    elif kind == "around":
        for actor in state.targets():
            if actor is not other:
                actor.shape, actor.around = "circle", PlaceDraft("actor", other)
                actor.path_words.append("around")
        return
    elif kind == "scene":
        relation = {
            "on": "on",
            "upon": "on",
            "over": "above",
            "above": "above",
            "in": "on",
            "inside": "on",
        }.get(said)  # type: ignore[assignment]
        if said == "at":
            last = state.clause.verbs[-1][0] if state.clause.verbs else ""
            relation = (
                "toward" if last in ("walk", "run", "fly", "swim", "drive", "move", "jump") else "facing"
            )
    set_relation(state, relation, other)


def set_relation(state: State, relation: RelationKind | None, other: ActorDraft) -> None:
    if relation is None:
        return
    targets = state.targets()
    if not targets and not state.clause.scenery:
        state.clause.front_relation = (relation, other)
    for actor in targets:
        if actor is not other and actor.relation is None:
            actor.relation = (relation, other)


def _landmark(state: State, kind: str, said: str, phrase: NounPhrase, start: int) -> None:
    targets = state.targets()
    if kind in ("scene", "centre"):
        set_scene(state, phrase, said, start)
        if kind == "centre":
            give_place(state, PlaceDraft("side", "centre"), "start")
        elif phrase.kind == "thing" and said in ("in", "on", "upon", "inside", "at") and targets:
            relation = "on" if said in ("on", "upon") else "at"
            give_place(state, PlaceDraft("landmark", phrase.text, relation), "start")
        return
    phrase.use()
    if kind == "around":
        for actor in targets:
            actor.shape, actor.around = "circle", PlaceDraft("landmark", phrase.text)
            actor.path_words.append("around")
    elif kind == "to":
        give_place(state, PlaceDraft("landmark", phrase.text), "end")
    elif kind in ("from", "away"):
        give_place(state, PlaceDraft("landmark", phrase.text), "start")
    elif state.before != "prep" or not any(actor.start or actor.end for actor in targets):
        give_place(state, PlaceDraft("landmark", phrase.text, kind), "start")


def give_place(state: State, place: PlaceDraft, which: str) -> None:
    """Give a place to whom it is said of, or keep it for the subject that comes."""
    targets = state.targets()
    if not targets and which == "start":
        if not state.clause.scenery:
            state.clause.front.append(place)
        return
    for actor in targets:
        if getattr(actor, which) is None:
            setattr(actor, which, place)


def set_scene(state: State, phrase: NounPhrase, said: str, start: int) -> None:
    film, clause = state.film, state.clause
    known = phrase.head in SCENES
    between = state.tokens[clause.scene_end : start] if clause.scene_end >= 0 else []
    adjacent = clause.scene_end >= 0 and all(
        t.text[0].isalpha() and t.text not in ("and", "or") for t in between
    )
    adjacent &= len(between) <= 1
    if film.scene is None or (known and not film.scene_known):
        film.scene, film.scene_known = phrase.as_written, known
    elif known and adjacent and len(film.scene) + len(phrase.as_written) < 150:
        film.scene += f" {said} {phrase.as_written}"
    elif phrase.as_written.split()[-1] not in film.scene.split():
        return
    phrase.use()
    clause.scene_end = state.at


def set_weather(state: State, phrase: NounPhrase, said: str = "") -> None:
    phrase.use()
    words = f"{said} {phrase.text}".strip() if said in ("at", "in", "on", "under", "during") else phrase.text
    if words not in state.film.weather:
        state.film.weather.append(words)


def exclude(state: State, phrase: NounPhrase) -> None:
    phrase.use()
    name = phrase.object or phrase.head
    if name and name not in state.film.excluded:
        state.film.excluded.append(name)


def _companion(state: State, phrase: NounPhrase, said: str) -> None:
    """ "with a dog" is an actor beside, "with a hat" belongs to the subject; "of", "past", "for" alike."""
    known = phrase.kind == "actor" and phrase.determiner.split(" ")[-1] not in ("of",)
    if not known and not state._named_before(phrase):
        if said == "between" and phrase.words:
            # No word of a spec says between; near the first of them is closest to it.
            phrase.use()
            give_place(state, PlaceDraft("landmark", phrase.text, "near"), "start")
        state.clause.belonging = said in ("with", "of")
        return
    if said in ("of", "about") and state.clause.group:
        phrase.use()
        return
    other = state.actor_of(phrase)
    if not state.clause.group and (said == "with" or (not state.clause.scenery and said in ("of", "about"))):
        # "a beach with a crab walking": what follows is of the crab, whatever the beach is.
        state.clause.group, other.subject, state.clause.scenery = [other], True, False
        state.take_front()
        state.before = "np"
        return
    if said == "before":
        set_relation(state, "facing", other)
    if said in ("with", "along", "together", "accompanied"):
        set_relation_of(other, state.targets())
        if state.clause.has_verb and state.clause.verbs and other.action is None:
            other.weak_action = state.clause.verbs[-1][0]


def set_relation_of(other: ActorDraft, subjects: list[ActorDraft]) -> None:
    if subjects and other not in subjects and other.relation is None:
        other.relation = ("beside", subjects[0])
