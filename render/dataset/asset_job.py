"""One asset through one worker: fetch and look into the file, render in the child, stage the clips.

`prepare` and `stage` run in the Ray actor, before and after the child's task `render_clips`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from orbit4d.datasets.added.rows import Added
from orbit4d.datasets.added.staging import stage_added
from orbit4d.datasets.assets.inspect import inspect
from orbit4d.datasets.assets.inspection import BadFile
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import is_uri, localize
from orbit4d.datasets.sources.asset import Asset, Resolved
from orbit4d.datasets.sources.lists import absent
from orbit4d.datasets.store.clip import Clip
from orbit4d.datasets.store.rejections import Rejection
from orbit4d.datasets.store.staging import stage_asset
from orbit4d.render.dataset.added_geometry import geometry_of, skeleton_of
from orbit4d.render.fleet.settings import FleetSettings
from orbit4d.render.fleet.worker import Job
from orbit4d.render.planning.settings import RenderSettings
from orbit4d.render.planning.views import plan_action
from orbit4d.render.protocol.wire import RefusedInput

#: The `stage` of rejections that are made here.
STAGE = "render"
#: What the index keeps of an asset's provenance.
PROVENANCE = ("license", "author", "source_url", "caption")


def asset_job(asset: Asset, out: str, config: dict[str, Any]) -> Job:
    """The fleet's job for one asset of a dataset at `out` (path or URI), rendered with `config`.

    `config` is RenderSettings.as_config(), one dictionary for all jobs: there may be 100 000.
    """
    return Job(
        key=asset.uid,
        task="render_clips",
        payload={
            "uid": asset.uid,
            # Workers run in a folder of their own.
            "path": asset.path if is_uri(asset.path) else os.path.abspath(asset.path),
            "sha256": asset.sha256,
            "actions": None if asset.actions is None else list(asset.actions),
            "provenance": {name: getattr(asset, name) for name in PROVENANCE},
            "settings": config,
            "out": out,
        },
        size_bytes=asset.bytes,
        before="orbit4d.render.dataset.asset_job:prepare",
        after="orbit4d.render.dataset.asset_job:stage",
    )


def prepare(job: Job) -> dict[str, Any]:
    """The payload with a local path. Refuses what a look into the file shows to be bad, before Blender
    sees it.
    """
    payload = dict(job.payload)
    payload["path"] = localize(payload["path"], payload["scratch"])
    try:
        found = inspect(payload["path"], payload["sha256"])
    except BadFile as bad:
        raise RefusedInput(bad.code, bad.detail) from None
    payload["provenance"] = {
        name: value or getattr(found, name, "") for name, value in payload["provenance"].items()
    }
    payload["notes"] = list(found.notes)
    return payload


def stage(job: Job, result: dict[str, Any]) -> dict[str, Any]:
    """Build the clips from what the child rendered and stage them; returns what the driver wants to know."""
    payload = job.payload
    settings = RenderSettings.from_config(payload["settings"])
    clips: list[Clip] = []
    added: list[Added] = []
    pictures = 0
    seconds = 0.0
    for action in result["actions"]:
        of_action = clips_of_action(payload, settings, action, result)
        clips += of_action
        began = time.perf_counter()
        if "geometry" in action:
            added += geometry_of(action, of_action, Path(payload["scratch"]))
        if "skeleton" in action:
            added.append(skeleton_of(action, of_action[0], Path(payload["scratch"])))
        seconds += time.perf_counter() - began
        pictures += len(action["files"])
    if added:
        # Before the clips, whose rows say that the asset is done.
        stage_added(payload["out"], payload["uid"], added)
        result["timings"]["surface_maps"] = seconds
    rejected = [
        Rejection(payload["uid"], row["name"] or f"#{row['index']}", STAGE, row["reason"], row["detail"])
        for row in result["rejected"]
    ]
    known = {row["index"] for row in (*result["actions"], *result["rejected"])}
    for index in absent(payload["actions"] or (), known):
        detail = "the file has no action of this index"
        rejected.append(Rejection(payload["uid"], f"#{index}", STAGE, "no_such_action", detail))
    size = stage_asset(payload["out"], payload["uid"], clips, rejected)
    return {
        "pictures": pictures,
        "clips": len(clips),
        "samples": result["samples"],
        "bytes": size,
        "rejected": len(rejected),
        "flags": result["flags"],
        "refused": [f"{one.sample} {one.refused}" for one in added if one.refused],
        "timings": result["timings"],
    }


def clips_of_action(
    payload: dict[str, Any], settings: RenderSettings, action: dict[str, Any], result: dict[str, Any]
) -> list[Clip]:
    """Clips of one rendered action; equal (camera, moment) pairs share their bytes."""
    start, end = action["window"]
    plan = plan_action(settings, payload["uid"], (start, end))
    data = [(Path(payload["scratch"]) / name).read_bytes() for name in action["files"]]
    passes = {
        name: [(Path(payload["scratch"]) / file).read_bytes() for file in files]
        for name, files in action.get("passes", {}).items()
    }
    renderer = {
        "engine": "cycles",
        "preset": settings.preset,
        "samples": result["samples"],
        "blender": result["versions"]["blender"],
        "suns": " ".join(f"{energy:g}" for energy in settings.sun_energies_of(payload["uid"])),
        "flags": " ".join([*payload.get("notes", ()), *result["flags"]]),
    }
    total = sum(len(clip.shots) for clip in plan.clips)
    return [
        Clip(
            uid=payload["uid"],
            action=action["name"],
            action_index=action["index"],
            rig=clip.rig,
            orbit=clip.orbit,
            frames=tuple(data[i] for i in clip.shots),
            cameras=tuple(clip.cameras),
            time=tuple(clip.time),
            seconds=tuple(clip.seconds),
            window=(start, end),
            scale=action["scale"],
            centre=tuple(action["centre"]),
            azimuth0_deg=clip.azimuth0_deg,
            elevation_deg=clip.elevation_deg,
            radius=settings.radius,
            passes={name: tuple(files[i] for i in clip.shots) for name, files in passes.items()},
            measures=action["measures"][f"{clip.rig}/{clip.orbit}"],
            asset_sha256=payload["sha256"],
            renderer=renderer,
            render_seconds=action["seconds"] * len(clip.shots) / total,
            **payload["provenance"],
        )
        for clip in plan.clips
    ]


def check_reachable(resolved: Resolved, out: str, settings: RenderSettings, fleet: FleetSettings) -> None:
    """Workers on other machines cannot read, or write, this machine's files."""
    if fleet.address in (None, "local") or fleet.shared_paths:
        return
    named = [asset.path for asset in resolved.assets] + [out, settings.lights.environment or "s3://"]
    local = next((path for path in named if not is_uri(path)), None)
    if local is not None:
        raise InputError(
            f"{local}: a local path means another file on each machine of the cluster; use s3:// or gs://, "
            "or mount it everywhere (file_mounts in ray_cluster.yaml, or a network disk) and "
            "add --shared-paths"
        )
