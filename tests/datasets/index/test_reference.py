"""DATASET:uid[:action], where paths, URIs and actions hold colons of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.index.reference import is_reference, open_reference, split_reference


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("data/set:fox:Run", ("data/set", "fox", "Run")),
        ("data/set:fox", ("data/set", "fox", "")),
        ("data/set:fox:Armature|Run:2", ("data/set", "fox", "Armature|Run:2")),
        ("s3://bucket/data:fox", ("s3://bucket/data", "fox", "")),
        ("gs://bucket/data:fox:a:b", ("gs://bucket/data", "fox", "a:b")),
        # Nothing is there: the first colon after which a uid can stand.
        ("run_10:30/data:fox", ("run_10:30/data", "fox", "")),
    ],
)
def test_the_first_colon_counts_where_nothing_exists(
    text: str, parts: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("orbit4d.datasets.index.reference._exists", lambda where: False)
    assert is_reference(text) and open_reference(text) == parts


@pytest.mark.parametrize("text", ["data", "s3://bucket/data", "a:b/c", "clip_10:30.mp4", "memory://x/y.mp4"])
def test_paths_and_uris_are_no_references(text: str) -> None:
    assert not is_reference(text)
    with pytest.raises(InputError, match="DATASET:uid"):
        open_reference(text)


@pytest.mark.parametrize("folder", ["at 7:45/set", "a:b:c/d:e", "set:1", "set:1:2"])
@pytest.mark.parametrize("rest", [("fox", ""), ("fox", "Run"), ("fox", "Take:3|x/y")])
def test_the_longest_path_that_exists_is_the_dataset(
    folder: str, rest: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(folder).mkdir(parents=True)
    for place in (folder, str(tmp_path / folder)):
        text = f"{place}:{rest[0]}" + (f":{rest[1]}" if rest[1] else "")
        assert open_reference(text) == (place, *rest)
        assert split_reference(text) == (place, *rest)
        assert split_reference(place) == (place, None, "")


def test_a_dataset_under_a_uri_with_colons(make_dataset: Callable[..., Any]) -> None:
    uri = "memory://takes/9:15/set"
    make_dataset(uri, assets=1)
    assert open_reference(f"{uri}:asset-000:Run") == (uri, "asset-000", "Run")
    make_dataset("memory://takes/10:15", assets=1)
    assert open_reference("memory://takes/10:15:asset-000") == ("memory://takes/10:15", "asset-000", "")
