"""make bench-eval: PSNR, SSIM and LPIPS over clips against the same metrics computed frame by frame.

    python bench/eval.py                 the comparison (LPIPS where its weights are)
    python bench/eval.py --cpu-time      the same in CPU seconds of one thread, for a machine that others use
    python bench/eval.py --cd4d          seconds of CD-3D, CD-4D and CD-M of 16 x 100,000 points
    python bench/eval.py --stream 10000  how much an evaluation of many small clips holds in memory

The other side is what a script would do: scikit-image and torchmetrics, one frame at a time, with as many
threads. Both sides run in one process on the same clips, in turn; their values are compared before their
times are. LPIPS of torchmetrics is its own code around its usual AlexNet, given the same published weights;
where those are not here, both get the same random ones (--random-weights: as much work, and values that mean
nothing).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
import weakref
from collections.abc import Callable
from functools import partial

# Read when torch is first imported: its idle threads sleep instead of spinning against those of the kernels.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from orbit4d.datasets.images.lpips import LPIPS
from orbit4d.datasets.images.metric_weights import NotMeasured
from orbit4d.evaluate.metrics import pixel
from orbit4d.evaluate.metrics.lpips import FastLPIPS

Metric = Callable[[], np.ndarray]


def clips(n: int, frames: int, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pairs [F, 3, H, W]: low-frequency images and noisy copies, float32 in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    out = []
    for _ in range(n):
        coarse = torch.rand(frames, 3, 12, 12, generator=generator)
        truth = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)
        noise = 0.05 * torch.randn(truth.shape, generator=generator)
        out.append(((truth + noise).clamp(0, 1), truth))
    return out


def torchmetrics_lpips(published: LPIPS) -> torch.nn.Module:
    """torchmetrics' LPIPS around torchvision's AlexNet (built here: torchvision need not be installed)."""
    from torchmetrics.functional.image import lpips as theirs

    def alexnet(net: str, pretrained: bool = False) -> torch.nn.Sequential:
        layers: list[torch.nn.Module] = []
        for i, conv in enumerate(published.convs):
            layers += [conv, torch.nn.ReLU(inplace=True)]
            if i in (0, 1):
                layers.append(torch.nn.MaxPool2d(3, 2))
        return torch.nn.Sequential(*layers)

    before = theirs._get_tv_model_features
    theirs._get_tv_model_features = alexnet
    try:
        model = theirs._NoTrainLpips(pretrained=False, net="alex")
    finally:
        theirs._get_tv_model_features = before
    for i, weight in enumerate(published.linear):
        getattr(model, f"lin{i}").model[-1].weight.data = weight.view(1, -1, 1, 1).clone()
    return model


def random_lpips() -> LPIPS:
    """An untrained network of LPIPS' shape."""
    torch.manual_seed(0)
    net = LPIPS("alex")
    for weight in net.linear:
        weight.data = torch.rand_like(weight) / weight.numel()
    return net.eval().requires_grad_(False)


def cd4d(repeats: int) -> None:
    """ActionBench's three distances of 16 frames of 100,000 points, as they lie."""
    from orbit4d.evaluate import actionbench

    rng = np.random.default_rng(0)
    ball = rng.normal(size=(2, 100_000, 3))
    ball /= np.linalg.norm(ball, axis=-1, keepdims=True)
    bend = np.linspace(0, 0.5, 16)[:, None] * ball[:, None, :, 0] ** 2
    made, truth = (np.stack([b + 0 * w[:, None] + w[:, None] * [0, 0, 1] for w in way])
                   for b, way in zip(ball, bend))  # fmt: skip
    made = made + rng.normal(scale=0.005, size=made.shape)
    found = {}
    for name, queries in (("10,000 queries", 10_000), ("all queries", None)):
        seconds, cpu = [], []
        for _ in range(repeats):
            start, busy = time.perf_counter(), time.process_time()
            actionbench(made, truth, queries=queries)
            seconds.append(time.perf_counter() - start)
            cpu.append(time.process_time() - busy)
        found[name] = {"seconds": statistics.median(seconds), "cpu_seconds": statistics.median(cpu)}
        print(
            f"CD-3D, CD-4D and CD-M of 16 x 100,000 points, {name}: {found[name]['seconds']:.2f} s, "
            f"{found[name]['cpu_seconds']:.2f} CPU s",
            flush=True,
        )
    print(json.dumps({"bench": "eval-cd4d", **found, "load": os.getloadavg()[0]}))


def metrics(
    data: list[tuple[torch.Tensor, torch.Tensor]], batch: int, random_weights: bool = False
) -> dict[str, tuple[Metric, Metric]]:
    """Name -> (ours over batches, theirs frame by frame), both giving one value per frame."""
    from skimage.metrics import structural_similarity
    from torchmetrics.functional.image import peak_signal_noise_ratio
    from torchmetrics.functional.image.lpips import _lpips_update

    def batched(metric: Callable[..., torch.Tensor]) -> Metric:
        def run() -> np.ndarray:
            with torch.no_grad():
                parts = [
                    metric(a[i : i + batch], b[i : i + batch])
                    for a, b in data
                    for i in range(0, len(a), batch)
                ]
            return torch.cat(parts).double().numpy()

        return run

    def one_by_one(metric: Callable[..., float]) -> Metric:
        def run() -> np.ndarray:
            with torch.no_grad():
                return np.array([metric(x, y) for a, b in data for x, y in zip(a, b)])

        return run

    def skimage_ssim(x: torch.Tensor, y: torch.Tensor) -> float:
        return structural_similarity(
            x.permute(1, 2, 0).numpy(),
            y.permute(1, 2, 0).numpy(),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            channel_axis=2,
        )

    table = {
        "PSNR": (
            batched(pixel.psnr),
            one_by_one(lambda x, y: peak_signal_noise_ratio(x, y, data_range=1.0).item()),
        ),
        "SSIM": (batched(pixel.ssim), one_by_one(skimage_ssim)),
    }
    try:
        published = random_lpips() if random_weights else LPIPS.from_weights("alex")
        theirs = torchmetrics_lpips(published)
        table["LPIPS-alex"] = (
            batched(FastLPIPS(published)),
            one_by_one(lambda x, y: _lpips_update(x[None], y[None], theirs, normalize=True).item()),
        )
    except NotMeasured as why:
        print(f"LPIPS left out: {why}")
    return table


