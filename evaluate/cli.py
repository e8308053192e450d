"""`orbit4d eval dataset|video|scene|run`."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from orbit4d.evaluate.results import Results
    from orbit4d.evaluate.suite import Pair

F = Callable[..., Any]


def _shared(f: F) -> F:
    """Options that every task with learned metrics takes."""
    for option in (
        click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the results."),
        click.option("--weights", type=click.Path(path_type=Path), help="Folder with LPIPS and I3D weights."),
        click.option("--fetch-weights", is_flag=True, help="Download missing LPIPS and I3D weights once."),
        click.option("--clip", default="openai/clip-vit-large-patch14", help="CLIP: hub name or folder."),
        click.option("--no-learned", is_flag=True, help="Leave LPIPS, FVD and CLIP out."),
        click.option("--protocol", default="", help="Published protocol whose rows to print beside ours."),
        click.option("--device", default="cpu", show_default=True),
    ):
        f = option(f)
    return f


@click.group(short_help="Measure datasets, videos, scenes and runs like the papers.")
def command() -> None:
    """Measure every stage the way the papers do.

    \b
    Example: orbit4d eval video orbit.mp4 --truth demo/dataset:walker --out results
    """


@command.command("dataset")
@click.argument("dataset")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the results.")
@click.option("--split", default=None, help="Only this split of the index.")
def dataset_(dataset: str, out: Path, split: str | None) -> None:
    """Technical quality of a rendered dataset: coverage, border, centring, exposure, flicker.

    \b
    Example: orbit4d eval dataset demo/dataset --out results
    """
    from orbit4d.datasets.progress import Progress
    from orbit4d.evaluate.quality import dataset_rows, measure_clip
    from orbit4d.evaluate.results import Results

    results = Results(out, {"task": "dataset", "dataset": dataset, "split": split})
    with Progress("eval dataset", unit="clip") as progress:
        for name, clip in dataset_rows(dataset, split):
            if name not in results.rows:
                results.add(measure_clip(clip))
            progress.update()
    _finish(results, {}, {"dataset_digest": _digest(dataset)}, f"Quality of {dataset}")


@command.command("video")
@click.argument("generated")
@click.option("--truth", required=True, help="Video, folder of frames, or DATASET:uid[:action].")
@click.option("--rig", default="dynamic_orbit", show_default=True)
@click.option("--orbit", "orbit_index", default=0, show_default=True)
@click.option("--caption", default="", help="Prompt that the video was made from, for CLIP.")
@_shared
def video_(generated: str, truth: str, rig: str, orbit_index: int, caption: str, **shared: Any) -> None:
    """A generated orbit against ground truth renders.

    \b
    Example: orbit4d eval video orbit.mp4 --truth demo/dataset:walker --out results
    """
    from orbit4d.evaluate.tasks import video_pairs

    settings = {"task": "video", "generated": generated, "truth": truth, "rig": rig, "orbit": orbit_index}
    _evaluate(settings, lambda: video_pairs(generated, truth, rig, orbit_index, caption), shared, truth)


@command.command("scene")
@click.argument("scene")
@click.option("--truth", required=True, help="DATASET:uid[:action], renders of the scene's asset.")
@click.option("--views", default="front,orbit,clip36", show_default=True, help="Which protocols.")
@click.option("--held-out-orbit", default=1, show_default=True, help="Orbit that the fit did not see.")
@_shared
def scene_(scene: str, truth: str, views: str, held_out_orbit: int, **shared: Any) -> None:
    """A 4D scene against ground truth at held-out cameras and times.

    \b
    Example: orbit4d eval scene demo/scene --truth demo/dataset:walker --out results
    """
    from orbit4d.datasets.errors import InputError
    from orbit4d.evaluate.tasks import scene_pairs

    chosen = tuple(view.strip() for view in views.split(","))
    if unknown := set(chosen) - {"front", "orbit", "clip36"}:
        raise InputError(f"--views {', '.join(sorted(unknown))}: choose from front, orbit, clip36")
    settings = {"task": "scene", "scene": scene, "truth": truth, "views": views, "orbit": held_out_orbit}
    _evaluate(settings, lambda: scene_pairs(scene, truth, chosen, held_out_orbit), shared, truth)


@command.command("run")
@click.argument("run")
@click.option("--dataset", required=True, help="Dataset with the ground truth renders.")
@click.option("--split", default="test", show_default=True, help="Split of the index to generate for.")
@click.option("--ids", type=click.Path(path_type=Path), help="Text file of uids, instead of --split.")
@click.option("--task", type=click.Choice(["image", "text", "static"]), default="image", show_default=True)
@click.option("--motion", default=None, help="Raw m or a quantile such as q0.9; default: the truth's own m.")
@click.option("--steps", type=int, default=None, help="DDIM steps; default: the run's own.")
@click.option("--seed", default=0, show_default=True)
@_shared
def run_(
    run: str,
    dataset: str,
    split: str,
    ids: Path | None,
    task: str,
    motion: str | None,
    steps: int | None,
    seed: int,
    **shared: Any,
) -> None:
    """A trained model over held-out assets, generated and measured end to end.

    \b
    Example: orbit4d eval run runs/tiny --dataset data/pool --split test --task image --out results
    """
    from orbit4d.evaluate.tasks import run_assets, run_pairs

    assets = run_assets(dataset, split, ids)
    settings = {"task": f"run {task}", "run": run, "dataset": dataset, "split": split, "motion": motion}
    settings |= {"ids": str(ids or ""), "steps": steps, "seed": seed, "assets": [list(a) for a in assets]}
    pairs = lambda: run_pairs(  # noqa: E731
        run, dataset, assets, task, shared["out"], motion=motion, steps=steps, seed=seed
    )
    _evaluate(settings, pairs, shared, f"{dataset}:")


def _evaluate(
    settings: dict[str, Any], pairs: Callable[[], Iterator[Pair]], shared: dict[str, Any], truth: str
) -> None:
    from orbit4d.datasets.progress import Progress
    from orbit4d.evaluate.page import write_videos
    from orbit4d.evaluate.results import Results
    from orbit4d.evaluate.suite import Suite

    settings["protocol"] = shared["protocol"]
    settings["learned"] = not shared["no_learned"]
    # The first pair before anything is written: an input that is not there leaves no folder behind.
    stream = pairs()
    first = next(stream, None)
    stream = stream if first is None else itertools.chain([first], stream)
    results = Results(shared["out"], settings)
    suite = Suite(
        shared["weights"],
        shared["clip"],
        shared["fetch_weights"],
        shared["device"],
        learned=not shared["no_learned"],
    )
    start = time.perf_counter()
    with Progress(f"eval {settings['task']}", unit="clip") as progress:
        for i, pair in enumerate(stream):
            if pair.name not in results.rows:
                write_videos(results.folder, i, pair)
                results.add(suite.measure(pair))
            progress.update()
    dataset = truth.split(":")[0] if ":" in truth and "://" not in truth else ""
    provenance = {"seconds": time.perf_counter() - start, "dataset_digest": _digest(dataset)}
    _finish(results, suite.unmeasured, provenance, f"orbit4d eval {settings['task']}")


def _finish(
    results: Results, unmeasured: dict[str, str], provenance: dict[str, Any], title: str
) -> dict[str, Any]:
    from orbit4d.datasets.errors import InputError
    from orbit4d.evaluate.page import write_page
    from orbit4d.evaluate.results import terminal

    if not results.rows:
        raise InputError("nothing to measure: no clip matches; look at `orbit4d stats`")
    record = results.finish(unmeasured, provenance)
    page = write_page(results.folder, title, list(results.rows.values()), record["summary"], unmeasured)
    click.echo(terminal(record["summary"], unmeasured))
    click.echo(f"{len(results.rows)} clips; {results.folder / 'results.json'}, {page}")
    return record


def _digest(dataset: str) -> str:
    """The digest that a dataset would print in verify; '' for truths that are no dataset."""
    from orbit4d.datasets.digest import dataset_digest
    from orbit4d.datasets.storage import Store

    return dataset_digest(Store(dataset)) if dataset else ""
