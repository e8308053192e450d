"""What the README and the pages that follow it say of the dataset and the commands is what the code does."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from orbit4d.app.cli import COMMANDS
from orbit4d.datasets.store.schema import INDEX_SCHEMA

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
SCHEMA = (ROOT / "docs" / "reference" / "index-schema.md").read_text()
TRANSCRIPTS = (ROOT / "docs" / "reference" / "whole-chain.md").read_text()


def _shown(text: str) -> list[str]:
    """Names of the commands of the lines `$ orbit4d NAME ...`, in order."""
    return [shlex.split(line)[2] for line in text.splitlines() if line.startswith("$ orbit4d ")]


def test_schema_table_is_the_schema() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", SCHEMA, re.MULTILINE)
    assert rows == [(f.name, f.metadata[b"description"].decode()) for f in INDEX_SCHEMA]


def test_every_command_is_shown_with_what_it_prints() -> None:
    """That the options of each line exist is checked for every page in test_docs.py."""
    assert set(_shown(TRANSCRIPTS)) == set(COMMANDS)
    assert "docs/reference/whole-chain.md" in README


def test_readme_is_one_page_with_four_commands() -> None:
    assert len(README.splitlines()) <= 150
    assert _shown(README) == ["demo", "curate", "render", "recon4d"]


def test_pictures_and_files_that_it_names_exist() -> None:
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert pictures
    for path in pictures:
        assert (ROOT / path).stat().st_size < 1_000_000, path
    pages = README + "".join(page.read_text() for page in (ROOT / "docs").rglob("*.md"))
    for name in (
        "ray_cluster.yaml",
        "datasets/cameras/camera.py",
        "datasets/store/schema.py",
        "tests/test_house.py",
    ):
        assert name in pages and (ROOT / name).is_file()


def test_cells_of_the_comparison_are_facts_with_a_link() -> None:
    """A cell about another project leads to a file at a commit, or is the dash that is explained below."""
    rows = [line for line in README.splitlines() if line.startswith("| ")]
    head, rows = rows[0], rows[1:]
    assert len(rows) == 7 and len(re.findall(r"\]\(https://github\.com/[\w-]+/[\w-]+\)", head)) == 4
    for row in rows:
        own, *others = [cell.strip() for cell in row.strip("|").split("|")[1:]]
        assert re.search(r"\]\([\w/.-]+\)", own), row
        for cell in others:
            at_a_commit = r"\[.+\]\(https://github\.com/[\w-]+/[\w-]+/(blob|tree)/[0-9a-f]{40}[^)]*\)"
            assert cell == "–" or re.fullmatch(at_a_commit, cell), cell


def test_the_ten_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_dataset, make_clips) -> None:
    from orbit4d.datasets import DatasetWriter
    from orbit4d.recon4d import PRESETS

    monkeypatch.chdir(tmp_path)
    writer = DatasetWriter("demo/dataset", {"frames": 8})
    writer.stage("dino", make_clips("dino"))
    writer.roll(final=True)
    code = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(code) == 1 and len([line for line in code[0].splitlines() if line]) <= 12
    # A sketch of the fit: what is tested is that the lines fit together.
    monkeypatch.setitem(PRESETS, "fast", replace(PRESETS["fast"], coarse_steps=5, fine_steps=5))
    names: dict[str, object] = {}
    exec(compile(code[0], "README.md", "exec"), names)
    assert names["video"].shape == (8, 3, 128, 128) and names["cameras"].shape == (8, 4, 4)
    assert names["image"].shape == (256, 256, 4)
