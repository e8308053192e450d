"""Which layout a folder has: the first that fits, or the one that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.inputs.captures import bare, dnerf, fourdanyone, labelled, n3dv, sv4d
from orbit4d.recon4d.inputs.captures.capture import Capture
from orbit4d.recon4d.inputs.loading import OrbitSpec

#: Names of `--layout`.
LAYOUTS = ("4danyone", "dnerf", "n3dv", "nerfstudio", "sv4d", "videos")
_IS: dict[str, Callable[[Path], bool]] = {
    "4danyone": fourdanyone.is_4danyone,
    "dnerf": dnerf.is_dnerf,
    "n3dv": n3dv.is_n3dv,
    "nerfstudio": labelled.is_labelled,
    "sv4d": sv4d.is_sv4d,
    "videos": lambda folder: len(bare.sources_in(folder)) > 1,
}
#: Layouts that are known by their files and not read.
_OTHERS = {
    "Nerfies or HyperNeRF": ("dataset.json", "metadata.json", "camera"),
    "Panoptic (Dynamic3DGaussians)": ("train_meta.json",),
    "EasyVolcap": ("intri.yml", "extri.yml"),
    "COLMAP": ("sparse/0",),
}


def layout_of(folder: Path) -> str | None:
    """Name of the layout; None for what is no capture of several cameras. InputError for one not read."""
    if not folder.is_dir():
        return None
    found = next((name for name, fits in _IS.items() if name != "videos" and fits(folder)), None)
    if found is None and not (folder / labelled.NAME).exists():
        for name, files in _OTHERS.items():
            if all((folder / file).exists() for file in files):
                raise InputError(
                    f"{folder}: {name} ({files[0]}) is not read; convert it to a transforms.json with "
                    "`camera_label` and `time` for each image"
                )
    if found is None and _IS["videos"](folder):
        found = "videos"
    return found


def root_of(folder: Path) -> Path:
    """The folder itself, or its only sub-folder where that holds a capture and the folder none."""
    if not folder.is_dir() or layout_of(folder) is not None:
        return folder
    inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    if len(inside) == 1 and inside[0].is_dir() and layout_of(inside[0]) is not None:
        return inside[0]
    return folder


def read_capture(
    folder: Path,
    layout: str | None = None,
    cameras: Path | None = None,
    ring: Sequence[float] | None = None,
    spec: OrbitSpec | None = None,
    mask: Path | None = None,
    allow_missing: bool = False,
) -> Capture:
    """The capture in a folder. InputError, one line, for what is none or contradicts itself."""
    root = root_of(folder) if layout is None else folder
    name = layout or layout_of(root)
    if name is None:
        raise InputError(f"{folder}: no capture of a known layout; known are {', '.join(LAYOUTS)}")
    if name not in LAYOUTS:
        raise InputError(f"--layout {name}: choose from {', '.join(LAYOUTS)}")
    if layout is not None and not _IS[name](root) and not (name == "nerfstudio" and _has_file(root, cameras)):
        raise InputError(f"{folder}: does not hold what the layout {name} needs")
    if ring is not None and name not in ("videos", "sv4d"):
        raise InputError(f"{folder}: --ring is for cameras that are not known; the layout {name} has its own")
    if name in ("videos", "sv4d") and ring is not None:
        return bare.read(root, bare.sources_in(root), None, ring, spec, mask)
    if name == "nerfstudio":
        return labelled.read(cameras or root / labelled.NAME, root, mask, allow_missing)
    if name == "videos":
        return bare.read(root, bare.sources_in(root), cameras, ring, spec, mask)
    if cameras is not None:
        raise InputError(f"{folder}: the layout {name} has its own cameras; leave --cameras out")
    if name == "sv4d":
        return sv4d.read(root, spec)
    capture = {"4danyone": fourdanyone.read, "dnerf": dnerf.read, "n3dv": n3dv.read}[name](root)
    return _masked(capture, root, mask)


def _has_file(root: Path, cameras: Path | None) -> bool:
    return cameras is not None or (root / labelled.NAME).is_file()


def _masked(capture: Capture, root: Path, mask: Path | None) -> Capture:
    """With the mattes of `--mask`, which are images and go with images."""
    if mask is None:
        return capture
    from orbit4d.datasets.images.folders import image_files

    tracks = []
    for track in capture.tracks:
        files = tuple(image_files(mask / track.label))
        if not files:
            raise InputError(f"--mask {mask}: no folder {track.label} with masks, one per frame")
        tracks.append(replace(track, masks=files))
    return replace(capture, tracks=tuple(tracks))
