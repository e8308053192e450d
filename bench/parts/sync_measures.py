"""Measures of `bench/sync.py`: what a network knows of view 1 when it sees view 0."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orbit4d.model import TrainConfig
from orbit4d.model.diffusion.flow import flow_levels, flow_noised, flow_target
from orbit4d.model.encoders.autoencoders import load_autoencoder
from orbit4d.model.guided.schedules import FlowEuler
from orbit4d.model.network.cameras import view_cameras
from orbit4d.model.network.wan import OrbitWan
from orbit4d.model.sampling.views import branches_of, sample_views
from orbit4d.model.views.samples import angles_of
from orbit4d.model.views.scenes import SceneClips

SIGMAS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.97)
#: Where views can tell each other something: below, the noisy view itself tells nearly all.
HIGH = (0.7, 0.9, 0.97)
#: Degrees by which the view of another azimuth stands apart from the true one.
TURNS = (30, 60, 90, 180)
STEPS, SHIFT, ROWS = 12, 3.0, 48

#: Pixels [F, 3, h, w] in [0, 1] of a scene (its uid) from an azimuth and elevation in degrees.
Seen = Callable[[str, float, float], Tensor]


class Pairs:
    """All ordered pairs of cameras of the validation scenes, as latents with fixed noise."""

    def __init__(self, dataset: str, config: TrainConfig, seen: Seen, count: int) -> None:
        scenes = SceneClips(dataset, config, "validation")
        self.vae, self.seen = load_autoencoder(config.model.autoencoder), seen
        videos, cameras, self.ends = [], [], []
        for number in scenes.multi:
            views = range(len(scenes.scenes[number].clips))
            video = torch.stack([scenes.video(number, v) for v in views])
            c2w = np.stack([scenes.c2w(number, v) for v in views])
            azimuth, elevation = angles_of(c2w[:, 0])
            for a in views:
                for b in views:
                    if a != b:
                        videos.append(video[[a, b]])
                        cameras.append(view_cameras(c2w[[a, b]]))
                        uid = scenes.scenes[number].clips[b].uid
                        apart = abs((azimuth[b] - azimuth[a] + 180) % 360 - 180)
                        self.ends.append((uid, float(azimuth[b]), float(elevation[b]), float(apart)))
        self.x0 = self.vae.encode_video(torch.cat(videos)).unflatten(0, (-1, 2))
        self.camera = torch.stack(cameras)
        self.noise = torch.randn(self.x0.shape, generator=torch.Generator().manual_seed(5))
        # Another scene's pair: the same number, one scene on.
        per_scene = len(self.x0) // len(scenes.multi)
        self.wrong = self.camera.roll(per_scene, 0)
        self.chosen = np.linspace(0, len(self.x0) - 1, min(count, len(self.x0))).astype(int)

    @torch.no_grad()
    def error(self, net: OrbitWan, sigma: float, camera: Tensor | None, clean: bool = True) -> float:
        """Mean squared error of the velocity on view 1."""
        total = 0.0
        for i in range(0, len(self.x0), ROWS):
            x0, noise = self.x0[i : i + ROWS], self.noise[i : i + ROWS]
            x = flow_noised(x0, noise, sigma)
            if clean:
                x = torch.cat([x0[:, :1], x[:, 1:]], 1)
            known = None if camera is None else camera[i : i + ROWS].flatten(0, 1)
            out = net(x.flatten(0, 1), torch.tensor([1000 * sigma]), None, known, views=2).sample
            wrong = out.unflatten(0, (-1, 2)) - flow_target(x0, noise)
            total += float(wrong[:, 1].square().mean()) * len(x0)
        return total / len(self.x0)

    def errors(
        self, net: OrbitWan, camera: Tensor | None, sigmas: Iterable[float] = SIGMAS, clean: bool = True
    ) -> dict[str, float]:
        """E at each sigma."""
        return {str(sigma): self.error(net, sigma, camera, clean) for sigma in sigmas}

    def generated(self, net: OrbitWan, known: bool) -> Tensor:
        """View 1 of the chosen pairs in 12 Euler steps, view 0 clean, no guidance: pixels."""
        schedule, found = FlowEuler(flow_levels(STEPS, SHIFT)), []
        for i in self.chosen:

            def predict(x: Tensor, step: int, texts: Any, i: int = i) -> Tensor:
                t = torch.tensor([1000 * float(schedule.s[step])])
                return net(x, t, None, self.camera[i] if known else None, views=2).sample

            branches = branches_of(1.0, 1.0, True, text=False)
            found.append(sample_views(predict, schedule, self.noise[i], branches, self.x0[i, :1])[1])
        return self.vae.decode_video(torch.stack(found))

    def truth(self, view: int = 1) -> Tensor:
        """Pixels of a view of the chosen pairs."""
        return self.vae.decode_video(self.x0[self.chosen, view])

    def turned(self, degrees: float) -> Tensor:
        """Pixels of the scene of each chosen pair, seen from view 1's elevation at another azimuth."""
        ends = [self.ends[i] for i in self.chosen]
        return torch.stack([self.seen(uid, azimuth + degrees, up) for uid, azimuth, up, _ in ends])

    def far(self) -> np.ndarray:
        """Whether the views of a chosen pair stand more than 60 degrees apart."""
        return np.array([self.ends[i][3] > 60 for i in self.chosen])


