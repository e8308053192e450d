"""`orbit4d novel-view`: images with cameras and depth in, the frames that other cameras would see out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from orbit4d.compose.completion.depths import estimated
from orbit4d.compose.completion.inputs import Given, read_inputs
from orbit4d.compose.completion.routes import STILL, Asked, Route, route, start_camera
from orbit4d.compose.completion.seen import Sight, sight
from orbit4d.compose.completion.weights import Table, weight_table
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.progress import Progress
from orbit4d.model.guided.models.video_model import VideoModel
from orbit4d.model.guided.modes import Settings
from orbit4d.model.guided.sampler import MODES, Guide
from orbit4d.model.guided.warp import Rule


@dataclass(frozen=True)
class Request:
    """Options of one call."""

    inputs: tuple[str, ...]
    model: str
    cameras: Path | None = None
    depth: Path | None = None
    depth_scale: float = 0.001
    """Units of a 16-bit .png value."""
    depth_model: str = ""
    depth_centre: float | None = None
    path: str = ""
    """Empty: `orbit` for one image, `between` for several, `dynamic_orbit` for a video."""
    frames: int | None = None
    size: tuple[int, int] | None = None
    elevation_deg: float | None = None
    radius: float | None = None
    fov_x_deg: float | None = None
    mode: str = "dgs"
    schedule: str = ""
    """Empty: the model's default."""
    v: str = ""
    steps: int | None = None
    seed: int = 0
    warp: Rule = "ours"
    z: str = "hard"
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True)
class Made:
    """A finished novel view, not yet written."""

    frames: np.ndarray[Any, Any]
    """uint8 [F, H, W, 3]"""
    route: Route
    sight: Sight
    background: tuple[int, int, int]
    report: dict[str, Any]


