"""Where things are, start and go: prepositions, sides of the image, landmarks, other actors, the scene."""

from __future__ import annotations

import re

from orbit4d.compose.director.rules.draft import PlaceDraft
from orbit4d.compose.director.rules.noun_phrases import NounPhrase
from orbit4d.compose.director.rules.relations import (
    RELATION_OF,
    exclude,
    give_place,
    place_phrase,
    relate,
    set_scene,
)
from orbit4d.compose.director.rules.state import State
from orbit4d.compose.language.inflect import singular
from orbit4d.compose.language.nouns import BODY, TALK
from orbit4d.compose.language.verbs import VERB_FORMS, canonical_action
from orbit4d.compose.language.words import OBJECTS, POSSESSIVES, PREPOSITIONS
from orbit4d.compose.spec import PathShape

#: Prepositions of several words, longest first where one begins another.
_SEVERAL = {
    "in front of": "in_front_of",
    "ahead of": "in_front_of",
    "in back of": "behind",
    "on the other side of": "behind",
    "on the far side of": "behind",
    "to the left of": "left_of",
    "to the right of": "right_of",
    "left of": "left_of",
    "right of": "right_of",
    "next to": "beside",
    "side by side with": "beside",
    "at the side of": "beside",
    "by the side of": "beside",
    "close to": "near",
    "near to": "near",
    "at the foot of": "near",
    "at the edge of": "near",
    "on the edge of": "near",
    "on top of": "on",
    "on the back of": "on",
    "at the top of": "on",
    "away from": "away",
    "far from": "away",
    "out of": "from",
    "starting from": "from",
    "starting at": "from",
    "starts from": "from",
    "coming from": "from",
    "beginning at": "from",
    "all the way to": "to",
    "in the direction of": "to",
    "up to": "to",
    "up on": "to",
    "over to": "to",
    "back to": "to",
    "down to": "to",
    "in the middle of": "centre",
    "in the centre of": "centre",
    "in the center of": "centre",
    "at the centre of": "centre",
    "at the center of": "centre",
    "in the midst of": "scene",
    "in the heart of": "scene",
    "inside of": "scene",
    "outside of": "scene",
    "together with": "with",
    "along with": "with",
    "accompanied by": "with",
    "instead of": "without",
    "rather than": "without",
    "free of": "without",
    "around the": "around",
    "all around": "around",
}
_SIDE = re.compile(
    r"(?:the |its |their |his |her )?(?:(?:very|far|lower|upper|bottom|top|front|rear|extreme|near) )*"
    r"(left|right|front|back|foreground|background|distance|centre|center|middle|camera|viewer|audience|top|bottom"
    r"|horizon|screen)"
    r"(?:[ -]hand)?(?: (?:side|edge|corner|half|part|end|border|third))?(?![^ ])"
    r"(?:( and| to) (?:the )?(left|right)(?: (?:side|edge|corner|half|part|end))?(?![^ ]))?"
)
_SIDES = {
    "left": "left",
    "right": "right",
    **dict.fromkeys(("front", "foreground", "camera", "viewer", "audience", "bottom", "screen"), "near"),
    **dict.fromkeys(("back", "background", "distance", "top", "horizon"), "far"),
    **dict.fromkeys(("centre", "center", "middle"), "centre"),
}
_SHAPES: dict[str, PathShape] = {
    **dict.fromkeys(("circle", "loop", "ring", "lap", "round"), "circle"),
    **dict.fromkeys(("zigzag", "zigzags", "zig-zag", "slalom", "serpentine"), "zigzag"),
    **dict.fromkeys(("curve", "arc", "spiral", "bend", "semicircle"), "curve"),
    "line": "straight",
}
_FORMATIONS = {
    "row",
    "line",
    "formation",
    "queue",
    "unison",
    "sync",
    "turn",
    "file",
    "air",
    "way",
    "pace",
    "speed",
}
_PARTS = {
    "side",
    "edge",
    "corner",
    "middle",
    "centre",
    "center",
    "top",
    "bottom",
    "end",
    "foot",
    "bank",
    "part",
}


