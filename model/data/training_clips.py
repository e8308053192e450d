"""Training clips: which one comes when, which of its frames, and what is left out of it.

Everything random about a sample is a function of (seed, stage, number of the sample), drawn when the sample
is loaded. So a run is the same for any number of loader workers, and a resumed one needs no loader state:
the step number says it all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, default_collate

from orbit4d.datasets.loader.order import contiguous, permutation
from orbit4d.model.config.settings import DataSettings, LossSettings, Stage
from orbit4d.model.network.cameras import shown_frames, videomv_cameras

#: The world seen in a mirror that swaps left and right.
_MIRROR = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=torch.float64))


class ClipSource(Protocol):
    """Clips by number, frames first. A clip is a dictionary with

    dynamic, static   [N, 3, H, W] pixels in [0, 1] or [N, C, h, w] latents; static may be absent
    c2w               [N, 4, 4] float64
    motion_frames     [N] mean squared difference of dynamic and static per frame, on white; NaN if unknown
    text              [L, D] tokens of the caption, absent without a text encoder
    focal             [] float64, horizontal focal length over the width; absent where unknown
    caption           str, where text is not encoded yet
    first_dynamic, first_static   [N, C, h, w] latents of the first view followed by grey, of Wan's cache
    image_dynamic     [D] image vector of the first view; image_static [N, D] of every static view; both
                      absent without an image encoder, or where they are not encoded yet
    """

    is_latent: bool

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...

    def motion_frames(self, index: int) -> Tensor:
        """The entry of that name, cheaper than the whole clip where it can be."""
        ...

    def require(self, static: bool) -> None:
        """InputError when `static` orbits are needed and a clip has none."""
        ...

    def keys(self) -> list[str]:
        """uid of every clip."""
        ...


@dataclass(frozen=True)
class Draw:
    """One request to the loader: the clip, and the number that all of the sample's randomness hangs on."""

    index: int
    number: int


def epoch_order(n: int, seed: int, stage: int, epoch: int) -> np.ndarray:
    """Permutation of n clips, the same on every machine."""
    return permutation(n, seed, stage, epoch, 0x0BB17)


class StepBatches(Sampler[list[Draw]]):
    """Micro-batches of this process from a given optimizer step on, without end.

    Sample k of a stage is entry k mod n of epoch k // n. Step s takes samples s*G to (s+1)*G of all;
    micro-batch a of process r takes its own contiguous share, so that the union over processes does not
    depend on how many there are.
    """

    def __init__(
        self,
        n: int,
        seed: int,
        stage: int,
        batch: int,
        accumulate: int,
        rank: int,
        world: int,
        start_step: int,
    ) -> None:
        if n < 1:
            raise ValueError("no clips to draw from")
        self.n, self.seed, self.stage = n, seed, stage
        self.batch, self.accumulate, self.rank, self.world = batch, accumulate, rank, world
        self.start_step = start_step

    def __iter__(self) -> Iterator[list[Draw]]:
        step, cached = self.start_step, (-1, np.empty(0, dtype=np.int64))
        while True:
            first = step * self.batch * self.accumulate * self.world
            for micro in range(self.accumulate):
                begin = first + micro * self.world * self.batch
                draws = []
                for number in contiguous(begin, self.batch, self.rank, self.world):
                    epoch, position = divmod(number, self.n)
                    if cached[0] != epoch:
                        cached = (epoch, epoch_order(self.n, self.seed, self.stage, epoch))
                    draws.append(Draw(int(cached[1][position]), number))
                yield draws
            step += 1


class TrainingClips(Dataset[dict[str, Any]]):
    """Turns a `Draw` into one training sample of a stage.

    target [F, C, H, W]   what is to be generated          static [F, C, H, W]  its static orbit, or NaN-free
    zeros has_static []         whether `static` is real         camera [F, 16]       row-major c2w in
    VideoMV's world motion []             raw m, NaN where none        true_motion []       raw m of the
    target, NaN if unknown timestep_u []         uniform in [0, 1)                seed []              of the
    noise see_static []         the image branch is given the whole static orbit
    keep_text, keep_image []   False where dropped         text, image          as in the source
    """

    def __init__(
        self,
        source: ClipSource,
        data: DataSettings,
        loss: LossSettings,
        stage: Stage,
        seed: int,
        key: int,
        stride: int = 1,
    ):
        self.source, self.data, self.loss, self.stage = source, data, loss, stage
        self.seed, self.key = seed, key
        self.shown = shown_frames(data.frames, stride)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, self.key, draw.number])
        clip = self.source[draw.index]
        still = "static" in clip and (self.stage.name == "static" or rng.random() < self.stage.static_share)
        if self.stage.name == "static" and "static" not in clip:
            raise ValueError("a static stage was given a clip without a static orbit")
        frames, mirror = choose_frames(len(clip["c2w"]), self.data, still, rng)
        closed = self.shown > self.data.frames
        sample = cut(clip, frames, still, mirror and not self.source.is_latent, closed)
        # Drawn for every sample, used or not, so that the stream does not shift with the settings.
        motion = sample["true_motion"]
        drop_motion, drop_text, drop_image, timestep_u, see_static = rng.random(5)
        other, seed = rng.integers(len(self.source)), rng.integers(2**62)
        if self.loss.shuffle_motion and not still:
            motion = self._motion_of(int(other))
        given = self.stage.name == "dynamic" and drop_motion >= self.loss.drop_motion
        sample["motion"] = motion if given else torch.full_like(motion, float("nan"))
        sample["keep_text"] = torch.tensor(bool(drop_text >= self.loss.drop_caption))
        sample["keep_image"] = torch.tensor(bool(drop_image >= self.loss.drop_image))
        share = self.data.static_condition * self.stage.condition_scale
        sample["see_static"] = torch.tensor(bool(see_static < share and "static" in clip))
        sample["timestep_u"] = torch.tensor(timestep_u ** (1.0 / self.loss.noise_bias))
        sample["seed"] = torch.tensor(int(seed))
        return sample

    def _motion_of(self, index: int) -> Tensor:
        """Raw m [] of a clip over evenly spread frames."""
        per_frame = self.source.motion_frames(index)
        chosen = torch.from_numpy(even_frames(len(per_frame), self.data.frames))
        return per_frame[chosen].mean().to(torch.float32)


