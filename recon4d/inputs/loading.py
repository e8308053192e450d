"""What the optimiser fits: images with a matte, a camera and a time each, from whatever the user has.

A video or a folder of images takes the orbit of `datasets.cameras.orbit` (open, or closed as published) or
the cameras of a transforms.json; DATASET:uid[:action] brings its own. A flat background is found and made a
matte (`flat_background.py`); an alpha channel or masks are taken as they are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from orbit4d.datasets.cameras.camera import DEFAULT_FOV_X_DEG, DEFAULT_RADIUS, Camera, orbit, orbit_c2w
from orbit4d.datasets.cameras.lens import Lens, undistorted
from orbit4d.datasets.cameras.posed_frames import Transforms
from orbit4d.datasets.cameras.transforms import find_transforms, read_transforms
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import naturally
from orbit4d.datasets.images.masks import join_masks, mask_files, read_masks
from orbit4d.datasets.images.matting import cut_out
from orbit4d.datasets.images.resize import area
from orbit4d.datasets.store.clip import Clip
from orbit4d.recon4d.inputs.confidence import HIDDEN, read_confidence
from orbit4d.recon4d.inputs.cutting_out import check_content, has_alpha, with_matte
from orbit4d.recon4d.inputs.footage import MAX_EDGE, Footage, read_footage
from orbit4d.recon4d.inputs.footage import MAX_FRAMES as MAX_FRAMES

Float = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Frames:
    """F posed images."""

    rgba: Float
    """[F, H, W, 4] in [0, 1], premultiplied."""
    cameras: tuple[Camera, ...]
    """F cameras of the images' size."""
    time: tuple[float, ...]
    """F times in [0, 1]."""
    name: str
    """Where they came from, for messages."""
    notes: tuple[str, ...] = ()
    """What was estimated on the way in."""
    posed: bool = True
    """Whether the cameras were given, not taken from an `OrbitSpec`."""
    given: int = 0
    """Number of images of the source, before some were left out; 0 is all that are here."""
    labels: tuple[str, ...] = ()
    """F names of the cameras that filmed together; () for one camera."""
    confidence: Float | None = None
    """[F, H, W] in [0, 1], how much each pixel counts in a fit; None: all of them fully."""

    def __len__(self) -> int:
        return len(self.rgba)

    def at_time(self, time: float) -> Frames:
        """The same images, all at one time: a static orbit."""
        return replace(self, time=(time,) * len(self))

    def picked(self, index: Sequence[int]) -> Frames:
        """The images of these places, in this order."""
        cameras, time = tuple(self.cameras[i] for i in index), tuple(self.time[i] for i in index)
        labels = tuple(self.labels[i] for i in index) if self.labels else ()
        sure = None if self.confidence is None else self.confidence[list(index)]
        rgba = self.rgba[list(index)]
        return replace(self, rgba=rgba, cameras=cameras, time=time, labels=labels, confidence=sure, given=0)

    def resized(self, size: int) -> Frames:
        """Area-averaged to `size` pixels on the longer side; smaller images stay."""
        h, w = self.rgba.shape[1:3]
        if max(h, w) <= size:
            return self
        import torch

        nh, nw = max(1, round(h * size / max(h, w))), max(1, round(w * size / max(h, w)))
        planes = torch.from_numpy(self.rgba).permute(0, 3, 1, 2)
        small = area(planes, (nh, nw))
        cameras = tuple(camera.resized(nw, nh) for camera in self.cameras)
        sure = self.confidence
        if sure is not None:
            sure = area(torch.from_numpy(sure)[:, None], (nh, nw))[:, 0].numpy()
        rgba = small.permute(0, 2, 3, 1).contiguous().numpy()
        return replace(self, rgba=rgba, cameras=cameras, confidence=sure)


@dataclass(frozen=True)
class OrbitSpec:
    """Cameras of a video that brings none: a circle, seen from the front first, one view per frame.

    InputError for a radius, field of view or elevation that no orbit has.
    """

    closed: bool = False
    """Last frame repeats the first view (the published orbit)."""
    radius: float = DEFAULT_RADIUS
    """Distance from the origin, world units."""
    fov_x_deg: float = DEFAULT_FOV_X_DEG
    """Horizontal field of view, degrees."""
    elevation_deg: float = 0.0
    """Angle above the horizon, degrees."""
    clockwise: bool = False
    """Which way the camera goes, seen from above."""
    azimuth0_deg: float = 0.0
    """Azimuth of the first view, degrees counter-clockwise from the front."""
    turns: float = 1.0
    """Turns of the camera over the video."""

    def __post_init__(self) -> None:
        if not (0 < self.radius <= 1e6 and 1 <= self.fov_x_deg <= 170 and -89 <= self.elevation_deg <= 89):
            raise InputError(
                f"--radius {self.radius:g} --fov {self.fov_x_deg:g} --elevation {self.elevation_deg:g}: give "
                "a radius above 0, a field of view of 1 to 170 degrees and an elevation of -89 to 89"
            )
        if not 0 < self.turns <= 100:
            raise InputError(f"--turns {self.turns:g}: give a number of turns above 0")

    def cameras(
        self, n: int, w: int, h: int, seconds: npt.NDArray[np.float64] | None = None
    ) -> tuple[Camera, ...]:
        """`n` cameras for images of w x h.

        `seconds` [n] are the time stamps of a video of variable frame rate: its camera turns evenly in time
        and not in frames. The last frame of an open orbit then lasts as long as the median frame.
        """
        around = orbit(n, self.radius, self.elevation_deg, self.fov_x_deg, size=(w, h), closed=self.closed)
        plain = (self.clockwise, self.azimuth0_deg, self.turns) == (False, 0.0, 1.0)
        if seconds is None and plain:
            return tuple(around)
        if seconds is None:
            seconds = np.arange(n, dtype=np.float64)
        gap = 0.0 if self.closed else float(np.median(np.diff(seconds)))
        turns = 360.0 * seconds / (seconds[-1] + gap)
        if not plain:
            turns = self.azimuth0_deg + turns * self.turns * (-1 if self.clockwise else 1)
        return tuple(
            replace(camera, c2w=orbit_c2w(turn, self.elevation_deg, self.radius))
            for camera, turn in zip(around, turns)
        )


