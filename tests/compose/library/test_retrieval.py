"""Retrieval: fixture queries at the named rates, the laws of its answer, libraries that are refused."""

from __future__ import annotations

import csv
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from orbit4d.compose import Library, retrieve
from orbit4d.compose.director.grammar import rules_director
from orbit4d.compose.library.casting import cast, credits_of
from orbit4d.compose.library.credits import credits_text, unknown_licences
from orbit4d.compose.library.terms import action_lemma, name_words
from orbit4d.datasets import InputError


def row(uid: str, caption: str, *actions: str, licence: str = "CC0-1.0") -> list[dict[str, object]]:
    return [
        {"uid": uid, "caption": caption, "action": name, "action_index": i, "licence": licence}
        for i, name in enumerate(actions)
    ]


SMALL = [
    *row("husky", "a husky", "Arm|Walk", "Arm|Gallop", "Arm|Idle"),
    *row("shark", "a shark", "Swimming_Fast", "Attack"),
    *row("plain_man", "a man", "Anim_0"),
    *row(
        "man_suit", "a man in a suit", "HumanArmature|Man_Clapping", "HumanArmature|Man_Walk_Gun", "Man_Walk"
    ),
    *row("truck", "a milk truck", "Take 001"),
]


def test_fixture_queries_are_answered_at_the_named_rates(shared: Path) -> None:
    folder = shared / "fixtures" / "c3v"
    right: dict[str, list[bool]] = {}
    with open(folder / "queries.csv", encoding="utf-8", newline="") as file:
        for query in csv.DictReader(file):
            uid, action, _ = retrieve(query["query_object"], query["query_action"], folder / "actions.csv")[0]
            also = [pattern for pattern in query["also_right"].split(";") if pattern]
            good = (uid, action) == (query["uid"], query["action"])
            good |= any(fnmatchcase(f"{uid}::{action}", pattern) for pattern in also)
            right.setdefault(query["level"], []).append(good)
    answers = [good for level in right.values() for good in level]
    assert sum(answers) / len(answers) >= 0.95
    assert all(right["exact"]) and len(right["exact"]) == 20


@pytest.mark.parametrize(
    ("object_", "action", "uid", "name"),
    [
        ("dogs", "are sprinting", "husky", "Arm|Gallop"),
        ("shark", "walks", "shark", "Swimming_Fast"),
        ("man", "claps", "man_suit", "HumanArmature|Man_Clapping"),
        ("man", "walks", "man_suit", "Man_Walk"),
        ("lorry", "drives", "truck", "Take 001"),
        ("husky", "stands still", "husky", "Arm|Idle"),
    ],
)
def test_the_best_answer(object_: str, action: str, uid: str, name: str) -> None:
    assert retrieve(object_, action, SMALL)[0][:2] == (uid, name)


def test_words_that_a_library_writes_as_one() -> None:
    rows = [
        *row("a", "a clownfish", "Swim"), *row("b", "a zebraclownfish", "Swim"), *row("c", "a tang", "Swim"),
        *row("d", "a bluetang", "Swim"), *row("e", "an astronaut finnthefrog", "Jump", "Duck"),
        *row("f", "an astronaut barbarathebee", "Jump", "Duck"),
        *row("g", "a lever", "Lever_On", "Lever_Off"),
        *row("h", "an alpaca", "Attack_Kick", "Idle_HitReact_Left"), *row("i", "a rat", "Idle", "Run"),
    ]  # fmt: skip
    for object_, action, best in (
        ("zebra clown fish", "swims", ("b", "Swim")), ("clown fish", "swims", ("a", "Swim")),
        ("blue tang", "swims", ("d", "Swim")), ("frog astronaut", "ducks", ("e", "Duck")),
        ("bee astronaut", "jumps", ("f", "Jump")), ("lever", "is switched off", ("g", "Lever_Off")),
        ("lever", "turns on", ("g", "Lever_On")), ("alpaca", "getting hit", ("h", "Idle_HitReact_Left")),
        ("mouse", "scurries", ("i", "Run")),
    ):  # fmt: skip
        assert retrieve(object_, action, rows)[0][:2] == best, (object_, action)


@pytest.mark.parametrize("query", [("fox", "runs"), ("", ""), ("???", "x"), ("a" * 500, "walk"), ("man", "")])
def test_every_action_is_answered_once_in_order_with_bounded_scores(query: tuple[str, str]) -> None:
    found = retrieve(*query, SMALL)
    assert {(uid, action) for uid, action, _ in found} == {(r["uid"], r["action"]) for r in SMALL}
    assert len(found) == len(SMALL)
    scores = [score for _, _, score in found]
    assert scores == sorted(scores, reverse=True) and min(scores) >= 0 and max(scores) <= 1.5
    ties = [(score, uid) for uid, _, score in found]
    assert all(a[0] > b[0] or a[1] <= b[1] for a, b in pairwise(ties))


