"""A DataLoader whose order is deterministic and that can be stopped and resumed anywhere in an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Sampler, default_collate

from orbit4d.datasets.errors import InputError
from orbit4d.datasets.loader import OrbitDataset
from orbit4d.datasets.order import n_batches, permutation, rank_batches
from orbit4d.datasets.short_temp import shorten_listeners


class _RankSampler(Sampler[list[int]]):
    """Batches of dataset indices for one rank; the loader sets where it starts."""

    def __init__(self, loader: OrbitLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.loader._plan():
            yield batch.tolist()

    def __len__(self) -> int:
        return len(self.loader)


class OrbitLoader:
    """Batches of an OrbitDataset (or any map-style dataset) for one rank.

    The order depends on (seed, epoch) alone. `state_dict()` counts the batches that were handed out, not
    those the workers have prefetched: after `load_state_dict` on as many samples the next batch is the one
    that would have come. Each iteration runs to the end of the epoch and moves on to the next one.

        loader = OrbitLoader(OrbitDataset(path), batch_size=4, num_workers=2)
        for epoch in range(loader.epoch, 10):
            for batch in loader:
                ...
                save(loader.state_dict())

    batch_size is per rank. `collate` is torch's default unless given. drop_last leaves out the short last
    step; without it, only a step with fewer samples than ranks is left out.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = True,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        num_workers: int = 0,
        drop_last: bool = False,
        collate: Callable[[Sequence[Any]], Any] | None = None,
        **loader_options: Any,
    ) -> None:
        if not 0 <= rank < world:
            raise InputError(f"rank {rank} of {world}: ranks count from 0")
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}: must be at least 1")
        self.dataset, self.batch_size, self.shuffle, self.seed = dataset, batch_size, shuffle, seed
        self.rank, self.world, self.drop_last = rank, world, drop_last
        self.epoch, self.consumed = 0, 0
        shorten_listeners()
        self._loader = DataLoader(
            dataset,
            batch_sampler=_RankSampler(self),
            num_workers=num_workers,
            collate_fn=collate or default_collate,
            persistent_workers=num_workers > 0,
            **loader_options,
        )

    def _plan(self) -> list[Any]:
        n = len(self.dataset)
        order = permutation(n, self.seed, self.epoch) if self.shuffle else np.arange(n)
        return rank_batches(order, self.consumed, self.batch_size, self.rank, self.world, self.drop_last)

    def __len__(self) -> int:
        """Batches left in this epoch."""
        return n_batches(len(self.dataset), self.consumed, self.batch_size, self.world, self.drop_last)

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self.dataset, OrbitDataset):
            self.dataset.set_epoch(self.epoch)
        n = len(self.dataset)
        for batch in self._loader:
            # Counted before it is handed out: whoever saves the state while working on it has consumed it.
            self.consumed = min(self.consumed + self.batch_size * self.world, n)
            yield batch
        self.epoch, self.consumed = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        """Where the run stands: epoch, samples consumed by all ranks in it, and what the order hangs on."""
        return {
            "epoch": self.epoch,
            "consumed": self.consumed,
            "seed": self.seed,
            "samples": len(self.dataset),
            "shuffle": int(self.shuffle),
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a saved state; one of another data set, seed or order raises InputError."""
        for key, have in (
            ("seed", self.seed),
            ("samples", len(self.dataset)),
            ("shuffle", int(self.shuffle)),
        ):
            if state[key] != have:
                raise InputError(
                    f"loader state: {key} was {state[key]}, here it is {have}; resume with the same settings"
                )
        self.epoch, self.consumed = state["epoch"], state["consumed"]
