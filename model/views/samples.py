"""One training sample of synchronised views: which kind, which cameras, which noise level.

As of single clips (data/training_clips.py), everything random is a function of (seed, stage, number of the
sample), for any number of workers and processes; the curriculum follows the number too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from orbit4d.model.config.settings import TrainConfig, ViewSettings
from orbit4d.model.data.training_clips import Draw
from orbit4d.model.diffusion.flow import TRAIN_STEPS
from orbit4d.model.network.cameras import latent_frames, view_cameras
from orbit4d.model.views.scenes import SceneClips

#: Kinds of sample, in the order of their shares.
KINDS = ("multi", "images", "single")
_MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])


def shares_of(views: ViewSettings, counts: Mapping[str, int]) -> np.ndarray:
    """Share of each kind [3]; a kind that the dataset lacks hands its share to the others. ValueError where
    none is left."""
    shares = np.array([getattr(views, kind) if counts[kind] else 0.0 for kind in KINDS])
    if not shares.sum():
        raise ValueError("no kind of sample has a share and clips")
    return shares / shares.sum()


def bounds(views: ViewSettings, step: int, steps: int) -> tuple[float, float]:
    """Largest differences of azimuth and elevation, degrees, at a step of a stage."""
    span = views.curriculum * steps
    done = 1.0 if span <= 0 else min(1.0, step / span)
    return (
        views.azimuth_from + done * (views.azimuth_to - views.azimuth_from),
        views.elevation_from + done * (views.elevation_to - views.elevation_from),
    )


def angles_of(c2w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Azimuth and elevation, degrees, of cameras [..., 4, 4] around the origin (`orbit_c2w`)."""
    x, y, z = np.moveaxis(c2w[..., :3, 3], -1, 0)
    return np.degrees(np.arctan2(x, -y)), np.degrees(np.arctan2(z, np.hypot(x, y)))


def choose_views(
    c2w: np.ndarray, count: int, azimuth: float, elevation: float, rng: np.random.Generator
) -> tuple[np.ndarray, bool]:
    """(numbers of `count` of the cameras [V, 4, 4], the reference first; whether all lie within the bounds).

    Where fewer do, the nearest ones take their place.
    """
    reference = int(rng.integers(len(c2w)))
    a, e = angles_of(c2w)
    apart = np.abs((a - a[reference] + 180) % 360 - 180), np.abs(e - e[reference])
    excess = np.maximum(apart[0] / max(azimuth, 1e-9), apart[1] / max(elevation, 1e-9))
    others = np.array([k for k in rng.permutation(len(c2w)) if k != reference])
    # Rounding of angles is no excess.
    inside = others[excess[others] <= 1 + 1e-9]
    if len(inside) >= count - 1:
        return np.array([reference, *inside[: count - 1]]), True
    nearest = others[np.argsort(excess[others], kind="stable")]
    return np.array([reference, *nearest[: count - 1]]), False