class Clock:
    """Seconds of named stages; each is said when it ends."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, known: str = "") -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - begun, 3)
        if known:
            print(f"{known} ({self.seconds[name]:.1f} s)")


def make(request: Request, model: VideoModel | None = None, given: Given | None = None) -> Made:
    """Sample the frames of a request. InputError, one line, for what does not fit; nothing is written."""
    if request.mode not in MODES:
        raise InputError(f"--mode {request.mode}: choose from {', '.join(MODES)}")
    clock = Clock()
    with clock.stage("loading"):
        if model is None:
            from orbit4d.model.sampling.guided_orbit import load_video_model

            model = load_video_model(request.model)
        asked, given = prepared(request, model, given)
    given, depth_about = with_depth(request, given, clock)
    way = route(asked, given)
    model.check(asked.frames, asked.size, way.cameras)
    per_frame = given.video and asked.path.partition(":")[0] not in STILL
    with clock.stage("warp", f"warped {asked.frames} frames of {asked.size[0]}x{asked.size[1]}"):
        seen = sight(
            given, way, per_frame, model.scale, model.temporal, model.background, request.warp,
            request.z == "soft",
        )  # fmt: skip
    steps = request.steps or model.steps
    table = weight_table(
        "none" if request.mode == "none" else request.schedule,
        request.v, model.levels(steps, asked.size), seen.latent_distances, model.kind,
    )  # fmt: skip
    with clock.stage("encoding", "encoded the warp"):
        warp = model.encode(seen.frames)
    guide = Guide(
        warp, torch.from_numpy(seen.latent_seen)[None, None], table.weights, _mode(request.mode),
        released_numbers(request.settings, given, model.scale),
    )  # fmt: skip
    frames = _sampled(model, seen, way, guide, steps, request.seed, clock)
    alpha = _alpha(given, seen, model.background)
    report = _report(request, model, asked, seen, table, guide, clock, steps) | depth_about
    report["alpha"] = alpha
    _say(seen, asked.frames, steps, clock)
    return Made(frames, way, seen, model.background, report)


def released_numbers(settings: Settings, given: Given, scale: int) -> Settings:
    """What the released code sets by the kind of its input, and pixels as latents.

    For a video or two views its lower tiles begin further up; its least weight is 0.2 for one image, 0.6 for
    a video, 0.4 for several views.
    """
    several = len(given.views) > 1
    return replace(
        settings, tile_row=24 if several else 32, soften=settings.soften / scale,
        clamp=0.6 if several and given.video else 0.4 if several else settings.clamp,
    )  # fmt: skip


def prepared(request: Request, model: VideoModel, given: Given | None) -> tuple[Asked, Given]:
    """The options of the path, and the inputs with a camera each."""
    if given is None:
        given = read_inputs(request.inputs, request.cameras, request.path)
    path = request.path or (
        "dynamic_orbit" if given.video else "between" if len(given.views) > 1 else "orbit"
    )
    frames = request.frames or model.frames
    if path.lower().endswith(".json") and request.frames is None and model.kind == "wan":
        from orbit4d.datasets.cameras.transforms import read_transforms

        frames = len(read_transforms(Path(path)))
    size = request.size or model.size
    asked = Asked(path, frames, size, request.elevation_deg, request.radius, request.fov_x_deg)
    model_check_size(asked, model)
    views = given.views
    if given.video and path.partition(":")[0] not in STILL:
        if len(views) < frames:
            raise InputError(
                f"{views[0].name}: {len(views)} frames for a path of {frames} on which time runs; give a "
                f"longer video, or a path on which it stands ({', '.join(STILL[:3])})"
            )
        chosen = np.linspace(0, len(views) - 1, frames).round().astype(int)
        views = tuple(views[i] for i in chosen)
    elif given.video:
        views = views[:1]
    posed = tuple(
        view if view.camera is not None else replace(view, camera=start_camera(asked, view.size))
        for view in views
    )
    return asked, replace(given, views=posed)


def model_check_size(asked: Asked, model: VideoModel) -> None:
    """Numbers that no path makes fit, before anything is read or computed."""
    from orbit4d.model.guided.models.video_model import check_size

    if min(asked.size) < model.factor:
        raise InputError(f"--size {asked.size[0]}x{asked.size[1]}: too small for this model")
    check_size(asked.size, model.factor)


def with_depth(request: Request, given: Given, clock: Clock) -> tuple[Given, dict[str, Any]]:
    """The inputs with depth each, and what the report says of it."""
    views = given.views
    if request.depth is not None and request.depth_model:
        raise InputError("--depth and --depth-model: give one of them")
    with clock.stage("depth"):
        if request.depth is not None:
            from orbit4d.model.guided.depth.files import read_depths

            maps = read_depths(request.depth, [view.size for view in views], request.depth_scale)
            about = {"depth": "files"}
        elif request.depth_model:
            maps, about = estimated(request, given)
        elif views[0].depth is not None:
            maps = [view.depth for view in views if view.depth is not None]
            about = {"depth": "scene" if given.scene else "pass"}
        else:
            raise InputError(
                f"{views[0].name}: no depth; give --depth FILE, or --depth-model NAME (Depth Anything, which "
                "guesses the scale)"
            )
    from orbit4d.model.guided.depth.files import checked

    filled = tuple(replace(view, depth=depth) for view, depth in zip(views, maps))
    for view in filled:
        checked(view.solid_depth, view.name)
    return replace(given, views=filled), about


def _mode(name: str) -> Any:
    return "dgs" if name == "none" else name


def _sampled(
    model: VideoModel, seen: Sight, way: Route, guide: Guide, steps: int, seed: int, clock: Clock
) -> Any:
    if guide.mode in ("posterior", "exact-likelihood") and model.kind != "orbit4d":
        print(f"note: --mode {guide.mode} keeps a whole pass of the network in memory for its gradient")
    with clock.stage("sampling"), Progress("sample", steps, "step") as progress:
        latents = model.sample(seen.frames[0], way.cameras, guide, steps, seed, lambda i: progress.update())
    with clock.stage("decoding", f"decoded {len(way.cameras)} frames"):
        if not torch.isfinite(latents).all():
            raise InputError("the model's latents are not finite; give another --mode, --schedule or --seed")
        return model.decode(latents)


def _report(
    request: Request, model: VideoModel, asked: Asked, seen: Sight, table: Table, guide: Guide,
    clock: Clock, steps: int,
) -> dict[str, Any]:  # fmt: skip
    from importlib.metadata import version

    return {
        "versions": {name: version(name) for name in ("orbit4d", "torch", "diffusers")},
        "model": request.model,
        "kind": model.kind,
        "prior": model.prior,
        "licence": model.licence,
        "mode": request.mode,
        **table.as_report(),
        "settings": {k: getattr(guide.settings, k) for k in ("iterations", "lr", "clamp", "omega", "until")}
        | {"soften_px": request.settings.soften},
        "path": asked.path,
        "size": list(asked.size),
        "steps": steps,
        "seed": request.seed,
        "warp": request.warp,
        "z": request.z,
        "distance_rule": "centres and axes" if request.warp == "ours" else "as released",
        "sigmas": [float(x) if np.isfinite(x) else None for x in model.levels(steps, asked.size)],
        "distances": [round(float(d), 6) for d in seen.latent_distances],
        "lambda": np.round(table.weights, 6).tolist(),
        "seen_pixels": [round(float(frame.mean()), 6) for frame in seen.seen],
        "seen_latents": [round(float(frame.mean()), 6) for frame in seen.latent_seen],
        "given": list(seen.given),
        "channels_left_out": {str(step): channels for step, channels in guide.left_out},
        "evaluations": sum(guide.evaluations),
        "seconds": clock.seconds | {"per_step": round(clock.seconds["sampling"] / steps, 4)},
        "peak_memory_bytes": _peak(),
    }


def _peak() -> int:
    import resource

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _alpha(given: Given, seen: Sight, background: tuple[int, int, int]) -> dict[str, Any] | None:
    """What became of an alpha channel of the inputs; None where they have none."""
    if not any(view.alpha is not None for view in given.views):
        return None
    behind, how = ",".join(map(str, background)), "is warped with the colours"
    if seen.alpha is None:
        how = "is composed with them before the warp, as released"
    print(f"note: the input's alpha {how}; the model sees and makes opaque frames on {behind}")
    warp = "none" if seen.alpha is None else "premultiplied RGBA"
    return {"warp": warp, "composed_on": list(background), "frames": "opaque"}


def _say(seen: Sight, frames: int, steps: int, clock: Clock) -> None:
    shares = [100 * float(frame.mean()) for frame, given in zip(seen.seen, seen.given) if not given]
    span = f"{max(shares):.0f} % .. {min(shares):.0f} %" if shares else "100 %"
    print(f"seen {span}, {frames} frames, {steps} steps in {clock.seconds['sampling']:.1f} s")


#: Rules of the warp, for the command's options.
RULES = get_args(Rule)
