"""Write a dataset in another layout: nerfstudio's transforms.json, the published folders, or plain frames."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.progress import Progress
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.images.codec import Pixels, encode_png, suffix
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.layouts import nerfstudio
from orbit4d.datasets.layouts.diffusion4d import LAYOUT
from orbit4d.datasets.layouts.published_cameras import camera_to_json, folder_name
from orbit4d.datasets.operations.select import check_chosen, chosen, clips
from orbit4d.datasets.store.clip import Clip, sample_name


def png(pixels: Pixels) -> bytes:
    """Straight RGBA uint8 [H, W, 4] as PNG, exact also under alpha 0."""
    return encode_png(pixels)


def _frames(clip: Clip) -> Iterator[tuple[str, bytes]]:
    for i, pixels in enumerate(clip.pixels()):
        yield f"{sample_name(clip.key)}/{i:03d}.png", png(pixels)
    yield from _passes(clip)


def _passes(clip: Clip) -> Iterator[tuple[str, bytes]]:
    """`<sample>/<pass>/<frame:03d>.npy`, as stored."""
    for name in sorted(clip.passes):
        for i, data in enumerate(clip.passes[name]):
            yield f"{sample_name(clip.key)}/{name}/{i:03d}.{suffix(data)}", data


def _diffusion4d(asset: list[Clip]) -> Iterator[tuple[str, bytes]]:
    """Published folders of one asset, one per action and orbit. What the layout has no place for goes into
    metadata.json under "orbit4d", so that importing it again gives the same clips."""
    folders: dict[tuple[int, int], str] = {}
    extras: dict[str, dict[str, Any]] = {}
    for clip in sorted(asset, key=lambda clip: clip.rig):
        key = (clip.action_index, clip.orbit)
        if key not in folders:
            name = folder_name(clip.uid, clip.action_index, clip.azimuth0_deg, clip.elevation_deg)
            if name in extras:
                raise InputError(
                    f"{clip.uid}: orbits {clip.orbit} and {extras[name]['orbit']} share their angles"
                )
            folders[key] = name
            extras[name] = _extra(clip)
        folder = folders[key]
        images, cameras = LAYOUT[clip.rig]
        for i, pixels in enumerate(clip.pixels()):
            yield f"{folder}/{images.format(i=i)}", png(pixels)
        for i, camera in enumerate(clip.cameras):
            yield f"{folder}/{cameras.format(i=i)}", json.dumps(camera_to_json(camera)).encode()
        extras[folder][clip.rig] = {
            "time": clip.time,
            "seconds": clip.seconds,
            "measures": dict(clip.measures),
            "azimuth0_deg": clip.azimuth0_deg,
            "elevation_deg": clip.elevation_deg,
            "radius": clip.radius,
        }
    for folder, extra in extras.items():
        yield f"{folder}/metadata.json", json.dumps({"orbit4d": extra}).encode()


def _extra(clip: Clip) -> dict[str, Any]:
    names = ("action", "orbit", "window", "scale", "centre", "license", "author", "source_url", "caption")
    return {name: getattr(clip, name) for name in (*names, "asset_sha256")} | {
        "renderer": dict(clip.renderer)
    }


def _each(write: Callable[[Clip], Iterator[tuple[str, bytes]]]) -> Callable[..., Iterator[tuple[str, bytes]]]:
    return lambda asset: (file for clip in asset for file in write(clip))


FORMATS: dict[str, Callable[[list[Clip]], Iterator[tuple[str, bytes]]]] = {
    "nerfstudio": nerfstudio.asset_files,
    "diffusion4d": _diffusion4d,
    "frames": _each(_frames),
}


def export_dataset(
    dataset: str, out: str, format: str, where: str | None = None, split: str | None = None
) -> int:
    """Write the chosen clips (see `orbit4d select`) in a layout of FORMATS; returns their number.

    `hf-card` writes README.md, a Hugging Face dataset card, and no frames. InputError for an unknown format,
    or when no clip matches.
    """
    if format == "hf-card":
        from orbit4d.datasets.layouts.dataset_card import card

        Store(out).put("README.md", card(dataset).encode())
        return len(Index(dataset))
    if format not in FORMATS:
        raise InputError(f"--format {format}: known are {', '.join([*FORMATS, 'hf-card'])}")
    index = Index(dataset)
    keep = chosen(index, where, split)
    check_chosen(index, keep, split)
    rigs = {index.keys.rigs[code] for code in set(index.keys.rig[keep].tolist())}
    if format == "diffusion4d" and rigs - set(LAYOUT):
        rig = min(rigs - set(LAYOUT))
        raise InputError(f"{dataset}: {format} has no place for {rig} clips; --where \"rig <> '{rig}'\"")
    if format == "diffusion4d" and index.keys.light[keep].any():
        raise InputError(f'{dataset}: {format} has one light for each clip; choose one, --where "light = 0"')
    store = Store(out)
    left_out: set[str] = set()
    with Progress("export", int(keep.sum()), "clip") as progress:
        for _, asset in clips(index, keep):
            for name, data in FORMATS[format](asset):
                store.put(name, data)
            left_out |= {name for clip in asset for name in clip.passes}
            progress.update(len(asset))
    if format == "diffusion4d" and left_out:
        names = ", ".join(sorted(left_out))
        print(f"note: {format} has no place for the passes {names}; --format frames has", file=sys.stderr)
    return int(keep.sum())
