"""What labels propose: thresholds or a model, how well they do on assets left out, what they would change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from orbit4d.curate.fitting.model import Model, brier, fit_model
from orbit4d.curate.fitting.thresholds import FITTED, accepted_by, fit_thresholds, of_looks
from orbit4d.curate.fitting.truth import Mask, Score, Truth, folds, score
from orbit4d.curate.rule_settings import Rules
from orbit4d.curate.rules import Columns


@dataclass(frozen=True)
class Proposal:
    """Rules that labels propose, with what speaks for them."""

    rules: Rules
    before: Score
    """Of the rules as they were."""
    fitted: Score
    """Of the proposed rules, on the labels that they were chosen on."""
    held_out: Score
    """Of rules chosen in the same way on other assets: what to expect."""
    folds: int
    model: Model | None = None
    brier: float | None = None
    """Of the model's probabilities on assets left out."""

    @property
    def better(self) -> bool:
        """Whether the way of choosing is wrong less often than the old rules, on assets it has not seen."""
        return self.held_out.wrong < self.before.wrong


def propose(truth: Truth, rules: Rules, model: bool = False, count: int = 5, seed: int = 0) -> Proposal:
    """Thresholds, or with `model` a probability in their place, from the labels of `truth`."""
    columns = Columns(truth.table)
    look = of_looks(rules)
    held = np.zeros(columns.n, bool)
    guessed = np.full(columns.n, np.nan)
    parts = folds(truth, count, seed)
    for part in parts:
        if model:
            found = fit_model(columns, truth.keep, truth.assets, ~part)
            logit = found.logit(columns)[part]
            guessed[part] = 1.0 / (1.0 + np.exp(-logit))
            held[part] = (logit >= 0) & accepted_by(columns, _off(look))[part]
        else:
            held[part] = accepted_by(columns, fit_thresholds(columns, truth.keep, look, ~part))[part]
    before = score(accepted_by(columns, look), truth.keep)
    if model:
        whole = fit_model(columns, truth.keep, truth.assets)
        chosen = _with_model(rules, whole)
        inside = (whole.logit(columns) >= 0) & accepted_by(columns, _off(look))
        scores = (score(inside, truth.keep), score(held, truth.keep))
        return Proposal(chosen, before, *scores, len(parts), whole, brier(guessed, truth.keep))
    chosen = fit_thresholds(columns, truth.keep, rules)
    inside = accepted_by(columns, of_looks(chosen))
    return Proposal(chosen, before, score(inside, truth.keep), score(held, truth.keep), len(parts))


def _off(rules: Rules) -> Rules:
    """The rules without the thresholds that a model stands in for."""
    off: dict[str, Any] = dict.fromkeys(FITTED)
    return replace(rules, **off)


def _with_model(rules: Rules, model: Model) -> Rules:
    expression = model.expression()
    both = f"({rules.keep}) and ({expression})" if rules.keep else expression
    return replace(_off(rules), keep=both)


@dataclass(frozen=True)
class Changes:
    """What new rules would change in a table."""

    gained: list[str]
    """uid and action of what would come in."""
    lost: list[str]
    accepted: int
    """By the old rules."""


def changes(table: pa.Table, before: Rules, after: Rules) -> Changes:
    """The rows that the two accept differently."""
    columns = Columns(table)
    measured = np.array(table["status"].to_pylist(), object) == "measured"
    old, new = (accepted_by(columns, rules) & measured for rules in (before, after))
    names = [f"{u} {a or ''}".strip() for u, a in zip(table["uid"].to_pylist(), table["action"].to_pylist())]
    pick: Callable[[Mask], list[str]] = lambda mask: [names[i] for i in np.flatnonzero(mask)]  # noqa: E731
    return Changes(pick(new & ~old), pick(old & ~new), int(old.sum()))


def as_yaml(proposal: Proposal, labels: str) -> str:
    """The file that `curate --rules` reads: what differs from the defaults, under how well it did."""
    import yaml

    now, usual = asdict(proposal.rules), asdict(Rules())
    changed = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in now.items()
        if value != usual[name]
    }
    kind = "a model" if proposal.model else "thresholds"
    head = [
        f"Rules of `orbit4d curate fit {labels}`: {kind} on {proposal.held_out.clips} labelled clips.",
        f"before:        {proposal.before}",
        f"on the labels: {proposal.fitted}",
        f"held out:      {proposal.held_out} ({proposal.folds} folds by asset)",
    ]
    body = yaml.safe_dump(changed, sort_keys=False, width=4096) if changed else "{}\n"
    return "".join(f"# {line}\n" for line in head) + body
