"""What one Ray actor of the fleet does: own a Blender child, run one job at a time, never raise.

Storage that fails is distinguished from an asset that fails: it makes no attempt, and until it works again
the worker takes no job to its end.
"""

from __future__ import annotations

import importlib
import os
import shutil
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from orbit4d.datasets.core.errors import DeniedInput, OrbitError, StorageFault
from orbit4d.datasets.core.scratch import make_scratch, sweep_scratch
from orbit4d.render.fleet.child import BlenderChild, ChildError
from orbit4d.render.fleet.preflight import check_storage, full_disk, preflight
from orbit4d.render.fleet.settings import FleetSettings, Limits, StorageCheck
from orbit4d.render.protocol.wire import RefusedInput

#: Seconds between the tries of a worker that holds a result and cannot store it.
HOLD_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)


@dataclass(frozen=True)
class Job:
    """One unit of work: a task of the Blender child, with Python before and after it in the same actor."""

    key: str
    """Names the job in outcomes; unique within a run."""
    task: str
    """Module of orbit4d.render.blender whose `run` the child calls; '' runs the hooks alone."""
    payload: dict[str, Any] = field(default_factory=dict)
    """JSON for the task. The actor adds `scratch`, a folder that is removed when the job ends,
    and `threads`."""
    size_bytes: int = 0
    """A hint of cost, for the order `largest_first`."""
    before: str | None = None
    """`module:function`, called with the job; returns the payload to use (fetch a file, inspect it)."""
    after: str | None = None
    """`module:function`, called with the job and the child's result once it answered (stage the clips);
    what it returns, if anything, becomes the result."""


@dataclass(frozen=True)
class WorkerSettings:
    """How one actor runs its child."""

    threads: int = 1
    """Render threads of the child."""
    limits: Limits = field(default_factory=Limits)
    child_env: tuple[tuple[str, str], ...] = ()
    """Extra environment of the child."""
    storage: StorageCheck = field(default_factory=StorageCheck)
    """What the worker must be able to do before it takes a job."""
    storage_patience: float = FleetSettings.storage_patience
    """Seconds for which storage may fail before the run ends; a worker holds a result for a part of it."""


@dataclass
class Reply:
    """What an actor answers: a result, or why there is none."""

    result: dict[str, Any] | None = None
    reason: str = ""
    detail: str = ""
    log_tail: str = ""
    retry: bool = False
    seconds: float = 0.0
    peak_rss_bytes: int = 0
    storage: bool = False
    """Storage failed, not the job: it is as if the job had never been handed out."""
    denied: bool = False
    """Storage works and does not give this job's own input to us."""
    learned: dict[str, Any] = field(default_factory=dict)
    """What the hooks left under `learned` in the job's payload, also of a job that failed."""


class Worker:
    """The body of an actor. Plain Python: tests call it without Ray."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self._child = BlenderChild(settings.threads, settings.limits, env=dict(settings.child_env))
        self._doubtful = False  # storage failed the last job
        sweep_scratch()

    def ready(self) -> dict[str, Any]:
        """Answered as soon as the actor runs: the fleet gives work to no actor before that.

        `unfit` says why this machine cannot use the storage of the run, '' where it can.
        """
        unfit = preflight(self.settings.storage)
        self._doubtful = bool(unfit)
        return {"pid": os.getpid(), "host": os.uname().nodename, "unfit": unfit}

    def child_pid(self) -> int | None:
        """Process id of the Blender child, None while there is none."""
        return self._child.pid

    def run(self, job: Job) -> Reply:
        """Run one job. Every way to fail becomes a Reply."""
        started = time.monotonic()
        job = replace(job, payload=dict(job.payload))
        try:
            reply = self._in_scratch(job)
        except OSError as error:
            reply = Reply(reason="storage", detail=f"no temporary folder: {error}", retry=True, storage=True)
        if reply.storage:
            reply.detail = f"worker on {os.uname().nodename}: {reply.detail}"
        self._doubtful = reply.storage
        reply.learned = job.payload.get("learned", {})
        reply.seconds = time.monotonic() - started
        reply.peak_rss_bytes = self._child.peak_rss_bytes
        return reply

    def _in_scratch(self, job: Job) -> Reply:
        scratch = make_scratch()
        job.payload.update(scratch=scratch, threads=self.settings.threads)
        try:
            if self._doubtful:
                # A second now, not a rendering whose result could not be stored.
                check_storage(self.settings.storage)
            return Reply(self._steps(job))
        except StorageFault as error:
            denied = isinstance(error, DeniedInput)
            return Reply(reason="storage", detail=str(error), retry=True, storage=True, denied=denied)
        except ChildError as error:
            if error.retry and full_disk(scratch):
                return _no_room(scratch)
            return Reply(None, error.reason, error.detail, error.log_tail, error.retry)
        except RefusedInput as error:
            return Reply(None, error.code, str(error))
        except OrbitError as error:
            return Reply(None, "error", str(error), retry=True)
        except Exception as error:
            if isinstance(error, OSError) and full_disk(scratch):
                return _no_room(scratch)
            # The fence around hooks: a bug fails this job and not the actor.
            detail = f"{type(error).__name__}: {error}"
            return Reply(None, "error", detail, traceback.format_exc()[-4000:], retry=True)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _steps(self, job: Job) -> dict[str, Any]:
        if job.before is not None:
            job = replace(job, payload=resolve(job.before)(job))
        result: dict[str, Any] = {}
        if job.task:
            limits = self.settings.limits
            result = self._child.call(
                job.task, job.payload, limits.asset_timeout, import_timeout=limits.import_timeout
            )
        if job.after is not None:
            result = self._hold(lambda: resolve(job.after)(job, result)) or result  # type: ignore[arg-type]
        return result

    def _hold(self, store: Callable[[], Any]) -> Any:
        """Store a result, again for a while where storage fails: it was dear to make."""
        until = time.monotonic() + self.settings.storage_patience / 4
        for pause in HOLD_PAUSES:
            try:
                return store()
            except StorageFault:
                if time.monotonic() + pause > until:
                    raise
                time.sleep(pause)
        return store()

    def close(self) -> None:
        """Kill the child."""
        self._child.close()


def _no_room(scratch: str) -> Reply:
    detail = f"{os.path.dirname(scratch)}: the disk of temporary files is full; free space there"
    return Reply(reason="storage", detail=detail, retry=True, storage=True)


def resolve(name: str) -> Callable[..., Any]:
    """The function behind `module:function`."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)
