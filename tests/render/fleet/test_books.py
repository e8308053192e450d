"""Queue and accounts of the fleet without Ray: every job ends once, whatever answers come in which order."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from orbit4d.render.fleet.books import MAX_DENIALS, Books, Outcome, Retry
from orbit4d.render.fleet.queue import Attempt, JobQueue
from orbit4d.render.fleet.settings import FleetSettings, Limits
from orbit4d.render.fleet.worker import Job, Reply, WorkerSettings

DONE = Reply({"n": 1})
CRASHED = Reply(reason="crash", retry=True)
REFUSED = Reply(reason="bad_file:import")


def test_the_queue_pulls_one_job_ahead_and_no_more() -> None:
    pulled: list[int] = []

    def jobs() -> Iterator[Job]:
        for i in range(4):
            pulled.append(i)
            yield Job(str(i), "")

    queue = JobQueue(jobs())
    assert pulled == [0] and queue.n_in_sight == 1
    for i in range(4):
        attempt = queue.next()
        assert attempt is not None and attempt.job.key == str(i)
        assert len(pulled) == min(i + 2, 4)
    assert queue.next() is None and not queue and not queue.more_to_come


def test_what_is_tried_again_goes_before_what_is_new() -> None:
    queue = JobQueue(Job(key, "") for key in "cd")
    for key, first in (("b", False), ("a", True)):
        queue.requeue(Attempt(Job(key, "")), first)
    assert queue.n_in_sight == 3
    keys = []
    while (attempt := queue.next()) is not None:
        keys.append(attempt.job.key)
    assert keys == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("replies", "verdicts"),
    [
        ([DONE], ["done"]),
        ([CRASHED, DONE], [Retry(), "done"]),
        ([CRASHED, CRASHED], [Retry(), "failed"]),
        ([REFUSED], ["failed"]),
        ([None, DONE], [Retry(first=True), "done"]),
        ([None, None], [Retry(first=True), "failed"]),
        ([None, CRASHED, DONE], [Retry(first=True), Retry(), "done"]),
    ],
)
def test_what_an_answer_or_a_lost_worker_means(replies: list[Reply | None], verdicts: list[object]) -> None:
    books, attempt = Books(Limits(attempts=2, max_preemptions=1)), Attempt(Job("a", ""))
    for reply, expected in zip(replies, verdicts, strict=True):
        got = books.lost(attempt, "gone") if reply is None else books.judge(attempt, reply)
        assert (got.status if isinstance(got, Outcome) else got) == expected
    assert isinstance(got, Outcome)
    lost = sum(reply is None for reply in replies)
    assert (got.attempts, got.preemptions) == (len(replies) - lost, lost)
    assert got.refused == (replies[-1] is REFUSED)
    assert books.summary.done + books.summary.failed == 1
    assert (books.summary.attempts, books.summary.preemptions) == (len(replies) - lost, lost)


FAULT = Reply(reason="storage", retry=True, storage=True)
DENIED = Reply(reason="storage", detail="no", retry=True, storage=True, denied=True)


def test_a_storage_fault_costs_nothing() -> None:
    books, attempt = Books(Limits(attempts=1)), Attempt(Job("a", ""))
    for _ in range(100):
        assert books.judge(attempt, FAULT) == Retry()
    got = books.judge(attempt, DONE)
    assert isinstance(got, Outcome) and (got.status, got.attempts) == ("done", 1)
    assert (books.summary.attempts, books.summary.storage_faults) == (1, 100)


def test_a_denied_input_is_given_up_only_while_others_are_served() -> None:
    books, attempt = Books(Limits()), Attempt(Job("a", ""))
    for _ in range(100):
        assert books.judge(attempt, DENIED) == Retry(), "lost credentials deny everything"
    verdicts = []
    for i in range(MAX_DENIALS):
        books.judge(Attempt(Job(str(i), "")), DONE)
        verdicts.append(books.judge(attempt, DENIED))
    assert verdicts[:-1] == [Retry()] * (MAX_DENIALS - 1)
    end = verdicts[-1]
    assert isinstance(end, Outcome) and (end.reason, end.refused) == ("bad_file:unreadable", True)


@pytest.mark.parametrize("seed", range(20))
def test_every_job_ends_once_under_any_answers(seed: int) -> None:
    chance = random.Random(seed)
    queue = JobQueue(Job(str(i), "") for i in range(50))
    books, ended, events = Books(Limits(attempts=3, max_preemptions=2)), [], 0
    while (attempt := queue.next()) is not None:
        events += 1
        answer = chance.choice([DONE, CRASHED, REFUSED, None])
        verdict = books.lost(attempt, "gone") if answer is None else books.judge(attempt, answer)
        if isinstance(verdict, Retry):
            queue.requeue(attempt, verdict.first)
        else:
            ended.append(verdict.job.key)
    assert sorted(ended, key=int) == [str(i) for i in range(50)]
    summary = books.summary
    assert summary.done + summary.failed == 50 and summary.attempts + summary.preemptions == events


def test_the_limits_are_the_same_wherever_they_are_asked_for() -> None:
    assert FleetSettings().limits == Limits() == WorkerSettings().limits
    limits = Limits(1, 2, 3.0, None, None, 6)
    assert FleetSettings(None, None, 1, 2, 3.0, None, None, 6).limits == limits


def test_render_and_curate_offer_the_same_limits() -> None:
    from orbit4d.curate.cli import command as curate
    from orbit4d.datasets.commands.settings_options import Size
    from orbit4d.render.cli import command as render

    limits = Limits()
    for command, names in (
        (render, set(vars(limits))),
        (curate, {"attempts", "asset_timeout", "import_timeout", "max_rss_bytes"}),
    ):
        options = {param.name: param for param in command.params if param.name in names}
        assert set(options) == names
        for name, option in options.items():
            default = option.default
            value = Size().convert(default, None, None) if isinstance(default, str) else default
            assert value == getattr(limits, name), name
