"""Noun phrases: where one begins and ends, how many it speaks of, and what it is called."""

from __future__ import annotations

from dataclasses import dataclass, field

from orbit4d.compose.director.rules.tokens import COMMA, ENDS, Token
from orbit4d.compose.language.inflect import UNCHANGED, singular
from orbit4d.compose.language.nouns import ACTORS, GROUPS, NOUN_FORMS, PACKS, SCENES, WEATHER
from orbit4d.compose.language.verbs import CANONICAL, VERB_FORMS
from orbit4d.compose.language.words import (
    ADJECTIVES,
    ARTICLES,
    AUXILIARIES,
    FUNCTION_WORDS,
    MANNER,
    NEGATED_AUXILIARIES,
    NUMBERS,
    POSSESSIVES,
    PREPOSITIONS,
    SIZES,
)
from orbit4d.compose.strict_json import printable
from orbit4d.datasets.core.errors import InputError

MAX_WORDS = 12
#: Compounds whose first word looks like a participle and is none.
_COMPOUNDS = {
    *("swimming pool", "running shoe", "walking stick", "racing car", "sewing machine", "flying saucer"),
    *("boxing ring", "dining room", "dining table", "washing machine", "living room", "parking lot"),
    *("shopping mall", "rocking chair", "rolling pin", "fishing rod", "sleeping bag", "training ground"),
}
_ADJECTIVE_ENDS = ("y", "ful", "ous", "ive", "ish", "less", "ic", "able", "ible", "ed")
_EXAMPLE = "write for example 'three foxes run'"


@dataclass(eq=False)
class NounPhrase:
    """A noun phrase; `object` is what an actor of it is called, `text` what a scene or landmark keeps."""

    tokens: list[Token]
    determiner: str = ""
    count: int = 1
    counted: bool = False
    plural: bool = False
    words: list[Token] = field(default_factory=list)
    head: str = ""
    factor: float = 1.0
    participle: str = ""
    participle_text: str = ""
    measures: list[int] = field(default_factory=list)
    negated: bool = False
    #: "the hallway of an old castle": what follows "of".
    of: str = ""

    @property
    def kind(self) -> str:
        """`actor`, `scene`, `weather`, `thing` (known, none of these) or `` for an unknown noun."""
        if self.head in ACTORS:
            return "actor"
        if self.head in SCENES:
            return "scene"
        if self.head in WEATHER:
            return "weather"
        return "thing" if self.head in NOUN_FORMS else ""

    @property
    def object(self) -> str:
        words = [w.text for w in self.words if w.text not in SIZES and not w.text.endswith("'s")]
        words = [
            w for w in words if w not in ("very", "really", "quite", "extremely", "same", "single", "own")
        ]
        return " ".join([*words[:-1], self.head])[:200].strip()

    @property
    def text(self) -> str:
        words = [*(w.text.removesuffix("'s") for w in self.words[:-1]), self.head]
        return " ".join(words + (["of", self.of] if self.of else []))[:200].strip()

    @property
    def as_written(self) -> str:
        """`text` with the noun in the number that it is said in: "dunes"."""
        words = [word.text.removesuffix("'s") for word in self.words] or [self.head]
        words = [*([self.participle_text] if self.participle_text else []), *words]
        return " ".join([*words, *(["of", self.of] if self.of else [])])[:200].strip()

    def use(self) -> None:
        for token in self.tokens:
            token.used = True


def is_boundary(text: str) -> bool:
    """Whether a word can be in no noun phrase."""
    closed = (
        text in PREPOSITIONS or text in FUNCTION_WORDS or text in AUXILIARIES or text in NEGATED_AUXILIARIES
    )
    if text in ("named", "called"):
        return True
    return text in ENDS or text == COMMA or text.startswith("@") or (closed and text not in ("one", "own"))


def is_adjective(text: str) -> bool:
    if text in NOUN_FORMS or text in VERB_FORMS:
        return text in ADJECTIVES or text in SIZES
    known = text in ADJECTIVES or text in SIZES
    return known or text.endswith(_ADJECTIVE_ENDS) or ("-" in text and text not in NOUN_FORMS)


