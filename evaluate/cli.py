"""`orbit4d eval dataset|video|scene|run|benchmark|views|learned`."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orbit4d.datasets.commands.options import RESUMED, Command, Group, Place, not_a_video
from orbit4d.evaluate.benchmarks.cli import command as benchmark
from orbit4d.evaluate.commands.learned import command as learned
from orbit4d.evaluate.commands.views import command as views
from orbit4d.evaluate.results.published import PROTOCOLS
from orbit4d.recon4d.fitting.settings import PRESETS

if TYPE_CHECKING:
    from orbit4d.evaluate.results.rows import Results
    from orbit4d.evaluate.tasks.cases import Case
    from orbit4d.evaluate.tasks.truth import Truth
    from orbit4d.render.fleet.settings import FleetSettings

F = Callable[..., Any]
_TRUTH = Place(as_text=True, native=not_a_video)
#: What of a run at a URI is no part of its model.
_NOT_THE_MODEL = ("checkpoints", "ray", "tensorboard")


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    def add(f: F) -> F:
        for option in reversed(options):
            f = option(f)
        return f

    return add


def _device(context: click.Context, option: click.Parameter, asked: str | None) -> str:
    """The device to measure on, said where it was not asked for. InputError for one that is not here."""
    import torch

    from orbit4d.datasets.core.errors import InputError

    if asked is None:
        chosen = "cuda" if torch.cuda.is_available() else "cpu"
        name = f" ({torch.cuda.get_device_name()})" if chosen == "cuda" else ""
        click.echo(f"measuring on {chosen}{name}", err=True)
        return chosen
    try:
        torch.empty(0, device=asked)
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0]
        raise InputError(f"--device {asked}: not here ({why}); give cpu or leave it out") from None
    return asked


_spread_options = _options(
    click.option(
        "--out", required=True, type=Place("run"), help="Results folder or URI; an existing one is resumed."
    ),
    click.option("--workers", default=1, show_default=True, help="Workers (Ray actors); 1: this process."),
    click.option("--address", help="Ray address (`auto`: the running cluster). Default: a local Ray."),
    click.option("--shared-paths", is_flag=True, help="Local paths are the same files on every machine."),
)
_metric_options = _options(
    click.option("--weights", type=Place(), help="Folder with LPIPS and I3D weights."),
    click.option("--fetch-weights", is_flag=True, help="Download missing LPIPS and I3D weights once."),
    click.option("--clip", default="openai/clip-vit-large-patch14", help="CLIP: hub name or folder."),
    click.option("--no-learned", is_flag=True, help="Leave out LPIPS, FVD and CLIP."),
    click.option(
        "--protocol",
        type=click.Choice(list(PROTOCOLS)),
        help="Print its published rows beside ours where task, assets, views and size are the same; reports "
        "why where they are not. May be given to a finished evaluation.",
    ),
    click.option(
        "--device",
        callback=_device,
        help="Device, such as cpu or cuda:1. Default: a GPU if there is one.",
    ),
)
_truth_options = _options(
    click.option(
        "--assets",
        multiple=True,
        metavar="SOURCE",
        help="Asset files from which missing ground truth is rendered.",
    ),
    click.option("--cache", type=Place("local"), help="Folder for ground truth rendered on demand."),
    click.option(
        "--preset",
        type=click.Choice(["default", "draft", "diffusion4d"]),
        default="default",
        help="Render preset of ground truth that no dataset holds.",
    ),
    click.option("--frames", type=int, help="Frames of rendered ground truth; default: as the input."),
    click.option(
        "--resolution",
        type=int,
        help="Size of rendered ground truth, pixels per side; default: as the input.",
    ),
    click.option("--samples", type=int, help="Cycles samples per pixel of rendered ground truth."),
)


#: Sections of the help of what is measured against a ground truth.
_SHARED = {
    "Rendered ground truth": "--assets --cache --preset --frames --resolution --samples",
    "Metrics": "--weights --fetch-weights --clip --no-learned --protocol --device",
    "Workers": "--workers --address --shared-paths",
}


@click.group(cls=Group, short_help="Evaluate datasets, videos, scenes and runs with the published protocols.")
def command() -> None:
    """Evaluate with the published protocols.

    Ground truth is a rendered dataset, or asset files: what is needed of them is rendered on demand and
    cached. The same command resumes after any stop.

    \b
    Example: orbit4d eval video orbit.mp4 --truth demo/dataset:walker --out results
             orbit4d eval scene demo/scene --truth demo/assets/walker.glb --views matrix --out results
    """
    import os

    # Read when torch is first imported: its idle threads sleep instead of spinning against the kernels'.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@command.command("dataset", cls=Command, on_interrupt=RESUMED)
@click.argument("dataset")
@click.option("--split", default=None, help="Only this split of the index.")
@click.option("--ids", type=Place(), help="Text file of uids, instead of --split.")
@_spread_options
def dataset_(dataset: str, split: str | None, ids: Path | None, **shared: Any) -> None:
    """Technical quality of a rendered dataset: coverage, border, centring, exposure, flicker.

    \b
    Example: orbit4d eval dataset demo/dataset --out results
    """
    from orbit4d.evaluate.tasks.quality import quality_cases

    settings = {"task": "dataset", "dataset": dataset, "split": split, "ids": _listed(ids)}
    cases, lacking = quality_cases(dataset, split, settings["ids"])
    _evaluate(settings, cases, lacking, shared, dataset, f"Quality of {dataset}")


@command.command(
    "video",
    cls=Command,
    on_interrupt=RESUMED,
    groups={"Input and output": "--truth --rig --orbit --caption --out", **_SHARED},
)
@click.argument("generated", type=Place(as_text=True))
@click.option(
    "--truth",
    required=True,
    type=_TRUTH,
    help="Video, folder of frames, or DATASET or SOURCE with :uid[:action].",
)
@click.option("--rig", default="dynamic_orbit", show_default=True, help="Rig of the ground truth.")
@click.option("--orbit", "orbit_index", default=0, show_default=True, help="Orbit of the ground truth.")
@click.option("--caption", default="", help="Prompt that the video was made from, for CLIP.")
@_truth_options
@_metric_options
@_spread_options
def video_(generated: str, truth: str, rig: str, orbit_index: int, caption: str, **shared: Any) -> None:
    """Generated orbits against ground truth renders.

    GENERATED is a video, a folder of frames, or a folder of such, named uid.mp4 or uid__a<action
    index>.mp4 (without .mp4 for folders), which a whole dataset or source is the truth of.

    \b
    Example: orbit4d eval video orbit.mp4 --truth demo/dataset:walker --out results
             orbit4d eval video videos --truth demo/assets --out results
    """
    from orbit4d.evaluate.tasks.cases import video_cases, videos_in
    from orbit4d.evaluate.tasks.frames import load_frames

    def shape() -> dict[str, Any]:
        first = load_frames(str(next(iter(videos_in(generated)), generated)))
        return {"frames": len(first), "resolution": first.rgb.shape[-1]}

    settings = {"task": "video", "generated": generated, "truth": truth, "rig": rig, "orbit": orbit_index}
    cases, failures = video_cases(
        generated, truth, lambda where: _truth(where, shared, shape), rig, orbit_index, caption
    )
    _evaluate(settings | {"caption": caption}, cases, failures, shared, truth)


@command.command(
    "scene",
    cls=Command,
    on_interrupt=RESUMED,
    groups={"Input and output": "--truth --views --held-out-orbit --grid --out", **_SHARED},
)
@click.argument("scene", type=Place(as_text=True))
@click.option("--truth", required=True, help="DATASET or SOURCE, with :uid[:action]: the scene's asset.")
@click.option(
    "--views",
    default="front,orbit,clip36",
    show_default=True,
    help="Views, comma-separated: front, orbit, clip36, matrix.",
)
@click.option("--held-out-orbit", default=1, show_default=True, help="Orbit that the fit did not see.")
@click.option("--grid", default="9x21", show_default=True, help="Views x times of the matrix.")
@_truth_options
@_metric_options
@_spread_options
def scene_(scene: str, truth: str, views: str, held_out_orbit: int, grid: str, **shared: Any) -> None:
    """4D scenes against ground truth at held-out cameras and times.

    SCENE is a scene, or a folder of scenes named uid or uid__a<action index>. front: time runs, the camera
    stands. orbit: a dynamic orbit that the fit did not see. clip36: 36 uniform views of an orbit. matrix:
    every view at every time, for the four forms of FVD.

    \b
    Example: orbit4d eval scene demo/scene --truth demo/dataset:walker --assets demo/assets --out results
    """
    from orbit4d.datasets.core.errors import InputError
    from orbit4d.evaluate.tasks.cases import PROTOCOLS, scene_cases

    chosen = tuple(view.strip() for view in views.split(","))
    if unknown := set(chosen) - set(PROTOCOLS):
        raise InputError(f"--views {', '.join(sorted(unknown))}: choose from {', '.join(PROTOCOLS)}")
    sides = re.fullmatch(r"(\d+)x(\d+)", grid)
    if sides is None or min(int(side) for side in sides.groups()) < 2:
        raise InputError(f"--grid {grid}: write VIEWSxTIMES, at least 2x2, such as 9x21")
    size = int(sides[1]), int(sides[2])
    settings = {"task": "scene", "scene": scene, "truth": truth, "views": views, "orbit": held_out_orbit}
    cases, failures = scene_cases(
        scene, truth, lambda where: _truth(where, shared), chosen, held_out_orbit, size
    )
    _evaluate(settings | {"grid": grid}, cases, failures, shared, truth)


@command.command(
    "run",
    cls=Command,
    on_interrupt=RESUMED,
    groups={
        "Input and output": "--dataset --split --ids --reconstruct --out",
        "Sampling": "--task --motion --steps --w1 --w2 --w-motion --seed",
        **_SHARED,
    },
)
@click.argument("run", type=Place(as_text=True, leave_out=_NOT_THE_MODEL))
@click.option("--dataset", "--truth", "dataset", required=True, help="Dataset or asset files: ground truth.")
@click.option("--split", default="test", show_default=True, help="Split to generate for; all: every asset.")
@click.option("--ids", type=Place(), help="Text file of uids, instead of --split.")
@click.option(
    "--task",
    type=click.Choice(["image", "text", "static"]),
    default="image",
    show_default=True,
    help="Condition that the model is given.",
)
@click.option(
    "--motion",
    default=None,
    help="Motion magnitude or its quantile, such as q0.9; default: that of the ground truth.",
)
@click.option("--steps", type=click.IntRange(1, 1000), help="DDIM steps; default: the run's own.")
@click.option("--w1", type=float, help="Guidance weight w1 (unconditional branch); default: the run's own.")
@click.option("--w2", type=float, help="Guidance weight w2 (frozen base branch); default: the run's own.")
@click.option(
    "--w-motion", type=float, help="Guidance weight of motion (branch without it); default: the run's own."
)
@click.option("--seed", default=0, show_default=True, help="Random seed.")
@click.option(
    "--reconstruct",
    type=click.Choice(list(PRESETS)),
    help="Also reconstruct each orbit with this preset of recon4d and measure the front view.",
)
@_truth_options
@_metric_options
@_spread_options
def run_(
    run: str,
    dataset: str,
    split: str,
    ids: Path | None,
    task: str,
    motion: str | None,
    steps: int | None,
    w1: float | None,
    w2: float | None,
    w_motion: float | None,
    seed: int,
    reconstruct: str | None,
    **shared: Any,
) -> None:
    """A trained model over held-out assets, generated and measured end to end.

    \b
    Example: orbit4d eval run runs/tiny --dataset data/pool --split test --task image --out results
             orbit4d eval run runs/tiny --truth pool.parquet --split test --out results
             orbit4d eval run runs/tiny --truth pool.parquet --reconstruct fast --out results
    """
    from orbit4d.evaluate.tasks.generated import (
        Asked,
        check_asked,
        frame_shape,
        model_hash,
        run_cases,
        sampling,
    )
    from orbit4d.evaluate.tasks.reconstructed import reconstruction_cases

    # Absolute: Ray's workers stand in another folder.
    place = str(Path(run).absolute())
    folder = str((shared["out"] / "generated").absolute())
    asked = Asked(place, task, folder, motion, steps, seed, w1, w2, w_motion)
    check_asked(asked)  # says what is wrong, before anything is rendered
    rigs = ("static_orbit", "dynamic_orbit", *(("front_view",) if reconstruct else ()))
    truth = _truth(dataset, shared, lambda: frame_shape(place), rigs=rigs)
    settings: dict[str, Any] = {"task": f"run {task}", "run": run, "dataset": dataset, "split": split}
    settings |= {"motion": motion, "ids": _listed(ids), "steps": steps, "seed": seed}
    settings["reconstruct"] = reconstruct
    settings |= {"w1": w1, "w2": w2, "w_motion": w_motion, "model": model_hash(place)}
    subjects = truth.subjects(None if split == "all" else split, settings["ids"])
    cases = run_cases(truth, subjects, asked)
    lacking: dict[str, str] = {}
    if reconstruct:
        more, lacking = reconstruction_cases(truth, subjects, asked, reconstruct)
        # Asset by asset, so that the page shows a scene below the orbit that it was made from.
        place_of = {f"{case.name}/front": number for number, case in enumerate(cases)}
        place_of |= {case.name: number for number, case in enumerate(cases)}
        cases = sorted([*cases, *more], key=lambda case: place_of[case.name])
    failures = {**truth.failures, **lacking}
    _evaluate(settings, cases, failures, shared, dataset, sampling=sampling(asked))


command.add_command(benchmark)
command.add_command(views)
command.add_command(learned)


# What the tasks share ---------------------------------------------------------------------------------------


def _listed(ids: Path | None) -> list[str] | None:
    from orbit4d.evaluate.tasks.truth import read_ids

    return None if ids is None else read_ids(ids)


def _truth(
    where: str, shared: dict[str, Any], shape: Callable[[], dict[str, Any]] | None = None, **how: Any
) -> Truth:
    """The ground truth that the options name; `shape`: that of the input it is compared with."""
    from orbit4d.datasets.core.paths import is_dataset
    from orbit4d.evaluate.tasks.truth import RenderChoice, Truth
    from orbit4d.evaluate.tasks.truth_cache import TruthCache

    known = shape() if shape is not None and not is_dataset(where) else {}
    given = {k: shared[k] for k in ("frames", "resolution", "samples") if shared[k] is not None}
    choice = RenderChoice(shared["preset"], **{**known, **given})
    return Truth(where, shared["assets"], choice, TruthCache(shared["cache"], shared["workers"]), **how)


def _spread(shared: dict[str, Any], device: str = "cpu") -> FleetSettings | None:
    """How to spread, None for this process."""
    from orbit4d.render.fleet.settings import FleetSettings

    workers, address = shared["workers"], shared["address"]
    if workers == 1 and address is None:
        return None
    gpus = 0.0
    if device.startswith("cuda"):
        import torch

        # Workers of one machine share its GPUs, so many on each; each of a cluster's has its own.
        gpus = 1.0 if address else 1 / math.ceil(workers / max(1, torch.cuda.device_count()))
    return FleetSettings(
        workers=workers,
        address=address,
        shared_paths=shared["shared_paths"],
        gpus_per_worker=gpus,
        order="given",
        # Generation and a long matrix take their time; a worker that is silent for days is lost.
        asset_timeout=3600.0,
    )


def _evaluate(
    settings: dict[str, Any],
    cases: Sequence[Case],
    failures: dict[str, str],
    shared: dict[str, Any],
    truth: str,
    title: str = "",
    **known: Any,
) -> None:
    """Measure the cases and write what `Results.finish` does; `known` goes into results.json as it is."""
    from orbit4d.datasets.core.errors import InputError
    from orbit4d.datasets.core.remote import named
    from orbit4d.evaluate.results.rows import Results
    from orbit4d.evaluate.runner import SuiteSpec, local_only, measure_cases

    if not cases and failures:
        raise InputError(next(iter(failures.values())))
    measured = settings["task"] != "dataset"
    device = shared["device"] if measured else "cpu"
    spread = _spread(shared, device)
    if spread is not None:
        device = device.partition(":")[0]  # Ray says which GPU, and shows a worker no other
    local_only(spread, *(settings.get(k) or "" for k in ("dataset", "generated", "scene", "run")))
    suite, spec = None, SuiteSpec()
    if measured:
        weights = shared["weights"]
        spec = SuiteSpec(
            None if weights is None else str(weights.absolute()),
            shared["clip"],
            device,
            not shared["no_learned"],
        )
        suite = spec.build(shared["fetch_weights"])
        # Rows measured with other weights, or truth rendered otherwise, must not be mixed with these.
        settings |= {"protocol": shared["protocol"] or "", "weights": suite.weights}
        names = ("assets", "preset", "frames", "resolution", "samples")
        settings |= {"rendered_truth": {name: shared[name] for name in names}}
    results = Results(shared["out"], named(settings))
    for name, why in failures.items():
        results.fail(name, why)
    start = time.perf_counter()
    label = f"eval {settings['task']}"
    measure_cases(cases, suite, results, spec, spread, label)
    provenance = {
        "seconds": time.perf_counter() - start,
        "workers": shared["workers"],
        "device": device,
        "dataset_digest": _digest(truth),
        "commit": _commit(),
        **known,
    }
    _finish(results, suite.unmeasured if suite else {}, provenance, named(title) or f"orbit4d {label}")


def _finish(results: Results, unmeasured: dict[str, str], provenance: dict[str, Any], title: str) -> None:
    from orbit4d.datasets.core.errors import InputError, WorkError
    from orbit4d.evaluate.results.page import write_page
    from orbit4d.evaluate.results.tables import terminal

    if not len(results) and results.failures:
        name, why = next(iter(results.failures.items()))
        raise WorkError(f"nothing was measured, {len(results.failures)} left out; first {name}: {why}")
    if not len(results):
        raise InputError("nothing to measure: no clip matches; `orbit4d list` names what is there")
    record = results.finish(unmeasured, provenance)
    protocol = "" if record["misfit"] else str(results.settings.get("protocol") or "")
    page = write_page(results, title, record["summary"], record["not_measured"], protocol)
    click.echo(terminal(record["summary"], record["not_measured"]))
    for name, why in list(results.failures.items())[:20]:
        click.echo(f"  {name}: left out: {why}")
    if record["misfit"]:
        click.echo(f"published rows of {results.settings['protocol']} are not shown: {record['misfit']}")
    left = f", {len(results.failures)} left out" if results.failures else ""
    click.echo(f"{len(results)} clips{left}; {results.folder / 'results.json'}, {page}")


def _digest(truth: str) -> str:
    """The digest that a dataset would print in verify; '' for truths that are no dataset."""
    from orbit4d.datasets.core.paths import is_dataset
    from orbit4d.datasets.core.storage import Store
    from orbit4d.datasets.index.reference import split_reference
    from orbit4d.datasets.store.digest import dataset_digest

    where = split_reference(truth)[0]
    return dataset_digest(Store(where)) if is_dataset(where) else ""


def _commit() -> str:
    """The commit of the checkout that ran, '' outside of one."""
    import subprocess

    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
