"""Measure cases one at a time, here or spread over Ray; what is measured is never measured again.

Between two cases nothing is held but where each row lies in rows.jsonl. Over Ray, the fleet that renders also
measures: it hands out one case at a time, replaces lost workers and gives a case that failed a second try.
Rows come back in any order and are summed in the order of their cases, so the results do not depend on who
measured what.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from orbit4d.datasets.core.atomic import write_bytes
from orbit4d.datasets.core.cores import limit_torch_threads
from orbit4d.datasets.core.crashpoints import crash_point
from orbit4d.datasets.core.errors import InputError, OrbitError, WorkError
from orbit4d.datasets.core.progress import Progress
from orbit4d.evaluate.metrics.suite import Row, Suite
from orbit4d.evaluate.results.page import SHOWN, encode_videos, video_stem
from orbit4d.evaluate.results.rows import Results, plain, row_of
from orbit4d.evaluate.tasks.cases import Case
from orbit4d.render.fleet.driver import Job, Outcome, run_fleet
from orbit4d.render.fleet.settings import FleetSettings


@dataclass(frozen=True)
class SuiteSpec:
    """Arguments of a `Suite`, to build the same one in another process."""

    weights: str | None = None
    clip: str = ""
    device: str = "cpu"
    learned: bool = True
    batch: int = 8

    def build(self, fetch: bool = False) -> Suite:
        """The suite itself; `fetch` downloads what is missing."""
        named = {"clip": self.clip} if self.clip else {}
        return Suite(
            self.weights,
            fetch_weights=fetch,
            device=self.device,
            batch=self.batch,
            learned=self.learned,
            **named,
        )


def measure_cases(
    cases: Sequence[Case],
    suite: Suite | None,
    results: Results,
    spec: SuiteSpec,
    spread: FleetSettings | None = None,
    label: str = "eval",
    shown: int = SHOWN,
) -> None:
    """Measure what `results` does not hold yet. A case that cannot be measured is noted and passed over.

    Raises the error of the first when none could be measured; KeyboardInterrupt when Ray was stopped.
    `suite` None: the cases bring rows and need no metric.
    """
    limit_torch_threads()
    todo = [(number, case) for number, case in enumerate(cases) if case.name not in results]
    todo.sort(key=lambda one: one[1].late)
    with Progress(label, len(cases), "clip") as progress:
        progress.update(len(cases) - len(todo))
        if spread is not None and len(todo) > 1:
            _spread(todo, results, spec, spread, progress, shown, suite)
        else:
            for number, case in todo:
                try:
                    row, videos = measure_case(case, suite, number < shown)
                except OrbitError as error:
                    results.fail(case.name, str(error))
                else:
                    _keep(results, row, number, videos)
                progress.update()
    if not len(results) and results.failures:
        raise InputError(next(iter(results.failures.values())))


def measure_case(case: Case, suite: Suite | None, show: bool) -> tuple[Row, dict[str, bytes]]:
    """The row of one case and, with `show`, its videos as mp4."""
    loaded = case.load()
    if isinstance(loaded, Row):
        return loaded, {}
    if suite is None:
        raise WorkError(f"{case.name}: a pair of clips and no metrics to measure it by")
    return suite.measure(loaded), encode_videos(loaded) if show else {}


def _keep(results: Results, row: Row, number: int, videos: dict[str, bytes]) -> None:
    """Videos first: a row that is there is never made again."""
    for kind, data in videos.items():
        path = results.folder / "videos" / f"{video_stem(row.name)}_{kind}.mp4"
        path.parent.mkdir(exist_ok=True)
        write_bytes(path, data)
    crash_point("eval_before_row")
    results.add(row, number)


# Over Ray ---------------------------------------------------------------------------------------------------


def _spread(
    todo: Sequence[tuple[int, Case]],
    results: Results,
    spec: SuiteSpec,
    settings: FleetSettings,
    progress: Progress,
    shown: int,
    suite: Suite | None,
) -> None:
    def jobs() -> Iterator[Job]:
        for number, case in todo:
            payload = {
                "number": number,
                "case": case,
                "spec": spec if suite is not None else None,
                "weights": suite.weights if suite is not None else {},
                "show": number < shown,
            }
            yield Job(str(number), "", payload, after="orbit4d.evaluate.runner:measure_job")

    def keep(outcome: Outcome) -> None:
        if outcome.status == "done":
            got = outcome.result or {}
            _keep(results, row_of(got["row"]), outcome.job.payload["number"], got["videos"])
        else:
            results.fail(outcome.job.payload["case"].name, outcome.detail or outcome.reason)
        progress.update()

    # Lazily: a job, like a row, is small, but ten thousand of them need not wait in a queue.
    if run_fleet(jobs(), settings, keep).interrupted:
        raise KeyboardInterrupt


def measure_job(job: Job, result: dict[str, Any]) -> dict[str, Any]:
    """Runs in a Ray actor: the row of one case, as JSON, and its videos."""
    torch.set_num_threads(job.payload["threads"])
    spec: SuiteSpec | None = job.payload["spec"]
    suite = None if spec is None else _suite(spec)
    if suite is not None:
        _check_same(suite, job.payload["weights"])
    row, videos = measure_case(job.payload["case"], suite, job.payload["show"])
    return {"row": plain(row), "videos": videos}


def _check_same(suite: Suite, weights: dict[str, str]) -> None:
    """WorkError when this machine measures something else than the driver: means would cover fewer rows."""
    for name in sorted({**weights, **suite.weights}):
        ours, theirs = suite.weights.get(name), weights.get(name)
        if ours != theirs:
            why = suite.unmeasured.get(name, "its weights are others")
            if theirs is None:
                why = "the machine that started this has no weights of it"
            raise WorkError(
                f"{socket.gethostname()}: would not measure {name} as the others do ({why}); "
                "give every machine the same --weights and --clip"
            )


@lru_cache(maxsize=1)
def _suite(spec: SuiteSpec) -> Suite:
    """The metrics, loaded once per process."""
    return spec.build()


def local_only(spread: FleetSettings | None, *paths: str | Path) -> None:
    """InputError when another machine would be asked for a file of this one."""
    if spread is None or spread.address in (None, "local") or spread.shared_paths:
        return
    for path in map(str, paths):
        if path and "://" not in path:
            raise InputError(
                f"{path}: a local path means another file on each machine of the cluster; mount it "
                "everywhere and add --shared-paths, or leave out --address"
            )
