"""Scenes of a dataset as training sees them: clips of cameras that share a clock, pixels or cached latents.

Three kinds of sample come from them: synchronised videos (a scene with enough cameras), views of a still
object (the frames of a static orbit), and single videos (any static camera).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.over import over
from orbit4d.datasets.images.resize import smooth
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.index.reader import read_members
from orbit4d.datasets.index.where import matching
from orbit4d.datasets.layouts.scenes import Scene, is_static, scenes_of
from orbit4d.datasets.store.schema import SPLITS, row_clip
from orbit4d.model.config.settings import TrainConfig
from orbit4d.model.data.clip_source import background_rgb
from orbit4d.model.data.training_clips import even_frames
from orbit4d.model.views.usable import shows_motion, usable_views

if TYPE_CHECKING:
    from orbit4d.model.data.latent_cache import Identity, LatentCache

#: The orbit whose frames are views of a still object.
STILL_RIG = "static_orbit"


class SceneClips:
    """Scenes of one split. `multi`, `stills` and `singles` list what each kind of sample is drawn from, as
    numbers of scenes, and for singles of their clips."""

    is_latent = False

    def __init__(self, dataset: str, config: TrainConfig, split: str, keep: bool = False) -> None:
        self.name, self.config = dataset, config
        self.index = Index(dataset)
        self.colour = torch.tensor(background_rgb(config.data.background)).view(1, 3, 1, 1) / 255
        keys = self.index.keys
        chosen = keys.split[keys.asset] == SPLITS.index(split)
        if config.data.where:
            chosen &= matching(self.index, config.data.where)
        self.scenes: list[Scene] = list(scenes_of(self.index, np.flatnonzero(chosen).tolist()))
        count = config.views.count
        short = [s for s in self.scenes if len(s.clips[0].time) < config.data.frames]
        if short:
            raise InputError(
                f"{dataset}: {short[0].name} has {len(short[0].clips[0].time)} frames, "
                f"data.frames={config.data.frames}: set it lower"
            )
        stills = [i for i, scene in enumerate(self.scenes) if scene.clips[0].rig == STILL_RIG]
        moving = [i for i in range(len(self.scenes)) if i not in set(stills)]
        self.usable = {i: usable_views(self.scenes[i].clips) for i in moving}
        self.multi = [i for i in moving if len(self.usable[i]) >= count]
        self.too_few = len(moving) - len(self.multi)
        self.stills = [i for i in stills if len(self.scenes[i].clips[0].time) >= count]
        self.singles = [
            (i, v) for i in moving for v, clip in enumerate(self.scenes[i].clips) if is_static(clip)
        ]
        self.moved = 0
        if config.views.still_camera:
            found = [one for one in self.singles if not shows_motion(*self._pixels(*one))]
            self.moved, self.singles = len(self.singles) - len(found), found
        self._kept: dict[tuple[int, int], Tensor] | None = {} if keep else None

    def __len__(self) -> int:
        return len(self.multi)

    def keys(self) -> list[str]:
        """uid of every scene of the split."""
        return [scene.clips[0].uid for scene in self.scenes]

    def require(self, static: bool) -> None:
        """As of a `ClipSource`: scenes need no static orbits."""

    def frames_of(self, scene: int) -> np.ndarray:
        """Numbers of the frames that training takes of a clip, in order."""
        return even_frames(len(self.scenes[scene].clips[0].time), self.config.data.frames)

    def c2w(self, scene: int, view: int) -> np.ndarray:
        """[F, 4, 4] of a camera, at the frames that training takes."""
        cameras = self.scenes[scene].clips[view].cameras
        return np.stack([cameras[i].c2w for i in self.frames_of(scene)])

    def caption(self, scene: int) -> str:
        """With the affixes of training."""
        data = self.config.data
        if not data.captions:
            return ""
        return f"{data.caption_prefix}{self.scenes[scene].clips[0].caption or ''}{data.caption_suffix}"

    def video(self, scene: int, view: int) -> Tensor:
        """[F, 3, H, W] in [0, 1], on the background."""
        if self._kept is None:
            return self._read(scene, view)
        if (scene, view) not in self._kept:
            self._kept[scene, view] = (self._read(scene, view) * 255).round().to(torch.uint8)
        return self._kept[scene, view].float() / 255

    def tokens(self, scene: int) -> Tensor | None:
        """[L, D] of the caption, where they are encoded already."""
        return None

    def motion(self, scene: int, view: int, video: Tensor | None = None) -> float:
        """Raw motion magnitude of a clip as the index has it, else of a still camera's `video` (read where it
        is not given); NaN where neither tells."""
        known = self._measured(scene, view)
        if np.isfinite(known) or not is_static(self.scenes[scene].clips[view]):
            return known
        video = self.video(scene, view) if video is None else video
        return float((video - video[:1]).square().mean())

    def _measured(self, scene: int, view: int) -> float:
        """The index' own number, NaN where it has none."""
        known = self.scenes[scene].clips[view].measures.get("motion_magnitude")
        return float("nan") if known is None else float(known)

    def _pixels(self, scene: int, view: int) -> tuple[np.ndarray, float]:
        """Frames [F, H, W, 4] uint8 of a clip as they are stored, and their rate."""
        row = self.index.row(self.scenes[scene].rows[view])
        clip = row_clip(row, read_members(self.index.shard_store, row))
        span = clip.seconds[-1] - clip.seconds[0]
        return clip.pixels(), (len(clip.seconds) - 1) / span if span > 0 else self.config.data.fps

    def _read(self, scene: int, view: int) -> Tensor:
        rgba = self._pixels(scene, view)[0][self.frames_of(scene)]
        values = torch.from_numpy(np.ascontiguousarray(rgba)).permute(0, 3, 1, 2).float() / 255
        rgb = over(values[:, :3], values[:, 3:], self.colour)
        return fitted(
            rgb, self.config.views.width or self.config.data.resolution, self.config.data.resolution
        )

    def sources(self) -> dict[Identity, str]:
        """(name, action_index, orbit) of every clip, and the hash of its frames."""
        found = {}
        for scene in self.scenes:
            for clip, row in zip(scene.clips, scene.rows):
                sha = self.index.row(row, ["sha256"])["sha256"]
                found[identity_of(scene, clip.action_index, clip.orbit)] = str(sha)
        return found


