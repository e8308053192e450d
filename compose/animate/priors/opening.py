"""`analytic:FILE[?bias=tint,blur]`: the prior in closed form that a slot needs, around a known scene."""

from __future__ import annotations

from urllib.parse import parse_qsl

from orbit4d.compose.animate.priors.truth import Truth, open_truth
from orbit4d.datasets.cameras.camera import Camera, orbit
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.nearest import or_known
from orbit4d.model.distill.scenes.clips import ClipPrior, StillClipPrior
from orbit4d.model.distill.scenes.rendering import bias_of
from orbit4d.model.distill.scenes.scene_score import SceneScore
from orbit4d.model.distill.scenes.tile import TilePrior
from orbit4d.model.distill.scenes.views import RelativeViewPrior, ViewPrior

ANALYTIC = "analytic:"
#: Deviation around what the scene shows, and that of how well a tile's structure must fit.
S, TAU = 0.1, 0.05


def split_spec(spec: str) -> tuple[str, tuple[str, ...]]:
    """File and biases of a spec with or without `analytic:`. InputError for another question."""
    path, _, question = spec.removeprefix(ANALYTIC).partition("?")
    asked = dict(parse_qsl(question, keep_blank_values=True))
    if (unknown := sorted(set(asked) - {"bias"})) or (question and not asked):
        raise InputError(f"{spec}: {unknown[0] if unknown else question!r} is unknown; there is ?bias=NAMES")
    names = tuple(name for name in asked.get("bias", "").split(",") if name)
    bias_of(names)
    return path, names


def analytic_score(
    spec: str, slot: str, truth: Truth | None = None, lens: Camera | None = None
) -> SceneScore:
    """The prior of a slot ("2d", "3d", "video", "tile"; "still" is the second model of `msd`).

    `truth` spares opening the file again; `lens` is the reference camera (default: the house's front view).

    Raises:
        InputError: no such file, an unknown bias or slot, or a bias where there is none to have.
    """
    path, names = split_spec(spec)
    known = open_truth(path) if truth is None else truth
    front = lens or orbit(1, size=(64, 64))[0]
    if names and slot not in ("video", "still"):
        raise InputError(f"{spec}: ?bias is of the video prior; leave it out of the slot {slot}")
    if slot == "2d":
        return ViewPrior(known, front, s=S)
    if slot == "3d":
        return RelativeViewPrior(known, front, s=S)
    if slot == "video":
        return ClipPrior(known, bias_of(names), s=S)
    if slot == "still":
        return StillClipPrior(known, bias_of(names), s=S)
    if slot == "tile":
        return TilePrior(known, S, TAU)
    raise InputError(f"prior slot {slot!r}: {or_known(slot, ('2d', '3d', 'video', 'tile'))}")
