"""The import of published folders: a loop over assets that stages their clips and counts what became of each.

A layout gives `run_import` two functions: where a file belongs, and what clips an asset's files make.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orbit4d.datasets.core.progress import Progress
from orbit4d.datasets.images.codec import Pixels
from orbit4d.datasets.images.folders import UNREADABLE, rgba_of
from orbit4d.datasets.layouts.archives import Files, Locate, assets
from orbit4d.datasets.store.clip import Clip
from orbit4d.datasets.store.rejections import Rejection
from orbit4d.datasets.store.writer import DatasetWriter


@dataclass(frozen=True)
class Imported:
    """What an import did."""

    assets: int
    clips: int
    rejected: int
    already: int
    """Assets that the dataset held before."""
    without_caption: int = 0
    """New assets that a captions table was given for and does not name."""


class BadFolder(Exception):
    """A folder that cannot become clips: (reason code, detail)."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def listed(source: str | os.PathLike[str] | Sequence[str]) -> list[str]:
    return [os.fspath(source)] if isinstance(source, str | os.PathLike) else [os.fspath(s) for s in source]


def run_import(
    sources: Sequence[str],
    out: str | os.PathLike[str],
    config: Mapping[str, Any],
    locate: Locate,
    build: Callable[[str, Files], tuple[list[Clip], list[Rejection]]],
    captions: str | None,
    shard_bytes: int,
) -> Imported:
    from orbit4d.datasets.sources.captions import read_captions

    texts = read_captions(captions) if captions else {}
    found = assets(sources, locate)
    first = next(found)  # Bad input is said before anything is written.
    writer = DatasetWriter(out, config, shard_bytes=shard_bytes)
    done, waiting, counts = writer.finished(), 0, [0, 0, 0, 0, 0]
    with Progress("import", None, "asset") as progress:
        for asset, files in (item for part in ([first], found) for item in part):
            progress.update()
            if asset in done:
                counts[3] += 1
                continue
            clips, refused = build(asset, files)
            writer.reject(refused)
            counts[2] += len(refused)
            if not clips:
                continue
            record = texts.get(asset, {})
            counts[4] += captions is not None and not record
            fields = {
                key: record[key] for key in ("caption", "license", "author", "source_url") if record.get(key)
            }
            clips = [Clip(**{**clip.__dict__, **fields}) for clip in clips]
            writer.stage(asset, clips)
            counts[0], counts[1] = counts[0] + 1, counts[1] + len(clips)
            waiting += sum(len(member) for clip in clips for member in clip.members)
            if waiting >= writer.shard_bytes:
                writer.roll()
                waiting = 0
    writer.roll(final=True)
    return Imported(*counts)


def read_json(files: dict[str, bytes], name: str) -> dict[str, Any]:
    if name not in files:
        return {}
    try:
        content = json.loads(files[name])
    except ValueError as error:
        raise BadFolder("bad_file:json", f"{name}: {error}") from error
    return content if isinstance(content, dict) else {}


def stack(images: Sequence[tuple[str, bytes]]) -> Pixels:
    frames = []
    for name, data in images:
        try:
            frames.append(rgba_of(io.BytesIO(data)))
        except UNREADABLE as error:
            raise BadFolder("bad_file:truncated", f"{name}: {error}") from error
    if len({frame.shape for frame in frames}) > 1:
        raise BadFolder("bad_file:image", "images of different sizes")
    return np.stack(frames)
