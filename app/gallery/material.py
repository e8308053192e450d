"""What the sections of the gallery are made from, and the notes of other commands that it reads."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orbit4d.datasets.cameras.transforms import read_extra


@dataclass
class Material:
    """What the sections are made from; every path is relative to the page."""

    record: dict[str, Any]
    """demo.json."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the curation table, with "thumb" (path or None)."""
    rules: dict[str, Any] = field(default_factory=dict)
    """Thresholds the table was decided with."""
    clips: list[dict[str, Any]] = field(default_factory=list)
    """One per (uid, action): its index row's facts and "loops" (rig -> path)."""
    dataset: dict[str, Any] = field(default_factory=dict)
    """Digest, counts, bytes, configuration and software."""
    log: list[dict[str, Any]] = field(default_factory=list)
    """Training steps."""
    model: dict[str, Any] = field(default_factory=dict)
    """Configuration of the run."""
    motion: dict[str, Any] = field(default_factory=dict)
    """Input image, low and high video, and what was asked for."""
    scene: dict[str, Any] = field(default_factory=dict)
    """metrics.json, film, truth, and PSNR per frame."""


def read_log(path: Path) -> list[dict[str, Any]]:
    """Rows of a log.jsonl; a torn last line is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def about_generated(folder: Path, level: str) -> dict[str, Any]:
    """What `orbit4d generate` noted beside a video, {} when it is not there."""
    return read_extra(folder / "generated" / level / "transforms.json")
