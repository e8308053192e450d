"""Reading a prompt from left to right: clauses, their subjects, and what is said of them."""

from __future__ import annotations

import re

from orbit4d.compose.director.rules.actions import on_verb
from orbit4d.compose.director.rules.places import on_preposition
from orbit4d.compose.director.rules.relations import exclude
from orbit4d.compose.director.rules.shots import LOOKS
from orbit4d.compose.director.rules.state import State
from orbit4d.compose.director.rules.subjects import on_noun
from orbit4d.compose.director.rules.tokens import COMMA, ENDS
from orbit4d.compose.language.nouns import ACTORS, BODY, NOUN_FORMS, SCENES
from orbit4d.compose.language.verbs import CANONICAL, KNOWN_VERBS, TALKING, VERB_FORMS
from orbit4d.compose.language.words import (
    ARTICLES,
    AUXILIARIES,
    FIRST_PERSON,
    MANNER,
    NEGATED_AUXILIARIES,
    OBJECTS,
    POSSESSIVES,
    PREPOSITIONS,
    RELATIVE,
    SUBJECTS,
)

_WEATHER = re.compile(r"it (?:(?:is|was) )?(snow|rain|drizzl|storm|hail)(?:ing|s)\b")
_BREAKS = {
    "while",
    "as",
    "when",
    "where",
    "until",
    "because",
    "so",
    "whereas",
    "meanwhile",
    "though",
    "although",
    "once",
}
_SEQUENCE = {"then", "afterwards", "next", "finally", "later", "eventually", "suddenly", "first", "before"}
_BOTH = {"both", "all", "everyone", "everybody"}


def read(state: State) -> None:
    """Read all words; what is understood lands in `state.film`."""
    words = (_mark, _break, _joint, _relative, _auxiliary, _pronoun, _manner, _expected_verb)
    readers = (*words, on_preposition, on_noun, _verb)
    while state.at < len(state.tokens):
        before = state.at
        if any(reader(state) for reader in readers):
            if state.at == before:
                state.at += 1
            continue
        state.at += 1
    state.new_clause()


def _mark(state: State) -> bool:
    """A measure or a shot that was taken out before."""
    text = state.text()
    if not text.startswith("@"):
        return False
    if text.startswith(LOOKS):
        number = text.removeprefix(LOOKS)
        state.look = int(number) if number else None
        _owner(state)
        if state.text(1) in OBJECTS | {"it"} and number:
            target = state.clause.group or state.last_group or state.mentioned
            state.film.shots[int(number)].of, state.look = target[-1] if target else None, None
            state.at += 1
        state.eat(1)
        return True
    kind = state.measures[int(text[1:])].kind
    following = state.phrase()
    if kind in ("metres", "factor") and following is not None and state.before in ("", "comma", "and"):
        return False  # "2 m tall robots": the phrase takes it
    group = state.targets() or state.last_group
    if kind in ("metres", "factor") and state.clause.last is not None:
        group = [state.clause.last]
    state.measure(int(text[1:]), group)
    state.eat(1)
    return True


def _owner(state: State) -> None:
    """ "a close-up of a knight's face" looks at the knight."""
    for i in range(state.at + 1, min(state.at + 5, len(state.tokens))):
        token = state.tokens[i]
        if token.text.endswith("'s") and token.text[:-2] in NOUN_FORMS:
            token.text = token.text[:-2]
            if i + 1 < len(state.tokens) and state.tokens[i + 1].text in BODY:
                state.tokens[i + 1].used = True
                del state.tokens[i + 1]
            return


def _break(state: State) -> bool:
    text = state.text()
    if text in ENDS:
        state.new_clause()
        state.eat(1)
        return True
    if text == "but" or text in _BREAKS:
        ing = state.text(1).endswith("ing") and state.text(1) in VERB_FORMS
        plain = text == "but" and state.clause.has_verb is False
        if text == "as" and state.before == "" and state.at == 0:
            state.eat(1)
            return True
        if plain:
            state.before = "comma"
        else:
            negated = state.clause.has_verb
            state.new_clause(keep_subject=ing or text == "but")
            state.eat(1)
            if text == "but" and negated and state.text() in VERB_FORMS and state.clause.group:
                state.before = "aux"  # "does not attack but bows"
            return True
        state.eat(1)
        return True
    return False


