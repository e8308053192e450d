"""`orbit4d generate`: a trained run and a condition in, orbit videos with their cameras out.

orbit.mp4, and beside it orbit/ with frames/000.png ... and transforms.json (nerfstudio's layout with a
`time` per frame, camera-to-world in OpenGL axes: what `orbit4d recon4d --cameras` takes, and the `background`
it cuts the object out of). Further samples are orbit-1.mp4, ...
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.cameras.transforms import transforms_record
from orbit4d.datasets.core.atomic import replacing_folder, write_json
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.remote import local_path, named

if TYPE_CHECKING:
    from orbit4d.datasets.store.clip import Clip
    from orbit4d.model.sampling.pipeline import OrbitPipeline


@dataclass(frozen=True)
class Request:
    """What to generate."""

    image: str = ""
    """An image of the object, seen from where the orbit starts."""
    text: str = ""
    """A caption."""
    static: str = ""
    """DATASET:uid[:action], whose static orbit is animated."""
    motion: str = "q0.5"
    """Raw m, a quantile of the training distribution (q0.9), or none."""
    seed: int = 0
    """Of the first sample; sample k takes seed + k."""
    samples: int = 1
    steps: int | None = None
    """DDIM steps; None: the run's own, as with the weights below."""
    w1: float | None = None
    w2: float | None = None
    w_motion: float | None = None
    azimuth0_deg: float = 0.0
    """Where the orbit starts; 0 is the front."""
    elevation_deg: float | None = None
    """None: as in training."""
    crop: bool | None = None
    """Crop the image to the object; None decides by looking at it."""
    matte: str = "flat"
    """How an image without alpha is cut out: flat, rembg or none (see `prepare_photo`)."""
    fps: float = 8.0
    """Of the video files."""
    precision: str | None = None
    """What a GPU computes in: auto, fp16, bf16 or no (float32); None: the run's own."""


def generate(run: str | os.PathLike[str], out: str | os.PathLike[str], request: Request) -> list[Path]:
    """Write one video per sample and return their paths. InputError for a run or condition that does not
    fit."""
    import torch

    from orbit4d.datasets.core.progress import Progress
    from orbit4d.model.sampling.pipeline import OrbitPipeline, memory_answered
    from orbit4d.model.sampling.working import cast, sampling_dtype

    targets = outputs(out, request.samples)
    if sum(bool(x) for x in (request.image, request.text, request.static)) != 1:
        raise InputError("give exactly one of --image, --text and --static")
    pipeline = OrbitPipeline.of_folder(Path(run))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if request.precision:
        pipeline.register_to_config(sample_precision=request.precision)
    for network in (pipeline.unet, pipeline.base_unet):
        # Here, and not beside their copies on a card that may be small.
        cast(network, sampling_dtype(pipeline.config.sample_precision, device))
    with memory_answered():
        pipeline.to(device)
    motion = pipeline.motion_statistics.parse(request.motion)
    conditions, cameras, notes = _conditions(pipeline, request)
    for note in notes:
        print(note)
    print(f"motion {request.motion}" + ("" if motion is None else f" = m {motion:.6f}"))

    written = []
    for k in range(request.samples):
        steps = request.steps or pipeline.config.sample_steps
        with Progress(f"generate {k + 1}/{request.samples}", steps, "step") as progress:

            def tick(pipe: Any, step: int, timestep: Any, values: dict[str, Any], bar: Progress = progress):
                bar.update()
                return values

            frames = pipeline(
                **conditions,
                motion=motion,
                cameras=cameras,
                num_inference_steps=steps,
                w1=request.w1,
                w2=request.w2,
                w_motion=request.w_motion,
                generator=torch.Generator().manual_seed(request.seed + k),
                callback_on_step_end=tick,
                output_type="uint8",
            ).frames[0]
        path = targets[k]
        about = {
            "run": named(str(run)),
            "condition": named(request.image or request.text or request.static),
            "motion": motion,
            "seed": request.seed + k,
            "steps": steps,
            "preparation": named(notes),
        }
        write_orbit(path, frames, cameras, request.fps, about, pipeline.background)
        written.append(path)
    return written


