"""Measures pairs of clips one at a time, batched inside, with a bounded number of frames in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.lpips import LPIPS
from orbit4d.datasets.images.metric_weights import I3D_KINETICS, LPIPS_ALEX, LPIPS_VGG, NotMeasured, fetch
from orbit4d.evaluate.metrics import pixel
from orbit4d.evaluate.metrics.clip_score import DEFAULT_MODEL, ClipScore
from orbit4d.evaluate.metrics.frechet import Moments, frechet_distance, fvd_forms
from orbit4d.evaluate.metrics.i3d import I3D
from orbit4d.evaluate.metrics.lpips import FastLPIPS
from orbit4d.evaluate.metrics.registry import CLIP_OF_RIG, FVD_OF_RIG


@dataclass
class Pair:
    """A clip and what it should have been: RGB [F, 3, H, W] on white, alpha [F, 1, H, W], in [0, 1]."""

    name: str
    rig: str
    rgb: Tensor
    """What was made, [F, 3, H, W]."""
    truth: Tensor
    """What it should have been, [F, 3, H, W]."""
    alpha: Tensor | None = None
    """[F, 1, H, W], where both are known: for the IoU of silhouettes."""
    truth_alpha: Tensor | None = None
    """[F, 1, H, W]"""
    condition: Tensor | str | None = None
    """What the clip was made from, an image [3, H, W] or a text: for CLIP similarity."""
    similarity_only: bool = False
    """Measure CLIP similarity alone: `truth` is only shown beside."""
    static: Tensor | None = None
    """Static orbit at the same cameras: for motion magnitude."""
    grid: tuple[int, int] | None = None
    """(V, T): the frames are a view x time matrix, view by view."""
    fvd: bool = True
    """Whether the clip takes part in FVD."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Numbers measured elsewhere (generation time, held-out view, ...)."""


#: Features of one video and of its truth, [400] each.
Features = tuple[list[float], list[float]]


@dataclass
class Row:
    """What was measured on one pair."""

    name: str
    rig: str
    values: dict[str, float]
    per_frame: dict[str, list[float]]
    features: dict[str, list[Features]] = field(default_factory=dict)
    """I3D features by form of FVD: a matrix has many videos of one form."""
    extra: dict[str, Any] = field(default_factory=dict)
    frames: int = 0
    size: tuple[int, int] = (0, 0)
    """Height and width in pixels."""


