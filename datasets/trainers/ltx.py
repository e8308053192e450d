"""LTX (ltx-trainer): dataset.jsonl with caption, video, reference_video and video_mask."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence

from orbit4d.datasets.exports.settings import ExportSettings
from orbit4d.datasets.trainers.targets import Made, Target, sizes

#: Column of a control video; the mask has one of its own.
_COLUMNS = {"mask": "video_mask"}


def _files(made: Sequence[Made], settings: ExportSettings, out: str) -> Mapping[str, str]:
    lines = []
    for clip in made:
        more = {_COLUMNS.get(kind, "reference_video"): path for kind, path in clip.controls.items()}
        row = {"caption": clip.caption, "video": clip.video, **more}
        lines.append(json.dumps(row, ensure_ascii=False))
    return {"dataset.jsonl": "\n".join(lines) + "\n"}


def _start(made: Sequence[Made], settings: ExportSettings, out: str) -> str:
    buckets = ";".join(f"{width}x{height}x{frames}" for frames, width, height in sizes(made))
    references = any(kind not in _COLUMNS for kind in settings.controls)
    config = "configs/v2v_ic_lora.yaml" if references else "configs/t2v_lora.yaml"
    return (
        f"uv run python scripts/process_dataset.py {shlex.quote(f'{out}/dataset.jsonl')} "
        f'--resolution-buckets "{buckets}" --model-path CKPT --text-encoder-path GEMMA --skip-audio && '
        f"uv run python scripts/train.py {config} "
        f"(with data.preprocessed_data_root: {out}/.precomputed)"
    )


TARGET = Target(
    "ltx",
    rule="8n+1",
    multiple=32,
    files=_files,
    start=_start,
    control_folder=lambda kind: "masks" if kind == "mask" else "references",
    notes=("LTX learns the file's rate: --fps is the rate that the motion should have",),
)