def _joint(state: State) -> bool:
    """Commas, "and", "then", "respectively"."""
    text, clause = state.text(), state.clause
    if text in ("named", "called") and state.before == "np":
        state.eat(2)
        return True
    if text == COMMA:
        if clause.outer:
            clause.group, clause.outer, clause.has_verb = clause.outer, [], bool(clause.verbs)
        state.before = "comma" if state.before != "and" else "and"
        state.eat(1)
        _front(state)
        return True
    if text in ("and", "or", "plus"):
        state.before = "and"
        state.eat(1)
        _front(state)
        return True
    before_whom = state.phrase(state.at + 1) if text == "before" else None
    if before_whom is not None and before_whom[0].words and not state.verb_follows(before_whom[1]):
        return False  # "bows before the king" is where, not when
    if (text in _SEQUENCE and state.text(1) != "to") or (text == "after" and state.text(1) == "that"):
        state.eat(2 if text == "after" else 1)
        state.before = "and" if clause.has_verb else state.before
        return True
    if state.texts(3) == "side by side" and state.text(3) != "with":
        state.eat(3)
        members = [actor for actor in clause.group if not actor.announced] or clause.group
        for other in members[1:]:
            other.relation = other.relation or ("beside", members[0])
        return True
    if text == "respectively":
        clause.respectively = True
        state.eat(1)
        return True
    if text in ("each", "one") and state.texts(2) in ("each other", "one another"):
        state.eat(2)
        if len(clause.group) == 2 and state.before in ("prep", "verb"):
            first, second = clause.group
            first.relation = first.relation or ("toward", second)
            second.relation = second.relation or ("toward", first)
        return True
    return False


def _front(state: State) -> None:
    """ "... and on the right a crab attacks": what stands before the next subject is said of that one."""
    if not state.clause.has_verb or not state.clause.group:
        return
    i = state.at
    if state.text() not in (
        "in",
        "on",
        "at",
        "behind",
        "near",
        "to",
        "next",
        "beside",
        "from",
        "under",
        "above",
    ):
        return
    for j in range(i + 1, min(i + 9, len(state.tokens))):
        text = state.tokens[j].text
        if text in ENDS or text in ("and", "then"):
            return
        found = (
            state.phrase(j)
            if text in ("a", "an", "two", "three", "another", "some") or text == "the"
            else None
        )
        if found is not None and found[0].kind == "actor" and state.verb_follows(found[1]):
            follows = state.tokens[found[1]].text if found[1] < len(state.tokens) else "."
            if j > i + 1 and follows != "of":
                state.new_clause()
            return


def _relative(state: State) -> bool:
    """ "a stag, which walks slowly": the verb is of the noun just before."""
    text, clause = state.text(), state.clause
    if text not in RELATIVE:
        return False
    of = clause.last or (state.mentioned[-1] if state.mentioned else None)
    if text == "that" and (state.before not in ("np", "object", "comma") or state.phrase() is not None):
        after = state.phrase()
        if after is not None and state.before not in ("np", "object"):
            return False
    if of is None:
        if clause.scenery or state.before in ("np", "prep", "object"):
            clause.scenery = clause.scenery or state.before == "np"
        state.eat(1)
        return True
    if not clause.outer:
        others = [actor for actor in clause.group if actor is not of]
        clause.outer = list(clause.group) if others else []
    clause.group, clause.has_verb = [of], False
    state.eat(1)
    state.before = "relative"
    return True


def _auxiliary(state: State) -> bool:
    text = state.text()
    if text in NEGATED_AUXILIARIES:
        state.clause.negated = True
        state.eat(1)
        state.before = "aux"
        return True
    if text in ("not", "neither", "nor"):
        state.eat(1)
        found = state.phrase()
        named = found is not None and (
            found[0].determiner or found[0].counted or (text != "not" and found[0].kind == "actor")
        )
        if found is not None and named and state.text() not in VERB_FORMS:
            state.at = found[1]
            exclude(state, found[0])
            return True
        if state.text() in VERB_FORMS or state.before == "aux":
            state.clause.negated = True
            state.before = "aux"
        return True
    if text in AUXILIARIES and (text not in ("has", "have", "had") or state.text(1) in VERB_FORMS):
        if text in ("does", "do", "did", "doing") and state.text(1) in (
            "a",
            "some",
            "yoga",
            "ballet",
            "karate",
        ):
            return False
        state.eat(1)
        if text in ("it's", "he's", "she's", "they're") and not state.clause.group:
            state.clause.group = list(state.last_group)
        state.before = "aux"
        return True
    return False