class Suite:
    """The metrics that can be measured here. What cannot is named, with the reason, in `unmeasured`."""

    def __init__(
        self,
        weights: str | Path | None = None,
        clip: str = DEFAULT_MODEL,
        fetch_weights: bool = False,
        device: str = "cpu",
        batch: int = 8,
        learned: bool = True,
    ) -> None:
        self.device, self.batch = torch.device(device), batch
        self.unmeasured: dict[str, str] = {}
        self.weights: dict[str, str] = {}
        """SHA-256 of what each learned metric computes with."""
        self.lpips: dict[str, FastLPIPS] = {}
        self.i3d: I3D | None = None
        self.clip: ClipScore | None = None
        if not learned:
            self.unmeasured = dict.fromkeys(
                ("LPIPS-alex", "LPIPS-vgg", "FVD", "CLIP"), "left out with --no-learned"
            )
            return
        folder = Path(weights) if weights else None
        for net, pinned in (("alex", LPIPS_ALEX), ("vgg", LPIPS_VGG)):
            with self._noting(f"LPIPS-{net}"):
                if fetch_weights:
                    fetch(pinned, folder)
                self.lpips[net] = FastLPIPS(LPIPS.from_weights(net, folder).to(self.device))
                self.weights[f"LPIPS-{net}"] = pinned.sha256
        with self._noting("FVD"):
            if fetch_weights:
                fetch(I3D_KINETICS, folder)
            self.i3d = I3D.from_weights(folder).to(self.device)
            self.weights["FVD"] = I3D_KINETICS.sha256
        with self._noting("CLIP"):
            self.clip = ClipScore.from_pretrained(clip, fetch_weights).to(self.device)
            self.weights["CLIP"] = self.clip.digest()

    def _noting(self, name: str) -> _Noting:
        return _Noting(self.unmeasured, name)

    @torch.no_grad()
    def measure(self, pair: Pair) -> Row:
        """Every metric of one pair. Raises InputError when the two clips differ in length or size."""
        rgb, truth = pair.rgb.to(self.device), pair.truth.to(self.device)
        if rgb.shape != truth.shape:
            raise InputError(
                f"{pair.name}: {_shape(rgb)} against a truth of {_shape(truth)}; "
                "render the truth with the same number of frames and the same resolution"
            )
        frames: dict[str, list[Tensor]] = {}
        if pair.similarity_only:
            return self._similarity(pair, rgb)
        for part in _chunks(len(rgb), self.batch):
            a, b = rgb[part], truth[part]
            frames.setdefault("PSNR", []).append(pixel.psnr(a, b))
            frames.setdefault("SSIM", []).append(pixel.ssim(a, b))
            for net, lpips in self.lpips.items():
                if min(a.shape[-2:]) >= 32:
                    frames.setdefault(f"LPIPS-{net}", []).append(lpips(a, b))
            if self.clip is not None:
                images = self.clip.images(a)
                frames.setdefault("CLIP-S", []).append((images * self.clip.images(b)).sum(-1))
                if pair.condition is not None:
                    name = CLIP_OF_RIG.get(pair.rig, "CLIP-O")
                    frames.setdefault(name, []).append(self.clip.scores(images, pair.condition))
            if pair.alpha is not None and pair.truth_alpha is not None:
                iou = pixel.silhouette_iou(pair.alpha[part], pair.truth_alpha[part])
                frames.setdefault("IoU", []).append(iou)
        per_frame = {name: torch.cat(parts).double().tolist() for name, parts in frames.items()}
        values = {name: float(np.mean(series)) for name, series in per_frame.items()}
        views = rgb.unflatten(0, pair.grid) if pair.grid else rgb[None]
        values["flicker"] = float(np.mean([pixel.flicker(view).item() for view in views]))
        if pair.static is not None and pair.static.shape == rgb.shape:
            values["motion"] = pixel.motion_magnitude(rgb, pair.static.to(self.device)).item()
        features = self._features(pair, rgb, truth)
        extra = pair.extra | ({"grid": list(pair.grid)} if pair.grid else {})
        return Row(pair.name, pair.rig, values, per_frame, features, extra, len(rgb), _size(rgb))

    def _similarity(self, pair: Pair, rgb: Tensor) -> Row:
        """CLIP alone: the paper's 36 views pass through times of which there is no ground truth."""
        name = CLIP_OF_RIG.get(pair.rig, "CLIP-O")
        per_frame: dict[str, list[float]] = {}
        if self.clip is not None and pair.condition is not None:
            scores = [self.clip(rgb[part], pair.condition) for part in _chunks(len(rgb), self.batch)]
            per_frame[name] = torch.cat(scores).double().tolist()
        values = {key: float(np.mean(series)) for key, series in per_frame.items()}
        return Row(pair.name, pair.rig, values, per_frame, {}, pair.extra, len(rgb), _size(rgb))

    def _features(self, pair: Pair, rgb: Tensor, truth: Tensor) -> dict[str, list[Features]]:
        if self.i3d is None or not pair.fvd:
            return {}
        if pair.grid is not None:
            ours, theirs = (fvd_forms(video.unflatten(0, pair.grid)) for video in (rgb, truth))
        elif pair.rig in FVD_OF_RIG:
            form = FVD_OF_RIG[pair.rig]
            ours, theirs = {form: rgb[None]}, {form: truth[None]}
        else:
            return {}
        found: dict[str, list[Features]] = {}
        for form, videos in ours.items():
            if videos.shape[1] < self.i3d.min_frames:
                # Fewer frames leave nothing for the network's last pooling over time.
                continue
            for made, real in zip(videos, theirs[form]):
                both = self.i3d(torch.stack([made, real]))
                found.setdefault(form, []).append((both[0].double().tolist(), both[1].double().tolist()))
        return found


class _Noting:
    """Turns NotMeasured inside a `with` into a note."""

    def __init__(self, notes: dict[str, str], name: str) -> None:
        self.notes, self.name = notes, name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, trace: object) -> bool:
        if isinstance(error, NotMeasured):
            self.notes[self.name] = str(error)
            return True
        return False


def summarise(rows: Iterable[Row]) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Means over the clips of each rig, with FVD over their sets; and why a form of FVD has no number.

    Rows may be read one at a time: what is kept does not grow with them. Clips of one rig weigh the same
    whatever their length. PSNR is the mean of per-frame dB.
    """
    columns: dict[str, dict[str, list[float]]] = {}
    moments: dict[tuple[str, str], tuple[Moments, Moments]] = {}
    for row in rows:
        mine = columns.setdefault(row.rig, {})
        numbers = {k: v for k, v in row.extra.items() if isinstance(v, float)}
        for name, value in {**row.values, **numbers}.items():
            total = mine.setdefault(name, [0.0, 0.0])
            total[0] += value
            total[1] += 1
        for form, videos in row.features.items():
            width = len(videos[0][0])
            ours, theirs = moments.setdefault((row.rig, form), (Moments(width), Moments(width)))
            ours.update([made for made, _ in videos])
            theirs.update([truth for _, truth in videos])
    summary = {
        rig: {name: total / count for name, (total, count) in sorted(mine.items())}
        for rig, mine in columns.items()
    }
    lacking: dict[str, str] = {}
    for (rig, form), (ours, theirs) in moments.items():
        if ours.count < 2:
            lacking[f"{form} ({rig})"] = "one video; a distance of two sets needs two videos or more"
        else:
            distance = frechet_distance(ours.mean, ours.covariance, theirs.mean, theirs.covariance)
            summary[rig][form] = distance
    return summary, lacking


def _chunks(n: int, size: int) -> Iterator[slice]:
    return (slice(i, i + size) for i in range(0, n, size))


def _shape(video: Tensor) -> str:
    return f"{video.shape[0]} frames of {video.shape[3]}x{video.shape[2]}"


def _size(video: Tensor) -> tuple[int, int]:
    return video.shape[-2], video.shape[-1]
