"""The slot: a reconstruction may ask for views that nothing saw, and knows no model that makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from orbit4d.datasets.core.errors import InputError

if TYPE_CHECKING:
    from orbit4d.recon4d.inputs.loading import Frames


@dataclass(frozen=True)
class CompletionSettings:
    """What is asked of a completer."""

    model: str
    """A folder, hub name or run."""
    views: int = 8
    """At most so many are made."""
    mode: str = "dgs"
    """Rule of guidance."""
    hidden: float = 0.3
    """Confidence of what no image shows."""
    steps: int | None = None
    """Of sampling; None: the model's."""
    schedule: str = ""
    """Of guidance; empty: the model's default."""

    def as_config(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass(frozen=True)
class Completed:
    """Views that were made, in the world of the fit."""

    frames: Frames | None
    """With a confidence each; None where nothing is left to complete."""
    report: dict[str, Any]


#: From a `Scene` in the world of its fit, its training frames there (a list of `Frames`), the settings, and a
#: seed.
Completer = Callable[[Any, Any, CompletionSettings, int], Completed]

_FACTORIES: dict[str, Callable[[CompletionSettings], Completer]] = {}


def register(name: str, factory: Callable[[CompletionSettings], Completer]) -> None:
    """Offer a completer by name. The factory is called before anything is fitted: it refuses what it cannot
    do with these settings (InputError)."""
    _FACTORIES[name] = factory


def completer(settings: CompletionSettings, name: str = "guided") -> Completer:
    """The completer that was registered. InputError where none was."""
    if name not in _FACTORIES:
        raise InputError(
            f"--complete: nothing here completes views by {name!r}; run it as `orbit4d recon4d`, or register "
            "a completer first (recon4d.fitting.completion.register)"
        )
    return _FACTORIES[name](settings)
