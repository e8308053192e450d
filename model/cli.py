"""`orbit4d encode`, `orbit4d train`, `orbit4d generate`. Torch is imported only when a command runs."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from orbit4d.datasets.commands.command_line import command_line
from orbit4d.datasets.commands.options import RESUMED, Command, Place
from orbit4d.datasets.core.errors import InputError, WorkError

#: Folders of a run that are not needed to read its model.
_NOT_THE_MODEL = ("checkpoints", "ray", "tensorboard")


def _not_needed(params: dict[str, Any]) -> tuple[str, ...]:
    """What a run at a URI need not bring to be resumed, or to be found and refused."""
    return ("model", "ray", "tensorboard") + (() if params["resume"] else ("checkpoints",))


def _settings(
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


class _Count(click.ParamType):
    """A whole number, or `auto`."""

    name = "integer|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        return "auto" if value == "auto" else int(click.INT.convert(value, param, ctx))


_PRESET = click.option(
    "--preset",
    help="tiny, tiny-text, videomv-text, videomv-image or videomv-static3d. Default: --config's, else tiny.",
)
_CONFIG = click.option(
    "--config",
    "config_file",
    metavar="FILE",
    help="YAML or JSON of settings, nested or dotted, such as RUN/config.json; options and --set go before.",
)
_SET = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any setting, e.g. optim.lr=1e-4. Repeat for more.",
)
_WHERE = click.option("--where", default="", help="SQL filter on the index.")


def _parts(command: Callable[..., None]) -> Callable[..., None]:
    """The options that name the frozen parts; with the same, `encode` and `train` meet in one cache."""
    for flag, what, file in (
        ("--image-encoder", "Image encoder", "open_clip_pytorch_model.bin"),
        ("--text-encoder", "Text encoder", "open_clip_pytorch_model.bin"),
        ("--vae", "Autoencoder", "VQGAN_autoencoder.pth"),
    ):
        text = f"{what}: hub name, folder or {file}. Default: the preset's."
        command = click.option(flag, type=Place(as_text=True), default="", help=text)(command)
    return command


@contextlib.contextmanager
def _one_voice() -> Iterator[None]:
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
            print(f"interrupted: {kept}; go on with: {how}", file=sys.stderr)
        raise click.exceptions.Exit(130) from None


@click.command(cls=Command, on_interrupt=RESUMED)
@click.argument("dataset")
@click.option(
    "--out", "latents", default="", metavar="FOLDER", help="Write there, for a DATASET that is read-only."
)
@_PRESET
@_CONFIG
@_WHERE
@_parts
@_SET
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

    print(encode_dataset(dataset, _settings(**options)))


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
@_PRESET
@_CONFIG
@click.option(
    "--init",
    type=Place(as_text=True, leave_out=_NOT_THE_MODEL),
    default="",
    help="Start from these weights: a VideoMV .pth, a RUN, or a model folder.",
)
@_parts
@click.option("--allow-missing", is_flag=True, help="Accept unknown or missing keys in --init.")
@click.option(
    "--resume", is_flag=True, help="Resume from the newest checkpoint in RUN; with more --steps, extend it."
)
@click.option("--steps", type=int, help="Optimizer steps over all stages.")
@click.option(
    "--batch", type=_Count(), help="Clips per micro-batch and process, or auto: as many as the device takes."
)
@click.option("--seed", type=int, help="Random seed.")
@click.option(
    "--deterministic",
    is_flag=True,
    help="The same bits in every run on a GPU too: slower. Without it losses there differ by up to 1 %.",
)
@_WHERE
@click.option("--latents", default="", metavar="FOLDER", help="Latents that `encode --out FOLDER` wrote.")
@click.option(
    "--sample-every",
    type=click.IntRange(0),
    metavar="N",
    help="Generate clips every N steps, to RUN/samples and to --track.",
)
@_SET
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
@_one_voice()
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
    config = _settings(**options)
    if dry_run:
        import json

        from orbit4d.model.config.settings import to_dict
        from orbit4d.model.encoders.frozen import latent_shape
        from orbit4d.model.training.memory import report

        print(json.dumps(to_dict(config), indent=1))
        processes = ray_workers or int(os.environ.get("WORLD_SIZE", "1"))
        print(report(config, *latent_shape(config.model.autoencoder), processes))
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


@click.command(
    cls=Command,
    groups={
        "Conditions": "--image --text --static --motion --crop --matte",
        "Camera": "--azimuth --elevation",
        "Sampling": "--samples --seed --steps --w1 --w2 --w-motion --precision",
        "Output": "--out --overwrite --fps",
    },
)
@click.argument("run", type=Place(as_text=True, leave_out=_NOT_THE_MODEL))
@click.option(
    "--image",
    type=Place(as_text=True),
    default="",
    help="Image of the object: any size, with or without alpha.",
)
@click.option("--text", default="", help="Text prompt.")
@click.option("--static", default="", help="Static orbit to animate (DATASET:uid[:action]).")
@click.option(
    "--motion",
    default="q0.5",
    show_default=True,
    help="Motion magnitude (0.004), its quantile (q0.9), or none.",
)
@click.option(
    "--out",
    required=True,
    type=Place("file", as_text=True),
    help="Video to write, *.mp4 (a path or a URI); frames and cameras go to a folder beside it.",
)
@click.option("--overwrite", is_flag=True, help="Replace existing videos and their folders.")
@click.option("--samples", default=1, show_default=True, help="Number of videos, each with its own seed.")
@click.option("--seed", default=0, show_default=True, help="Seed of the first sample.")
@click.option("--steps", type=click.IntRange(1, 1000), help="DDIM steps. Default: the run's.")
@click.option(
    "--w1", type=float, help="Guidance weight w1 (unconditional branch). Default: the run's (published: 7)."
)
@click.option(
    "--w2", type=float, help="Guidance weight w2 (frozen base branch). Default: the run's (published: 0.5)."
)
@click.option(
    "--w-motion", type=float, help="Guidance weight of motion (branch without it). Default: the run's."
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp16", "bf16", "no"]),
    help="What a GPU computes in; auto is fp16, no float32. Default: the run's. A CPU computes in float32.",
)
@click.option("--azimuth", "azimuth0_deg", default=0.0, help="Starting azimuth, degrees; 0 is the front.")
@click.option("--elevation", "elevation_deg", type=float, help="Elevation, degrees. Default: as trained.")
@click.option("--crop/--no-crop", default=None, help="Crop the image to the object. Default: automatic.")
@click.option(
    "--matte", type=click.Choice(["flat", "rembg", "none"]), default="flat", show_default=True,
    help="Matting method for input without alpha: flat background, rembg (an extra), or none.",
)  # fmt: skip
@click.option("--fps", default=8.0, show_default=True, help="Frame rate of the video.")
def generate(run: str, out: str, overwrite: bool, **options) -> None:
    """Generate an orbit video with a trained RUN, from an image, a caption, or a static orbit.

    \b
    Examples:
      orbit4d generate runs/tiny --image fox.png --motion q0.9 --out fox.mp4
      orbit4d generate runs/tiny --static data/walkers:fox:Run --motion 0.004 --out fox.mp4
    """
    from orbit4d.datasets.core.remote import refuse_taken
    from orbit4d.model.sampling.generate import Request, outputs
    from orbit4d.model.sampling.generate import generate as run_generation

    request = Request(**options)
    for path in outputs(out, request.samples):
        refuse_taken(path, overwrite)
        refuse_taken(path.with_suffix(""), overwrite)
    for path in run_generation(run, out, request):
        print(f"wrote {path}")
