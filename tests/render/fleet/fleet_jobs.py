"""Hooks of jobs that render nothing: an input is fetched, made-up clips staged. Imported by Ray's workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from orbit4d.datasets import Clip, encode_webp, orbit
from orbit4d.datasets.core.paths import localize
from orbit4d.datasets.sources.asset import Asset
from orbit4d.datasets.store.rejections import Rejection
from orbit4d.datasets.store.staging import stage_asset
from orbit4d.render.fleet.worker import Job


def drawn(uid: str) -> Iterator[Clip]:
    """Two clips whose content follows from the uid."""
    rng = np.random.default_rng(list(uid.encode()))
    for rig in ("dynamic_orbit", "front_view"):
        frames = tuple(encode_webp(rng.integers(0, 255, (8, 8, 4), dtype=np.uint8)) for _ in range(2))
        cameras = tuple(orbit(2, size=(8, 8))) if rig == "dynamic_orbit" else (orbit(2, size=(8, 8))[0],) * 2
        times = (0.0, 1.0)
        yield Clip(uid, "", 0, rig, 0, frames, cameras, times, times, times, 1.0, (0, 0, 0), 0.0, 0.0, 2.0)


def told(uid: str) -> list[Rejection]:
    """An action that is reported with every asset."""
    return [Rejection(uid, "Rest", "render", "still", "nothing moves")]


def job_of(asset: Asset, out: str, config: dict[str, Any], nap: float = 0.0) -> Job:
    """In the place of `asset_job`: the same way in and out, and no Blender between."""
    payload = {"uid": asset.uid, "path": asset.path, "sha256": asset.sha256, "out": out, "nap": nap}
    return Job(asset.uid, "", payload, asset.bytes, "fleet_jobs:fetch", "fleet_jobs:stage")


def fetch(job: Job) -> dict[str, Any]:
    """Read the input as `prepare` does, and take a while."""
    payload = {**job.payload, "path": localize(job.payload["path"], job.payload["scratch"])}
    time.sleep(payload["nap"])
    return payload


def stage(job: Job, result: dict[str, Any]) -> dict[str, Any]:
    """Stage what was drawn, as `asset_job.stage` does."""
    uid = job.payload["uid"]
    size = stage_asset(job.payload["out"], uid, drawn(uid), told(uid))
    return {
        "images": 4, "clips": 2, "samples": 1, "bytes": size, "rejected": 1, "flags": [], "timings": {},
    }  # fmt: skip
