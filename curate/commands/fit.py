"""`orbit4d curate fit`: rules from labels."""

from __future__ import annotations

from pathlib import Path

import click

from orbit4d.datasets.commands.options import Command, Place

#: Clips that are named of each kind of change.
_NAMED = 8


@click.command(
    "fit",
    cls=Command,
    short_help="Propose rules from labels.",
    groups={
        "Input and output": "--table --out",
        "Rules": "--preset --rules --model",
        "Cross-validation": "--folds --seed",
    },
)
@click.argument("labels", type=Place(as_text=True))
@click.option("--table", type=str, default=None,
              help="Curated table with the measures. Default: the one that the labels were given for, or the "
              "measures in a .csv of labels.")  # fmt: skip
@click.option("--preset", default=None, help="Rules to start from instead of the table's.")
@click.option("--rules", "rules_file", type=Place(as_text=True), default=None, help="YAML file of rules.")
@click.option("--model", is_flag=True, help="A calibrated model on the measures in the thresholds' place.")
@click.option("--folds", type=click.IntRange(min=2), default=5, show_default=True,
              help="Parts of the cross-validation; an asset is in one part.")  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Random seed of the parts.")
@click.option("--out", type=Place("file"), default=Path("rules.yaml"), show_default=True,
              help="File of rules to write.")  # fmt: skip
def command(
    labels: str,
    table: str | None,
    preset: str | None,
    rules_file: str | None,
    model: bool,
    folds: int,
    seed: int,
    out: Path,
) -> None:
    """Propose thresholds that agree with the labels that people gave, and write them as a file of rules.

    LABELS is a file of `orbit4d review`, or a .csv with uid, action, keep (1 or 0) and measures. What is said
    of the proposal was measured on assets that it was not chosen on.

    \b
    Examples:
      orbit4d curate fit assets.labels.parquet --out ours.yaml
      orbit4d curate assets.curated.parquet --rules ours.yaml --out ours.parquet
    """
    from orbit4d.curate.columns import info_of
    from orbit4d.curate.fitting.proposal import as_yaml, changes, propose
    from orbit4d.curate.fitting.thresholds import FITTED
    from orbit4d.curate.fitting.truth import read_truth
    from orbit4d.curate.rule_settings import PRESETS, Rules
    from orbit4d.curate.rules import make_rules
    from orbit4d.datasets.core.atomic import write_text

    truth = read_truth(labels, table)
    for note in truth.notes:
        click.echo(f"note: {note}", err=True)
    stored = info_of(truth.whole).get("rules")
    if preset or rules_file:
        rules = make_rules(preset or "default", rules_file)
    else:
        rules = Rules(**{**stored, "license": tuple(stored["license"])}) if stored else PRESETS["default"]
    found = propose(truth, rules, model, folds, seed)
    click.echo(f"{len(truth.keep)} labelled clips of {len(set(truth.assets.tolist()))} assets, "
               f"{int(truth.keep.sum())} to keep")  # fmt: skip
    click.echo(f"rules as they are   {found.before}")
    click.echo(f"proposed, on these  {found.fitted}")
    click.echo(f"proposed, held out  {found.held_out} ({found.folds} folds by asset)")
    if found.brier is not None:
        click.echo(
            f"probabilities, held out: Brier score {found.brier:.3f} (0 is perfect, 0.25 knows nothing)"
        )
    for name in FITTED:
        old, new = getattr(rules, name), getattr(found.rules, name)
        if old != new:
            click.echo(f"  {name:<14} {old} -> {'off' if new is None else new}")
    changed = changes(truth.whole, rules, found.rules)
    click.echo(
        f"of {changed.accepted} accepted clips {len(changed.lost)} fall out, {len(changed.gained)} come in"
    )
    for sign, names in (("-", changed.lost), ("+", changed.gained)):
        for name in names[:_NAMED]:
            click.echo(f"  {sign} {name}")
        if len(names) > _NAMED:
            click.echo(f"  {sign} {len(names) - _NAMED} more")
    if not found.better:
        click.echo(
            "note: on assets left out the proposal is wrong no less often than the rules as they are: keep "
            "those, or label more clips (borderline ones first)",
            err=True,
        )
    write_text(out, as_yaml(found, labels))
    click.echo(f"rules {out}")
