"""`orbit4d encode` for synchronised views: one entry a clip, so that a scene is a list of entries and nothing
is encoded twice for pairs."""

from __future__ import annotations

from typing import Any

import torch

from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.core.progress import Progress
from orbit4d.model.config.settings import TrainConfig
from orbit4d.model.data.clip_source import TRAIN, VALIDATION
from orbit4d.model.data.encode import PART_CLIPS
from orbit4d.model.data.latent_cache import LatentCache, as_stored, cache_settings, missing_or_stale
from orbit4d.model.encoders.frozen import FrozenParts, PartsSpec
from orbit4d.model.views.scenes import SceneClips, identity_of


def encode_scenes(dataset: str, config: TrainConfig, part_clips: int = PART_CLIPS) -> str:
    """Encode what the cache lacks or holds stale, for the training and validation splits; returns a summary.

    Tensors of a clip: frames [n, C, h, w] of the frames that training takes; text [L, D].
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    frozen = FrozenParts.load(PartsSpec.of(config), device)
    cache = LatentCache(dataset, cache_settings(config, frozen), config.data.latents_folder)
    rows = cache.rows()
    encoded = kept = 0
    for split in (TRAIN, VALIDATION):
        scenes = SceneClips(dataset, config, split)
        sources = scenes.sources()
        if split == TRAIN and not sources:
            raise InputError(f"{dataset}: holds no clip of the {split} split yet; render into it first")
        todo = set(missing_or_stale(rows, sources))
        kept += len(sources) - len(todo)
        if todo:
            cache.check_writable()
        part: list[Any] = []
        with Progress(f"encode {split}", len(todo), "clip") as progress:
            for i, scene in enumerate(scenes.scenes):
                for view, clip in enumerate(scene.clips):
                    identity = identity_of(scene, clip.action_index, clip.orbit)
                    if identity not in todo:
                        continue
                    tensors = _tensors(scenes, i, view, frozen, device, cache.settings["dtype"])
                    part.append((identity, sources[identity], tensors, []))
                    encoded += 1
                    progress.update()
                    if len(part) == part_clips:
                        cache.write_part(part)
                        part = []
            if part:
                cache.write_part(part)
    return f"encoded {encoded} clips, {kept} were there: {cache.place}/{cache.key}"


def _tensors(
    scenes: SceneClips, scene: int, view: int, frozen: FrozenParts, device: torch.device, dtype: str
) -> dict[str, torch.Tensor]:
    try:
        latents = frozen.to_latents(scenes.video(scene, view)[None], device)[0].transpose(0, 1)
    except torch.OutOfMemoryError as error:
        raise WorkError(
            "out of memory while encoding: what is done is kept; use a card with more memory, or "
            "encode on the CPU with CUDA_VISIBLE_DEVICES= and run the same command again"
        ) from error
    except ValueError as error:
        raise InputError(f"data.frames={scenes.config.data.frames}: {error}") from error
    tensors = {"frames": as_stored(latents, dtype)}
    if frozen.text is not None:
        tensors["text"] = as_stored(frozen.tokens([scenes.caption(scene)])[0], dtype)
    return tensors
