"""One step of each stage: what is drawn, who is asked, what is updated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orbit4d.compose.animate.sampling import View, clip_times, draw_clip_views, draw_view, side_of
from orbit4d.compose.animate.settings import Settings
from orbit4d.compose.animate.stages.asking import Answer, Slot, ask, learn_still
from orbit4d.compose.animate.stages.drawing import (
    Frame,
    Looks,
    draw_frames,
    image_gradients,
    on_background,
    pull_frames,
)
from orbit4d.compose.animate.stages.state import State, trains_canonical
from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import WorkError
from orbit4d.recon4d.gaussians import Gaussians
from orbit4d.recon4d.scene import Placed, place

#: Steps between two times that moved centres are skinned again.
REBIND_EVERY = 250


@dataclass
class Told:
    """What stays the same for all steps of a run."""

    settings: Settings
    slots: dict[str, Slot]
    reference: Tensor | None
    """RGBA of the reference view, premultiplied, [H, W, 4]."""
    reference_view: View
    prompts: dict[str, str] = field(default_factory=dict)
    """By stage, and "negative"."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    orbit: tuple[View, ...] = ()
    """Views of a prior that knows no others: a run's own orbit."""
    background: Tensor | None = None
    """The one colour [3] that a run was trained on, which its priors are shown; else one drawn each step."""


@dataclass(frozen=True)
class Seen:
    """The views of a step's frames, as priors and as the rasteriser take them."""

    views: tuple[View, ...]
    cameras: tuple[Camera, ...]
    placed: tuple[Placed, ...]

    @classmethod
    def of(cls, views: Sequence[View], size: int, given: Told) -> Seen:
        """Square views of `size` pixels; a view that stands still is converted once."""
        made: dict[View, tuple[Camera, Placed]] = {}
        for view in views:
            if view not in made:
                camera = view.camera(size, given.settings.rig.fov)
                made[view] = (camera, place(camera, given.device))
        both = [made[view] for view in views]
        return cls(tuple(views), tuple(c for c, _ in both), tuple(p for _, p in both))

    def only(self, frames: Sequence[int]) -> Seen:
        """Some of the frames."""
        parts = (self.views, self.cameras, self.placed)
        return Seen(*(tuple(part[i] for i in frames) for part in parts))  # type: ignore[arg-type]


@dataclass
class Step:
    """What a step did, for log and images."""

    kind: str
    answers: dict[str, tuple[Answer, Tensor]] = field(default_factory=dict)
    """By slot: what was said, of which images [N, 3, h, w]."""
    numbers: dict[str, float] = field(default_factory=dict)


def take_step(state: State, given: Told, steps: int) -> Step:
    """One update of a stage of `steps` steps. WorkError where a parameter stops being a number."""
    settings = given.settings
    progress = state.step / max(steps - 1, 1)
    for group in state.adam.groups.values():
        group.rate = group.base * settings.final**progress
    for leaves in state.adam.leaves.values():
        for leaf in leaves:
            leaf.grad = None
    with state.clock.on("step"):
        at_reference = _looks_at_reference(state, settings) and given.reference is not None
        if at_reference:
            done = _reference_step(state, given)
        elif state.stage == "static":
            done = _static_step(state, given)
        else:
            done = _clip_step(state, given, progress)
        _update(state, settings)
        state.step += 1
        moved = trains_canonical(state.stage, settings) and state.stage != "static"
        if moved and (state.step % REBIND_EVERY == 0 or state.step == steps):
            state.field.bind(state.gaussians.means.detach())
    if not math.isfinite(float(state.adam.values.sum())):
        raise WorkError(
            f"animate: a parameter is no number any more at {state.stage} step {state.step} ({done.kind}: "
            f"{', '.join(done.answers) or 'reference'}); lower --lambda or try another --seed"
        )
    return done


def _looks_at_reference(state: State, settings: Settings) -> bool:
    given = settings.reference
    if state.stage == "static":
        return state.step < given.first or (given.every > 0 and state.step % given.every == 0)
    return given.in_motion > 0 and state.step % given.in_motion == 0


def _update(state: State, settings: Settings) -> None:
    row, names = state.adam.row(0), list(state.adam.groups)
    for name in names:
        state.adam.put(row, name, [leaf.grad for leaf in state.adam.leaves[name]])
    if settings.clip_value and state.stage != "static":
        row.clamp_(-settings.clip_value, settings.clip_value)
    state.adam.step(1, names)


