"""Where training clips come from: pixels of a dataset, or the latent cache beside it.

Only the split that is asked for is ever opened, and a row of the test split that got there all the same stops
the run: test assets never reach training.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.images.measures import squared_difference
from orbit4d.datasets.images.over import colour_of, over, over_premultiplied
from orbit4d.datasets.images.resize import smooth
from orbit4d.model.config.settings import TrainConfig
from orbit4d.model.data.training_clips import ClipSource

if TYPE_CHECKING:
    from orbit4d.datasets.loader.samples import OrbitSample
    from orbit4d.model.data.latent_cache import Identity
    from orbit4d.model.encoders.frozen import FrozenParts

TRAIN, VALIDATION = "train", "validation"


def background_rgb(text: str) -> tuple[int, int, int]:
    """Red, green, blue in 0 to 255 of a colour's text (`colour_of`). InputError for any other."""
    if (colour := colour_of(text)) is None:
        raise InputError(
            f"data.background={text}: give white, grey128, or r,g,b such as 255,255,255 (0 to 255 each)"
        )
    return colour


def open_clips(dataset: str, config: TrainConfig, frozen: FrozenParts, split: str) -> ClipSource:
    """The clips of one split, from the cache where the settings ask for it and it is there, else as pixels.

    InputError for a dataset without clips of the training split, and for a cache that is asked for but
    missing or stale.
    """
    from orbit4d.model.data.latent_cache import CachedClips, LatentCache

    if split not in (TRAIN, VALIDATION):
        raise ValueError(f"training looks at {TRAIN} and {VALIDATION}, not at {split!r}")
    mode = config.data.latents
    source: ClipSource | None = None
    if mode in ("auto", "cache"):
        cache = LatentCache.find(dataset, config, frozen)
        if cache is not None:
            source = CachedClips(cache, PixelClips(dataset, config, split).sources())
        elif mode == "cache" or config.data.latents_folder:
            folder = config.data.latents_folder
            raise InputError(
                f"{folder or dataset}: holds no latents made with these encoders, size and background: run "
                f"`orbit4d encode` with the same settings{f' and --out {folder}' if folder else ''}, or set "
                "data.latents=fly"
            )
    if source is None:
        source = PixelClips(dataset, config, split, keep=mode == "memory")
    if split == TRAIN and len(source) == 0:
        raise InputError(f"{dataset}: {why_none(dataset, config)}")
    return source


def why_none(dataset: str, config: TrainConfig) -> str:
    """Why the training split of a dataset holds no sample, and what to do about it."""
    from orbit4d.datasets import OrbitDataset
    from orbit4d.datasets.index.splits import fallen

    where, require = config.data.where or None, required_clips(config)
    data = OrbitDataset(dataset, require=())
    if not len(data):
        return "holds no clip yet; render into it first"
    data = OrbitDataset(dataset, require=require)
    if not len(data):
        return f"no asset has {' and '.join(require)} orbits; render with --rigs static_orbit,dynamic_orbit"
    data = OrbitDataset(dataset, require=require, where=where)
    if not len(data):
        return f"no clip where {where}; choose another data.where"
    uids = set(data.uids)
    which = f" where {where}" if where else ""
    return (
        f"none of its assets{which} is in the training split, which a hash of the uid draws "
        f"({fallen(data.index, uids)}); add assets: nine of ten are for training"
    )


def required_clips(config: TrainConfig) -> tuple[str, ...]:
    """Clips that every training sample must have, as `OrbitDataset` names them."""
    return ("dynamic", "static") if config.model.variant == "static3d" else ("dynamic",)


