"""Random draws that belong to an asset and a purpose alone, and the distributions that are named in options.

30                     that value
uniform:-10:40         evenly between two values
loguniform:1.4:11      evenly in the logarithm
integers:0:30          whole numbers, both ends included
normal:0:5[:-10:10]    mean and standard deviation, drawn again outside of the limits
choice:18:24:35:50     one of the values with equal chances
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from orbit4d.datasets.core.errors import InputError

#: Draws from a normal distribution until one lies within its limits; then the nearer limit is taken.
_TRIES = 1000
#: Kind to (forms, counts of values that it takes).
_KINDS: dict[str, tuple[str, tuple[int, ...]]] = {
    "uniform": ("uniform:LOW:HIGH", (2,)),
    "loguniform": ("loguniform:LOW:HIGH", (2,)),
    "integers": ("integers:LOW:HIGH", (2,)),
    "normal": ("normal:MEAN:SD[:LOW:HIGH]", (2, 4)),
    "choice": ("choice:A:B:...", tuple(range(1, 65))),
}


def rng(seed: int, uid: str, purpose: str) -> np.random.Generator:
    """The asset's own random stream for one purpose: neither order nor other settings disturb it."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{uid}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


@dataclass(frozen=True)
class Distribution:
    """A value, or how it is drawn."""

    kind: str
    """`value`, or a kind of the module's list."""
    values: tuple[float, ...]

    def __str__(self) -> str:
        numbers = ":".join(f"{value:g}" for value in self.values)
        return numbers if self.kind == "value" else f"{self.kind}:{numbers}"

    @property
    def bounds(self) -> tuple[float, float]:
        """(least, largest) value that may be drawn; infinite for a normal distribution without limits."""
        if self.kind == "normal":
            return (self.values[2], self.values[3]) if len(self.values) == 4 else (-np.inf, np.inf)
        return min(self.values), max(self.values)

    def draw(self, generator: np.random.Generator) -> float:
        """One value; a fixed value takes nothing from the stream."""
        return float(_DRAWS[self.kind](generator, self.values))

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | None) -> Distribution | None:
        """Inverse of `dataclasses.asdict`, also after a trip through JSON."""
        return None if config is None else cls(config["kind"], tuple(float(v) for v in config["values"]))


def _normal(generator: np.random.Generator, values: tuple[float, ...]) -> float:
    low, high = values[2:] or (-np.inf, np.inf)
    for _ in range(_TRIES):
        value = generator.normal(values[0], values[1])
        if low <= value <= high:
            return float(value)
    return float(np.clip(values[0], low, high))


_DRAWS: dict[str, Callable[[np.random.Generator, tuple[float, ...]], float]] = {
    "value": lambda generator, values: values[0],
    "uniform": lambda generator, values: generator.uniform(values[0], values[1]),
    "loguniform": lambda generator, values: np.exp(generator.uniform(np.log(values[0]), np.log(values[1]))),
    "integers": lambda generator, values: generator.integers(int(values[0]), int(values[1]) + 1),
    "normal": _normal,
    "choice": lambda generator, values: values[generator.integers(len(values))],
}


def parse_distribution(text: str, option: str, limits: tuple[float, float]) -> Distribution:
    """The distribution that a text names, for an option whose values must lie within `limits`.

    InputError, one line that names the option, for an unknown one, for values that are no numbers, and for
    draws that could leave the limits.
    """
    kind, *parts = text.strip().split(":")
    if not parts:
        kind, parts = "value", [kind]
    forms = ", ".join(form for form, _ in _KINDS.values())
    if kind != "value" and kind not in _KINDS:
        raise InputError(f"{option} {text}: unknown distribution {kind!r}; give a number, or {forms}")
    try:
        values = tuple(float(part) for part in parts)
    except ValueError:
        raise InputError(f"{option} {text}: not numbers; give a number, or {forms}") from None
    if kind != "value" and len(values) not in _KINDS[kind][1]:
        raise InputError(f"{option} {text}: {len(values)} values; write {_KINDS[kind][0]}")
    if not np.isfinite(values).all():
        raise InputError(f"{option} {text}: a value that is not finite")
    found = Distribution(kind, values)
    _check(found, option, limits)
    return found


def _check(found: Distribution, option: str, limits: tuple[float, float]) -> None:
    text, values = str(found), found.values
    ends = values[2:] if found.kind == "normal" else values
    if found.kind not in ("choice", "value") and list(ends) != sorted(ends):
        raise InputError(f"{option} {text}: the first limit lies above the second; turn them round")
    if found.kind == "normal" and values[1] < 0:
        raise InputError(f"{option} {text}: the standard deviation is negative")
    if found.kind == "loguniform" and values[0] <= 0:
        raise InputError(f"{option} {text}: a logarithm needs values above 0")
    if found.kind == "integers" and any(value != int(value) for value in values):
        raise InputError(f"{option} {text}: give whole numbers")
    low, high = found.bounds
    if low < limits[0] or high > limits[1]:
        fix = "; limit it as normal:MEAN:SD:LOW:HIGH" if np.isinf(low) or np.isinf(high) else ""
        raise InputError(f"{option} {text}: values must lie within {limits[0]:g} to {limits[1]:g}{fix}")
