"""Spelling: a known word with one letter missing, doubled or swapped is read as that word."""

from __future__ import annotations

from functools import cache

from orbit4d.compose.language.nouns import ACTORS, GROUPS, NOUN_FORMS, SCENES
from orbit4d.compose.language.ordinary import ORDINARY_FORMS
from orbit4d.compose.language.verbs import CANONICAL, RELATING, VERB_FORMS
from orbit4d.compose.language.words import (
    ADJECTIVES,
    FUNCTION_WORDS,
    MANNER,
    NUMBERS,
    ORDINARY,
    PREPOSITIONS,
    QUALITY,
    SIZES,
)

#: Words shorter than this have too many neighbours; little words are corrected only where letters swapped.
LEAST_LETTERS = 4
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_LITTLE = {"the", "and", "with", "from", "two", "while", "then"}


@cache
def known_words() -> frozenset[str]:
    """Everything that a prompt's words are recognised as."""
    tables = (
        *(VERB_FORMS, NOUN_FORMS, NUMBERS, GROUPS, SIZES, MANNER, PREPOSITIONS),
        *(FUNCTION_WORDS, ADJECTIVES, QUALITY, ORDINARY, ORDINARY_FORMS),
    )
    return frozenset(word for table in tables for word in table)


@cache
def _targets() -> dict[str, int]:
    """Words that a misspelt one may stand for, with their rank: what films are made of comes first."""
    ranks: dict[str, int] = {}
    for word, (lemma, _) in NOUN_FORMS.items():
        ranks[word] = 0 if lemma in ACTORS or lemma in SCENES else 2
    for word, (lemma, _) in VERB_FORMS.items():
        rank = 0 if lemma in CANONICAL or lemma in RELATING else 2
        ranks[word] = min(ranks.get(word, rank), rank)
    for word in (*NUMBERS, *MANNER, *SIZES, *GROUPS):
        ranks[word] = min(ranks.get(word, 1), 1)
    for word in ("towards", "through", "behind", "around", "camera", "seconds", "second", "across"):
        ranks[word] = 1
    return ranks


def corrected(word: str) -> str | None:
    """The known word that `word`, in lower case, misspells by one letter; None where there is none."""
    if word in known_words() or not word.isalpha() or not word.isascii():
        return None
    if len(word) < LEAST_LETTERS:
        return next((w for w in _swapped(word) if w in _LITTLE), None)
    if word[0] == word[1]:
        return _best([word[1:]])
    # A letter too few, twice or out of place is a slip; another letter, or one too many, may be another word.
    kinds = ((_swapped, 2), (_undoubled, 2), (_completed, 2), (_replaced, 0), (_dropped, 0))
    return next((found for kind, most in kinds if (found := _best(kind(word), most))), None)


def _best(words: list[str], most: int = 2) -> str | None:
    """The first of the words that may be meant, of those of rank `most` or better."""
    ranks = _targets()
    found = sorted({(ranks[word], word) for word in words if ranks.get(word, 9) <= most and len(word) > 2})
    return found[0][1] if found else None


def _swapped(word: str) -> list[str]:
    return [word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1)]


def _undoubled(word: str) -> list[str]:
    return [word[:i] + word[i + 1 :] for i in range(len(word) - 1) if word[i] == word[i + 1]]


def _completed(word: str) -> list[str]:
    """One letter missing, never a final s or d alone: "foxe" may lack one, "walk" does not."""
    return [word[:i] + letter + word[i:] for i in range(1, len(word) + 1) for letter in _LETTERS]


def _replaced(word: str) -> list[str]:
    """Another letter in one place of a long word, never its first."""
    if len(word) < 6:
        return []
    return [word[:i] + letter + word[i + 1 :] for i in range(1, len(word) - 1) for letter in _LETTERS]


def _dropped(word: str) -> list[str]:
    """One letter too many inside a long word; in one of six letters, where an actor is left."""
    found = [word[:i] + word[i + 1 :] for i in range(1, len(word) - 1)] if len(word) > 5 else []
    return found if len(word) > 6 else [short for short in found if short in ACTORS]
