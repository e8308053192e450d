"""make bench-results: one table of results on rendered truth, with every metric that needs no weights.

    python bench/results.py --dataset DATASET --write       fits what is not fitted yet, and writes the table
    python bench/results.py --cases dev_fox:Run --preset default --resolution 256 --write
    python bench/results.py --tiny --write                  also trains a tiny model and guides its orbits
    python bench/results.py --run RUN --run-dataset DATASET --guided VIDEOS --guided-truth DATASET

Rows: a single orbit with its cameras, one without them (their errors), 8 and 16 synchronised views, and,
where given, a trained model (its orbits, and the scenes made from them) and guided novel views. Held out of
every reconstruction are four cameras of a rig `held`, at all times. Everything is kept in --work: the same
command continues after any stop, and what is finished is not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from orbit4d.datasets.cameras.camera import orbit
from orbit4d.datasets.cameras.transforms import cameras_record
from orbit4d.recon4d.fitting.settings import PRESETS, ReconstructionSettings

sys.path.insert(0, str(Path(__file__).parent))
from parts import results_model, results_rows, results_table

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ("dev_fox.glb", "dev_robot.glb")
RING, HELD = "ring:16@15", 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", default=str(ROOT / "bench" / "out" / "results"), help="where all is kept")
    parser.add_argument("--dataset", help="of dynamic_orbit, ring_16_15 and held; default: rendered here")
    parser.add_argument("--cases", help="uid:action,...; default: the first action of every asset")
    parser.add_argument("--rows", default=",".join(results_rows.KINDS), help="which reconstructions")
    parser.add_argument("--preset", default="fast", choices=list(PRESETS))
    parser.add_argument("--resolution", type=int, default=96, help="pixels a side, rendered and fitted")
    parser.add_argument("--frames", type=int, default=8, help="frames of the clips that are rendered")
    parser.add_argument("--steps", help="COARSE,FINE instead of the preset's")
    parser.add_argument("--align", choices=("published", "similarity"), help="of CD-3D, CD-4D and CD-M")
    parser.add_argument("--run", help="a trained run, measured by `orbit4d eval run`")
    parser.add_argument("--run-dataset", help="the run's ground truth")
    parser.add_argument("--run-split", default="test")
    parser.add_argument("--run-ids", help="file of the uids that are generated, instead of --run-split")
    parser.add_argument("--run-scenes", default="fast", choices=("none", *PRESETS), help="of its orbits")
    parser.add_argument("--guided", help="folder of guided novel views, uid__a0.mp4")
    parser.add_argument("--guided-truth", help="their ground truth, as of `orbit4d eval video`")
    parser.add_argument("--guided-rig", default="dynamic_orbit", help="rig of the ground truth")
    parser.add_argument("--tiny", action="store_true", help="train a tiny run here, and guide its orbits")
    parser.add_argument("--tiny-steps", type=int, default=900, help="optimiser steps of the tiny run")
    parser.add_argument("--write", action="store_true", help="put the table into docs/measured/results.md")
    options = parser.parse_args()
    for first, second in (("run", "run_dataset"), ("guided", "guided_truth")):
        if bool(getattr(options, first)) != bool(getattr(options, second)):
            sys.exit(f"error: --{first} and --{second.replace('_', '-')} belong together; give both")
    work = Path(options.work)
    work.mkdir(parents=True, exist_ok=True)
    if options.tiny:
        tiny(work, options)
    dataset = options.dataset or rendered(work, options)
    cases = options.cases.split(",") if options.cases else results_rows.first_actions(dataset)
    kinds = [kind for kind in options.rows.split(",") if kind]
    if unknown := set(kinds) - set(results_rows.KINDS):
        sys.exit(f"error: --rows {', '.join(sorted(unknown))}: choose from {', '.join(results_rows.KINDS)}")
    settings = chosen(options)
    rows = [
        results_rows.row(dataset, case, kind, settings, work, options.align)
        for case in cases
        for kind in kinds
    ]
    found = results_table.means(rows)
    if options.run:
        found += results_table.of_model(evaluated(work / "model", run_words(options)))
    if options.guided:
        words = ["video", options.guided, "--truth", options.guided_truth, "--rig", options.guided_rig]
        found += results_table.of_guided(evaluated(work / "guided", words))
    size = results_table.size_of(dataset, cases, settings, rows)
    text = results_table.text(found, size, options.align, results_table.bare(rows))
    print(text)
    if options.write:
        results_table.write(ROOT / "docs" / "measured" / "results.md", text)
    print(json.dumps({"bench": "results", "size": size, "rows": found, "cases": rows}))


def tiny(work: Path, options: argparse.Namespace) -> None:
    """Fill the options of a run and of guided views by what is made here."""
    clips = results_model.clips(work, ROOT.parent / "shared" / "pool")
    options.run, options.run_ids = results_model.trained(work, clips, options.tiny_steps)
    options.guided = results_model.guided(work, options.run, clips)
    options.run_dataset = options.guided_truth = clips
    options.guided_rig = "static_orbit"


def chosen(options: argparse.Namespace) -> ReconstructionSettings:
    """The preset at the size asked for."""
    settings = replace(PRESETS[options.preset], resolution=options.resolution)
    if options.steps:
        coarse, fine = map(int, options.steps.split(","))
        settings = replace(settings, coarse_steps=coarse, fine_steps=fine)
    return settings


def rendered(work: Path, options: argparse.Namespace) -> str:
    """The truth: an orbit, a ring of 16 cameras and four held-out ones, with depth and geometry. Resumes
    where it stopped."""
    sources = [ROOT.parent / "shared" / "assets" / name for name in ASSETS]
    if missing := [source for source in sources if not source.is_file()]:
        sys.exit(f"error: {missing[0]}: not there; give --dataset")
    n = options.resolution
    cameras = orbit(HELD, elevation_deg=25.0, azimuth0_deg=33.0, size=(n, n))
    held = work / "held.json"
    held.write_text(json.dumps(cameras_record(cameras, [0.0] * HELD)))
    words = ["render", *map(str, sources), "--out", str(work / "dataset"), "--resolution", str(n)]
    words += ["--frames", str(options.frames), "--samples", "16", "--rigs", f"dynamic_orbit,{RING}"]
    words += ["--cameras", str(held), "--passes", "depth,geometry"]
    subprocess.run([sys.executable, "-P", "-m", "orbit4d.app", *words], check=True)
    return str(work / "dataset")


def run_words(options: argparse.Namespace) -> list[str]:
    words = ["run", options.run, "--dataset", options.run_dataset, "--task", "image"]
    words += [] if options.run_scenes == "none" else ["--reconstruct", options.run_scenes]
    if options.run_ids:
        return [*words, "--ids", options.run_ids]
    return [*words, "--split", options.run_split]


def evaluated(out: Path, words: list[str]) -> dict[str, dict[str, float]]:
    """Means by rig of an evaluation of the command, which resumes by itself."""
    command = [sys.executable, "-P", "-m", "orbit4d.app", "eval", *words, "--no-learned", "--out", str(out)]
    subprocess.run(command, check=True)
    record = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return {rig: {**values, "clips": record["clips"]} for rig, values in record["summary"].items()}


if __name__ == "__main__":
    main()
