"""View x time grids: what synchronised cameras filmed, as frames to fit and frames that are held out.

Times join by value, so that a grid may have holes. Mattes are found camera by camera, whose backgrounds
differ. One time, that which most cameras saw, is where the shape is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.matting import cut_out
from orbit4d.recon4d.inputs.captures.capture import Capture, Track
from orbit4d.recon4d.inputs.captures.sv4d import other_way
from orbit4d.recon4d.inputs.cutting_out import check_content, has_alpha, with_matte
from orbit4d.recon4d.inputs.film_times import Film, common_times
from orbit4d.recon4d.inputs.find_world import find_world, frames_in
from orbit4d.recon4d.inputs.footage import MAX_EDGE, Footage, read_footage
from orbit4d.recon4d.inputs.holding import Hold, held_places
from orbit4d.recon4d.inputs.hull import carve
from orbit4d.recon4d.inputs.loading import Frames, pinhole, premultiply, read_mattes

#: Pixels of all training images above which times are left out, evenly: 16 bytes each, and a quarter of
#: that again at half size.
MAX_PIXELS = 120_000_000
#: Fewer cameras than this at one time carve no hull.
LEAST_CAMERAS = 3
#: Times nearer than this are one time.
SAME_TIME = 1e-6


@dataclass(frozen=True)
class Views:
    """A capture, ready to be fitted."""

    train: Frames
    held_out: dict[str, Frames]
    still: Frames | None
    """Training images of the time that most cameras saw; None where no time was seen by enough."""
    generated: bool = False
    open_scene: bool = False
    """Whether the background is kept."""
    depths: tuple[float, float] | None = None
    record: dict[str, Any] = field(default_factory=dict)
    """What scene.json says of the capture."""


def read_views(
    capture: Capture,
    name: str,
    matte: str = "flat",
    max_edge: int = MAX_EDGE,
    hold: Hold | None = None,
    allow_missing: bool = False,
) -> Views:
    """Read, cut out and split a capture; `name` names it in messages.

    InputError, one line: cameras that disagree in size or number of frames, mattes that cannot be made, a
    camera or time to hold out that is not there, nothing left to train on.
    """
    labels = [track.label for track in capture.tracks]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise InputError(f"{name}: two cameras are called {twice}; give each a name of its own")
    notes: dict[str, list[str]] = {}
    films = [_film(track, name, max_edge, notes.setdefault(track.label, [])) for track in capture.tracks]
    if not films:
        raise InputError(f"{name}: no camera in this capture")
    _check_sizes(films, name)
    films = common_times(films, name, allow_missing)
    films, thinned = _thinned(films)
    frames = [_cut(film, capture, name, matte, notes[film.track.label]) for film in films]
    whole = _joined(frames, name, [*thinned, *capture.notes, *_told(notes, len(films))])
    if matte != "none":
        check_content(_straight(whole.rgba), name)
    elsewhere = [i for i, film in enumerate(films) if film.track.split != "train"]
    places = held_places(whole, hold or Hold(), {films[i].track.label for i in elsewhere}, name)
    train = _filled(whole.picked(places.train))
    still = _still(train)
    if capture.mirrored:
        train, still = _better_way(capture, train, still)
    held = {label: whole.picked(index) for label, index in places.held_out.items()}
    return Views(
        train, held, still, capture.generated, matte == "none", capture.depths,
        _record(capture, whole, train, places.held_out),
    )  # fmt: skip


# Reading ----------------------------------------------------------------------------------------------------


def _film(track: Track, name: str, max_edge: int, notes: list[str]) -> Film:
    source: Any = track.source
    listed = list(source) if isinstance(source, tuple) else source
    footage = read_footage(listed, f"{name}: {track.label}", None, max_edge)
    notes += footage.notes
    record, n = track.poses, footage.total
    if len(record) == 1 and n > 1:
        record = record.taken([0] * n)
    if len(record) != n:
        raise InputError(f"{name}: {track.label}: {n} frames but {len(record)} cameras; give one per frame")
    if track.masks and len(track.masks) != n:
        raise InputError(
            f"{name}: {track.label}: {len(track.masks)} masks for {n} frames; give one per frame"
        )
    return Film(track, replace(footage, record=record), np.arange(len(footage.pixels)))


def _check_sizes(films: Sequence[Film], name: str) -> None:
    first = films[0]
    for film in films[1:]:
        a, b = first.footage.size, film.footage.size
        if a != b:
            raise InputError(
                f"{name}: {first.track.label} has {a[0]}x{a[1]} pixels, {film.track.label} {b[0]}x{b[1]}; "
                "give all cameras one size"
            )


def _thinned(films: Sequence[Film]) -> tuple[list[Film], list[str]]:
    """The films with times left out, evenly, until the images fit in memory."""
    h, w = films[0].footage.pixels.shape[1:3]
    images = sum(len(film.keep) for film in films)
    room = MAX_PIXELS // (h * w)
    times = np.unique(np.round(np.concatenate([film.times for film in films]) / SAME_TIME).astype(np.int64))
    if images <= room:
        return list(films), []
    kept = times[
        np.unique(np.linspace(0, len(times) - 1, max(2, len(times) * room // images)).round().astype(int))
    ]
    out = []
    for film in films:
        mine = np.round(np.asarray(film.times) / SAME_TIME).astype(np.int64)
        rows = np.flatnonzero(np.isin(mine, kept))
        out.append(replace(film, keep=film.keep[rows], times=tuple(film.times[i] for i in rows)))
    note = f"{len(times)} times of {len(films)} cameras: {len(kept)} of them, evenly spread, are used"
    return [film for film in out if len(film.keep)], [note]


def _cut(film: Film, capture: Capture, name: str, matte: str, notes: list[str]) -> Frames:
    """Premultiplied images of one camera with their matte."""
    footage = replace(
        film.footage, pixels=film.footage.pixels[film.keep], index=film.footage.index[film.keep]
    )
    own = f"{name}: {film.track.label}"
    cameras = _cameras(footage)
    pixels = pinhole(footage, cameras, notes)
    if matte == "none":
        opaque = np.full((*pixels.shape[:3], 1), 255, np.uint8)
        rgba = premultiply(np.concatenate([pixels[..., :3], opaque], axis=-1))
        return Frames(rgba, cameras, film.times, own, labels=(film.track.label,) * len(cameras))
    mattes = None
    if film.track.masks:
        files = [film.track.masks[i] for i in footage.index]
        mattes = read_mattes(files, f"{own}: masks", footage, cameras, notes)
    elif matte == "rembg" and not has_alpha(pixels):
        mattes = cut_out(pixels, own)
        notes.append("matte made by rembg")
    known = footage.record.background if footage.record is not None else None
    try:
        rgba = with_matte(pixels, mattes, known, notes, own)
    except InputError:
        if not capture.whole_scene:
            raise
        raise InputError(
            f"{own}: {capture.layout} shows a whole scene: give --matte none to keep the background, or "
            "--mask"
        ) from None
    return Frames(premultiply(rgba), cameras, film.times, own, labels=(film.track.label,) * len(cameras))


def _cameras(footage: Footage) -> tuple[Camera, ...]:
    assert footage.record is not None
    h, w = footage.pixels.shape[1:3]
    every = footage.record.cameras_for(footage.size, footage.stored_size)
    used = [every[i] for i in footage.index]
    return tuple(camera if (camera.w, camera.h) == (w, h) else camera.resized(w, h) for camera in used)


def _told(notes: dict[str, list[str]], cameras: int) -> list[str]:
    """Notes of all cameras, each once, with the cameras that it is about."""
    about: dict[str, list[str]] = {}
    for label, texts in notes.items():
        for text in dict.fromkeys(texts):
            about.setdefault(text, []).append(label)
    return [
        text if len(labels) == cameras else f"{', '.join(labels[:4])}{', ...' * (len(labels) > 4)}: {text}"
        for text, labels in about.items()
    ]


def _joined(frames: Sequence[Frames], name: str, notes: Sequence[str]) -> Frames:
    return Frames(
        np.concatenate([part.rgba for part in frames]),
        tuple(camera for part in frames for camera in part.cameras),
        tuple(t for part in frames for t in part.time),
        name,
        tuple(notes),
        labels=tuple(label for part in frames for label in part.labels),
    )


def _straight(rgba: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    alpha = rgba[..., 3:]
    return np.concatenate([rgba[..., :3] / np.maximum(alpha, 1e-3), alpha], axis=-1)


# The split --------------------------------------------------------------------------------------------------


def _filled(train: Frames) -> Frames:
    """The training images, of which there must be two."""
    if len(train) < 2:
        raise InputError(f"{train.name}: {len(train)} image is left to train on; hold out less")
    return train


def moments(frames: Frames) -> dict[int, list[int]]:
    """Images of each time, a whole number of SAME_TIME."""
    found: dict[int, list[int]] = {}
    for i, t in enumerate(frames.time):
        found.setdefault(round(t / SAME_TIME), []).append(i)
    return found


def _still(train: Frames) -> Frames | None:
    """The time that most cameras saw; of several that in the middle of the clip, from which motion is
    shortest both ways.
    """
    seen = moments(train)
    most = max(len(index) for index in seen.values())
    if most < LEAST_CAMERAS:
        return None
    middle = min(
        (t for t, index in seen.items() if len(index) == most), key=lambda t: abs(t * SAME_TIME - 0.5)
    )
    return train.picked(seen[middle])


def _better_way(capture: Capture, train: Frames, still: Frames | None) -> tuple[Frames, Frames | None]:
    """The cameras as given, or the other way round, whichever hull covers more of the silhouettes."""
    if still is None:
        return train, still
    turned = {track.label: track.poses.c2w[0] for track in other_way(capture).tracks}
    both = []
    for frames in (train, _reposed(train, turned)):
        moment = _still(frames)
        assert moment is not None
        hull = carve(frames_in(find_world((moment,)), moment), 64, agree=1.0)
        both.append((hull.coverage if len(hull.points) else 0.0, frames, moment))
    best = max(both, key=lambda item: item[0])
    way = "clockwise" if best[1] is not train else "counter-clockwise"
    note = (
        f"views are taken to go {way} seen from above: hull coverage {best[0]:.1%} against "
        f"{min(both, key=lambda item: item[0])[0]:.1%}"
    )
    return replace(best[1], notes=(*train.notes, note)), best[2]


def _reposed(frames: Frames, c2w: dict[str, Any]) -> Frames:
    cameras = tuple(replace(camera, c2w=c2w[label]) for camera, label in zip(frames.cameras, frames.labels))
    return replace(frames, cameras=cameras)


def _record(capture: Capture, whole: Frames, train: Frames, held_out: dict[str, list[int]]) -> dict[str, Any]:
    record: dict[str, Any] = {
        "layout": capture.layout,
        "cameras": len(set(whole.labels)),
        "moments": len(moments(whole)),
        "images": {"train": len(train), "held_out": {name: len(index) for name, index in held_out.items()}},
    }
    if capture.split_from:
        record["split"] = capture.split_from
    if capture.turned is not None:
        record["rotation_from_layout"] = capture.turned.tolist()
    return record


def is_grid(frames: Frames) -> bool:
    """Whether several cameras filmed."""
    return bool(frames.labels)


def path_of(source: Any) -> Path | None:
    """The folder that a source names, None for anything else."""
    path = Path(source) if isinstance(source, str | Path) else None
    return path if path is not None and path.is_dir() else None