def read_noun_phrase(tokens: list[Token], at: int) -> tuple[NounPhrase, int] | None:
    """The noun phrase that starts at `at`, and where it ends; None where none starts there."""
    phrase = NounPhrase([])
    i = _read_determiner(tokens, at, phrase)
    bare = i == at
    start = i
    while i < len(tokens) and len(phrase.words) < MAX_WORDS:
        text = tokens[i].text
        if text.startswith("@") and not text.startswith("@shot") and not _has_noun(phrase):
            phrase.measures.append(int(text[1:]))
            i += 1
            continue
        if text == COMMA and phrase.words and all(is_adjective(w.text) for w in phrase.words):
            if i + 1 < len(tokens) and is_adjective(tokens[i + 1].text):
                i += 1
                continue
            break
        if phrase.words and _number(text) is not None:
            break
        a_well = text == "well" and phrase.determiner and not _has_noun(phrase)
        if (is_boundary(text) and not a_well) or (text in MANNER and _ends_phrase(tokens, i, phrase)):
            break
        if _is_verb_here(tokens, i, phrase, bare):
            break
        if _is_participle(tokens, i, phrase):
            phrase.participle, phrase.participle_text = VERB_FORMS.get(text, (text, ""))[0], text
            tokens[i].used = True
        elif text.endswith("ly") and text not in ADJECTIVES and phrase.words:
            break
        else:
            phrase.words.append(tokens[i])
        i += 1
    i = _without_trailing_adjectives(tokens, i, phrase)
    if not phrase.words or (bare and not _stands_alone(phrase)):
        return _headless(tokens, at, start, phrase)
    _finish(phrase)
    phrase.tokens = tokens[at:i]
    return phrase, i


def _headless(tokens: list[Token], at: int, start: int, phrase: NounPhrase) -> tuple[NounPhrase, int] | None:
    """ "one ... another ...": a determiner alone that counts."""
    said = " ".join(token.text for token in tokens[at:start])
    if said in ("one", "another", "the other", "others", "the others", "the first", "the second") or (
        phrase.counted and start > at and said not in ("no",)
    ):
        phrase.tokens, phrase.words = tokens[at:start], []
        return phrase, start
    return None


def _without_trailing_adjectives(tokens: list[Token], end: int, phrase: NounPhrase) -> int:
    """ "a cabin alone in a forest": what describes and follows the noun is no part of its name."""
    while len(phrase.words) > 1 and tokens[end - 1] is phrase.words[-1]:
        last, before = phrase.words[-1].text, phrase.words[:-1]
        if last in NOUN_FORMS or not is_adjective(last) or not any(w.text in NOUN_FORMS for w in before):
            break
        phrase.words.pop()
        end -= 1
    return end


def _stands_alone(phrase: NounPhrase) -> bool:
    return any(word.text in NOUN_FORMS for word in phrase.words)


def _finish(phrase: NounPhrase) -> None:
    if len(phrase.words) > 1 and phrase.words[-1].text in PACKS and phrase.words[-2].text in ACTORS:
        several_of = phrase.words.pop().text  # "a zombie horde" is several zombies
        if not phrase.counted:
            phrase.count, phrase.counted, phrase.plural = GROUPS[several_of], True, True
    last = phrase.words[-1].text.removesuffix("'s")
    singular_of, several = NOUN_FORMS.get(last, (singular(last), singular(last) != last))
    phrase.head, phrase.plural = singular_of, several
    for word in phrase.words[:-1]:
        if word.text in SIZES:
            phrase.factor = SIZES[word.text]
    if several and not phrase.counted and phrase.determiner in ("", "some"):
        phrase.count = 3
    elif several and not phrase.counted:
        phrase.count = 3 if phrase.determiner not in ("both",) else 2
    if last in UNCHANGED and phrase.counted and phrase.count > 1:
        phrase.plural = True


