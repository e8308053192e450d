"""Refinement by a prior over images: scale at the first location, then every location (C3V, 6 and 7).

The image is of everything at once, so that what stands in front decides. Gradients reach the scale and the
place of one actor alone; all Gaussians stay as they are. A coordinate that comes to its bound stops there,
and the others continue: the image has no more to say of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from orbit4d.compose.placement.facing import capped, face
from orbit4d.compose.placement.planning import Placed, Plan
from orbit4d.compose.placement.refinement import MOST_RAW, RATE, tau_of
from orbit4d.compose.placement.shooting import overview
from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.images.over import over_premultiplied
from orbit4d.model.distill.bounds import bounded
from orbit4d.model.distill.draws import draw_timesteps
from orbit4d.model.distill.estimators import gradient
from orbit4d.model.distill.two_pass import latent_gradients
from orbit4d.recon4d.composition import MOST_TURN, Part, placed, times_at_points, union
from orbit4d.recon4d.gaussians import Gaussians
from orbit4d.recon4d.scene import Scene, draw

Floats = npt.NDArray[np.float64]

#: Steps for the scale and for each location.
STEPS = (50, 20)
#: Guidance, and the share of the schedule that times are drawn from.
GUIDANCE, T_RANGE = 7.5, (0.02, 0.98)
#: Raw value at which a coordinate stops: 95.2 % of its bound.
STOP = 3.7
#: Behind the world.
SKY = (0.78, 0.87, 0.96)


@dataclass(frozen=True)
class Union:
    """One actor among everything else, drawn with a gradient to its scale and place."""

    rest: Gaussians
    actor: Gaussians
    turn: Floats
    ground: float
    camera: Camera

    def image(self, scale: Tensor, point: Tensor) -> Tensor:
        """[1, 3, h, w] on the sky; scale [] and point [3] may carry a gradient."""
        one = placed(self.actor, 1.0, self.turn, np.zeros(3), self.ground)
        moved = replace(one, means=scale * one.means + point, log_scales=one.log_scales + scale.log())
        colour, alpha, _ = draw(union([self.rest, moved]), self.camera, check=False)
        shown = over_premultiplied(colour, alpha, torch.tensor(SKY))
        return shown.permute(2, 0, 1)[None]


@dataclass(frozen=True)
class Prior:
    """A score model with its encoder and what it is given."""

    model: Any
    encode: Callable[[Tensor], Tensor]
    conditions: Any = None
    guidance: float = GUIDANCE

    def gradient(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """What score distillation (`sds`) says of latents, like them."""
        t = draw_timesteps(generator, len(z), T_RANGE, len(self.model.alphas_cumprod))
        noise = torch.randn(z.shape, generator=generator).to(z)
        return gradient("sds", z, t, noise, self.model, scale=self.guidance, conditions=self.conditions)


def settled(
    image: Callable[[Tensor], Tensor], prior: Prior, base: Floats, tau: float, steps: int, seed: int
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """(values [K], at_bound [K]): `base` changed within tau / 2 to where a prior likes the image best."""
    raw = torch.zeros(len(base), requires_grad=True)
    first = torch.as_tensor(np.asarray(base), dtype=torch.float32)
    optimiser = torch.optim.Adam([raw], lr=RATE)
    generator = torch.Generator().manual_seed(seed)
    stopped = torch.zeros(len(base), dtype=torch.bool)
    for _ in range(steps):
        optimiser.zero_grad()
        latent_gradients(
            1,
            lambda _f: image(first + bounded(raw, tau)),
            lambda shown, _noise: prior.encode(shown),
            lambda z: prior.gradient(z, generator),
        )
        held = raw.detach().clone()
        optimiser.step()
        with torch.no_grad():
            raw.clamp_(-MOST_RAW, MOST_RAW)
            raw[stopped] = held[stopped]
            stopped |= raw.abs() >= STOP
        if stopped.all():
            break
    change = bounded(raw.detach().double(), tau).numpy()
    return np.asarray(base, np.float64) + change, stopped.numpy()


def refined_by_score(
    plan: Plan, scenes: Mapping[int, Scene], priors: Mapping[int, Prior], size: int, seed: int,
    steps: tuple[int, int] | None = None, units: str = "scene",
) -> list[str]:  # fmt: skip
    """Refine every individual of a plan in place by a prior; a line for each that ended at a bound.

    scenes and priors are by actor; `units` as of `refinement.tau_of`; `size` is the side of the image in
    pixels that the priors see.
    """
    camera = _camera(plan, size)
    lines = []
    for number, one in enumerate(plan.placed):
        others = [p for k, p in enumerate(plan.placed) if k != number]
        tau = tau_of(one, units)

        def seen(seconds: float, i: int, one: Placed = one, others: list[Placed] = others) -> Union:
            rest = union([plan.stage.gaussians, *(_part(o, scenes).at(seconds) for o in others)])
            posed = _part(one, scenes)._posed(one.track.clip_seconds(seconds))
            return Union(rest, posed, one.track.turns[i], one.track.ground, camera)

        moved, bounds = _individual(one, seen, priors[one.actor], tau, steps or STEPS, seed + 1000 * number)
        _retimed(one, *moved)
        if bounds:
            lines.append(f"actor {one.actor}: at_bound after refinement ({bounds}), not beyond {tau / 2:g}")
    return lines


def _individual(
    one: Placed,
    seen: Callable[[float, int], Union],
    prior: Prior,
    tau: float,
    steps: tuple[int, int],
    seed: int,
) -> tuple[tuple[float, Floats], str]:
    """((scale, points [N, 3]), what ended at a bound in words)."""
    track = one.track
    times = times_at_points(track)
    first, place = seen(times[0], 0), torch.as_tensor(track.points[0], dtype=torch.float32)
    found, at = settled(
        lambda v: first.image(v[0], place), prior, np.array([track.scale]), tau, steps[0], seed
    )
    scale, count = float(found[0]), 0
    size = torch.tensor(scale, dtype=torch.float32)
    points = track.points.copy()
    still = not one.going
    for i in range(1 if still else len(points)):
        view = seen(times[i], i)

        def image(v: Tensor, view: Union = view) -> Tensor:
            return view.image(size, v)

        points[i], stopped = settled(image, prior, track.points[i], tau, steps[1], seed + 1 + i)
        count += bool(stopped.any())
    if still:
        points[:] = points[0]
    words = [f"{count} of {len(points)} locations"] * (count > 0) + ["scale"] * bool(at[0])
    return (scale, points), ", ".join(words)


def _retimed(one: Placed, scale: float, points: Floats) -> None:
    """Take a scale and points; the time follows, so that the pace stays."""
    ratio = scale / one.track.scale
    moved = replace(one.track, scale=scale, points=points, stride=one.track.stride * ratio)
    if one.going and moved.length > 0:
        gait = one.cast.clip.gait
        forward = tuple(gait["forward"]) if gait["usable"] else (0.0, -1.0, 0.0)
        turns = capped(face(points, forward), points, one.speed, MOST_TURN)
        moved = replace(moved, turns=turns, end=moved.begin + moved.length / one.speed + moved.ease)
    one.track = moved


def _part(one: Placed, scenes: Mapping[int, Scene]) -> Part:
    return Part("", scenes[one.actor], one.track, one.cast.clip.action)


def _camera(plan: Plan, size: int) -> Camera:
    """A camera in front that holds everybody on every way."""
    reach = max(max(*one.cast.half, one.cast.metres) for one in plan.placed)
    points = np.concatenate([one.track.points for one in plan.placed])
    low, high = points.min(axis=0) - [reach, reach, 0], points.max(axis=0) + reach
    return overview(low, high, 10.0, size)
