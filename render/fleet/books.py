"""The fleet's accounts: what a reply or a lost worker means for its job. Pure: no Ray, no clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from orbit4d.render.fleet.queue import Attempt
from orbit4d.render.fleet.settings import Limits
from orbit4d.render.fleet.worker import Job, Reply

#: Times an input may be denied while others are read, before it is given up.
MAX_DENIALS = 3


@dataclass
class Outcome:
    """How one job ended."""

    job: Job
    status: str
    """`done` or `failed`."""
    result: dict[str, Any] | None = None
    reason: str = ""
    """Why it failed: `crash`, `time_out`, `memory`, `error`, `preempted`, or the task's own code."""
    detail: str = ""
    attempts: int = 0
    """Times the job was answered, by a result or a failure."""
    preemptions: int = 0
    log_tail: str = ""
    seconds: float = 0.0
    """Of the last attempt."""
    refused: bool = False
    """The task said the input itself is bad, so no further attempt was made."""
    peak_rss_bytes: int = 0
    learned: dict[str, Any] = field(default_factory=dict)
    """What the worker found out of the input, also where it failed (see `Reply.learned`)."""


@dataclass
class FleetSummary:
    """A whole run, counted."""

    done: int = 0
    failed: int = 0
    attempts: int = 0
    preemptions: int = 0
    storage_faults: int = 0
    """Jobs that came back because storage failed; each was handed out again at no cost."""
    seconds: float = 0.0
    interrupted: bool = False
    """Stopped by Ctrl-C or SIGTERM; jobs without an outcome were not run to their end."""
    workers: int = 0
    threads_per_worker: int = 0


@dataclass(frozen=True)
class Retry:
    """The job goes back to the queue, before the others where `first`."""

    first: bool = False


class Books:
    """Attempts, preemptions and outcomes, counted in `summary`."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.summary = limits, FleetSummary()

    def judge(self, attempt: Attempt, reply: Reply) -> Outcome | Retry:
        """An answer costs the job an attempt, whether a result or a failure; a storage fault is none."""
        if reply.storage:
            return self._denied(attempt, reply) if reply.denied else self._fault()
        attempt.attempts += 1
        self.summary.attempts += 1
        if reply.result is not None:
            return self._end(attempt, "done", reply)
        if reply.retry and attempt.attempts < self.limits.attempts:
            return Retry()
        return self._end(attempt, "failed", reply)

    def _fault(self) -> Retry:
        self.summary.storage_faults += 1
        return Retry()

    def _denied(self, attempt: Attempt, reply: Reply) -> Outcome | Retry:
        """Lost credentials deny every input. One that is denied again and again while others are read is
        at fault itself; the next run tries it again."""
        if attempt.served_before >= 0 and self.summary.attempts > attempt.served_before:
            attempt.denials += 1
        attempt.served_before = self.summary.attempts
        if attempt.denials < MAX_DENIALS:
            return self._fault()
        return self._end(attempt, "failed", Reply(reason="bad_file:unreadable", detail=reply.detail))

    def lost(self, attempt: Attempt, detail: str) -> Outcome | Retry:
        """A lost worker costs the job a preemption, which is free up to the limit."""
        attempt.preemptions += 1
        self.summary.preemptions += 1
        if attempt.preemptions > self.limits.max_preemptions:
            return self._end(attempt, "failed", Reply(reason="preempted", detail=detail, retry=True))
        return Retry(first=True)

    def _end(self, attempt: Attempt, status: Literal["done", "failed"], reply: Reply) -> Outcome:
        self.summary.done += status == "done"
        self.summary.failed += status == "failed"
        return Outcome(
            attempt.job,
            status,
            reply.result,
            reply.reason,
            reply.detail,
            attempt.attempts,
            attempt.preemptions,
            reply.log_tail,
            reply.seconds,
            refused=status == "failed" and not reply.retry,
            peak_rss_bytes=reply.peak_rss_bytes,
            learned=reply.learned,
        )