def _read_determiner(tokens: list[Token], at: int, phrase: NounPhrase) -> int:
    """Articles, numbers and quantities from `at` on; returns where the noun begins."""
    i = at
    while i < len(tokens):
        text = tokens[i].text
        after = tokens[i + 1].text if i + 1 < len(tokens) else ""
        if text in ("all", "both", "just", "only", "about", "exactly") and (
            after in ARTICLES or _number(after)
        ):
            i += 1
        elif text == "both":
            phrase.determiner, phrase.count, phrase.counted = "both", 2, True
            i += 1
        elif text == "no" and not phrase.determiner:
            phrase.determiner, phrase.negated = "no", True
            i += 1
        elif text in ARTICLES or text in POSSESSIVES or (text == "other" and phrase.determiner == "the"):
            phrase.determiner = f"{phrase.determiner} {text}".strip()
            i += 1
        elif text in ("first", "second", "third") and phrase.determiner == "the":
            phrase.determiner = f"the {text}"
            i += 1
        elif text in GROUPS and (end := _quantity(tokens, i, phrase)) is not None:
            i = end
        elif text in ("minus", "negative") and _number(after) is not None:
            raise InputError(f"prompt: {text} {printable(after, 20)} is no number of actors; {_EXAMPLE}")
        elif (count := _number(text)) is not None and not (text == "one" and phrase.determiner == "the"):
            i = _counted(tokens, i, count, phrase)
        else:
            break
    return i


def _number(text: str) -> float | None:
    if text in NUMBERS:
        return NUMBERS[text]
    parts = text.split("-")
    if len(parts) == 2 and all(part in NUMBERS for part in parts):
        return NUMBERS[parts[0]] + NUMBERS[parts[1]]
    try:
        return float(text.replace(",", "")) if text[:1] in "-0123456789" else None
    except ValueError:
        return None


def _counted(tokens: list[Token], i: int, count: float, phrase: NounPhrase) -> int:
    following = tokens[i + 1].text if i + 1 < len(tokens) else ""
    if following in ("dozen", "hundred", "thousand", "million"):
        count, i = (
            count * {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 1_000_000}[following],
            i + 1,
        )
    if not float(count).is_integer():
        raise InputError(f"prompt: {count:g} is no number of actors; {_EXAMPLE}")
    phrase.count, phrase.counted = int(count), True
    end = i + 1
    if (
        end + 1 < len(tokens)
        and tokens[end].text == "of"
        and tokens[end + 1].text in ("the", "these", "those")
    ):
        return end + 2
    return end


def _quantity(tokens: list[Token], i: int, phrase: NounPhrase) -> int | None:
    """ "a couple of", "a herd of", "a group of six", "several", "a few", "a dozen", "a hundred"."""
    text = tokens[i].text
    after = tokens[i + 1].text if i + 1 < len(tokens) else ""
    if after == "of":
        j = i + 2
        if j < len(tokens) and (count := _number(tokens[j].text)) is not None:
            return _counted(tokens, j, count, phrase)
        if j < len(tokens) and tokens[j].text in GROUPS:
            return None
        phrase.count, phrase.counted = GROUPS[text], True
        while j < len(tokens) and tokens[j].text in ("the", "these", "those"):
            j += 1
        return j
    if text in (
        "few",
        "some",
        "several",
        "many",
        "dozen",
        "hundred",
        "thousand",
        "couple",
        "million",
        "dozens",
    ):
        plural_next = after in NOUN_FORMS and NOUN_FORMS[after][1]
        if text == "couple" and not plural_next:
            return None
        if text == "some" and not plural_next and not is_adjective(after):
            phrase.determiner = "some"
            return i + 1
        phrase.count, phrase.counted = GROUPS[text], True
        more = _number(tokens[i + 2].text) if i + 2 < len(tokens) and after == "and" else None
        if more is not None and text in ("hundred", "thousand"):
            phrase.count += int(more)
            return i + 3
        return i + 1
    return None


def _ends_phrase(tokens: list[Token], i: int, phrase: NounPhrase) -> bool:
    """Whether a word of manner ends the phrase: "a slow turtle" goes on, "a turtle slow" does not."""
    return any(not is_adjective(word.text) for word in phrase.words)


