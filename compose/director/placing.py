"""Step-wise placement: scale, start, end and path of each actor, each checked before the next is asked.

The protocol of C3V (its equation 4): asked at once, paths are nonsense; in steps, with the box of the actor
drawn in, they are not. Who answers is a `Placer`: the grammar's plan, a language model, or a recording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from orbit4d.compose.director.chat import ChatDirector
from orbit4d.compose.director.steps import N_POINTS, Step, path_step, place_step, scale_step
from orbit4d.compose.schema import first_fault
from orbit4d.compose.spec import Actor, Place, Spec
from orbit4d.compose.strict_json import printable
from orbit4d.datasets.core.errors import WorkError

Pixel = tuple[float, float]


@dataclass(frozen=True)
class PlacementView:
    """What the placement camera sees: `image` [H, W, 3] uint8; `landmarks` name -> (x, y, w, h)."""

    image: Any
    landmarks: Mapping[str, tuple[float, float, float, float]] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return int(self.image.shape[1]), int(self.image.shape[0])

    def in_words(self) -> str:
        """The landmarks as text, for who sees no images."""
        boxes = (
            f"{printable(name, 80)}: box around ({x:g}, {y:g}), {w:g} wide, {h:g} high"
            for name, (x, y, w, h) in sorted(self.landmarks.items())
        )
        return "; ".join(boxes)


class Placer(Protocol):
    """Answers the four questions about an actor, in this order; sizes and places in pixels of the view."""

    def scale(self, actor: Actor, view: PlacementView) -> Pixel:
        """(width, height) of the actor's box at its start."""

    def start(self, actor: Actor, view: PlacementView) -> Pixel:
        """Where it starts."""

    def end(self, actor: Actor, view: PlacementView, start: Pixel) -> Pixel:
        """Where it ends."""

    def path(
        self, actor: Actor, view: PlacementView, scale: Pixel, start: Pixel, end: Pixel
    ) -> Sequence[Pixel]:
        """Twenty points of the middle of its box, from start to end."""


@dataclass(frozen=True)
class PlacedBox:
    """What the four steps came to, in pixels: box (width, height), start, end, and 20 points."""

    box: Pixel
    start: Pixel
    end: Pixel
    points: tuple[Pixel, ...]


def place_actor(placer: Placer, actor: Actor, view: PlacementView) -> PlacedBox:
    """Ask the four steps of one actor, each result validated before the next is asked.

    Raises:
        WorkError: an answer lies outside the image, or the path does not join start and end.
    """
    width, height = view.size
    box = placer.scale(actor, view)
    _hold(scale_step(actor.object, "", width, height), {"width": box[0], "height": box[1]})
    start = placer.start(actor, view)
    _hold(place_step("start", "", width, height), {"x": start[0], "y": start[1]})
    end = placer.end(actor, view, start)
    _hold(place_step("end", "", width, height), {"x": end[0], "y": end[1]})
    points = placer.path(actor, view, box, start, end)
    _hold(path_step(start, end, box, width, height), {"points": [list(point) for point in points]})
    return PlacedBox(box, start, end, tuple((float(x), float(y)) for x, y in points))


def _hold(step: Step, value: Any) -> None:
    fault = first_fault(value, step.schema) or (step.check(value) if step.check else None)
    if fault:
        raise WorkError(f"director step {step.name}: {fault}")


@dataclass
class ChatPlacer:
    """A placer that asks a chat director, with the view as an image."""

    director: ChatDirector
    spec: Spec

    def scale(self, actor: Actor, view: PlacementView) -> Pixel:
        step = scale_step(actor.object, self._said(actor.start, "its start"), *view.size)
        found = self.director.ask(step, view.image, view.in_words())
        return float(found["width"]), float(found["height"])

    def start(self, actor: Actor, view: PlacementView) -> Pixel:
        place = self._said(actor.start, f"a free place on the ground for {actor.object}")
        return self._point(place_step("start", place, *view.size), view, None)

    def end(self, actor: Actor, view: PlacementView, start: Pixel) -> Pixel:
        place = self._said(actor.end, f"where {actor.object} that starts at the red mark would go")
        return self._point(place_step("end", place, *view.size, start=start), view, start)

    def path(
        self, actor: Actor, view: PlacementView, scale: Pixel, start: Pixel, end: Pixel
    ) -> Sequence[Pixel]:
        image = drawn_box(view.image, start, scale)
        found = self.director.ask(path_step(start, end, scale, *view.size), image, view.in_words())
        return [(float(x), float(y)) for x, y in found["points"]]

    def _point(self, step: Step, view: PlacementView, mark: Pixel | None) -> Pixel:
        image = view.image if mark is None else drawn_box(view.image, mark, (9, 9), filled=True)
        found = self.director.ask(step, image, view.in_words())
        return float(found["x"]), float(found["y"])

    def _said(self, place: Place | None, otherwise: str) -> str:
        """A place of the spec in words."""
        if place is None:
            return otherwise
        relation = place.relation.replace("_", " ")
        if place.kind == "side":
            names = {
                "near": "the front of the ground",
                "far": "the far end of the ground",
                "centre": "the centre",
            }
            return names.get(str(place.value), f"the {place.value} side")
        if place.kind == "actor":
            return f"{relation} the {self.spec.actors[int(str(place.value))].object}"
        return f"{relation} the {place.value}" if place.kind == "landmark" else f"pixel {place.value}"


def drawn_box(image: Any, centre: Pixel, size: Pixel, filled: bool = False) -> Any:
    """A copy of an image with a red box around a point, `size` (width, height) in pixels."""
    drawn = image.copy()
    height, width = image.shape[:2]
    left, right = (round(min(max(centre[0] + s * size[0] / 2, 0), width - 1)) for s in (-1, 1))
    top, bottom = (round(min(max(centre[1] + s * size[1] / 2, 0), height - 1)) for s in (-1, 1))
    red = (255, 0, 0)
    if filled:
        drawn[top : bottom + 1, left : right + 1, :3] = red
    else:
        drawn[[top, bottom], left : right + 1, :3] = red
        drawn[top : bottom + 1, [left, right], :3] = red
    return drawn


__all__ = ["N_POINTS", "ChatPlacer", "PlacedBox", "PlacementView", "Placer", "drawn_box", "place_actor"]
