"""Jobs that wait for a worker: those to be tried again first, then the iterator's, pulled one at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from orbit4d.render.fleet.worker import Job


@dataclass
class Attempt:
    """A job on its way, with what it has cost so far."""

    job: Job
    attempts: int = 0
    """Times it was answered, by a result or a failure."""
    preemptions: int = 0
    """Workers lost while they had it."""
    denials: int = 0
    """Times its own input was denied while storage served other jobs."""
    served_before: int = -1
    """Jobs that had been served when it was denied last; -1: never."""


class JobQueue:
    """Jobs without a worker. True while there are any.

    One job is always pulled ahead: without it nobody could tell that the iterator has ended.
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = iter(jobs)
        self._again: deque[Attempt] = deque()
        self._ahead: list[Job] = []
        self._look_ahead()

    def __bool__(self) -> bool:
        return self.n_in_sight > 0

    @property
    def n_in_sight(self) -> int:
        """Jobs known to wait; the iterator may hold more while `more_to_come`."""
        return len(self._again) + len(self._ahead)

    @property
    def more_to_come(self) -> bool:
        """Whether the iterator has not ended yet."""
        return bool(self._ahead)

    def next(self) -> Attempt | None:
        """The next job to hand out, None when none waits."""
        if not self:
            return None
        attempt = self._again.popleft() if self._again else Attempt(self._ahead.pop())
        self._look_ahead()
        return attempt

    def requeue(self, attempt: Attempt, first: bool = False) -> None:
        """Put a job back among those to be tried again, behind or (`first`) before the others."""
        if first:
            self._again.appendleft(attempt)
        else:
            self._again.append(attempt)

    def _look_ahead(self) -> None:
        if not self._ahead:
            for job in self._jobs:
                self._ahead.append(job)
                break
