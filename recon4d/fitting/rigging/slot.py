"""What reads an asset's rig: filled by the application, since files and Blender are above this package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from orbit4d.recon4d.deformation.rigs.rig import Rig
    from orbit4d.recon4d.deformation.surface import SkinnedSurface


class Read(Protocol):
    """What a reader gives."""

    @property
    def rig(self) -> Rig:
        """Joints and actions."""
        ...

    @property
    def surface(self) -> SkinnedSurface:
        """What they move."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What was repaired or left out."""
        ...


#: (path, scale, centre) of an asset shown at scale · (x - centre), +Z up, to its rig in that world.
Reader = Callable[[str, float, Sequence[float]], Read]

_readers: list[Reader] = []


def register(reader: Reader) -> None:
    """Make `reader` the one that `--rig` takes."""
    _readers[:] = [reader]


def reader() -> Reader:
    """The registered one. RuntimeError where none is."""
    if not _readers:
        raise RuntimeError("no reader of rigs is registered; orbit4d.app.cli does it for the command")
    return _readers[0]