def _has_noun(phrase: NounPhrase) -> bool:
    return any(
        not is_adjective(w.text) or w.text in NOUN_FORMS for w in phrase.words if not w.text.endswith("'s")
    )


def _goes_on(tokens: list[Token], i: int) -> bool:
    """Whether the word after `i` can be the noun that a participle at `i` describes."""
    if i + 1 >= len(tokens):
        return False
    text = tokens[i + 1].text
    if is_boundary(text) or text in MANNER or text.endswith("ly"):
        return False
    return text in NOUN_FORMS or is_adjective(text) or (text not in VERB_FORMS and text[0].isalpha())


def _is_participle(tokens: list[Token], i: int, phrase: NounPhrase) -> bool:
    """ "a dancing robot": an -ing form before the noun is its action."""
    text = tokens[i].text
    if _has_noun(phrase) or not text.endswith("ing") or not _goes_on(tokens, i):
        return False
    if f"{text} {singular(tokens[i + 1].text)}" in _COMPOUNDS or text in ADJECTIVES or text in NOUN_FORMS:
        return False
    return VERB_FORMS.get(text, ("", ""))[1] == "ing"


def _is_verb_here(tokens: list[Token], i: int, phrase: NounPhrase, bare: bool) -> bool:
    """Whether the word at `i` is the verb that ends this phrase, not a noun of it."""
    text = tokens[i].text
    known = VERB_FORMS.get(text)
    if known is None:
        return _is_unknown_verb(tokens, i, phrase)
    pointing = phrase.determiner in ("that", "another", "the other", "each", "the first", "the second")
    if not phrase.words and known[1] == "s" and (pointing or (phrase.counted and phrase.count == 1)):
        return text not in NOUN_FORMS or _bare_verb(tokens, i, known[0])
    form, as_noun = known[1], NOUN_FORMS.get(text)
    named = not bare and phrase.words and phrase.words[-1].text not in ADJECTIVES | set(SIZES)
    if not _has_noun(phrase) and not (named and as_noun is None and form in ("s", "base", "ing")):
        if form == "ing":
            if f"{text} {singular(tokens[i + 1].text if i + 1 < len(tokens) else '')}" in _COMPOUNDS:
                return False
            return not _goes_on(tokens, i) and as_noun is None
        if form in ("past", "participle"):
            return bare and as_noun is None
        return bare and not phrase.words and (as_noun is None or _bare_verb(tokens, i, known[0]))
    last = phrase.words[-1].text
    one = NOUN_FORMS.get(last, (singular(last), singular(last) != last))
    several = one[1] or phrase.count > 1
    if as_noun is None:
        return True
    if form in ("ing", "past", "participle"):
        return True
    if form == "s":
        return not several or one[0] in UNCHANGED
    # A base form after a singular is the next part of a compound: "a teddy bear", "a rubber duck".
    return several and not (as_noun[0] in ACTORS and known[0] not in CANONICAL)


def _bare_verb(tokens: list[Token], i: int, lemma: str) -> bool:
    """ "jumps", "walks" alone at the start are verbs, "ducks", "fish" or "bears" are nouns."""
    singular_of = NOUN_FORMS[tokens[i].text][0]
    return singular_of not in ACTORS and singular_of not in SCENES and lemma in CANONICAL


def _is_unknown_verb(tokens: list[Token], i: int, phrase: NounPhrase) -> bool:
    """An unknown word after a noun that looks like a verb: "a penguin frobbles on", "three cats zoomle"."""
    text = tokens[i].text
    if not _has_noun(phrase) or text in NOUN_FORMS or text in ADJECTIVES or "'" in text:
        return False
    following = tokens[i + 1].text if i + 1 < len(tokens) else "."
    if text.endswith("ing"):
        return True
    if following in VERB_FORMS or following in AUXILIARIES or following in NOUN_FORMS:
        return False
    last = phrase.words[-1].text
    several = NOUN_FORMS.get(last, ("", singular(last) != last))[1]
    if text.endswith("s") and not text.endswith(("ss", "us")):
        return not several
    return several and not text.endswith("s")
