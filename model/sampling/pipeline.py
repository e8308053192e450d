"""OrbitPipeline: a trained run as a diffusers pipeline.

pipeline = OrbitPipeline.from_pretrained("RUN/model")
frames = pipeline(image=image, motion=0.004).frames      # [B, F, H, W, 3] float32 in [0, 1]
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy.typing as npt
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor

from orbit4d.datasets.cameras.camera import Camera, orbit
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.core.nearest import or_known
from orbit4d.model.config.settings import TrainConfig
from orbit4d.model.data.clip_source import background_rgb
from orbit4d.model.data.motion_statistics import MotionStatistics
from orbit4d.model.diffusion.guidance import GuidanceWeights
from orbit4d.model.diffusion.schedule import load_scheduler, refine
from orbit4d.model.encoders.frozen import FrozenParts, PartsSpec
from orbit4d.model.guided.sampler import Guide, guided_sample
from orbit4d.model.guided.schedules import DiffusersSchedule
from orbit4d.model.network.cameras import shown_frames
from orbit4d.model.network.interfaces import OrbitPipelineConfig
from orbit4d.model.network.unet import OrbitUNet
from orbit4d.model.orbits.build import is_orbit
from orbit4d.model.orbits.network import WanOrbit
from orbit4d.model.sampling.asked import Asked, ask
from orbit4d.model.sampling.branches import Branches, estimated
from orbit4d.model.sampling.frame_types import tensor_to_frames
from orbit4d.model.sampling.working import WorkingNetworks


@contextmanager
def memory_answered() -> Iterator[None]:
    """A GPU that is too small as one line on what to change (WorkError)."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise WorkError(
            "out of memory while sampling, though branches of guidance may go one by one: end other programs "
            "on the GPU, take one with more memory, or the CPU with CUDA_VISIBLE_DEVICES= before the command"
        ) from error


@dataclass
class OrbitPipelineOutput(BaseOutput):
    """What a call returns."""

    frames: Any
    """[B, F, H, W, 3] float32 in [0, 1] ("np"), uint8 ("uint8"), [B, F, 3, H, W] tensor ("pt"), latents
    [B, C, F, h, w] ("latent"), or lists of PIL images ("pil")."""


