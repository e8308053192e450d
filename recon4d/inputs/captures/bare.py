"""A folder per camera or several videos, without cameras: from a file, or on a ring of given azimuths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orbit4d.datasets.cameras.camera import focal_from_fov, orbit_c2w
from orbit4d.datasets.cameras.posed_frames import Transforms
from orbit4d.datasets.cameras.transforms import read_transforms
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.folders import image_files
from orbit4d.recon4d.inputs.captures.capture import Capture, Track, folders_in, masks_of, posed, videos_in
from orbit4d.recon4d.inputs.loading import OrbitSpec

#: Folders that hold the images of one orbit, whatever lies beside them.
_ONE_ORBIT = ("frames", "images")


def sources_in(folder: Path) -> dict[str, Path | tuple[Path, ...]]:
    """Camera -> its video or images; fewer than two are no rig. InputError for two videos of one camera."""
    if not folder.is_dir() or image_files(folder):
        return {}
    for place in (folder, folder / "images", folder / "frames", folder / "videos"):
        inside = [path for path in folders_in(place) if path.name not in _ONE_ORBIT]
        if len(inside) > 1:
            return {path.name: tuple(image_files(path)) for path in inside}
        videos = videos_in(place) if place.is_dir() else []
        if len(videos) > 1:
            return by_camera(videos)
    return {}


def by_camera(videos: Sequence[Path]) -> dict[str, Path | tuple[Path, ...]]:
    """Camera -> its video. InputError for two of one name, such as cam1.mp4 and cam1.webm."""
    found: dict[str, Path | tuple[Path, ...]] = {}
    for video in videos:
        if video.stem in found:
            raise InputError(f"{video}: two videos are called {video.stem}; keep one of each camera")
        found[video.stem] = video
    return found


def read(
    folder: Path,
    sources: dict[str, Path | tuple[Path, ...]],
    cameras: Path | None,
    ring: Sequence[float] | None,
    spec: OrbitSpec | None,
    mask: Path | None = None,
) -> Capture:
    """A track per source, with the cameras of a file or of a ring. InputError where there is neither."""
    if cameras is not None:
        poses = _from_file(read_transforms(cameras), list(sources))
    elif ring is not None:
        poses = _on_ring(folder, list(sources), ring, spec or OrbitSpec())
    else:
        names = ", ".join(list(sources)[:3]) + (", ..." if len(sources) > 3 else "")
        raise InputError(
            f"{folder}: {len(sources)} cameras ({names}) and no transforms.json; give --cameras FILE, or "
            "--ring with the azimuth of each in degrees, counter-clockwise from the front"
        )
    tracks = []
    for label, source in sources.items():
        masks = masks_of(folder, label, source, mask) if isinstance(source, tuple) else ()
        tracks.append(Track(label, source, poses[label], masks=masks))
    return Capture("cameras in folders" if isinstance(source, tuple) else "videos", tuple(tracks))


def _on_ring(
    folder: Path, labels: Sequence[str], ring: Sequence[float], spec: OrbitSpec
) -> dict[str, Transforms]:
    if len(ring) != len(labels):
        raise InputError(
            f"--ring: {len(ring)} azimuths for {len(labels)} cameras ({', '.join(labels)}) in {folder}"
        )
    # One field of view, whatever the size: a focal length of an image of 1 pixel across, which has no w.
    angle = {"camera_angle_x": 2 * _half_angle(spec.fov_x_deg)}
    return {
        label: posed(folder, [orbit_c2w(azimuth, spec.elevation_deg, spec.radius)], [angle])
        for label, azimuth in zip(labels, ring)
    }


def _half_angle(fov_deg: float) -> float:
    import math

    return math.atan(0.5 / focal_from_fov(fov_deg, 1))


def _from_file(record: Transforms, labels: Sequence[str]) -> dict[str, Transforms]:
    """Cameras by `camera_label`, by the folder or name of `file_path`, or in order where nothing is named."""
    named: dict[str, list[int]] = {}
    for i in range(len(record)):
        if record.labels:
            names = [record.labels[i]]
        elif record.files:
            listed = Path(record.files[i].replace("\\", "/"))
            names = [listed.stem, listed.parent.name]
        else:
            names = []
        for name in names:
            named.setdefault(name, []).append(i)
    if all(label in named for label in labels):
        return {label: record.taken(named[label]) for label in labels}
    if not named and len(record) == len(labels):
        return {label: record.taken([i]) for i, label in enumerate(labels)}
    lacking = next(label for label in labels if label not in named)
    raise InputError(
        f"{record.path}: no camera for {lacking} ({len(record)} cameras for {len(labels)} sources); name "
        "them by `camera_label`"
    )
