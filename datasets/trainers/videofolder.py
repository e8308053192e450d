"""Hugging Face VideoFolder: metadata.jsonl beside mp4s that the hub's viewer plays, and a card."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence

from orbit4d.datasets.exports.settings import ExportSettings
from orbit4d.datasets.trainers.targets import Made, Target


def _files(made: Sequence[Made], settings: ExportSettings, out: str) -> Mapping[str, str]:
    lines = []
    for clip in made:
        controls = {f"{kind}_file_name": path for kind, path in clip.controls.items()}
        row = {"file_name": clip.video, "text": clip.caption, **controls, **clip.row}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    return {"metadata.jsonl": "".join(lines), "README.md": _card(made)}


def _card(made: Sequence[Made]) -> str:
    licences = sorted({str(clip.row["license"]) or "unknown" for clip in made})
    head = ["---", "task_categories:", "- text-to-video", "tags:", "- video", "- 4d", "- orbit4d"]
    head += ["---", ""]
    body = [
        "# Orbit videos of animated 3D assets",
        "",
        f"{len(made):,} videos, H.264. One row of `metadata.jsonl` a video: `text` is the caption, `c2w` the "
        "camera-to-world matrix of each frame (row-major, OpenGL axes, world +Z up), `fl_x` .. `cy` its "
        "intrinsics in pixels of the video, `time` in [0, 1] and `seconds` on the asset's clock.",
        "",
        f"Licences of the assets: {', '.join(licences)}.",
        "",
    ]
    return "\n".join(head + body)


def _start(made: Sequence[Made], settings: ExportSettings, out: str) -> str:
    where = json.dumps(out)
    code = f'from datasets import load_dataset; print(load_dataset("videofolder", data_dir={where}))'
    return f"python -c {shlex.quote(code)}"


TARGET = Target(
    "videofolder",
    rule="all",
    multiple=2,
    files=_files,
    start=_start,
    most_controls=None,
    control_folder=lambda kind: kind,
    # The hub takes fewer than 10,000 files in a folder.
    most_files=5000,
)
