"""How far reviewers agree beyond chance: Cohen's kappa of every pair, on the clips that both labelled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

from orbit4d.curate.labels import Label


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> float | None:
    """Cohen's kappa of two raters over the same items (Cohen 1960): (observed - expected) / (1 - expected)
    agreement. None where it is undefined: without items, or where both always say the same one word."""
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} labels: both rate the same items")
    n = len(first)
    if n == 0:
        return None
    observed = sum(a == b for a, b in zip(first, second))
    # In whole numbers: where chance alone explains everything the difference is 0 and not nearly so.
    expected = sum(list(first).count(word) * list(second).count(word) for word in {*first, *second})
    return None if expected == n * n else (observed * n - expected) / (n * n - expected)


def agreement(labels: Iterable[Label]) -> list[dict[str, Any]]:
    """Of every pair of reviewers who labelled the same clips: `reviewers`, `clips` that both accepted or
    rejected, `agree` how many alike, and `kappa`. A flag is no vote."""
    said: dict[str, dict[tuple[str, int], str]] = {}
    for label in labels:
        if label.label in ("accept", "reject"):
            said.setdefault(label.reviewer, {})[label.clip] = label.label
    found = []
    for one, other in combinations(sorted(said), 2):
        both = sorted(said[one].keys() & said[other].keys())
        if not both:
            continue
        first, second = ([said[who][clip] for clip in both] for who in (one, other))
        agree = sum(a == b for a, b in zip(first, second))
        kappa = cohen_kappa(first, second)
        found.append({"reviewers": [one, other], "clips": len(both), "agree": agree, "kappa": kappa})
    return found
