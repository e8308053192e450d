"""The order of samples: a function of its key, shared out without loss whatever the ranks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbit4d.datasets.loader.order import contiguous, n_batches, permutation, rank_batches


def test_streams_are_those_of_stored_runs() -> None:
    """States of loaders and runs that were stopped on other days hang on these numbers."""
    assert permutation(9, 7, 3).tolist() == [4, 3, 5, 8, 0, 2, 7, 1, 6]
    old = np.random.default_rng([7, 1, 3, 0x0BB17]).permutation(9)
    np.testing.assert_array_equal(permutation(9, 7, 1, 3, 0x0BB17), old)


@given(n=st.integers(1, 60), batch=st.integers(1, 5), world=st.integers(1, 5), start=st.integers(0, 20))
def test_strided_shares_make_the_whole(n: int, batch: int, world: int, start: int) -> None:
    order = permutation(n, 1, 2)
    shares = [rank_batches(order, start, batch, rank, world, drop_last=False) for rank in range(world)]
    assert {len(share) for share in shares} == {n_batches(n, start, batch, world, False)}
    seen = np.concatenate([b for share in shares for b in share] or [np.empty(0, np.int64)])
    left = order[start:]
    # Fewer samples than ranks at the end are left out, so that no rank waits for ever.
    assert len(left) - len(seen) < world and sorted(seen) == sorted(left[: len(seen)])


@given(rows=st.integers(1, 12), first=st.integers(0, 50), data=st.data())
def test_contiguous_shares_make_the_whole(rows: int, first: int, data: st.DataObject) -> None:
    world = data.draw(st.sampled_from([w for w in range(1, rows + 1) if rows % w == 0]))
    shares = [contiguous(first, rows // world, rank, world) for rank in range(world)]
    assert [number for share in shares for number in share] == list(range(first, first + rows))


def test_a_rank_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="rank 2 of 2"):
        contiguous(0, 4, 2, 2)
