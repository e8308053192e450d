"""Distributions that options name."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from orbit4d.datasets.cameras.sampling import Distribution, parse_distribution, rng
from orbit4d.datasets.core.errors import InputError

WIDE = (-1000.0, 1000.0)


@pytest.mark.parametrize(
    ("text", "low", "high", "mean"),
    [
        ("30", 30, 30, 30),
        ("uniform:-10:40", -10, 40, 15),
        ("loguniform:1:100", 1, 100, 99 / np.log(100)),
        ("integers:0:4", 0, 4, 2),
        ("normal:5:2:-1:11", -1, 11, 5),
        ("choice:18:24:36", 18, 36, 26),
    ],
)
def test_draws_keep_their_limits_and_mean(text: str, low: float, high: float, mean: float) -> None:
    found = parse_distribution(text, "--x", WIDE)
    assert found.bounds == (low, high) and str(found) == text
    generator = rng(0, "fox", "x")
    values = np.array([found.draw(generator) for _ in range(4000)])
    assert low <= values.min() and values.max() <= high
    # Four standard errors of a fixed, seeded sample.
    assert abs(values.mean() - mean) <= 4 * values.std() / np.sqrt(len(values)) + 1e-12
    assert Distribution.from_config(json.loads(json.dumps(asdict(found)))) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gauss:0:1", "--x gauss:0:1: unknown distribution 'gauss'; give a number, or uniform:LOW:HIGH"),
        ("high", "not numbers"),
        ("uniform:1", "1 values; write uniform:LOW:HIGH"),
        ("uniform:a:b", "not numbers"),
        ("uniform:5:1", "the first limit lies above the second"),
        ("normal:0:20", "limit it as normal:MEAN:SD:LOW:HIGH"),
        ("normal:0:-1:-5:5", "standard deviation is negative"),
        ("loguniform:0:5", "a logarithm needs values above 0"),
        ("integers:0.5:3", "whole numbers"),
        ("uniform:0:2000", "values must lie within -1000 to 1000"),
        ("uniform:0:inf", "not finite"),
        ("", "not numbers"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_distribution(text, "--x", WIDE)
    assert words in str(caught.value) and "\n" not in str(caught.value)
