"""From samples to a batch, where samples may lack different things (an orbit, a front view, a measure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import default_collate

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.loader.samples import RIG_OF


class MissingKey(InputError, KeyError):
    """A key that a batch does not have, since one of its samples lacks it."""

    def __str__(self) -> str:
        return str(self.args[0])


class Batch(dict[str, Any]):
    """A collated batch: a dictionary of the keys that all its samples have.

    Asking for another key that some sample had is an InputError (and a KeyError) that names an asset without
    it; `in`, `get` and iteration are those of a dictionary.
    """

    lacking: dict[str, str]
    """Key that some samples have, to the name of one that lacks it."""

    def __init__(self, values: Mapping[str, Any], lacking: Mapping[str, str] | None = None) -> None:
        super().__init__(values)
        self.lacking = dict(lacking or {})

    def __copy__(self) -> Batch:
        return Batch(self, self.lacking)

    def __reduce__(self) -> Any:
        return Batch, (dict(self), self.lacking)

    def __missing__(self, key: str) -> Any:
        if key not in self.lacking:
            raise KeyError(key)
        clip = _clip_of(key)
        fix = "select with where=, or look whether the batch has it"
        if clip:
            require = dict.fromkeys(("dynamic", clip))
            fix = f"OrbitDataset(..., require={tuple(require)}) leaves such samples out"
        raise MissingKey(f"{key}: {self.lacking[key]} has none, so this batch has none: {fix}")


def collate(samples: Sequence[Any]) -> Any:
    """torch's default collation, for samples that are dictionaries with different keys too.

    The batch holds the keys that all samples have, whichever comes first (see `Batch`). InputError where
    tensors of one key differ in size, naming two samples. Samples of another kind go to `default_collate`.
    """
    if not samples or not all(isinstance(sample, Mapping) for sample in samples):
        return default_collate(list(samples))
    shared = set.intersection(*(set(sample) for sample in samples))
    lacking = {
        key: _name(next(sample for sample in samples if key not in sample))
        for key in sorted({key for sample in samples for key in sample} - shared, key=str)
    }
    kept = [key for key in samples[0] if key in shared]
    _check_sizes(samples, kept)
    return Batch(default_collate([{key: sample[key] for key in kept} for sample in samples]), lacking)


def _check_sizes(samples: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> None:
    first = samples[0]
    for key in keys:
        if not isinstance(first[key], torch.Tensor):
            continue
        for other in samples[1:]:
            shapes = tuple(first[key].shape), tuple(getattr(other[key], "shape", ()))
            if shapes[0] != shapes[1]:
                raise InputError(
                    f"{key}: {_name(first)} has {list(shapes[0])}, {_name(other)} has {list(shapes[1])}, "
                    "which make no batch: give OrbitDataset size= for one size and where='n_frames = 24' for "
                    "one number of frames, or batch_size=1, or collate="
                )


def _clip_of(key: str) -> str | None:
    """The clip (dynamic, static, front) that a key of a sample comes with."""
    parts = key.split("_")
    return next((name for name in RIG_OF if name in (parts[0], parts[-1])), None)


def _name(sample: Mapping[str, Any]) -> str:
    """How messages call a sample."""
    if "uid" not in sample:
        return "one sample"
    return " ".join(str(sample[key]) for key in ("uid", "action") if sample.get(key))
