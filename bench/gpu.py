"""What one CUDA GPU does: parity, speed and memory of everything that runs on it (`make bench-gpu`).

    python bench/gpu.py --pack gpu-pack.zip        on a machine with bpy: a rendered clip, at most 15 MiB
    python bench/gpu.py --packed gpu-pack.zip      on the GPU: all steps, at most 8 minutes
    python bench/gpu.py --packed gpu-pack.zip --only train,sampling --out gpu.jsonl

Made for a bare machine: it needs torch, diffusers and accelerate, neither Ray, bpy nor PyAV, and no installed
orbit4d. Each step is a process of its own with a time limit: one that fails is a line that says so, and the
others run. Every line of output that starts with "{" is one record; the last one holds all of them.

    doctor       card, versions, kernels of gsplat, compiler
    parity       networks and rasteriser against the fixtures of ../shared (TF32 off), on the GPU
    raster       gsplat: milliseconds forward and backward
    train        the published network: clips per second and reserved memory against --dry-run, by setting
    sampling     50 steps of three branches, by precision, and how far from float32 one pass is
    tiny         the tiny preset: milliseconds a step, recorded and not
    recon4d      the presets on the packed clip: seconds and PSNR
    tests        pytest -m gpu

`--small` runs the same steps on small networks, on a CPU too: it shows that the script works, not a speed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bench" / "parts"))
if importlib.util.find_spec("orbit4d") is None:
    # Not installed: the folders as packages, as editors see them.
    sys.path.insert(0, str(ROOT / "typings"))

from gpu_steps import SECONDS, STEPS, command, environment, fixtures, say  # noqa: E402

MINUTES = 8
MOST_BYTES = 15 * 2**20
ASSET = "dev_cesiumman.glb"


def pack(target: Path, dataset: str | None) -> None:
    """A rendered clip with its held-out views, and the rasteriser's fixture where it is at hand."""
    with tempfile.TemporaryDirectory(prefix="orbit4d-bench-") as scratch:
        folder = Path(scratch) / "dataset"
        if dataset is None:
            asset = fixtures().parent / "assets" / ASSET
            words = ["render", str(asset), "--out", str(folder), "--resolution", "256", "--orbits", "2"]
            done = command([*words, "--azimuths", "0,180"], 3600)
            if done.returncode:
                sys.exit(
                    f"--pack: rendering {ASSET} ended with {done.returncode}: {done.stderr.strip()[-300:]}"
                )
        else:
            shutil.copytree(dataset, folder)
        from orbit4d.datasets import Index

        rows = [
            row for _, table in Index(str(folder)).read(["uid", "action", "rig"]) for row in table.to_pylist()
        ]
        moving = next((row for row in rows if row["rig"] == "dynamic_orbit"), None)
        if moving is None:
            sys.exit(f"--pack: {dataset} holds no dynamic_orbit")
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("reference.txt", f"{moving['uid']}:{moving['action']}")
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    file.write(path, Path("dataset") / path.relative_to(folder))
            with contextlib.suppress(FileNotFoundError):
                file.write(fixtures() / "rasteriser" / "scene_2k.npz", "scene_2k.npz")
    size = target.stat().st_size
    if size > MOST_BYTES:
        target.unlink()
        sys.exit(f"--pack: {size / 2**20:.1f} MiB, at most {MOST_BYTES >> 20}: give a --dataset of one asset")
    print(f"wrote {target}: {size / 2**20:.1f} MiB, {len(rows)} clips")


def lines_of(step: str, options: argparse.Namespace, folder: str, limit: float) -> Iterator[dict[str, Any]]:
    """The records of a step that runs in a process of its own, as they come."""
    words = [sys.executable, str(Path(__file__).resolve()), "--step", step, "--folder", folder]
    words += ["--small"] if options.small else []
    late = threading.Event()
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment())
        watch = threading.Timer(limit, lambda: (late.set(), child.kill()))
        watch.start()
        try:
            assert child.stdout is not None, "asked for above"
            for line in child.stdout:
                if line.startswith("{"):
                    with contextlib.suppress(json.JSONDecodeError):
                        yield json.loads(line)
            child.wait()
        finally:
            watch.cancel()
            child.kill()
        if child.returncode:
            errors.seek(0)
            last = (errors.read().strip() or "no output").splitlines()[-1]
            error = f"ended after {limit:.0f} s" if late.is_set() else last
            yield {"step": step, "what": "the step", "error": error}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pack", type=Path, metavar="FILE", help="make the pack, and stop")
    parser.add_argument("--dataset", help="with --pack: clips to take instead of rendering them")
    parser.add_argument("--packed", type=Path, metavar="FILE", help="what --pack made")
    parser.add_argument("--only", default=",".join(STEPS), help="steps, separated by commas")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="limit of all steps together")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the records there too, as JSON lines")
    parser.add_argument("--small", action="store_true", help="small networks, also without a GPU")
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        STEPS[options.step](options)
        return
    if options.pack:
        pack(options.pack, options.dataset)
        return
    chosen = options.only.split(",")
    if unknown := [name for name in chosen if name not in STEPS]:
        parser.error(f"--only {unknown[0]}: steps are {', '.join(STEPS)}")
    import torch

    if not torch.cuda.is_available() and not options.small:
        sys.exit(
            "bench-gpu needs a CUDA GPU (--pack FILE makes its clips without one; --small tries the script)"
        )
    end = time.monotonic() + 60 * options.minutes
    records: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="orbit4d-bench-") as scratch:
        if options.packed:
            with zipfile.ZipFile(options.packed) as file:
                file.extractall(scratch)
        out = options.out.open("w") if options.out else contextlib.nullcontext()
        with out as file:
            for step in chosen:
                left = end - time.monotonic()
                if left < 5:
                    found: Any = [{"step": step, "what": "the step", "error": "no time left"}]
                else:
                    found = lines_of(
                        step, options, scratch, min(left, SECONDS[step] * (10 if options.small else 1))
                    )
                for record in found:
                    records.append(record)
                    say(**record)
                    if file is not None:
                        file.write(json.dumps(record) + "\n")
                        file.flush()
    failed = [
        f"{record['step']}: {record['what']}"
        for record in records
        if "error" in record and "holds" not in record
    ]
    print(f"\n{'step':10} {'what':52} result")
    for record in records:
        rest = {k: v for k, v in record.items() if k not in ("step", "what", "wall_s", "losses")}
        print(f"{record['step']:10} {record['what']:52} {' '.join(f'{k} {v}' for k, v in rest.items())}")
    say(bench="gpu", small=options.small, records=records, failed=failed)


if __name__ == "__main__":
    main()
