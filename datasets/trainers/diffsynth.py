"""DiffSynth-Studio: metadata.csv with video, prompt and control_video, paths below --dataset_base_path."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Mapping, Sequence

from orbit4d.datasets.exports.settings import ExportSettings
from orbit4d.datasets.trainers.targets import Made, Target, common_size


def _files(made: Sequence[Made], settings: ExportSettings, out: str) -> Mapping[str, str]:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ["video", "prompt"] + (["control_video"] if settings.controls else [])
    writer.writerow(columns)
    for clip in made:
        writer.writerow([clip.video, clip.caption, clip.control][: len(columns)])
    return {"metadata.csv": text.getvalue()}


def _start(made: Sequence[Made], settings: ExportSettings, out: str) -> str:
    frames, width, height = common_size(made)
    base = shlex.quote(out)
    keys, more = '"video"', ""
    if settings.controls:
        keys, more = '"video,control_video"', ' --extra_inputs "control_video"'
    return (
        f"accelerate launch examples/wanvideo/model_training/train.py --dataset_base_path {base} "
        f"--dataset_metadata_path {shlex.quote(f'{out}/metadata.csv')} --data_file_keys {keys}{more} "
        f"--height {height} --width {width} --num_frames {frames} --model_id_with_origin_paths MODELS "
        "--lora_base_model dit --output_path OUT"
    )


TARGET = Target(
    "diffsynth",
    rule="4n+1",
    multiple=16,
    files=_files,
    start=_start,
    camera_text="videox-fun",
    notes=("DiffSynth's camera columns name eight straight moves, no orbit: cameras/ holds the true poses",),
)
