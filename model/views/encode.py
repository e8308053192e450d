"""`orbit4d encode` for synchronised views: one entry a clip, so that a scene is a list of entries and nothing
is encoded twice for pairs."""

from __future__ import annotations

import numpy as np
import torch

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.config.settings import TrainConfig
from orbit4d.model.data.encode import PART_CLIPS, SplitClips, fill_cache
from orbit4d.model.data.latent_cache import Identity, as_stored
from orbit4d.model.encoders.frozen import FrozenParts
from orbit4d.model.views.scenes import SceneClips, identity_of


def encode_scenes(dataset: str, config: TrainConfig, part_clips: int = PART_CLIPS) -> str:
    """Encode what the cache lacks or holds stale, for the training and validation splits; returns a summary.

    Tensors of a clip: frames [n, C, h, w] of the frames that training takes; text [L, D].
    """

    def open_split(split: str, frozen: FrozenParts, device: torch.device, dtype: str) -> SplitClips:
        scenes = SceneClips(dataset, config, split)
        place = {
            identity_of(scene, clip.action_index, clip.orbit): (i, view)
            for i, scene in enumerate(scenes.scenes)
            for view, clip in enumerate(scene.clips)
        }

        def encode(identity: Identity) -> tuple[dict[str, torch.Tensor], list[float]]:
            return _tensors(scenes, *place[identity], frozen, device, dtype), []

        none = f"holds no clip of the {split} split yet; render into it first"
        return SplitClips(scenes.sources(), encode, lambda: none)

    return fill_cache(dataset, config, part_clips, open_split)


def _tensors(
    scenes: SceneClips, scene: int, view: int, frozen: FrozenParts, device: torch.device, dtype: str
) -> dict[str, torch.Tensor]:
    video = scenes.video(scene, view)
    try:
        latents = frozen.to_latents(video[None], device)[0].transpose(0, 1)
    except ValueError as error:
        raise InputError(f"data.frames={scenes.config.data.frames}: {error}") from error
    tensors = {"frames": as_stored(latents, dtype)}
    moved = scenes.motion(scene, view, video)
    if np.isfinite(moved):
        tensors["motion"] = torch.tensor(moved)
    if frozen.text is not None:
        tensors["text"] = as_stored(frozen.tokens([scenes.caption(scene)])[0], dtype)
    return tensors
