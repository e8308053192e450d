"""Words and letter groups of a library's objects as sparse vectors: built once, asked many times."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from orbit4d.compose.language.nouns import NOUN_FORMS
from orbit4d.compose.library.catalogue import Entry, Library
from orbit4d.compose.library.terms import name_words, nouns_of, widened, words_of_name

Floats = npt.NDArray[np.float64]
#: Weight of a uid's words beside the caption's.
_UID_WEIGHT = 0.25
#: Weight of the noun with which a compound ends, and letters beyond which its other half is a name.
_END_WEIGHT, LONG = 0.5, 10
_PACK_WORDS = {"pack", "transformed", "ultimate", "easy", "single", "dev", "asset", "assets", "model", "the"}


@dataclass(frozen=True)
class Postings:
    """Which assets hold a term, and its share of each asset's unit vector."""

    assets: npt.NDArray[np.int64]
    weights: Floats


class ObjectIndex:
    """The searchable form of a library: `uids` [A], and per asset its entries and its actions' words."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.uids = library.uids
        number = {uid: i for i, uid in enumerate(self.uids)}
        self.entries: list[list[Entry]] = [[] for _ in self.uids]
        for entry in library.entries:
            self.entries[number[entry.uid]].append(entry)
        self.captions = [next((e.caption for e in group if e.caption), "") for group in self.entries]
        terms = [_terms(uid, caption) for uid, caption in zip(self.uids, self.captions)]
        self._count = len(self.uids)
        self._df = Counter(word for words in terms for word in words)
        self._words = self._postings([self._weighed(words) for words in terms])
        self._grams = self._postings([dict(_grams(self._name(i))) for i in range(self._count)])
        self.object_words = [set(words) for words in terms]
        self.caption_words = [set(nouns_of(caption)) for caption in self.captions]
        self.action_words = [
            [name_words(entry.action, self._own_words(i)) for entry in group]
            for i, group in enumerate(self.entries)
        ]

    def _own_words(self, i: int) -> set[str]:
        """An object's own words, as its actions' names repeat them."""
        return self.object_words[i] | {self._name(i).replace(" ", "")} | set(words_of_name(self._name(i)))

    def _name(self, i: int) -> str:
        return self.captions[i].lower() or " ".join(words_of_name(self.uids[i]))

    def idf(self, word: str) -> float:
        return math.log((1 + self._count) / (1 + self._df.get(word, 0))) + 1.0

    def _weighed(self, words: dict[str, float]) -> dict[str, float]:
        return {word: weight * self.idf(word) for word, weight in words.items()}

    def _postings(self, vectors: list[dict[str, float]]) -> dict[str, Postings]:
        lists: dict[str, list[tuple[int, float]]] = {}
        for i, vector in enumerate(vectors):
            length = math.sqrt(sum(value * value for value in vector.values())) or 1.0
            for word, value in vector.items():
                lists.setdefault(word, []).append((i, value / length))
        return {
            word: Postings(np.array([i for i, _ in pairs]), np.array([value for _, value in pairs]))
            for word, pairs in lists.items()
        }

    def scores(self, query: str) -> Floats:
        """[A] how well each object fits: 0.8 words + 0.2 letter groups + 0.15 for the head noun."""
        words = self._joined(nouns_of(query))
        if not self.uids:
            return np.zeros(0)
        total = 0.8 * self._word_cosines(words) + 0.2 * self._cosines(
            self._grams, dict(_grams(" ".join(words)))
        )
        return total + 0.15 * self.holds_head(query)

    def _joined(self, words: list[str]) -> list[str]:
        """Words of a query in which "zebra clown fish" is one where a library writes it as one."""
        found: list[str] = []
        i = 0
        while i < len(words):
            for n in (4, 3, 2):
                one = "".join(words[i : i + n])
                if i + n <= len(words) and one in self._df:
                    found.append(one)
                    i += n
                    break
            else:
                found.append(words[i])
                i += 1
        return found

    def holds_head(self, query: str) -> npt.NDArray[np.bool_]:
        """[A] whether the query's head noun stands in the caption."""
        words = self._joined(nouns_of(query))
        head = words[-1] if words else ""
        return np.array([head in caption for caption in self.caption_words], dtype=bool)

    def _word_cosines(self, words: list[str]) -> Floats:
        base = {word: count * self.idf(word) for word, count in Counter(words).items()}
        length = math.sqrt(sum(value * value for value in base.values())) or 1.0
        wide: dict[str, float] = dict(base)
        head = words[-1] if words else ""
        for word in base:
            for other, weight in widened(word):
                # The kind of thing asked for is its head noun: "milk truck" is a truck before it is milk.
                share = weight if word == head else 0.5 * weight
                wide[other] = max(wide.get(other, 0.0), share * base[word])
        found = np.zeros(self._count)
        for word, value in wide.items():
            if word in self._words:
                post = self._words[word]
                if word in base:
                    found[post.assets] += post.weights * value / length
        best = np.zeros(self._count)
        for word, value in wide.items():
            if word in self._words and word not in base:
                post = self._words[word]
                best[post.assets] = np.maximum(best[post.assets], post.weights * value / length)
        return np.minimum(found + best, 1.0)

    def _cosines(self, postings: dict[str, Postings], query: dict[str, float]) -> Floats:
        length = math.sqrt(sum(value * value for value in query.values())) or 1.0
        found = np.zeros(self._count)
        for word, value in query.items():
            if word in postings:
                found[postings[word].assets] += postings[word].weights * value / length
        return found


def _terms(uid: str, caption: str) -> dict[str, float]:
    """Lemmas of the caption, and at a quarter of the weight those of the uid."""
    terms: dict[str, float] = {}
    for word in nouns_of(caption):
        terms[word] = terms.get(word, 0.0) + 1.0
    for word in list(terms):
        if (inside := _end_of(word)) is not None:
            terms[inside] = terms.get(inside, 0.0) + _END_WEIGHT
            terms[word] *= _END_WEIGHT if len(word) > LONG else 1.0
    for word in nouns_of(" ".join(words_of_name(uid))):
        if word not in _PACK_WORDS:
            terms[word] = terms.get(word, 0.0) + _UID_WEIGHT
    return terms


def _end_of(word: str) -> str | None:
    """The known noun with which a word of several ends: "frog" of "finnthefrog"; None where there is none."""
    if word in NOUN_FORMS:
        return None
    ends = (word[i:] for i in range(3, len(word) - 2))
    return next((end for end in ends if NOUN_FORMS.get(end, ("", True)) == (end, False)), None)


def _grams(text: str) -> Counter[str]:
    """Counts of the 3- and 4-letter groups of a text's words, with their ends marked."""
    found: Counter[str] = Counter()
    for word in text.split():
        if word in ("a", "an", "the"):
            continue
        marked = f"<{word}>"
        found.update(marked[i : i + n] for n in (3, 4) for i in range(len(marked) - n + 1))
    return found
