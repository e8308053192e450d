"""`orbit4d train`. Torch is imported only when a command runs."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from orbit4d.datasets.commands.command_line import command_line
from orbit4d.datasets.commands.options import Command, Place
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.model.cli.options import (
    CONFIG,
    NOT_THE_MODEL,
    PRESET,
    SET,
    WHERE,
    Count,
    parts,
    settings,
)


def _not_needed(params: dict[str, Any]) -> tuple[str, ...]:
    """What a run at a URI need not bring to be resumed, or to be found and refused."""
    return ("model", "ray", "tensorboard") + (() if params["resume"] else ("checkpoints",))


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """What all processes of one launch would say is said once.

    Notes come from the first process, bad input from the first of each machine (which may see other files
    than the others), and failed work, which may be one process's own, from each with its number.
    """
    from orbit4d.datasets.core.cores import limit_torch_threads

    limit_torch_threads()
    rank, first_here = os.environ.get("RANK", "0"), os.environ.get("LOCAL_RANK", "0") == "0"
    with contextlib.ExitStack() as stack:
        if rank != "0":
            silence = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(silence))
        try:
            yield
        except InputError as error:
            if first_here:
                raise
            raise click.exceptions.Exit(error.exit_code) from error
        except WorkError as error:
            if rank == "0":
                raise
            raise WorkError(f"process {rank}: {error}") from error


@contextlib.contextmanager
def _stopped(run: Path) -> Iterator[None]:
    """An interrupted training names the command that resumes it."""
    try:
        yield
    except KeyboardInterrupt:
        from orbit4d.model.run.claim import has_begun

        context = click.get_current_context()
        more = ("--resume",) if has_begun(run) else ()
        how = command_line(context, *more)
        if "RANK" in os.environ:  # of a launcher, whose own words are not known here
            how = " ".join(("the same command again", *(f"with {word}" for word in more)))
        if os.environ.get("RANK", "0") == "0":
            kept = "what was learned is kept" if more else "no step was finished"
            print(f"interrupted: {kept}; continue with: {how}", file=sys.stderr)
        raise click.exceptions.Exit(130) from None


@click.command(
    cls=Command,
    on_interrupt="interrupted: the last checkpoint is kept; resume by the same command and --resume",
    groups={
        "Run": "--out --resume --track --sample-every --dry-run",
        "Settings": "--preset --config --steps --batch --seed --deterministic --set",
        "Data": "--where --latents",
        "Weights": "--init --allow-missing --vae --text-encoder --image-encoder",
        "Workers": "--ray --address",
    },
)
@click.argument("dataset")
@click.option(
    "--out",
    type=Place("run", as_text=True, leave_out=_not_needed),
    help="Folder of the run, or a URI: checkpoints are uploaded as they are written, and resumed from there.",
)
@PRESET
@CONFIG
@click.option(
    "--init",
    type=Place(as_text=True, leave_out=NOT_THE_MODEL),
    default="",
    help="Start from these weights: a VideoMV .pth, a RUN, or a model folder.",
)
@parts
@click.option("--allow-missing", is_flag=True, help="Accept unknown or missing keys in --init.")
@click.option(
    "--resume", is_flag=True, help="Resume from the newest checkpoint in RUN; with more --steps, extend it."
)
@click.option("--steps", type=int, help="Optimizer steps over all stages.")
@click.option(
    "--batch", type=Count(), help="Clips per micro-batch and process, or auto: as many as the device takes."
)
@click.option("--seed", type=int, help="Random seed.")
@click.option(
    "--deterministic",
    is_flag=True,
    help="The same bits in every run on a GPU too: slower. Without it losses there differ by up to 1 %.",
)
@WHERE
@click.option("--latents", default="", metavar="FOLDER", help="Latents that `encode --out FOLDER` wrote.")
@click.option(
    "--sample-every",
    type=click.IntRange(0),
    metavar="N",
    help="Generate clips every N steps, to RUN/samples and to --track.",
)
@SET
@click.option("--ray", "ray_workers", type=int, help="Train on N Ray Train workers.")
@click.option(
    "--address", help="With --ray: Ray address (`auto`: the running cluster). Default: a local Ray."
)
@click.option(
    "--track",
    multiple=True,
    type=click.Choice(["tensorboard", "wandb"]),
    help="Tracker that also gets the log.",
)
@click.option("--dry-run", is_flag=True, help="Print the settings and the memory a step needs, and stop.")
@one_voice()
def train(
    dataset: str,
    out: str | None,
    allow_missing: bool,
    resume: bool,
    ray_workers: int | None,
    address: str | None,
    track: tuple[str, ...],
    dry_run: bool,
    **options: Any,
) -> None:
    """Train an orbit-video model on the training split of DATASET.

    Several GPUs: `accelerate launch -m orbit4d.model.train_main DATASET --out RUN ...`, or --ray N. --resume
    continues a run that was stopped, with the same losses as if it had not been: to the bit on a CPU, and on
    a GPU with --deterministic. With more --steps it extends a run, finished or not: its last stage takes the
    further steps, at the learning rates of the longer stage (a constant rate stays, a cosine rises to where
    the longer one stands).

    \b
    Examples:
      orbit4d train data/walkers --out runs/tiny
      orbit4d train data/walkers --out runs/image --preset videomv-image --init i2v_00882000.pth
      orbit4d train data/walkers --out runs/tiny --steps 800 --resume
      orbit4d train data/walkers --out runs/image --config image.yaml --sample-every 500 --track tensorboard
      orbit4d train data/walkers --preset videomv-image --dry-run
    """
    config = settings(**options)
    if dry_run:
        import json

        from orbit4d.model.config.settings import to_dict
        from orbit4d.model.encoders.frozen import latent_shape
        from orbit4d.model.training.memory import report

        print(json.dumps(to_dict(config), indent=1))
        processes = ray_workers or int(os.environ.get("WORLD_SIZE", "1"))
        shape = latent_shape(config.model.autoencoder, config.model.base == "wan")
        print(report(config, *shape, processes))
        if config.optim.batch == "auto":
            from orbit4d.model.training.plan import choices

            print(choices(config, processes))
        return
    if not out:
        raise click.UsageError("give --out RUN, the folder of the run (or --dry-run)")
    with _stopped(Path(out)):
        if ray_workers is not None:
            from orbit4d.datasets.core.remote import stands_in
            from orbit4d.model.training.ray_launch import train_on_ray

            if stands_in(out):
                raise click.UsageError(
                    "--ray writes to a folder that every node sees: give --out a path, no URI"
                )
            if allow_missing:
                raise click.UsageError(
                    "--allow-missing is not passed on to --ray: convert the checkpoint first"
                )
            model = train_on_ray(config, dataset, Path(out), ray_workers, resume, track, address)
        else:
            from orbit4d.model.training.train import train as run_training

            model = run_training(config, dataset, Path(out), resume, track, allow_missing)
    print(f"model: {model}")
