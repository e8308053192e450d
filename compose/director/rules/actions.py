"""What actors do: verbs with their particles and objects, relations, passives, negation, light verbs."""

from __future__ import annotations

from orbit4d.compose.director.rules.draft import ActorDraft, PlaceDraft
from orbit4d.compose.director.rules.noun_phrases import NounPhrase
from orbit4d.compose.director.rules.places import preposition_at
from orbit4d.compose.director.rules.relations import set_relation, set_scene
from orbit4d.compose.director.rules.state import State
from orbit4d.compose.language.inflect import verb_lemma
from orbit4d.compose.language.nouns import ACTORS, RELATIVES
from orbit4d.compose.language.verbs import (
    ACTION_NOUNS,
    BELONGING,
    GOING_VERBS,
    KNOWN_VERBS,
    LIGHT,
    PREPARING,
    RELATING,
    VERB_FORMS,
    canonical_action,
)
from orbit4d.compose.language.words import ARTICLES, MANNER, OBJECTS, POSSESSIVES, PREPOSITIONS
from orbit4d.compose.spec import RelationKind

_PARTICLES = {
    "down",
    "up",
    "off",
    "out",
    "away",
    "back",
    "about",
    "forward",
    "on",
    "over",
    "in",
    "forth",
    "along",
    "still",
    "past",
    "by",
}
_NOT_OBJECTS = {"still", "alone", "together", "there", "here", "home", "again"}
#: Canonical actions that go somewhere.
GOING_ACTIONS = {"walk", "swim", "fly", "drive", "move", "jump", "bounce", "roll"}
_LOOKING = {"watch", "look", "stare", "gaze", "glance"}


def on_verb(state: State) -> None:
    """Read the verb here with all that belongs to it."""
    text = state.text()
    lemma, form = VERB_FORMS.get(text, (verb_lemma(text), ""))
    clause = state.clause
    if state.skip_verb:
        state.skip_verb = False
        state.eat(1)
        return
    if _prepares(state, lemma):
        return
    if form in ("past", "participle", "") and state.text(1) == "by" and _passive(state, lemma):
        return
    if _phrasal(state, lemma):
        return
    if form in ("past", "participle", "base") and text.endswith(("ed", "en")) and not clause.group:
        state.at += 1
        return
    if lemma in BELONGING and lemma not in ("bear",):
        _belongs(state, lemma, text)
        return
    state.eat(1)
    if lemma in RELATING:
        _relate(state, lemma, text)
        return
    action = canonical_action(lemma)
    if lemma == "perform":
        action = "idle"
    _do(state, action, text, lemma in KNOWN_VERBS, VERB_FORMS.get(text, ("", ""))[1] == "ing")
    if lemma in ("wander", "circle"):
        for actor in clause.group:
            actor.shape = lemma if actor.shape == "straight" else actor.shape  # type: ignore[assignment]
            actor.path_words.append(text)
    if lemma == "ride" and (found := state.phrase()) is not None and found[0].kind == "actor":
        state.at = found[1]
        set_relation(state, "on", state.actor_of(found[0]))
    _particle(state, lemma)


def _do(state: State, action: str, words: str, known: bool = True, ing: bool = False) -> None:
    """Let the subjects do `action`; without a subject it waits for one, or goes to those before."""
    clause = state.clause
    if clause.scenery:
        return
    if not clause.group and ing and not clause.has_verb and not state.last_group:
        clause.front_action = (action, words, known)
        state.before = "verb"
        return
    if not clause.group:
        clause.group = list(state.last_group)
        if not clause.group:
            clause.front_action = None
            clause.has_verb = True
            state.before = "verb"
            return
    if clause.negated:
        for actor in clause.group:
            actor.weak_action = "idle"
            if action == "move":
                actor.act("idle", f"not {words}")
        clause.negated = False
    else:
        for actor in clause.group:
            actor.act(action, words, known)
        clause.verbs.append((action, words))
    clause.has_verb, clause.belonging = True, False
    state.last_relation = None
    state.before = "verb"


