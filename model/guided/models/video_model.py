"""What guided sampling asks of a video diffusion model, and what all of them share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.model.guided.sampler import Guide
from orbit4d.model.guided.schedules import DiffusersSchedule, Levels
from orbit4d.model.weights.quiet import quiet

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
#: Called after each step, with its number.
Tick = Callable[[int], None]


class VideoModel(Protocol):
    """A model that continues a first view to a video. Latents are [1, C, f, h, w]."""

    kind: str
    """svd, orbit4d or wan."""
    prior: str
    """`trained here`, `user's weights` or `random weights`."""
    licence: str
    """As the folder's card names it; empty where it has none."""
    frames: int
    """Of a video: F, unless `frames_allowed` says that others are taken."""
    size: tuple[int, int]
    """(width, height) of its own."""
    factor: int
    """What width and height must be multiples of."""
    scale: int
    """Pixels per latent, each way."""
    temporal: int
    """Frames per latent frame: 1, or 4 after a first one."""
    steps: int
    """Of sampling, its own number."""
    background: tuple[int, int, int]
    """Colour behind objects, 0 to 255."""

    def check(self, frames: int, size: tuple[int, int], cameras: Sequence[Camera]) -> None:
        """InputError for a path that this model does not make."""

    def levels(self, steps: int, size: tuple[int, int]) -> Levels:
        """Noise levels [N + 1] of this many steps."""

    def encode(self, frames: Floats) -> Tensor:
        """Frames [F, H, W, 3] in [0, 1] to latents [1, C, f, h, w], float32 on the CPU."""

    def sample(
        self, first: Floats, cameras: Sequence[Camera], guide: Guide, steps: int, seed: int, tick: Tick
    ) -> Tensor:
        """Latents of the video that starts with a view [H, W, 3] in [0, 1] and is pulled by the guide."""

    def decode(self, latents: Tensor) -> Pixels:
        """Latents to frames [F, H, W, 3]."""


def device_and_type() -> tuple[torch.device, torch.dtype]:
    """A GPU in half precision where there is one, else the CPU in float32."""
    if torch.cuda.is_available():
        return torch.device("cuda"), torch.float16
    return torch.device("cpu"), torch.float32


def untrained(network: torch.nn.Module) -> bool:
    """Whether every normalisation still scales by 1 and adds 0: no optimiser has touched the network."""
    norms = [m for m in network.modules() if "norm" in type(m).__name__.lower()]
    values = [p for m in norms for p in m.named_parameters(recurse=False)]
    scales = [p for name, p in values if name in ("weight", "gamma")]
    shifts = [p for name, p in values if name in ("bias", "beta")]
    return bool(scales) and all(bool((w == 1).all()) for w in scales) and not any(b.any() for b in shifts)


def licence_of(folder: str | os.PathLike[str]) -> str:
    """The licence that a folder's model card (README.md) names; empty where it has none."""
    import yaml

    card = Path(folder) / "README.md"
    if not card.is_file():
        return ""
    parts = card.read_text(encoding="utf-8", errors="replace").split("---")
    if len(parts) < 3 or parts[0].strip():
        return ""
    try:
        values = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return ""
    if not isinstance(values, dict):
        return ""
    name = values.get("license", "")
    return str(values.get("license_name", name) if name == "other" else name)


def pipeline_class(name: str) -> str:
    """Class that a folder's model_index.json names, or that of a repository of the Hugging Face hub.

    InputError for a missing folder, one without model_index.json, and a hub that cannot be reached.
    """
    folder = Path(name)
    index = folder / "model_index.json"
    if index.is_file():
        try:
            return str(json.loads(index.read_text(encoding="utf-8"))["_class_name"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{index}: not the index of a pipeline ({error}); save it again") from None
    if folder.is_dir():
        raise InputError(
            f"--model {name}: no model_index.json in this folder; give a pipeline that `save_pretrained` "
            "wrote, or the --out of `orbit4d train`"
        )
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise InputError(
            f"--model {name}: no such folder; give one with a model_index.json, a RUN of orbit4d, or a hub "
            "name such as owner/model"
        )
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    with hub(name):
        config: Any = DiffusionPipeline.load_config(name)
        return str(config["_class_name"])


class hub:
    """What comes from the hub, as one line where it does not come; loaded without the libraries' chatter."""

    def __init__(self, name: str, option: str = "--model") -> None:
        self.name, self.option = name, option
        self._quiet = quiet()

    def __enter__(self) -> None:
        self._quiet.__enter__()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._quiet.__exit__(None, None, None)
        if isinstance(error, OSError | ValueError | KeyError) or "huggingface" in getattr(
            kind, "__module__", ""
        ):
            if isinstance(error, InputError):
                return
            where = "could not be loaded" if Path(self.name).exists() else "not reached on the hub"
            first = str(error).strip().splitlines()[0] if str(error).strip() else kind.__name__
            raise InputError(
                f"{self.option} {self.name}: {where} ({first[:160]}); give a folder that holds the model"
            ) from None


def run_guide(
    guide: Guide,
    denoiser: Any,
    schedule: DiffusersSchedule,
    noise: Tensor,
    generator: torch.Generator,
    tick: Tick,
) -> Tensor:
    """Latents that the guide samples from noise; its log counts what the denoiser evaluated."""

    def after_step(i: int, x: Tensor) -> Tensor:
        tick(i)
        return x

    latents = guide.sample(denoiser, schedule, noise, generator, after_step)
    guide.evaluations.append(denoiser.evaluations)
    return latents


def nearest_step(schedule: DiffusersSchedule, sigma: float) -> int:
    """The step whose noise level is the closest to sigma."""
    return int(abs(schedule.sigmas[:-1] - sigma).argmin())


def as_image(view: Floats) -> Any:
    """A view [H, W, 3] in [0, 1] as a PIL image."""
    from PIL import Image

    return Image.fromarray(np.rint(view * 255).astype(np.uint8))


def as_pixels(video: Tensor) -> Pixels:
    """Frames [F, H, W, 3] of what an autoencoder decodes, [3, F, H, W] in [-1, 1]."""
    frames = (video.permute(1, 2, 3, 0).float() / 2 + 0.5).clamp(0, 1).cpu().numpy()
    return np.asarray(np.rint(frames * 255), dtype=np.uint8)


def check_size(size: tuple[int, int], factor: int) -> None:
    """InputError unless width and height are multiples of the model's factor."""
    if size[0] % factor or size[1] % factor:
        raise InputError(f"--size {size[0]}x{size[1]}: this model takes multiples of {factor}")
