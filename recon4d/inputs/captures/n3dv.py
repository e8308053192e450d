"""N3DV (Neural 3D Video): camXX.mp4 or camXX/images/, poses_bounds.npy; cam00 is the test camera."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from orbit4d.datasets.cameras.camera import Array
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.folders import image_files
from orbit4d.datasets.layouts.importing import BadFolder
from orbit4d.datasets.layouts.n3dv import POSES, pose_of, read_rows
from orbit4d.recon4d.inputs.captures.capture import Capture, Track, posed, videos_in

#: Mean camera up further than this from +Z belongs to a world with another axis up.
_TILT_DEG = 30.0


def is_n3dv(folder: Path) -> bool:
    return (folder / POSES).is_file()


def read(folder: Path) -> Capture:
    """Row k belongs to the k-th video that is there, in the order of its name."""
    sources = _sources(folder)
    try:
        rows = read_rows(str(folder), (folder / POSES).read_bytes())
    except (BadFolder, OSError) as error:
        raise InputError(str(error)) from None
    if len(rows) != len(sources):
        raise InputError(f"{folder}: {len(rows)} cameras in {POSES} for {len(sources)} videos")
    poses = [pose_of(row) for row in rows]
    turned = turn_up([c2w for c2w, *_ in poses])
    tracks = []
    for k, (label, source) in enumerate(sources.items()):
        c2w, height, width, focal = poses[k]
        if turned is not None:
            c2w = np.vstack([turned @ c2w[:3], c2w[3:]])
        lens = {"w": width, "h": height, "fl_x": focal, "fl_y": focal}
        split = "test" if k == 0 and len(sources) > 1 else "train"
        tracks.append(Track(label, source, posed(folder / POSES, [c2w], [lens]), split=split))
    depths = float(rows[:, 15].min()), float(rows[:, 16].max())
    notes = () if turned is None else ("the mean up of the cameras was turned to +Z",)
    return Capture(
        "N3DV", tuple(tracks), f"the layout: {next(iter(sources))} is the test camera", whole_scene=True,
        depths=depths, turned=turned, notes=notes,
    )  # fmt: skip


def _sources(folder: Path) -> dict[str, Path | tuple[Path, ...]]:
    videos = sorted(video for video in videos_in(folder) if video.name.startswith("cam"))
    if videos:
        return {video.stem: video for video in videos}
    folders = sorted(path for path in folder.glob("cam*") if image_files(path / "images"))
    if not folders:
        raise InputError(f"{folder}: has {POSES} and neither cam00.mp4 ... nor cam00/images/ ...")
    return {path.name: tuple(image_files(path / "images")) for path in folders}


def turn_up(c2w: list[Array]) -> Array | None:
    """Rotation [3, 3] of the cameras' mean up to +Z; None where the two are near."""
    up = np.mean([pose[:3, 1] for pose in c2w], axis=0)
    length = float(np.linalg.norm(up))
    if length < 1e-6 or up[2] / length > np.cos(np.radians(_TILT_DEG)):
        return None
    up = up / length
    across = np.cross(up, (0.0, 0.0, 1.0))
    if np.linalg.norm(across) < 1e-9:
        return np.diag([1.0, -1.0, -1.0])
    skew = np.array([[0, -across[2], across[1]], [across[2], 0, -across[0]], [-across[1], across[0], 0]])
    turn: Array = np.eye(3) + skew + skew @ skew / (1 + up[2])
    return turn
