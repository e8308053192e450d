"""Clips sampled while a run trains, to see what it has learned so far: `train --sample-every N`.

    RUN/samples/step-000500.mp4    one row per clip: what is stored on the left, what was sampled on the right

The same clips, of the validation split where it has any, the same noise, the run's own sampling settings; the
frozen base of 3D-aware guidance and half-precision copies of the weights are left out, which would take their
memory beside the training's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import WorkError
from orbit4d.model.config.settings import TrainConfig
from orbit4d.model.data.clip_source import TRAIN, VALIDATION, PixelClips
from orbit4d.model.data.motion_statistics import MotionStatistics
from orbit4d.model.data.training_clips import even_frames
from orbit4d.model.diffusion.schedule import scheduler_of
from orbit4d.model.encoders.frozen import FrozenParts
from orbit4d.model.network.unet import OrbitUNet
from orbit4d.model.sampling.pipeline import OrbitPipeline

Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Clip:
    """What one clip is sampled from and compared with."""

    dynamic: Frames
    """[F, H, W, 3]"""
    static: Frames | None
    cameras: list[Camera]
    motion: float | None
    """Raw m; None where it is not known."""
    caption: str


class SampleClips:
    """The clips by which a run is judged, chosen once."""

    def __init__(self, dataset: str, config: TrainConfig) -> None:
        self.config = config
        clips = PixelClips(dataset, config, VALIDATION)
        self.split = VALIDATION if len(clips) else TRAIN
        clips = clips if len(clips) else PixelClips(dataset, config, TRAIN)
        places = np.linspace(0, len(clips) - 1, min(config.sample_clips, len(clips))).round().astype(int)
        self.clips = [_clip(clips[int(i)], config) for i in places]

    def draw(
        self, unet: OrbitUNet, frozen: FrozenParts, motion: MotionStatistics, stage: str
    ) -> Frames | None:
        """[K, F, H, 2W, 3]: stored beside sampled. None, with a note, where memory does not suffice.

        Nothing is drawn from torch's global generator, and the network is left as it was.
        """
        config = self.config
        scheduler = scheduler_of(config)
        was_training = unet.training
        unet.eval()
        try:
            pipeline = OrbitPipeline.of_run(config, unet, None, frozen, scheduler, motion)
            pipeline.half_copies = False
            pairs = [self._pair(pipeline, k, stage) for k in range(len(self.clips))]
        except WorkError as error:
            print(f"note: no sample clips, training continues: {error}", flush=True)
            return None
        finally:
            unet.train(was_training)
        return np.stack(pairs)

    def _pair(self, pipeline: OrbitPipeline, number: int, stage: str) -> Frames:
        clip = self.clips[number]
        static = stage == "static" and clip.static is not None
        truth = clip.static if static and clip.static is not None else clip.dynamic
        given: dict[str, Any] = {}
        if pipeline.takes_text:
            given["prompt"] = clip.caption
        if self.config.model.variant == "static3d":
            given["static"] = clip.static
        elif self.config.model.variant == "image":
            given["image"] = truth[0]
        sampled = pipeline(
            **given,
            motion=None if static else clip.motion,
            cameras=clip.cameras,
            generator=torch.Generator().manual_seed(self.config.seed + number),
            output_type="uint8",
        ).frames[0]
        return np.concatenate([truth, sampled], axis=2)


def _clip(clip: dict[str, Any], config: TrainConfig) -> Clip:
    frames = torch.from_numpy(even_frames(len(clip["dynamic"]), config.data.frames))
    size = config.data.resolution
    focal = float(clip["focal"]) * size
    motion = float(clip["motion_frames"][frames].mean())
    affixes = len(config.data.caption_prefix), len(config.data.caption_suffix)
    return Clip(
        _bytes(clip["dynamic"][frames]),
        _bytes(clip["static"][frames]) if "static" in clip else None,
        [Camera(c2w, focal, focal, size / 2, size / 2, size, size) for c2w in clip["c2w"][frames].numpy()],
        None if np.isnan(motion) else motion,
        # The pipeline puts them on again.
        clip["caption"][affixes[0] : len(clip["caption"]) - affixes[1]],
    )


def _bytes(frames: torch.Tensor) -> Frames:
    """[F, 3, H, W] in [0, 1] to uint8 [F, H, W, 3]."""
    return (frames * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
