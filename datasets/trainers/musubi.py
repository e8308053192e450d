"""musubi-tuner: a TOML of folders, a `.txt` caption beside each video, control videos of the same stem."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence

from orbit4d.datasets.exports.settings import ExportSettings
from orbit4d.datasets.trainers.targets import Made, Target, sizes


def _files(made: Sequence[Made], settings: ExportSettings, out: str) -> Mapping[str, str]:
    files = {f"{clip.video.removesuffix('.mp4')}.txt": f"{clip.caption}\n" for clip in made}
    buckets = sizes(made)
    first = buckets[0]
    lines = ["[general]", f"resolution = [{first[1]}, {first[2]}]", 'caption_extension = ".txt"']
    lines += ["batch_size = 1", "enable_bucket = true"]
    for bucket in buckets:
        some = next(clip for clip in made if (clip.takes, *clip.size) == bucket)
        # No source_fps: musubi would drop frames of a clip that counts as 24 a second.
        lines += ["", "[[datasets]]", f"video_directory = {json.dumps(_folder(some.video))}"]
        if some.control is not None:
            lines.append(f"control_directory = {json.dumps(_folder(some.control))}")
        cache = "cache" if len(buckets) == 1 else f"cache/{bucket[0]}x{bucket[1]}x{bucket[2]}"
        lines.append(f'cache_directory = "{cache}"')
        if bucket[1:] != first[1:]:
            lines.append(f"resolution = [{bucket[1]}, {bucket[2]}]")
        lines += [f"target_frames = [{bucket[0]}]", 'frame_extraction = "head"']
    return {**files, "musubi.toml": "\n".join(lines) + "\n"}


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _start(made: Sequence[Made], settings: ExportSettings, out: str) -> str:
    task = "t2v-1.3B-FC" if settings.controls else "t2v-1.3B"
    scripts = "MUSUBI/src/musubi_tuner"
    config = "--dataset_config musubi.toml"
    return (
        f"cd {shlex.quote(out)} && python {scripts}/wan_cache_latents.py {config} --vae VAE && "
        f"python {scripts}/wan_cache_text_encoder_outputs.py {config} --t5 T5 && "
        f"accelerate launch --mixed_precision bf16 {scripts}/wan_train_network.py --task {task} --dit DIT "
        f"{config} --network_module networks.lora_wan --network_dim 32 --output_dir OUT --output_name NAME"
    )


TARGET = Target(
    "musubi",
    rule="4n+1",
    multiple=16,
    files=_files,
    start=_start,
    by_bucket=True,
    notes=("paths in musubi.toml are relative to the export: start musubi-tuner there",),
)
