"""`eval run --reconstruct`: orbits that a model made become 4D Gaussians, seen from the front."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import partial

from orbit4d.datasets.cameras.transforms import read_transforms
from orbit4d.datasets.core.atomic import write_json
from orbit4d.evaluate.metrics.suite import Pair
from orbit4d.evaluate.tasks.cases import Case, film, in_world_of
from orbit4d.evaluate.tasks.frames import clip_frames, resized
from orbit4d.evaluate.tasks.generated import Asked, answer
from orbit4d.evaluate.tasks.truth import Ref, Subject, Truth


def reconstruction_cases(
    truth: Truth, subjects: Sequence[Subject], asked: Asked, preset: str
) -> tuple[list[Case], dict[str, str]]:
    """One case per asset and action whose front view can be had; by name, why another cannot be measured."""
    stills = truth.clips(subjects, "static_orbit")
    fronts = truth.clips(subjects, "front_view")
    cases, lacking = [], {}
    for subject, still, front in zip(subjects, stills, fronts):
        name = f"{subject.name}/front"
        if front is None:
            lacking[name] = "the ground truth has no front view; give its asset file with --assets"
        else:
            load = partial(_pair, name, subject, still, front, asked, preset)
            cases.append(Case(name, load, late=True))
    return cases, lacking


def _pair(name: str, subject: Subject, still: Ref | None, front: Ref, asked: Asked, preset: str) -> Pair:
    """The front view of the scene against that of the truth, at the size of the generated frames."""
    from orbit4d.recon4d import load_scene, reconstruct

    base, clip = subject.ref("dynamic_orbit").read(), front.read()
    given, orbit = answer(base, still, asked)
    place = orbit.with_name(f"{orbit.name}.scene")
    done = orbit.with_name(f"{orbit.name}.scene.json")
    if not done.exists():
        start = time.perf_counter()
        reconstruct(str(orbit), place, preset=preset, seed=asked.seed)
        write_json(done, {"preset": preset, "seconds": time.perf_counter() - start})
    seconds = float(given["seconds"]) + float(json.loads(done.read_text(encoding="utf-8"))["seconds"])
    size = read_transforms(orbit / "transforms.json").cameras[0].w
    cameras, times = in_world_of(base, clip)
    made = film(load_scene(place), [camera.resized(size, size) for camera in cameras], times)
    real = resized(clip_frames(clip).rgb, size)
    return Pair(name, clip.rig, made.rgb, real, condition=real[0], extra={"seconds": seconds})
