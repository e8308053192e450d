"""make bench-eval: PSNR, SSIM (and LPIPS where its weights are) over clips against frame-by-frame metrics.

The other side is what a script would do: scikit-image and torchmetrics, one frame at a time. Both sides run
in one process on the same clips, in turn, and their values are compared before their times are.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from orbit4d.datasets.lpips import LPIPS
from orbit4d.datasets.weights import NotMeasured
from orbit4d.evaluate import pixel


def clips(n: int, frames: int, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pairs [F, 3, H, W]: low-frequency pictures and noisy copies, float32 in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    out = []
    for _ in range(n):
        coarse = torch.rand(frames, 3, 12, 12, generator=generator)
        truth = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)
        noise = 0.05 * torch.randn(truth.shape, generator=generator)
        out.append(((truth + noise).clamp(0, 1), truth))
    return out


def timed(f: Callable[[], np.ndarray], repeats: int) -> tuple[np.ndarray, float]:
    """Result and median seconds."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = f()
        seconds.append(time.perf_counter() - start)
    return result, statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    data = clips(args.clips, args.frames, args.size)

    from skimage.metrics import structural_similarity
    from torchmetrics.functional.image import peak_signal_noise_ratio

    def batched(metric: Callable[..., torch.Tensor]) -> Callable[[], np.ndarray]:
        def run() -> np.ndarray:
            with torch.no_grad():
                parts = [
                    metric(a[i : i + args.batch], b[i : i + args.batch])
                    for a, b in data
                    for i in range(0, len(a), args.batch)
                ]
            return torch.cat(parts).double().numpy()

        return run

    def one_by_one(metric: Callable[..., float]) -> Callable[[], np.ndarray]:
        return lambda: np.array([metric(x, y) for a, b in data for x, y in zip(a, b)])

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
        lpips = LPIPS.from_weights("alex")

        def per_frame(x: torch.Tensor, y: torch.Tensor) -> float:
            with torch.no_grad():
                return lpips(x[None], y[None]).item()

        table["LPIPS-alex"] = (batched(lpips), one_by_one(per_frame))
    except NotMeasured as why:
        print(f"LPIPS left out: {why}")

    results, total = {}, [0.0, 0.0]
    print(f"{args.clips} clips of {args.frames} x {args.size}^2, {torch.get_num_threads()} threads")
    print(
        f"{'metric':<12} {'ours clips/s':>12} {'theirs clips/s':>14} {'ratio':>7} {'largest difference':>19}"
    )
    for name, (ours, theirs) in table.items():
        a, fast = timed(ours, args.repeats)
        b, slow = timed(theirs, args.repeats)
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
    print(f"together {total[1] / total[0]:.2f}x")
    print(json.dumps({"bench": "eval", "ratio": total[1] / total[0], **results}))


if __name__ == "__main__":
    main()
