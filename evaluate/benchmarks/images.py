"""Benchmarks of images: Consistent4D, D-NeRF and N3DV (formats.md 1.9, 1.10, 2.9), results beside the truth.

Results are images or a video of the test views. Where they are smaller by a whole factor, the truth is
reduced to them by areas, and the table reports it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import naturally
from orbit4d.datasets.images.folders import image_files, read_images
from orbit4d.datasets.images.resize import area
from orbit4d.evaluate.benchmarks.result import Benchmark, folders_in
from orbit4d.evaluate.metrics.suite import Pair, Row, Suite, summarise
from orbit4d.evaluate.tasks.frames import Frames, load_frames, on_background

#: Column -> metric of the suite, and whether less is better.
COLUMNS = {"PSNR": ("PSNR", False), "SSIM": ("SSIM", False), "LPIPS-alex": ("LPIPS-alex", True),
           "LPIPS-vgg": ("LPIPS-vgg", True), "CLIP-S": ("CLIP-S", False)}  # fmt: skip
_VIDEOS = (".mp4", ".webm", ".mov", ".mkv")
_NONE = "{}: {} is the truth alone; name rendered test views with --given, or have them made with --out"
#: Layout -> the file that tells a scene of it.
MARKS = {"dnerf": "transforms_test.json", "n3dv": "poses_bounds.npy"}


@dataclass(frozen=True)
class Test:
    """One test view of one object."""

    name: str
    """The object: rows are means over its views."""
    view: str
    truth: Frames
    given: Frames
    fvd: bool = True
    """Whether the frames follow each other in time."""


def consistent4d(root: Path, given: Path | None) -> tuple[Iterator[Test], str]:
    """`gt/<object>/eval_<v>/<frame>.png` against `pred/…` alike (or the folder given)."""
    results = given or root / "pred"
    objects = naturally(path for path in (root / "gt").glob("*") if path.is_dir())
    if not objects:
        raise InputError(f"{root}: holds no gt/<object>/eval_<v>; is this the benchmark's folder?")

    def tests() -> Iterator[Test]:
        for folder in objects:
            views = naturally(path for path in folder.glob("eval_*") if path.is_dir())
            if not views:
                raise InputError(f"{folder}: holds no eval_<v>; every object has evaluation views")
            for view in views:
                mine = results / folder.name / view.name
                yield Test(folder.name, view.name, load_frames(str(view)), _given(mine))

    why = "the uids of its 7 test objects are lost, so nobody can tell that these are they"
    return tests(), why


def dnerf(root: Path, given: Path | None) -> tuple[Iterator[Test], str]:
    """The views of `transforms_test.json` against `given/<scene>/` with images of their names, or in their
    order."""
    if given is None:
        raise InputError(_NONE.format(root, "D-NeRF"))
    scenes = folders_in(root, MARKS["dnerf"])

    def tests() -> Iterator[Test]:
        for scene in scenes:
            paths = _listed(scene)
            mine = given if len(scenes) == 1 and not (given / scene.name).is_dir() else given / scene.name
            named = [mine / path.name for path in paths]
            made = named if all(path.is_file() for path in named) else image_files(mine)
            if len(made) != len(paths):
                raise InputError(
                    f"{mine}: {len(made)} images for the {len(paths)} test views of {scene.name}"
                )
            truth = on_background(read_images(paths))
            yield Test(scene.name, "test", truth, on_background(read_images(made)), fvd=False)

    return tests(), RECALLED


def _listed(scene: Path) -> list[Path]:
    path = scene / "transforms_test.json"
    try:
        names = [frame["file_path"] for frame in json.loads(path.read_text(encoding="utf-8"))["frames"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is no list of test views ({type(error).__name__})") from None
    found = []
    for name in names:
        place = (scene / str(name)).resolve()
        if not place.is_relative_to(scene.resolve()):
            raise InputError(f"{path}: names {name}, which lies outside of the scene")
        found.append(place if place.is_file() else place.with_name(place.name + ".png"))
    return found


def n3dv(root: Path, given: Path | None) -> tuple[Iterator[Test], str]:
    """cam00, the test view, against `given/<scene>.mp4` or `given/<scene>/` with its frames."""
    if given is None:
        raise InputError(_NONE.format(root, "N3DV"))
    scenes = folders_in(root, MARKS["n3dv"])

    def tests() -> Iterator[Test]:
        for scene in scenes:
            truth = next((p for p in _test_view(scene) if p.exists()), None)
            if truth is None:
                raise InputError(f"{scene}: holds no cam00.mp4 or cam00/, the test view")
            places = [given / f"{scene.name}{suffix}" for suffix in _VIDEOS] + [given / scene.name]
            mine = next((path for path in places if path.exists()), given if len(scenes) == 1 else places[0])
            yield Test(scene.name, "cam00", load_frames(str(truth)), _given(mine))

    return tests(), RECALLED


RECALLED = "no published figure of this set was checked against its paper"


def _test_view(scene: Path) -> list[Path]:
    return [scene / "cam00.mp4", scene / "cam00" / "images", scene / "cam00"]


def _given(place: Path) -> Frames:
    if not place.exists():
        raise InputError(f"{place}: no result there; every test view needs one")
    return load_frames(str(place))


LAYOUTS = {"consistent4d": consistent4d, "dnerf": dnerf, "n3dv": n3dv}
_TITLES = {"consistent4d": "Consistent4D", "dnerf": "D-NeRF", "n3dv": "N3DV"}


def run(name: str, root: Path, given: Path | None, suite: Suite, **_: Any) -> Benchmark:
    """Measure given results of one of LAYOUTS with every metric that the suite has."""
    tests, why = LAYOUTS[name](root, given)
    return measured(name, tests, suite, why)


def measured(name: str, tests: Iterable[Test], suite: Suite, why: str) -> Benchmark:
    """A row an object of what was drawn of its test views."""
    found = Benchmark(_TITLES[name], {column: less for column, (_, less) in COLUMNS.items()}, unlike=why)
    rows: list[Row] = []
    views: dict[str, list[dict[str, float]]] = {}
    reduced: set[str] = set()
    for test in tests:
        truth = _fitted(test, reduced)
        pair = Pair(f"{test.name}/{test.view}", "front_view", test.given.rgb, truth, fvd=test.fvd)
        row = suite.measure(pair)
        rows.append(row)
        views.setdefault(test.name, []).append(row.values)
    for name_, values in views.items():
        found.rows[name_] = {
            column: sum(one[metric] for one in values) / len(values)
            for column, (metric, _) in COLUMNS.items()
            if all(metric in one for one in values)
        }
    found.protocol = {
        "background": "white",
        "test views": len(rows),
        "test images": sum(row.frames for row in rows),
    }
    if reduced:
        found.protocol["truth reduced to"] = ", ".join(sorted(reduced))
    found.unmeasured = dict(suite.unmeasured)
    means, _why = summarise(rows)
    if (fvd := means.get("front_view", {}).get("FVD-F")) is not None:
        found.protocol["FVD-F over all views"] = round(fvd, 2)
    return found


def _fitted(test: Test, reduced: set[str]) -> torch.Tensor:
    """The truth at the size of the result. Raises InputError where no whole factor leads there."""
    truth, given = test.truth.rgb, test.given.rgb
    if len(truth) != len(given):
        raise InputError(f"{test.name} {test.view}: {len(given)} frames where the truth has {len(truth)}")
    (h, w), (a, b) = truth.shape[-2:], given.shape[-2:]
    if (h, w) == (a, b):
        return truth
    if h % a or w % b or h // a != w // b:
        raise InputError(
            f"{test.name} {test.view}: is {b}x{a} where the truth is {w}x{h}; render it at that size, or "
            "at a whole fraction of it"
        )
    reduced.add(f"{b}x{a}")
    return area(truth, (a, b))
