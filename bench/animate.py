"""What `orbit4d animate` makes of the acceptance scene `mannequin` (`make bench-animate`).

A body of ten bones whose truth is known stands in for all priors, in closed form: nothing is learned, so what
is measured is the method. The still object is made once; every row of the table starts from it. Held-out
views, motion error (0 is perfect, 1 unmoved) and drift of colours are those of `compose/animate/measures.py`.
Folders under --work are resumed, finished rows are read back. Ends with one line of JSON.

    python bench/animate.py --work /tmp/animate            all rows, half an hour on two busy cores
    python bench/animate.py --rows A,B --seeds 1           two of them
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from orbit4d.compose.animate.measures import motion_scores
from orbit4d.compose.animate.priors.truth import open_truth, still_field
from orbit4d.compose.animate.request import Request
from orbit4d.compose.animate.run import animate
from orbit4d.compose.animate.settings import PRESETS, Settings
from orbit4d.datasets.core.cores import usable_cores
from orbit4d.recon4d.scene import Scene, load_scene

ROOT = Path(__file__).resolve().parent.parent
FIXTURE = ROOT.parent / "shared" / "fixtures" / "score_distillation" / "mannequin.npz"
BIAS = "?bias=tint,blur"
#: Row -> (what it is, bias of the video prior, options, stages). Refine rows hold their motion stage too.
ROWS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "U": ("unbiased video prior, canonical frozen", "", {}, "motion"),
    "Uvsd": ("U by vsd, exact phi", "", {"estimator": "vsd"}, "motion"),
    "Uism": ("U by ism", "", {"estimator": "ism"}, "motion"),
    "Ut": ("U with t in [0.02, 0.5]", "", {}, "motion"),
    "A": ("biased video prior, canonical frozen (ours), then refine", BIAS, {}, "motion,refine"),
    "B": ("A without over-sampling", BIAS, {"oversample": False}, "motion"),
    "C": ("A, canonical trained, then refine", BIAS, {"canonical": "trained"}, "motion,refine"),
    "C1": ("C at the rates of the static stage", BIAS, {"canonical": "trained"}, "motion"),
    "H": ("A at full size from the first step", BIAS, {}, "motion"),
    "D": ("C by msd", BIAS, {"canonical": "trained", "estimator": "msd"}, "motion"),
    "E": ("C, refine with lambda 40", BIAS, {"canonical": "trained", "weights": "tile=40"}, "motion,refine"),
    "F": ("C, refine without tile prior (control)", BIAS,
          {"canonical": "trained", "weights": "tile=0"}, "motion,refine"),
}  # fmt: skip
#: What a row changes that no option does.
CHANGES: dict[str, Callable[[Settings], Settings]] = {
    "Ut": lambda ours: replace(
        ours,
        distilling={**ours.distilling, "video": replace(ours.distilling["video"], t_range=(0.02, 0.5))},
    ),
    "C1": lambda ours: replace(ours, motion_canonical_rate=1.0),
    "H": lambda ours: replace(ours, sizes=((1.0, 1.0),)),
}
#: Rows that are run with every seed; others with the first.
TWICE = ("A", "B", "C")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mannequin", default=str(FIXTURE), help="file of the acceptance scene")
    parser.add_argument("--work", help="folder of the runs; default: a temporary one")
    parser.add_argument("--rows", default=",".join(ROWS), help="which rows")
    parser.add_argument("--seeds", default="1,11", help="rows are run with the first, A, B and C with all")
    parser.add_argument("--steps", default="3000,1000,300")
    parser.add_argument("--threads", type=int, default=usable_cores())
    options = parser.parse_args()
    if not Path(options.mannequin).is_file():
        sys.exit(f"error: no file {options.mannequin}; name one with --mannequin")
    with tempfile.TemporaryDirectory() as scratch:
        bench(options, Path(options.work or scratch))


def bench(options: argparse.Namespace, work: Path) -> None:
    """All rows, printed as they come."""
    seeds = [int(seed) for seed in options.seeds.split(",")]
    began = time.perf_counter()
    report: dict[str, Any] = {"bench": "animate", "commit": commit(), "threads": options.threads}
    static = run(options, work / "static", "", {}, "static", seeds[0])
    report["static"] = static["stages"]["static"]
    print(f"static: {json.dumps(report['static']['truth'])}, {report['static']['seconds']} s", flush=True)
    unmoved = load_scene(work / "static")
    still = Scene(unmoved.gaussians, still_field())
    print(row_line("unmoved", motion_scores(still, open_truth(options.mannequin))), flush=True)  # type: ignore[arg-type]
    for name in options.rows.split(","):
        what, bias, asked, stages = ROWS[name]
        if name in CHANGES:
            PRESETS[f"ours-{name}"] = CHANGES[name](PRESETS["ours"])
            asked = {**asked, "preset": f"ours-{name}"}
        for seed in seeds if name in TWICE else seeds[:1]:
            folder = work / f"{name}-{seed}"
            asked = {**asked, "static": str(work / "static")}
            # A row that is there to be compared by seed is refined with the first one alone.
            wanted = "motion" if seed != seeds[0] else stages
            metrics = run(options, folder, bias, asked, wanted, seed)
            for stage in wanted.split(","):
                record = metrics["stages"][stage]
                label = f"{name}-{seed} {stage}"
                report[label] = record
                print(row_line(label, record["truth"], record), what, flush=True)
    report["wall_s"] = round(time.perf_counter() - began, 1)
    print(json.dumps(report))


def run(
    options: argparse.Namespace, out: Path, bias: str, asked: dict[str, Any], stages: str, seed: int
) -> dict[str, Any]:
    """metrics.json of one run."""
    truth = f"analytic:{options.mannequin}"
    priors = {"3d": truth}
    if stages != "static":
        priors["video"] = truth + bias
    if "refine" in stages:
        priors["tile"] = truth
    request = Request(out, priors=priors, seed=seed, stages=stages, steps=options.steps,
                      threads=options.threads, **asked)  # fmt: skip
    with contextlib.redirect_stderr(io.StringIO()):
        animate(request, lambda line: None)
    return json.loads((out / "metrics.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def row_line(label: str, truth: dict[str, Any], record: dict[str, Any] | None = None) -> str:
    """One line of the table."""
    error, at = truth["motion_error"], truth["psnr_by_time"]
    numbers = [error["e"], error["e_last"], error["e_middle"], truth["psnr"], at["0"], truth["psnr_middle"],
               at["0.96875"], at["1"], *truth["drift"], truth["drift_abs"]]  # fmt: skip
    text = " | ".join(f"{x:.3f}" if abs(x) < 2 else f"{x:.2f}" for x in numbers)
    if record is not None:
        text += f" | {record['seconds']:.0f} s, {record['share_outside_priors_and_rasteriser']:.2f} outside"
    return f"{label} | {text} |"


def commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


if __name__ == "__main__":
    main()
