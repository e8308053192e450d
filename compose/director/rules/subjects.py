"""Noun phrases of a clause: its subjects, its objects, what belongs to them, the scene."""

from __future__ import annotations

from orbit4d.compose.director.rules.actions import on_object
from orbit4d.compose.director.rules.draft import ActorDraft
from orbit4d.compose.director.rules.noun_phrases import NounPhrase, is_adjective
from orbit4d.compose.director.rules.relations import exclude, set_scene, set_weather
from orbit4d.compose.director.rules.state import State
from orbit4d.compose.language.nouns import BODY, CLOTHES, GENERIC, NOUN_FORMS, SCENERY, TALK
from orbit4d.compose.language.verbs import CANONICAL, TALKING, VERB_FORMS
from orbit4d.compose.language.words import QUALITY, SIZES


def on_noun(state: State) -> bool:
    """A noun phrase: a subject, one more of them, an object, or the scene."""
    found = state.phrase()
    if found is None:
        return False
    phrase, end = found
    clause = state.clause
    if phrase.negated:
        _excluded(state, phrase, end)
        return True
    verb = state.verb_follows(end)
    if phrase.head in CLOTHES | BODY and clause.group and verb and not clause.belonging:
        state.at, state.skip_verb, state.before = end, True, "np"
        return True
    if state.before == "verb" or (
        state.before == "and" and clause.has_verb and not verb and state.last_relation
    ):
        again = state.last_relation if state.before == "and" else None
        on_object(state, phrase, end)
        if again is None:
            state.last_relation = None
        return True
    if clause.has_verb and state.before in ("and", "comma") and clause.group and verb:
        state.new_clause()
        clause = state.clause
    if _belongs(state, phrase, end, verb):
        return True
    if clause.has_verb and clause.group and state.before not in ("and", "comma"):
        on_object(state, phrase, end)
        return True
    _subject(state, phrase, end, verb)
    return True


def _excluded(state: State, phrase: NounPhrase, end: int) -> None:
    """ "no people", "no trees or cars"."""
    state.at = end
    exclude(state, phrase)
    while state.text() in ("or", "nor", "and", ",") and (more := state.phrase(state.at + 1)) is not None:
        if (
            more[0].determiner not in ("", "no", "any")
            or state.verb_follows(more[1])
            or (state.text() in ("and", ",") and more[0].determiner != "no")
        ):
            break
        state.eat(1)
        state.at = more[1]
        exclude(state, more[0])
    state.clause.scenery = not state.clause.group


def _belongs(state: State, phrase: NounPhrase, end: int, verb: bool) -> bool:
    """ "with a hat and a jacket": a thing after "and" goes on belonging; an actor ends that."""
    clause = state.clause
    if not clause.belonging or state.before not in ("and", "comma"):
        return False
    if phrase.kind == "actor":
        clause.belonging = False
        return False
    if phrase.kind == "" and verb and not clause.group:
        return False
    state.at = end
    state.before = "prep"
    return True


def _describes(state: State, phrase: NounPhrase, end: int) -> bool:
    """ "..., each tiny, ...": words that only describe are nobody, and said of those before."""
    plain = [word.text for word in phrase.words]
    if not plain or phrase.counted or any(word in NOUN_FORMS or not is_adjective(word) for word in plain):
        return False
    if phrase.determiner not in ("", "each", "both", "all") and phrase.words[-1].text not in QUALITY:
        return False
    for actor in state.clause.group or state.last_group:
        actor.factor = next((SIZES[word] for word in plain if word in SIZES), actor.factor)
    if any(word in SIZES for word in plain):
        phrase.use()
    state.at = end
    return True


def _subject(state: State, phrase: NounPhrase, end: int, verb: bool) -> None:
    clause = state.clause
    if _describes(state, phrase, end):
        return
    kind = phrase.kind
    scenery = phrase.head in SCENERY or kind == "weather" or phrase.head in TALK or phrase.head in ("camera",)
    if not phrase.words and not state.film.actors:
        state.at = end
        return
    if kind != "actor" and scenery and not phrase.participle:
        _set_aside(state, phrase, end, verb)
        return
    if phrase.determiner in ("my", "our") and _talks(state, end):
        state.at = end
        phrase.use()
        clause.scenery = True
        return
    if kind == "scene" and not (verb and phrase.determiner in ("a", "an") and _moves(state, end)):
        start, state.at = state.at, end
        set_scene(state, phrase, "", start)
        if verb and not clause.group:
            clause.scenery = True
        state.before = "np"
        return
    if kind != "actor" and not verb and phrase.words and not state._named_before(phrase):
        counted = bool(phrase.determiner or phrase.counted)
        acts = counted and bool(phrase.participle or clause.front_action)
        if not acts and (kind == "thing" or not counted):
            state.at = end
            state.before = "np"
            return
    _join(state, phrase, end)


def _set_aside(state: State, phrase: NounPhrase, end: int, verb: bool) -> None:
    """Scenery, weather and talk are no actors, and what they do is nothing of ours."""
    state.at = end
    if phrase.kind == "weather":
        set_weather(state, phrase)
    elif phrase.head in TALK:
        phrase.use()
    if verb and state.before not in ("and", "comma"):
        state.clause.scenery = not state.clause.group
    state.before = "np"


def _join(state: State, phrase: NounPhrase, end: int) -> None:
    """Make the phrase a subject: the first of its clause, or one more."""
    clause = state.clause
    generic = phrase.head in GENERIC and phrase.determiner.split(" ")[0] in ("the", "these", "both", "all")
    state.at = end
    more: list[ActorDraft]
    if generic and state._named_before(phrase) is None and state.film.actors:
        phrase.use()
        more = list(state.last_group or state.film.actors)
        more = list(state.film.actors) if phrase.plural and len(more) == 1 else more
    else:
        more = [state.actor_of(phrase)]
    joined = bool(clause.group) and not clause.has_verb
    if joined:
        clause.group += [actor for actor in more if actor not in clause.group]
    elif clause.has_verb and clause.group:
        for actor in more:
            if actor.action is None and clause.verbs:
                actor.weak_action = clause.verbs[-1][0]
            clause.group.append(actor)
    else:
        clause.group = more
    clause.scenery = False
    for actor in more:
        actor.subject = state.before != "talk"
    clause.last = more[-1]
    if not joined:
        state.take_front()
    state.before = "np"
    if (
        state.text() == "of"
        and (inner := state.phrase(state.at + 1)) is not None
        and inner[0].kind != "actor"
    ):
        state.eat(1)
        state.at = inner[1]


def _talks(state: State, end: int) -> bool:
    """Whether a speaker's relative or pet likes, wants or asks for something here."""
    return any(
        token.text in TALKING or VERB_FORMS.get(token.text, ("",))[0] in TALKING
        for token in state.tokens[end : end + 3]
    )


def _moves(state: State, end: int) -> bool:
    """Whether the next word is a verb of the canonical table."""
    token = state.tokens[end].text if end < len(state.tokens) else "."
    return VERB_FORMS.get(token, ("", ""))[0] in CANONICAL
