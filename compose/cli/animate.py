"""`orbit4d animate`, and `orbit4d animate token`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from orbit4d.datasets.commands.options import RESUMED, Command, Group, Place


class ImageOrSubcommand(Group):
    """A group whose own arguments are an image and a text: its first word is a subcommand or neither."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = ["make", *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "[IMAGE] [TEXT] --out SCENE [OPTIONS] | token IMAGE...")


@click.group(
    cls=ImageOrSubcommand,
    short_help="One image and a sentence become 4D Gaussians.",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True},
)
def command() -> None:
    """One image and a sentence become 4D Gaussians."""


@command.command(
    name="make",
    cls=Command,
    short_help="One image and a sentence become 4D Gaussians.",
    on_interrupt=RESUMED,
    groups={
        "Input and output": "--out --static --via --run --matte --elevation",
        "Prompts": "--prompt-static --prompt-refine --negative --token",
        "Priors": "--prior-2d --prior-3d --prior-video --prior-tile --estimator --lambda",
        "Stages": "--preset --stages --steps --canonical --frames --resolution --no-oversample --seed",
        "Computing": "--device --threads --offload --two-pass --dry-run --guidance-every",
    },
)
@click.argument("image", required=False, default="", type=Place(as_text=True))
@click.argument("text", required=False, default="")
@click.option("--out", required=True, type=Place("run"), help="Scene folder; an existing run is resumed.")
@click.option("--static", default="", type=Place(as_text=True), help="Start from a still object: SCENE, "
              "DATASET:uid[:action] or an asset file; the static stage is not run.")  # fmt: skip
@click.option("--via", type=click.Choice(["distill", "generate"]), help="generate: --run makes the video and "
              "recon4d fits it. Default: generate where --run is given and no prior is.")  # fmt: skip
@click.option("--run", default="", type=Place(as_text=True), help="Run of `orbit4d train`.")
@click.option("--matte", type=click.Choice(["flat", "rembg"]), default="flat", show_default=True,
              help="Matting method for an image without alpha.")  # fmt: skip
@click.option("--elevation", default=0.0, show_default=True, help="Elevation of the image's view, degrees.")
@click.option("--preset", type=click.Choice(["ours", "published", "draft"]), default="ours",
              show_default=True, help="Preset; published: the constants of Animate124's code.")  # fmt: skip
@click.option("--stages", default="", help="Of static,motion,refine. Default: those with a prior.")
@click.option("--steps", default="", metavar="A,B,C", help="Steps of the stages. Default: the preset's.")
@click.option("--prompt-static", default="", help="Prompt of the static stage. Default: TEXT.")
@click.option("--prompt-refine", default="", help="Prompt of the refine stage. Default: TEXT.")
@click.option("--negative", default="", help="Negative prompt.")
@click.option("--token", default="", type=Place(as_text=True), help="File of a learned word (see token).")
@click.option("--prior-2d", "p2d", metavar="SPEC", help="Image prior of the static stage.")
@click.option("--prior-3d", "p3d", metavar="SPEC", help="Prior of views relative to the image.")
@click.option("--prior-video", "pvideo", metavar="SPEC", help="Prior of clips.")
@click.option("--prior-tile", "ptile", metavar="SPEC",
              help="Prior of the refine stage. SPEC is sd15, zero123-xl, modelscope, zeroscope, "
              "controlnet-tile, org/name, a folder, run:RUN, analytic:SCENE or none.")  # fmt: skip
@click.option("--estimator", type=click.Choice(["sds", "csd", "ism", "vsd", "msd"]), default="sds",
              show_default=True, help="Estimator of the video prior.")  # fmt: skip
@click.option("--lambda", "weights", default="", metavar="SLOT=NUMBER,...", help="Weights of priors.")
@click.option("--canonical", type=click.Choice(["frozen", "trained"]),
              help="Canonical Gaussians in the motion stage. Default: the preset's.")  # fmt: skip
