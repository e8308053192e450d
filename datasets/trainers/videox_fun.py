"""VideoX-Fun: metadata.json, a list with file_path, control_file_path (mp4 or camera text), text and type."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence

from orbit4d.datasets.exports.settings import ExportSettings
from orbit4d.datasets.trainers.targets import Made, Target, common_size


def _files(made: Sequence[Made], settings: ExportSettings, out: str) -> Mapping[str, str]:
    rows = [
        {
            "file_path": clip.video,
            "control_file_path": clip.control or clip.camera,
            "text": clip.caption,
            # Without it a row counts as an image.
            "type": "video",
            "width": clip.size[0],
            "height": clip.size[1],
        }
        for clip in made
    ]
    return {"metadata.json": json.dumps(rows, indent=1, ensure_ascii=False) + "\n"}


def _start(made: Sequence[Made], settings: ExportSettings, out: str) -> str:
    frames, width, height = common_size(made)
    edge = max(width, height)
    mode = "control_ref" if settings.controls else "control_camera_ref"
    return (
        "accelerate launch --mixed_precision=bf16 scripts/wan2.2_fun/train_control.py "
        "--config_path=config/wan2.2/wan_civitai_i2v.yaml --pretrained_model_name_or_path=MODEL "
        f"--train_data_dir={shlex.quote(out)} --train_data_meta={shlex.quote(f'{out}/metadata.json')} "
        f"--video_sample_size={edge} --token_sample_size={edge} --video_sample_stride=1 "
        f"--video_sample_n_frames={frames} --enable_bucket --train_mode={mode} --output_dir=OUT"
    )


TARGET = Target(
    "videox-fun",
    rule="4n+1",
    multiple=16,
    files=_files,
    start=_start,
    video_folder="train",
    camera_text="videox-fun",
    notes=(
        "keep --video_sample_stride=1: the shipped scripts take every second frame",
        "VideoX-Fun of May 2026 (804a425) cannot train on camera text: its reader asks for the length of a "
        "video that it has closed; use --control, or a version that has this fixed",
    ),
)
