"""SV4D and SV4D 2.0: XXXXXX_vVVV.mp4 of one run, no cameras stored: azimuths are those of the model."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from orbit4d.datasets.cameras.camera import focal_from_fov, orbit_c2w
from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.inputs.captures.capture import Capture, Track, posed, videos_in
from orbit4d.recon4d.inputs.loading import OrbitSpec

_NAME = re.compile(r"([0-9]{6})_v([0-9]{3})")
#: Degrees from the input view, by the number of views. Eight views are those of SV4D 2.0's eight-view model
#: unless `_t000.mp4` tells of SV4D (1), which steps 360/21 degrees.
AZIMUTHS = {4: (60, 120, 180, 240), 8: (30, 75, 120, 165, 210, 255, 300, 330)}
AZIMUTHS_1 = tuple(360 / 21 * step for step in (2, 5, 7, 9, 12, 14, 16, 19))
#: Horizontal field of view of the training data, degrees, and the elevations that are the models' defaults.
FOV_X_DEG = 33.8
ELEVATION_DEG, ELEVATION_1_DEG = 0.0, 10.0


def is_sv4d(folder: Path) -> bool:
    return sum(1 for video in videos_in(folder) if _NAME.fullmatch(video.stem)) >= 2


def read(folder: Path, spec: OrbitSpec | None = None) -> Capture:
    """Views of the folder's only run, and its input as view 0 where it lies there.

    `spec` may name elevation and field of view, which the files do not. InputError for several runs, and for
    a number of views that no model has.
    """
    videos = [(match, video) for video in videos_in(folder) if (match := _NAME.fullmatch(video.stem))]
    runs = sorted({match[1] for match, _ in videos})
    if len(runs) > 1:
        raise InputError(f"{folder}: {len(runs)} runs ({runs[0]}, {runs[1]}, ...); give a folder with one")
    views = {int(match[2]): video for match, video in videos if int(match[2]) > 0}
    first = (folder / f"{runs[0]}_t000.mp4").is_file()
    azimuths = AZIMUTHS_1 if first else AZIMUTHS.get(len(views))
    if azimuths is None or sorted(views) != list(range(1, len(azimuths) + 1)):
        raise InputError(
            f"{folder}: {len(views)} views of SV4D, whose models have 4 or 8; give --ring with azimuths"
        )
    plain = spec or OrbitSpec()
    elevation = plain.elevation_deg or (ELEVATION_1_DEG if first else ELEVATION_DEG)
    fov = FOV_X_DEG if plain.fov_x_deg == OrbitSpec().fov_x_deg else plain.fov_x_deg
    placed = {number: (float(azimuths[number - 1]), video) for number, video in views.items()}
    whole = folder / f"{runs[0]}_process_input.mp4"
    if whole.is_file():
        placed[0] = (0.0, whole)
    focal = focal_from_fov(fov, 576)
    lens = {"w": 576.0, "h": 576.0, "fl_x": focal, "fl_y": focal}
    tracks: list[Track] = []
    mirrored: list[Track] = []
    for number, (azimuth, video) in sorted(placed.items()):
        for sign, out in ((1, tracks), (-1, mirrored)):
            c2w = orbit_c2w(sign * azimuth, elevation, plain.radius)
            out.append(Track(f"v{number:03d}", video, posed(folder, [c2w], [lens])))
    which = "SV4D" if first else "SV4D 2.0"
    note = f"{which}: field of view {fov:g} and elevation {elevation:g} degrees are assumed"
    if 0 not in placed:
        note += f"; the input view {whole.name} is not there and is not fitted"
    return Capture(which, tuple(tracks), generated=True, mirrored=tuple(mirrored), notes=(note,))


def other_way(capture: Capture) -> Capture:
    """The capture with the cameras that go round the other way."""
    return replace(capture, tracks=capture.mirrored, mirrored=capture.tracks)
