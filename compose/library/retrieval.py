"""Which asset and which of its actions fit words best."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from orbit4d.compose.library.catalogue import Library, open_library
from orbit4d.compose.library.features import Floats, ObjectIndex
from orbit4d.compose.library.terms import actions_of, name_words, synonyms
from orbit4d.datasets.core.errors import InputError

#: Weight of the action beside the object, and the distance within which a fitting action decides.
ACTION_WEIGHT = 0.3
NEAR = 0.15
NEAR_NAMELESS = 0.4
#: Below this an object only stands in.
STANDS_IN = 0.15
_UNEXPLAINED = 0.06
_KEPT = 8
_indices: OrderedDict[str, ObjectIndex] = OrderedDict()

Source = str | os.PathLike[str] | Library | Sequence[Mapping[str, Any]]
Encoder = Callable[[Sequence[str]], "np.ndarray[Any, Any]"]


def retrieve(
    query_object: str,
    query_action: str,
    library: Source | Sequence[Source],
    encoder: Encoder | None = None,
) -> list[tuple[str, str, float]]:
    """All actions of a library, best first, for an object that does something.

    Args:
        query_object: words for the object, as `a white horse` or `foxes`.
        query_action: words for what it does, as `is running` or `run`; may be empty.
        library: path of a CSV with the columns of actions.csv, of a dataset or of a folder of assets; a list
            of mappings with those columns; a `Library`; or a list of several of these.
        encoder: maps N texts to [N, D] unit vectors, whose cosine is added; None: words and letters alone.

    Returns:
        (uid, action, score) of every (uid, action) once, scores in [0, 1.5] and descending, ties by (uid,
        action_index). The object outweighs the action: a shark that is to walk swims.

    Raises:
        InputError: a library is missing, empty, or lacks the columns uid and action; a query is no text.
    """
    for name, query in (("query_object", query_object), ("query_action", query_action)):
        if not isinstance(query, str):
            raise InputError(f"{name}: {type(query).__name__} is no text; give words such as 'a fox'")
    index = index_of(open_library(library))
    objects = index.scores(query_object)
    words = actions_of(query_action)
    actions = [
        np.array([_action_score(words, names) for names in group]) if group else np.zeros(0)
        for group in index.action_words
    ]
    if encoder is not None:
        objects, actions = _with_encoder(index, encoder, query_object, query_action, objects, actions)
    objects = _near_ones_that_can(index, objects, actions, words, query_object)
    found = []
    for i, group in enumerate(index.entries):
        for k, entry in enumerate(group):
            fits = actions[i][k] if actions[i][k] > 0 else _stand_in(index.action_words[i][k])
            score = min(max(float(objects[i] + ACTION_WEIGHT * fits), 0.0), 1.5)
            found.append(
                (-round(score, 9), entry.duplicate_of is not None, entry.uid, entry.action_index, entry)
            )
    found.sort(key=lambda row: row[:4])
    return [(entry.uid, entry.action, -score) for score, _, _, _, entry in found]


def index_of(library: Library) -> ObjectIndex:
    """The searchable form of a library, kept by the hash of its contents."""
    key = library.digest or str(id(library))
    if key not in _indices:
        _indices[key] = ObjectIndex(library)
        while len(_indices) > _KEPT:
            _indices.popitem(last=False)
    _indices.move_to_end(key)
    return _indices[key]


def object_score(query_object: str, uid: str, library: Library) -> float:
    """How well one asset fits the object alone; below `STANDS_IN` it only stands in."""
    index = index_of(library)
    return float(index.scores(query_object)[index.uids.index(uid)])


def action_fits(query_action: str, uid: str, action: str, library: Library) -> bool:
    """Whether an action's name has anything of what is asked for."""
    index = index_of(library)
    i = index.uids.index(uid)
    k = next(k for k, entry in enumerate(index.entries[i]) if entry.action == action)
    return _action_score(actions_of(query_action), index.action_words[i][k]) > 0


def name_score(query_action: str, name: str, of_object: set[str]) -> float:
    """How well an action's name says what is asked for, in [0, 1]; the object's own words do not count."""
    return _action_score(actions_of(query_action), name_words(name, of_object))


def _near_ones_that_can(
    index: ObjectIndex, objects: Floats, actions: list[Floats], words: list[str], query_object: str
) -> Floats:
    """An object that cannot do what is asked stands behind one nearly as good that can.

    Of an object whose clips have no names nobody knows what it can do: any of the same kind that can is
    nearly as good.
    """
    if not words:
        return objects
    can = np.array([len(group) > 0 and group.max() > 0 for group in actions])
    nameless = np.array([not any(group) for group in index.action_words])
    same_kind = index.holds_head(query_object)
    for rivals, behind, near in ((can, ~can, NEAR), (can & same_kind, nameless, NEAR_NAMELESS)):
        if not rivals.any():
            continue
        best = objects[rivals].max()
        late = behind & (objects > best - 0.01) & (objects - best < near)
        # Their own order stays.
        objects = np.where(late, (best - 0.02 + 0.01 * (objects - best)).clip(0), objects)
    return objects


def _action_score(query: list[str], name: list[str]) -> float:
    """In [0, 1]: the mean over the query's words of their best match, less for words left unexplained."""
    if not query or not name:
        return 0.0
    explained: set[int] = set()
    total = 0.0
    for word in query:
        scored = [(_match(word, other), -k) for k, other in enumerate(name)]
        best, at = max(scored)
        if best > 0:
            total += best
            explained.add(-at)
    if total == 0:
        return 0.0
    left = len(name) - len(explained)
    return max(total / len(query) - _UNEXPLAINED * left, 0.01)


@cache
def _match(word: str, other: str) -> float:
    if word == other:
        return 1.0
    if other in synonyms(word):
        return 0.7
    return 0.55 if len(word) > 3 and len(other) > 3 and word[:4] == other[:4] else 0.0


def _stand_in(name: list[str]) -> float:
    """Where nothing fits: resting, swimming and flying first, then whatever has a name."""
    if not name:
        return 0.0
    calm = {"idle": 0.04, "swim": 0.035, "fly": 0.035, "stand": 0.03}
    first = max((calm.get(word, 0.0) for word in name), default=0.0)
    return max(first - 0.005 * (len(name) - 1), 0.005)


def _with_encoder(
    index: ObjectIndex,
    encoder: Encoder,
    query_object: str,
    query_action: str,
    objects: Floats,
    actions: list[Floats],
) -> tuple[Floats, list[Floats]]:
    """Add the cosine of sentence vectors: the query against "caption, action"; scaled back to [0, 1.5]."""
    captions = [caption or uid for caption, uid in zip(index.captions, index.uids)]
    vectors = np.asarray(encoder([f"{query_object} {query_action}".strip(), *captions]), dtype=np.float64)
    cosines = (vectors[1:] @ vectors[0]).clip(0, 1)
    scale = 1.45 / 2.45
    return (objects + cosines) * scale, [group * scale for group in actions]
