"""What the optimiser fits: images with a matte, a camera and a time each, from whatever the user has.

A video or a folder of images takes the orbit of `datasets.cameras.orbit` (open, or closed as published) or
the cameras of a transforms.json; DATASET:uid[:action] brings its own. A flat background is found and made a
matte (`flat_background.py`); an alpha channel or a folder of masks is taken as it is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from orbit4d.datasets.cameras import DEFAULT_FOV_X_DEG, DEFAULT_RADIUS, Camera, orbit, orbit_c2w
from orbit4d.datasets.clips import Clip
from orbit4d.datasets.errors import InputError
from orbit4d.recon4d.flat_background import find_background, unmix
from orbit4d.recon4d.matting import cut_out

Float = npt.NDArray[np.float32]
_IMAGES = (".png", ".webp", ".jpg", ".jpeg", ".bmp")
#: More views than this are spread evenly over the video; an orbit gains nothing from more.
MAX_FRAMES = 240
#: Larger footage is reduced while it is read: no preset fits more, and a thousand frames must fit in memory.
MAX_EDGE = 512
#: The object must cover at least this share of a frame on average to be seen at all.
_MIN_COVERAGE = 2e-4


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

    def __len__(self) -> int:
        return len(self.rgba)

    def at_time(self, time: float) -> Frames:
        """The same images, all at one moment: a static orbit."""
        return replace(self, time=(time,) * len(self))

    def resized(self, size: int) -> Frames:
        """Area-averaged to `size` pixels on the longer side; smaller images stay."""
        h, w = self.rgba.shape[1:3]
        if max(h, w) <= size:
            return self
        import torch

        nh, nw = max(1, round(h * size / max(h, w))), max(1, round(w * size / max(h, w)))
        planes = torch.from_numpy(self.rgba).permute(0, 3, 1, 2)
        small = torch.nn.functional.interpolate(planes, (nh, nw), mode="area")
        cameras = tuple(camera.resized(nw, nh) for camera in self.cameras)
        return replace(self, rgba=small.permute(0, 2, 3, 1).contiguous().numpy(), cameras=cameras)


@dataclass(frozen=True)
class OrbitSpec:
    """Cameras of a video that brings none."""

    closed: bool = False
    """Last frame repeats the first view (the published orbit)."""
    radius: float = DEFAULT_RADIUS
    fov_x_deg: float = DEFAULT_FOV_X_DEG
    elevation_deg: float = 0.0

    def __post_init__(self) -> None:
        if not (self.radius > 0 and 1 <= self.fov_x_deg <= 170 and -89 <= self.elevation_deg <= 89):
            raise InputError(
                f"--radius {self.radius:g} --fov {self.fov_x_deg:g} --elevation {self.elevation_deg:g}: give "
                "a radius above 0, a field of view of 1 to 170 degrees and an elevation of -89 to 89"
            )

    def cameras(
        self, n: int, w: int, h: int, seconds: npt.NDArray[np.float64] | None = None
    ) -> tuple[Camera, ...]:
        """`n` cameras for images of w x h.

        `seconds` [n] are the time stamps of a video of variable frame rate: its camera turns evenly in time
        and not in frames. The last frame of an open orbit then lasts as long as the median frame.
        """
        around = orbit(n, self.radius, self.elevation_deg, self.fov_x_deg, size=(w, h), closed=self.closed)
        if seconds is None:
            return tuple(around)
        gap = 0.0 if self.closed else float(np.median(np.diff(seconds)))
        turns = 360.0 * seconds / (seconds[-1] + gap)
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
    source: str | Path | Sequence[npt.NDArray[np.uint8]] | npt.NDArray[np.uint8],
    cameras: str | Path | Sequence[Camera] | None = None,
    spec: OrbitSpec | None = None,
    mask: str | Path | None = None,
    matte: str = "flat",
) -> Frames:
    """Read a video, a folder of images, a list of images [H, W, 3 or 4] or an array [F, H, W, 3 or 4].

    `cameras` is a transforms.json or a list, one per frame; else `spec` gives an orbit. A transforms.json may
    name the `background` that the frames were generated on. `mask` is a folder of
    grey images, one per frame; without it and without an alpha channel `matte` says how the object is cut
    out: "flat" takes a flat background off, "rembg" asks a network. Raises InputError, one line, for what
    cannot be fitted.
    """
    name = str(source) if isinstance(source, str | Path) else "the given frames"
    pixels, own_cameras, seconds = _read(source, name)
    if len(pixels) < 2:
        raise InputError(f"{name}: {len(pixels)} frame; an orbit needs at least two")
    cameras = own_cameras if cameras is None else cameras
    posed = _cameras(cameras)
    if posed is not None and len(posed[0]) != len(pixels):
        raise InputError(
            f"{name}: {len(pixels)} frames but {len(posed[0])} cameras; give one camera per frame"
        )
    notes: list[str] = []
    mattes = _masks(mask, len(pixels), pixels.shape[1:3]) if mask is not None else None
    if mattes is None and matte == "rembg" and not _has_alpha(pixels):
        mattes = cut_out(pixels, name)
        notes.append("matte made by rembg")
    known = read_background(cameras) if isinstance(cameras, str | Path) else None
    rgba = _with_matte(pixels, mattes, known, notes, name)
    _check_content(rgba, name)

    n, h, w = rgba.shape[:3]
    time = tuple(i / (n - 1) for i in range(n))
    if seconds is not None and seconds[-1] > 0:
        time = tuple((seconds / seconds[-1]).tolist())
        notes.append("variable frame rate: times and views follow the time stamps")
    else:
        seconds = None
    if posed is None:
        cams: tuple[Camera, ...] = (spec or OrbitSpec()).cameras(n, w, h, seconds)
    else:
        cams, given = posed
        cams = tuple(camera.resized(w, h) if (camera.w, camera.h) != (w, h) else camera for camera in cams)
        time = given or time
    if n > MAX_FRAMES:
        keep = np.unique(np.linspace(0, n - 1, MAX_FRAMES).round().astype(int))
        notes.append(f"{n} frames: {len(keep)} of them, evenly spread, are used")
        rgba, cams, time = rgba[keep], tuple(cams[i] for i in keep), tuple(time[i] for i in keep)
    return Frames(premultiply(rgba), cams, time, name, tuple(notes), posed is not None, n)


def _read(
    source: object, name: str
) -> tuple[npt.NDArray[np.uint8], str | Path | None, npt.NDArray[np.float64] | None]:
    """Pixels uint8 [F, H, W, 3 or 4], a transforms.json that lies beside them, seconds [F] where uneven."""
    if not isinstance(source, str | Path):
        images = [np.asarray(image) for image in source]  # type: ignore[union-attr]
        return _stack(images, name), None, None
    path = Path(source)
    if path.is_dir():
        inside = path / "frames" if (path / "frames").is_dir() else path
        files = sorted(p for p in inside.iterdir() if p.suffix.lower() in _IMAGES)
        if not files:
            raise InputError(f"{path}: no image in this folder; give a video or a folder of frames")
        images = []
        for file in files:
            try:
                with Image.open(file) as image:
                    images.append(np.asarray(image.convert("RGBA" if "A" in image.mode else "RGB")))
            except OSError as error:
                raise InputError(f"{file}: not a readable image ({error})") from None
        beside = path / "transforms.json"
        return _stack(images, name), beside if beside.is_file() else None, None
    if not path.exists():
        raise InputError(f"{path}: no such video or folder; give one that exists, or DATASET:uid[:action]")
    from orbit4d.datasets.video import read_video

    video = read_video(path, max_edge=MAX_EDGE)
    return video.frames, None, video.seconds if video.uneven else None


def _stack(images: list[npt.NDArray[np.uint8]], name: str) -> npt.NDArray[np.uint8]:
    shapes = {image.shape[:2] for image in images}
    if len(shapes) > 1:
        sizes = ", ".join(f"{w}x{h}" for h, w in sorted(shapes)[:3])
        raise InputError(f"{name}: frames of different sizes ({sizes}); resize them to one")
    if not images:
        raise InputError(f"{name}: no frame")
    if any(image.ndim != 3 or image.shape[2] not in (3, 4) or image.dtype != np.uint8 for image in images):
        raise InputError(f"{name}: frames must be uint8 [H, W, 3] or [H, W, 4]")
    if len({image.shape[2] for image in images}) > 1:
        opaque = [np.full((*image.shape[:2], 1), 255, np.uint8) for image in images]
        images = [i if i.shape[2] == 4 else np.concatenate([i, a], 2) for i, a in zip(images, opaque)]
    return np.stack(images)


def _cameras(
    given: str | Path | Sequence[Camera] | None,
) -> tuple[tuple[Camera, ...], tuple[float, ...] | None] | None:
    if given is None:
        return None
    return read_transforms(given) if isinstance(given, str | Path) else (tuple(given), None)


def read_transforms(path: str | Path) -> tuple[tuple[Camera, ...], tuple[float, ...] | None]:
    """Cameras and times of a nerfstudio transforms.json (camera-to-world, OpenGL axes), in frame order."""
    try:
        record = json.loads(Path(path).read_text())
        entries = sorted(record["frames"], key=lambda frame: frame.get("file_path", ""))
        cameras = []
        for entry in entries:
            both = {**record, **entry}
            w, h = int(both["w"]), int(both["h"])
            if "fl_x" in both:
                fl_x = float(both["fl_x"])
            else:
                fl_x = w / (2 * np.tan(float(both["camera_angle_x"]) / 2))
            cameras.append(
                Camera(
                    np.array(entry["transform_matrix"], dtype=np.float64),
                    fl_x,
                    float(both.get("fl_y", fl_x)),
                    float(both.get("cx", w / 2)),
                    float(both.get("cy", h / 2)),
                    w,
                    h,
                )
            )
        times = [entry.get("time") for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: not a transforms.json with frames, sizes and matrices ({why})") from None
    if any(t is None for t in times):
        return tuple(cameras), None
    if not all(0 <= float(t) <= 1 for t in times):
        raise InputError(f"{path}: times must lie in [0, 1]")
    return tuple(cameras), tuple(float(t) for t in times)


def read_background(path: str | Path) -> Float | None:
    """Colour [3] in [0, 1] of a transforms.json's "background": [red, green, blue] of 0 to 255."""
    named = json.loads(Path(path).read_text()).get("background")
    if named is None:
        return None
    try:
        colour = np.asarray(named, dtype=np.float32).reshape(3) / 255
    except (TypeError, ValueError):
        colour = np.full(3, np.nan, np.float32)
    if not ((colour >= 0) & (colour <= 1)).all():
        raise InputError(f"{path}: background {named}: give [red, green, blue] of 0 to 255, or leave it out")
    return colour