class PixelClips:
    """Clips of a dataset as pixels, optionally kept in memory (as 8 bits) once they were read."""

    is_latent = False

    def __init__(self, dataset: str, config: TrainConfig, split: str, keep: bool = False) -> None:
        from orbit4d.datasets import OrbitDataset

        self.name, self.split = dataset, split
        self.background = background_rgb(config.data.background)
        # Augmentation is ours (training_clips.py); the loader gives every clip whole.
        self.data = OrbitDataset(
            dataset,
            where=config.data.where or None,
            split=split,
            background=self.background,
            size=config.data.resolution,
            require=required_clips(config),
        )
        self.frames = config.data.frames
        self.captions = config.data.captions
        self.prefix, self.suffix = config.data.caption_prefix, config.data.caption_suffix
        self._kept: dict[int, dict[str, Any]] | None = {} if keep else None

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self._kept is not None and index in self._kept:
            return _to_float(self._kept[index])
        clip = self._read(index)
        if self._kept is not None:
            self._kept[index] = {
                k: (v * 255).round().to(torch.uint8) if k in ("dynamic", "static") else v
                for k, v in clip.items()
            }
            return _to_float(self._kept[index])
        return clip

    def _read(self, index: int) -> dict[str, Any]:
        item = self.data[index]
        dynamic = item["dynamic"]
        if len(dynamic) < self.frames:
            raise InputError(
                f"{self.name}: clip {item['uid']} has {len(dynamic)} frames, "
                f"data.frames={self.frames}: set it lower"
            )
        clip: dict[str, Any] = {"dynamic": dynamic, "c2w": item["c2w"].to(torch.float64)}
        if "static" in item:
            clip["static"] = item["static"]
            clip["motion_frames"] = motion_per_frame(item, self.background)
        else:
            value = float(item.get("motion_magnitude", float("nan")))
            clip["motion_frames"] = torch.full((len(dynamic),), value)
        if "K" in item:
            clip["focal"] = item["K"][0, 0, 0].to(torch.float64) / dynamic.shape[-1]
        clip["caption"] = f"{self.prefix}{item.get('caption', '')}{self.suffix}" if self.captions else ""
        return clip

    def motion_frames(self, index: int) -> Tensor:
        """[N] mean squared difference per frame of dynamic and static orbit; NaN where unknown."""
        return self[index]["motion_frames"]

    def require(self, static: bool) -> None:
        """InputError when a stage needs static orbits and a clip has none."""
        if static and "static" not in self[0]:
            raise InputError(
                f"{self.name}: a static stage needs static orbits: "
                "render with --rigs static_orbit,dynamic_orbit"
            )

    def keys(self) -> list[str]:
        """uid of every clip, in order."""
        return [str(uid) for uid in self.data.uids]

    def sources(self) -> dict[Identity, str]:
        """(uid, action_index, orbit) of every clip, in order, and the hash of the frames of its two
        orbits."""
        return self.data.sources()


def _to_float(clip: dict[str, Any]) -> dict[str, Any]:
    return {k: v.float() / 255 if k in ("dynamic", "static") else v for k, v in clip.items()}


def motion_per_frame(item: OrbitSample, background: tuple[int, int, int]) -> Tensor:
    """[N] mean over pixels and RGB of (dynamic - static)^2, both on white, whatever they were composited
    on."""
    colour = torch.tensor(background, dtype=torch.float32).view(3, 1, 1) / 255
    # What is on `colour` becomes what is on white by the same formula as premultiplied colours.
    dynamic = over_premultiplied(item["dynamic"], item["alpha_dynamic"], 1 - colour)
    static = over_premultiplied(item["static"], item["alpha_static"], 1 - colour)
    found: Tensor = squared_difference(dynamic, static).flatten(1).mean(1)
    return found


def frames_on(
    rgba: npt.NDArray[np.uint8], background: tuple[int, int, int], size: int
) -> npt.NDArray[np.float32]:
    """Straight RGBA uint8 [N, H, W, 4] to RGB float32 [N, size, size, 3] in [0, 1] on a background."""
    values = torch.from_numpy(np.ascontiguousarray(rgba)).permute(0, 3, 1, 2).float() / 255
    alpha = values[:, 3:]
    colour = torch.tensor(background, dtype=torch.float32).view(1, 3, 1, 1) / 255
    rgb = over(values[:, :3], alpha, colour)
    if rgb.shape[-1] != size or rgb.shape[-2] != size:
        # As OrbitDataset resizes.
        rgb = smooth(rgb, (size, size))
    return rgb.permute(0, 2, 3, 1).numpy()


def trained_orbit(clips: ClipSource) -> dict[str, float]:
    """radius, elevation_deg and fov_x_deg of the first clip's first camera: what generation uses by
    default."""
    clip = clips[0]
    x, y, z = (float(value) for value in clip["c2w"][0, :3, 3])
    radius = math.sqrt(x * x + y * y + z * z)
    found = {"radius": radius, "elevation_deg": math.degrees(math.asin(z / radius)) if radius else 0.0}
    if "focal" in clip:
        found["fov_x_deg"] = math.degrees(2 * math.atan(0.5 / float(clip["focal"])))
    return {name: round(value, 6) for name, value in found.items()}


def describe_clips(dataset: str, train: ClipSource, validation: ClipSource) -> dict[str, Any]:
    """What RUN/data.json records; WorkError if a training uid is also in validation."""
    used, held = train.keys(), validation.keys()
    both = set(used) & set(held)
    if both:
        raise WorkError(
            f"{dataset}: {sorted(both)[0]} is in both training and validation: run `orbit4d verify`"
        )
    return {
        "dataset": dataset,
        "clips": len(train),
        "assets": sorted(set(used)),
        "validation_clips": len(validation),
        "validation_assets": sorted(set(held)),
        "latents": "cache" if train.is_latent else "pixels",
    }
