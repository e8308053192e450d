"""What a run shows of its progress: a line of log per step, sample clips, the progress bar."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from orbit4d.datasets.core.progress import Progress
from orbit4d.model.config.settings import TrainConfig, to_dict
from orbit4d.model.run.log import RunLog
from orbit4d.model.training.sample_clips import SampleClips
from orbit4d.model.training.stages import Parts


class RunRecord:
    """RUN/log.jsonl, RUN/samples and the progress bar, which the main process keeps."""

    def __init__(
        self, dataset: str, config: TrainConfig, run: Path, from_step: int, trackers: tuple[str, ...]
    ) -> None:
        self.config = config
        self._log = RunLog(run, from_step, trackers, to_dict(config))
        self._progress = Progress("train", config.total_steps, "step")
        if from_step:
            self._progress.done = from_step
            print(f"resuming {run} at step {from_step} of {config.total_steps}", flush=True)
        self._samples = SampleClips(dataset, config) if config.sample_every else None

    def write(
        self, row: dict[str, Any], parts: Parts, at_stage_end: bool, averaged: AbstractContextManager[None]
    ) -> None:
        """Log the row of one step; sample clips under the weights of `averaged` where it is their turn."""
        self._log.write(row)
        step = row["step"]
        if self._samples and (step % self.config.sample_every == 0 or at_stage_end):
            with averaged:
                drawn = self._samples.draw(parts.unet, parts.frozen, parts.motion, row["stage"])
            if drawn is not None:
                self._log.write_clips(step, drawn, self.config.data.fps, self._samples.split)
        self._progress.update(1, loss=f"{row['loss']:.4f}")

    def close(self) -> None:
        """Print the last line, flush and close the log."""
        self._progress.close()
        self._log.close()
