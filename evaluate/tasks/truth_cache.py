"""Ground truth rendered on demand and kept: one small dataset per (asset, what was rendered of it).

A folder of the cache is named by the asset's uid and a hash of everything that decides its pixels: the
contents of the asset, its uid (lights and azimuths are drawn from it), the actions, the render settings and
the versions of Blender and orbit4d. It is rendered beside its place and moved there whole, so a folder that
exists is complete, whatever was killed, and two evaluations may fill one cache at the same time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orbit4d.datasets.assets.inspection import PASSING
from orbit4d.datasets.core.atomic import write_text
from orbit4d.datasets.core.cores import usable_cores
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.sources.asset import Asset
from orbit4d.datasets.store import manifest
from orbit4d.render.planning.settings import RenderSettings


@dataclass(frozen=True)
class Wanted:
    """One asset and how it is to be rendered."""

    asset: Asset
    settings: RenderSettings

    @property
    def name(self) -> str:
        """Folder name in the cache."""
        versions = manifest.software_versions()
        decides = {
            "uid": self.asset.uid,
            "sha256": self.asset.sha256,
            "actions": self.asset.actions,
            "settings": self.settings.as_config(),
            "software": {name: versions.get(name) for name in ("bpy", "orbit4d")},
        }
        digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
        return f"{self.asset.uid}-{digest[:20]}"


def cache_folder() -> Path:
    """Where truth is kept: $ORBIT4D_TRUTH, else orbit4d/truth below the user's cache."""
    if chosen := os.environ.get("ORBIT4D_TRUTH"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "orbit4d" / "truth"


class TruthCache:
    """Datasets of one asset each, below one folder."""

    def __init__(self, folder: Path | None = None, workers: int = 1) -> None:
        self.folder, self.workers = (folder or cache_folder()).absolute(), workers
        self.rendered = 0
        """Assets that this object rendered; the others were there."""

    def place(self, wanted: Wanted) -> Path:
        """The dataset of `wanted`, whether it is there or not."""
        return self.folder / wanted.name

    def fill(self, wanted: Sequence[Wanted]) -> dict[str, str]:
        """Render what is not there. Returns the reason, by `Wanted.name`, of what cannot be rendered."""
        wanted = list({one.name: one for one in wanted}.values())
        refused = {
            one.name: self._note(one).read_text(encoding="utf-8")
            for one in wanted
            if self._note(one).exists()
        }
        missing = [one for one in wanted if one.name not in refused and not self.place(one).is_dir()]
        if missing:
            self._sweep()
            refused |= self._render(missing)
        return refused

    def _note(self, wanted: Wanted) -> Path:
        return self.folder / f"{wanted.name}.refused"

    def _sweep(self) -> None:
        """Remove what a killed evaluation was rendering."""
        for path in self.folder.glob(".*.partial"):
            pid = path.name.split(".")[-2]
            if pid.isdigit() and not os.path.exists(f"/proc/{pid}") and os.path.exists("/proc/self"):
                shutil.rmtree(path, ignore_errors=True)

    def _render(self, missing: Sequence[Wanted]) -> dict[str, str]:
        from orbit4d.datasets.core.progress import Progress
        from orbit4d.datasets.store.writer import DatasetWriter
        from orbit4d.render.dataset.asset_job import asset_job
        from orbit4d.render.dataset.render_assets import FATAL
        from orbit4d.render.fleet.driver import Outcome

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.folder}: cannot be written ({error.strerror}); give another --cache"
            ) from None
        by_key: dict[str, tuple[Wanted, Path]] = {}
        jobs, failed = [], {}
        for one in missing:
            partial = self.folder / f".{one.name}.{os.getpid()}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            DatasetWriter(partial, one.settings.as_config())
            # One asset may be wanted twice, say two of its actions: the uid alone would not tell them apart.
            job = asset_job(one.asset, str(partial), one.settings.as_config())
            jobs.append(replace(job, key=one.name))
            by_key[one.name] = one, partial

        def keep(outcome: Outcome) -> None:
            one, partial = by_key[outcome.job.key]
            if outcome.status == "done":
                DatasetWriter(partial, one.settings.as_config()).roll(final=True)
                if not self.place(one).exists():
                    partial.replace(self.place(one))
                self.rendered += 1
            elif outcome.refused and outcome.reason in FATAL:
                raise WorkError(f"{outcome.reason}: {outcome.detail}")
            else:
                failed[one.name] = f"{outcome.reason}: {outcome.detail}".strip(": ")
                if outcome.refused and outcome.reason not in PASSING:
                    # The input itself is bad: the next evaluation need not try it again.
                    write_text(self._note(one), failed[one.name])
            shutil.rmtree(partial, ignore_errors=True)

        print(f"rendering ground truth of {len(jobs)} assets into {self.folder}", file=sys.stderr)
        try:
            with Progress("ground truth", len(jobs), "asset") as progress:
                self._run(jobs, keep, progress)
        finally:
            for _, partial in by_key.values():
                shutil.rmtree(partial, ignore_errors=True)
        return failed

    def _run(self, jobs: list, keep: Callable, progress) -> None:
        from orbit4d.render.fleet.driver import Outcome, run_fleet
        from orbit4d.render.fleet.settings import FleetSettings
        from orbit4d.render.fleet.worker import Worker, WorkerSettings

        settings = FleetSettings(workers=self.workers)
        if len(jobs) > 1:
            if run_fleet(jobs, settings, keep, progress).interrupted:
                raise KeyboardInterrupt
            return
        # One asset is not worth starting Ray for.
        worker = Worker(WorkerSettings(usable_cores(), settings.limits))
        try:
            attempts = 0
            while attempts < settings.limits.attempts:
                attempts += 1
                reply = worker.run(jobs[0])
                if reply.result is not None or not reply.retry:
                    break
        finally:
            worker.close()
        status = "done" if reply.result is not None else "failed"
        keep(
            Outcome(
                jobs[0], status, reply.result, reply.reason, reply.detail, attempts,
                refused=status == "failed" and not reply.retry,
            )
        )  # fmt: skip
        progress.update()


def ensure(reasons: dict[str, str], wanted: Wanted) -> None:
    """WorkError when `wanted` could not be rendered."""
    if wanted.name in reasons:
        raise WorkError(f"{wanted.asset.path}: no ground truth can be rendered ({reasons[wanted.name]})")
