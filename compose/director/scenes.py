"""What --scene names: a procedural ground, a scene's folder, or an expert's scene."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from orbit4d.compose.experts import Concept, ExpertRequest, ask, experts
from orbit4d.compose.placement.procedural import GROUNDS, Stage
from orbit4d.compose.strict_json import printable
from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.composition import FILE, load_scene
from orbit4d.recon4d.gaussians import Gaussians
from orbit4d.recon4d.scene import Scene

#: Scene experts whose scenes have forms of --scene of their own.
_BUILT_IN = {"procedural", "scene-folder"}


def ground_of(scene: str | None) -> str | None:
    """The procedural ground that --scene names, None where it names another scene or none.

    Raises InputError for what is none of them.
    """
    if scene is None or scene == "none" or expert_of(scene) is not None:
        return None
    if Path(scene).is_dir():
        if not any((Path(scene) / name).is_file() for name in ("scene.json", FILE)):
            raise InputError(
                f"--scene {printable(scene, 100)}: no scene (no scene.json); give a folder that `orbit4d "
                "recon4d` or `orbit4d compose` wrote"
            )
        return None
    name = scene.removeprefix("procedural:")
    if name not in GROUNDS:
        more = "".join(f"{one}:WORDS, " for one in experts("scene") if one not in _BUILT_IN)
        raise InputError(
            f"--scene {printable(scene, 60)}: take procedural: and one of {', '.join(GROUNDS)}, {more}"
            "a scene's folder, or none"
        )
    return name


def expert_of(scene: str) -> tuple[str, str] | None:
    """(expert, words) of a --scene such as `painted:a hill`, None where no expert of another package is
    named."""
    name, parted, words = scene.partition(":")
    if not parted or name in _BUILT_IN or name not in experts("scene"):
        return None
    return name, words


@cache
def expert_scene(scene: str, seed: int) -> Concept | None:
    """What the expert of a --scene brings; made once in a run."""
    found = expert_of(scene)
    return None if found is None else ask("scene", found[0], ExpertRequest(found[1], seed))


def given_scene(scene: str | None, seed: int) -> Gaussians | None:
    """The Gaussians that --scene brings, at time 0; None where a ground is made for the film.

    Raises InputError where an expert brings nothing that can be stood on.
    """
    if scene is None or scene == "none":
        return None
    concept = expert_scene(scene, seed)
    if concept is None:
        return load_scene(scene).at(0.0) if Path(scene).is_dir() else None
    value = concept.value
    if value is None and concept.files:
        value = load_scene(concept.files[0])
    if isinstance(value, Stage):
        return value.gaussians
    if isinstance(value, Scene):
        return value.at(0.0)
    if isinstance(value, Gaussians):
        return value
    raise InputError(
        f"--scene {printable(scene, 60)}: its expert brings {type(value).__name__} and no Gaussians, Scene, "
        "Stage or scene folder; update its package"
    )


def scene_line(scene: str | None, seed: int) -> list[str]:
    """The line that says which expert made the scene."""
    concept = None if scene is None else expert_scene(scene, seed)
    if concept is None:
        return []
    model = "a model ran" if concept.is_model else "no model ran"
    return [f"scene     {printable(concept.made_by, 80)} ({model})"]
