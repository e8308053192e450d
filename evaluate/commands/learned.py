"""`orbit4d eval learned`: DreamSim and scores of VBench, with networks of a user's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from orbit4d.datasets.commands.options import Command, Place, not_a_video


@click.command(
    "learned", cls=Command, short_help="DreamSim and VBench scores with networks of your own folder."
)
@click.argument("video", type=Place(as_text=True, native=not_a_video))
@click.option(
    "--truth", type=Place(as_text=True, native=not_a_video), help="What it should be, for --dreamsim."
)
@click.option("--dreamsim", type=Place(), help="Folder with DreamSim's unpacked weights; needs --truth.")
@click.option(
    "--vbench",
    type=Place(),
    help="Folder with dino-vitb16, clip-vit-b-32, or clip-vit-l-14 and sa_0_4_vit_l_14_linear.pth.",
)
@click.option("--out", type=click.Path(path_type=Path), help="JSON file for the scores.")
def command(
    video: str, truth: str | None, dreamsim: Path | None, vbench: Path | None, out: Path | None
) -> None:
    """Scores of a video or folder of frames whose networks come from a folder; nothing is fetched.

    \b
    Examples:
      orbit4d eval learned orbit.mp4 --vbench weights/vbench
      orbit4d eval learned orbit.mp4 --truth truth.mp4 --dreamsim weights/dreamsim --out scores.json
    """
    from orbit4d.datasets.core.atomic import write_json
    from orbit4d.datasets.core.errors import InputError
    from orbit4d.evaluate.tasks.frames import load_frames

    if dreamsim is None and vbench is None:
        raise InputError("nothing to measure: name a folder with --dreamsim or --vbench")
    if (dreamsim is None) != (truth is None):
        raise InputError("--dreamsim and --truth: DreamSim compares with a truth; give both or neither")
    shown = load_frames(video).rgb
    found: dict[str, Any] = {"video": video, "frames": len(shown), "scores": {}, "weights_sha256": {}}
    if dreamsim is not None and truth is not None:
        from orbit4d.evaluate.metrics.dreamsim import DreamSim

        real = load_frames(truth).rgb
        if real.shape != shown.shape:
            raise InputError(
                f"{video}: {len(shown)} frames of {shown.shape[-1]}x{shown.shape[-2]} where {truth} has "
                f"{len(real)} of {real.shape[-1]}x{real.shape[-2]}; give both one length and size"
            )
        sim = DreamSim.from_folder(dreamsim)
        found["scores"]["dreamsim"] = float(sim(shown, real).mean())
        found["weights_sha256"]["dreamsim"] = sim.digest
    if vbench is not None:
        from orbit4d.evaluate.metrics.vbench import PARTS, VBench

        scores = VBench.from_folder(vbench)
        found["scores"] |= scores(shown)
        found["weights_sha256"] |= scores.digests
        found["not_measured"] = {
            name: f"{vbench} lacks {' or '.join(parts)}"
            for name, parts in PARTS.items()
            if name not in scores.scores
        }
    for name, value in found["scores"].items():
        click.echo(f"{name} {value:.4f} (weights {found['weights_sha256'][name][:12]})")
    for name, why in found.get("not_measured", {}).items():
        click.echo(f"{name}: not measured: {why}")
    if out is not None:
        write_json(out, found)
        click.echo(f"scores {out}")
