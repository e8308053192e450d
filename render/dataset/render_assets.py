"""Render assets into a dataset: resume, fan out, stage, roll, and account for every input."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from orbit4d.datasets.added.rolling import roll_added
from orbit4d.datasets.assets.inspection import PASSING
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.core.progress import Progress
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.sources.asset import Asset, Resolved
from orbit4d.datasets.sources.promises import forget_promise
from orbit4d.datasets.sources.resolve import resolve
from orbit4d.datasets.store import manifest, parts
from orbit4d.datasets.store.rejections import Rejection
from orbit4d.datasets.store.writer import SHARD_BYTES, DatasetWriter
from orbit4d.render.dataset.add_passes import add_passes
from orbit4d.render.dataset.asset_job import STAGE, asset_job, check_reachable
from orbit4d.render.dataset.summary import RenderSummary
from orbit4d.render.fleet.driver import Outcome, run_fleet
from orbit4d.render.fleet.settings import FleetSettings
from orbit4d.render.planning.environment import check_environment
from orbit4d.render.planning.settings import MATERIAL_PASSES, RenderSettings

#: Prefix of the reason of an asset whose attempts, or preemptions, are used up.
QUARANTINED = "quarantined:"
#: Refusals that no other asset would escape: the run is stopped, not the asset rejected.
FATAL = ("device", "environment", "blender:import")
#: Rejections of what could not be read at all: nothing was found out about the contents.
NOT_HAD = (*PASSING, "download_failed", "unknown_id")
_CONTENTS = re.compile(r"\(file ([0-9a-f]{12})\)$")
#: Seconds between writes of the rejections gathered so far.
REJECT_EVERY = 10.0


def render_assets(
    sources: Sequence[str],
    out: str,
    settings: RenderSettings,
    fleet: FleetSettings,
    captions: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    retry_quarantined: bool = False,
    quiet: bool = False,
) -> RenderSummary:
    """Render every asset that `sources` name into the dataset at `out`, and say what became of each.

    Assets that are done, rejected or quarantined in `out` already are not touched again (quarantined ones are
    with `retry_quarantined`), unless the file has other contents than the ones that were refused, or was only
    not to be had. An interrupted run leaves staged assets that the next run takes up.
    Raises InputError for bad sources, an `out` that holds another configuration, or a uid that `out` holds
    with other contents; WorkError when no worker can be kept alive.
    """
    began = time.monotonic()
    check_environment(settings.lights.environment)
    resolved = resolve(list(sources), captions)
    check_reachable(resolved, out, settings, fleet)
    fresh = not Store(out).exists(manifest.NAME)
    writer = DatasetWriter(out, settings.as_config(), shard_bytes=shard_bytes)
    _check_same_contents(writer, resolved.assets)
    finished, known = writer.finished(), writer.rejected()
    if retry_quarantined:
        known = {uid: row for uid, row in known.items() if not row.reason.startswith(QUARANTINED)}
    new = [
        Rejection(uid, "", STAGE, reason, detail)
        for uid, _, reason, detail in resolved.rejected
        if uid not in known or known[uid].reason != reason
    ]
    writer.reject(new)
    todo = [a for a in resolved.assets if a.uid not in finished and not _is_refused(known.get(a.uid), a)]
    summary = RenderSummary()
    if todo:
        run = _Run(writer, summary, quiet)
        try:
            run.go(todo, settings, fleet)
        except WorkError:
            # A device that is not there, a cluster that does not start: leave no empty dataset behind.
            if fresh and not writer.finished() and not writer.rejections():
                writer.store.delete([manifest.NAME])
            raise
    if not summary.interrupted:
        writer.roll(final=True)
        roll_added(writer.store, writer.indexed(), shard_bytes, final=True)
    beside = [name for name in settings.passes if name in MATERIAL_PASSES]
    if beside and not summary.interrupted and writer.indexed():
        # Materials are changed for them, so they come when every image is rendered.
        summary.added = add_passes(sources, out, beside, fleet, shard_bytes, quiet)
        summary.interrupted = summary.added.interrupted
    _reconcile(summary, resolved, writer)
    summary.seconds = time.monotonic() - began
    return summary


class _Run:
    """The driver's side while the fleet works."""

    def __init__(self, writer: DatasetWriter, summary: RenderSummary, quiet: bool) -> None:
        self.writer, self.summary, self.quiet = writer, summary, quiet
        self.rejections: list[Rejection] = []
        self.staged_bytes = 0
        self.began = self.flushed = time.monotonic()
        self.counts = {"done": 0, "rejected": 0, "quarantined": 0}
        self.progress: Progress | None = None

    def go(self, todo: list[Asset], settings: RenderSettings, fleet: FleetSettings) -> None:
        config = settings.as_config()
        jobs = [asset_job(asset, self.writer.uri, config) for asset in todo]
        if not self.quiet:
            self.progress = Progress("render", len(jobs), "asset")
        try:
            ran = run_fleet(jobs, fleet, self.judge)
        finally:
            # Also when the run ends in an exception: what is known of finished assets is worth keeping.
            self.flush()
            if self.progress is not None:
                self.progress.close()
        self.summary.interrupted = ran.interrupted
        self.summary.attempts, self.summary.preemptions = ran.attempts, ran.preemptions

    def judge(self, outcome: Outcome) -> None:
        """Take note of one asset's end, in the driver."""
        uid = outcome.job.key
        if outcome.status == "done":
            self._done(outcome.result or {})
        elif outcome.refused and outcome.reason in FATAL:
            raise WorkError(f"{outcome.reason}: {outcome.detail}")
        else:
            reason = outcome.reason if outcome.refused else QUARANTINED + outcome.reason
            forget_promise(outcome.job.payload["path"], outcome.job.payload["sha256"])
            self.counts["rejected" if outcome.refused else "quarantined"] += 1
            self.rejections.append(
                Rejection(
                    uid,
                    "",
                    STAGE,
                    reason,
                    _of_contents(outcome.detail, outcome.job.payload["sha256"]),
                    outcome.attempts,
                    outcome.preemptions,
                    outcome.log_tail,
                )
            )
        if time.monotonic() - self.flushed > REJECT_EVERY:
            self.flush()
        if self.progress is not None:
            rate = self.summary.pictures / max(time.monotonic() - self.began, 1e-9)
            self.progress.update(1, **{"images/s": f"{rate:.2f}"}, **self.counts)

    def _done(self, result: dict[str, Any]) -> None:
        self.counts["done"] += 1
        self.summary.rendered += 1
        self.summary.pictures += result["pictures"]
        self.summary.clips += result["clips"]
        for phase, seconds in result["timings"].items():
            self.summary.timings[phase] = self.summary.timings.get(phase, 0.0) + seconds
        # Their rows travel with the staged asset: the writer records them when it rolls it.
        self.summary.still_actions += result["rejected"]
        for line in result["refused"]:
            reason = line.rsplit(" ", 1)[-1]
            self.summary.refused_passes[reason] = self.summary.refused_passes.get(reason, 0) + 1
        self.staged_bytes += result["bytes"]
        if self.staged_bytes >= self.writer.shard_bytes:
            self.writer.roll()
            roll_added(self.writer.store, self.writer.indexed(), self.writer.shard_bytes)
            self.staged_bytes = 0

    def flush(self) -> None:
        self.writer.reject(self.rejections)
        self.rejections = []
        self.flushed = time.monotonic()


