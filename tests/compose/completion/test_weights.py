"""Which weights a call takes, and where their numbers come from."""

from __future__ import annotations

import numpy as np
import pytest

from orbit4d.compose.completion.weights import weight_table
from orbit4d.datasets.core.errors import InputError
from orbit4d.model import guidance_weights, search_guidance

LEVELS = np.array([35.7, 12.0, 4.0, 1.5, 0.5, 0.22])
DISTANCES = np.linspace(0, 1, 7)


def test_a_run_of_ours_searches_its_own_numbers():
    table = weight_table("", "", LEVELS, DISTANCES, "orbit4d")
    triple = search_guidance(LEVELS, DISTANCES)
    assert table.as_report() == {"schedule": "closed", "v": list(triple), "v_from": "searched"}
    assert np.array_equal(table.weights, guidance_weights(LEVELS, DISTANCES, triple))
    # Named numbers stay what they are, and other models keep the released ones, scaled to their levels.
    for kind, v, origin in (("orbit4d", "0.001,1000,10", "given"), ("svd", "", "default")):
        other = weight_table("closed", v, LEVELS, DISTANCES, kind)
        assert other.origin == origin and other.v == pytest.approx((0.001, 1000 * 35.7 / 700, 10))
    assert (table.weights >= other.weights).all() and (table.weights > other.weights + 0.5).any()


def test_where_no_triple_fits_the_released_one_is_taken_and_said(capsys):
    # So near a given view, at so little noise, both errors are nothing: no root of the release is valid.
    levels, distances = np.array([1.0, 1e-9, 0.0]), np.array([0.0, 1e-7])
    table = weight_table("closed", "", levels, distances, "orbit4d")
    assert table.origin == "default" and "the released v is taken" in capsys.readouterr().out
    with pytest.raises(InputError, match="--v search: no "):
        weight_table("closed", "search", levels, distances, "orbit4d")


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("none", 0.0), ("infinite", 1.0), ("constant:0.25", 0.25), ("linear", None), ("constant", 0.5)],
)
def test_rivals_by_name(schedule, expected):
    table = weight_table(schedule, "", LEVELS, DISTANCES, "orbit4d")
    rest = table.weights[:, 1:]
    assert table.v is None and table.as_report()["schedule"] == schedule
    assert (table.weights[:, 0] == (schedule != "none")).all()
    assert np.allclose(rest, (1 - np.arange(5) / 5)[:, None] if expected is None else expected)
    with pytest.raises(InputError, match="belongs to --schedule closed or repo"):
        weight_table(schedule, "search", LEVELS, DISTANCES)


@pytest.mark.parametrize("first", [np.inf, 986_894.0])
def test_pure_noise_counts_as_the_next_level(first):
    levels = LEVELS.copy()
    levels[0] = first
    table = weight_table("closed", "", levels, DISTANCES)
    assert table.v is not None and table.v[1] == pytest.approx(1000 * 12.0 / 700)
    assert np.allclose(table.weights[0], table.weights[1], atol=1e-6)
