"""A RUN of orbit4d as the model of guided sampling, and the choice of a model by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.model.guided.models.video_model import (
    Floats,
    Pixels,
    Tick,
    VideoModel,
    check_size,
    pipeline_class,
    untrained,
)
from orbit4d.model.guided.sampler import Guide
from orbit4d.model.guided.schedules import DiffusersSchedule, Levels
from orbit4d.model.orbits.network import WanOrbit
from orbit4d.model.sampling.pipeline import OrbitPipeline
from orbit4d.model.weights.quiet import quiet

#: How far radius and field of view of a path may be from those of training.
_RADIUS_SHARE, _FOV_DEG = 0.02, 0.5


class OrbitRun:
    """`VideoModel` of an OrbitPipeline. Classifier-free guidance is as the run's own."""

    kind = "orbit4d"
    temporal = 1

    def __init__(self, pipeline: OrbitPipeline) -> None:
        if isinstance(pipeline.unet, WanOrbit):
            raise InputError("a run of wan-orbit: its latents stand for several frames; give a VideoMV run")
        self.pipeline, self.licence = pipeline, ""
        config = pipeline.config
        self.scale = int(pipeline.parts.autoencoder.factor)
        self.factor = self.scale
        self.frames, self.steps = int(config.frames), int(config.sample_steps)
        self.size = (int(config.resolution), int(config.resolution))
        self.background = pipeline.background
        self.prior = "random weights" if untrained(pipeline.unet) else "trained here"

    @classmethod
    def load(cls, run: str) -> OrbitRun:
        """From a RUN or its model folder. InputError where that is none."""
        pipeline = OrbitPipeline.of_folder(Path(run))
        pipeline.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        return cls(pipeline)

    def check(self, frames: int, size: tuple[int, int], cameras: Sequence[Camera]) -> None:
        """InputError unless frames, size, radius and lens are those of the run's clips."""
        check_size(size, self.factor)
        if frames != self.frames:
            raise InputError(f"--frames {frames}: this run makes {self.frames} frames")
        if size != self.size:
            raise InputError(
                f"--size {size[0]}x{size[1]}: this run makes {self.size[0]}x{self.size[1]} frames"
            )
        trained = self.pipeline.config.trained_orbit or {}
        if "radius" in trained:
            away = [float(np.linalg.norm(camera.position)) for camera in cameras]
            worst = max(away, key=lambda r: abs(r - trained["radius"]))
            if abs(worst - trained["radius"]) > _RADIUS_SHARE * trained["radius"]:
                raise InputError(
                    f"the path has a camera {worst:.3g} from the centre; this run was trained at "
                    f"{trained['radius']:.3g}: give --radius {trained['radius']:g}"
                )
        if "fov_x_deg" in trained and abs(cameras[0].fov_x_deg - trained["fov_x_deg"]) > _FOV_DEG:
            raise InputError(
                f"the path's field of view is {cameras[0].fov_x_deg:.1f} degrees; this run was trained at "
                f"{trained['fov_x_deg']:.1f}"
            )

    def levels(self, steps: int, size: tuple[int, int] = (0, 0)) -> Levels:
        """DDIM's levels [N + 1]; the first may be inf, and the last is above 0."""
        self.pipeline.scheduler.set_timesteps(steps, device=self.pipeline.device)
        return DiffusersSchedule(self.pipeline.scheduler).sigmas

    def encode(self, frames: Floats) -> Tensor:
        """Frames [F, H, W, 3] in [0, 1] to latents [1, C, F, h, w]."""
        video = torch.from_numpy(np.ascontiguousarray(frames, dtype=np.float32)).permute(0, 3, 1, 2)[None]
        return self.pipeline.parts.to_latents(video).cpu()

    def sample(
        self, first: Floats, cameras: Sequence[Camera], guide: Guide, steps: int, seed: int, tick: Tick
    ) -> Tensor:
        """Latents [1, C, F, h, w], conditioned on the first view and the cameras.

        A run that animates static orbits is refused: it has no first view to start from.
        """

        def given(pipe: object, i: int, t: object, values: dict[str, object]) -> dict[str, object]:
            tick(i)
            return values

        latents: Tensor = self.pipeline(
            image=first,
            cameras=list(cameras),
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(seed),
            output_type="latent",
            callback_on_step_end=given,
            guide=guide,
        ).frames
        return latents

    def decode(self, latents: Tensor) -> Pixels:
        """Frames [F, H, W, 3] of latents."""
        video = self.pipeline.parts.to_pixels(latents)[0].permute(0, 2, 3, 1).clamp(0, 1).cpu().numpy()
        return np.asarray(np.rint(video * 255), dtype=np.uint8)


def kind_of(name: str) -> str:
    """orbit4d, svd or wan, of a model by name; nothing of it is loaded.

    InputError, one line, for what is not there or is another kind of pipeline.
    """
    folder = Path(name)
    if (folder / "model" / "model_index.json").is_file() or (folder / "config.json").is_file():
        return "orbit4d"
    found = pipeline_class(name)
    kinds = {
        "OrbitPipeline": "orbit4d",
        "StableVideoDiffusionPipeline": "svd",
        "WanImageToVideoPipeline": "wan",
    }
    if found not in kinds:
        raise InputError(
            f"--model {name}: is a {found}; novel views take {', '.join(kinds)} (a RUN of orbit4d is one)"
        )
    return kinds[found]


def load_video_model(name: str) -> VideoModel:
    """A model for guided sampling by name: a RUN, or a folder or hub name of SVD or Wan 2.1 image-to-video.

    InputError, one line, for what is not there or is another kind of pipeline.
    """
    kind = kind_of(name)
    if kind == "orbit4d":
        return OrbitRun.load(name)
    with quiet():
        # Importing their pipelines warns of what is not needed here.
        from orbit4d.model.guided.models.svd import SVD
        from orbit4d.model.guided.models.wan import Wan

    return SVD.load(name) if kind == "svd" else Wan.load(name)
