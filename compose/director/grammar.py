"""The offline director: a grammar of English film descriptions. No language model runs.

`rules_director` reads a sentence in under 20 ms and says with `unused` what it made nothing of. It knows the
words of `orbit4d.compose.language` and the sentences that docs/reference/compose.md lists.
"""

from __future__ import annotations

from dataclasses import dataclass

from orbit4d.compose.director.rules.asides import take_asides
from orbit4d.compose.director.rules.draft import FilmDraft
from orbit4d.compose.director.rules.finishing import finish
from orbit4d.compose.director.rules.measures import take_measures
from orbit4d.compose.director.rules.sentences import read
from orbit4d.compose.director.rules.shots import take_shots
from orbit4d.compose.director.rules.state import State
from orbit4d.compose.director.rules.tokens import Stream, Token, tokenise
from orbit4d.compose.director.wording import plain_words
from orbit4d.compose.language.nouns import ACTORS, NOUN_FORMS, SCENES
from orbit4d.compose.language.verbs import KNOWN_VERBS, VERB_FORMS
from orbit4d.compose.language.words import ENGLISH, FOREIGN, FUNCTION_WORDS
from orbit4d.compose.spec import MAX_PROMPT, Spec
from orbit4d.compose.strict_json import printable
from orbit4d.datasets.core.errors import InputError

_EXAMPLE = "write for example 'a fox walks through a forest'"


@dataclass(frozen=True)
class Reading:
    """A spec, and the (word as written, word as read) pairs whose spelling was corrected for it."""

    spec: Spec
    corrections: tuple[tuple[str, str], ...]


def rules_director(prompt: str) -> Spec:
    """The spec of a film that an English sentence describes, by grammar alone: offline, the same every time.

    Args:
        prompt: at most 2,000 characters.

    Returns:
        A `Spec` with `director` "rules"; `unused` lists the content words that nothing came of.

    Raises:
        InputError: the prompt is empty, has no letters, is too long, is not understood (no known noun or
            verb, not English), has nobody in it, or names a count, duration, size or speed out of range.
    """
    return read_prompt(prompt).spec


def read_prompt(prompt: str) -> Reading:
    """As `rules_director`, with the spelling that was corrected."""
    _check(prompt)
    tokens, corrections = tokenise(prompt)
    film, stream = FilmDraft(), Stream(list(tokens))
    _check_known(tokens)
    plain_words(stream, film)
    take_shots(stream, film)
    take_asides(stream)
    measures = take_measures(stream, film)
    take_asides(stream)
    state = State(stream.tokens, measures, film)
    read(state)
    return Reading(finish(film, prompt, _unused(tokens)), tuple(dict.fromkeys(corrections)))


def _check(prompt: str) -> None:
    if not isinstance(prompt, str):
        raise InputError(f"prompt: {type(prompt).__name__} is no text; {_EXAMPLE}")
    if len(prompt) > MAX_PROMPT:
        raise InputError(f"prompt: {len(prompt)} characters, more than {MAX_PROMPT}; shorten it")
    if not prompt.strip():
        raise InputError(f"prompt: is empty; {_EXAMPLE}")
    if not any(letter.isalpha() for letter in prompt):
        raise InputError(f"prompt: {printable(prompt.strip(), 60)!r} has no letters; {_EXAMPLE}")
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"prompt: holds half of a surrogate pair, which is no text; {_EXAMPLE}") from None


def _check_known(tokens: list[Token]) -> None:
    """Refuse other languages and nonsense: none of the nouns and verbs is known."""
    words = [token.text for token in tokens if token.is_word]
    foreign = [word for word in words if word in FOREIGN]
    if foreign and not ENGLISH & set(words):
        raise InputError(f"prompt: {printable(foreign[0], 40)!r} is no English word; {_EXAMPLE}")
    nouns = any(NOUN_FORMS.get(word, ("", False))[0] in ACTORS | SCENES for word in words)
    if not nouns and not any(VERB_FORMS.get(word, ("", ""))[0] in KNOWN_VERBS for word in words):
        raise InputError(f"prompt: none of its nouns and verbs is known; {_EXAMPLE}")


def _unused(tokens: list[Token]) -> tuple[str, ...]:
    """Content words that nothing came of, as written in lower case, in order."""
    left = [token for token in tokens if token.is_word and not token.used]
    return tuple(token.said for token in left if token.text not in FUNCTION_WORDS and token.text != "s")
