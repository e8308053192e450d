"""In which order samples come: a function of (seed, epoch) alone, whatever the workers and ranks.

Global step k takes the samples k·G .. (k+1)·G of the epoch's permutation, G = batch size x ranks; rank r gets
every `world`-th of them. So the state of a run is one number, the samples consumed, and a run may continue
with another number of workers, ranks or another batch size.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def permutation(n: int, *key: int) -> npt.NDArray[np.int64]:
    """Order [n] of `n` samples: a function of the numbers of `key` alone, the same on every machine.

    The loader's key is (seed, epoch), the trainer's (seed, stage, epoch, a number of its own).
    """
    return np.random.Generator(np.random.PCG64(list(key))).permutation(n)


def strided(chunk: npt.NDArray[np.int64], rank: int, world: int) -> npt.NDArray[np.int64]:
    """The loader's share: every `world`-th sample of a global step, from the `rank`-th on."""
    return chunk[rank::world]


def contiguous(first: int, batch: int, rank: int, world: int) -> range:
    """The trainer's share: `batch` numbers in a row of the `world` times `batch` that start at `first`.

    The union over ranks does not depend on how many there are, for one `world` times `batch`.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} of {world}")
    return range(first + rank * batch, first + (rank + 1) * batch)


def rank_batches(
    order: npt.NDArray[np.int64], start: int, batch_size: int, rank: int, world: int, drop_last: bool
) -> list[npt.NDArray[np.int64]]:
    """Batches of one rank from sample number `start` of the order on.

    The last, short step is shared out too; ranks that would get nothing would wait for ever for the others,
    so it is left out when it holds fewer samples than ranks, and with `drop_last` always.
    """
    step = batch_size * world
    batches = []
    for at in range(start, len(order), step):
        chunk = order[at : at + step]
        if len(chunk) < step and (drop_last or len(chunk) < world):
            break
        batches.append(strided(chunk, rank, world))
    return batches


def n_batches(n: int, start: int, batch_size: int, world: int, drop_last: bool) -> int:
    """Batches that `rank_batches` gives each rank."""
    step = batch_size * world
    whole, rest = divmod(max(n - start, 0), step)
    return whole + (1 if rest >= world and not drop_last else 0)