def identity_of(scene: Scene, action_index: int, orbit: int) -> Identity:
    """Of one clip in a latent cache; the scene's name holds uid, rig, light and draw."""
    return (scene.name, action_index, orbit)


def fitted(rgb: Tensor, width: int, height: int) -> Tensor:
    """[F, 3, H, W] as wide as asked, cut in height about the centre: a wider image crops the square sensor.
    InputError where the images are not high enough."""
    h, w = rgb.shape[-2:]
    high = round(h * width / w)
    if high < height:
        raise InputError(f"images of {w}x{h} hold no {width}x{height}; set views.width lower")
    if (high, width) != (h, w):
        rgb = smooth(rgb, (high, width))
    top = (high - height) // 2
    return rgb[..., top : top + height, :]


class CachedScenes(SceneClips):
    """The same with latents from a cache, frames first [n, C, h, w]."""

    is_latent = True

    def __init__(self, cache: LatentCache, dataset: str, config: TrainConfig, split: str) -> None:
        from orbit4d.model.data.latent_cache import missing_or_stale

        super().__init__(dataset, config, split)
        self.cache, self.rows = cache, cache.rows()
        stale = missing_or_stale(self.rows, self.sources())
        if stale:
            raise InputError(
                f"{dataset}: the latents of {len(stale)} clips are missing or stale (first: {stale[0][0]}): "
                "run `orbit4d encode` again with the same settings, or set data.latents=fly"
            )

    def _tensors(self, scene: int, view: int) -> Mapping[str, Tensor]:
        clip = self.scenes[scene].clips[view]
        return self.cache.read(self.rows[identity_of(self.scenes[scene], clip.action_index, clip.orbit)])

    def video(self, scene: int, view: int) -> Tensor:
        return self._tensors(scene, view)["frames"].float()

    def motion(self, scene: int, view: int, video: Tensor | None = None) -> float:
        known = self._measured(scene, view)
        found = self._tensors(scene, view).get("motion")
        return known if found is None or np.isfinite(known) else float(found)

    def tokens(self, scene: int) -> Tensor | None:
        found = self._tensors(scene, 0).get("text")
        return None if found is None else found.float()


def open_scenes(dataset: str, config: TrainConfig, frozen: Any, split: str, training: bool) -> SceneClips:
    """Scenes of a split, from the cache where the settings ask for it and it is there. InputError for a
    training split without a scene of enough views, naming how many have fewer."""
    from orbit4d.model.data.latent_cache import LatentCache

    mode = config.data.latents
    source: SceneClips | None = None
    if mode in ("auto", "cache"):
        cache = LatentCache.find(dataset, config, frozen)
        if cache is not None:
            source = CachedScenes(cache, dataset, config, split)
        elif mode == "cache":
            raise InputError(f"{dataset}: holds no latents of these settings: run `orbit4d encode` first")
    source = source or SceneClips(dataset, config, split, keep=mode == "memory")
    if training:
        if not source.multi and config.views.multi:
            raise InputError(
                f"{dataset}: no scene of the {split} split has {config.views.count} views "
                f"({source.too_few} have fewer): render a rig such as sync:6, or set views.count lower"
            )
        if source.moved:
            print(f"note: the background of {source.moved} clips of still cameras moves: left out as singles")
        if source.too_few:
            print(f"note: {source.too_few} scenes have fewer than {config.views.count} views: left out")
    return source