def _reference_step(state: State, given: Told) -> Step:
    """Compare the view of the reference at time 0 with its image."""
    settings, wanted = given.settings, given.reference
    assert wanted is not None
    view = given.reference_view
    if settings.reference.jitter:
        off = torch.randn(3, generator=state.generator) * settings.reference.jitter
        view = View(
            view.elevation + math.degrees(float(off[0])),
            view.azimuth + math.degrees(float(off[1])),
            view.radius + float(off[2]),
        )
    background = torch.rand(3, generator=state.generator).to(wanted)
    frames = _drawn(state, given, [0.0], Seen.of([view], len(wanted), given))
    frame = frames[0]
    color, alpha = frame.color.detach(), frame.alpha.detach()
    off_alpha = alpha - wanted[..., 3:]
    mask = wanted[..., 3:] if settings.reference.masked else torch.ones_like(off_alpha)
    behind = torch.zeros_like(background) if settings.reference.masked else background
    off_rgb = (color - wanted[..., :3] - off_alpha * behind) * mask
    pull = 2 * settings.reference.rgb / off_rgb.numel() * off_rgb * mask
    pull_alpha = 2 * settings.reference.alpha / off_alpha.numel() * off_alpha
    pull_alpha = pull_alpha - (pull * behind).sum(-1, keepdim=True)
    penalty = _penalty(state, settings, [0.0])
    pull_frames(frames, pull[None], pull_alpha[None], state.clock, penalty)
    return Step("reference", numbers={"mse": float(off_rgb.square().mean())})


def _static_step(state: State, given: Told) -> Step:
    """Ask the priors of still objects about one view."""
    settings = given.settings
    view = draw_view(state.rng, settings.rig)
    background = _background(state, given)
    # A prior of clips in the slot of still objects sees a whole orbit at once.
    around = given.orbit if "3d" in given.slots and given.slots["3d"].is_clip else ()
    seen = Seen.of(around or [view], settings.resolution, given)
    times = [0.0] * len(seen.views)
    frames = _drawn(state, given, times, seen)
    images = on_background(frames, background)
    done, total = Step("priors"), torch.zeros_like(images)
    for name in ("2d", "3d"):
        if name in given.slots:
            named = _named(given, "static", seen, times, False, background)
            answer = _asked(state, given, name, images, named, None if around else view)
            done.answers[name] = (answer, images)
            total += answer.gradient
    pull_frames(frames, *image_gradients(total, background), state.clock)
    return done


def _clip_step(state: State, given: Told, progress: float) -> Step:
    """Ask the video prior about a clip, the view prior about the first frame of a start clip, and in refine
    the tile prior about a few frames."""
    settings, refine = given.settings, state.stage == "refine"
    times, starts = clip_times(
        state.rng, settings.frames, settings.precision, settings.zero_rate, settings.mirror
    )
    views, moving = draw_clip_views(state.rng, settings.rig, settings.frames)
    if given.orbit and given.slots["video"].is_orbit:
        views, moving, starts = list(given.orbit), True, False
        times = np.linspace(0.0, 1.0, len(views))
    background = _background(state, given)
    size = settings.resolution if refine else _size(settings, progress)
    seen = Seen.of(views, size, given)
    frames = _drawn(state, given, times.tolist(), seen)
    images = on_background(frames, background)
    # In refine too: the words of refine are the tile prior's, which may know a learned one.
    named = _named(given, "motion", seen, times.tolist(), moving, background)
    done, total = Step("clip", numbers={"size": float(size)}), torch.zeros_like(images)
    if "video" in given.slots:
        still = None
        if given.slots["video"].asked.estimator == "msd":
            _know_still(state, given)
            still = _held_still(state, given, seen, background)
        answer = _asked(state, given, "video", images, named, None, still)
        done.answers["video"] = (answer, images)
        total += answer.gradient
    if starts and "3d" in given.slots:
        first = _named(given, "motion", seen.only([0]), [0.0], moving, background)
        answer = _asked(state, given, "3d", images[:1], first, views[0])
        done.answers["3d"] = (answer, images[:1])
        total[:1] += answer.gradient
    if refine and "tile" in given.slots and given.slots["tile"].asked.weight > 0:
        _ask_tile(state, given, (images, times.tolist(), seen, background), total, done)
    colors, alphas = image_gradients(total, background)
    if settings.opacity_entropy:
        alphas = alphas + _entropy_pull(frames, settings, state)
    pull_frames(frames, colors, alphas, state.clock, _penalty(state, settings, times.tolist()))
    return done


def _held_still(state: State, given: Told, seen: Seen, background: Tensor) -> Tensor:
    """Frames of a clip's cameras at the canonical time."""
    frames = _drawn(state, given, [0.0] * len(seen.views), seen, False)
    return on_background(frames, background)


def _know_still(state: State, given: Told) -> None:
    """Before the first step of `msd`: its copy of the prior learns this object held still."""
    slot, settings = given.slots["video"], given.settings
    if slot.copy is None or slot.copy.steps:
        return
    for _ in range(settings.lora.first):
        views, moving = draw_clip_views(state.rng, settings.rig, settings.frames)
        if given.orbit and slot.is_orbit:
            views, moving = list(given.orbit), True
        background = _background(state, given)
        seen = Seen.of(views, settings.resolution, given)
        named = _named(given, "motion", seen, [0.0] * len(views), moving, background)
        still = _held_still(state, given, seen, background)
        with state.clock.on("prior"):
            learn_still(slot, still, named, state.generator)