def _of_contents(detail: str, sha256: str) -> str:
    """The detail of a refusal, with the contents that it is about."""
    return f"{detail} (file {sha256[:12]})".strip()


def _is_refused(row: Rejection | None, asset: Asset) -> bool:
    """Whether a rejection is of the whole asset and still holds.

    A file that was not to be had, or that is another one by now, is tried again.
    """
    if row is None or row.action or row.reason in NOT_HAD:
        return False
    about = _CONTENTS.search(row.detail)
    return about is None or about[1] == asset.sha256[:12]


def _reconcile(summary: RenderSummary, resolved: Resolved, writer: DatasetWriter) -> None:
    """Count from what is stored, not from what this run believes."""
    finished, known = writer.finished(), writer.rejected()
    summary.input, summary.duplicate = resolved.n_inputs, len(resolved.duplicates)
    summary.rejected = len(resolved.rejected)
    for _, _, reason, _ in resolved.rejected:
        summary.reasons[reason] = summary.reasons.get(reason, 0) + 1
    for asset in resolved.assets:
        row = known.get(asset.uid)
        if asset.uid in finished:
            summary.done += 1
        elif row is None or row.action:
            summary.left += 1
        else:
            quarantined = row.reason.startswith(QUARANTINED)
            summary.quarantined += quarantined
            summary.rejected += not quarantined
            summary.reasons[row.reason] = summary.reasons.get(row.reason, 0) + 1
    if summary.left and not summary.interrupted:
        raise WorkError(f"{writer.uri}: {summary.line}; run the same command again to render what is left")


def _check_same_contents(writer: DatasetWriter, assets: Sequence[Asset]) -> None:
    """A uid stands for its contents: another file under the same name must not pass as done."""
    stored = stored_contents(writer)
    for asset in assets:
        if stored.get(asset.uid, asset.sha256) not in (asset.sha256, ""):
            raise InputError(
                f"{asset.path}: {writer.uri} already holds other contents under the uid {asset.uid}; "
                "rename the file or choose another --out"
            )


def stored_contents(writer: DatasetWriter) -> dict[str, str]:
    """uid -> SHA-256 of the asset file, of every committed asset."""
    stored: dict[str, str] = {}
    for name in parts.live_parts(writer.store)[0]:
        table = parts.read_part(writer.store, name, ["uid", "asset_sha256"])
        stored.update(zip(table.column("uid").to_pylist(), table.column("asset_sha256").to_pylist()))
    return stored
