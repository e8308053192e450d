"""`eval run`: a trained model asked for orbits of held-out assets, each compared with its ground truth."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from orbit4d.datasets.core.atomic import write_json
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.store.clip import Clip
from orbit4d.datasets.store.schema import SPLITS, split_of
from orbit4d.evaluate.metrics.suite import Pair
from orbit4d.evaluate.tasks.cases import Case
from orbit4d.evaluate.tasks.frames import background_of, clip_frames, load_frames, resized
from orbit4d.evaluate.tasks.truth import Ref, Subject, Truth


@dataclass(frozen=True)
class Asked:
    """What is asked of the model, the same for every asset."""

    run: str
    task: str
    """image, text or static."""
    folder: str
    """Where the generated orbits are kept."""
    motion: str | None = None
    """Raw m, a quantile such as q0.9, or None: each clip's own, so that the question is whether it is met."""
    steps: int | None = None
    """DDIM steps; None: the run's own, as with the weights below."""
    seed: int = 0
    w1: float | None = None
    w2: float | None = None
    w_motion: float | None = None


def sampling(asked: Asked) -> dict[str, Any]:
    """Steps and guidance weights that are used, and the background that the model draws."""
    pipeline = _pipeline(asked.run)
    config = pipeline.config
    own = {"steps": config.sample_steps, "w1": config.w1, "w2": config.w2, "w_motion": config.w_motion}
    used = {k: own[k] if (given := getattr(asked, k)) is None else given for k in own}
    return {**used, "background": list(pipeline.background)}


def check_asked(asked: Asked) -> None:
    """InputError for a run that cannot be loaded, a task it was not trained for, or a bad motion: what would
    else be found case by case, after the truth was rendered.
    """
    pipeline = _pipeline(asked.run)
    variant = pipeline.unet.config.variant
    takes = {
        "image": variant == "image",
        "text": variant == "text" and pipeline.takes_text,
        "static": variant != "text" and pipeline.takes_static,
    }
    if not takes[asked.task]:
        others = " or ".join(task for task, taken in takes.items() if taken)
        raise InputError(f"--task {asked.task}: {asked.run} was not trained for it; give --task {others}")
    if asked.motion is not None:
        pipeline.motion_statistics.parse(asked.motion)


def run_cases(truth: Truth, subjects: Sequence[Subject], asked: Asked) -> list[Case]:
    """One case per asset and action. Loading it generates its orbit, unless that is already there."""
    stills = truth.clips(subjects, "static_orbit")
    return [
        Case(s.name, partial(_pair, s.name, s.ref("dynamic_orbit"), still, asked))
        for s, still in zip(subjects, stills)
    ]


@lru_cache(maxsize=1)
def _pipeline(run: str) -> Any:
    """The model, loaded once per process."""
    from orbit4d.model.sampling.pipeline import OrbitPipeline

    # What diffusers gives a pipeline is not seen by checkers: its lazy imports end in stand-ins.
    pipeline: Any = OrbitPipeline.of_folder(run)
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def model_hash(run: str) -> str:
    """SHA-256 over the names and bytes of the run's model files: which weights the numbers belong to."""
    import hashlib

    root = Path(run)
    folder = root if (root / "model_index.json").is_file() else root / "model"
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(folder)}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def frame_shape(run: str) -> dict[str, Any]:
    """Frames, resolution and orbit of what a run generates, as names of `truth.RenderChoice`."""
    config = _pipeline(run).config
    trained = dict(config.trained_orbit or {})
    known = {k: trained[k] for k in ("radius", "fov_x_deg", "elevation_deg") if trained.get(k) is not None}
    return {"frames": config.frames, "resolution": config.resolution, **known}


def _pair(name: str, ref: Ref, still: Ref | None, asked: Asked) -> Pair:
    from orbit4d.model.data.training_clips import even_frames

    clip = ref.read()
    record, folder = answer(clip, still, asked)
    made = load_frames(str(folder / "frames"))
    chosen = even_frames(len(clip.frames), len(made))
    size = made.rgb.shape[-1]
    # Generated frames have no alpha: the truth is put on the background that the model draws.
    behind = background_of(folder)
    real = resized(clip_frames(clip, behind).rgb[chosen], size)
    static = None if still is None else resized(clip_frames(still.read(), behind).rgb[chosen], size)
    extra: dict[str, Any] = {
        "seconds": float(record["seconds"]),
        "train_split": split_of(clip.uid) == SPLITS[0],
    }
    if static is not None:
        # The request in the truth's own words, at the size that the answer is measured at.
        extra["motion_of_truth"] = float((real - static).square().mean())
    return Pair(
        name,
        clip.rig,
        made.rgb,
        real,
        condition=clip.caption if asked.task == "text" else real[0],
        static=static,
        extra=extra,
    )


def answer(clip: Clip, still: Ref | None, asked: Asked) -> tuple[dict[str, Any], Path]:
    """What is known of the orbit made for the truth `clip`, and the folder of its frames and cameras.

    It is generated unless it is there already; cases that want the same one at the same time wait.
    """
    path = Path(asked.folder) / f"{clip.uid}__a{clip.action_index}.mp4"
    done = path.with_suffix(".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Written last: an orbit that an interruption cut short is made again.
        if not done.exists():
            _generate(path, done, clip, still, asked)
    return json.loads(done.read_text(encoding="utf-8")), path.with_suffix("")


def _generate(path: Path, done: Path, clip: Clip, still: Ref | None, asked: Asked) -> None:
    """One orbit at the truth's own cameras, to `path`, its frames beside it, and how long it took."""
    from orbit4d.model.data.clip_source import frames_on
    from orbit4d.model.data.training_clips import even_frames
    from orbit4d.model.sampling.generate import caption_of, write_orbit

    pipeline = _pipeline(asked.run)
    count, size = pipeline.config.frames, pipeline.config.resolution
    if len(clip.frames) < count:
        raise InputError(f"{clip.uid}: its orbit has {len(clip.frames)} frames, this model makes {count}")
    chosen = even_frames(len(clip.frames), count)
    condition: dict[str, Any]
    if asked.task == "text":
        if not clip.caption:
            raise InputError(f"{clip.uid}: has no caption to generate from")
        condition = {"prompt": clip.caption}
    elif asked.task == "static":
        if still is None:
            raise InputError(f"{clip.uid}: has no static orbit to animate")
        condition = {"static": frames_on(still.read().pixels()[chosen], pipeline.background, size)}
        condition |= caption_of(pipeline, clip)
    else:
        condition = {"image": frames_on(clip.pixels()[:1], pipeline.background, size)[0]}
    own = clip.measures.get("motion_magnitude")
    request = asked.motion or ("q0.5" if own is None else repr(float(own)))
    motion = pipeline.motion_statistics.parse(request)
    cameras = [clip.cameras[i].resized(size, size) for i in chosen]
    start = time.perf_counter()
    frames = pipeline(
        **condition,
        motion=motion,
        cameras=cameras,
        num_inference_steps=asked.steps,
        w1=asked.w1,
        w2=asked.w2,
        w_motion=asked.w_motion,
        generator=torch.Generator().manual_seed(asked.seed),
        output_type="uint8",
    ).frames[0]
    seconds = time.perf_counter() - start
    about = {"run": asked.run, "task": asked.task, "motion": motion, "seed": asked.seed, "uid": clip.uid}
    used = sampling(asked)
    about |= {k: used[k] for k in ("steps", "w1", "w2", "w_motion")}
    write_orbit(path, frames, cameras, 8.0, about, pipeline.background)
    write_json(done, {**about, "seconds": seconds})
