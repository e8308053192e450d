"""Render assets into a dataset: resume, fan out, stage, roll, and account for every input."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any, overload

from orbit4d.datasets.added.rolling import roll_added
from orbit4d.datasets.assets.inspection import PASSING
from orbit4d.datasets.core.errors import InputError, OrbitError, WorkError
from orbit4d.datasets.core.paths import is_uri
from orbit4d.datasets.core.progress import Progress
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.operations import run_progress
from orbit4d.datasets.sources.asset import Asset, Resolved
from orbit4d.datasets.sources.objaverse.workers import is_object
from orbit4d.datasets.sources.promises import forget_promise
from orbit4d.datasets.sources.resolve import resolve
from orbit4d.datasets.store import manifest
from orbit4d.datasets.store.lease import Lease
from orbit4d.datasets.store.rejections import Rejection
from orbit4d.datasets.store.staging import Staged
from orbit4d.datasets.store.writer import SHARD_BYTES, DatasetWriter
from orbit4d.render.dataset.add_passes import add_passes
from orbit4d.render.dataset.asset_job import STAGE, asset_job, check_reachable
from orbit4d.render.dataset.remote_hashes import RemoteHashes
from orbit4d.render.dataset.rolling import Roller
from orbit4d.render.dataset.summary import RenderSummary
from orbit4d.render.fleet.driver import Outcome, run_fleet
from orbit4d.render.fleet.patience import Patience
from orbit4d.render.fleet.pool import WorkerPool
from orbit4d.render.fleet.settings import FleetSettings, StorageCheck
from orbit4d.render.fleet.worker import Job
from orbit4d.render.planning.environment import check_environment
from orbit4d.render.planning.settings import MATERIAL_PASSES, RenderSettings

#: Prefix of the reason of an asset whose attempts, or preemptions, are used up.
QUARANTINED = "quarantined:"
#: Refusals that no other asset would escape: the run is stopped, not the asset rejected.
FATAL = ("device", "environment", "blender:import")
#: Rejections of what could not be read at all: nothing was found out about the contents.
NOT_HAD = (*PASSING, "download_failed", "unknown_id")
#: Quarantined before storage faults were distinguished from others; an asset is not to blame for them.
_STORAGE = re.compile(
    r"the disk is full|No space left on device|Disk quota exceeded|check the address and the credentials"
    r"|cannot (read|write|list|delete|look for|open) \S*(://|/staging/)\S*:|SlowDown|Too ?Many ?Requests"
    r"|ServiceUnavailable|NoCredentialsError|EndpointConnectionError|Access ?Denied|no such place"
)
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
    for path in settings.lights.files:
        check_environment(path)
    fresh = not Store(out).exists(manifest.NAME)
    hashes = RemoteHashes()
    if not fresh:
        writer = DatasetWriter(out, settings.as_config(), shard_bytes=shard_bytes)
        judged = writer.contents().keys() | {u for u, row in writer.rejected().items() if not row.action}
        hashes = RemoteHashes(writer.store, judged)
    resolved = resolve(list(sources), captions, hashes.spared, workers_fetch=fleet.elsewhere)
    check_reachable(resolved, out, settings, fleet)
    if fresh:
        writer = DatasetWriter(out, settings.as_config(), shard_bytes=shard_bytes)
        hashes.store = writer.store
    hashes.learn_all(resolved)
    _check_same_contents(writer, resolved.assets)
    summary = RenderSummary()
    with ExitStack() as held:
        lease = held.enter_context(Lease(writer.store))
        if fresh:
            # Another driver may have made the dataset in the same instant, with other settings.
            writer = DatasetWriter(out, settings.as_config(), shard_bytes=shard_bytes)
        writer.refresh()  # another driver may have been at work until now
        writer.guard, writer.term = lease.check, lease.number
        run = _Run(writer, summary, fleet, quiet, hashes)
        run.inputs = resolved.n_inputs
        run.tell = lease.note
        held.callback(run.roller.close)
        todo = run.left_over(resolved, retry_quarantined)
        try:
            if todo:
                run.go(todo, settings)
            if not summary.interrupted:
                run.roller.finish()
        except BaseException as error:
            run.roller.close(abandon=True)
            # A device that is not there, a cluster that does not start: leave no empty dataset behind.
            with suppress(OrbitError):
                empty = not writer.finished() and not writer.rejections()
                if fresh and empty and isinstance(error, WorkError):
                    writer.store.delete([manifest.NAME, run_progress.NAME])
            raise
        beside = [name for name in settings.passes if name in MATERIAL_PASSES]
        if not summary.interrupted:
            roll_added(writer.store, writer.indexed(), shard_bytes, final=True)
            if beside and writer.indexed():
                # Materials are changed for them, so they come when every image is rendered.
                summary.added = add_passes(sources, out, beside, fleet, shard_bytes, quiet)
                summary.interrupted = summary.added.interrupted
        _reconcile(summary, resolved, writer)
    summary.seconds = time.monotonic() - began
    return summary


class _Jobs(Sequence[Job]):
    """The jobs of assets, each made as it is asked for: there may be 100 000."""

    def __init__(self, assets: Sequence[Asset], out: str, config: dict[str, Any]) -> None:
        self._assets, self._out, self._config = assets, out, config

    def __len__(self) -> int:
        return len(self._assets)

    @overload
    def __getitem__(self, at: int) -> Job: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Job]: ...
    def __getitem__(self, at: int | slice) -> Job | Sequence[Job]:
        if isinstance(at, slice):
            return _Jobs(self._assets[at], self._out, self._config)
        return asset_job(self._assets[at], self._out, self._config)


class _Run:
    """The driver's side while the fleet works."""

    def __init__(
        self,
        writer: DatasetWriter,
        summary: RenderSummary,
        fleet: FleetSettings,
        quiet: bool,
        hashes: RemoteHashes,
    ) -> None:
        self.writer, self.summary, self.fleet, self.quiet = writer, summary, fleet, quiet
        self.hashes = hashes
        self.roller = Roller(writer, Patience(fleet.storage_patience))
        self.rejections: list[Rejection] = []
        self.began = self.flushed = time.monotonic()
        self.counts = {"done": 0, "rejected": 0, "quarantined": 0}
        self.progress: Progress | None = None
        self.inputs = self.todo = 0
        self.pool: WorkerPool | None = None
        self.patience: Patience | None = None
        self.tell: Callable[..., None] = lambda **progress: None
        """Called with what a look from outside is to see: counts, images, seconds."""

    def left_over(self, resolved: Resolved, retry_quarantined: bool) -> list[Asset]:
        """What is to be rendered. Records what was rejected without a look, takes up what is staged."""
        staged = self.writer.waiting()
        for each in staged:
            self.roller.add(each)
        finished = self.writer.contents().keys() | {each.uid for each in staged}
        known = {
            uid: row
            for uid, row in self.writer.rejected().items()
            if not row.reason.startswith(QUARANTINED)
            or not (retry_quarantined or _STORAGE.search(row.detail))
        }
        self.writer.reject(
            [
                Rejection(uid, "", STAGE, reason, detail)
                for uid, _, reason, detail in resolved.rejected
                if uid not in known or known[uid].reason != reason
            ]
        )
        return [a for a in resolved.assets if a.uid not in finished and not _is_refused(known.get(a.uid), a)]

    def go(self, todo: list[Asset], settings: RenderSettings) -> None:
        fleet = self.fleet
        if fleet.order == "largest_first":
            # Here and not by the fleet, which would hold a job for each of them.
            todo = sorted(todo, key=lambda asset: (-asset.bytes, asset.uid))
            fleet = replace(fleet, order="given")
        paths = (asset.path for asset in todo)
        source = next((path for path in paths if is_uri(path) and not is_object(path)), "")
        fleet = replace(fleet, storage=StorageCheck(self.writer.uri, manifest.NAME, source))
        jobs = _Jobs(todo, self.writer.uri, settings.as_config())
        self.tell(total=len(jobs))
        if not self.quiet:
            self.progress = Progress("render", len(jobs), "asset")
        self.todo = len(jobs)
        try:
            with run_progress.Reporter(self.writer.store, self.note):
                ran = run_fleet(jobs, replace(fleet, watch=self.watch), self.judge)
                self.summary.interrupted = ran.interrupted
        except BaseException:
            # What is known of finished assets is worth keeping, also when the run ends in an exception.
            with suppress(OrbitError):
                self.writer.reject(self.rejections)
            raise
        finally:
            with suppress(OrbitError):
                self.hashes.save()
            if self.progress is not None:
                self.progress.close()
        self.flush()
        if ran.interrupted:
            self.roller.close(abandon=True)
        else:
            self.roller.drain()
        self.summary.attempts, self.summary.preemptions = ran.attempts, ran.preemptions

    def watch(self, pool: WorkerPool, patience: Patience) -> None:
        """Take note of the pool, whose counts others read, and of what is waited for."""
        self.pool, self.patience = pool, patience

    def note(self) -> dict[str, Any]:
        """What `orbit4d status` shows of this run (fields of RunProgress); called from another thread."""
        workers, busy = (0, 0) if self.pool is None else (self.pool.n_workers, self.pool.n_busy)
        found: dict[str, Any] = {
            **self.counts,
            "input": self.inputs,
            "todo": self.todo,
            "images": self.summary.pictures,
        }
        waits = (self.roller.patience.message, "" if self.patience is None else self.patience.message)
        found |= {"workers": workers, "busy": busy, "message": next(filter(None, waits), "")}
        return {**found, "state": "interrupted"} if self.summary.interrupted else found

    def judge(self, outcome: Outcome) -> None:
        """Take note of one asset's end, in the driver."""
        uid = outcome.job.key
        sha256 = outcome.learned.get("sha256") or outcome.job.payload["sha256"]
        self.hashes.learn(outcome.job.payload["path"], sha256)
        if outcome.status == "done":
            self._done(uid, outcome.result or {})
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
                    _of_contents(outcome.detail, sha256),
                    outcome.attempts,
                    outcome.preemptions,
                    outcome.log_tail,
                )
            )
        if time.monotonic() - self.flushed > REJECT_EVERY:
            self.flush()
        self.tell(images=self.summary.pictures, seconds=time.monotonic() - self.began, **self.counts)
        if self.progress is not None:
            rate = self.summary.pictures / max(time.monotonic() - self.began, 1e-9)
            self.progress.update(1, **{"images/s": f"{rate:.2f}"}, **self.counts)

    def _done(self, uid: str, result: dict[str, Any]) -> None:
        self.counts["done"] += 1
        self.summary.rendered += 1
        self.summary.pictures += result["images"]
        self.summary.clips += result["clips"]
        for phase, seconds in result["timings"].items():
            self.summary.timings[phase] = self.summary.timings.get(phase, 0.0) + seconds
        # Their rows travel with the staged asset: the writer records them when it rolls it.
        self.summary.still_actions += result["rejected"]
        self.roller.add(Staged(uid, result["bytes"], 0))
        for line in result.get("refused", ()):
            reason = line.rsplit(" ", 1)[-1]
            self.summary.refused_passes[reason] = self.summary.refused_passes.get(reason, 0) + 1

    def flush(self) -> None:
        self.roller.reject(self.rejections)
        self.rejections = []
        self.flushed = time.monotonic()


def _of_contents(detail: str, sha256: str) -> str:
    """The detail of a refusal, with the contents that it is about."""
    return f"{detail} (file {sha256[:12]})".strip() if sha256 else detail


def _is_refused(row: Rejection | None, asset: Asset) -> bool:
    """Whether a rejection is of the whole asset and still holds.

    A file that was not to be had, or that is another one by now, is tried again.
    """
    if row is None or row.action or row.reason in NOT_HAD:
        return False
    about = _CONTENTS.search(row.detail)
    return about is None or not asset.sha256 or about[1] == asset.sha256[:12]


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
        if asset.sha256 and stored.get(asset.uid, asset.sha256) not in (asset.sha256, ""):
            raise InputError(
                f"{asset.path}: {writer.uri} already holds other contents under the uid {asset.uid}; "
                "rename the file or choose another --out"
            )


def stored_contents(writer: DatasetWriter) -> dict[str, str]:
    """uid -> SHA-256 of the asset file, of every committed asset."""
    return dict(writer.contents())
