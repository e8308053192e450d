"""Tables that pair module names of two layouts, and the renaming of a whole file by one table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Rule:
    """One module (or family of modules) under both names."""

    source: str
    """Module name in the foreign layout, whole dotted parts."""
    target: str
    """Module name in ours."""
    squeeze: tuple[str, ...] = ()
    """Suffixes of 1x1 convolutions that are linear layers in ours: their trailing axes of 1 are dropped."""
    parts: tuple[str, ...] = ()
    """Names of the equal parts that the source keeps in one tensor, in order, below `target`."""


def rename(source: Mapping[str, Tensor], rules: Iterable[Rule]) -> tuple[dict[str, Tensor], list[str]]:
    """Rename every key by the rule with the longest matching name -> (tensors, keys without a rule).

    Tensors keep their dtype and, where they are not split, their memory: a file may be larger than half the
    machine, and copying them into a network casts exactly. Cast before any arithmetic.
    """
    table = {rule.source: rule for rule in rules}
    converted: dict[str, Tensor] = {}
    unknown: list[str] = []
    for key, value in source.items():
        rule = longest_match(key, table)
        if rule is None:
            unknown.append(key)
            continue
        suffix = key[len(rule.source) :]
        if rule.parts:
            for name, part in zip(rule.parts, value.chunk(len(rule.parts))):
                converted[f"{rule.target}.{name}{suffix}"] = part.clone()
        elif suffix in rule.squeeze and value.shape[2:].numel() == 1:
            converted[rule.target + suffix] = value.flatten(1)
        else:
            converted[rule.target + suffix] = value
    return converted, unknown


def longest_match(key: str, table: Mapping[str, Rule]) -> Rule | None:
    """The rule whose name is the longest dotted prefix of `key` (whole parts: `1` is no prefix of `10`)."""
    prefix = key
    while "." in prefix:
        prefix = prefix.rpartition(".")[0]
        if prefix in table:
            return table[prefix]
    return None