def outputs(out: str | os.PathLike[str], samples: int) -> list[Path]:
    """The videos of `samples` samples: orbit.mp4, orbit-1.mp4, ... Raises InputError for other names."""
    target = local_path(out)
    if target.suffix.lower() != ".mp4":
        raise InputError(f"--out {out}: give a file name that ends in .mp4")
    if samples < 1:
        raise InputError(f"--samples {samples}: give at least 1")
    return [target, *(target.with_name(f"{target.stem}-{k}{target.suffix}") for k in range(1, samples))]


def _conditions(pipeline: Any, request: Request) -> tuple[dict[str, Any], list[Camera], list[str]]:
    """Arguments of the pipeline, the cameras, and what was done to the input."""
    if request.static:
        return _static_condition(pipeline, request)
    cameras = pipeline.orbit(request.azimuth0_deg, request.elevation_deg)
    if request.text:
        return {"prompt": request.text}, cameras, []
    from orbit4d.model.sampling.photo import prepare_photo

    size, behind = pipeline.config.resolution, pipeline.background
    photo = prepare_photo(request.image, size, behind, request.crop, request.matte)
    return {"image": photo.rgb}, cameras, [f"{request.image}: {'; '.join(photo.notes)}"]


def _static_condition(pipeline: Any, request: Request) -> tuple[dict[str, Any], list[Camera], list[str]]:
    from orbit4d.datasets import open_reference, read_clip
    from orbit4d.model.data.clip_source import frames_on
    from orbit4d.model.data.training_clips import even_frames

    dataset, uid, action = open_reference(request.static)
    clip = read_clip(dataset, uid, action, rig="static_orbit")
    count, size = pipeline.config.frames, pipeline.config.resolution
    if len(clip.frames) < count:
        raise InputError(f"{request.static}: has {len(clip.frames)} frames, this model needs {count}")
    chosen = even_frames(len(clip.frames), count)
    pixels = frames_on(clip.pixels()[chosen], pipeline.background, size)
    cameras = [clip.cameras[i].resized(size, size) for i in chosen]
    caption = caption_of(pipeline, clip)
    if not pipeline.takes_static:
        note = f"{request.static}: this model takes a first view, so only frame 0 of the static orbit is used"
        return {"image": (pixels[0] * 255).round().astype(np.uint8), **caption}, cameras, [note]
    return {"static": pixels, **caption}, cameras, []


def caption_of(pipeline: OrbitPipeline, clip: Clip) -> dict[str, str]:
    """The argument `prompt` that goes with a static orbit: its caption, if the model knows captions."""
    return {"prompt": clip.caption} if pipeline.takes_text and clip.caption else {}


def write_orbit(
    path: Path,
    frames: npt.NDArray[np.uint8],
    cameras: list[Camera],
    fps: float,
    about: dict[str, Any],
    background: tuple[int, int, int] | None = None,
) -> None:
    """Frames [F, H, W, 3] as path (mp4) and as a folder named like it, without the ending.

    `background` is the colour, 0 to 255, of the clips that the model was trained on.
    """
    from orbit4d.datasets.videos.video import write_video

    folder = path.with_suffix("")
    if folder.exists() and not (folder / "transforms.json").is_file():
        raise InputError(f"{folder}: holds something else than frames of a video; give another --out")
    try:
        with replacing_folder(folder) as draft:
            (draft / "frames").mkdir()
            for i, frame in enumerate(frames):
                Image.fromarray(frame).save(draft / "frames" / f"{i:03d}.png")
            record = transforms(cameras, about, background)
            write_json(draft / "transforms.json", record)
    except OSError as error:
        raise InputError(f"{path}: cannot write there ({error.strerror}): give another --out") from error
    write_video(path, frames, fps)


def transforms(
    cameras: list[Camera], about: dict[str, Any], background: tuple[int, int, int] | None = None
) -> dict[str, Any]:
    """nerfstudio's transforms.json with a time in [0, 1] per frame, and the background's colour if known."""
    last = max(len(cameras) - 1, 1)
    files = [f"frames/{i:03d}.png" for i in range(len(cameras))]
    behind = {} if background is None else {"background": list(background)}
    return transforms_record(cameras, files, [i / last for i in range(len(cameras))], orbit4d=about, **behind)