def _prepares(state: State, lemma: str) -> bool:
    """ "starts to walk", "goes running", "keeps on jumping": only the second verb counts."""
    if lemma not in PREPARING and lemma not in ("stand", "come"):
        return False
    after, beyond = state.text(1), state.text(2)
    if (
        after == "to"
        and VERB_FORMS.get(beyond, ("", ""))[1] == "base"
        and lemma not in ("come", "stop", "stand")
    ):
        skip = 2
    elif (
        after.endswith("ing")
        and after in VERB_FORMS
        and lemma not in ("stop", "remain", "stand", "like", "love")
    ):
        skip = 1
    elif after == "on" and beyond.endswith("ing") and beyond in VERB_FORMS:
        skip = 2
    elif (
        lemma in ("love", "like", "want", "need", "help", "let", "make", "learn", "manage", "happen")
        and state.clause.scenery
    ):
        skip = 1
    else:
        return False
    state.eat(skip)
    state.before = "aux"
    return True


def _passive(state: State, lemma: str) -> bool:
    """ "chased by two bears": the bears do it."""
    found = state.phrase(state.at + 2)
    if found is None:
        return False
    phrase, end = found
    if phrase.kind != "actor" and lemma not in RELATING:
        return False
    patients = list(state.targets())
    state.eat(2)
    state.at = end
    agent = state.actor_of(phrase)
    action, relation = RELATING.get(lemma, (canonical_action(lemma), None))
    agent.act(action, lemma)
    if patients and relation is not None and patients[0] is not agent:
        agent.relation = agent.relation or (relation, patients[0])
        for patient in patients:
            if patient.weak_action is None and relation in ("chase", "follow", "lead"):
                patient.weak_action = "run" if relation == "chase" else "walk"
    state.before = "np"
    state.clause.last = agent
    return True


def _phrasal(state: State, lemma: str) -> bool:
    """Verbs of several words: "picks it up", "shakes its head", "takes a nap", "runs after a cat"."""
    text, after = state.text(), state.text(1)
    if lemma == "pick":
        window = [state.text(k) for k in range(1, 6)]
        if "up" in window:
            stop = window.index("up") + 2
            if stop > 2:
                state.tokens[state.at + stop - 1].used = True
                del state.tokens[state.at + stop - 1]
                stop = 1
            state.eat(stop)
            _do(state, "pick_up", f"{text} up")
            _skip_object(state)
            return True
    if lemma in ("shake", "nod") and after in POSSESSIVES | ARTICLES and state.text(2) in ("head", "heads"):
        state.eat(3)
        _do(state, "no" if lemma == "shake" else "yes", f"{text} {after} head")
        return True
    if lemma in ("run", "go", "sprint", "race", "rush") and after == "after":
        state.eat(2)
        _relate(state, "chase", f"{text} after")
        return True
    if after == "after" and (canonical_action(lemma) in GOING_ACTIONS or lemma in GOING_VERBS):
        follower = state.phrase(state.at + 2)
        if follower is not None and (follower[0].kind == "actor" or follower[0].head in RELATIVES):
            state.eat(2)
            _relate(state, "follow", text, canonical_action(lemma))
            return True
    if lemma == "stand" and after in ("guard", "watch", "sentry"):
        state.eat(2)
        _do(state, "idle", f"{text} {after}")
        return True
    if lemma in LIGHT and _light(state, text):
        return True
    if (lemma in _LOOKING and after in ("at", "towards", "toward")) or lemma == "watch":
        found = state.phrase(state.at + (1 if lemma == "watch" else 2))
        if found is not None and found[0].kind == "actor":
            state.eat(1 if lemma == "watch" else 2)
            _do(state, canonical_action(lemma), text)
            state.at = found[1]
            set_relation(state, "facing", state.actor_of(found[0]))
            state.before = "np"
            return True
    return False


def _light(state: State, text: str) -> bool:
    """ "performs kung fu", "does a backflip", "goes for a walk"."""
    i = 1
    while (
        state.text(i) in (*ARTICLES, "for", "some", "his", "her", "its", "their") or state.text(i) in MANNER
    ):
        i += 1
    if (
        i < 5
        and state.text(i).endswith(("ful", "ick", "ort", "ong", "ig", "all"))
        and state.text(i + 1) in ACTION_NOUNS
    ):
        i += 1
    noun = state.text(i)
    words = f"{text} {noun}"
    if noun == "kung" and state.text(i + 1) == "fu":
        noun, i, words = "kungfu", i + 1, f"{text} kung fu"
    if noun not in ACTION_NOUNS or (
        i == 1 and noun in VERB_FORMS and not text.startswith(("perform", "pract"))
    ):
        return False
    state.eat(i + 1)
    _do(state, ACTION_NOUNS[noun], words)
    return True


