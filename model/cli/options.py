"""Options that the commands of this package share, and the settings they make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from orbit4d.datasets.commands.options import Place

#: Folders of a run that are not needed to read its model.
NOT_THE_MODEL = ("checkpoints", "ray", "tensorboard")


def settings(
    preset: str | None,
    config_file: str | None,
    where: str,
    sets: tuple[str, ...],
    vae: str,
    text_encoder: str,
    image_encoder: str,
    init: str = "",
    steps: int | None = None,
    batch: int | str | None = None,
    seed: int | None = None,
    latents: str = "",
    sample_every: int | None = None,
    deterministic: bool = False,
):
    """A preset, then what --config says, then the options, then --set."""
    from orbit4d.model.config.file import read_settings
    from orbit4d.model.config.presets import preset as named
    from orbit4d.model.config.settings import TrainConfig, assign, override

    written = read_settings(config_file) if config_file else {}
    name = preset or written.get("preset", "tiny")
    # RUN/config.json of settings that began with no preset says so.
    start = TrainConfig() if name == TrainConfig.preset else named(name)
    written.pop("preset", None)
    start = assign(start, written.items(), f"--config {config_file}:")
    short = [f"steps={steps}"] if steps is not None else []
    short += [f"optim.batch={batch}"] if batch is not None else []
    short += [f"seed={seed}"] if seed is not None else []
    short += [f"model.init={init}"] if init else []
    short += [f"data.where={where}"] if where else []
    parts = {"autoencoder": vae, "text_encoder": text_encoder, "image_encoder": image_encoder}
    short += [f"model.{part}={source}" for part, source in parts.items() if source]
    short += [f"data.latents_folder={latents}", "data.latents=cache"] if latents else []
    short += ["optim.deterministic=true"] if deterministic else []
    short += [f"sample_every={sample_every}"] if sample_every is not None else []
    return override(start, [*short, *sets])


class Count(click.ParamType):
    """A whole number, or `auto`."""

    name = "integer|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        return "auto" if value == "auto" else int(click.INT.convert(value, param, ctx))


PRESET = click.option(
    "--preset",
    help="tiny, tiny-text, videomv-text, -image, -static3d, sync-tiny, -orbit, -wan, or wan-orbit. "
    "Default: tiny.",
)
CONFIG = click.option(
    "--config",
    "config_file",
    metavar="FILE",
    help="YAML or JSON of settings, nested or dotted, such as RUN/config.json; options and --set go before.",
)
SET = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any setting, e.g. optim.lr=1e-4. Repeat for more.",
)
WHERE = click.option("--where", default="", help="SQL filter on the index.")


def parts(command: Callable[..., None]) -> Callable[..., None]:
    """The options that name the frozen parts; with the same, `encode` and `train` meet in one cache."""
    for flag, what, file in (
        ("--image-encoder", "Image encoder", "open_clip_pytorch_model.bin"),
        ("--text-encoder", "Text encoder", "open_clip_pytorch_model.bin"),
        ("--vae", "Autoencoder", "VQGAN_autoencoder.pth"),
    ):
        text = f"{what}: hub name, folder or {file}. Default: the preset's."
        command = click.option(flag, type=Place(as_text=True), default="", help=text)(command)
    return command
