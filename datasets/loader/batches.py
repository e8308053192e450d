"""A DataLoader whose order is deterministic and that can be stopped and resumed anywhere in an epoch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Sampler

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.nearest import or_known
from orbit4d.datasets.core.scratch import shorten_listeners
from orbit4d.datasets.loader import collation
from orbit4d.datasets.loader.epoch import EpochDataset
from orbit4d.datasets.loader.order import n_batches, permutation, rank_batches
from orbit4d.datasets.loader.worker_faults import worker_faults

#: Options of DataLoader that would change the order, and what to give instead.
_OURS = {
    "sampler": "the order hangs on shuffle, seed, rank and world; a plain DataLoader takes a sampler",
    "batch_sampler": "the order hangs on shuffle, seed, rank and world; a plain DataLoader takes a sampler",
    "collate_fn": "give it as collate=",
    "in_order": "batches always come in their order, which resuming counts on",
}


class _RankSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, dataset index) for one rank; the loader sets where it starts."""

    def __init__(self, loader: OrbitLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """(epoch, index) of each sample of a batch, batch by batch."""
        epoch = self.loader.epoch
        for batch in self.loader._plan():
            yield [(epoch, index) for index in batch.tolist()]

    def __len__(self) -> int:
        return len(self.loader)


class OrbitLoader:
    """Batches of an OrbitDataset (or any map-style dataset) for one rank.

    The order depends on (seed, epoch) alone. `state_dict()` counts the batches that were handed out, not
    those the workers have prefetched: after `load_state_dict` on as many samples the next batch is the one
    that would have come. Each iteration runs to the end of the epoch and moves on to the next one::

        loader = OrbitLoader(OrbitDataset(path), batch_size=4, num_workers=2)
        for epoch in range(loader.epoch, 10):
            for batch in loader:
                ...
                save(loader.state_dict())

    Random backgrounds are those of the epoch, also of an OrbitDataset inside a `Subset`, a `ConcatDataset` or
    a wrapper of your own.

    batch_size is per rank. `collate` is `orbit4d.datasets.collate` unless given: a batch holds what all its
    samples have. drop_last leaves out the short last step; without it, only a step with fewer samples than
    ranks is left out. `loader_options` are torch's DataLoader's; with workers they are kept alive between
    epochs unless persistent_workers says otherwise.

    InputError for an option that DataLoader does not take, or that would change the order. WorkError, while
    batches are drawn, for workers without shared memory (a small /dev/shm), naming the fix.
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
        if not isinstance(batch_size, int) or batch_size < 1:
            raise InputError(f"batch_size={batch_size}: must be a whole number of at least 1")
        self.dataset, self.batch_size, self.shuffle, self.seed = dataset, batch_size, shuffle, seed
        self.rank, self.world, self.drop_last = rank, world, drop_last
        self.epoch, self.consumed = 0, 0
        shorten_listeners()
        options = {"persistent_workers": num_workers > 0, **_checked(loader_options)}
        try:
            self._loader = DataLoader(
                EpochDataset(dataset),
                batch_sampler=_RankSampler(self),
                num_workers=num_workers,
                collate_fn=collate or collation.collate,
                **options,
            )
        except (TypeError, ValueError) as error:
            raise InputError(f"OrbitLoader: {error}") from error

    def _plan(self) -> list[Any]:
        n = len(self.dataset)
        order = permutation(n, self.seed, self.epoch) if self.shuffle else np.arange(n)
        return rank_batches(order, self.consumed, self.batch_size, self.rank, self.world, self.drop_last)

    def __len__(self) -> int:
        """Batches left in this epoch."""
        return n_batches(len(self.dataset), self.consumed, self.batch_size, self.world, self.drop_last)

    def __iter__(self) -> Iterator[Any]:
        """Batches of the epoch that are left for this rank; then the next epoch is the current one."""
        # What keeps an epoch of its own (an OrbitDataset, a wrapper that passes it on) is given it too.
        if callable(set_epoch := getattr(self.dataset, "set_epoch", None)):
            set_epoch(self.epoch)
        n = len(self.dataset)
        for batch in self._batches():
            # Counted before it is handed out: whoever saves the state while working on it has consumed it.
            self.consumed = min(self.consumed + self.batch_size * self.world, n)
            yield batch
        self.epoch, self.consumed = self.epoch + 1, 0

    def _batches(self) -> Iterator[Any]:
        """The DataLoader's batches; what befalls its workers is answered, what befalls the caller is not."""
        with worker_faults(self._loader.num_workers):
            batches = iter(self._loader)
        while True:
            with worker_faults(self._loader.num_workers):
                try:
                    batch = next(batches)
                except StopIteration:
                    return
            yield batch

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
        """Continue from a saved state; one of another data set, seed or order raises InputError."""
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


def _checked(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Options to pass on to DataLoader; InputError for one that it does not take or that is fixed here."""
    known = [name for name in inspect.signature(DataLoader).parameters if name not in _OURS]
    for name in options:
        if name in _OURS:
            raise InputError(f"OrbitLoader takes no {name}=: {_OURS[name]}")
        if name not in known:
            raise InputError(f"OrbitLoader: unknown option {name}=; {or_known(name, known)}")
    return options
