"""The steps of `bench/gpu.py`, each a process of its own: bench/gpu.py says what they are."""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from gpu_stand_ins import Unmade, parts_of, settings

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30
#: Seconds that a step may take.
SECONDS = {
    "doctor": 40, "parity": 60, "raster": 60, "train": 170, "sampling": 80, "tiny": 60, "recon4d": 120,
    "tests": 120,
}  # fmt: skip
#: Settings of the step of the published network, each against the first.
TRAINING: dict[str, list[str]] = {
    "as it was: batch 1, blocks recomputed, autocast": [
        "optim.batch=1", "optim.checkpointing=true", "optim.weights=float32", "optim.graphs=off",
    ],
    "batch 2, autocast": [
        "optim.batch=2", "optim.checkpointing=false", "optim.weights=float32", "optim.graphs=off",
    ],
    "batch 2, half weights": ["optim.batch=2", "optim.checkpointing=false", "optim.graphs=off"],
    "batch 2, half weights, graph": ["optim.batch=2", "optim.checkpointing=false", "optim.graphs=on"],
    "batch 4, half weights, attention recomputed, graph": [
        "optim.batch=4", "optim.checkpointing=true", "optim.recompute=attention", "optim.graphs=on",
    ],
    "batch 2, fp16, graph": [
        "optim.batch=2", "optim.checkpointing=false", "optim.graphs=on", "optim.precision=fp16",
    ],
    "batch 2, half weights, graph, compiled": [
        "optim.batch=2", "optim.checkpointing=false", "optim.graphs=on", "optim.compile=true",
    ],
    "auto": ["optim.batch=auto"],
}  # fmt: skip


def say(**record: Any) -> None:
    """One record, as a line of its own."""
    print(json.dumps(record), flush=True)


def guarded(step: str, what: str, work: Callable[[], dict[str, Any]]) -> None:
    """The record of `work`, or of how it failed; memory is let go of either way."""
    begin = time.monotonic()
    try:
        found = work()
    except BaseException as error:  # SystemExit and click's too: the next setting is tried
        if isinstance(error, KeyboardInterrupt):
            raise
        found = {
            "error": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        }
    say(step=step, what=what, **found, wall_s=round(time.monotonic() - begin, 1))
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def device() -> Any:
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait() -> None:
    """Until the device has done what it was given."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def unpacked(options: argparse.Namespace) -> Path:
    """The folder that the pack was unpacked to; it need not exist for steps without clips."""
    return Path(options.folder or "/nonexistent")


def environment() -> dict[str, str]:
    """For processes: orbit4d is found as it is here."""
    path = os.pathsep.join(
        [p for p in sys.path if p.endswith("typings")] + [os.environ.get("PYTHONPATH", "")]
    )
    return {**os.environ, **({"PYTHONPATH": path.strip(os.pathsep)} if path.strip(os.pathsep) else {})}


def command(words: list[str], limit: float) -> subprocess.CompletedProcess[str]:
    """An orbit4d command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "orbit4d.app", *words],
        cwd=tempfile.gettempdir(), env=environment(), capture_output=True, text=True, timeout=limit,
    )  # fmt: skip


def doctor(options: argparse.Namespace) -> None:
    import torch

    def card() -> dict[str, Any]:
        versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "python": sys.version.split()[0]}
        for name in ("diffusers", "accelerate", "gsplat", "triton"):
            with contextlib.suppress(ImportError):
                versions[name] = getattr(__import__(name), "__version__", "?")
        if not torch.cuda.is_available():
            return {"card": "cpu", **versions}
        properties = torch.cuda.get_device_properties(0)
        return {"card": properties.name, "gib": round(properties.total_memory / GIB, 1), **versions}

    def kernels() -> dict[str, Any]:
        from orbit4d.app.doctor import compiler, gsplat_kernels

        works, why = gsplat_kernels()
        return {"gsplat_works": works, "gsplat": why, "nvcc": compiler()}

    guarded("doctor", "card", card)
    guarded("doctor", "kernels", kernels)
    commit = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    guarded("doctor", "commit", lambda: {"commit": subprocess.check_output(commit, text=True).strip()})


def fixtures() -> Path:
    """The folder of reference tensors: beside the checkout, or in it."""
    for folder in (ROOT.parent / "shared", ROOT / "shared"):
        if (folder / "fixtures").is_dir():
            return folder / "fixtures"
    raise FileNotFoundError("no folder shared/fixtures beside or in the checkout")