def choose_frames(
    n: int, data: DataSettings, still: bool, rng: np.random.Generator
) -> tuple[np.ndarray, bool]:
    """Indices of the frames of one sample, in order, and whether it is mirrored.

    Without augmentation: `data.frames` spread evenly over the clip, the first one first. A still orbit may
    start anywhere and turn the other way, since no time runs in it; a dynamic clip keeps its clock.
    """
    frames = even_frames(n, data.frames)
    arc, roll, reverse, mirror = rng.random(4)
    if "arc" in data.augment and arc < 0.3 and n // data.frames > 1:
        frames = np.arange(data.frames) * int(rng.integers(1, n // data.frames + 1))
    if still and "roll" in data.augment and roll < 0.5:
        frames = (frames + int(rng.integers(n))) % n
    if still and "reverse" in data.augment and reverse < 0.25:
        frames = frames[::-1]
    return frames, "mirror" in data.augment and mirror < 0.5


def even_frames(n: int, count: int) -> np.ndarray:
    """`count` of n frame numbers, evenly spread, starting at 0 (an open orbit stays open)."""
    if count > n:
        raise ValueError(f"{count} frames asked of a clip of {n}")
    return np.arange(count) * n // count


def cut(
    clip: Mapping[str, Any], frames: np.ndarray, still: bool, mirror: bool = False, closed: bool = False
) -> dict[str, Tensor]:
    """The chosen frames of a clip as target, static orbit, cameras and motion (see `TrainingClips`).

    `closed`: the first frame comes again at the end. Latents that stand for several frames are taken whole:
    they were made of these frames.

    `mirror` swaps left and right of the pixels and of the world (x to -x), which is a true view of the
    mirrored object; it is not defined on latents.
    """
    # Negative strides (a reversed orbit) are not accepted by torch.
    index = torch.from_numpy(np.ascontiguousarray(frames))
    shown = torch.cat([index, index[:1]]) if closed else index
    has_static = "static" in clip
    whole = len(clip["dynamic"]) != len(clip["c2w"])
    taken = slice(None) if whole else shown
    target = clip["static" if still else "dynamic"][taken]
    static = clip["static"][taken] if has_static else torch.zeros_like(target)
    c2w = clip["c2w"][shown]
    if mirror:
        target, static = target.flip(-1), static.flip(-1)
        c2w = _MIRROR @ c2w @ _MIRROR
    motion = torch.zeros(()) if still else clip["motion_frames"][index].mean()
    sample = {
        "target": target,
        "static": static,
        "has_static": torch.tensor(has_static),
        "camera": videomv_cameras(c2w),
        "true_motion": motion.to(torch.float32),
    }
    if "text" in clip:
        sample["text"] = clip["text"]
    first = "first_static" if still else "first_dynamic"
    if first in clip:
        sample["first"] = clip[first][taken]
    if "caption" in clip:
        sample["caption"] = clip["caption"]
    if "image_static" in clip and still:
        sample["image"] = clip["image_static"][int(frames[0])]
    elif "image_dynamic" in clip:
        sample["image"] = clip["image_dynamic"]
    return sample


def noise_like(latents: Tensor, seeds: Tensor, offset: float = 0.0) -> Tensor:
    """Standard normal noise for each sample from its own seed, always drawn on the CPU.

    `offset` adds a component that is constant over each frame and channel (VideoMV's offset noise).
    """
    rows = []
    for seed in seeds.tolist():
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(latents.shape[1:], generator=generator)
        if offset:
            noise += offset * torch.randn((*latents.shape[1:3], 1, 1), generator=generator)
        rows.append(noise)
    return torch.stack(rows).to(latents)


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack tensors; keep captions as a list."""
    captions = [sample.pop("caption", "") for sample in samples]
    return default_collate(samples) | {"caption": captions}
