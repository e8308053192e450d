"""`orbit4d multicam`: a text (and one video) and V cameras in, V videos of one moving scene out.

    DIR/views/cam01.mp4 ...              one video per camera, in the order asked for
    DIR/views/cam01/000.png ...          their frames
    DIR/views/transforms.json            a camera, a time and a label for each (camera, frame)
    DIR/views/camera_extrinsics.json     the cameras as SynCamVideo of 2025 stores them
    DIR/multicam.json                    settings, seed, cameras, hash of the weights, versions, seconds

Further samples are DIR-1, DIR-2, ... A folder appears when it is whole.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from orbit4d.datasets.cameras.transforms import frame_record
from orbit4d.datasets.cameras.unreal import from_c2w, matrix_text
from orbit4d.datasets.core.atomic import replacing_folder, write_json
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.remote import local_path, named, refuse_taken
from orbit4d.model.sampling.camera_choice import LENS_MM, ChosenCamera, choose_cameras, numbered

Videos = npt.NDArray[np.uint8]
#: Fewest frames of a reference.
FEWEST = 5


@dataclass(frozen=True)
class MulticamRequest:
    """What to generate; None: what the model, or the reference, has."""

    rig: str = ""
    cameras: str = ""
    pick: str = ""
    text: str = ""
    negative: str | None = None
    reference: str = ""
    views_checkpoint: str = ""
    frames: int | None = None
    size: tuple[int, int] | None = None
    """(width, height)"""
    fps: float | None = None
    steps: int | None = None
    shift: float | None = None
    guidance: float | None = None
    """Default 5, with a reference 7.5."""
    view_guidance: float = 1.8
    motion: str = "none"
    seed: int = 0
    samples: int = 1
    metres_per_unit: float | None = None
    branches: str = "auto"
    """Branches of guidance in one batch: auto, 1, 2 or 3."""
    write_frames: bool = True


def multicam(run: str, out: str, request: MulticamRequest) -> list[Path]:
    """Write a folder per sample and return their paths. InputError, one line, for what does not fit."""
    import torch

    from orbit4d.model.sampling.pipeline import memory_answered
    from orbit4d.model.sampling.views_model import ViewsModel

    begin = time.monotonic()
    targets = output_folders(out, request.samples)
    model = ViewsModel.load(run, request.views_checkpoint)
    reference, clock = open_reference(model, request)
    chosen = choose_cameras(
        request.rig, request.cameras, request.pick, clock.frames, clock.size, request.seed, clock.metres
    )
    check_request(model, request)
    for note in notes_of(model, request, chosen):
        print(f"note: {note}", flush=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with memory_answered():
        torch.nn.Module.to(model.network, device)
        if device.type == "cuda":
            half_weights(model.network)
        model.frozen.to(device)
        for k, target in enumerate(targets):
            videos = sample_one(model, request, clock, chosen, reference, k)
            about = {
                "model": named(run),
                "weights": model.weights_hash(),
                "settings": named(asdict(request)) | asdict(clock),
                "seed": request.seed + k,
                "cameras_m": cameras_in_metres(chosen, clock.metres),
                "orbit4d": version("orbit4d"),
                "torch": torch.__version__,
                "seconds": round(time.monotonic() - begin, 2),
            }
            write_views(target, videos, chosen, clock, about, request.write_frames)
    return targets


def half_weights(network: Any) -> None:
    """bf16 weights, but for what diffusers keeps in float32 (norms, tables, time embedding), in place."""
    import torch

    kept = network._keep_in_fp32_modules or []
    for name, parameter in network.named_parameters():
        if not any(part in name for part in kept):
            parameter.data = parameter.data.to(torch.bfloat16)


@dataclass(frozen=True)
class Clock:
    """What all views share."""

    frames: int
    size: tuple[int, int]
    """(width, height)"""
    fps: float
    metres: float
    """Metres that a unit stands for."""


def output_folders(out: str, samples: int) -> list[Path]:
    """DIR, DIR-1, ...; InputError where one is taken."""
    if samples < 1:
        raise InputError(f"--samples {samples}: give at least 1")
    first = local_path(out)
    folders = [first, *(first.with_name(f"{first.name}-{k}") for k in range(1, samples))]
    for folder in folders:
        refuse_taken(folder)
    return folders


def open_reference(model: Any, request: MulticamRequest) -> tuple[Videos | None, Clock]:
    """The reference's frames [F, H, W, 3] at the working size, and frames, size and rate of all views."""
    from orbit4d.datasets.videos.video import read_video

    record = model.record
    metres = request.metres_per_unit or record.metres_per_unit
    if not request.reference:
        clock = Clock(
            request.frames or record.frames, request.size or record.size, request.fps or record.fps, metres
        )
        check_clock(model, clock)
        return None, clock
    video = read_video(request.reference)
    frames = video.frames[..., :3]
    count = len(frames)
    fps = request.fps or record.fps
    if count > 1:
        fps = round(float((count - 1) / video.seconds[-1]), 3)
    asked = (request.frames or count, request.fps or fps)
    if asked[0] != count or abs(asked[1] - fps) > 0.01 * fps:
        raise InputError(
            f"--reference {request.reference}: has {count} frames at {fps:g} fps; --frames {asked[0]} --fps "
            f"{asked[1]:g} asked: trim it or leave both out"
        )
    if count < FEWEST:
        raise InputError(f"--reference {request.reference}: has {count} frames; give {FEWEST} or more")
    size = request.size or (frames.shape[2], frames.shape[1])
    clock = Clock(count, size, fps, metres)
    check_clock(model, clock)
    if size != (frames.shape[2], frames.shape[1]):
        if size[0] * frames.shape[1] != size[1] * frames.shape[2]:
            raise InputError(
                f"--size {size[0]}x{size[1]}: the reference is {frames.shape[2]}x{frames.shape[1]}: another "
                "shape; crop it or leave --size out"
            )
        frames = np.stack([np.asarray(Image.fromarray(f).resize(size, Image.Resampling.BOX)) for f in frames])
    return frames, clock


