"""From sources to a table of measures: resolve, inspect files, fan out over Blender children, collect.

`look_first` and `add_look` run inside the fleet's actors, around the task `measure` of the Blender child.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from orbit4d.curate import columns
from orbit4d.curate.duplicates import mark_duplicates
from orbit4d.curate.journal import Journal
from orbit4d.curate.leaks import mark_benchmarks
from orbit4d.datasets.assets.inspection import PASSING, BadFile
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.core.progress import Progress
from orbit4d.datasets.sources.asset import Asset, Resolved
from orbit4d.datasets.sources.fetching import NotFetched, fetch_asset
from orbit4d.datasets.sources.lists import absent
from orbit4d.datasets.sources.objaverse.workers import is_object
from orbit4d.datasets.sources.promises import forget_promise
from orbit4d.datasets.sources.resolve import resolve
from orbit4d.render.protocol.wire import RefusedInput

if TYPE_CHECKING:
    from orbit4d.render.fleet.driver import Outcome
    from orbit4d.render.fleet.settings import FleetSettings
    from orbit4d.render.fleet.worker import Job

#: Changes whenever a measure changes its meaning; tables of different versions are not mixed.
MEASURE_VERSION = 3
PREVIEWS = ("none", "window", "raw", "both")


@dataclass(frozen=True)
class MeasureSettings:
    """What is measured. Two tables measured alike can be compared, and merged."""

    previews: str = "window"
    """Which times previews show: none, window (the moving window), raw (published scene frames), both."""
    preview_size: int = 128
    """Pixels a side of a preview. The published rule names no size."""
    preview_samples: int = 4
    """Cycles samples a pixel of a preview."""

    def __post_init__(self) -> None:
        if self.previews not in PREVIEWS:
            raise InputError(f"previews is {self.previews!r}; it is one of {', '.join(PREVIEWS)}")
        if not 16 <= self.preview_size <= 1024 or not 1 <= self.preview_samples <= 4096:
            raise InputError("a preview has 16 to 1024 pixels a side and 1 to 4096 samples")


@dataclass
class Measured:
    """A measured input: its table (without verdicts) and what did not become rows."""

    table: pa.Table
    resolved: Resolved
    reused: int = 0
    """Assets whose rows came from an earlier run."""
    interrupted: bool = False


def measure(
    source: str | Sequence[str],
    captions: str | None = None,
    settings: MeasureSettings | None = None,
    fleet: FleetSettings | None = None,
) -> pa.Table:
    """Measure every action of every asset of `source`; one row per (uid, action), undecided.

    The rows of an asset that was refused or could not be measured have action ''. Raises InputError for
    sources that do not resolve, WorkError when no worker can be started.
    """
    return measure_sources([source] if isinstance(source, str) else source, captions, settings, fleet).table


def measure_sources(
    sources: Sequence[str],
    captions: str | None = None,
    settings: MeasureSettings | None = None,
    fleet: FleetSettings | None = None,
    known: Mapping[tuple[str, str], list[dict[str, Any]]] | None = None,
    journal: str | os.PathLike[str] | None = None,
) -> Measured:
    """`measure`, with rows already `known` under (uid, sha256) reused.

    With `journal` (path or URI), rows are written there as they come, and found again by the next call with
    the same settings, so that an interrupted run resumes where it stopped; the caller removes it in the end.
    """
    from orbit4d.render.fleet.driver import run_fleet
    from orbit4d.render.fleet.settings import FleetSettings, StorageCheck
    from orbit4d.render.fleet.worker import Job

    settings, fleet = settings or MeasureSettings(), fleet or FleetSettings()
    resolved = resolve(sources, captions, workers_fetch=fleet.elsewhere)
    fleet.refuse_local(asset.path for asset in resolved.assets)
    about = {"measure_version": MEASURE_VERSION, **asdict(settings)}
    book = Journal(os.fspath(journal), about) if journal is not None else None
    done = {**(known or {}), **(book.rows if book else {})}
    rows: list[dict[str, Any]] = [_refused_row(*rejected) for rejected in resolved.rejected]
    jobs: dict[str, tuple[Asset, Job]] = {}
    reused = 0
    for asset in resolved.assets:
        contents = contents_of(asset.sha256, asset.path, asset.version)
        # What nothing tells from another version of itself is measured again.
        earlier = done.get((asset.uid, contents)) if contents else None
        if earlier is not None:
            reused += 1
            rows += [_described(row, asset) for row in _wanted(earlier, asset)]
            continue
        # Workers run in a folder of their own.
        path = asset.path if "://" in asset.path else str(Path(asset.path).absolute())
        payload = {**asdict(settings), "path": path, "sha256": asset.sha256}
        hooks = {"before": f"{__name__}:look_first", "after": f"{__name__}:add_look"}
        jobs[asset.uid] = (asset, Job(asset.uid, "measure", payload, asset.bytes, **hooks))

    def collect(outcome: Outcome) -> None:
        asset = jobs[outcome.job.key][0]
        found = _rows(asset, outcome)
        # What another attempt might fix is not written down: the next run tries it again.
        final = found[0]["status"] != "failed" and found[0].get("failure") not in PASSING
        contents = contents_of(asset.sha256, asset.path, asset.version)
        if book is not None and final and contents:
            book.add(asset.uid, contents, found)
        if found[0]["status"] != "measured":
            forget_promise(asset.path, asset.sha256)
        rows.extend(_described(row, asset) for row in _wanted(found, asset))

    interrupted = False
    if jobs:
        paths = (asset.path for asset, _ in jobs.values())
        source = next((path for path in paths if "://" in path and not is_object(path)), "")
        fleet = replace(fleet, storage=StorageCheck(source=source))
        try:
            with Progress("measure", len(jobs), "asset") as progress:
                summary = run_fleet([job for _, job in jobs.values()], fleet, collect, progress)
        finally:
            if book is not None:
                book.flush()
        interrupted = summary.interrupted
    rows = _without_repeated(rows, resolved)
    order = {asset.uid: i for i, asset in enumerate(resolved.assets)}
    rows.sort(key=lambda row: (order.get(row["uid"], len(order)), row["uid"], row["action_index"] or 0))
    info = {"measure_version": MEASURE_VERSION, "measure": asdict(settings), "versions": software_versions()}
    table = mark_benchmarks(mark_duplicates(columns.build(rows, info)), None, resolved.duplicates)
    return Measured(table, resolved, reused, interrupted)


def software_versions() -> dict[str, str]:
    """Versions of what a measure depends on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("orbit4d", "bpy", "numpy", "scipy", "pyarrow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found


def look_first(job: Job) -> dict[str, Any]:
    """In the actor, before Blender: fetch the file and inspect it. Raises RefusedInput with its code."""
    payload = dict(job.payload)
    try:
        payload["path"], found = fetch_asset(
            payload["path"], payload["sha256"], payload["scratch"], lambda sha256: _learn(job, sha256)
        )
    except (BadFile, NotFetched) as bad:
        raise RefusedInput(bad.code, bad.detail) from None
    payload["look"] = {name: getattr(found, name) for name in ("license", "author", "source_url")}
    payload["look"] |= {"asset_sha256": found.sha256, "bytes": os.path.getsize(payload["path"])}
    return payload


def _learn(job: Job, sha256: str) -> None:
    """Let the driver know the hash, also of a file that is refused."""
    job.payload["learned"] = {"sha256": sha256}


def add_look(job: Job, result: dict[str, Any]) -> dict[str, Any]:
    """In the actor, after Blender: send along what the file said of itself."""
    return {**result, "look": job.payload["look"]}


def _rows(asset: Asset, outcome: Outcome) -> list[dict[str, Any]]:
    """The rows of one outcome; at least one."""
    if outcome.status != "done":
        if outcome.reason == "blender:import":
            raise WorkError(f"Blender cannot be loaded: {outcome.detail}; run `orbit4d doctor`")
        # What says nothing about the contents is no verdict on them: the next run measures the asset.
        final = outcome.refused and ":" in outcome.reason and outcome.reason not in PASSING
        status = "refused" if final else "failed"
        row = {"action": "", "status": status, "failure": outcome.reason, "detail": outcome.detail[:500]}
        return [{**row, "attempts": outcome.attempts, "asset_sha256": outcome.learned.get("sha256", "")}]
    result = outcome.result or {}
    shared = {k: v for k, v in result["asset"].items() if k in columns.COLUMNS}
    shared |= {"status": "measured", "attempts": outcome.attempts, **result.get("look", {})}
    return [{**shared, **row} for row in result["actions"]]


def _wanted(rows: list[dict[str, Any]], asset: Asset) -> list[dict[str, Any]]:
    """Only the actions that a table as source names; all of them otherwise."""
    if asset.actions is None:
        return rows
    kept = [row for row in rows if row["status"] != "measured" or row["action_index"] in asset.actions]
    lacking = absent(asset.actions, {row["action_index"] for row in rows if row["status"] == "measured"})
    if not lacking or any(row["status"] != "measured" for row in rows):
        return kept
    which = ", ".join(map(str, lacking))
    failure = {"action": "", "status": "failed", "failure": "no_such_action"}
    return [*kept, {**failure, "action_index": lacking[0], "detail": f"the file has no action {which}"}]


def _described(row: dict[str, Any], asset: Asset) -> dict[str, Any]:
    row = dict(row)
    if isinstance(row.get("preview"), str):
        row["preview"] = base64.b64decode(row["preview"])
    for name in ("license", "author", "source_url"):
        row[name] = getattr(asset, name) or row.get(name) or ""
    path = asset.path if "://" in asset.path else str(Path(asset.path).absolute())
    row |= {"uid": asset.uid, "path": path, "format": asset.format, "asset_version": asset.version}
    # Of an asset that only the worker has read, the worker says what it is.
    row |= {"asset_sha256": asset.sha256 or row.get("asset_sha256") or ""}
    row |= {"bytes": asset.bytes or row.get("bytes") or 0, "caption": asset.caption}
    row.setdefault("action_index", 0)
    return row


def contents_of(sha256: str, path: str, version: str) -> str:
    """What tells one version of an asset's file from another; '' where nothing does."""
    return sha256 or (f"{path}@{version}" if version else "")


def _without_repeated(rows: list[dict[str, Any]], resolved: Resolved) -> list[dict[str, Any]]:
    """The rows without those of assets that their workers found to be an earlier asset's contents.

    Such an asset becomes a duplicate in `resolved`, as it would have been had its hash been known before.
    """
    sha256_of = {row["uid"]: row.get("asset_sha256") or "" for row in rows}
    first: dict[str, str] = {}
    repeated: dict[str, str] = {}
    for asset in resolved.assets:
        contents = sha256_of.get(asset.uid) or asset.sha256 or asset.uid
        if first.setdefault(contents, asset.uid) != asset.uid:
            repeated[asset.uid] = first[contents]
    resolved.duplicates += [(a.path, repeated[a.uid]) for a in resolved.assets if a.uid in repeated]
    resolved.assets = [asset for asset in resolved.assets if asset.uid not in repeated]
    return [row for row in rows if row["uid"] not in repeated]


def _refused_row(uid: str, path: str, reason: str, detail: str) -> dict[str, Any]:
    return {
        "uid": uid,
        "path": path,
        "action": "",
        "action_index": 0,
        "status": "failed" if reason in (*PASSING, NotFetched.code) else "refused",
        "failure": reason,
        "detail": detail,
        "license": "",
        "author": "",
        "source_url": "",
        "caption": "",
        "attempts": 0,
    }
