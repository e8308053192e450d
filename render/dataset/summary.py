"""What a render run says of its inputs."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class RenderSummary:
    """What became of every input."""

    input: int = 0
    done: int = 0
    rejected: int = 0
    quarantined: int = 0
    duplicate: int = 0
    left: int = 0
    """Inputs without an end yet: the run was interrupted."""
    rendered: int = 0
    """Assets rendered by this run; the others were done before."""
    pictures: int = 0
    clips: int = 0
    seconds: float = 0.0
    attempts: int = 0
    preemptions: int = 0
    interrupted: bool = False
    reasons: dict[str, int] = field(default_factory=dict)
    """Reason code -> assets rejected or quarantined for it."""
    timings: dict[str, float] = field(default_factory=dict)
    """Phase -> seconds in the children, summed over assets of this run."""
    refused_passes: dict[str, int] = field(default_factory=dict)
    """Reason code -> actions whose images were rendered and for which a pass was refused."""
    added: PassSummary | None = None
    """What was rendered after the images, by itself."""
    still_actions: int = 0
    """Actions of rendered assets that were reported and not rendered."""

    @property
    def line(self) -> str:
        """input = done + rejected + quarantined + duplicate."""
        left = f" + left {self.left}" if self.left else ""
        return (
            f"input {self.input} = done {self.done} + rejected {self.rejected} + "
            f"quarantined {self.quarantined} + duplicate {self.duplicate}{left}"
        )


@dataclass
class PassSummary:
    """What a run of `--add-passes` did for its inputs."""

    input: int = 0
    there: int = 0
    """Assets that had everything already."""
    not_there: int = 0
    """Inputs of which the dataset holds no clip."""
    done: int = 0
    rows: int = 0
    """Passes of clips and actions that were added."""
    refused: dict[str, int] = field(default_factory=dict)
    """Reason code -> actions that a pass was refused for."""
    failed: dict[str, int] = field(default_factory=dict)
    """Reason code -> assets that got nothing."""
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def line(self) -> str:
        """input = added + there already + not in the dataset + failed."""
        return (
            f"input {self.input}: passes added to {self.done}, there already {self.there}, "
            f"not in the dataset {self.not_there}, failed {sum(self.failed.values())}"
        )
