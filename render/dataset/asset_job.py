"""One asset through one worker: fetch and inspect the file, render in the child, stage the clips.

`prepare` and `stage` run in the Ray actor, before and after the child's task `render_clips`.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from orbit4d.datasets.added.rows import Added
from orbit4d.datasets.added.staging import stage_added
from orbit4d.datasets.assets.inspection import BadFile
from orbit4d.datasets.core.errors import WorkError
from orbit4d.datasets.core.paths import is_uri
from orbit4d.datasets.sources.asset import Asset, Resolved
from orbit4d.datasets.sources.fetching import NotFetched, fetch_asset
from orbit4d.datasets.sources.lists import absent
from orbit4d.datasets.store.clip import Clip
from orbit4d.datasets.store.rejections import Rejection
from orbit4d.datasets.store.staging import stage_asset
from orbit4d.render.dataset.added_geometry import geometry_of, skeleton_of
from orbit4d.render.fleet.settings import FleetSettings
from orbit4d.render.fleet.worker import Job
from orbit4d.render.planning.lights import lightings_of
from orbit4d.render.planning.settings import RenderSettings
from orbit4d.render.planning.views import GROUND, measured_as, plan_action
from orbit4d.render.protocol.messages import RenderResult, from_json
from orbit4d.render.protocol.wire import RefusedInput

#: The `stage` of rejections that are made here.
STAGE = "render"
#: What the index keeps of an asset's provenance, and the split it was put into.
PROVENANCE = ("license", "author", "source_url", "caption", "split")


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
    """The payload with a local path. Refuses what inspecting the file shows to be bad, before Blender
    sees it.
    """
    payload = dict(job.payload)
    try:
        payload["path"], found = fetch_asset(
            payload["path"], payload["sha256"], payload["scratch"], lambda sha256: _learn(job, sha256)
        )
    except (BadFile, NotFetched) as bad:
        raise RefusedInput(bad.code, bad.detail) from None
    payload["sha256"] = found.sha256
    payload["provenance"] = {
        name: value or getattr(found, name, "") for name, value in payload["provenance"].items()
    }
    payload["notes"] = list(found.notes)
    return payload


def _learn(job: Job, sha256: str) -> None:
    """Let the driver know what nobody had read before, also of a file that is refused."""
    if not job.payload["sha256"]:
        job.payload["learned"] = {"sha256": sha256}


def stage(job: Job, result: dict[str, Any]) -> dict[str, Any]:
    """Build the clips from what the child rendered and stage them; returns what the driver wants to know."""
    payload = job.payload
    from_json(RenderResult, result)  # a field that is not what it should be is named here
    settings = RenderSettings.from_config(payload["settings"])
    clips: list[Clip] = []
    added: list[Added] = []
    images = 0
    seconds = 0.0
    for action in result["actions"]:
        of_action = clips_of_action(payload, settings, action, result)
        clips += of_action
        began = time.perf_counter()
        if action.get("geometry"):
            added += geometry_of(action, of_action, Path(payload["scratch"]))
        if action.get("skeleton"):
            added.append(skeleton_of(action, of_action[0], Path(payload["scratch"])))
        seconds += time.perf_counter() - began
        images += len(action["files"])
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
        "images": images,
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
    """Clips of one rendered action; equal (camera, time) pairs share their bytes."""
    start, end = action["window"]
    # With the same ground the child's plan is made again, to the bit.
    ground = action.get("ground")
    plan = plan_action(settings, payload["uid"], (start, end), ground=GROUND if ground is None else ground)
    if plan.sha256 != action["plan_sha256"]:
        raise WorkError(
            f"{payload['uid']}: the cameras and times that Blender rendered are not those of these settings: "
            "is another version of orbit4d on this machine?"
        )
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
        "flags": " ".join([*payload.get("notes", ()), *result["flags"]]),
    }
    suns = [
        " ".join(f"{lamp.energy:g}" for lamp in lighting.lamps if lamp.place is None)
        for lighting in lightings_of(settings, payload["uid"])
    ]
    lights = result.get("lights") or [{}] * settings.lights.n_lights
    total = sum(len(clip.views) for clip in plan.clips)
    return [
        Clip(
            uid=payload["uid"],
            action=action["name"],
            action_index=action["index"],
            rig=clip.rig,
            orbit=clip.orbit,
            frames=tuple(data[i] for i in clip.views),
            cameras=tuple(clip.cameras),
            time=tuple(clip.time),
            seconds=tuple(clip.seconds),
            window=(start, end),
            scale=action["scale"],
            centre=tuple(action["centre"]),
            azimuth0_deg=clip.azimuth0_deg,
            elevation_deg=clip.elevation_deg,
            radius=clip.radius,
            passes={name: tuple(files[i] for i in clip.views) for name, files in passes.items()},
            measures=action["measures"][measured_as(clip.rig, clip.orbit, clip.light)],
            asset_sha256=payload["sha256"],
            renderer={**renderer, "suns": suns[clip.light]},
            render_seconds=action["seconds"] * len(clip.views) / total,
            **payload["provenance"],
            light=clip.light,
            lighting=lights[clip.light],
            **clip.facts,
        )
        for clip in plan.clips
    ]


def check_reachable(resolved: Resolved, out: str, settings: RenderSettings, fleet: FleetSettings) -> None:
    """Workers on other machines cannot read, or write, this machine's files."""
    fleet.refuse_local([asset.path for asset in resolved.assets] + [out, *settings.lights.files])
