"""Time the rasteriser on the standard scenes against its torch twin, in one run.

    python bench/rasterize.py            about two minutes on an idle two-core machine
    python bench/rasterize.py --full     the twin on every size too (long)

Each row is a process of its own; what a row compares (back ends, threads, modes) takes turns inside it, so
that a busy machine slows both sides. Times are medians in milliseconds: process CPU time, and wall time
beside it. Forward runs from the 3D parameters to image and alpha, backward from the image's gradient to those
of the five parameters. The last line is one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from orbit4d.datasets.core.cores import usable_cores

SIZES = [(2000, 256), (10000, 256), (50000, 256), (2000, 512), (10000, 512), (50000, 512)]
#: Sizes on which the twin answers within a second or so.
TWIN_SIZES = [(2000, 256), (10000, 256)]
REPEATS, TWIN_REPEATS = 21, 7


def scene(n: int, seed: int):
    """Gaussians in a ball of radius 0.5; every number comes from one NumPy generator, drawn in this order."""
    import numpy as np

    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((n, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    means = 0.5 * directions * rng.random((n, 1)) ** (1 / 3)
    scales = 0.012 * np.exp(0.4 * rng.standard_normal((n, 3)))
    quats = rng.standard_normal((n, 4))
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    opacities = 1 / (1 + np.exp(-(0.5 + rng.standard_normal(n))))
    colors = rng.random((n, 3))
    return {"means": means, "quats": quats, "scales": scales, "opacities": opacities, "colors": colors}


def camera(size: int):
    """View matrix (OpenCV) and intrinsics: azimuth 30°, elevation 20°, distance 2, field of view 39.6°."""
    import numpy as np

    a, e = np.radians(30.0), np.radians(20.0)
    eye = 2 * np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    forward = -eye / np.linalg.norm(eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    view = np.eye(4)
    view[:3, :3] = np.stack([right, np.cross(forward, right), forward])
    view[:3, 3] = -view[:3, :3] @ eye
    focal = size / 2 / np.tan(np.radians(39.6) / 2)
    return view, np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])


class Case:
    """One scene, size and way of drawing it, ready to be timed."""

    def __init__(self, n: int, size: int, threads: int = 1, backend: str = "numba", **options) -> None:
        import numpy as np
        import torch

        self.torch, self.threads = torch, threads
        view, intrinsics = camera(size)
        values = {k: torch.tensor(v, dtype=torch.float32) for k, v in scene(n, 0).items()}
        if options.get("sh_degree") is not None:
            count = (options["sh_degree"] + 1) ** 2
            extra = torch.tensor(np.random.default_rng(1).standard_normal((n, count, 3)) * 0.1).float()
            extra[:, 0] = (values["colors"] - 0.5) / 0.28209479177387814
            values["colors"] = extra
        self.leaves: dict[str, Any] = {k: v.requires_grad_() for k, v in values.items()}
        self.rest: dict[str, Any] = {
            "viewmats": torch.tensor(view, dtype=torch.float32)[None],
            "Ks": torch.tensor(intrinsics, dtype=torch.float32)[None],
            "width": size,
            "height": size,
            "backgrounds": torch.ones(1, 3),
            "backend": backend,
            **options,
        }
        weights = np.random.default_rng(1000003).standard_normal((1, size, size, 3))
        self.weights = torch.tensor(weights, dtype=torch.float32)
        self.times: dict[str, list[float]] = {"forward": [], "backward": [], "wall": []}
        self.image: Any = None

    def once(self, record: bool = True) -> None:
        from orbit4d.recon4d.raster.api import rasterize

        self.torch.set_num_threads(self.threads)
        for leaf in self.leaves.values():
            leaf.grad = None
        cpu0, wall0 = time.process_time(), time.perf_counter()
        image, _, _ = rasterize(**self.leaves, **self.rest)
        cpu1, wall1 = time.process_time(), time.perf_counter()
        gradient = self.weights
        if image.shape[-1] == 4:
            gradient = self.torch.cat([gradient, gradient[..., :1]], dim=-1)
        cpu2, wall2 = time.process_time(), time.perf_counter()
        self.torch.autograd.backward([image], [gradient])
        cpu3, wall3 = time.process_time(), time.perf_counter()
        self.image = image.detach()
        self.gradients = [leaf.grad for leaf in self.leaves.values()]
        if record:
            self.times["forward"].append(cpu1 - cpu0)
            self.times["backward"].append(cpu3 - cpu2)
            self.times["wall"].append(wall1 - wall0 + wall3 - wall2)

    def result(self) -> dict[str, float]:
        forward, backward, wall = (
            1e3 * statistics.median(self.times[k]) for k in ("forward", "backward", "wall")
        )
        return {"forward": forward, "backward": backward, "cpu": forward + backward, "wall": wall}


def take_turns(cases: dict[str, Case], repeats: dict[str, int]) -> dict[str, dict[str, float]]:
    for case in cases.values():
        case.once(record=False)
        case.once(record=False)
    most = max(repeats.values())
    for turn in range(most):
        for name, case in cases.items():
            # Rare cases are spread over the whole time, not timed in one go.
            if turn * repeats[name] // most != (turn + 1) * repeats[name] // most:
                case.once()
    return {name: case.result() for name, case in cases.items()}


def row(n: int, size: int, kind: str) -> dict:
    """What one process measures."""
    if kind == "size":
        cases = {"one": Case(n, size), "two": Case(n, size, threads=2)}
        repeats = {"one": REPEATS, "two": REPEATS}
    elif kind == "twin":
        cases = {"one": Case(n, size), "twin": Case(n, size, backend="torch")}
        repeats = {"one": REPEATS, "twin": TWIN_REPEATS}
    else:
        cases = {
            "one": Case(n, size),
            "depth": Case(n, size, render_mode="RGB+ED"),
            "harmonics": Case(n, size, sh_degree=3),
            "absgrad": Case(n, size, absgrad=True),
        }
        repeats = dict.fromkeys(cases, REPEATS)
    out: dict[str, Any] = dict(take_turns(cases, repeats))
    if kind == "twin":
        out["largest_difference"] = float((cases["one"].image - cases["twin"].image).abs().max())
    if kind == "size":
        one, two = ([case.image, *case.gradients] for case in cases.values())
        out["bits_differ"] = sum(int((a != b).sum()) for a, b in zip(one, two))
    out["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return out


def start_up() -> dict[str, float]:
    """CPU seconds of the first image and gradient in a process, with an empty and then a filled cache."""
    import torch

    torch.set_num_threads(1)
    import orbit4d.recon4d.raster  # noqa: F401  the import is not what is measured

    # Torch's first backward pass with a given gradient imports sympy: not ours either.
    one = torch.ones(1, requires_grad=True)
    torch.autograd.backward([one * 1], [torch.ones(1)])
    case = Case(2000, 64)
    start = time.process_time()
    case.once()
    return {"seconds": time.process_time() - start}


def child(*arguments: str, **environment: str) -> dict:
    command = [sys.executable, str(Path(__file__).resolve()), *arguments]
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", **environment}
    result = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if result.returncode:
        sys.exit(f"bench: {' '.join(arguments)} failed:\n{result.stderr}")
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="time the twin on every size")
    parser.add_argument("--row", nargs=3, metavar=("N", "SIZE", "KIND"), help=argparse.SUPPRESS)
    parser.add_argument("--start-up", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(row(int(options.row[0]), int(options.row[1]), options.row[2])))
        return
    if options.start_up:
        print(json.dumps(start_up()))
        return

    with tempfile.TemporaryDirectory() as cache:
        first = child("--start-up", NUMBA_CACHE_DIR=cache)["seconds"]
        warm = child("--start-up", NUMBA_CACHE_DIR=cache)["seconds"]
    print(f"first call, kernels compiled: {first:.1f} s CPU; a later process: {warm:.2f} s CPU\n")

    print("numba, colour, ms: one thread (CPU = wall when idle) and two\n")
    print("     N  size   forward  backward      sum   wall   2 threads: CPU   wall   gain   peak MB")
    sizes = []
    for n, size in SIZES:
        r = child("--row", str(n), str(size), "size")
        gain = r["one"]["wall"] / r["two"]["wall"]
        sizes.append({"n": n, "size": size, **r, "two_threads_gain": gain})
        print(
            f"{n:6d} {size:5d} {r['one']['forward']:9.2f} {r['one']['backward']:9.2f} {r['one']['cpu']:8.2f} "
            f"{r['one']['wall']:6.2f} {r['two']['cpu']:16.2f} {r['two']['wall']:6.2f} {gain:6.2f} "
            f"{r['peak_rss_mb']:9.0f}",
            flush=True,
        )
    differ = sum(r["bits_differ"] for r in sizes)
    print(f"\nimages and gradients of one and two threads: {differ or 'no'} numbers differ")

    print("\nagainst the torch twin, one thread, CPU ms, taking turns\n")
    print("     N  size     numba      twin   ratio   largest difference of the images")
    twins = []
    for n, size in SIZES if options.full else TWIN_SIZES:
        r = child("--row", str(n), str(size), "twin")
        ratio = r["twin"]["cpu"] / r["one"]["cpu"]
        twins.append({"n": n, "size": size, **r, "ratio": ratio})
        print(
            f"{n:6d} {size:5d} {r['one']['cpu']:9.2f} {r['twin']['cpu']:9.1f} {ratio:7.1f}   "
            f"{r['largest_difference']:.1e}",
            flush=True,
        )

    extras = child("--row", "10000", "256", "modes")
    plain = extras["one"]["cpu"]
    print(f"\n10000 at 256, one thread, CPU ms: colour {plain:.2f}", end="")
    costs = {k: extras[k]["cpu"] / plain for k in ("depth", "harmonics", "absgrad")}
    for name, cost in costs.items():
        print(f"; {name} {extras[name]['cpu']:.2f} ({100 * (cost - 1):+.0f} %)", end="")
    print("\n")

    at_10k = next(r for r in twins if (r["n"], r["size"]) == (10000, 256))
    two_at_10k = next(r for r in sizes if (r["n"], r["size"]) == (10000, 256))
    print(
        json.dumps(
            {
                "bench": "rasterize",
                "python": platform.python_version(),
                "processor": platform.processor() or platform.machine(),
                "cores": usable_cores(),
                "load_average": os.getloadavg()[0],
                "first_call_seconds": first,
                "warm_call_seconds": warm,
                "speedup_over_twin_10k_256": at_10k["ratio"],
                "two_threads_gain_10k_256": two_at_10k["two_threads_gain"],
                "mode_costs_10k_256": costs,
                "sizes": sizes,
                "twin": twins,
            }
        )
    )


if __name__ == "__main__":
    main()