@click.option("--frames", type=int, help="Frames of a clip. Default: the preset's or the prior's.")
@click.option("--resolution", type=int, help="Edge of the images that priors see, pixels.")
@click.option("--no-oversample", is_flag=True, help="Draw times without over-sampling both ends.")
@click.option("--seed", default=1, show_default=True, help="Random seed.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:INDEX.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. Default: all.")
@click.option("--offload", type=click.Choice(["none", "idle", "sequential"]), default="none",
              show_default=True, help="Where networks wait in host memory between turns. idle: each comes "
              "whole; sequential: block by block.")  # fmt: skip
@click.option("--two-pass", type=click.Choice(["auto", "on", "off"]), default="auto", show_default=True,
              help="Keep the encoder's graph of one frame at a time.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Check everything, print the priors, write nothing.")
@click.option("--guidance-every", type=click.IntRange(min=0), help="Steps between images of what priors say; "
              "0: none. Default: 200.")  # fmt: skip
def make(
    image: str, text: str, p2d: str | None, p3d: str | None, pvideo: str | None, ptile: str | None,
    prompt_static: str, prompt_refine: str, negative: str, no_oversample: bool, canonical: str | None,
    **rest: Any,
) -> None:  # fmt: skip
    """One image and a sentence become 4D Gaussians: still object, motion, appearance.

    The same command resumes after any stop. With analytic: priors IMAGE and TEXT may be left out. An image
    that is called like a subcommand is given as ./token.

    \b
    Example: orbit4d animate photo.png "a panda is dancing" --out panda
             orbit4d animate --prior-3d analytic:truth --prior-video analytic:truth --out scene
    """
    import os

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from orbit4d.compose.animate.request import Request
    from orbit4d.compose.animate.run import animate

    named = {"2d": p2d, "3d": p3d, "video": pvideo, "tile": ptile}
    request = Request(
        image=image,
        text=text,
        priors={slot: spec for slot, spec in named.items() if spec is not None},
        prompts={"static": prompt_static, "refine": prompt_refine, "negative": negative},
        oversample=not no_oversample,
        canonical=canonical or "",
        **{**rest, "out": Path(rest["out"])},
    )
    scene = animate(request, click.echo)
    if scene is not None:
        click.echo(f"scene {request.out}: {len(scene.gaussians)} Gaussians; see `orbit4d view {request.out}`")


@command.command(
    name="token",
    cls=Command,
    short_help="Learn a word for the object of images.",
    groups={
        "Input and output": "--out --token --init --matte",
        "Training": "--model --steps --batch --seed",
        "Computing": "--device",
    },
)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=Place(as_text=True))
@click.option("--out", required=True, type=Place("file"), help="File of the word: .safetensors or .bin.")
@click.option("--token", required=True, metavar="WORD", help="The new word, in angle brackets: <panda>.")
@click.option("--init", required=True, metavar="WORD", help="A common word that it starts from: panda.")
@click.option("--model", default="sd15", show_default=True,
              help="sd15, a hub name or a folder in the layout of Stable Diffusion 1.5.")  # fmt: skip
@click.option("--matte", type=click.Choice(["flat", "rembg"]), default="flat", show_default=True,
              help="Matting method for an image without alpha.")  # fmt: skip
@click.option("--steps", type=click.IntRange(min=1), default=3000, show_default=True, help="Training steps.")
@click.option("--batch", type=click.IntRange(min=1), default=16, show_default=True, help="Samples a step.")
@click.option("--seed", default=1, show_default=True, help="Random seed.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:INDEX.")
def token(images: tuple[str, ...], **rest: Any) -> None:
    """Learn a word for the object of images (textual inversion).

    Only the row of the new word is trained. Prompts of `orbit4d animate --token FILE` may name it.

    \b
    Example: orbit4d animate token panda.png --out panda.safetensors --token "<panda>" --init panda
             orbit4d animate panda.png "it dances" --prompt-refine "a <panda>" --token panda.safetensors
                     --out scene
    """
    from orbit4d.compose.animate.token import learn_token, requested

    request = requested(images, **{**rest, "out": Path(rest["out"])})
    learn_token(request, click.echo)
    click.echo(f"word {request.token}: {request.out}; name it in a prompt and give --token {request.out}")