def from_clip(clip: Clip) -> Frames:
    """A dataset's clip with its own cameras and times."""
    name = f"{clip.uid}:{clip.action} {clip.rig} {clip.orbit}"
    return Frames(premultiply(clip.pixels()), clip.cameras, clip.time, name)


def premultiply(rgba: npt.NDArray[np.uint8] | Float) -> Float:
    """Straight RGBA, uint8 or float in [0, 1], to premultiplied float32."""
    values = rgba.astype(np.float32) / 255 if rgba.dtype == np.uint8 else rgba.astype(np.float32)
    return np.concatenate([values[..., :3] * values[..., 3:], values[..., 3:]], axis=-1)


def load_frames(
    source: Any,
    cameras: str | Path | Sequence[Camera] | None = None,
    spec: OrbitSpec | None = None,
    mask: str | Path | None = None,
    matte: str = "flat",
    max_edge: int = MAX_EDGE,
    hidden: float = HIDDEN,
) -> Frames:
    """Read a video, a folder of images, a list of image files, a list of images [H, W, 3 or 4] or an array
    [F, H, W, 3 or 4].

    `cameras` is a transforms.json or a list, one per frame; without it the transforms.json that belongs to a
    video or folder is taken (`find_transforms`), else `spec` gives an orbit. Images of a folder and cameras
    belong together by name. A transforms.json may name the `background` that the frames were generated on,
    masks and a lens, which is taken out. `mask` is a folder of masks, one per frame, by name where frames are
    files; without masks and without an alpha channel `matte` says how the object is cut out: "flat" takes a
    flat background off, "rembg" asks a network. Pixels of a novel view count by the confidence that lies
    beside it, `hidden` where its inputs show nothing (`read_confidence`). Images of more than `max_edge`
    pixels on the longer side are reduced. Raises InputError, one line, for what cannot be fitted.
    """
    name = str(source) if isinstance(source, str | os.PathLike) else "the given frames"
    record, notes = _record(source, cameras, spec)
    footage = read_footage(source, name, record, max_edge)
    record, n = footage.record, footage.total
    notes += footage.notes
    if n < 2:
        raise InputError(f"{name}: {n} frame; an orbit needs at least two")
    given = None if cameras is None or isinstance(cameras, str | os.PathLike) else tuple(cameras)
    count = len(record) if record is not None else n if given is None else len(given)
    if count != n:
        where = f" in {record.path}" if record is not None else ""
        raise InputError(f"{name}: {n} frames but {count} cameras{where}; give one camera per frame")
    if (
        record is not None
        and record.files
        and not footage.files
        and naturally(record.files) != [*record.files]
    ):
        notes.append(f"{record.path.name} lists frames in another order than their names: it is the video's")
    time = _times(footage, notes)
    cams = _posed(footage, given, spec)
    pixels = pinhole(footage, cams, notes)
    mattes = _masks(footage, cams, mask, notes)
    if mattes is None and matte == "rembg" and not has_alpha(pixels):
        mattes = cut_out(pixels, name)
        notes.append("matte made by rembg")
    rgba = with_matte(pixels, mattes, record.background if record is not None else None, notes, name)
    check_content(rgba, name)
    if len(rgba) < n:
        notes.append(f"{n} frames: {len(rgba)} of them, evenly spread, are used")
    posed = record is not None or given is not None
    sure = read_confidence(footage, hidden, notes)
    return Frames(premultiply(rgba), cams, time, name, tuple(notes), posed, n, confidence=sure)


def _record(source: Any, cameras: Any, spec: OrbitSpec | None) -> tuple[Transforms | None, list[str]]:
    """The transforms.json that is given, or that belongs to the source; and notes on it."""
    if isinstance(cameras, str | os.PathLike):
        record = read_transforms(cameras)
        return record, list(record.notes)
    found = find_transforms(source) if cameras is None and isinstance(source, str | os.PathLike) else None
    if found is None:
        return None, []
    record = read_transforms(found)
    unused = "" if spec in (None, OrbitSpec()) else "; --orbit, --radius, --fov, --elevation are not used"
    # A folder's own transforms.json is part of what was given; any other was found, which is to be known.
    own = found == Path(source) / "transforms.json" and not unused
    return record, [*([] if own else [f"cameras of {found}{unused}"]), *record.notes]