def parity(options: argparse.Namespace) -> None:
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    def network(folder: str, variant: str) -> dict[str, Any]:
        from safetensors.torch import load_file

        from orbit4d.model.network.videomv import load_videomv

        place = fixtures() / "videomv" / folder
        kwargs = json.loads((place / "config.json").read_text())["diffusers"]["kwargs"]
        unet = load_videomv(place / "weights.pth", variant=variant, **kwargs).to(device()).eval()
        io = {name: tensor.to(device()) for name, tensor in load_file(place / "io.safetensors").items()}
        given = {"encoder_hidden_states": io["y"], "camera": io["camera_data"]}
        if variant == "image":
            given |= {"image_latents": io["local_image"], "image_embeddings": io["image"], "fps": io["fps"]}
        with torch.no_grad():
            out = unet(io["x"], io["t"], **given).sample
        error = float((out.double() - io["output"].double()).abs().max())
        return {"error": error, "limit": 1e-4, "holds": error < 1e-4}

    guarded("parity", "videomv text", lambda: network("t2v", "text"))
    guarded("parity", "videomv image", lambda: network("i2v", "image"))
    guarded("parity", "rasteriser", lambda: raster_parity(options))


def raster_parity(options: argparse.Namespace) -> dict[str, Any]:
    """The 2,000 Gaussians of the float64 fixture: image and gradients."""
    import numpy as np
    import torch

    from orbit4d.recon4d import rasterize

    packed = unpacked(options) / "scene_2k.npz"
    z = dict(np.load(packed if packed.is_file() else fixtures() / "rasteriser" / "scene_2k.npz"))
    tensors = {name: torch.tensor(value).to(device()) for name, value in z.items()}
    names = ("means", "quats", "scales", "opacities", "colors")
    leaves = {name: tensors[name].clone().requires_grad_() for name in names}
    image, _, meta = rasterize(
        **leaves, viewmats=tensors["viewmat"][None], Ks=tensors["K"][None], width=int(z["width"]),
        height=int(z["height"]), backgrounds=tensors["background"],
    )  # fmt: skip
    (image[0] * tensors["w_color"]).sum().backward()
    steady = ~tensors["fragile"]
    off = float((image[0].detach() - tensors["image"]).abs().amax(-1)[steady].max())
    gradients = {}
    for name, leaf in leaves.items():
        wanted = tensors[f"grad_{name}"]
        gradients[name] = float((leaf.grad - wanted).norm() / wanted.norm())
    return {"backend": meta["backend"], "error": off, "gradients": gradients, "holds": off < 1e-4}