def preposition_at(state: State) -> tuple[str, int] | None:
    """(what it does, words it has) of the preposition here; None where none is."""
    for words in (5, 4, 3, 2):
        if (said := state.texts(words)) in _SEVERAL:
            kind = _SEVERAL[said]
            return kind, words - (said == "around the")
    text = state.text()
    return (PREPOSITIONS[text], 1) if text in PREPOSITIONS else None


def on_preposition(state: State) -> bool:
    """Read a prepositional phrase; False where none stands here."""
    found = preposition_at(state)
    if found is None:
        return _on_bare_side(state)
    kind, words = found
    if kind in ("scene", "from", "to", "near", "away", "in_front_of") and _on_side(state, kind, words):
        return True
    said = state.text()
    rest = state.phrase(state.at + words)
    if rest is None:
        return _without_noun(state, kind, words)
    phrase, end = rest
    if said in ("in", "along", "through", "at", "on") and _on_shape(state, phrase, end):
        return True
    start = state.at
    state.eat(words)
    phrase, end = _whole(state, phrase, end)
    state.at = end
    place_phrase(state, kind, said, phrase, start)
    _coordinated(state, kind, said)
    if state.before != "and" and not (
        kind in ("with", "other") and state.clause.group == [state.clause.last]
    ):
        state.before = "prep"
    return True


def _whole(state: State, phrase: NounPhrase, end: int) -> tuple[NounPhrase, int]:
    """A noun phrase with "of ...": the middle of the road is the road, a pile of wood a pile."""
    while end < len(state.tokens) and state.tokens[end].text == "of":
        inner = state.phrase(end + 1)
        if inner is None:
            break
        if phrase.head in _PARTS or phrase.head in TALK or (phrase.head in BODY and inner[0].kind == "actor"):
            phrase.use()
            phrase = inner[0]
        else:
            inner[0].use()
            if inner[0].kind in ("scene", "thing"):
                phrase.of = inner[0].text
        end = inner[1]
    return phrase, end


def _coordinated(state: State, kind: str, said: str) -> None:
    """ "without people or cars", "between a tree and a rock": more of the same preposition."""
    while state.text() in ("and", "or", ",", "nor") and (more := state.phrase(state.at + 1)) is not None:
        phrase, end = more
        if state.verb_follows(end):
            return
        if kind == "without" or phrase.negated:
            exclude(state, phrase)
        elif kind in ("with", "other") and phrase.kind != "actor":
            if said == "between":
                phrase.use()
        elif kind in RELATION_OF and phrase.kind == "actor":
            state.actor_of(phrase)
        else:
            return
        state.eat(1)
        state.at = end


def _without_noun(state: State, kind: str, words: int) -> bool:
    """A preposition with no noun after it: "next to him", "without moving", "walks around", "to drink"."""
    after = state.text(words)
    if after in OBJECTS and (other := state.other_actor()) is not None:
        start = state.text()
        state.eat(words + 1)
        if kind == "with":
            for actor in state.targets():
                actor.relation = actor.relation or ("beside", other)
        else:
            relate(state, kind, start, other)
        state.before = "prep"
        return True
    if kind == "without" and after in VERB_FORMS:
        lemma = VERB_FORMS[after][0]
        for actor in state.targets():
            if canonical_action(lemma) in ("move", "walk") and actor.action is None:
                actor.act("idle", f"without {after}")
        state.eat(2)
        return True
    if kind == "around" and after not in POSSESSIVES:
        for actor in state.targets():
            if actor.shape == "straight":
                actor.shape = "wander"
                actor.path_words.append("around")
        state.eat(1)
        return True
    if kind == "to" and words == 1 and VERB_FORMS.get(after, ("", ""))[1] == "base":
        state.eat(1)
        state.before = "aux"
        return True
    if state.text() in ("before", "after") and after in VERB_FORMS and after.endswith("ing"):
        state.eat(1)
        state.before = "aux"
        return True
    return False