def check_clock(model: Any, clock: Clock) -> None:
    """InputError for frames or edges that the model does not take, with the nearest right values."""
    stride, multiple = model.stride, model.multiple
    if clock.frames < 1 or (clock.frames - 1) % stride:
        low = max(0, (clock.frames - 1) // stride) * stride + 1
        raise InputError(f"{clock.frames} frames: give {stride}n + 1, such as {low} or {low + stride}")
    for edge in clock.size:
        if edge < multiple or edge % multiple:
            low = max(multiple, edge // multiple * multiple)
            width, height = clock.size
            raise InputError(
                f"size {width}x{height}: edges are multiples of {multiple}, such as {low} or {low + multiple}"
            )


def check_request(model: Any, request: MulticamRequest) -> None:
    """InputError for a condition that the model does not know."""
    if (request.text or request.negative) and not model.takes_text:
        raise InputError(f"--text: {model.source} knows no captions; leave it out")
    if not request.text and model.takes_text:
        raise InputError("give --text, the caption of all views")
    if request.motion != "none" and not model.takes_motion:
        raise InputError(f"--motion: {model.source} knows no motion magnitude; leave it out")


def notes_of(model: Any, request: MulticamRequest, chosen: Sequence[ChosenCamera]) -> list[str]:
    """What a user should know of the result."""
    notes = []
    if request.reference and not model.record.reference:
        notes.append("these weights were trained without a reference view: it is followed only roughly")
    if not model.record.hashes:
        camera = chosen[0].cameras[0]
        from orbit4d.datasets.cameras.unreal import lens_of

        lens = lens_of(camera.fl_x, (camera.w, camera.h))
        if abs(lens / LENS_MM - 1) > 0.02:
            notes.append(
                f"a lens of {lens:.1f} mm: the released network is given no lens and knows {LENS_MM:g} mm"
            )
        if len(chosen) > model.record.views:
            notes.append(f"{len(chosen)} views: the released network was trained with {model.record.views}")
    return notes


def sample_one(
    model: Any,
    request: MulticamRequest,
    clock: Clock,
    chosen: Sequence[ChosenCamera],
    reference: Videos | None,
    k: int,
) -> Videos:
    """Frames [V, F, H, W, 3] of sample k; view 0 is the reference itself where there is one."""
    import torch

    from orbit4d.datasets.core.progress import Progress
    from orbit4d.model.network.cameras import latent_frames, view_cameras
    from orbit4d.model.sampling.views import branches_of, sample_views

    frozen, device = model.frozen, next(model.network.parameters()).device
    places = latent_frames(clock.frames, model.stride)
    c2w = np.array([[one.cameras[i].c2w for i in places] for one in chosen])
    steps = request.steps or model.record.steps
    schedule = model.schedule(steps, request.shift or model.record.shift)
    tokens: dict[str, Any] = {}
    if model.takes_text:
        before, behind = model.record.caption_affixes
        negative = model.negative if request.negative is None else request.negative
        rows = frozen.tokens([f"{before}{request.text}{behind}", negative])
        tokens = {"positive": rows[0], "negative": rows[1]}
    motion = model.motion_statistics.parse(request.motion)
    predict = model.predictor(schedule, view_cameras(c2w, clock.metres), motion=motion, **tokens)
    clean = None
    if reference is not None:
        pixels = torch.from_numpy(np.ascontiguousarray(reference)).permute(0, 3, 1, 2).float() / 255
        clean = frozen.to_latents(pixels[None], device)
    factor = frozen.autoencoder.factor
    shape = (
        len(chosen),
        frozen.latent_channels,
        len(places),
        clock.size[1] // factor,
        clock.size[0] // factor,
    )
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(request.seed + k)).to(device)
    scale = request.guidance if request.guidance is not None else (5.0 if reference is None else 7.5)
    branches = branches_of(scale, request.view_guidance, reference is not None, bool(tokens))
    together = None if request.branches == "auto" else min(int(request.branches), len(branches))
    with Progress(f"multicam {k + 1}/{request.samples}", steps, "step") as progress:
        latents = sample_views(
            predict, schedule, noise, branches, clean, together, lambda step, x: progress.update()
        )
    videos = [frozen.to_pixels(latents[i : i + 1])[0] for i in range(len(chosen))]
    found = np.stack([(v * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy() for v in videos])
    if reference is not None:
        found[0] = reference
    return found


# Out --------------------------------------------------------------------------------------------------------


def write_views(
    folder: Path,
    videos: Videos,
    chosen: Sequence[ChosenCamera],
    clock: Clock,
    about: dict[str, Any],
    frames: bool = True,
) -> None:
    """Frames [V, F, H, W, 3] and their cameras as DIR. InputError where it cannot be written."""
    from orbit4d.datasets.videos.video import write_video

    try:
        with replacing_folder(folder) as draft:
            views = draft / "views"
            views.mkdir()
            for place, video in enumerate(videos):
                write_video(views / f"{numbered(place)}.mp4", video, clock.fps)
                if frames:
                    (views / numbered(place)).mkdir()
                    for i, frame in enumerate(video):
                        Image.fromarray(frame).save(views / numbered(place) / f"{i:03d}.png")
            write_json(views / "transforms.json", transforms_of(chosen, clock, frames), ascii_only=False)
            write_json(views / "camera_extrinsics.json", extrinsics_of(chosen, clock), ascii_only=False)
            write_json(draft / "multicam.json", about, ascii_only=False)
    except OSError as error:
        raise InputError(f"{folder}: cannot write there ({error.strerror}): give another --out") from error


def transforms_of(chosen: Sequence[ChosenCamera], clock: Clock, frames: bool) -> dict[str, Any]:
    """nerfstudio's transforms.json with one entry per (camera, frame). Without frames on disk an entry names
    the video and the number of the frame."""
    last = max(clock.frames - 1, 1)
    entries = []
    for place, one in enumerate(chosen):
        label = numbered(place)
        for i, camera in enumerate(one.cameras):
            name = (
                {"file_path": f"{label}/{i:03d}.png"} if frames else {"file_path": f"{label}.mp4", "frame": i}
            )
            entries.append({**frame_record(camera, i / last, **name), "camera_label": label})
    return {"camera_model": "OPENCV", "fps": clock.fps, "frames": entries}


def extrinsics_of(chosen: Sequence[ChosenCamera], clock: Clock) -> dict[str, dict[str, str]]:
    """camera_extrinsics.json of SynCamVideo (2025), the target at the origin."""
    return {
        f"frame{i}": {
            numbered(place): matrix_text(from_c2w(one.cameras[i].c2w, np.zeros(3), clock.metres), 6)
            for place, one in enumerate(chosen)
        }
        for i in range(clock.frames)
    }


def cameras_in_metres(chosen: Sequence[ChosenCamera], metres: float) -> dict[str, Any]:
    """Label in the output -> label in the rig, and the position of the first frame in metres."""
    return {
        numbered(place): {
            "from": one.label,
            "position": [round(float(x) * metres, 6) for x in one.cameras[0].c2w[:3, 3]],
        }
        for place, one in enumerate(chosen)
    }
