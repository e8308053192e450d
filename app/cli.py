"""The umbrella command. Packages are imported when one of their commands runs, so `--help` is instant."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import click

from orbit4d.datasets.commands.command import leave, run
from orbit4d.datasets.commands.options import Group

#: name -> (module, attribute, one line for `orbit4d --help`), in the order of the chain.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": (
        "orbit4d.app.demo.chain",
        "command",
        "The whole chain on built-in animated assets; ends in a gallery.",
    ),
    "doctor": ("orbit4d.app.doctor", "command", "Check system packages, versions, devices and extras."),
    "curate": ("orbit4d.curate.cli", "command", "Measure animated assets and decide which to keep."),
    "review": (
        "orbit4d.curate.commands.review",
        "command",
        "Look at clips in the browser and label them.",
    ),
    "render": ("orbit4d.render.cli", "command", "Render accepted assets into a dataset of orbit clips."),
    "verify": ("orbit4d.datasets.cli", "verify", "Check every byte of a dataset and print its digest."),
    "stats": ("orbit4d.datasets.cli", "stats", "Counts, bytes, motion and licences of a dataset."),
    "status": ("orbit4d.datasets.cli", "status", "How far a run is: done, quarantined, pace, time left."),
    "list": ("orbit4d.datasets.cli", "list_", "List the clips of a dataset, one per line."),
    "select": ("orbit4d.datasets.cli", "select", "Keep the clips of a dataset that match an expression."),
    "merge": ("orbit4d.datasets.cli", "merge", "Join datasets; duplicate clips are kept once."),
    "import": ("orbit4d.datasets.cli", "import_", "Bring published orbit folders into a dataset."),
    "export": ("orbit4d.app.export", "command", "Write a dataset or a scene in another layout."),
    "encode": ("orbit4d.model.cli.encode", "encode", "Cache VAE latents and embeddings beside a dataset."),
    "train": ("orbit4d.model.cli.train", "train", "Train or finetune the orbit-video diffusion model."),
    "generate": (
        "orbit4d.model.cli.generate",
        "generate",
        "Generate an orbit video from text, an image or a static orbit.",
    ),
    "multicam": (
        "orbit4d.model.cli.multicam",
        "multicam",
        "Generate synchronised videos of one scene, one for each camera.",
    ),
    "novel-view": (
        "orbit4d.compose.cli.novel_view",
        "command",
        "Show a scene from views that nothing saw, without training.",
    ),
    "recon4d": ("orbit4d.recon4d.cli", "recon4d", "Turn an orbit video into explicit 4D Gaussians."),
    "animate": ("orbit4d.compose.cli.animate", "command", "One image and a sentence become 4D Gaussians."),
    "compose": (
        "orbit4d.compose.cli.group",
        "compose",
        "Compose a film of 3D concepts from a sentence.",
    ),
    "film": ("orbit4d.recon4d.cli", "film", "Film a scene along a camera path."),
    "view": (
        "orbit4d.recon4d.cli",
        "view",
        "Inspect a scene or a dataset in the browser, with a time slider.",
    ),
    "eval": (
        "orbit4d.evaluate.cli",
        "command",
        "Evaluate datasets, videos, scenes and runs with the published protocols.",
    ),
}


def _read_character(path: str, scale: float, centre: Sequence[float]) -> Any:
    """A rig for `recon4d --rig`, which knows neither files of assets nor Blender."""
    from orbit4d.compose.characters.reading import read_character

    return read_character(path, scale, centre)


class Umbrella(Group):
    """A group whose members are named in `COMMANDS` and imported on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        if cmd_name in ("curate", "render"):
            from orbit4d.app.demo.source import register

            register()
        if cmd_name == "recon4d":
            from orbit4d.recon4d.fitting.rigging import slot

            slot.register(_read_character)
        if cmd_name == "recon4d":
            from orbit4d.recon4d.fitting.completion.slot import register as register_completer

            register_completer("guided", _completer)
        module, attribute, _ = COMMANDS[cmd_name]
        return getattr(importlib.import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


@click.group(
    cls=Umbrella,
    epilog="Every command takes --help, which shows an example, and --debug, which shows tracebacks.",
)
@click.version_option(version("orbit4d"), prog_name="orbit4d")
def command() -> None:
    """Animated 3D assets to 4D training data, an orbit-video model, and explicit 4D Gaussians.

    \b
    assets -> curate -> render -> train -> generate -> recon4d -> film
    Try it: orbit4d demo
    """


def _completer(settings: Any) -> Any:
    """What `recon4d --complete` completes views with."""
    from orbit4d.compose.completion.complete import completer

    return completer(settings)


def main() -> None:
    """Entry point of the script `orbit4d`."""
    leave(run(command, prog_name="orbit4d"))


def curate_main() -> None:
    """Entry point of the script `curate`: it knows what the umbrella knows, `demo:` too."""
    _alone("curate")


def recon4d_main() -> None:
    """Entry point of the script `recon4d`."""
    _alone("recon4d")


def _alone(name: str) -> None:
    found = command.get_command(click.Context(command), name)
    assert found is not None, name
    leave(run(found, prog_name=name))