class TrainingScenes(Dataset[dict[str, Any]]):
    """Turns a `Draw` into a sample of a stage: a dictionary with

    target [V, F, C, H, W]   pixels in [0, 1] or latents       camera [V, n, 12] per latent frame
    level []                 number of the noise level, 0 to 999                seed []  of the noise
    clean []                 whether view 0 is given clean                      kind []  number in KINDS
    motion []                raw motion magnitude of the scene, NaN where there is no condition
    within []                whether the views lie within the curriculum's bounds
    text [L, D], caption     of the scene, as in the source
    """

    def __init__(
        self,
        source: SceneClips,
        config: TrainConfig,
        number: int,
        key: int,
        stride: int = 1,
        plain: bool = False,
    ) -> None:
        self.source, self.config, self.key, self.stride = source, config, key, stride
        self.stage, self.plain = config.stages[number], plain
        counts = {
            "multi": len(source.multi),
            "images": len(source.stills),
            "single": len(source.singles),
        }
        self.shares = np.array([1.0, 0.0, 0.0]) if plain else shares_of(config.views, counts)

    def __len__(self) -> int:
        return max(1, len(self.source))

    def kind_of(self, number: int) -> int:
        """Kind of sample `number`: a draw of its own, so that it needs no clip."""
        u = np.random.default_rng([self.config.seed, self.key, number, 0xC1D]).random()
        return int(np.searchsorted(np.cumsum(self.shares), u, side="right").clip(0, 2))

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        rng = np.random.default_rng([self.config.seed, self.key, draw.number])
        kind = self.kind_of(draw.number)
        level, clean, seed = rng.integers(TRAIN_STEPS), rng.random(), rng.integers(2**62)
        turns, reverse, mirror = rng.permutation(3), rng.random() < 0.5, rng.random() < 0.5
        sample = (self._multi, self._images, self._single)[kind](draw, rng)
        video, c2w = sample.pop("video"), sample.pop("c2w")
        if not self.plain and not self.source.is_latent:
            video, c2w = self._augmented(video, c2w, turns, reverse and kind != 1, mirror)
        frames = latent_frames(c2w.shape[1], self.stride)
        sample["target"] = video
        sample["camera"] = view_cameras(c2w[:, frames], self.config.views.metres_per_unit)
        if kind == 2:
            # Copies of one video: the same camera for all.
            sample["camera"] = sample["camera"][:1].expand_as(sample["camera"]).clone()
        if not self.plain and self._drops_motion(draw.number):
            sample["motion"] = torch.full_like(sample["motion"], float("nan"))
        given = self.plain or clean < self.config.views.reference
        sample["clean"] = torch.tensor(bool(given and kind == 0 and self.stage.name == "views"))
        return sample | {
            "level": torch.tensor(int(level)),
            "seed": torch.tensor(int(seed)),
            "kind": torch.tensor(kind),
        }

    def _drops_motion(self, number: int) -> bool:
        """A draw of its own, so that it changes no other."""
        u = np.random.default_rng([self.config.seed, self.key, number, 0xD0]).random()
        return bool(u < self.config.loss.drop_motion)

    def _multi(self, draw: Draw, rng: np.random.Generator) -> dict[str, Any]:
        scene, views = self.source.multi[draw.index], self.config.views
        usable = self.source.usable[scene]
        clips = self.source.scenes[scene].clips
        first = np.stack([clips[v].cameras[0].c2w for v in usable])
        total, batch = self.stage.steps, self.config.optim.effective_batch
        limits = bounds(views, draw.number // batch, total)
        if self.plain or self.stage.name == "single":
            limits = (180.0, 180.0)
        chosen, within = choose_views(first, views.count, *limits, rng)
        return self._scene(scene, [(scene, usable[v]) for v in chosen.tolist()]) | {
            "within": torch.tensor(within)
        }

    def _single(self, draw: Draw, rng: np.random.Generator) -> dict[str, Any]:
        one = self.source.singles[int(rng.integers(len(self.source.singles)))]
        return self._scene(one[0], [one] * self.config.views.count) | {"within": torch.tensor(True)}

    def _images(self, draw: Draw, rng: np.random.Generator) -> dict[str, Any]:
        """Frames of a static orbit as one-frame videos of as many views."""
        scene = self.source.stills[int(rng.integers(len(self.source.stills)))]
        found = self._scene(scene, [(scene, 0)])
        frames = found["c2w"].shape[1]
        count, stride = self.config.views.count, frames // found["video"].shape[1]
        chosen = rng.permutation(found["video"].shape[1])[:count]
        found["video"] = found["video"][0, chosen].unsqueeze(1)
        found["c2w"] = found["c2w"][0, chosen * stride][:, None]
        # One frame moves as little as its object.
        return found | {"within": torch.tensor(True), "motion": torch.zeros(())}

    def _scene(self, scene: int, views: list[tuple[int, int]]) -> dict[str, Any]:
        found: dict[str, Any] = {
            "video": torch.stack([self.source.video(*one) for one in views]),
            "c2w": np.stack([self.source.c2w(*one) for one in views]),
            "caption": self.source.caption(scene),
        }
        given = [self.source.motion(*one, v) for one, v in zip(views, found["video"])]
        known = [m for m in given if np.isfinite(m)]
        found["motion"] = torch.tensor(float(np.mean(known)) if known else float("nan"))
        tokens = self.source.tokens(scene)
        return found if tokens is None else found | {"text": tokens}

    def _augmented(
        self, video: Tensor, c2w: np.ndarray, turns: np.ndarray, reverse: bool, mirror: bool
    ) -> tuple[Tensor, np.ndarray]:
        """What leaves the geometry true: order of the channels, time reversed, left and right swapped."""
        augment = self.config.data.augment
        if "channels" in augment:
            video = video[:, :, torch.from_numpy(turns)]
        if "reverse" in augment and reverse:
            video, c2w = video.flip(1), c2w[:, ::-1]
        if "mirror" in augment and mirror:
            video, c2w = video.flip(-1), _MIRROR @ c2w @ _MIRROR
        return video, c2w


def collate_scenes(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """{"groups": samples of equal shape stacked}: one-frame samples are batched with their like."""
    groups: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for sample in samples:
        groups.setdefault(tuple(sample["target"].shape), []).append(sample)
    found = []
    for group in groups.values():
        captions = [sample.pop("caption") for sample in group]
        found.append(default_collate(group) | {"caption": captions})
    return {"groups": found}