def _on_shape(state: State, phrase: NounPhrase, end: int) -> bool:
    """ "in a circle", "in a zigzag", "along a curved path", "in a row"."""
    words = {word.text for word in phrase.words} | {phrase.head, singular(phrase.head)}
    shape = next((_SHAPES[word] for word in sorted(words) if word in _SHAPES), None)
    if {"curved", "winding", "curvy"} & words:
        shape = "curve"
    if "line" in words and "straight" not in words and phrase.head == "line":
        shape = None
    if shape is None and phrase.head not in _FORMATIONS:
        return False
    for actor in state.targets():
        if shape is not None:
            actor.shape = shape
            actor.path_words.append(phrase.text)
    state.eat(end - state.at)
    state.before = "prep"
    return True


def _on_side(state: State, kind: str, words: int) -> bool:
    """A side of the image after a preposition: "from the left", "on the right side of the stage"."""
    rest = " ".join(token.text for token in state.tokens[state.at + words : state.at + words + 10])
    found = _SIDE.match(rest)
    if found is None:
        return False
    n = len(found.group().split())
    if state.text() == "at" and found.group(1) in ("camera", "viewer", "audience"):
        state.eat(words + n)
        return True
    side = _SIDES[found.group(1)]
    after = state.text(words + n)
    end = state.at + words + n
    beyond = state.phrase(end + 1) if after == "of" else None
    if (
        found.group(1) not in ("camera", "viewer", "audience")
        and state.phrase(state.at + words)
        and after not in ("of",)
    ):
        phrase, stop = state.phrase(state.at + words) or (None, 0)
        if (
            phrase is not None
            and phrase.head
            not in ("back", "side", "edge", "corner", "top", "bottom", "horizon", "distance", "screen")
            and stop > end
        ):
            return False  # "on the back porch", "at the front door"
    if (
        beyond is not None
        and beyond[0].kind in ("actor", "thing", "")
        and beyond[0].head not in TALK
        and side in ("left", "right")
    ):
        state.eat(words + n + 1)
        state.at = beyond[1]
        relation = "left_of" if side == "left" else "right_of"
        place_phrase(state, relation, relation, beyond[0], state.at)
        return True
    state.eat(words + n)
    sides = [side]
    if found.group(2) == " and":
        sides.append(_SIDES[found.group(3)])
    _give_sides(state, kind, sides)
    if found.group(2) == " to":
        give_place(state, PlaceDraft("side", _SIDES[found.group(3)]), "end")
    if beyond is not None:
        state.eat(1)
        start, state.at = state.at, beyond[1]
        beyond[0].use()
        if beyond[0].kind == "scene":
            set_scene(state, beyond[0], "on", start)
    state.before = "prep"
    return True


def _give_sides(state: State, kind: str, sides: list[str]) -> None:
    places = [PlaceDraft("side", side) for side in sides]
    if kind == "to":
        give_place(state, places[0], "end")
    elif kind == "away":
        give_place(state, PlaceDraft("side", "far" if sides[0] == "near" else "near"), "end")
    elif kind == "in_front_of" and sides[0] != "near":
        return
    else:
        state.clause.sides += places
        if (len(places) == 1 and state.before != "prep") or (
            len(places) == 1 and not any(actor.start or actor.end for actor in state.targets())
        ):
            give_place(state, places[0], "start")


def _on_bare_side(state: State) -> bool:
    """ "left to right", "walks left", "leftwards", "forward", "zigzags", "back and forth"."""
    text = state.text()
    if state.texts(3) in ("left to right", "right to left"):
        give_place(state, PlaceDraft("side", text), "start")
        give_place(state, PlaceDraft("side", state.text(2)), "end")
        state.eat(3)
        return True
    direction = {
        "left": "left",
        "right": "right",
        "leftwards": "left",
        "rightwards": "right",
        "leftward": "left",
        "rightward": "right",
    }
    if text in direction and state.clause.has_verb:
        give_place(state, PlaceDraft("side", direction[text]), "end")
        state.eat(1)
        return True
    if text in ("zigzag", "zigzagging", "zigzags") and state.clause.group:
        for actor in state.targets():
            actor.shape = "zigzag"
            actor.path_words.append(text)
        state.eat(1)
        return True
    return False
