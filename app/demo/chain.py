"""`orbit4d demo`: the whole chain on built-in assets, by running the real commands one after another.

Every stage but the first and the last is a subprocess that runs an `orbit4d` command as a person would type
it. DIR/demo.json records each finished stage, so a run that was stopped resumes where it stood, and the
commands themselves take up what they had half done.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click

from orbit4d.datasets.commands.options import RESUMED, Command, Place
from orbit4d.datasets.core.atomic import write_json
from orbit4d.datasets.core.errors import InputError, WorkError

RECORD = "demo.json"
#: How a stage calls the command. -P: from the root of a checkout our folder `datasets` would shadow Hugging
#: Face's.
ORBIT4D = (sys.executable, "-P", "-m", "orbit4d.app")
Outcome = Callable[[Path, list[str]], str]
#: Seconds a stage is given to stop tidily after Ctrl-C.
PATIENCE = 60.0


@dataclass(frozen=True)
class Plan:
    """How large the demo is. Sized so that the whole takes under ten minutes on two cores."""

    only: tuple[str, ...] | None = None
    """Assets to build; None builds all."""
    resolution: int = 192
    """Pixels a side of the rendered clips."""
    frames: int = 24
    """Frames of a clip."""
    samples: int = 12
    """Cycles samples per pixel."""
    train_steps: int = 800
    """Optimizer steps of the tiny model, both of its stages together."""
    pictured: str = "slime"
    """Asset whose image is animated."""
    subject: str = "dino"
    """Asset that is reconstructed."""
    recon_steps: int | None = None
    """Steps with deformation; None takes those of the preset `fast`."""


FULL = Plan()


def small_plan() -> Plan:
    """Few assets and pixels: what continuous integration runs."""
    from orbit4d.app.demo.source import SMALL

    return Plan(only=SMALL, resolution=64, frames=8, samples=4, train_steps=24, recon_steps=200)


@dataclass
class Stage:
    """One step of the chain."""

    name: str
    title: str
    argv: tuple[str, ...] = ()
    """Arguments of `orbit4d`; empty for a stage that the demo does by itself."""
    makes: tuple[str, ...] = ()
    """Files, relative to the demo folder, without which the stage is not done."""
    work: Callable[[Path], str] | None = None
    """Instead of a command: does the work and says what came out."""
    outcome: Outcome | None = None
    """What came out, from the demo folder and the lines the command printed."""
    always: bool = False
    """Run again even when it was done: cheap, and its answer is the point."""
    clear: str = ""
    """Folder that is emptied before a finished stage is run again: its command would rightly refuse to
    continue from other input. An unfinished stage keeps it and continues."""


@dataclass
class Record:
    """What demo.json holds about a finished stage."""

    name: str
    title: str
    command: str
    seconds: float
    outcome: str
    lines: list[str] = field(default_factory=list)
    stale: bool = False
    """An earlier stage was run again since."""


def stages(out: Path, plan: Plan, workers: int) -> list[Stage]:
    """The chain, in order; paths are written as the user would write them from here."""
    from orbit4d.app.demo import outcomes as tell

    at = {name: str(out / name) for name in ("assets", "table.parquet", "report", "dataset", "run", "scene")}
    reference = f"{at['dataset']}:{plan.subject}"
    image, film = str(out / "generated" / "input.png"), str(out / "film.mp4")
    size = ("--resolution", plan.resolution, "--frames", plan.frames, "--samples", plan.samples)
    captions = out / "assets" / "captions.csv"
    steps = ("--steps", plan.recon_steps) if plan.recon_steps else ()
    commands: dict[str, tuple[Any, ...]] = {
        "curate": (at["assets"], "--captions", captions, "--out", at["table.parquet"], "--report",
                   at["report"], "--workers", workers),
        "render": (at["table.parquet"], "--out", at["dataset"], *size, "--passes", "geometry,skeleton",
                   "--workers", workers),
        "verify": (at["dataset"],),
        "train": (at["dataset"], "--out", at["run"], "--preset", "tiny", "--steps", plan.train_steps),
        "recon4d": (reference, "--out", at["scene"], "--preset", "fast", *steps),
        "film": (at["scene"], "--rig", "front_view", "--frames", plan.frames, "--size", plan.resolution,
                 "--fps", 10, "--out", film),
    }  # fmt: skip

    def stage(name: str, title: str, makes: tuple[str, ...], outcome: Outcome, **how: Any) -> Stage:
        return Stage(name, title, (name, *map(str, commands[name])), makes, None, outcome, **how)

    def generate(level: str, quantile: str) -> Stage:
        video = str(out / "generated" / f"{level}.mp4")
        argv = ("generate", at["run"], "--image", image, "--motion", quantile, "--out", video)
        made = (f"generated/{level}.mp4",)
        return Stage(
            f"generate_{level}", f"Generate, {level} motion", argv, made, None, tell.generated(level)
        )

    return [
        Stage("assets", "Build assets", (), ("assets/assets.json",), lambda f: tell.built(f, plan.only)),
        stage("curate", "Curate", ("table.parquet", "report/index.html"), tell.curated),
        stage("render", "Render", ("dataset/dataset.json",), tell.rendered),
        stage("verify", "Verify", (), tell.verified, always=True),
        stage("train", "Train", ("run/model", "run/log.jsonl"), tell.trained, clear="run"),
        generate("low", "q0.1"),
        generate("high", "q0.9"),
        stage(
            "recon4d",
            "Reconstruct",
            ("scene/metrics.json", "scene/canonical.ply"),
            tell.reconstructed,
            clear="scene",
        ),
        stage("film", "Film the front", ("film.mp4",), tell.filmed),
        Stage("gallery", "Gallery", (), ("index.html",), tell.gallery, always=True),
    ]


@click.command("demo", cls=Command, epilog="\b\nExample:\n  orbit4d demo --out demo", on_interrupt=RESUMED)
@click.option(
    "--out",
    type=Place("local", as_text=True),
    default="demo",
    show_default=True,
    metavar="DIR",
    help="Folder for all results.",
)
@click.option("--small", is_flag=True, help="Few assets at low resolution: two minutes, for a first look.")
@click.option("--workers", default=2, show_default=True, help="Ray workers that measure and render.")
def command(out: str, small: bool, workers: int) -> int:
    """Run the whole chain on built-in animated assets and show it all in DIR/index.html.

    Builds the assets, curates, renders, verifies, trains the tiny model, generates with low and high motion,
    reconstructs one orbit in 4D and films it. The same command again resumes a stopped run.
    """
    folder, plan = Path(out), small_plan() if small else FULL
    book = Book.open(folder, plan)
    began = time.monotonic()
    with _terminate_as_interrupt():
        run_stages(folder, plan, stages(folder, plan, workers), book)
    _summary(book, time.monotonic() - began)
    click.echo(f"gallery {(folder / 'index.html').resolve()}")
    return 0


class Book:
    """demo.json: the plan and the finished stages, replaced atomically after each."""

    def __init__(self, path: Path, plan: dict[str, Any], records: dict[str, Record]) -> None:
        self.path, self.plan, self.records = path, plan, records

    @classmethod
    def open(cls, folder: Path, plan: Plan) -> Book:
        """Take up or begin a demo; refuses a folder that holds something else or another plan."""
        path, wanted = folder / RECORD, json.loads(json.dumps(asdict(plan)))
        try:
            entries = sorted(os.listdir(folder)) if folder.exists() else []
        except NotADirectoryError:
            raise InputError(f"{folder}: is a file; choose another --out") from None
        if entries and RECORD not in entries:
            raise InputError(f"{folder}: holds other things (such as {entries[0]}); choose another --out")
        records: dict[str, Record] = {}
        if RECORD in entries:
            try:
                held = json.loads(path.read_text(encoding="utf-8"))
                records = {row["name"]: Record(**row) for row in held["stages"]}
            except (ValueError, TypeError, KeyError):
                raise InputError(f"{path}: is damaged; delete {folder} and run again") from None
            if held["plan"] != wanted:
                kind = "small" if held["plan"].get("only") else "full"
                raise InputError(
                    f"{folder}: holds a demo with other settings (a {kind} one); choose another --out, "
                    "or delete it"
                )
        book = cls(path, wanted, records)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            book.save()
        except OSError as error:
            reason = error.strerror or error
            raise InputError(f"{folder}: cannot be written ({reason}); choose another --out") from None
        return book

    def save(self) -> None:
        """Write demo.json."""
        held = {"version": 1, "plan": self.plan, "stages": [asdict(r) for r in self.records.values()]}
        write_json(self.path, held)

    def outdate(self, names: Sequence[str]) -> None:
        """Note that these stages stand on input that is being made again."""
        for name in names:
            if name in self.records:
                self.records[name].stale = True
        self.save()

    def drop(self, name: str) -> None:
        """Forget a finished stage, which is about to be run again."""
        self.records.pop(name, None)
        self.save()

    def put(self, record: Record, order: Sequence[str]) -> None:
        """Note a finished stage, in its place among the names in `order`."""
        self.records[record.name] = record
        self.records = {name: self.records[name] for name in order if name in self.records}
        self.save()


def run_stages(folder: Path, plan: Plan, chain: Sequence[Stage], book: Book) -> None:
    """Run what is not done yet. Once a stage ran, those after it run too: their input may have changed."""
    for number, stage in enumerate(chain, start=1):
        line = shlex.join(("orbit4d", *stage.argv)) if stage.argv else ""
        known = book.records.get(stage.name)
        done = (
            known is not None
            and not known.stale
            and _same_work(known.command, line)
            and all((folder / made).exists() for made in stage.makes)
        )
        if known is not None and done and not stage.always:
            click.echo(f"[{number}/{len(chain)}] {stage.title}: done already, {known.outcome}")
            continue
        click.secho(f"[{number}/{len(chain)}] {stage.title}" + (f"  {line}" if line else ""), bold=True)
        began = time.monotonic()
        if not stage.always:
            book.outdate([later.name for later in chain[number:]])
        if known is not None and stage.clear:
            book.drop(stage.name)
            shutil.rmtree(folder / stage.clear, ignore_errors=True)
        if stage.name == "generate_low":
            from orbit4d.app.demo.outcomes import write_input_picture

            write_input_picture(folder, plan.pictured)
        if stage.work is not None:
            lines, outcome = [], stage.work(folder)
        else:
            begun = stage.name == "train" and (folder / "run" / "config.json").exists()
            again = ("--resume",) if begun else ()
            if stage.name.startswith(("generate", "film")) and any(
                (folder / f).exists() for f in stage.makes
            ):
                again = ("--overwrite",)
            lines = _run(stage, (*stage.argv, *again), folder)
            outcome = stage.outcome(folder, lines) if stage.outcome else ""
        seconds = round(time.monotonic() - began, 1)
        book.put(
            Record(stage.name, stage.title, line, seconds, outcome, lines[-40:]), [s.name for s in chain]
        )
        click.echo(f"      {outcome} ({seconds:.1f} s)")


def _same_work(before: str, now: str) -> bool:
    """Whether two command lines make the same thing; the number of workers makes no difference."""
    return re.sub(r" --workers \d+", "", before) == re.sub(r" --workers \d+", "", now)


def _run(stage: Stage, argv: Sequence[str], folder: Path) -> list[str]:
    """Run one orbit4d command; what it prints goes through to the terminal, and comes back as lines."""
    # Threads that wait in a loop for one another lose a hundredfold when other work shares the cores.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONIOENCODING": "utf-8"}
    if stage.name == "train":
        # The tiny network's layers are too small to share: 0.37 s a step on one thread, 0.55 s on two.
        environment.setdefault("OMP_NUM_THREADS", "1")
    # A group of its own: Ctrl-C reaches this process alone, which then stops the command once, not twice.
    process = subprocess.Popen(
        [*ORBIT4D, *argv],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        errors="replace",
        process_group=0,
        env=environment,
    )
    lines: list[str] = []
    assert process.stdout is not None
    try:
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            click.echo(f"      {lines[-1]}")
        code = process.wait()
    except BaseException:
        _stop(process)
        raise
    if code == 130:
        raise KeyboardInterrupt
    if code != 0:
        end = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        raise WorkError(
            f"stage {stage.name} failed ({end}, its own message stands above); "
            f"`orbit4d demo --out {shlex.quote(str(folder))}` continues from here"
        )
    return lines


def _stop(process: subprocess.Popen[str]) -> None:
    """Ask a command to stop, wait for it to commit what it has, and end it by force if it will not."""
    for ask, patience in ((signal.SIGINT, PATIENCE), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        if process.poll() is not None:
            return
        try:
            os.killpg(process.pid, ask) if ask == signal.SIGKILL else process.send_signal(ask)
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        except (KeyboardInterrupt, ProcessLookupError):
            continue


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, so that a stopped job is as resumable as an interrupted one."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _summary(book: Book, seconds: float) -> None:
    width = max(len(record.title) for record in book.records.values())
    click.echo("")
    click.secho(f"{'stage':<{width}}  {'seconds':>8}  what came out", bold=True)
    for record in book.records.values():
        click.echo(f"{record.title:<{width}}  {record.seconds:8.1f}  {record.outcome}")
    total = sum(record.seconds for record in book.records.values())
    note = "" if abs(total - seconds) < max(3.0, 0.05 * total) else f"  (this run: {seconds:.1f})"
    click.echo(f"{'all':<{width}}  {total:8.1f}{note}")
