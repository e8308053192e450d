"""What one Ray actor of the fleet does: own a Blender child, run one job at a time, never raise."""

from __future__ import annotations

import importlib
import os
import shutil
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from orbit4d.datasets.core.errors import OrbitError
from orbit4d.datasets.core.scratch import make_scratch, sweep_scratch
from orbit4d.render.fleet.child import BlenderChild, ChildError
from orbit4d.render.fleet.settings import Limits
from orbit4d.render.protocol.wire import RefusedInput


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
    """`module:function`, called with the job; returns the payload to use (fetch a file, look into it)."""
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


class Worker:
    """The body of an actor. Plain Python: tests call it without Ray."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self._child = BlenderChild(settings.threads, settings.limits, env=dict(settings.child_env))
        sweep_scratch()

    def ready(self) -> dict[str, Any]:
        """Answered as soon as the actor runs: the fleet gives work to no actor before that."""
        return {"pid": os.getpid(), "host": os.uname().nodename}

    def child_pid(self) -> int | None:
        """Process id of the Blender child, None while there is none."""
        return self._child.pid

    def run(self, job: Job) -> Reply:
        """Run one job. Every way to fail becomes a Reply."""
        started = time.monotonic()
        scratch = make_scratch()
        job = replace(job, payload={**job.payload, "scratch": scratch, "threads": self.settings.threads})
        try:
            reply = Reply(self._steps(job))
        except ChildError as error:
            reply = Reply(None, error.reason, error.detail, error.log_tail, error.retry)
        except RefusedInput as error:
            reply = Reply(None, error.code, str(error))
        except OrbitError as error:
            reply = Reply(None, "error", str(error), retry=True)
        except Exception as error:
            # The fence around hooks: a bug or a storage hiccup fails this job and not the actor.
            detail = f"{type(error).__name__}: {error}"
            reply = Reply(None, "error", detail, traceback.format_exc()[-4000:], retry=True)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        reply.seconds = time.monotonic() - started
        reply.peak_rss_bytes = self._child.peak_rss_bytes
        return reply

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
            result = resolve(job.after)(job, result) or result
        return result

    def close(self) -> None:
        """Kill the child."""
        self._child.close()


def resolve(name: str) -> Callable[..., Any]:
    """The function behind `module:function`."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)
