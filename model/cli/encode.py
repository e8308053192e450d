"""`orbit4d encode`. Torch is imported only when a command runs."""

from __future__ import annotations

from typing import Any

import click

from orbit4d.datasets.commands.options import RESUMED, Command
from orbit4d.model.cli.options import CONFIG, PRESET, SET, WHERE, parts, settings


@click.command(
    cls=Command,
    on_interrupt=RESUMED,
    groups={
        "Input and output": "--out --where",
        "Settings": "--preset --config --set",
        "Frozen parts": "--vae --text-encoder --image-encoder",
    },
)
@click.argument("dataset")
@click.option(
    "--out", "latents", default="", metavar="FOLDER", help="Write there, for a DATASET that is read-only."
)
@PRESET
@CONFIG
@WHERE
@parts
@SET
def encode(dataset: str, **options: Any) -> None:
    """Write the latents and embeddings of DATASET beside it, so that training need not make them.

    They are keyed by the encoders' weights, the size and the background; a training run uses them when they
    match its settings, and stops when the clips have changed since. Run again after appending: only what is
    missing is encoded. What was written to --out FOLDER is found by `train --latents FOLDER`.

    \b
    Examples:
      orbit4d encode data/walkers --preset videomv-image --vae weights/sd-vae
      orbit4d encode /mnt/read-only/walkers --preset videomv-image --out latents/walkers
    """
    from orbit4d.model.data.encode import encode_dataset

    config = settings(**options)
    if config.synchronised:
        from orbit4d.model.views.encode import encode_scenes

        print(encode_scenes(dataset, config))
        return
    print(encode_dataset(dataset, config))
