"""Steps per second of the trainer, with and without the latent cache, against a plain diffusers loop.

    python bench/train.py                        a small network and a small VAE on the CPU, about two minutes
    python bench/train.py --preset videomv-image --dataset DATA --steps 20       on a GPU

All contestants train the same network on the same clips with equal settings (batch, AdamW, clipping, no EMA,
no L_mr) and take turns, round by round, so that a busy machine slows all of them. The plain loop is what
diffusers' training examples do: a DataLoader over latents that lie ready, accelerate, add_noise, mean
squared error. "data wait" is the share of a step spent waiting for the next batch. The sampling table gives
the cost of one guided step with the branches batched and one after another. The last line is one line of
JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from orbit4d.datasets.core.cores import usable_cores

WARM_UP = 3


def drawn_dataset(folder: Path, assets: int, frames: int, size: int) -> str:
    """Discs that circle an axis, drawn with numpy: enough to move bytes like real clips do."""
    import numpy as np

    from orbit4d.datasets import Clip, DatasetWriter, encode_webp, orbit

    writer = DatasetWriter(str(folder), {"frames": frames})
    cameras = tuple(orbit(frames, size=(size, size)))
    rows, columns = np.mgrid[:size, :size]
    for k in range(assets):
        rng = np.random.default_rng(k)
        centres, radii = rng.uniform(-0.3, 0.3, (6, 3)), rng.uniform(0.06, 0.15, 6)
        colours = rng.integers(0, 255, (6, 3))

        def draw(times, rng=rng, centres=centres, radii=radii, colours=colours):
            images = []
            for camera, t in zip(cameras, times):
                image = np.zeros((size, size, 4), np.uint8)
                moved = centres + 0.1 * np.sin(2 * np.pi * t + np.arange(6))[:, None]
                pixels, depth = camera.project(moved)
                for j in np.argsort(-depth):
                    reach = radii[j] * camera.fl_x / depth[j]
                    inside = (columns - pixels[j, 0]) ** 2 + (rows - pixels[j, 1]) ** 2 < reach**2
                    image[inside] = (*colours[j], 255)
                images.append(encode_webp(image))
            return tuple(images)

        moving, still = tuple(np.linspace(0, 1, frames).tolist()), (0.0,) * frames
        common = {
            "uid": f"disc-{k:03d}", "action": "Sway", "action_index": 0, "orbit": 0, "cameras": cameras,
            "window": (0.0, 1.0), "scale": 1.0, "centre": (0.0, 0.0, 0.0), "azimuth0_deg": 0.0,
            "elevation_deg": 0.0, "radius": 2.0,
        }  # fmt: skip
        clips = [
            Clip(rig=rig, frames=draw(times), time=times, seconds=times, **common)
            for rig, times in (("static_orbit", still), ("dynamic_orbit", moving))
        ]
        writer.stage(f"disc-{k:03d}", clips)
    writer.roll(final=True)
    return str(folder)


def small_vae(folder: Path) -> str:
    """A VAE of the published layout with few channels, so that encoding costs something as it does in
    earnest."""
    import torch
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    AutoencoderKL(
        block_out_channels=(16, 32, 32), norm_num_groups=8, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


def ours(config, dataset: str, mode: str, steps: int, folder: Path) -> list[tuple[float, float]]:
    """(seconds, data wait) of each step of our trainer behind the warm-up."""
    from orbit4d.model.run.log import read
    from orbit4d.model.training.train import train

    config = replace(config, data=replace(config.data, latents=mode))
    with tempfile.TemporaryDirectory(dir=folder) as run, contextlib.redirect_stderr(io.StringIO()):
        train(config, dataset, Path(run) / "run")
        rows = read(Path(run) / "run" / "log.jsonl")
    return [(row["step_seconds"], row["data_wait"]) for row in rows[WARM_UP : WARM_UP + steps]]


def plain(config, dataset: str, steps: int) -> list[tuple[float, float]]:
    """The same for a loop as in diffusers' examples, over latents that lie ready in the cache."""
    import torch
    from accelerate import Accelerator

    from orbit4d.model.data.clip_source import TRAIN, open_clips
    from orbit4d.model.data.training_clips import cut, even_frames
    from orbit4d.model.diffusion.schedule import make_scheduler
    from orbit4d.model.encoders.frozen import FrozenParts, PartsSpec
    from orbit4d.model.network.build import build_unet

    accelerator = Accelerator(mixed_precision=config.optim.precision, cpu=not torch.cuda.is_available())
    frozen = FrozenParts.load(PartsSpec.of(config), accelerator.device)
    clips = open_clips(dataset, replace(config, data=replace(config.data, latents="cache")), frozen, TRAIN)

    class Latents(torch.utils.data.Dataset):
        def __len__(self):
            return len(clips)

        def __getitem__(self, i):
            clip = clips[i]
            return cut(clip, even_frames(len(clip["dynamic"]), config.data.frames), still=False)

    scheduler = make_scheduler(config.model.schedule, config.model.prediction)
    unet = build_unet(config, frozen.latent_channels)
    if config.optim.checkpointing:
        unet.enable_gradient_checkpointing()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=config.optim.lr, weight_decay=0.0)
    loader = torch.utils.data.DataLoader(
        Latents(),
        batch_size=config.optim.batch,
        shuffle=True,
        num_workers=config.data.workers,
        drop_last=True,
    )
    unet, optimizer, loader = accelerator.prepare(unet, optimizer, loader)
    unet.train()

    def endless():
        while True:
            yield from loader

    batches, times = endless(), []
    for _ in range(WARM_UP + steps):
        begin = time.monotonic()
        batch = next(batches)
        waited = time.monotonic() - begin
        latents = batch["target"].transpose(1, 2).float()
        noise = torch.randn_like(latents)
        t = torch.randint(0, scheduler.config.num_train_timesteps, (len(latents),), device=latents.device)
        noisy = scheduler.add_noise(latents, noise, t)
        kind = scheduler.config.prediction_type
        target = latents if kind == "sample" else noise
        if kind == "v_prediction":
            target = scheduler.get_velocity(latents, noise, t)
        conditions = {} if config.model.variant == "text" else {"image_latents": latents[:, :, 0]}
        if "image" in batch:
            conditions["image_embeddings"] = batch["image"].float()
        text = batch["text"].float() if "text" in batch else None
        with accelerator.autocast():
            output = unet(
                noisy, t, text, camera=batch["camera"], motion=batch["true_motion"], **conditions
            ).sample
            loss = torch.nn.functional.mse_loss(output.float(), target.float())
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(unet.parameters(), config.optim.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        times.append((time.monotonic() - begin, waited))
    return times[WARM_UP:]


def sampling(config, channels: int, edge: int) -> dict[str, float]:
    """Seconds of one guided step: plain, with three branches one by one, batched, and with a frozen base."""
    import torch

    from orbit4d.model.diffusion.guidance import Conditions, GuidanceWeights, guided_prediction
    from orbit4d.model.network.build import build_unet

    device = "cuda" if torch.cuda.is_available() else "cpu"
    unet, base = (build_unet(config, channels).to(device).eval() for _ in range(2))
    x = torch.randn(1, channels, config.data.frames, edge, edge, device=device)
    camera = torch.randn(1, config.data.frames, 16, device=device)
    visual = {} if config.model.variant == "text" else {"image_latents": x[:, :, 0]}
    full = Conditions(camera=camera, motion=torch.tensor([0.01], device=device), **visual)
    ways = {
        "no guidance": (GuidanceWeights(0.0, 0.0, 0.0), None, None),
        "3 branches, one by one": (GuidanceWeights(1.0, 0.0, 1.0), None, 1),
        "3 branches, batched": (GuidanceWeights(1.0, 0.0, 1.0), None, None),
        "3 branches, frozen base": (GuidanceWeights(1.0, 0.5, 0.0), base, None),
    }
    seconds = {}
    with torch.no_grad():
        for _ in range(2):
            for name, (weights, frozen, max_batch) in ways.items():
                times = []
                for _ in range(4):
                    begin = time.monotonic()
                    guided_prediction(
                        unet, x, torch.tensor(500, device=device), full, None, frozen, weights, max_batch
                    )
                    if device == "cuda":
                        torch.cuda.synchronize()
                    times.append(time.monotonic() - begin)
                seconds[name] = min(seconds.get(name, 1e9), statistics.median(times))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", help="default: one drawn for the purpose")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=12, help="measured steps per contestant and round")
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()

    import torch

    from orbit4d.model.config.presets import preset
    from orbit4d.model.config.settings import Stage, override
    from orbit4d.model.data.encode import encode_dataset
    from orbit4d.model.encoders.frozen import FrozenParts, PartsSpec

    with tempfile.TemporaryDirectory(prefix="orbit4d-bench-") as temporary:
        folder = Path(temporary)
        sets = ["loss.motion_weight=0", "optim.ema=0", "loss.drop_motion=0", "data.augment=[]",
                "model.residual=0", "data.static_condition=0", "optim.optimizer=adamw"]  # fmt: skip
        if args.preset == "tiny":
            sets += [f"model.autoencoder={small_vae(folder / 'vae')}", "data.resolution=64", "data.workers=1"]
        config = override(preset(args.preset), [*sets, *args.sets])
        batch = config.optim.batch if config.optim.batch != "auto" else 1
        config = replace(
            config,
            stages=(Stage("dynamic", WARM_UP + args.steps),),
            optim=replace(config.optim, batch=batch, effective_batch=batch),
            checkpoint_every=10**9,
            validate_every=10**9,
        )
        dataset = args.dataset or drawn_dataset(folder / "data", 16, 24, 64)
        frozen = FrozenParts.load(PartsSpec.of(config), torch.device("cpu"))
        begin = time.monotonic()
        print(encode_dataset(dataset, config))
        encode_seconds = time.monotonic() - begin
        contestants = {
            "orbit4d, latent cache": lambda: ours(config, dataset, "cache", args.steps, folder),
            "orbit4d, on the fly": lambda: ours(config, dataset, "fly", args.steps, folder),
            "plain diffusers loop, latent cache": lambda: plain(config, dataset, args.steps),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
        for _ in range(args.rounds):
            for name, run in contestants.items():
                times[name] += run()
        factor = frozen.autoencoder.factor
        steps = sampling(config, frozen.latent_channels, config.data.resolution // factor)

    results = {}
    print(f"\n{'training':38} steps/s   data wait")
    for name, rows in times.items():
        # Sums over the round, not the median step: waiting comes in lumps.
        seconds, waited = sum(s for s, _ in rows), sum(w for _, w in rows)
        results[name] = {"steps_per_s": len(rows) / seconds, "data_wait": waited / seconds}
        print(f"{name:38} {len(rows) / seconds:7.2f} {waited / seconds:10.1%}")
    ratio = (
        results["orbit4d, latent cache"]["steps_per_s"]
        / results["plain diffusers loop, latent cache"]["steps_per_s"]
    )
    print(f"{'cache over plain loop':38} {ratio:7.2f}")
    print(f"\n{'sampling, one step':38} seconds")
    for name, seconds in steps.items():
        print(f"{name:38} {seconds:7.3f}")
    print(json.dumps({
        "bench": "train", "preset": args.preset, "results": results, "cache_over_plain": ratio,
        "encode_seconds": encode_seconds, "sampling_step_seconds": steps, "steps": args.steps,
        "rounds": args.rounds, "machine": platform.processor() or platform.machine(), "cpus": usable_cores(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
    }))  # fmt: skip
    sys.stdout.flush()


if __name__ == "__main__":
    main()