def _masks(folder: str | Path, n: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    inside = sorted(Path(folder).iterdir()) if Path(folder).is_dir() else []
    files = [path for path in inside if path.suffix.lower() in _IMAGES]
    if len(files) != n:
        raise InputError(
            f"--mask {folder}: {len(files)} images for {n} frames; give one grey image per frame"
        )
    masks = []
    for file in files:
        try:
            with Image.open(file) as image:
                masks.append(np.asarray(image.convert("L").resize(size[::-1], Image.Resampling.BILINEAR)))
        except OSError as error:
            raise InputError(f"--mask {file}: not a readable image ({error})") from None
    return np.stack(masks)


def _with_matte(
    pixels: npt.NDArray[np.uint8],
    mattes: npt.NDArray[np.uint8] | None,
    known: Float | None,
    notes: list[str],
    name: str,
) -> Float:
    """Straight RGBA float32 [F, H, W, 4]."""
    rgb = pixels[..., :3].astype(np.float32) / 255
    if mattes is not None:
        return np.concatenate([rgb, mattes[..., None].astype(np.float32) / 255], axis=-1)
    if _has_alpha(pixels):
        return pixels.astype(np.float32) / 255
    background = find_background(rgb, known)
    if background is None:
        raise InputError(
            f"{name}: the background is not one flat colour; give --mask FOLDER or frames with alpha, or try "
            "--matte rembg"
        )
    colour = " ".join(f"{255 * c:.0f}" for c in background.colour)
    notes.append(f"background {colour} taken off")
    if background.grainy:
        grain, lost = (255 * value for value in (background.grain, sum(background.ramp) / 2))
        notes.append(f"the background has grain of sigma {grain:.0f}: parts within {lost:.0f} of it are lost")
    return unmix(rgb, background)


def _has_alpha(pixels: npt.NDArray[np.uint8]) -> bool:
    return pixels.shape[-1] == 4 and bool((pixels[..., 3] < 250).any())


def _check_content(rgba: Float, name: str) -> None:
    coverage = rgba[..., 3].mean((1, 2))
    if coverage.mean() < _MIN_COVERAGE:
        raise InputError(
            f"{name}: no object found (the frames are empty, or the object has the background's colour); "
            "give --mask FOLDER or frames with alpha"
        )
    if (coverage > 0.97).all():
        raise InputError(f"{name}: the object fills every frame; give --mask FOLDER or an alpha channel")
    if float((rgba[..., :3] * rgba[..., 3:]).max()) < 0.02:
        raise InputError(f"{name}: every frame is black")