def test_order_of_rows_does_not_matter_and_libraries_join() -> None:
    assert retrieve("dog", "walk", SMALL[::-1]) == retrieve("dog", "walk", SMALL)
    halves = [Library.from_rows(SMALL[:5]), Library.from_rows(SMALL[5:])]
    assert retrieve("dog", "walk", halves) == retrieve("dog", "walk", SMALL)


def test_an_encoder_adds_its_cosine_within_the_bounds() -> None:
    def encoder(texts: list[str]) -> np.ndarray:
        return np.array([[1.0, 0.0] if "truck" in t or "vehicle" in t else [0.0, 1.0] for t in texts])

    found = retrieve("vehicle of war", "", SMALL, encoder=encoder)  # type: ignore[arg-type]
    assert found[0][0] == "truck" and all(0 <= score <= 1.5 for _, _, score in found)


def test_names_of_actions() -> None:
    assert name_words("Armature|Triceratops_Walk", {"triceratops"}) == ["walk"]
    assert name_words("MonsterArmature|HitRecieve", set()) == ["hitreact"]
    assert name_words("Swim.001", set()) == ["swim"]
    assert all(
        not name_words(name, set()) for name in ("Anim_0", "Take 001", "Animation", "mixamo.com", "Scene")
    )
    assert action_lemma("running") == "run" and action_lemma("yes") == "yes"


def test_licences_keep_out_and_credits_name_everybody() -> None:
    rows = [
        *row("fox", "a fox", "Walk", licence="CC-BY-NC-4.0"),
        *row("cat", "a cat", "Walk", licence="CC-BY-4.0"),
    ]
    rows += row("dog", "a dog", "Walk", licence="")
    library = Library.from_rows(rows)
    assert library.keep_licences([]).uids == ["cat", "dog"]
    assert library.keep_licences(["cc-by"]).uids == ["cat"]
    assert library.keep_licences(["cc-by-nc"]).uids == ["fox"]
    assert library.keep_licences(["CC0*"]).dropped == {"CC-BY-NC-4.0": 1, "CC-BY-4.0": 1, "unknown": 1}
    casts = cast(rules_director("a dog chases a cat"), library.keep_licences([]))
    table = list(csv.DictReader(credits_text(credits_of(casts)).splitlines()))
    assert [(line["role"], line["actor"], line["uid"], line["licence"]) for line in table] == [
        ("object", "0", "dog", "unknown"),
        ("object", "1", "cat", "CC-BY-4.0"),
    ]
    assert unknown_licences(credits_of(casts)) == ["dog"]


def test_what_stands_in_is_told_and_refused_when_strict() -> None:
    library = Library.from_rows(row("horse", "a horse", "Gallop"))
    (one,) = cast(rules_director("a unicorn gallops"), library)
    assert one.object_stands_in and "stands in for unicorn" in one.line(
        rules_director("a unicorn gallops").actors[0]
    )
    with pytest.raises(InputError, match="no asset for 'robot' in 1 assets; nearest: horse"):
        cast(rules_director("a robot walks"), library, strict=True)


def test_what_is_no_query_and_no_row_is_refused() -> None:
    for query in ((None, "walk"), ("fox", 3)):
        with pytest.raises(InputError, match="is no text"):
            retrieve(*query, SMALL)  # type: ignore[arg-type]
    for rows, message in (
        ([{"uid": "a"}], "row 1 has no action"),
        ([{"action": "Walk"}], "row 1 has no uid"),
    ):
        with pytest.raises(InputError, match=message):
            retrieve("fox", "walk", rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,clip\nfox,Walk\n", "action, uid is missing"),
        ("uid,action\n", "without rows"),
        ("uid,action,file\nfox,Walk,a.glb\nfox,Run,b.glb\n", "two files"),
        ("uid,action,seconds\nfox,Walk,long\n", "row 1"),
    ],
)
def test_a_bad_library_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "actions.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        retrieve("fox", "walk", path)
    assert str(path) in str(caught.value)
    with pytest.raises(InputError, match="no such library"):
        retrieve("fox", "walk", tmp_path / "none.csv")


def test_a_folder_of_assets_is_a_library(shared: Path) -> None:
    library = Library.from_sources(shared / "pool")
    assert (
        len(library.uids) > 90
        and library.entry("animals_pack_fox", "AnimalArmature|Walk").licence == "CC0-1.0"
    )
    assert retrieve("wolf", "gallops", library)[0][:2] == ("animals_pack_wolf", "AnimalArmature|Gallop")


def test_a_dataset_is_a_library() -> None:
    folder = Path(__file__).parents[2] / "datasets" / "fixtures" / "v2"
    library = Library.from_sources(folder)
    assert library.uids and all(len(entry.file_sha256) == 64 for entry in library.entries)
    assert {uid for uid, _, _ in retrieve("fox", "walk", folder)} == set(library.uids)
