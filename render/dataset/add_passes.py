"""Passes for clips that a dataset holds: what is missing is rendered, and no byte of theirs changes."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from orbit4d.datasets.added.rolling import STAGE, roll_added
from orbit4d.datasets.added.rows import Added, action_sample, clip_sample
from orbit4d.datasets.added.staging import stage_added, staged_added
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.core.paths import is_uri
from orbit4d.datasets.core.progress import Progress
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.geometry.reader import GEOMETRY, SKELETON
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.index.reader import read_members
from orbit4d.datasets.sources.asset import Asset
from orbit4d.datasets.sources.resolve import resolve
from orbit4d.datasets.store import manifest, rejections
from orbit4d.datasets.store.clip import Clip
from orbit4d.datasets.store.rejections import Rejection
from orbit4d.datasets.store.schema import row_clip
from orbit4d.datasets.store.writer import SHARD_BYTES, DatasetWriter
from orbit4d.render.dataset.added_geometry import geometry_of, skeleton_of
from orbit4d.render.dataset.asset_job import check_reachable
from orbit4d.render.dataset.summary import PassSummary
from orbit4d.render.fleet.driver import Outcome, run_fleet
from orbit4d.render.fleet.settings import FleetSettings
from orbit4d.render.fleet.worker import Job
from orbit4d.render.planning.settings import PASSES, RenderSettings
from orbit4d.render.planning.views import GROUND, ClipPlan, Plan, plan_action
from orbit4d.render.protocol.wire import RefusedInput


def add_passes(
    sources: Sequence[str],
    out: str,
    kinds: Sequence[str],
    fleet: FleetSettings,
    shard_bytes: int = SHARD_BYTES,
    quiet: bool = False,
) -> PassSummary:
    """Render `kinds` for the clips in `out` of the assets that `sources` name, where they are missing.

    Windows, framing, cameras and samples are those that the clips were rendered with. Clips, their shards and
    their index parts stay as they are; what is added lies under `passes/`. An interrupted run is resumed by
    the same call. Raises InputError for an `out` that is no dataset of one configuration, for a kind that is
    not known, and for sources with other contents than those that were rendered.
    """
    began = time.monotonic()
    for kind in kinds:
        if kind not in PASSES:
            raise InputError(f"unknown pass {kind!r}; choose from {', '.join(PASSES)}")
    settings = stored_settings(out)
    resolved = resolve(list(sources), None)
    check_reachable(resolved, out, settings, fleet)
    writer = DatasetWriter(out, manifest.read(Store(out)).config, shard_bytes=shard_bytes)
    # What an interrupted render left comes first: passes are added to clips that are committed.
    writer.roll(final=True)
    roll_added(writer.store, writer.indexed(), shard_bytes, final=True)
    index = Index(out)
    summary = PassSummary(input=resolved.n_inputs)
    jobs = []
    for asset in resolved.assets:
        rows = index.rows_of(asset.uid)
        if not rows:
            summary.not_there += 1
            continue
        if rows[0]["asset_sha256"] not in (asset.sha256, ""):
            raise InputError(
                f"{asset.path}: {out} holds other contents under the uid {asset.uid}; name the file that was "
                "rendered"
            )
        missing = missing_kinds(index, rows, kinds)
        if missing:
            jobs.append(_job(asset, writer.uri, settings, missing, rows))
        else:
            summary.there += 1
    if jobs:
        _run(jobs, fleet, writer, summary, quiet)
    if not summary.interrupted:
        roll_added(writer.store, writer.indexed(), shard_bytes, final=True)
    summary.seconds = time.monotonic() - began
    return summary


def stored_settings(out: str) -> RenderSettings:
    """The settings that a dataset was rendered with. InputError for one that has no such settings."""
    config = manifest.read(Store(out)).config
    try:
        return RenderSettings.from_config(config)
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{out}: was not rendered by orbit4d with one configuration; passes cannot be added to it"
        ) from error


def missing_kinds(index: Index, rows: Sequence[Mapping[str, Any]], kinds: Sequence[str]) -> list[str]:
    """Those of `kinds` that a clip or an action of an asset, by its `rows`, lacks and does not refuse."""
    have = {(row["sample"], row["kind"]) for row in index.added.rows_of(rows[0]["uid"])}

    def has(row: Mapping[str, Any], kind: str) -> bool:
        if kind in (GEOMETRY, SKELETON):
            return (action_sample(row["uid"], row["action_index"]), kind) in have
        return kind in dict(row["passes"] or []) or (clip_sample(row), kind) in have

    return [kind for kind in kinds if not all(has(row, kind) for row in rows)]


def _job(
    asset: Asset, out: str, settings: RenderSettings, kinds: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> Job:
    actions = {}
    for row in rows:
        samples = json.loads(row["renderer"] or "{}").get("samples")
        actions[row["action_index"]] = {
            "index": row["action_index"],
            "window": [row["window_start"], row["window_end"]],
            "scale": row["scale"],
            "centre": list(row["centre"]),
            "samples": int(samples or settings.engine.samples),
        }
    return Job(
        key=asset.uid,
        task="add_passes",
        payload={
            "uid": asset.uid,
            "path": asset.path if is_uri(asset.path) else str(Path(asset.path).absolute()),
            "sha256": asset.sha256,
            "provenance": {},
            "settings": settings.as_config(),
            "kinds": list(kinds),
            "actions": [actions[index] for index in sorted(actions)],
            "out": out,
        },
        size_bytes=asset.bytes,
        before="orbit4d.render.dataset.asset_job:prepare",
        after="orbit4d.render.dataset.add_passes:stage",
    )


def stage(job: Job, result: dict[str, Any]) -> dict[str, Any]:
    """In the worker: stage what the child made for one asset, and say what that is."""
    payload = job.payload
    settings = RenderSettings.from_config(payload["settings"])
    scratch = Path(payload["scratch"])
    index = Index(payload["out"])
    rows = index.rows_of(payload["uid"])
    window_of = {action["index"]: action["window"] for action in payload["actions"]}
    added: list[Added] = []
    for action in result["actions"]:
        of_action = [row for row in rows if row["action_index"] == action["index"]]
        start, end = window_of[action["index"]]
        ground = action.get("ground")
        plan = plan_action(
            settings, payload["uid"], (start, end), ground=GROUND if ground is None else ground
        )
        clips = [_clip_of(index, row, plan) for row in of_action]
        if "geometry" in action:
            added += geometry_of(action, clips, scratch)
        if "skeleton" in action:
            added.append(skeleton_of(action, clips[0], scratch))
        for kind, files in action["passes"].items():
            data = [(scratch / file).read_bytes() for file in files]
            added += [_pass_of(row, clip, kind, plan, data) for row, clip in zip(of_action, clips)]
    size = stage_added(payload["out"], payload["uid"], added)
    return {
        "rows": len(added),
        "bytes": size,
        "refused": [one.refused for one in added if one.refused],
        "timings": result["timings"],
    }


def _clip_of(index: Index, row: Mapping[str, Any], plan: Plan) -> Clip:
    """The stored clip of an index row; its cameras and times must be those of `plan`."""
    clip = row_clip(row, read_members(index.shard_store, row))
    planned = _planned(plan, clip)
    same = planned is not None and (
        list(clip.cameras) == list(planned.cameras) and list(clip.seconds) == list(planned.seconds)
    )
    if not same:
        raise RefusedInput(
            "passes:differ",
            f"{clip.rig} {clip.orbit} of action {clip.action!r} has other cameras or times than those "
            "that the dataset's settings give",
        )
    return replace(clip, passes={})


def _planned(plan: Plan, clip: Clip) -> ClipPlan | None:
    """What the plan says of a stored clip, None where it knows no such."""
    key = (clip.rig, clip.orbit, clip.light)
    return next((p for p in plan.clips if (p.rig, p.orbit, p.light) == key), None)


def _pass_of(row: Mapping[str, Any], clip: Clip, kind: str, plan: Plan, data: Sequence[bytes]) -> Added:
    planned = _planned(plan, clip)
    members = tuple(data[i] for i in planned.views) if planned is not None else ()
    return Added(clip.uid, clip.action, clip.action_index, clip_sample(row), kind, members)


def _run(
    jobs: Sequence[Job], fleet: FleetSettings, writer: DatasetWriter, summary: PassSummary, quiet: bool
) -> None:
    failed: list[Rejection] = []
    progress = None if quiet else Progress("passes", len(jobs), "asset")

    def judge(outcome: Outcome) -> None:
        if outcome.status == "done":
            result = outcome.result or {}
            summary.done += 1
            summary.rows += result["rows"]
            for reason in result["refused"]:
                summary.refused[reason] = summary.refused.get(reason, 0) + 1
            if sum(one.tar_bytes for one in staged_added(writer.store)) >= writer.shard_bytes:
                roll_added(writer.store, writer.indexed(), writer.shard_bytes)
        elif outcome.refused and outcome.reason in ("device", "environment", "blender:import"):
            raise WorkError(f"{outcome.reason}: {outcome.detail}")
        else:
            summary.failed[outcome.reason] = summary.failed.get(outcome.reason, 0) + 1
            failed.append(
                Rejection(
                    outcome.job.key,
                    "",
                    STAGE,
                    outcome.reason,
                    outcome.detail,
                    outcome.attempts,
                    outcome.preemptions,
                    outcome.log_tail,
                )
            )
        if progress is not None:
            progress.update(1, done=summary.done, failed=len(failed))

    try:
        ran = run_fleet(jobs, fleet, judge)
    finally:
        rejections.write(writer.store, failed)
        if progress is not None:
            progress.close()
    summary.interrupted = ran.interrupted
