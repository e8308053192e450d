"""What is compared with what. A task is a list of cases: a name, and how to load its pair in its turn.

video: generated orbits against ground truth. scene: 4D scenes filmed at ground truth's cameras and times.
`run` (a trained model) is in `generated.py`, `dataset` in `quality.py`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orbit4d.datasets.cameras.camera import Camera, orbit
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import naturally
from orbit4d.datasets.index.reference import split_reference
from orbit4d.datasets.store.clip import Clip
from orbit4d.evaluate.metrics.suite import Pair, Row
from orbit4d.evaluate.tasks.frames import (
    VIDEOS,
    WHITE,
    Frames,
    background_of,
    check_source,
    clip_frames,
    images_in,
    load_frames,
    on_background,
)
from orbit4d.evaluate.tasks.truth import Ref, Subject, Truth

#: Views of the paper's CLIP-O protocol (arXiv 2405.16645, section 4.1).
CLIP_ORBIT_VIEWS = 36
#: What `eval scene` can film.
PROTOCOLS = ("front", "orbit", "clip36", "matrix")


@dataclass(frozen=True)
class Case:
    """One thing to measure. Small enough to be sent to another machine, so its paths are absolute; `load`
    brings the frames there.
    """

    name: str
    load: Callable[[], Pair | Row]
    late: bool = False
    """Wants what another case makes: its turn comes after all that do not, its row where it stands."""


# Videos -----------------------------------------------------------------------------------------------------


def video_cases(
    generated: str, truth: str, make_truth: Callable[[str], Truth], rig: str, orbit_index: int, caption: str
) -> tuple[list[Case], dict[str, str]]:
    """One video, or a folder of videos (or of folders of frames) named uid or uid__a<action index>.

    Returns the cases and, by name, why something cannot be measured. Raises InputError.
    """
    where, uid, action = split_reference(truth)
    if uid is None and _is_video(where):
        check_source(generated)
        check_source(where)
        name, made, real = Path(where).stem, os.path.abspath(generated), os.path.abspath(where)
        return [Case(name, partial(_file_pair, name, made, real, rig, caption))], {}
    source = make_truth(where)
    members = [] if uid is not None else videos_in(generated)
    if members:
        subjects, failures = _match(members, source)
    else:
        check_source(generated)
        subject = source.only() if uid is None else source.subject(uid, action)
        subjects, failures = [(subject, os.path.abspath(generated))], {}
    refs = source.clips([s for s, _ in subjects], rig, orbit_index)
    stills = (
        source.clips([s for s, _ in subjects], "static_orbit", orbit_index)
        if rig == "dynamic_orbit"
        else [None] * len(subjects)
    )
    cases = []
    for (subject, path), ref, still in zip(subjects, refs, stills):
        if ref is None:
            failures[subject.name] = f"{where} has no {rig} {orbit_index} of it; give the file with --assets"
        else:
            cases.append(Case(subject.name, partial(_video_pair, subject.name, path, ref, still, caption)))
    return cases, failures


def _file_pair(name: str, generated: str, truth: str, rig: str, caption: str) -> Pair:
    made, real = load_frames(generated), load_frames(truth)
    return Pair(
        name, rig, made.rgb, real.rgb, made.alpha, real.alpha, condition=caption or real.rgb[0]
    )  # fmt: skip


def _video_pair(name: str, generated: str, ref: Ref, still: Ref | None, caption: str) -> Pair:
    made = load_frames(generated)
    # A model's frames have no alpha: the truth is put on the background that the model draws.
    behind = background_of(generated) if made.alpha is None or (made.alpha == 1).all() else WHITE
    real = clip_frames(ref.read(), behind)
    static = clip_frames(still.read(), behind).rgb if still is not None else None
    condition = caption or real.rgb[0]
    return Pair(name, ref.rig, made.rgb, real.rgb, made.alpha, real.alpha, condition, static=static)


def _is_video(where: str) -> bool:
    path = Path(where)
    return path.suffix.lower() in VIDEOS or (path.is_dir() and bool(images_in(path)))


def videos_in(folder: str) -> list[Path]:
    """Videos and folders of frames inside a folder that is no folder of frames itself."""
    path = Path(folder)
    if not path.is_dir() or images_in(path):
        return []
    return naturally(p for p in path.iterdir() if _is_video(str(p)) and not p.name.startswith("."))


def scenes_in(folder: str) -> list[Path]:
    """Scenes inside a folder that is no scene itself."""
    path = Path(folder)
    if not path.is_dir() or (path / "scene.json").is_file():
        return []
    return naturally(p for p in path.iterdir() if (p / "scene.json").is_file())


_MEMBER = re.compile(r"(?P<uid>.+?)(?:__a(?P<action>\d+))?")


def _match(members: Sequence[Path], source: Truth) -> tuple[list[tuple[Subject, str]], dict[str, str]]:
    """Members of a folder with the subjects that their names name."""
    named = {}
    for path in members:
        found = _MEMBER.fullmatch(path.stem if path.is_file() else path.name)
        assert found is not None
        named[path] = found["uid"], found["action"]
    known: dict[str, list[Subject]] = {}
    for subject in source.subjects(ids=sorted({uid for uid, _ in named.values()})):
        known.setdefault(subject.uid, []).append(subject)
    matched, failures = [], {}
    for path, (uid, action) in named.items():
        fits = [s for s in known.get(uid, []) if action is None or s.action_index == int(action)]
        if len(fits) == 1:
            matched.append((fits[0], os.path.abspath(path)))
        else:
            why = "no such asset or action" if not fits else f"{len(fits)} actions; name it uid__a<index>"
            failures[path.name] = f"{source.where}: {source.failures.get(uid, why)}"
    if not matched:
        raise InputError(f"no file fits {source.where}: {next(iter(failures.values()))}")
    return matched, failures


# Scenes -----------------------------------------------------------------------------------------------------


def scene_cases(
    scene: str,
    truth: str,
    make_truth: Callable[[str], Truth],
    protocols: Sequence[str] = ("front", "orbit", "clip36"),
    held_out_orbit: int = 1,
    grid: tuple[int, int] = (9, 21),
) -> tuple[list[Case], dict[str, str]]:
    """A scene, or a folder of scenes named uid or uid__a<action index>, against ground truth of its asset.

    front: the front-view clip (time runs, camera fixed). orbit: a dynamic orbit the fit did not see
    (`held_out_orbit`), else orbit 0, which is then named as seen in training. clip36: 36 uniform orbit
    views while time runs; without an asset file to render them from, scored by CLIP similarity alone. matrix:
    `grid` views x times, for the four forms of FVD.
    """
    where, uid, action = split_reference(truth)
    members = scenes_in(scene)
    if not members:
        from orbit4d.recon4d import load_scene

        load_scene(scene)  # says what is wrong, before anything is rendered or written
    source = make_truth(where)
    if members and uid is not None:
        raise InputError(f"--truth {truth}: {scene} holds many scenes; leave :uid out, their names say it")
    if members:
        found, failures = _match(members, source)
    else:
        found = [(source.only() if uid is None else source.subject(uid, action), os.path.abspath(scene))]
        failures = {}
    subjects = [subject for subject, _ in found]
    cases: list[Case] = []

    def add(protocol: str, label: str, items: Sequence[Any], why: str) -> None:
        for (subject, folder), item in zip(found, items):
            name = f"{subject.name}/{label}"
            if item is None:
                failures[name] = why
            else:
                load = partial(_SCENE_PAIRS[protocol], name, folder, subject, item, protocols)
                cases.append(Case(name, load))

    lacking = f"{where} does not hold it; give the asset file with --assets"
    if "front" in protocols:
        add("front", "front", source.clips(subjects, "front_view"), lacking)
    if "orbit" in protocols:
        held_out = source.clips(subjects, "dynamic_orbit", held_out_orbit)
        items = [(ref or s.ref("dynamic_orbit"), ref is None) for s, ref in zip(subjects, held_out)]
        add("orbit", "orbit", items, "")
    if "clip36" in protocols:
        turns = source.turns(subjects, CLIP_ORBIT_VIEWS)
        add("clip36", "clip36", [(ref or s.ref("dynamic_orbit"), ref) for s, ref in zip(subjects, turns)], "")
    if "matrix" in protocols:
        add("matrix", f"matrix{grid[0]}x{grid[1]}", source.matrices(subjects, *grid), lacking)
    # Asset by asset, so that a scene is read once; within one, in the order of the protocols.
    return sorted(cases, key=lambda case: case.name.rpartition("/")[0]), failures


@lru_cache(maxsize=2)
def _scene(folder: str) -> Any:
    from orbit4d.recon4d import load_scene

    return load_scene(folder)


def fitted_to_truth(folder: str) -> bool:
    """Whether a scene was made from a dataset's clip, which recon4d names `uid:action rig orbit`."""
    source = str(_scene(folder).info.get("source", ""))
    return re.fullmatch(r"[\w-]+:.* (dynamic_orbit|static_orbit|front_view) \d+", source) is not None


