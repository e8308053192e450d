"""Film a scene along a camera path: front view, dynamic orbit, bullet time."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import wrap
from typing import TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Camera, orbit, orbit_c2w
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.progress import track
from orbit4d.datasets.images.over import over
from orbit4d.recon4d.composition import Composition
from orbit4d.recon4d.scene import Scene

#: Behind a composition's world.
SKY = (0.78, 0.87, 0.96)
#: Seconds that a closing card is shown, and its smallest letters, pixels.
CARD, LEAST_LETTERS = 3.0, 7
#: Most frames of a film: all of them stand in memory.
MOST_FRAMES = 10_000
PATHS = ("front_view", "dynamic_orbit", "bullet_time")


class PathOptions(TypedDict, total=False):
    """What of `camera_path` may be given to `film`."""

    radius: float | None
    elevation_deg: float | None
    time: float


def camera_path(
    scene: Scene,
    rig: str,
    frames: int,
    size: int | None = None,
    radius: float | None = None,
    elevation_deg: float | None = None,
    time: float = 0.5,
) -> list[tuple[Camera, float]]:
    """(camera, time) of every frame: around the object, from the azimuth of the first training view.

    front_view: the camera stands, time runs. dynamic_orbit: both run. bullet_time: the camera turns at
    `time`. Lens, distance and elevation are those of the first training camera where they are not given;
    `size` is the longer side in pixels.
    """
    if rig not in PATHS:
        raise InputError(f"--rig {rig}: choose from {', '.join(PATHS)}")
    if not 1 <= frames <= MOST_FRAMES or (size is not None and not 8 <= size <= 4096):
        raise InputError(f"--frames must be from 1 to {MOST_FRAMES} and --size between 8 and 4096")
    if radius is not None and not 0 < radius <= 1e6:
        raise InputError(f"--radius {radius:g}: give a distance above 0")
    if elevation_deg is not None and not -90 <= elevation_deg <= 90:
        raise InputError(f"--elevation {elevation_deg:g}: give -90 to 90 degrees")
    if not 0.0 <= time <= 1.0:
        raise InputError(f"--time {time}: give a time in [0, 1]")
    lens = scene.cameras[0] if scene.cameras else orbit(1)[0]
    if size is not None:
        zoom = size / max(lens.w, lens.h)
        lens = lens.resized(max(1, round(lens.w * zoom)), max(1, round(lens.h * zoom)))
    centre = np.array(scene.world.centre)
    x, y, z = lens.position - centre
    distance = float(np.linalg.norm(lens.position - centre))
    azimuth0 = float(np.degrees(np.arctan2(x, -y)))
    if elevation_deg is None:
        elevation_deg = float(np.degrees(np.arcsin(np.clip(z / max(distance, 1e-9), -1, 1))))
    distance = distance if radius is None else radius
    turns = [0.0 if rig == "front_view" else 360.0 * i / frames for i in range(frames)]
    clock = [time if rig == "bullet_time" else i / max(frames - 1, 1) for i in range(frames)]
    around = []
    for turn in turns:
        c2w = orbit_c2w(azimuth0 + turn, elevation_deg, distance)
        c2w[:3, 3] += centre
        around.append(replace(lens, c2w=c2w))
    return list(zip(around, clock))


def film(
    scene: Scene,
    out: str | Path,
    rig: str = "front_view",
    frames: int = 48,
    size: int | None = None,
    fps: float = 16.0,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    **path: Unpack[PathOptions],
) -> npt.NDArray[np.uint8]:
    """Render and write an mp4; returns its frames, uint8 [F, H, W, 3].

    `rig` is front_view, dynamic_orbit or bullet_time. `size` is the longer side in pixels, `fps` frames per
    second, `background` RGB in [0, 1]. `path` may hold radius (world units), elevation_deg (degrees) and
    time in [0, 1]; see `camera_path`. InputError for values out of range, a scene of numbers that are none,
    and an `out` that cannot be written.
    """
    from orbit4d.datasets.videos.video import write_video

    scene.check()
    images = [
        on_colour(scene.render(camera, time), background)
        for camera, time in track(camera_path(scene, rig, frames, size, **path), f"film {rig}", unit="frame")
    ]
    stacked = np.stack(images)
    write_video(out, stacked, fps)
    return stacked


def film_directed(
    scene: Scene,
    folder: str | Path,
    out: str | Path,
    size: int | None = None,
    background: tuple[float, float, float] = SKY,
    credits: bool = False,
) -> npt.NDArray[np.uint8]:
    """Film a composition with its director's camera, at its own frame rate; uint8 [F, H, W, 3].

    `credits` adds a closing card with the lines of the folder's credits.csv. InputError where `scene`, read
    from `folder`, is no composition, or has no credits to show.
    """
    from orbit4d.datasets.videos.video import write_video

    if not isinstance(scene, Composition) or not scene.shots:
        raise InputError(
            f"{folder}: --rig director needs a film made by `orbit4d compose`; choose from {', '.join(PATHS)}"
        )
    shots = scene.shots
    if size is not None:
        if not 8 <= size <= 4096:
            raise InputError("--size must be between 8 and 4096")
        zoom = size / max(shots[0][0].w, shots[0][0].h)
        shots = [(c.resized(max(1, round(c.w * zoom)), max(1, round(c.h * zoom))), t) for c, t in shots]
    frames = [
        on_colour(scene.render(camera, time), background)
        for camera, time in track(shots, "film director", unit="frame")
    ]
    if credits:
        lines = credit_lines(Path(folder))
        height, width = frames[0].shape[:2]
        frames += [credits_card(lines, width, height)] * max(1, round(CARD * scene.fps))
    stacked = np.stack(frames)
    write_video(out, stacked, scene.fps)
    return stacked


def credit_lines(folder: Path) -> list[str]:
    """The lines of credits.csv that are ready to print, each once; InputError where there are none."""
    path = folder / "credits.csv"
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        lines = list(dict.fromkeys(row["attribution"] for row in rows))
    except (OSError, KeyError, UnicodeDecodeError):
        raise InputError(
            f"{path}: no credits with a column `attribution`; run `orbit4d compose` again"
        ) from None
    return lines or ["no assets of others"]


def credits_card(lines: Sequence[str], width: int, height: int) -> npt.NDArray[np.uint8]:
    """White lines on black, wrapped, as large as all of them fit; uint8 [H, W, 3].

    Where not even letters of `LEAST_LETTERS` pixels fit, the last line says how many are left out.
    """
    from PIL import Image, ImageDraw, ImageFont

    card = Image.new("RGB", (width, height))
    drawing = ImageDraw.Draw(card)
    margin = max(4, width // 24)
    for size in range(max(LEAST_LETTERS, height // 14), LEAST_LETTERS - 1, -1):
        font = ImageFont.load_default(size)
        per_line = max(8, int((width - 2 * margin) / (drawing.textlength("attribution", font) / 11)))
        rows = [row for line in lines for row in (*wrap(line, per_line), "")]
        room = (height - 2 * margin) // round(1.3 * size)
        if len(rows) - 1 <= room:
            break
    else:
        rows = [*rows[: room - 1], f"... and {len(lines)} entries in credits.csv"]
    drawing.multiline_text(
        (margin, margin), "\n".join(rows).strip(), fill=(255, 255, 255), font=font, spacing=0.2 * size
    )
    return np.asarray(card)


def on_colour(
    straight: npt.NDArray[np.float32], background: tuple[float, float, float]
) -> npt.NDArray[np.uint8]:
    """Straight RGBA float [H, W, 4] on a colour, uint8 [H, W, 3]."""
    alpha = straight[..., 3:]
    mixed = over(straight[..., :3], alpha, np.array(background, np.float32))
    return (mixed.clip(0, 1) * 255 + 0.5).astype(np.uint8)
