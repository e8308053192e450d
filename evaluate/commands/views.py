"""`orbit4d eval views`: whether synchronised views agree with each other."""

from __future__ import annotations

from pathlib import Path

import click

from orbit4d.datasets.commands.options import Command, Place


@click.command("views", cls=Command, short_help="Agreement of synchronised views, by true depth.")
@click.argument("reference")
@click.option("--sync", default=None, help="Rig of the dataset; default: its only synchronised one.")
@click.option(
    "--given",
    type=Place(),
    help="Folder of generated views, <camera>.mp4 or <camera>/, instead of the dataset's own renders.",
)
@click.option("--features", type=Place(), help="Folder of a DINOv2-like model: feature consistency too.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file for the numbers.")
def command(
    reference: str, sync: str | None, given: Path | None, features: Path | None, out: Path | None
) -> None:
    """Pixels (and features) that two views have of one surface point, found by the dataset's true depth.

    REFERENCE is DATASET:uid[:action] with a synchronised rig and the pass depth. With --given the dataset's
    own renders are measured beside: gloss and edges keep them below 1. Not comparable with Mat.Pix or MEt3R,
    whose correspondences are estimated.

    \b
    Examples:
      orbit4d eval views data:walker --sync ring_16_15
      orbit4d eval views data:walker --given generated --features dinov2-small --out views.json
    """
    from orbit4d.datasets.core.atomic import write_json
    from orbit4d.evaluate.metrics.features import PatchFeatures
    from orbit4d.evaluate.tasks.views import given_views, measure_views, rig_clips

    clips = rig_clips(reference, sync)
    views = None if given is None else given_views(given, clips)
    network = None if features is None else PatchFeatures.from_folder(features)
    found = {"truth": measure_views(clips, None, network)}
    if views is not None:
        found["given"] = measure_views(clips, views, network)
    for name, row in found.items():
        values = " ".join(
            f"{key} {row[key]:.4f}" for key in ("matched", "difference", "unlike") if key in row
        )
        click.echo(
            f"{name}: {values} valid {row['valid']:.0f} ({row['cameras']} cameras, {row['frames']} frames)"
        )
    if out is not None:
        write_json(out, {"reference": reference, "features": features and str(features), **found})
        click.echo(f"numbers {out}")