def _belongs(state: State, lemma: str, text: str) -> None:
    """ "wearing a hat": no actor; holding and carrying count where nothing else is done."""
    state.eat(1)
    clause = state.clause
    if lemma in ("hold", "carry", "hug") and not text.endswith("ing") and clause.group:
        _do(state, lemma, text)
    elif lemma in ("hold", "carry", "wield", "hug"):
        for actor in clause.group[-1:] if clause.last in clause.group[-1:] else clause.group:
            actor.weak_action = actor.weak_action or lemma
        clause.has_verb |= text != f"{lemma}ing" and text != "carrying"
    clause.belonging = True
    state.before = "verb"
    found = state.phrase()
    if found is not None and (lemma != "hug" or found[0].kind != "actor"):
        state.at = found[1]
        state.before = "prep"


def _relate(state: State, lemma: str, text: str, own: str = "") -> None:
    """ "chases a cat", "follows him", "chase each other"; `own` is done where another verb says it."""
    action, relation = RELATING[lemma]
    _do(state, own or action, text)
    clause = state.clause
    if state.texts(2) in ("each other", "one another"):
        state.eat(2)
        pair = clause.group
        if len(pair) == 2:
            pair[0].relation, pair[1].relation = (relation, pair[1]), (relation, pair[0])
        return
    if state.text() in OBJECTS and state.text(1) not in VERB_FORMS:
        other = state.other_actor()
        state.eat(1)
        if other is not None:
            _set(state, relation, other)
        return
    found = state.phrase()
    if found is None:
        return
    phrase, end = found
    if phrase.kind in ("actor", "") or not phrase.words or state._named_before(phrase):
        state.at = end
        other = state.actor_of(phrase)
        other.verb_known = True
        _set(state, relation, other)
        clause.last = other
        state.last_relation = relation
    else:
        state.at = end
        phrase.use()
        where = PlaceDraft("side", "near") if phrase.head == "camera" else PlaceDraft("landmark", phrase.text)
        for actor in clause.group:
            if relation in ("toward", "chase", "follow"):
                actor.end = actor.end or where
    state.before = "np"


def _set(state: State, relation: RelationKind, other: ActorDraft) -> None:
    for actor in state.clause.group:
        if actor is not other:
            actor.relation = (relation, other)
    if relation in ("chase", "follow", "lead"):
        other.weak_action = other.weak_action or ("run" if relation == "chase" else "walk")


def _particle(state: State, lemma: str) -> None:
    """ "sits down", "stands still", "flies off": the little word belongs to the verb."""
    text, after = state.text(), state.text(1)
    ends = (
        after in PREPOSITIONS
        or after in ("and", ",", ".", ";", "then", "while", "as", "!")
        or after.startswith("@")
    )
    several = preposition_at(state)
    if several is not None and several[1] > 1:
        return
    if text in _NOT_OBJECTS or (text in _PARTICLES and ends and text != "past"):
        if text == "on" and after in PREPOSITIONS:
            return
        state.eat(1)
    elif lemma == "give" and text in ARTICLES:
        _skip_object(state)


def _skip_object(state: State) -> None:
    """The thing that is picked up, kicked or given is no actor."""
    if state.text() in OBJECTS:
        state.eat(1)
    elif (found := state.phrase()) is not None and not state.verb_follows(found[1]):
        state.eat(found[1] - state.at)


def on_object(state: State, phrase: NounPhrase, end: int) -> None:
    """The noun phrase after a verb: an actor where its noun is that of one, else a thing."""
    state.at = end
    if phrase.negated:
        from_words = phrase.object or phrase.head
        phrase.use()
        state.film.excluded.append(from_words)
        return
    if (phrase.head in ACTORS and not state.clause.belonging) or state._named_before(phrase):
        other = state.actor_of(phrase)
        if not state.clause.group and not state.clause.scenery:
            state.clause.group, state.clause.has_verb, state.before = [other], False, "np"
            return
        state.clause.last = other if other not in state.clause.group else state.clause.last
    elif phrase.kind == "scene" and not state.clause.belonging:
        set_scene(state, phrase, "", end)
    else:
        phrase.use()
    state.before = "object"
