"""What a trainer is to an export: its rules, where its files go, and the files that list them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orbit4d.datasets.exports.settings import ExportSettings


@dataclass(frozen=True)
class Made:
    """One clip as it was exported. Paths are relative to the export, with `/`."""

    name: str
    caption: str
    video: str
    size: tuple[int, int]
    """(width, height) of the video."""
    frames: int
    takes: int
    """Frames that the trainer takes of it: the first ones, by its rule."""
    controls: Mapping[str, str]
    """Kind -> video."""
    camera: str | None
    """Camera text."""
    pluecker: str | None
    row: Mapping[str, Any]
    """Everything that is known of the clip: identity, licence, times, cameras, numbers of the controls."""

    @property
    def control(self) -> str | None:
        """The one control video, for trainers that take one."""
        return next(iter(self.controls.values()), None)


@dataclass(frozen=True)
class Target:
    """One trainer. `files` and `start` see every clip, in the export's order."""

    name: str
    rule: str
    """Frame rule where none is asked for."""
    multiple: int
    """What divides the edges of its videos."""
    files: Callable[[Sequence[Made], ExportSettings, str], Mapping[str, str]]
    """(clips, settings, export's path) -> name -> text of the files that list the clips."""
    start: Callable[[Sequence[Made], ExportSettings, str], str]
    """The command that starts the trainer on the export."""
    most_controls: int | None = 1
    """Control videos it takes of a clip; None: any number."""
    no_control: str = ""
    """Why it takes none."""
    video_folder: str = "videos"
    control_folder: Callable[[str], str] = lambda kind: "control"
    """Kind -> folder of its control videos."""
    camera_text: str | None = None
    """Convention of the camera files that are written unasked."""
    by_bucket: bool = False
    """Whether clips of different length or size go into folders of their own."""
    most_files: int | None = None
    """Clips of a folder; further ones go into folders `000`, `001`, ... of this many."""
    notes: tuple[str, ...] = ()
    """What its users should know of this export."""


def sizes(made: Sequence[Made]) -> list[tuple[int, int, int]]:
    """Distinct (frames taken, width, height), sorted."""
    return sorted({(clip.takes, *clip.size) for clip in made})


def common_size(made: Sequence[Made]) -> tuple[int, int, int]:
    """(frames taken, width, height) of most clips, the largest of equals, for commands that name one."""
    counted: dict[tuple[int, int, int], int] = {}
    for clip in made:
        key = (clip.takes, *clip.size)
        counted[key] = counted.get(key, 0) + 1
    return max(counted, key=lambda key: (counted[key], key))
