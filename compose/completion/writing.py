"""A novel view on disk: the video, the folder beside it, the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from orbit4d.compose.completion.novel_view import Made
from orbit4d.compose.completion.seen import Sight
from orbit4d.datasets.core.errors import InputError

#: Confidence of what no input shows.
HIDDEN = 0.3


def write(made: Made, out: Path, report: Path, fps: float, keep_warp: bool) -> None:
    """The folder beside `out`, the report, and the video last. InputError where that cannot be written."""
    from orbit4d.datasets.cameras.transforms import transforms_record
    from orbit4d.datasets.core.atomic import replacing_file, replacing_folder, write_json
    from orbit4d.datasets.videos.video import encode_mp4

    seen, folder = made.sight, out.with_suffix("")
    planes: dict[str, Any] = {"frames": made.frames, "seen": seen.seen.astype(np.uint8) * 255}
    planes["confidence"] = np.rint(confidence(seen) * 255).astype(np.uint8)
    if keep_warp:
        planes["warp"] = np.rint(shown(made).clip(0, 1) * 255).astype(np.uint8)
    files = [f"frames/{i:03d}.png" for i in range(len(made.frames))]
    about = {key: made.report[key] for key in ("model", "mode", "schedule", "seed", "steps", "path")}
    about["confidence_hidden"] = HIDDEN
    record = transforms_record(
        made.route.cameras, files, made.route.times, orbit4d={"novel_view": about},
        background=list(made.background),
    )  # fmt: skip
    try:
        video = encode_mp4(made.frames, fps, 12)
        with replacing_folder(folder) as draft:
            for name, images in planes.items():
                (draft / name).mkdir()
                for i, image in enumerate(images):
                    Image.fromarray(image).save(draft / name / f"{i:03d}.png")
            (draft / "transforms.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        write_json(report, made.report)
        with replacing_file(out) as file:
            file.write_bytes(video)
    except OSError as error:
        raise InputError(f"{out}: cannot write there ({error.strerror}): give another --out") from error


def confidence(seen: Sight, hidden: float = HIDDEN) -> np.ndarray[Any, Any]:
    """[F, H, W] in [0, 1]: stretch where seen, `hidden` elsewhere, less with the distance; 1 if given."""
    values = np.where(seen.seen, seen.confidence, hidden) * np.exp(-seen.distances)[:, None, None]
    values[np.array(seen.given)] = 1.0
    return values.astype(np.float32)


def shown(made: Made) -> np.ndarray[Any, Any]:
    """The warp [F, H, W, 3] on the background; straight RGBA [F, H, W, 4], clear where unseen, of an input
    with alpha.
    """
    sight = made.sight
    if sight.alpha is None:
        return sight.warped
    alpha = sight.alpha[..., None]
    behind = np.array(made.background, np.float32) / 255
    straight = (sight.warped - behind * (1 - alpha)) / np.maximum(alpha, 1 / 255)
    return np.concatenate([np.where(alpha > 0, straight, 0), alpha], -1)
