"""What `orbit4d multicam` samples with: a network with a view module, and the parts around it.

A run of ours keeps it in RUN/model: views.json (how it was trained), network/ (OrbitWan or OrbitUNet); the
autoencoder and the text encoder, which training did not change, are named and loaded. A Wan folder in
diffusers' layout has transformer/, vae/, text_encoder/ and tokenizer/; its view module is another file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from orbit4d.datasets.core.atomic import write_json
from orbit4d.datasets.core.errors import InputError
from orbit4d.model.config.presets import WAN_NEGATIVE
from orbit4d.model.data.motion_statistics import MotionStatistics
from orbit4d.model.diffusion.flow import SHIFT, TRAIN_STEPS, flow_levels
from orbit4d.model.diffusion.schedule import make_scheduler
from orbit4d.model.encoders.frozen import FrozenParts, PartsSpec
from orbit4d.model.guided.schedules import DiffusersSchedule, FlowEuler, ScaledSchedule
from orbit4d.model.network.unet import OrbitUNet
from orbit4d.model.network.wan import OrbitWan
from orbit4d.model.sampling.views import Predict
from orbit4d.model.weights.hub import content_hash

#: The file that a run's model is known by.
RECORD = "views.json"


@dataclass(frozen=True)
class ViewsRecord:
    """How a views model was trained: defaults of sampling."""

    base: str
    """"wan" or "unet"."""
    parts: dict[str, Any]
    """`PartsSpec` of autoencoder and text encoder."""
    frames: int = 81
    size: tuple[int, int] = (832, 480)
    """(width, height)"""
    fps: float = 15.0
    steps: int = 50
    shift: float = SHIFT
    schedule: str = "text"
    prediction: str = ""
    """Of an OrbitUNet (see `make_scheduler`)."""
    metres_per_unit: float = 2.0
    caption_affixes: tuple[str, str] = ("", "")
    reference: bool = False
    """Whether training showed it clean reference views."""
    views: int = 2
    """Views of a scene in training."""
    motion: dict[str, Any] | None = None
    hashes: dict[str, str] = field(default_factory=dict)
    """Of the parts, as training had them."""


@dataclass
class ViewsModel:
    """A network with a view module, and the parts around it."""

    network: OrbitWan | OrbitUNet
    frozen: FrozenParts
    record: ViewsRecord
    source: str
    """What it was loaded from, for messages."""

    @classmethod
    def load(cls, place: str, checkpoint: str = "") -> ViewsModel:
        """Of a RUN, its model folder, or a Wan folder or hub name with the file of its view module.
        InputError, one line, for what is none of these or does not fit."""
        for folder in (Path(place) / "model", Path(place)):
            if (folder / RECORD).is_file():
                if checkpoint:
                    raise InputError(f"--views-checkpoint {checkpoint}: {place} is a run with its own")
                return cls._of_run(folder)
        if (Path(place) / "config.json").is_file() and (Path(place) / "checkpoints").is_dir():
            raise InputError(
                f"{place}: no finished run with a view module: train with a sync preset, or --resume it first"
            )
        if not checkpoint:
            raise InputError(f"{place}: its base knows no views; give --views-checkpoint step20000.ckpt")
        from orbit4d.model.network.syncammaster import load_onto

        network = load_onto(place, checkpoint)
        parts = PartsSpec("text", place, place, negative_prompt=WAN_NEGATIVE)
        record = ViewsRecord("wan", asdict(parts))
        return cls(network, FrozenParts.load(parts, torch.device("cpu")), record, place)._checked()

    @classmethod
    def _of_run(cls, folder: Path) -> ViewsModel:
        values = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        values |= {name: tuple(values[name]) for name in ("size", "caption_affixes")}
        record = ViewsRecord(**values)
        kind: Any = OrbitWan if record.base == "wan" else OrbitUNet
        network = kind.from_pretrained(folder / "network").eval()
        frozen = FrozenParts.load(PartsSpec(**record.parts), torch.device("cpu"))
        for name, value in frozen.identity().items():
            if record.hashes and value != record.hashes[name]:
                raise InputError(
                    f"{record.parts[name]}: not the {name.replace('_', ' ')} this run was trained with "
                    f"(hash {value}, then {record.hashes[name]}): give back the old one"
                )
        return cls(network, frozen, record, str(folder))._checked()

    def _checked(self) -> ViewsModel:
        """InputError where the parts do not fit the network."""
        channels = self.network.config.in_channels
        if self.frozen.latent_channels != channels:
            raise InputError(
                f"{self.source}: the network takes {channels} latent channels, the autoencoder gives "
                f"{self.frozen.latent_channels}"
            )
        if isinstance(self.network, OrbitWan):
            text = self.frozen.text
            if text is not None and text.dim != self.network.config.text_dim:
                raise InputError(
                    f"{self.source}: the text encoder gives {text.dim} numbers a token, the network takes "
                    f"{self.network.config.text_dim}"
                )
        return self

    def save(self, folder: Path) -> None:
        """Write RUN/model, into an empty folder."""
        self.network.save_pretrained(folder / "network")
        record = replace(self.record, hashes=self.frozen.identity())
        write_json(folder / RECORD, asdict(record), ascii_only=False)

    # -- what a caller needs to know ---------------------------------------------------------------------

    @property
    def takes_text(self) -> bool:
        """Whether it knows captions."""
        return self.frozen.text is not None

    @property
    def takes_motion(self) -> bool:
        """Whether it knows the motion magnitude."""
        return isinstance(self.network, OrbitUNet) or self.network.motion_embedding is not None

    @property
    def motion_statistics(self) -> MotionStatistics:
        """Distribution of motion in training."""
        if self.record.motion is None:
            return MotionStatistics(0.0, 1.0, (), 0)
        return MotionStatistics.from_dict(self.record.motion)

    @property
    def negative(self) -> str:
        """Default negative prompt."""
        return str(self.record.parts["negative_prompt"])

    @property
    def stride(self) -> int:
        """Frames of a latent: frames are a multiple of it and 1."""
        return self.frozen.autoencoder.time_factor

    @property
    def multiple(self) -> int:
        """What the edges of images are multiples of."""
        factor = self.frozen.autoencoder.factor
        if isinstance(self.network, OrbitWan):
            return int(factor * self.network.config.patch_size[1])
        return int(factor * 2 ** (len(cast(OrbitUNet, self.network).config.block_out_channels) - 1))

    def weights_hash(self) -> str:
        """16 hex digits of the network's weights."""
        return content_hash("views", {}, self.network)

    # -- sampling ----------------------------------------------------------------------------------------

    def schedule(self, steps: int, shift: float) -> ScaledSchedule:
        """Levels and steps of sampling; the shift is flow matching's."""
        if self.record.base == "wan":
            return FlowEuler(flow_levels(steps, shift))
        scheduler = make_scheduler(self.record.schedule, self.record.prediction)
        scheduler.set_timesteps(steps)
        return DiffusersSchedule(scheduler)

    def predictor(
        self,
        schedule: ScaledSchedule,
        camera: Tensor,
        positive: Tensor | None = None,
        negative: Tensor | None = None,
        motion: float | None = None,
    ) -> Predict:
        """`Predict` of one scene.

        camera: [V, F, 12]; positive, negative: tokens [L, D], None for a network without text.
        """
        views, network = len(camera), self.network

        def predict(x: Tensor, step: int, known: Sequence[bool]) -> Tensor:
            branches = len(known)
            text = None
            if positive is not None and negative is not None:
                chosen = [positive if given else negative for given in known]
                text = torch.stack(chosen).repeat_interleave(views, 0).to(x.device)
            cameras = camera.to(x.device).repeat(branches, 1, 1)
            moving = None if motion is None else [motion] * len(x)
            if isinstance(network, OrbitWan):
                t = torch.tensor([TRAIN_STEPS * float(schedule.s[step])], device=x.device)
                out = network(x, t, text, camera=cameras, views=views, motion=moving)
            else:
                t = torch.as_tensor(cast(DiffusersSchedule, schedule).timesteps[step], device=x.device)
                out = network(x.to(network.dtype), t, text, motion=moving, views=views, view_camera=cameras)
            return cast(Tensor, out.sample).float()

        return predict