def _times(footage: Footage, notes: list[str]) -> tuple[float, ...]:
    """Times of the frames that are used: given, by time stamps, or even."""
    record, last = footage.record, footage.total - 1
    if record is not None and record.times is not None:
        every = np.asarray(record.times)
    elif footage.seconds is not None and footage.seconds[-1] > 0:
        every = footage.seconds / footage.seconds[-1]
        notes.append("variable frame rate: times and views follow the time stamps")
    elif footage.places is not None and np.ptp(footage.places) > 0:
        every = (footage.places - footage.places.min()) / np.ptp(footage.places)
    else:
        return tuple(i / last for i in footage.index.tolist())
    return tuple(every[footage.index].tolist())


def _posed(footage: Footage, given: tuple[Camera, ...] | None, spec: OrbitSpec | None) -> tuple[Camera, ...]:
    """Cameras of the frames that are used, for the size of the images as they were read."""
    h, w = footage.pixels.shape[1:3]
    if given is not None:
        for camera in given:
            if not footage.has_shape((camera.w, camera.h)):
                raise InputError(
                    f"a camera of {camera.w}x{camera.h} pixels for images of {footage.size[0]}x"
                    f"{footage.size[1]}: give cameras of the images' size"
                )
        every: Sequence[Camera] = given
    elif footage.record is not None:
        every = footage.record.cameras_for(footage.size, footage.stored_size)
    else:
        seconds = footage.seconds if footage.seconds is not None and footage.seconds[-1] > 0 else None
        every = (spec or OrbitSpec()).cameras(footage.total, w, h, seconds)
    used = [every[i] for i in footage.index]
    return tuple(camera if (camera.w, camera.h) == (w, h) else camera.resized(w, h) for camera in used)


def pinhole(footage: Footage, cameras: Sequence[Camera], notes: list[str]) -> npt.NDArray[np.uint8]:
    """The images [F, H, W, 3 or 4] as pinhole cameras see them; notes tell of a lens that was taken out."""
    lenses = _lenses(footage)
    if not any(lenses):
        return footage.pixels
    named = next(str(lens) for lens in lenses if lens)
    notes.append(f"{named} taken out of the images")
    pixels = footage.pixels.copy()
    for i, (camera, lens) in enumerate(zip(cameras, lenses)):
        if lens:
            pixels[i] = undistorted(pixels[i], camera, lens)
    return pixels


def _lenses(footage: Footage) -> list[Lens]:
    record = footage.record
    return [Lens() if record is None else record.lenses[i] for i in footage.index]


def _masks(
    footage: Footage, cameras: Sequence[Camera], folder: str | Path | None, notes: list[str]
) -> npt.NDArray[np.uint8] | None:
    """Mattes uint8 [F, H, W] of the frames that are used; None where neither option nor record names any."""
    record = footage.record
    if folder is not None:
        what, inside = f"--mask {folder}", mask_files(folder)
        if footage.files:
            files = join_masks(folder, inside, footage.files)
        elif len(inside) != footage.total:
            raise InputError(
                f"{what}: {len(inside)} images for {footage.total} frames; give one grey image per frame"
            )
        else:
            files = [inside[i] for i in footage.index]
        if record is not None and record.masks:
            notes.append(f"the masks that {record.path.name} names are not read: --mask is given")
    elif record is not None and record.masks:
        what = f"{record.path}: mask_path"
        files = [record.path.parent / record.masks[i].replace("\\", "/") for i in footage.index]
        notes.append(f"masks of {record.path.name} (mask_path) cut the object out")
    else:
        return None
    return read_mattes(files, what, footage, cameras, notes)


def read_mattes(
    files: Sequence[Path], what: str, footage: Footage, cameras: Sequence[Camera], notes: list[str]
) -> npt.NDArray[np.uint8]:
    """Mattes uint8 [F, H, W] from a file for each frame of footage that is used; `what` names them in
    messages. InputError for masks of another size.
    """
    planes, meant = read_masks(files, what)
    notes += meant
    h, w = footage.pixels.shape[1:3]
    mattes = np.empty((len(files), h, w), np.uint8)
    for i, (plane, file) in enumerate(zip(planes, files)):
        size = (plane.shape[1], plane.shape[0])
        if not footage.has_shape(size):
            raise InputError(
                f"{what}: {file.name} has {size[0]}x{size[1]} pixels, its frame {footage.size[0]}x"
                f"{footage.size[1]}; give masks of the frames' size"
            )
        resized = Image.fromarray(plane).resize((w, h), Image.Resampling.BILINEAR)
        mattes[i] = np.asarray(resized)
    for i, (camera, lens) in enumerate(zip(cameras, _lenses(footage))):
        if lens:
            bare = np.dstack([np.zeros((h, w, 3), np.uint8), mattes[i]])
            mattes[i] = undistorted(bare, camera, lens)[..., 3]
    return mattes
