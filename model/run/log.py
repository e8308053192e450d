"""RUN/log.jsonl: one line per optimizer step, for people, plots and the gallery.

    {"step": 12, "stage": "static", "loss": 0.41, "loss_diffusion": 0.41, "loss_motion": 0.0, "lr": 0.002,
     "grad_norm": 0.8, "seconds": 9.1, "step_seconds": 0.7, "data_wait": 0.01}

`seconds` is the wall time of the run up to here over all sessions, `step_seconds` this step's, `data_wait`
the part of it spent waiting for the loader. A step with a validation has `val_loss` as well.
"""

from __future__ import annotations

import io
import json
import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from orbit4d.datasets.core.atomic import write_json, write_text
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.videos.video import write_video


class RunLog:
    """Appends to log.jsonl and, when asked, to TensorBoard and Weights & Biases."""

    def __init__(
        self, run: Path, from_step: int, trackers: tuple[str, ...] = (), config: dict | None = None
    ) -> None:
        self.path = run / "log.jsonl"
        rewind(self.path, from_step)
        self._file = self.path.open("a", encoding="utf-8")
        self._tensorboard, self._wandb = None, None
        if "tensorboard" in trackers:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise InputError(
                    "--track tensorboard: not installed; pip install 'orbit4d[tensorboard]'"
                ) from error
            self._tensorboard = SummaryWriter(str(run / "tensorboard"), purge_step=from_step + 1)
        if "wandb" in trackers:
            try:
                import wandb
            except ImportError as error:
                raise InputError("--track wandb: not installed; pip install wandb") from error
            self._wandb = wandb.init(
                project="orbit4d", name=run.name, config=config, id=wandb_id(run), resume="allow"
            )

    def write(self, row: dict[str, Any]) -> None:
        """Append one row."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        numbers = {k: v for k, v in row.items() if isinstance(v, int | float) and k != "step"}
        if self._tensorboard is not None:
            for key, value in numbers.items():
                self._tensorboard.add_scalar(key, value, row["step"])
        if self._wandb is not None:
            self._wandb.log(numbers, step=row["step"])

    def write_clips(self, step: int, clips: npt.NDArray[np.uint8], fps: float, name: str) -> None:
        """Keep sample clips [K, F, H, W, 3] as RUN/samples/step-<6 digits>.mp4, one below the other, and show
        them in the trackers as `samples/NAME`."""
        stacked = np.concatenate(list(clips), axis=1)
        path = self.path.parent / "samples" / f"step-{step:06d}.mp4"
        write_video(path, stacked, fps)
        if self._tensorboard is not None:
            from tensorboard.compat.proto.summary_pb2 import Summary

            # What `add_video` writes, which needs moviepy.
            image = Summary.Image(
                height=stacked.shape[1],
                width=stacked.shape[2],
                colorspace=3,
                encoded_image_string=animation(stacked, fps),
            )
            value = Summary.Value(tag=f"samples/{name}", image=image)
            self._tensorboard._get_file_writer().add_summary(Summary(value=[value]), step)
        if self._wandb is not None:
            import wandb

            self._wandb.log({f"samples/{name}": wandb.Video(str(path), format="mp4")}, step=step)

    def close(self) -> None:
        """Flush and close every writer."""
        os.fsync(self._file.fileno())
        self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()


def animation(frames: npt.NDArray[np.uint8], fps: float) -> bytes:
    """Frames [F, H, W, 3] as an animated GIF."""
    images = [Image.fromarray(frame) for frame in frames]
    file = io.BytesIO()
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0)
    return file.getvalue()


def wandb_id(run: Path) -> str:
    """The id under which Weights & Biases knows the run; kept in RUN/wandb.json, so that a resumed run goes
    on there too (without one, `resume="allow"` starts another)."""
    path = run / "wandb.json"
    if not path.exists():
        write_json(path, {"id": uuid.uuid4().hex})
    return str(json.loads(path.read_text(encoding="utf-8"))["id"])


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of a log; a last line that a kill tore apart is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def rewind(path: Path, step: int) -> None:
    """Drop the rows after `step`: they will be run again."""
    rows = read(path)
    kept = [row for row in rows if row["step"] <= step]
    if path.exists():
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
