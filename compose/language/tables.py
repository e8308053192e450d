"""How word tables are written down: as text."""

from __future__ import annotations


def words_in(text: str) -> list[str]:
    """The words of a table's text, which stand between spaces."""
    return text.split()


def word_set(text: str) -> set[str]:
    """The words of a table's text as a set."""
    return set(text.split())