def raster(options: argparse.Namespace) -> None:
    import torch

    def speed(n: int, size: int) -> dict[str, Any]:
        from orbit4d.recon4d import rasterize

        torch.manual_seed(0)
        means = torch.randn(n, 3, device=device()) * 0.4 + torch.tensor([0.0, 0.0, 3.0], device=device())
        leaves = {
            "means": means, "quats": torch.randn(n, 4, device=device()),
            "scales": torch.rand(n, 3, device=device()) * 0.03,
            "opacities": torch.rand(n, device=device()), "colors": torch.rand(n, 3, device=device()),
        }  # fmt: skip
        for leaf in leaves.values():
            leaf.requires_grad_()
        half = size / 2
        k = torch.tensor([[[1.2 * size, 0, half], [0, 1.2 * size, half], [0, 0, 1.0]]], device=device())
        times = []
        for _ in range(3 if options.small else 20):
            wait()
            begin = time.monotonic()
            image, _, meta = rasterize(
                **leaves, viewmats=torch.eye(4, device=device())[None], Ks=k, width=size, height=size
            )
            image.square().mean().backward()
            wait()
            times.append(time.monotonic() - begin)
        return {
            "backend": meta["backend"],
            "ms": round(1000 * statistics.median(times[len(times) // 4 :]), 2),
        }

    for n in (2_000,) if options.small else (10_000, 100_000):
        size = 64 if options.small else 256
        guarded(
            "raster",
            f"{n} Gaussians, {size} x {size}, forward and backward",
            lambda n=n, size=size: speed(n, size),
        )


def train(options: argparse.Namespace) -> None:
    """Steps of the trainer itself, on drawn latents; one micro-batch a step."""
    import torch

    from orbit4d.model.config.presets import PRESETS
    from orbit4d.model.run.checkpoint import State
    from orbit4d.model.training.memory import estimate
    from orbit4d.model.training.plan import best_plan
    from orbit4d.model.training.stages import Position, open_stage
    from orbit4d.model.training.steps import optimizer_step

    def measure(name: str, sets: list[str]) -> dict[str, Any]:
        config = settings(options, name, [*sets, "optim.effective_batch=16"])
        if config.optim.batch == "auto":
            room = torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else 80 * GIB
            config = best_plan(settings(options, name, [*sets, "model.autoencoder="]), room).applied(config)
        one = json.dumps(config.optim.batch)
        config = settings(
            options, name,
            [*sets, f"optim.effective_batch={one}", f"optim.batch={one}",
             f"optim.checkpointing={json.dumps(config.optim.checkpointing)}",
             f"optim.recompute={config.optim.recompute}"],
        )  # fmt: skip
        parts = parts_of(config)
        position = Position.of(State(0, 0, 0, 0.0))
        state = open_stage(parts, config, position, None)
        times, losses = [], []
        for _ in range(4 if options.small else 9):
            wait()
            begin = time.monotonic()
            result = optimizer_step(state, parts, config, Path("."), position)
            wait()
            times.append(time.monotonic() - begin)
            losses.append(result.terms["loss"])
            position.step, position.done = position.step + 1, position.done + 1
        seconds = statistics.median(times[3:])
        expected = estimate(
            settings(options, name, [*sets, *_cut(config), "model.autoencoder="]), 4, 8
        ).reserved
        found = {
            "batch": config.optim.batch, "recompute": config.optim.recompute * config.optim.checkpointing,
            "ms": round(1000 * seconds, 1), "clips_per_s": round(config.optim.batch / seconds, 2),
            "recorded": state.graphs.count if state.graphs is not None else 0,
            "not_recorded": state.graphs.refused if state.graphs is not None else "",
            "losses": [round(loss, 5) for loss in losses[:3]], "dry_run_gib": round(expected / GIB, 2),
        }  # fmt: skip
        if torch.cuda.is_available():
            reserved = torch.cuda.max_memory_reserved()
            found |= {
                "reserved_gib": round(reserved / GIB, 2),
                "allocated_gib": round(torch.cuda.max_memory_allocated() / GIB, 2),
                "dry_run_off": round(expected / reserved - 1, 3),
            }
        return found

    for what, sets in TRAINING.items():
        guarded("train", what, lambda sets=sets: measure("videomv-image", sets))
    others = [name for name in PRESETS if name.startswith(("wan", "svd"))]
    for name in others:
        guarded("train", name, lambda name=name: measure(name, ["optim.batch=1"]))
    if not others:
        say(step="train", what="Wan and SVD at full size", skipped="no such preset in this version")


def _cut(config: Any) -> list[str]:
    o = config.optim
    return [
        f"optim.batch={o.batch}", f"optim.effective_batch={o.effective_batch}",
        f"optim.checkpointing={json.dumps(o.checkpointing)}", f"optim.recompute={o.recompute}",
    ]  # fmt: skip


def sampling(options: argparse.Namespace) -> None:
    import torch

    from orbit4d.model import OrbitPipeline
    from orbit4d.model.encoders.frozen import FrozenParts, PartsSpec
    from orbit4d.model.network.build import build_unet

    config = settings(options, "videomv-image", [])
    spec = PartsSpec.of(config)
    frozen = FrozenParts(spec, Unmade())
    with torch.device(device()):
        networks = [build_unet(config, 4).eval() for _ in range(2)]
    exact: list[Any] = []

    def measure(precision: str) -> dict[str, Any]:
        import numpy as np

        from orbit4d.model.diffusion.schedule import make_scheduler

        scheduler = make_scheduler(config.model.schedule)
        pipeline = OrbitPipeline(
            networks[0], scheduler, networks[1], vars(spec), frozen.identity(), config.data.frames,
            config.data.resolution, w1=7.0, w2=0.5, sample_precision=precision,
        )  # fmt: skip
        pipeline._parts = frozen
        edge = config.data.resolution
        pixels = np.random.default_rng(0).integers(0, 255, (edge, edge, 3), dtype=np.uint8)
        times: list[float] = []

        def tick(pipe: Any, i: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
            wait()
            times.append(time.monotonic())
            return values

        def draw(steps: int) -> Any:
            return pipeline(
                image=pixels, motion=0.01, num_inference_steps=steps, output_type="latent",
                generator=torch.Generator().manual_seed(0), callback_on_step_end=tick,
            ).frames  # fmt: skip

        first = draw(1).float().cpu()  # one pass of each network: no error grows over steps
        if precision == "no":
            exact.append(first)
        times.clear()
        draw(4 if options.small else 12)
        step = statistics.median(b - a for a, b in pairwise(times[2:]))
        found: dict[str, Any] = {
            "ms_per_step": round(1000 * step, 1),
            "s_per_clip_of_50": round(50 * step, 2),
        }
        if exact:
            found["off_float32"] = round(float((first - exact[0]).norm() / exact[0].norm()), 5)
        if torch.cuda.is_available():
            found["reserved_gib"] = round(torch.cuda.max_memory_reserved() / GIB, 2)
        return found

    for precision in ("no", "fp16", "bf16", "auto"):
        guarded("sampling", f"three branches, sample.precision={precision}", lambda p=precision: measure(p))


def tiny(options: argparse.Namespace) -> None:
    from orbit4d.model.config.presets import preset
    from orbit4d.model.config.settings import override
    from orbit4d.model.run.log import read
    from orbit4d.model.training.train import train as run_training

    dataset = str(unpacked(options) / "dataset")
    count = 8 if options.small else 60

    def measure(sets: list[str]) -> dict[str, Any]:
        stages = [{"name": "dynamic", "steps": count}]
        config = override(
            preset("tiny"), [f"stages={json.dumps(stages)}", "validate_every=100000", "sample.w2=0", *sets]
        )
        with tempfile.TemporaryDirectory() as folder:
            run_training(config, dataset, Path(folder) / "run")
            rows = read(Path(folder) / "run" / "log.jsonl")
        tail = [row["step_seconds"] for row in rows[count // 2 :]]
        return {"ms": round(1000 * statistics.median(tail), 2), "loss": round(rows[-1]["loss"], 5)}

    for what, sets in {
        "float32, launched": ["optim.graphs=off"],
        "float32, recorded": [],
        "float32, recorded, tf32": ["optim.tf32=true"],
        "bf16, recorded": ["optim.precision=bf16"],
    }.items():
        guarded("tiny", what, lambda sets=sets: measure(sets))


def recon4d(options: argparse.Namespace) -> None:
    folder = unpacked(options)

    def fit(preset: str) -> dict[str, Any]:
        reference = (folder / "reference.txt").read_text().strip()
        with tempfile.TemporaryDirectory() as out:
            words = ["recon4d", f"{folder / 'dataset'}:{reference}", "--preset", preset]
            words += ["--device", device().type, "--out", str(Path(out) / "scene")]
            words += ["--steps", "20"] if options.small else []
            begin = time.monotonic()
            done = command(words, SECONDS["recon4d"])
            seconds = time.monotonic() - begin
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
            raise RuntimeError(f"recon4d ended with {done.returncode}: {last}")
        psnr = {
            name.strip(): float(value)
            for name, value in re.findall(
                r"(?m)^(training views|held out \S+)\s*PSNR ([\d.]+) dB", done.stdout
            )
        }
        said = [line for line in (done.stdout + done.stderr).splitlines() if "device" in line][:1]
        return {"seconds": round(seconds, 1), "psnr": psnr, "said": said}

    for name in ("fast",) if options.small else ("fast", "default"):
        guarded("recon4d", f"preset {name}", lambda name=name: fit(name))


def tests(options: argparse.Namespace) -> None:
    def run() -> dict[str, Any]:
        words = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/model",
                 "tests/recon4d"]  # fmt: skip
        done = subprocess.run(
            words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=SECONDS["tests"] - 10
        )
        lines = (done.stdout.strip() or done.stderr.strip() or "no output").splitlines()
        failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
        return {"rc": done.returncode, "summary": lines[-1], "failed": failed[:20]}

    guarded("tests", "pytest -m gpu", run)


STEPS: dict[str, Callable[[argparse.Namespace], None]] = {
    "doctor": doctor, "parity": parity, "raster": raster, "train": train, "sampling": sampling, "tiny": tiny,
    "recon4d": recon4d, "tests": tests,
}  # fmt: skip