def film(scene: Any, cameras: Sequence[Camera], times: Sequence[float]) -> Frames:
    """A scene rendered at cameras and times (`load_scene(dir).render(camera, time)`)."""
    return on_background(np.stack([np.asarray(scene.render(c, t)) for c, t in zip(cameras, times)]))


def in_world_of(base: Clip, clip: Clip) -> tuple[list[Camera], list[float]]:
    """Cameras and times of `clip` on the scale, centre and window of `base`, both of one asset and action.

    A point x of the asset stands at s (x - c) in a clip's world. Clips rendered with another number of
    frames may be framed a little differently; a camera moved along sees exactly the same image.
    """
    ratio = base.scale / clip.scale
    shift = base.scale * (np.array(clip.centre) - np.array(base.centre))
    start, end = base.window
    cameras = []
    for camera in clip.cameras:
        c2w = camera.c2w.copy()
        c2w[:3, 3] = ratio * c2w[:3, 3] + shift
        cameras.append(replace(camera, c2w=c2w))
    if end <= start or clip.window == base.window:
        return cameras, list(clip.time)
    return cameras, [min(max((s - start) / (end - start), 0.0), 1.0) for s in clip.seconds]


def _filmed(folder: str, base: Clip, clip: Clip) -> tuple[Frames, Frames]:
    return film(_scene(folder), *in_world_of(base, clip)), clip_frames(clip)


