"""The torch dataset: orbits with their static orbit, front view, cameras, times and captions."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from orbit4d.datasets.added.rows import clip_sample
from orbit4d.datasets.core.damage import reading
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.codec import decode_clip
from orbit4d.datasets.images.over import colour_of
from orbit4d.datasets.images.resize import smooth
from orbit4d.datasets.index.details import Details, DetailsCache
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.index.reader import read_span
from orbit4d.datasets.index.where import matching
from orbit4d.datasets.loader.epoch import loading_epoch
from orbit4d.datasets.loader.planes import clip_planes
from orbit4d.datasets.loader.samples import RIG_OF, OrbitSample, group
from orbit4d.datasets.loader.surfaces import SurfaceSource, geometry_kinds, with_geometry
from orbit4d.datasets.store.passes import PASSES, missing_pass, pass_names, pass_planes
from orbit4d.datasets.store.schema import SPLITS

#: Keeps what is computed from a sample apart for each light, where it is known by three numbers.
LIGHT_STRIDE = 1 << 20

Background = str | Sequence[int]


class OrbitDataset(Dataset[OrbitSample]):
    """Samples over (uid, action, orbit, light) of a dataset at a path or URI.

    Item i is a dictionary (`OrbitSample`) of

    - `uid`, `action`, `action_index`, `orbit`, `split`, `caption`, `light`
    - `dynamic` [F,3,H,W] float32 in [0,1] on the background; `alpha_dynamic` [F,1,H,W]
    - `c2w` [F,4,4] float32, OpenGL axes (see cameras/camera.py); `K` [F,3,3] in pixels; `time` [F] in [0,1]
    - `static`, `alpha_static`, where there is a static orbit
    - `front`, `alpha_front`, `front_c2w` [F,4,4], `front_K` [F,3,3], `front_time` [F], where there is a
      front view
    - `motion_magnitude` [], where it was measured
    - `depth_dynamic`, `normal_static`, `mask_front`, ... [F,C,H,W]: the stored passes that `passes` asks for
    - what `geometry` asks for, of each clip, derived from the stored surfaces at the delivered size:
      `flow_dynamic` [F-1,2,H,W] float32, pixels, u right and v down, from each frame to the next, with
      `flow_visible_dynamic` [F-1,1,H,W] bool; `scene_flow_dynamic` [F-1,3,H,W] float32, clip units;
      `tracks_dynamic` [N,F,2] float32, pixels (centres at +0.5), with `tracks_xyz_dynamic` [N,F,3] in the
      clip's world and `tracks_visible_dynamic` [N,F] bool; `pointmap_dynamic` [F,3,H,W] float32 in the
      clip's world, 0 where nothing (`pointmap_camera`, `pointmap_first`: OpenCV axes of each frame's, or the
      first, camera); `depth_dynamic` [F,1,H,W], inf where nothing; `normal_dynamic` [F,3,H,W], world, of the
      triangles; `nocs_dynamic` [F,3,H,W] in [0,1]; `object_dynamic`, `material_dynamic`, `triangle_dynamic`
      [F,1,H,W] int64, -1 where nothing

    `c2w`, `K` and `time` are those of the dynamic orbit, else of the static one, else of the front view.

    Args:
        path: of a dataset, or its URI.
        where: SQL expression on the index (see index/where.py), looked up in the dynamic orbit's row, or else
            the static one's, or the front view's.
        split: train, validation, test, or None for all.
        background: white, grey (128), black, random (a colour per sample and epoch), "#rrggbb", or
            (r, g, b) of 0-255.
        size: edge in pixels to resize to, or (width, height); K follows; None keeps what is stored.
        require: clips a sample must have, of dynamic, static, front; others are given where they exist.
        passes: stored passes to deliver for each clip, as `<pass>_<clip>`: depth float32, inf where nothing
            is hit; normal float32; mask int64; resized by the nearest pixel. Units and axes: store/passes.py.
        seed: of the random backgrounds.
        geometry: kinds to derive: flow, scene_flow, tracks, pointmap, pointmap_camera, pointmap_first, depth,
            normal, nocs, object, material, triangle. Samples whose action has no geometry, or had it
            refused, are left out; `left_out` counts them by reason.
        track_points: points that `tracks` follows, drawn again for each sample and epoch.
        threads: decode the frames of an item side by side; loader workers are the other way to use cores.

    InputError for an unknown split, background, clip name or column, and for a pass that is not stored. Each
    clip is one ranged read, its passes another.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        where: str | None = None,
        split: str | None = None,
        background: Background = "white",
        size: int | tuple[int, int] | None = None,
        require: Sequence[str] = ("dynamic",),
        seed: int = 0,
        threads: int = 1,
        passes: Sequence[str] = (),
        geometry: Sequence[str] = (),
        track_points: int = 256,
    ) -> None:
        if split is not None and split not in SPLITS:
            raise InputError(f"split={split!r}: known are {', '.join(SPLITS)}")
        self.index = Index(path)
        self.background, self.seed, self.threads = _colour(background), seed, threads
        self.size = (size, size) if isinstance(size, int) else size
        keys = self.index.keys
        samples = group(keys, require)
        if split is not None:
            samples = samples.take(keys.split[keys.asset[samples.anchor]] == SPLITS.index(split))
        if where is not None:
            samples = samples.take(matching(self.index, where)[samples.anchor])
        self.passes = pass_names(passes)
        self.geometry = geometry_kinds(geometry, self.passes)
        self.left_out: dict[str, int] = {}
        if self.geometry:
            samples, self.left_out = with_geometry(self.index, samples)
            if self.left_out and not len(samples):
                why = ", ".join(f"{reason} {count}" for reason, count in self.left_out.items())
                raise InputError(f"{self.index.store.uri}: no sample has geometry ({why})")
        self.samples = samples
        self.surfaces = SurfaceSource(self.index, self.geometry, track_points)
        self.details = DetailsCache(self.index, passes=self.passes)
        if self.passes and len(self.samples):
            first = int(self.samples.anchor[0])
            for name in self.passes:
                if name not in self.details[first].passes:
                    self._added(first, name)
        # Shared memory, so that workers of a plain DataLoader that are kept alive see the next epoch too.
        # Where there is no room for a number, there is none for what workers would send either.
        self._epoch = torch.zeros(1, dtype=torch.int64)
        with contextlib.suppress(RuntimeError, OSError):
            self._epoch.share_memory_()
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": None}

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def uids(self) -> list[str]:
        """[len] uid of each sample."""
        keys = self.index.keys
        return keys.uids.take(keys.asset[self.samples.anchor]).to_pylist()

    def sources(self) -> dict[tuple[str, int, int], str]:
        """(uid, action_index, orbit) of each sample, in order, to a hash of its stored dynamic and static
        frames. Under light n the orbit is counted from n · LIGHT_STRIDE.

        What was computed from a sample is stale once this hash changes.
        """
        keys, s = self.index.keys, self.samples
        stored = [part.column("sha256") for _, part in self.index.read(["sha256"])]
        hashes = np.concatenate([c.to_numpy() for c in stored]) if stored else np.empty(0, object)
        found = {}
        for i, uid in enumerate(self.uids):
            rows = [int(row) for row in (s.dynamic[i], s.static[i]) if row >= 0]
            text = " ".join(hashes[row] for row in rows)
            anchor = s.anchor[i]
            place = int(keys.orbit[anchor]) + LIGHT_STRIDE * int(keys.light[anchor])
            key = (uid, int(keys.action_index[anchor]), place)
            found[key] = hashlib.sha256(text.encode()).hexdigest()
        return found

    def set_epoch(self, epoch: int) -> None:
        """Random backgrounds of another epoch, for a plain DataLoader; its workers see it too. An
        `OrbitLoader` sets the epoch of what it loads itself, behind wrappers as well."""
        self._epoch[0] = epoch

    def __getitem__(self, i: int) -> OrbitSample:
        """Sample `i` (negative ones count from the end) as `OrbitSample` describes it; IndexError past it."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        rows = {
            name: self.details[int(getattr(self.samples, name)[i])]
            for name in RIG_OF
            if getattr(self.samples, name)[i] >= 0
        }
        anchor = next(rows[name] for name in RIG_OF if name in rows)
        facts = ("uid", "action", "action_index", "orbit", "split", "caption", "light")
        item: dict[str, Any] = {fact: getattr(anchor, fact) for fact in facts}
        colour = self._background_of(anchor)
        for name, row in rows.items():
            item[name], item[f"alpha_{name}"] = self._images(row, colour)
            number = int(getattr(self.samples, name)[i])
            item |= {f"{kind}_{name}": planes for kind, planes in self._passes(row, number).items()}
            if self.geometry:
                draw = int.from_bytes(self._draw_of(anchor, "tracks ")[:8], "big")
                item |= self.surfaces.item(number, name, self.size, draw)
        item["c2w"], item["K"], item["time"] = self._geometry(anchor)
        if "front" in rows:
            item["front_c2w"], item["front_K"], item["front_time"] = self._geometry(rows["front"])
        if anchor.motion_magnitude is not None:
            item["motion_magnitude"] = torch.tensor(anchor.motion_magnitude, dtype=torch.float32)
        # Keys are put together from the names of clips and passes, which a checker cannot follow.
        return cast(OrbitSample, item)

    def rgba(self, i: int, clip: str = "dynamic") -> npt.NDArray[np.uint8]:
        """Stored pixels of one clip of a sample: straight RGBA, uint8 [F, H, W, 4].

        InputError where the sample has no such clip.
        """
        number = int(getattr(self.samples, clip)[i])
        if number < 0:
            raise InputError(f"sample {i} has no {clip} clip")
        row = self.details[number]
        data, starts = self._read(row)
        members = [data[a : a + length] for a, length in zip(starts.tolist(), row.lengths.tolist())]
        with reading(self.index.shard_store.path(row.shard)):
            return decode_clip(members, row.size, self._threads())

    def tracks(
        self,
        i: int,
        n: int,
        seed: int = 0,
        clip: str = "dynamic",
        on: Literal["surface", "pixels"] = "surface",
        frame: int = 0,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Points followed through one clip of a sample, at the delivered size.

        (xyz [n,F,3] float32 in the clip's world, pixels [n,F,2] float32, visible [n,F] bool). The points are
        drawn by `seed` evenly over the surface as it lies in `frame`, or with `on="pixels"` among the pixels
        that see something there. InputError for a clip that is not there or has no geometry.
        """
        number = int(getattr(self.samples, clip)[i])
        if number < 0:
            raise InputError(f"sample {i} has no {clip} clip")
        xyz, pixels, visible = self.surfaces.clip(number, self.size).tracks(n, seed, on, frame)
        return torch.from_numpy(xyz), torch.from_numpy(pixels), torch.from_numpy(visible)

    def _read(self, row: Details) -> tuple[bytes, npt.NDArray[np.int64]]:
        """(bytes that hold a clip's frames, where each begins in them)."""
        start = int(row.offsets.min())
        end = int((row.offsets + row.lengths).max())
        return read_span(self.index.shard_store, row.shard, start, end), row.offsets - start

    def _threads(self) -> ThreadPoolExecutor | None:
        if self.threads <= 1:
            return None
        # Threads do not survive a fork into a loader worker.
        if self._pool is None or self._pool[0] != os.getpid():
            self._pool = (os.getpid(), ThreadPoolExecutor(self.threads))
        return self._pool[1]

    def _images(self, row: Details, colour: tuple[float, float, float]) -> tuple[Tensor, Tensor]:
        data, starts = self._read(row)
        with reading(self.index.shard_store.path(row.shard)):
            planes = clip_planes(data, starts, row.lengths, row.size, colour, self._threads(), self.threads)
        rgb, alpha = (torch.from_numpy(plane) for plane in planes)
        if self.size is None or self.size == row.size:
            return rgb, alpha
        size = (self.size[1], self.size[0])
        # On one background compositing and resizing commute, so this equals resizing premultiplied colour.
        return smooth(rgb, size), smooth(alpha, size)

    def _passes(self, row: Details, number: int) -> dict[str, Tensor]:
        """The passes asked for of index row `number`, [F, C, H, W] each, by one read."""
        if not self.passes:
            return {}
        beside = {name: self._added(number, name) for name in self.passes if name not in row.passes}
        found = {
            name: torch.from_numpy(pass_planes(members, name, self.size or row.size))
            for name, members in beside.items()
        }
        spans = {name: span for name, span in row.passes.items() if name in self.passes}
        if not spans:
            return found
        start = min(int(offsets.min()) for offsets, _ in spans.values())
        end = max(int((offsets + lengths).max()) for offsets, lengths in spans.values())
        data = read_span(self.index.shard_store, row.shard, start, end)
        for name, (offsets, lengths) in spans.items():
            members = [data[a - start : a - start + n] for a, n in zip(offsets.tolist(), lengths.tolist())]
            found[name] = torch.from_numpy(pass_planes(members, name, self.size or row.size))
        return found

    def _added(self, number: int, name: str) -> list[bytes]:
        """Members of a pass that lies beside the clip of row `number`; InputError where there is none."""
        row = self.index.row(number, ("uid", "action_index", "rig", "orbit", "passes"))
        found = self.index.added.row(row["uid"], clip_sample(row), name) if name in PASSES else None
        if found is None:
            beside = [r["kind"] for r in self.index.added.rows_of(row["uid"]) if r["kind"] in PASSES]
            stored = {*(kind for kind, _ in row["passes"] or []), *beside}
            where = (
                f"{self.index.store.uri}: {row['uid']}, action {row['action_index']}, orbit {row['orbit']}"
            )
            raise InputError(missing_pass(where, name, stored))
        return self.index.added.members(found)

    def _geometry(self, row: Details) -> tuple[Tensor, Tensor, Tensor]:
        """(c2w [F, 4, 4], K [F, 3, 3] of the delivered size, time [F])."""
        w, h = self.size or row.size
        x, y = w / row.size[0], h / row.size[1]
        fl_x, fl_y, cx, cy = row.intrinsics
        K = np.empty((len(row.c2w), 3, 3), np.float32)
        K[:] = ((fl_x * x, 0.0, cx * x), (0.0, fl_y * y, cy * y), (0.0, 0.0, 1.0))
        # Copies: the details are shared between samples.
        c2w, time = row.c2w.copy(), row.time.copy()
        return torch.from_numpy(c2w), torch.from_numpy(K), torch.from_numpy(time)

    def _background_of(self, row: Details) -> tuple[float, float, float]:
        if self.background is not None:
            return self.background
        r, g, b = self._draw_of(row)[:3]
        return (r / 255, g / 255, b / 255)

    def _draw_of(self, row: Details, purpose: str = "") -> bytes:
        """Random bytes of a sample in this epoch."""
        epoch = loading_epoch()
        epoch = int(self._epoch[0]) if epoch is None else epoch
        name = f"{purpose}{self.seed} {epoch} {row.uid} {row.action_index} {row.orbit}"
        return hashlib.sha256(name.encode()).digest()


def _colour(background: Background) -> tuple[float, float, float] | None:
    """RGB in [0, 1]; None for random."""
    if isinstance(background, str):
        if background == "random":
            return None
        if (named := colour_of(background)) is not None:
            r, g, b = named
            return (r / 255, g / 255, b / 255)
    elif len(background) == 3 and all(0 <= value <= 255 for value in background):
        r, g, b = background
        return (r / 255, g / 255, b / 255)
    raise InputError(
        f"background={background!r}: give white, grey, black, random, '#rrggbb', or three values of 0 to 255"
    )