def _background(state: State, given: Told) -> Tensor:
    """The colour behind what priors see. Other than its own, a run answers with a wall of that colour."""
    drawn = torch.rand(3, generator=state.generator)
    return (drawn if given.background is None else given.background).to(given.device)


def _ask_tile(state: State, given: Told, clip: Any, total: Tensor, done: Step) -> None:
    """Add the tile prior's gradient of a few frames to `total`; conditions come from the frozen copy."""
    images, times, whole, background = clip
    settings, frozen = given.settings, state.frozen
    assert frozen is not None
    n = min(settings.tile_frames, len(times))
    chosen = [i * len(times) // n for i in range(n)] if settings.tile_even else sorted(
        state.rng.sample(range(len(times)), n)
    )  # fmt: skip
    at, seen = [times[i] for i in chosen], whole.only(chosen)
    with torch.no_grad():
        looks = Looks(frozen.gaussians)
        posed = [looks.posed(frozen.field.move(frozen.gaussians, t)) for t in at]
        frames = draw_frames(posed, seen.placed, settings.eps2d, state.clock, graph=False)
    slot = given.slots["tile"]
    # A prior that knows the background weighs structure on white; others see what is drawn.
    behind = torch.ones_like(background) if "background" in slot.model.takes else background
    named = _named(given, "refine", seen, at, False, background)
    named["control"] = on_background(frames, behind).clamp(0, 1)
    answer = _asked(state, given, "tile", images[chosen], named, None)
    done.answers["tile"] = (answer, images[chosen])
    total[chosen] += answer.gradient


def _asked(
    state: State, given: Told, name: str, images: Tensor, named: dict[str, Any], view: View | None,
    still: Tensor | None = None,
) -> Answer:  # fmt: skip
    slot, factor = given.slots[name], 1.0
    if slot.asked.by_angle and view is not None:
        factor = view.angle_to(given.reference_view) / 180.0
    with state.clock.on("prior"):
        return ask(slot, images, named, state.generator, given.settings.scaling, factor, still)


def _named(
    given: Told, stage: str, seen: Seen, times: list[float], moving: bool, background: Tensor
) -> dict[str, Any]:
    """All that priors may be given for a step."""
    reference = given.reference
    prompt = given.prompts.get(stage) or None
    if prompt is not None and not moving and stage != "refine":
        prompt = f"{prompt}, {side_of(seen.views[0])}"
    white = None
    if reference is not None:
        white = (reference[..., :3] + (1 - reference[..., 3:])).clamp(0, 1).permute(2, 0, 1)
    return {
        "prompt": prompt,
        "still_prompt": given.prompts.get("static") or None,
        "negative": given.prompts.get("negative", ""),
        "reference": white,
        "reference_camera": given.reference_view.as_tuple(),
        "camera": torch.tensor([view.as_tuple() for view in seen.views]),
        "cameras": list(seen.cameras),
        "times": times,
        "background": background,
    }


def _drawn(state: State, given: Told, times: list[float], seen: Seen, graph: bool = True) -> list[Frame]:
    """Frames of the scene as it stands, at times [F]."""
    g: Gaussians = state.gaussians
    with torch.set_grad_enabled(graph):
        looks = Looks(g)
        if state.stage == "static":
            posed = [looks.posed(g) for _ in times]
        else:
            posed = [looks.posed(state.field.move(g, t)) for t in times]
    return draw_frames(posed, seen.placed, given.settings.eps2d, state.clock, graph)


def _size(settings: Settings, progress: float) -> int:
    """Edge of the images at a share of the motion stage."""
    reached, edge = 0.0, 1.0
    for share, edge in settings.sizes:  # noqa: B007  # the last one holds to the end
        reached += share
        if progress < reached - 1e-9:
            break
    return max(8, round(settings.resolution * edge))


def _penalty(state: State, settings: Settings, times: list[float]) -> Tensor | None:
    """Penalties on the field, around one time of the clip in turn."""
    if state.stage == "static" or state.step % settings.regularise_every:
        return None
    time = times[state.step // settings.regularise_every % len(times)]
    terms = state.field.regularisers(time, 1 / max(settings.n_keys - 1, 1))
    weights = {"time_tv": settings.time_tv, "rigidity": settings.rigidity}
    often = settings.regularise_every
    due = [often * weights[name] * term for name, term in terms.items() if weights.get(name)]
    return torch.stack(due).sum() if due else None


def _entropy_pull(frames: list[Frame], settings: Settings, state: State) -> Tensor:
    """Gradient of the mean binary entropy of the drawn alphas, growing over the first half of a stage."""
    total = settings.steps[1 if state.stage == "motion" else 2]
    weight = settings.opacity_entropy * min(1.0, 2 * state.step / max(total, 1))
    alpha = torch.stack([frame.alpha.detach() for frame in frames]).clamp(1e-3, 1 - 1e-3)
    pull = -torch.log2(alpha / (1 - alpha))
    return pull * (weight / alpha.numel()) if np.isfinite(weight) else torch.zeros_like(pull)
