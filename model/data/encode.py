"""`orbit4d encode`: fill the latent cache of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.core.progress import Progress
from orbit4d.model.config.settings import TrainConfig
from orbit4d.model.data.clip_source import TRAIN, VALIDATION, PixelClips, why_none
from orbit4d.model.data.latent_cache import (
    Identity,
    LatentCache,
    as_stored,
    cache_settings,
    missing_or_stale,
    motion_list,
)
from orbit4d.model.data.training_clips import even_frames
from orbit4d.model.encoders.frozen import FrozenParts, PartsSpec
from orbit4d.model.network.cameras import shown_frames

#: Clips per file of the cache.
PART_CLIPS = 64


class SplitClips(NamedTuple):
    """What is encoded of one split."""

    sources: Mapping[Identity, str]
    """Hash of the frames of every clip, in the order in which they are encoded."""
    encode: Callable[[Identity], tuple[dict[str, torch.Tensor], list[float]]]
    """Tensors of a clip as the cache stores them, and its motion per frame."""
    why_empty: Callable[[], str]
    """Said after the dataset's name where the training split has no clip."""


def encode_dataset(dataset: str, config: TrainConfig, part_clips: int = PART_CLIPS) -> str:
    """Encode what the cache lacks or holds stale, for the training and validation splits; returns a summary.

    The cache lies beside the dataset, or in `data.latents_folder`. InputError where it cannot be written.
    Test clips are left out on purpose: a cache that training reads should not hold them.
    """

    def open_split(split: str, frozen: FrozenParts, device: torch.device, dtype: str) -> SplitClips:
        clips = PixelClips(dataset, config, split)
        sources = clips.sources()
        place = {identity: i for i, identity in enumerate(sources)}

        def encode(identity: Identity) -> tuple[dict[str, torch.Tensor], list[float]]:
            return encode_clip(clips[place[identity]], frozen, device, dtype, config.data.frames)

        return SplitClips(sources, encode, lambda: why_none(dataset, config))

    return fill_cache(dataset, config, part_clips, open_split)


def fill_cache(
    dataset: str,
    config: TrainConfig,
    part_clips: int,
    open_split: Callable[[str, FrozenParts, torch.device, str], SplitClips],
) -> str:
    """The loop of `encode` over what `open_split(split, frozen, device, dtype)` gives; returns a summary."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    frozen = FrozenParts.load(PartsSpec.of(config), device)
    cache = LatentCache(dataset, cache_settings(config, frozen), config.data.latents_folder)
    rows = cache.rows()
    encoded = kept = 0
    for split in (TRAIN, VALIDATION):
        clips = open_split(split, frozen, device, cache.settings["dtype"])
        if split == TRAIN and not clips.sources:
            raise InputError(f"{dataset}: {clips.why_empty()}")
        wanted = set(missing_or_stale(rows, clips.sources))
        todo = [identity for identity in clips.sources if identity in wanted]
        encoded += len(todo)
        kept += len(clips.sources) - len(todo)
        if todo:
            cache.check_writable()
        with Progress(f"encode {split}", len(todo), "clip") as progress:
            for start in range(0, len(todo), part_clips):
                part = []
                for identity in todo[start : start + part_clips]:
                    try:
                        tensors, motion = clips.encode(identity)
                    except torch.OutOfMemoryError as error:
                        raise WorkError(
                            "out of memory while encoding: what is done is kept; use a card with more "
                            "memory, or encode on the CPU with CUDA_VISIBLE_DEVICES= and run the same "
                            "command again"
                        ) from error
                    part.append((identity, clips.sources[identity], tensors, motion))
                    progress.update()
                cache.write_part(part)
    found_by = f"; train with --latents {cache.folder}" if cache.folder else ""
    return f"encoded {encoded} clips, {kept} were there: {cache.place}/{cache.key}{found_by}"


def encode_clip(
    clip: dict[str, Any], frozen: FrozenParts, device: torch.device, dtype: str, frames: int | None = None
) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Tensors of one clip as the cache stores them, and its motion per frame.

    dynamic, static [N, C, h, w]; c2w [N, 4, 4]; text [L, D]; image_dynamic [D] of the first view, and
    image_static [N, D] of every view of the static orbit, since a static sample may start at any of them.
    Where a latent stands for several frames, the latents are of `frames` evenly spread ones. Of a Wan base
    first_dynamic, first_static [N, C, h, w] too (`first_view_latents`).
    """
    tensors: dict[str, torch.Tensor] = {k: clip[k] for k in ("c2w", "focal") if k in clip}
    for rig in ("dynamic", "static"):
        if rig in clip:
            pixels = clip[rig][_shown(clip, frozen, frames)][None].to(device)
            latents: dict[str, torch.Tensor] = {rig: frozen.to_latents(pixels, device)}
            if frozen.spec.first_view == "video" and frozen.spec.variant == "image":
                latents[f"first_{rig}"] = frozen.first_view_latents(pixels, device)
            tensors |= {name: as_stored(z[0].transpose(0, 1), dtype) for name, z in latents.items()}
    if frozen.text is not None:
        tensors["text"] = as_stored(frozen.tokens([clip["caption"]])[0], dtype)
    if frozen.image is not None:
        tensors["image_dynamic"] = as_stored(frozen.image_vectors(clip["dynamic"][:1].to(device))[0], dtype)
        if "static" in clip:
            tensors["image_static"] = as_stored(frozen.image_vectors(clip["static"].to(device)), dtype)
    return tensors, motion_list(clip["motion_frames"])


def _shown(clip: dict[str, Any], frozen: FrozenParts, frames: int | None) -> slice | np.ndarray:
    """Numbers of the frames that are encoded: all, or those that training takes where latents stand for
    several."""
    stride = frozen.autoencoder.time_factor
    if stride == 1 or frames is None:
        return slice(None)
    chosen = even_frames(len(clip["c2w"]), frames)
    return np.append(chosen, chosen[:1]) if shown_frames(frames, stride) > frames else chosen