def _condition(base: Clip) -> Tensor:
    """What the scene was made from, as far as it is known: the first front view."""
    return clip_frames(base).rgb[0]


def _front_pair(name: str, folder: str, subject: Subject, ref: Ref, protocols: Sequence[str]) -> Pair:
    base = subject.ref("dynamic_orbit").read()
    made, real = _filmed(folder, base, ref.read())
    pair = Pair(name, "front_view", made.rgb, real.rgb, made.alpha, real.alpha, condition=_condition(base))
    # One FVD of each form: that of the whole matrix where it is asked for.
    return replace(pair, fvd="matrix" not in protocols)


def _orbit_pair(
    name: str, folder: str, subject: Subject, item: tuple[Ref, bool], protocols: Sequence[str]
) -> Pair:
    ref, seen = item
    base = subject.ref("dynamic_orbit").read()
    made, real = _filmed(folder, base, ref.read())
    pair = Pair(name, "dynamic_orbit", made.rgb, real.rgb, made.alpha, real.alpha)
    # CLIP-O is what the 36 views are for.
    condition = None if "clip36" in protocols else _condition(base)
    return replace(pair, condition=condition, fvd="matrix" not in protocols, extra={"seen_in_training": seen})


def _clip36_pair(
    name: str, folder: str, subject: Subject, item: tuple[Ref, Ref | None], protocols: Sequence[str]
) -> Pair:
    base = subject.ref("dynamic_orbit").read()
    if item[1] is not None:
        made, real = _filmed(folder, base, item[1].read())
        return Pair(name, "clip36", made.rgb, real.rgb, made.alpha, real.alpha, condition=_condition(base))
    n, first = CLIP_ORBIT_VIEWS, base.cameras[0]
    views = orbit(n, base.radius, base.elevation_deg, first.fov_x_deg, size=(first.w, first.h))
    made = film(_scene(folder), views, [i / (n - 1) for i in range(n)])
    nearest = torch.linspace(0, len(base.cameras) - 1, n).round().long()
    shown = clip_frames(base).rgb[nearest]
    return Pair(name, "clip36", made.rgb, shown, condition=_condition(base), similarity_only=True)


def _matrix_pair(
    name: str, folder: str, subject: Subject, refs: Sequence[Ref], protocols: Sequence[str]
) -> Pair:
    base = subject.ref("dynamic_orbit").read()
    both = [_filmed(folder, base, ref.read()) for ref in refs]
    grid = (len(both), len(both[0][0]))
    made, real = (_joined(frames) for frames in zip(*both))
    extra = {"fitted_to_truth": fitted_to_truth(folder)}
    return Pair(name, "matrix", made.rgb, real.rgb, made.alpha, real.alpha, grid=grid, extra=extra)


def _joined(parts: Sequence[Frames]) -> Frames:
    """One after the other; without alpha where a part has none."""
    alphas = [part.alpha for part in parts if part.alpha is not None]
    alpha = torch.cat(alphas) if len(alphas) == len(parts) else None
    return Frames(torch.cat([part.rgb for part in parts]), alpha)


_SCENE_PAIRS: dict[str, Callable[..., Pair]] = {
    "front": _front_pair,
    "orbit": _orbit_pair,
    "clip36": _clip36_pair,
    "matrix": _matrix_pair,
}