def timed(f: Metric, repeats: int, clock: Callable[[], float]) -> tuple[np.ndarray, float]:
    """Result and median seconds, after a run that compiles and warms up."""
    result, seconds = f(), []
    for _ in range(repeats):
        start = clock()
        result = f()
        seconds.append(clock() - start)
    return result, statistics.median(seconds)


def compare(args: argparse.Namespace) -> None:
    """The table of metrics."""
    results, total = {}, [0.0, 0.0]
    clock = time.process_time if args.cpu_time else time.perf_counter
    if args.cpu_time:
        torch.set_num_threads(1)
    unit = "CPU seconds" if args.cpu_time else "seconds"
    print(f"{args.clips} clips of {args.frames} x {args.size}^2, {torch.get_num_threads()} threads, {unit}")
    print(f"load {os.getloadavg()[0]:.1f}")
    todo = metrics(clips(args.clips, args.frames, args.size), args.batch, args.random_weights)
    todo = {name: pair for name, pair in todo.items() if not args.only or name in args.only.split(",")}
    heads = ("metric", "ours clips/s", "theirs clips/s", "ratio", "largest difference")
    print(f"{heads[0]:<12} {heads[1]:>12} {heads[2]:>14} {heads[3]:>7} {heads[4]:>19}")
    for name, (ours, theirs) in todo.items():
        a, fast = timed(ours, args.repeats, clock)
        b, slow = timed(theirs, args.repeats, clock)
        difference = float(np.abs(a - b).max())
        print(
            f"{name:<12} {args.clips / fast:12.2f} {args.clips / slow:14.2f} "
            f"{slow / fast:7.2f} {difference:19.1e}"
        )
        results[name] = {
            "ratio": slow / fast,
            "clips_per_second": args.clips / fast,
            "difference": difference,
        }
        total[0] += fast
        total[1] += slow
    print(f"together {total[1] / total[0]:.2f}x, {args.clips / total[0]:.2f} clips/s")
    together = {"ratio": total[1] / total[0], "clips_per_second": args.clips / total[0]}
    together["clock"] = unit  # type: ignore[assignment]
    print(json.dumps({"bench": "eval", **together, "threads": torch.get_num_threads(), **results}))


def stream(n: int) -> None:
    """Measure n drawn clips of 8 frames at 32^2 and count the frames that are alive at any time."""
    import psutil

    from orbit4d.evaluate.metrics.suite import Pair, Suite
    from orbit4d.evaluate.results.rows import Results
    from orbit4d.evaluate.runner import SuiteSpec, measure_cases
    from orbit4d.evaluate.tasks.cases import Case

    alive = most = 0
    me, peaks = psutil.Process(), []

    def freed(frames: int) -> None:
        nonlocal alive
        alive -= frames

    def load(number: int) -> Pair:
        nonlocal alive, most
        generator = torch.Generator().manual_seed(number)
        truth = torch.rand(8, 3, 32, 32, generator=generator)
        made = (truth + 0.1 * torch.randn(truth.shape, generator=generator)).clamp(0, 1)
        for video in (made, truth):
            alive += len(video)
            weakref.finalize(video, freed, len(video))
        most = max(most, alive)
        if number % (n // 10 or 1) == 0:
            peaks.append(me.memory_info().rss / 2**20)
        return Pair(f"{number:06d}", "dynamic_orbit", made, truth)

    cases = [Case(f"{i:06d}", partial(load, i)) for i in range(n)]
    with tempfile.TemporaryDirectory() as folder:
        results = Results(folder, {"task": "video"})
        start = time.perf_counter()
        measure_cases(cases, Suite(learned=False), results, SuiteSpec(learned=False), shown=0)
        seconds = time.perf_counter() - start
        record = results.finish({}, {})
    print(f"{n} clips: at most {most} frames in memory; resident MiB at each tenth: ", end="")
    print(" ".join(f"{peak:.0f}" for peak in peaks))
    print(
        json.dumps(
            {"bench": "eval-stream", "clips": n, "measured": record["clips"], "most_frames": most,
             "rss_mib": peaks, "clips_per_second": n / seconds}
        )
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--cpu-time", action="store_true", help="CPU seconds of one thread.")
    parser.add_argument("--only", help="Metrics, comma-separated: PSNR, SSIM, LPIPS-alex.")
    parser.add_argument("--random-weights", action="store_true", help="LPIPS without its published weights.")
    parser.add_argument("--cd4d", action="store_true", help="Seconds of ActionBench's distances.")
    parser.add_argument("--stream", type=int, help="Clips of the memory measurement.")
    args = parser.parse_args()
    if args.cd4d:
        cd4d(args.repeats)
    elif args.stream:
        stream(args.stream)
    else:
        compare(args)


if __name__ == "__main__":
    main()