def _pronoun(state: State) -> bool:
    text, clause = state.text(), state.clause
    if text == "it" and (weather := _WEATHER.match(state.texts(3))):
        state.film.weather.append({"s": "snow", "r": "rain"}.get(weather.group(1)[0], "storm"))
        state.eat(len(weather.group().split()))
        clause.scenery = True
        return True
    if text in FIRST_PERSON:
        state.eat(1)
        if state.text() in TALKING:
            state.eat(1)
            state.before = "talk"
        return True
    if text in SUBJECTS and (
        not clause.group or (state.before in ("and", "comma") and state.verb_follows(state.at + 1))
    ):
        if clause.group:
            state.new_clause()
        group = state.last_group or state.mentioned[-1:]
        if text == "they" and len(group) == 1 and group[0].count == 1 and not group[0].plural:
            group = list(state.film.actors)
        state.clause.group = list(group)
        state.take_front()
        state.eat(1)
        state.before = "pronoun"
        return True
    if text in _BOTH and (state.text(1) in VERB_FORMS or state.text(1) in AUXILIARIES):
        if not clause.group:
            clause.group = list(state.film.actors)
            state.take_front()
        state.eat(1)
        return True
    if text in OBJECTS:
        state.eat(1)
        state.before = "object"
        return True
    return False


def _manner(state: State) -> bool:
    text, clause = state.text(), state.clause
    said = text if text in MANNER else None
    words = 1
    if state.texts(3) in ("at full speed", "at top speed", "in a hurry", "at high speed"):
        said, words = "fast", 3
    elif state.texts(2) == "in haste":
        said, words = "fast", 2
    if said is None or state.texts(2) == "slow motion":
        return False
    if state.phrase() is not None and words == 1 and text in ("slow", "fast", "quick"):
        return False
    if not clause.group:
        clause.front_speed = MANNER[said]
    for actor in state.targets():
        actor.speed = MANNER[said]
    state.eat(words)
    return True


def _expected_verb(state: State) -> bool:
    """After a subject a word that can be a verb is one, whatever noun it also is."""
    text = state.text()
    if text not in VERB_FORMS:
        return False
    after = state.before in ("np", "aux", "relative", "pronoun")
    joined = state.before == "and" and state.clause.has_verb and _is_deed(text)
    if joined and text in NOUN_FORMS and NOUN_FORMS[text][1] and VERB_FORMS[text][1] == "base":
        joined = False
    # "a panda, eating bamboo, sits": what follows the comma is of the subject.
    apart = state.before == "comma" and VERB_FORMS[text][1] == "ing" and bool(state.clause.group)
    if not (after or joined or apart):
        return False
    if text == "like" or (
        state.before == "and" and state.phrase() is not None and state.text(1) in VERB_FORMS
    ):
        return False
    on_verb(state)
    return True


def _is_deed(text: str) -> bool:
    """Whether a known verb is one after "and" too: of the table, or a noun of no actor and no scene."""
    lemma = VERB_FORMS[text][0]
    other = NOUN_FORMS.get(text, ("",))[0] in ACTORS | SCENES
    return lemma in CANONICAL or (lemma in KNOWN_VERBS and VERB_FORMS[text][1] == "s" and not other)


def _verb(state: State) -> bool:
    """A verb, also an unknown one where a subject waits for it."""
    text, clause = state.text(), state.clause
    if text in NOUN_FORMS and state.before == "verb" and VERB_FORMS.get(text, ("", ""))[1] == "base":
        state.eat(1)  # "breathes fire", "plays ball"
        state.before = "object"
        return True
    if text in VERB_FORMS:
        on_verb(state)
        return True
    waiting = clause.group and not clause.has_verb and state.before in ("np", "aux", "relative", "pronoun")
    looks = text.endswith(("s", "ing", "ed")) and not text.endswith("ss") and text[0].isalpha()
    looks |= bool(clause.group) and clause.group[-1].plural and text.isalpha() and state.before == "np"
    waiting = waiting or _goes_on(state)
    if waiting and looks and text not in NOUN_FORMS and not text.endswith("ly"):
        on_verb(state)
        return True
    return False


def _goes_on(state: State) -> bool:
    """ "... and folds its wings": an unknown verb of a subject that did something before."""
    clause, after = state.clause, state.text(1)
    if state.before not in ("and", "comma") or not clause.has_verb or not clause.group:
        return False
    ends = after in ENDS or after in (COMMA, "and", "then", "while") or after in PREPOSITIONS
    return state.text().endswith("s") and (ends or after in ARTICLES | POSSESSIVES | OBJECTS | set(MANNER))