def high(errors: dict[str, float]) -> float:
    """H: mean of E at the three high levels."""
    return float(np.mean([errors[str(sigma)] for sigma in HIGH]))


def psnr(a: Tensor, b: Tensor) -> float:
    """Of the mean squared error over all pairs."""
    return float(-10 * torch.log10((a - b).square().mean()))


def pictures(pairs: Pairs, module: OrbitWan, base: OrbitWan) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Figures of generated view 1, and the pixels they are of."""
    truth, mine, plain = pairs.truth(), pairs.generated(module, True), pairs.generated(base, False)

    def off(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().flatten(1).mean(1)

    found: dict[str, Any] = {"pairs": len(truth), "true": psnr(mine, truth), "base": psnr(plain, truth)}
    seen = {degrees: pairs.turned(degrees) for degrees in TURNS}
    for degrees, other in seen.items():
        found[f"turned_{degrees}"] = psnr(mine, other)
        found[f"nearer_than_{degrees}"] = float((off(mine, truth) < off(mine, other)).float().mean())
    far = torch.from_numpy(pairs.far())
    copy = pairs.truth(0)
    found |= {"far": int(far.sum()), "far_true": psnr(mine[far], truth[far])}
    found |= {"far_copy": psnr(copy[far], truth[far]), "white": psnr(torch.ones_like(truth), truth)}
    kept = {"reference": copy, "truth": truth, "module": mine, "base": plain, "turned_90": seen[90]}
    return found, kept


# Cost -------------------------------------------------------------------------------------------------------


def cost(net: OrbitWan, x0: Tensor, camera: Tensor, turns: int) -> dict[str, Any]:
    """CPU seconds of a forward pass and of a training step, module on and off at equal rows, in turns."""
    pairs = 12
    x = x0[:pairs].flatten(0, 1)
    known, t = camera[:pairs].flatten(0, 1), torch.full((len(x),), 700.0)

    def forward(camera: Tensor | None) -> None:
        with torch.no_grad():
            net(x, t, None, camera, views=2)

    def step(camera: Tensor | None) -> None:
        parameters = list(net.parameters()) if camera is None else net.view_parameters()
        for parameter in net.parameters():
            parameter.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)
        optimizer = torch.optim.AdamW(parameters, lr=0.0)
        net(x, t, None, camera, views=2).sample.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    found: dict[str, Any] = {"rows": len(x), "turns": turns}
    for name, work in (("forward", forward), ("step", step)):
        times: dict[str, list[float]] = {"on": [], "off": []}
        for turn in range(turns + 1):
            for key, given in (("on", known), ("off", None)):
                begin = time.process_time()
                work(given)
                if turn:
                    times[key].append(time.process_time() - begin)
        on, off = median(times["on"]), median(times["off"])
        found |= {f"{name}_on": on, f"{name}_off": off, f"{name}_ratio": on / off}
        found[f"{name}_ratios"] = sorted(a / b for a, b in zip(times["on"], times["off"]))
    return found
