"""`orbit4d eval benchmark`: given results in a published layout, and our row beside the published ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from orbit4d.datasets.commands.options import Command, Place
from orbit4d.recon4d.fitting.settings import PRESETS

NAMES = ("actionbench", "motion80", "consistent4d", "dnerf", "n3dv")
#: Option -> the benchmarks that heed it.
_HEEDED = {
    "--align": ("actionbench", "motion80"),
    "--fit-points": ("actionbench",),
    "--weights": ("consistent4d", "dnerf", "n3dv"),
    "--clip": ("consistent4d", "dnerf", "n3dv"),
    "--preset": ("dnerf", "n3dv"),
    "--resolution": ("dnerf", "n3dv"),
    "--device": ("dnerf", "n3dv"),
}
_ALIGN = {"actionbench": ("published", "similarity", "none"), "motion80": ("icp", "published", "none")}


@click.command(
    "benchmark",
    cls=Command,
    short_help="Measure results in a published benchmark's layout.",
    groups={
        "Input and output": "--given --out",
        "Metrics": "--align --fit-points --weights --clip",
        "Reconstruction": "--preset --resolution --device",
    },
)
@click.argument("name", type=click.Choice(NAMES))
@click.argument("folder", type=Place())
@click.option(
    "--given",
    type=Place(),
    help="Folder of the results, named as the truth. Default: within FOLDER, where the layout has a place "
    "for them (actionbench, consistent4d); dnerf and n3dv are reconstructed without it.",
)
@click.option(
    "--out",
    type=Place("folder"),
    default=None,
    help="Folder for results.json, .csv and .md, and for the scenes that are reconstructed; finished ones "
    "are not made again.",
)
@click.option(
    "--align",
    default=None,
    help="actionbench: published (nine parameters), similarity, none; motion80: icp, published (with its two "
    "faults), none. Default: the first of them.",
)
@click.option(
    "--fit-points",
    type=click.IntRange(min=10),
    default=None,
    help="actionbench: points of a fit (1500); the publication takes 10000.",
)
@click.option("--weights", type=Place(), default=None, help="Folder with LPIPS and I3D weights.")
@click.option("--clip", default=None, help="CLIP: hub name or folder.")
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    default=None,
    help="Preset of recon4d (fast), without --given.",
)
@click.option(
    "--resolution",
    type=int,
    default=None,
    help="Pixels of the longer side, fitted and measured; default: the preset's.",
)
@click.option("--device", default=None, help="Device of the fit (auto), without --given.")
def command(
    name: str,
    folder: Path,
    given: Path | None,
    out: Path | None,
    align: str | None,
    fit_points: int | None,
    weights: Path | None,
    clip: str | None,
    preset: str | None,
    resolution: int | None,
    device: str | None,
) -> None:
    """Measure results in the layout of a published benchmark: given ones, or a reconstruction by recon4d.

    Without --given, dnerf and n3dv are reconstructed from their training views into --out, and the test views
    of the layout are measured. Published rows are printed beside ours only where objects, frames and protocol
    are theirs; else one line says what differs.

    \b
    Examples:
      orbit4d eval benchmark actionbench actionbench/data --given results --out row
      orbit4d eval benchmark motion80 truth --given results --align published
      orbit4d eval benchmark consistent4d test_dataset --given pred --weights weights
      orbit4d eval benchmark dnerf data/lego --preset fast --resolution 400 --out row
    """
    from orbit4d.datasets.core.errors import InputError

    fit: dict[str, object] = {"--preset": preset, "--resolution": resolution, "--device": device}
    heeded = {"--align": align, "--fit-points": fit_points, "--weights": weights, "--clip": clip}
    _check(name, {**heeded, **fit})
    if given is not None and (asked := [option for option, value in fit.items() if value is not None]):
        raise InputError(f"{', '.join(asked)}: of a reconstruction, and --given names results; leave one out")
    if name in _ALIGN:
        align = align or _ALIGN[name][0]
        if align not in _ALIGN[name]:
            raise InputError(f"--align {align}: {name} takes {', '.join(_ALIGN[name])}")
    if name == "actionbench":
        from orbit4d.evaluate.benchmarks import actionbench

        found = actionbench.run(folder, given, fit_points or 1_500, align or "published")
    elif name == "motion80":
        from orbit4d.evaluate.benchmarks import motion80

        found = motion80.run(folder, given, align or "icp")
    else:
        from orbit4d.evaluate.metrics.clip_score import DEFAULT_MODEL
        from orbit4d.evaluate.metrics.suite import Suite

        suite = Suite(weights, clip or DEFAULT_MODEL)
        if given is None and out is not None and name != "consistent4d":
            from orbit4d.evaluate.benchmarks import fitted

            settings = PRESETS[preset or "fast"]
            settings = replace(settings, resolution=resolution or settings.resolution)
            found = fitted.run(name, folder, out / "scenes", suite, settings, device or "auto")
        else:
            from orbit4d.evaluate.benchmarks import images

            found = images.run(name, folder, given, suite)
    click.echo(found.text(), nl=False)
    if out is not None:
        found.write(out)
        click.echo(f"results {out}")


def _check(name: str, asked: dict[str, object]) -> None:
    """InputError for an option that the benchmark has no use for."""
    from orbit4d.datasets.core.errors import InputError

    for option, value in asked.items():
        if value is not None and name not in _HEEDED[option]:
            raise InputError(f"{option}: {name} has no use for it; {', '.join(_HEEDED[option])} heed it")