class OrbitPipeline(DiffusionPipeline):
    """Orbit videos from a first view, a caption, or a static orbit, with cameras and motion as conditions.

    Components: `unet` (OrbitUNet, or WanOrbit), `scheduler` (DDIM, or flow matching) and
    `base_unet` (the frozen static-orbit network of 3D-aware guidance, or None). The autoencoder and the
    encoders, which training did not change, are named in the configuration and loaded when first needed;
    their hashes are compared with those of training.
    """

    # diffusers declares both for instances, and the second as None alone.
    _optional_components: list[str] = ["base_unet"]  # noqa: RUF012
    model_cpu_offload_seq = "unet"  # type: ignore[assignment]
    config: OrbitPipelineConfig
    unet: OrbitUNet
    base_unet: OrbitUNet | None
    scheduler: DDIMScheduler
    half_copies = True
    """False where there is no memory for them, beside a training."""

    def __init__(
        self,
        unet: OrbitUNet,
        scheduler: DDIMScheduler,
        base_unet: OrbitUNet | None = None,
        parts_spec: dict[str, Any] | None = None,
        parts_hashes: dict[str, str] | None = None,
        frames: int = 24,
        resolution: int = 256,
        background: str = "white",
        captions: bool = True,
        caption_prefix: str = "",
        caption_suffix: str = "",
        takes_static: bool = False,
        sample_steps: int = 50,
        w1: float = 7.0,
        w2: float = 0.5,
        w_motion: float = 0.0,
        motion: dict[str, Any] | None = None,
        trained_orbit: dict[str, float] | None = None,
        residual: float = 0.0,
        precision: str = "no",
        sample_precision: str = "auto",
    ) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler, base_unet=base_unet)
        self.register_to_config(
            parts_spec=parts_spec,
            parts_hashes=parts_hashes,
            frames=frames,
            resolution=resolution,
            background=background,
            captions=captions,
            caption_prefix=caption_prefix,
            caption_suffix=caption_suffix,
            takes_static=takes_static,
            sample_steps=sample_steps,
            w1=w1,
            w2=w2,
            w_motion=w_motion,
            motion=motion,
            trained_orbit=trained_orbit,
            residual=residual,
            precision=precision,
            sample_precision=sample_precision,
        )
        refine(self.scheduler)
        self._parts: FrozenParts | None = None
        self._working = WorkingNetworks()

    # -- making, saving, loading ---------------------------------------------------------------------

    @classmethod
    def of_run(
        cls,
        config: TrainConfig,
        unet: OrbitUNet,
        base: OrbitUNet | None,
        frozen: FrozenParts,
        scheduler: DDIMScheduler,
        motion: MotionStatistics,
        trained_orbit: dict[str, float] | None = None,
    ) -> OrbitPipeline:
        """The pipeline of a finished run, with its settings as defaults."""
        model, data, sample = config.model, config.data, config.sample
        pipeline = cls(
            unet=unet,
            scheduler=scheduler,
            base_unet=base,
            parts_spec=asdict(frozen.spec),
            parts_hashes=frozen.identity(),
            frames=data.frames,
            resolution=data.resolution,
            background=data.background,
            captions=data.captions,
            caption_prefix=data.caption_prefix,
            caption_suffix=data.caption_suffix,
            takes_static=model.variant == "static3d" or data.static_condition > 0,
            sample_steps=sample.steps,
            w1=sample.w1,
            w2=sample.w2 if base is not None else 0.0,
            w_motion=sample.w_motion,
            motion=motion.to_dict(),
            trained_orbit=trained_orbit,
            residual=model.residual,
            precision=config.optim.precision,
            sample_precision=sample.precision,
        )
        pipeline._parts = frozen
        return pipeline

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the folder is named `path`, and components are checked
        cls, path: str | Path, torch_dtype: torch.dtype | None = None, **components: Any
    ) -> OrbitPipeline:
        """Load a folder that `save_pretrained` wrote (RUN/model); `components` replace those in it.

        diffusers' own loader resolves classes inside its own and transformers' libraries only. InputError
        for a folder that is no pipeline, and for a component that this one does not have.
        """
        names = {"unet", "base_unet", "scheduler"}
        for name in components:
            if name not in names:
                raise InputError(
                    f"OrbitPipeline has no component {name}; {or_known(name, sorted(names))} (settings go to "
                    "the call, or stand in model_index.json)"
                )
        folder = Path(path)
        index = folder / "model_index.json"
        if not index.is_file():
            raise InputError(f"{path}: no pipeline there (no model_index.json): give RUN/model of a run")
        for name in ("unet", "base_unet"):
            if name not in components and (folder / name).is_dir():
                kind: Any = WanOrbit if is_orbit(folder / name / "config.json") else OrbitUNet
                components[name] = kind.from_pretrained(folder / name, torch_dtype=torch_dtype)
        if "scheduler" not in components:
            components["scheduler"] = load_scheduler(folder / "scheduler")
        settings = json.loads(index.read_text(encoding="utf-8"))
        settings = {k: v for k, v in settings.items() if not k.startswith("_") and k not in names}
        return cls(**components, **settings)

    @classmethod
    def of_folder(cls, run: str | Path) -> OrbitPipeline:
        """The pipeline of a RUN, or of a model folder. InputError when the run has not finished."""
        folder = Path(run)
        if (folder / "model_index.json").is_file():
            return cls.from_pretrained(folder)
        if (folder / "model" / "model_index.json").is_file():
            return cls.from_pretrained(folder / "model")
        if (folder / "config.json").is_file():
            raise InputError(
                f"{run}: this run has not finished: `orbit4d train ... --out {run} --resume` first"
            )
        raise InputError(f"{run}: no run there: give the --out of `orbit4d train`")

    def save_pretrained(  # type: ignore[override]  # diffusers' further arguments go by name
        self, save_directory: str | Path, **kwargs: Any
    ) -> None:
        """Write every component and setting to a folder."""
        super().save_pretrained(save_directory, **kwargs)
        # Names that say where the classes are, for readers of the file.
        index = Path(save_directory) / "model_index.json"
        values = json.loads(index.read_text(encoding="utf-8"))
        for name in ("unet", "base_unet"):
            if values.get(name, [None])[0] is not None:
                values[name] = ["orbit4d.model", type(getattr(self, name)).__name__]
        index.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    # -- what a caller needs to know --------------------------------------------------------------------

    @property
    def motion_statistics(self) -> MotionStatistics:
        """Distribution of motion in the training split."""
        if self.config.motion is None:
            return MotionStatistics(0.0, 1.0, (), 0)
        return MotionStatistics.from_dict(self.config.motion)

    @property
    def background(self) -> tuple[int, int, int]:
        """Colour behind objects, 0 to 255."""
        return background_rgb(self.config.background)

    @property
    def takes_static(self) -> bool:
        """Whether a static orbit can be the condition."""
        return bool(self.config.takes_static)

    @property
    def takes_text(self) -> bool:
        """Whether captions can be given."""
        return bool(self.config.parts_spec["text_encoder"]) and self.config.captions

    def orbit(self, azimuth0_deg: float = 0.0, elevation_deg: float | None = None) -> list[Camera]:
        """The cameras of one orbit with this model's frames and size; elevation and radius as in training."""
        size = self.config.resolution
        trained = dict(self.config.trained_orbit or {})
        elevation = trained.get("elevation_deg", 0.0) if elevation_deg is None else elevation_deg
        rest: dict[str, Any] = {key: trained[key] for key in ("radius", "fov_x_deg") if key in trained}
        return orbit(
            self.config.frames, elevation_deg=elevation, azimuth0_deg=azimuth0_deg, size=(size, size), **rest
        )

    @property
    def parts(self) -> FrozenParts:
        """Autoencoder and encoders as the trainer used them. InputError when their weights are others now."""
        if self._parts is None:
            parts = FrozenParts.load(PartsSpec(**self.config.parts_spec), self.device)
            for name, value in parts.identity().items():
                if value != self.config.parts_hashes[name]:
                    raise InputError(
                        f"{self.config.parts_spec[name]}: not the {name.replace('_', ' ')} this run was "
                        f"trained with (hash {value}, then {self.config.parts_hashes[name]}): "
                        "give back the old one"
                    )
            self._parts = parts
        return self._parts.to(self.device)

    # -- sampling ---------------------------------------------------------------------------------------

    @overload
    def __call__(
        self,
        image: Image.Image | npt.NDArray[Any] | Tensor | None = None,
        prompt: str | None = None,
        static: npt.NDArray[Any] | Tensor | None = None,
        motion: float | Sequence[float | None] | None = None,
        cameras: Sequence[Camera] | None = None,
        num_inference_steps: int | None = None,
        w1: float | None = None,
        w2: float | None = None,
        w_motion: float | None = None,
        num_videos: int = 1,
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
        max_batch: int | None = None,
        output_type: str = "np",
        return_dict: Literal[True] = True,
        callback_on_step_end: Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]] | None = None,
        guide: Guide | None = None,
    ) -> OrbitPipelineOutput: ...

    @overload
    def __call__(
        self,
        image: Image.Image | npt.NDArray[Any] | Tensor | None = None,
        prompt: str | None = None,
        static: npt.NDArray[Any] | Tensor | None = None,
        motion: float | Sequence[float | None] | None = None,
        cameras: Sequence[Camera] | None = None,
        num_inference_steps: int | None = None,
        w1: float | None = None,
        w2: float | None = None,
        w_motion: float | None = None,
        num_videos: int = 1,
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
        max_batch: int | None = None,
        output_type: str = "np",
        *,
        return_dict: bool,
        callback_on_step_end: Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]] | None = None,
        guide: Guide | None = None,
    ) -> OrbitPipelineOutput | tuple[Any]: ...

    @torch.no_grad()
    @memory_answered()
    def __call__(
        self,
        image: Image.Image | npt.NDArray[Any] | Tensor | None = None,
        prompt: str | None = None,
        static: npt.NDArray[Any] | Tensor | None = None,
        motion: float | Sequence[float | None] | None = None,
        cameras: Sequence[Camera] | None = None,
        num_inference_steps: int | None = None,
        w1: float | None = None,
        w2: float | None = None,
        w_motion: float | None = None,
        num_videos: int = 1,
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
        max_batch: int | None = None,
        output_type: str = "np",
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]] | None = None,
        guide: Guide | None = None,
    ) -> OrbitPipelineOutput | tuple[Any]:
        """Sample videos, by DDIM or on a Wan base by Euler steps of flow matching.

        image: the first view, already framed: PIL, uint8 or float [H, W, 3], or tensor [3, H, W] in [0, 1]
            (for a photo see `photo.prepare_photo`).
        prompt: a caption, without the affixes of training.
        static: a static orbit [F, H, W, 3] (uint8 or float in [0, 1]) or tensor [F, 3, H, W].
        motion: raw motion magnitude, one for all or one per video; None: no condition.
        cameras: F cameras in our world; None: the orbit of training, from the front.
        w1, w2, w_motion: guidance weights (`guidance.py`); None: the run's. w2 needs a frozen base.
        num_videos: how many, batched. max_batch: largest batch of one network pass; where a GPU has no memory
        for all branches of guidance in one, they go one by one of themselves.
        latents: starting noise [B, C, F, h, w] in place of a drawn one.
        guide: a warp of what is known, which pulls the sampler (`guided_sample`); None: nothing does.

        InputError for a condition that this run was not trained on or a number of frames that is not its own,
        ValueError for latents of another shape, WorkError where a GPU has too little memory.
        """
        parts, device = self.parts, self._execution_device
        asked = ask(self, image, prompt, static, motion, cameras, num_videos)
        weights = self._weights(w1, w2, w_motion)
        edge, stride = self.config.resolution // parts.autoencoder.factor, parts.autoencoder.time_factor
        frames = (shown_frames(self.config.frames, stride) - 1) // stride + 1
        shape = (asked.count, parts.latent_channels, frames, edge, edge)
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        elif tuple(latents.shape) != shape:
            raise ValueError(f"latents must be {shape}, got {tuple(latents.shape)}")
        z = latents.to(device, torch.float32)
        steps = num_inference_steps or self.config.sample_steps
        self.scheduler.set_timesteps(steps, device=device)
        denoiser = Branches(self, asked, weights, max_batch)

        def given(i: int, x: Tensor) -> Tensor:
            if callback_on_step_end is None:
                return x
            at = self.scheduler.timesteps[i]
            return callback_on_step_end(self, i, at, {"latents": x}).get("latents", x)

        schedule = DiffusersSchedule(self.scheduler)
        if guide is None:
            z = guided_sample(denoiser, schedule, z, None, None, None, callback=given)
        else:
            z = guide.sample(denoiser, schedule, z, generator, given)
            guide.evaluations.append(denoiser.evaluations)
        self.maybe_free_model_hooks()
        # An orbit that was closed for the autoencoder is shown open.
        pixels = z if output_type == "latent" else parts.to_pixels(z)[:, : self.config.frames]
        made = tensor_to_frames(pixels, output_type)
        return OrbitPipelineOutput(frames=made) if return_dict else (made,)

    def conditions(
        self,
        image: Image.Image | npt.NDArray[Any] | Tensor | None = None,
        prompt: str | None = None,
        static: npt.NDArray[Any] | Tensor | None = None,
        motion: float | Sequence[float | None] | None = None,
        cameras: Sequence[Camera] | None = None,
        num_videos: int = 1,
    ) -> Asked:
        """What `clean_estimate` is asked under, encoded once, for [num_videos, ..] latents.

        Arguments are those of a call; InputError as there.
        """
        with torch.no_grad():
            return ask(self, image, prompt, static, motion, cameras, num_videos)

    @torch.no_grad()
    @memory_answered()
    def clean_estimate(
        self,
        z_t: Tensor,
        t: Tensor,
        conditions: Asked,
        guided: bool = True,
        w1: float | None = None,
        w2: float | None = None,
        w_motion: float | None = None,
        max_batch: int | None = None,
    ) -> Tensor:
        """Clean latents [B, C, F, h, w] float32 that the run sees in z_t at t [B]: the step of a call.

        The guided prediction (`guided` False: the conditioned branch alone), the residual rule where the run
        has one, then the conversion to a clean sample. InputError for a w2 without a frozen base.
        """
        return estimated(self, z_t, t, conditions, guided, self._weights(w1, w2, w_motion), max_batch)

    def _weights(self, w1: float | None, w2: float | None, w_motion: float | None) -> GuidanceWeights:
        """Guidance weights of a call; None is the run's own."""
        return GuidanceWeights(
            conditions=self.config.w1 if w1 is None else w1,
            base=self._base_weight(w2),
            motion=self.config.w_motion if w_motion is None else w_motion,
        )

    def _base_weight(self, w2: float | None) -> float:
        if w2 and self.base_unet is None:
            raise InputError(
                f"w2 {w2:g}: this run has no frozen base to push away from, as --init or a static stage "
                "in training leave one: leave --w2 out"
            )
        return self.config.w2 if w2 is None else w2
