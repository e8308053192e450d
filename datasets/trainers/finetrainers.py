"""finetrainers and diffusers' CogVideoX scripts: prompts.txt and videos.txt, a line a clip.

With a control video finetrainers needs the metadata form (a VideoFolder whose caption column is `caption`),
which wins over the two text files; so an export has one form or the other, never both.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence

from orbit4d.datasets.exports.settings import ExportSettings
from orbit4d.datasets.trainers.targets import Made, Target, common_size, sizes


def _lists(made: Sequence[Made]) -> dict[str, str]:
    return {
        "prompts.txt": "".join(f"{clip.caption}\n" for clip in made),
        "videos.txt": "".join(f"{clip.video}\n" for clip in made),
    }


def _files(made: Sequence[Made], settings: ExportSettings, out: str) -> Mapping[str, str]:
    buckets = [[frames, height, width] for frames, width, height in sizes(made)]
    config = {
        "data_root": out,
        "dataset_type": "video",
        "video_resolution_buckets": buckets,
        "reshape_mode": "bicubic",
    }
    training = {"training.json": json.dumps({"datasets": [config]}, indent=1) + "\n"}
    if not settings.controls:
        return {**_lists(made), **training}
    # A VideoFolder makes the column `control_video` of `control_video_file_name`.
    rows = [
        {"file_name": clip.video, "caption": clip.caption, "control_video_file_name": clip.control}
        for clip in made
    ]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return {"metadata.jsonl": lines, **training}


def _start(made: Sequence[Made], settings: ExportSettings, out: str) -> str:
    kind = "control-lora --control_type custom" if settings.controls else "lora"
    return (
        "torchrun --standalone --nproc_per_node=1 train.py --parallel_backend ptd --model_name wan "
        "--pretrained_model_name_or_path Wan-AI/Wan2.1-T2V-1.3B-Diffusers "
        f"--dataset_config {shlex.quote(f'{out}/training.json')} --training_type {kind} "
        '--target_modules "blocks.*(to_q|to_k|to_v|to_out.0)" --output_dir OUT'
    )


def _start_diffusers(made: Sequence[Made], settings: ExportSettings, out: str) -> str:
    frames, width, height = common_size(made)
    return (
        "accelerate launch examples/cogvideo/train_cogvideox_lora.py "
        "--pretrained_model_name_or_path THUDM/CogVideoX-2b "
        f"--instance_data_root {shlex.quote(out)} --caption_column prompts.txt --video_column videos.txt "
        f"--height {height} --width {width} --max_num_frames {frames} --output_dir OUT"
    )


FINETRAINERS = Target(
    "finetrainers",
    rule="4n+1",
    multiple=16,
    files=_files,
    start=_start,
    notes=("training.json names this folder: change data_root when it is moved",),
)
DIFFUSERS = Target(
    "diffusers",
    rule="4n+1",
    multiple=8,
    files=lambda made, settings, out: _lists(made),
    start=_start_diffusers,
    most_controls=0,
    no_control="diffusers has no example that trains on control videos; --format finetrainers takes one",
)
