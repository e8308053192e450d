"""Experts: who brings a scene, an object, a motion or a placement; a registry that other packages extend.

A package adds one with an entry point of the group `orbit4d.experts`, whose name is `role:name` (or a name,
for an object) and whose value is a callable that takes an `ExpertRequest` and returns a `Concept`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from orbit4d.compose.library.credits import Credit
from orbit4d.compose.strict_json import printable
from orbit4d.datasets.core.errors import InputError

ExpertRole = Literal["scene", "object", "motion", "placer"]
ROLES: tuple[str, ...] = get_args(ExpertRole)
_NAMES = ", ".join(ROLES)
GROUP = "orbit4d.experts"


@dataclass(frozen=True)
class ExpertRequest:
    """What an expert is asked for: words, a seed of its own, a folder for files, what else is known."""

    text: str
    seed: int = 0
    cache: Path | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Concept:
    """What an expert brings.

    `kind` says what its files are (`rig`, `scene`, `motion`, `path`), `made_by` is named in the last lines of
    a run, and `is_model` is True only where a learned model ran to make it.
    """

    kind: str
    made_by: str
    is_model: bool = False
    files: tuple[Path, ...] = ()
    credits: tuple[Credit, ...] = ()
    value: Any = None


Expert = Callable[[ExpertRequest], Concept]
E = TypeVar("E", bound=Expert)
_experts: dict[tuple[str, str], Expert] = {}
_loaded: set[str] = set()
_problems: list[str] = []


def expert(role: ExpertRole, name: str) -> Callable[[E], E]:
    """Decorator that registers an expert under a role and a name; a later one of the same name wins.

    Raises:
        InputError: the role is none of `scene`, `object`, `motion`, `placer`.
    """
    if role not in ROLES:
        raise InputError(f"expert {printable(name, 60)}: role {printable(role, 60)!r} is none of {_NAMES}")

    def register(function: E) -> E:
        _experts[role, name] = function
        return function

    return register


def experts(role: ExpertRole) -> dict[str, Expert]:
    """Name -> expert of a role, those of installed packages included.

    A package whose expert fails to import costs one warning that names its distribution and the error, and is
    left out.
    """
    _load_entry_points()
    return {name: found for (of, name), found in sorted(_experts.items()) if of == role}


def get_expert(role: ExpertRole, name: str) -> Expert:
    """The expert of a name. Raises InputError that lists the ones there are."""
    found = experts(role)
    if name not in found:
        there = ", ".join(found) or "none"
        raise InputError(f"expert {printable(name, 60)!r}: no {role} expert of this name; there are: {there}")
    return found[name]


def ask(role: ExpertRole, name: str, request: ExpertRequest) -> Concept:
    """What an expert returns for a request. Raises InputError where that is no `Concept`."""
    concept = get_expert(role, name)(request)
    if not isinstance(concept, Concept):
        kind = type(concept).__name__
        raise InputError(
            f"expert {printable(name, 60)!r}: returned {kind} and no Concept; update its package"
        )
    return concept


def expert_problems() -> list[str]:
    """One line for each package whose expert failed to load."""
    _load_entry_points()
    return list(_problems)


def _load_entry_points() -> None:
    for point in entry_points(group=GROUP):
        key = f"{point.name}={point.value}"
        if key in _loaded:
            continue
        _loaded.add(key)
        role, _, name = point.name.rpartition(":")
        role = role or "object"
        where = point.dist.name if point.dist is not None else "an unnamed distribution"
        try:
            if role not in ROLES:
                raise ValueError(f"role {role!r} is none of {', '.join(ROLES)}")
            loaded = point.load()
            if not callable(loaded):
                raise TypeError(f"{point.value} is not callable")
        except Exception as error:  # foreign code may raise anything; the run continues without it
            what = f"{type(error).__name__}: {printable(error, 120)}"
            line = f"expert {printable(point.name, 60)} of {where}: {what}"
            _problems.append(line)
            warnings.warn(line, RuntimeWarning, stacklevel=3)
            continue
        _experts.setdefault((role, name), loaded)


@expert("object", "library")
@expert("object", "dataset")
@expert("motion", "library")
def from_library(request: ExpertRequest) -> Concept:
    """The best action for `request.text` and `about["action"]` in `about["library"]`, as its `Entry`."""
    from orbit4d.compose.library.catalogue import open_library
    from orbit4d.compose.library.credits import credit
    from orbit4d.compose.library.retrieval import retrieve

    if "library" not in request.about:
        raise InputError("expert 'library': needs about['library'], a CSV, dataset, folder or Library")
    library = open_library(request.about["library"])
    uid, action, score = retrieve(request.text, str(request.about.get("action", "")), library)[0]
    entry = library.entry(uid, action)
    files = (Path(entry.file),) if entry.file else ()
    made_by = f"library {library.name} (score {score:.2f})"
    return Concept("asset", made_by, files=files, credits=(credit("object", None, entry),), value=entry)


@expert("scene", "procedural")
def procedural_scene(request: ExpertRequest) -> Concept:
    """A procedural stage for a scene's words; `about` may hold half_width, half_depth (m) and places."""
    from orbit4d.compose.placement.procedural import build, ground_name

    name, _ = ground_name(request.text)
    about = request.about
    sides = float(about.get("half_width", 8.0)), float(about.get("half_depth", 5.0))
    stage = build(name, *sides, dict(about.get("places", {})), request.seed)
    return Concept("scene", f"procedural {name}", value=stage)


@expert("scene", "scene-folder")
def scene_folder(request: ExpertRequest) -> Concept:
    """A scene that was reconstructed before: `about["folder"]`, else the text, is its folder."""
    from orbit4d.recon4d.scene import load_scene

    folder = Path(str(request.about.get("folder", request.text)))
    if not (folder / "scene.json").is_file():
        raise InputError(f"{printable(folder, 100)}: no scene; give a folder that `orbit4d recon4d` wrote")
    return Concept("scene", f"scene {folder.name}", files=(folder,), value=load_scene(folder))
