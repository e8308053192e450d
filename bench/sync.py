"""What the view module learns: with the reference clean, the other view is denoised better than by the base.

    make bench-sync                       drawn scenes, base, module and control trained, measured: 40 minutes
    python bench/sync.py --scale 0.05     the same, a twentieth of the steps: whether the wiring holds

160 scenes of two or three coloured balls on straight paths, shaded, with true occlusion, seen by six static
cameras (the rig `sync:6` at one distance, elevation 0 to 30): 128 train, 32 validate. Three runs of
`sync-tiny`: the base on single views; the module on it, frozen; the same with the cameras of other scenes.

H is the mean squared error of the velocity on view 1 over all ordered pairs of the validation scenes with
fixed noise, view 0 clean, at sigma 0.7, 0.9 and 0.97. The last line is one line of JSON; --out writes it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orbit4d.datasets.cameras.camera import Camera, orbit_c2w
from orbit4d.datasets.cameras.rigs import label_of
from orbit4d.datasets.images.codec import encode_webp
from orbit4d.datasets.store.clip import Clip
from orbit4d.datasets.store.schema import split_of
from orbit4d.datasets.store.writer import DatasetWriter
from orbit4d.model import TrainConfig, override, preset, train
from orbit4d.model.diffusion.flow import flow_levels, flow_noised, flow_target
from orbit4d.model.encoders.autoencoders import load_autoencoder
from orbit4d.model.guided.schedules import FlowEuler
from orbit4d.model.network.cameras import view_cameras
from orbit4d.model.network.wan import OrbitWan
from orbit4d.model.sampling.views import branches_of, sample_views
from orbit4d.model.views.scenes import SceneClips

ROOT = Path(__file__).resolve().parents[1]
SIGMAS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.97)
HIGH = slice(3, 6)
FRAMES, SIZE, CAMERAS, RADIUS = 4, 32, 6, 2.0
FOCAL = 24 / 23.76 * SIZE


# Data -------------------------------------------------------------------------------------------------------


def draw_dataset(out: Path, counts: dict[str, int]) -> Path:
    """Scenes until each split has its count; the split is a hash of the uid."""
    writer, left, number = DatasetWriter(str(out), {"frames": FRAMES}), dict(counts), 0
    while any(left.values()):
        uid = f"balls-{number:05d}"
        number += 1
        if left.get(split_of(uid), 0) > 0:
            left[split_of(uid)] -= 1
            writer.stage(uid, scene_clips(uid, np.random.default_rng([7, number])))
    writer.roll(final=True)
    return out


def scene_clips(uid: str, rng: np.random.Generator) -> list[Clip]:
    """Six cameras that see one scene."""
    count = int(rng.integers(2, 4))
    start, end = rng.uniform(-0.5, 0.5, (2, count, 3))
    colours = rng.uniform(0.1, 0.9, (count, 3))
    times = np.linspace(0, 1, FRAMES)
    clips = []
    for k in range(CAMERAS):
        azimuth, elevation = float(rng.uniform(0, 360)), float(rng.uniform(0, 30))
        camera = Camera(orbit_c2w(azimuth, elevation, RADIUS), FOCAL, FOCAL, SIZE / 2, SIZE / 2, SIZE, SIZE)
        images = [draw(camera, start + t * (end - start), colours) for t in times]
        clips.append(
            Clip(
                uid=uid, action="move", action_index=0, rig=f"sync_{CAMERAS}", orbit=k,
                frames=tuple(encode_webp(image) for image in images), cameras=(camera,) * FRAMES,
                time=tuple(times.tolist()), seconds=tuple(times.tolist()), window=(0.0, 1.0), scale=1.0,
                centre=(0.0, 0.0, 0.0), azimuth0_deg=azimuth, elevation_deg=elevation, radius=RADIUS,
                measures={}, license="CC0-1.0", author="", caption="", renderer={"engine": "numpy"},
                asset_sha256=hashlib.sha256(uid.encode()).hexdigest(), camera_label=label_of(k),
            )
        )  # fmt: skip
    return clips


def draw(camera: Camera, centres: np.ndarray, colours: np.ndarray, radius: float = 0.24) -> np.ndarray:
    """RGBA uint8 of shaded balls, 2 x 2 samples a pixel."""
    edge = 2 * SIZE
    column, row = np.meshgrid((np.arange(edge) + 0.5) / 2, (np.arange(edge) + 0.5) / 2)
    local = np.stack([(column - camera.cx) / FOCAL, -(row - camera.cy) / FOCAL, -np.ones_like(row)], -1)
    rays = local @ camera.c2w[:3, :3].T
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    origin, light = camera.c2w[:3, 3], np.array([0.4, -0.5, 0.77])
    depth, rgb = np.full(row.shape, np.inf), np.ones((*row.shape, 3))
    for centre, colour in zip(centres, colours):
        b = (rays * (origin - centre)).sum(-1)
        inside = b**2 - ((origin - centre) ** 2).sum() + radius**2
        t = -b - np.sqrt(np.maximum(inside, 0))
        hit = (inside > 0) & (t > 0) & (t < depth)
        normal = (origin + t[..., None] * rays - centre) / radius
        shade = 0.35 + 0.65 * np.clip(normal @ light, 0, 1)
        rgb = np.where(hit[..., None], colour * shade[..., None], rgb)
        depth = np.where(hit, t, depth)
    alpha = np.isfinite(depth).astype(float)
    pooled = (np.concatenate([rgb, alpha[..., None]], -1) * [1, 1, 1, 1]).reshape(SIZE, 2, SIZE, 2, 4)
    weight = pooled[..., 3:].sum((1, 3))
    colour = (pooled[..., :3] * pooled[..., 3:]).sum((1, 3)) / np.maximum(weight, 1)
    return (np.concatenate([colour, weight / 4], -1) * 255).round().astype(np.uint8)


# Runs -------------------------------------------------------------------------------------------------------


def trained(config: TrainConfig, dataset: Path, run: Path) -> OrbitWan:
    """The network of a run, which is trained where it is not there yet."""
    if not (run / "model" / "views.json").is_file():
        train(config, str(dataset), run, resume=(run / "config.json").is_file())
    return OrbitWan.from_pretrained(run / "model" / "network").eval()


def runs(dataset: Path, work: Path, scale: float, seed: int) -> dict[str, OrbitWan]:
    """Base, module and control."""
    config = override(preset("sync-tiny"), [f"seed={seed}"])
    single, views = (replace(s, steps=max(2, int(s.steps * scale))) for s in config.stages)
    base = replace(config, stages=(single,), views=replace(config.views, shift=2.0))
    found = {"base": trained(base, dataset, work / "base")}
    after = replace(config, stages=(views,), model=replace(config.model, init=str(work / "base")))
    found["module"] = trained(after, dataset, work / "module")
    control = replace(after, views=replace(after.views, shuffle_cameras=True))
    found["control"] = trained(control, dataset, work / "control")
    return found


# Measures ---------------------------------------------------------------------------------------------------


class Pairs:
    """All ordered pairs of cameras of the validation scenes, as latents with fixed noise."""

    def __init__(self, dataset: Path, config: TrainConfig) -> None:
        scenes = SceneClips(str(dataset), config, "validation")
        self.vae = load_autoencoder(config.model.autoencoder)
        videos, cameras, self.scene = [], [], []
        for number, scene in enumerate(scenes.multi):
            views = torch.stack([scenes.video(scene, v) for v in range(CAMERAS)])
            c2w = np.stack([scenes.c2w(scene, v) for v in range(CAMERAS)])
            for a in range(CAMERAS):
                for b in range(CAMERAS):
                    if a != b:
                        videos.append(views[[a, b]])
                        cameras.append(view_cameras(c2w[[a, b]]))
                        self.scene.append(number)
        self.x0 = self.vae.encode_video(torch.cat(videos)).unflatten(0, (-1, 2))
        self.camera = torch.stack(cameras)
        self.noise = torch.randn(self.x0.shape, generator=torch.Generator().manual_seed(5))
        # Another scene's pair: the same number, one scene on.
        self.wrong = self.camera.roll(CAMERAS * (CAMERAS - 1), 0)

    @torch.no_grad()
    def error(self, net: OrbitWan, sigma: float, camera: Tensor | None, clean: bool = True) -> float:
        """Mean squared error of the velocity on view 1."""
        total, size = 0.0, 48
        for i in range(0, len(self.x0), size):
            x0, noise = self.x0[i : i + size], self.noise[i : i + size]
            x = flow_noised(x0, noise, sigma)
            if clean:
                x = torch.cat([x0[:, :1], x[:, 1:]], 1)
            told = None if camera is None else camera[i : i + size].flatten(0, 1)
            out = net(x.flatten(0, 1), torch.tensor([1000 * sigma]), None, told, views=2).sample
            wrong = out.unflatten(0, (-1, 2)) - flow_target(x0, noise)
            total += float(wrong[:, 1].square().mean()) * len(x0)
        return total / len(self.x0)

    def errors(self, net: OrbitWan, camera: Tensor | None, clean: bool = True) -> list[float]:
        """At SIGMAS."""
        return [self.error(net, sigma, camera, clean) for sigma in SIGMAS]

    def generated(self, net: OrbitWan, told: bool, count: int) -> Tensor:
        """View 1 of the first pairs of evenly spread scenes, 12 Euler steps, view 0 clean: pixels."""
        schedule, found = FlowEuler(flow_levels(12, 3.0)), []
        for i in self.chosen(count):

            def predict(x: Tensor, step: int, texts: Any, i: int = i) -> Tensor:
                t = torch.tensor([1000 * float(schedule.s[step])])
                return net(x, t, None, self.camera[i] if told else None, views=2).sample

            branches = branches_of(1.0, 1.0, True, text=False)
            found.append(sample_views(predict, schedule, self.noise[i], branches, self.x0[i, :1])[1])
        return self.vae.decode_video(torch.stack(found))

    def chosen(self, count: int) -> np.ndarray:
        """Numbers of pairs, evenly spread."""
        return np.linspace(0, len(self.x0) - 1, min(count, len(self.x0))).astype(int)

    def truth(self, count: int) -> Tensor:
        """Pixels of view 1."""
        return self.vae.decode_video(self.x0[self.chosen(count), 1])


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10((a - b).square().mean()))


def measure(nets: dict[str, OrbitWan], dataset: Path, count: int) -> dict[str, Any]:
    """All figures of syncammaster's margins that drawn scenes allow."""
    pairs = Pairs(dataset, preset("sync-tiny"))
    base = pairs.errors(nets["base"], None)
    module, wrong = pairs.errors(nets["module"], pairs.camera), pairs.errors(nets["module"], pairs.wrong)
    control = pairs.errors(nets["control"], pairs.wrong)
    noisy = [pairs.errors(nets[n], c, False)[HIGH] for n, c in (("base", None), ("module", pairs.camera))]

    def high(values: list[float]) -> float:
        return float(np.mean(values[HIGH]))

    begin = time.process_time()
    pairs.error(nets["module"], 0.9, pairs.camera)
    with_module = time.process_time() - begin
    begin = time.process_time()
    pairs.error(nets["module"], 0.9, None)
    without = time.process_time() - begin
    truth = pairs.truth(count)
    mine, plain = pairs.generated(nets["module"], True, count), pairs.generated(nets["base"], False, count)
    # Another view of the same scene stands for the view at another azimuth.
    other = truth.roll(1, 0)
    nearer = ((mine - truth).square().flatten(1).mean(1) < (mine - other).square().flatten(1).mean(1)).float()
    same_base = all(
        torch.equal(v, nets["module"].state_dict()[k])
        for k, v in nets["base"].state_dict().items()
        if k.startswith("wan.")
    )
    return {
        "errors": {"base": base, "module": module, "wrong_camera": wrong, "control": control},
        "module_to_base": high(module) / high(base),
        "module_to_wrong_camera": high(module) / high(wrong),
        "module_to_control": high(module) / high(control),
        "low_sigma_to_base": [module[0] / base[0], module[1] / base[1]],
        "no_clean_view_to_base": float(np.mean(noisy[1]) / np.mean(noisy[0])),
        "base_unchanged": same_base,
        "psnr_true": psnr(mine, truth),
        "psnr_other": psnr(mine, other),
        "psnr_base": psnr(plain, truth),
        "true_view_nearer": float(nearer.mean()),
        "forward_with_module": with_module / without,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=ROOT / "bench" / "out" / "sync")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the steps, scenes and pairs")
    parser.add_argument("--scenes", type=float, help="share of scenes and pairs alone (default: --scale)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    share = min(1.0, max(options.scale if options.scenes is None else options.scenes, 0.05))
    work = options.work / f"{options.scale:g}-{share:g}-{options.seed}"
    dataset = work / "data"
    if not (dataset / "index").exists() and not (dataset / "dataset.json").exists():
        draw_dataset(dataset, {"train": int(128 * share) or 1, "validation": max(2, int(32 * share))})
    begin = time.monotonic()
    nets = runs(dataset, work, options.scale, options.seed)
    found = measure(nets, dataset, max(8, int(128 * share)))
    found |= {"seconds": round(time.monotonic() - begin, 1), "scale": options.scale, "scenes": share}
    found |= {"cpu_seconds": round(time.process_time(), 1), "seed": options.seed}
    for name, value in found.items():
        print(f"{name:24} {json.dumps(value)}")
    line = json.dumps(found)
    if options.out:
        options.out.write_text(line + "\n", encoding="utf-8")
    print(line)


if __name__ == "__main__":
    main()
