"""4DAnyone: cameras.json and videos/dense/NN.mp4; people in metres, a world with +Y up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from orbit4d.datasets.cameras.camera import FLIP_YZ, Array
from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.inputs.captures.capture import Capture, Track, posed

#: (x, y, z) -> (x, -z, y): +Y up and +Z in front become +Z up and -Y in front.
Y_UP: Array = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


def is_4danyone(folder: Path) -> bool:
    try:
        record = json.loads((folder / "cameras.json").read_text(encoding="utf-8-sig"))
        return record["camera_model"] == "OPENCV" and "video" in record["cameras"][0]
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return False


def read(folder: Path) -> Capture:
    """A track per camera; `videos/sparse` holds drafts and is not read."""
    path = folder / "cameras.json"
    tracks = []
    try:
        for entry in json.loads(path.read_text(encoding="utf-8-sig"))["cameras"]:
            label, video = str(entry["camera_id"]), folder / str(entry["video"])
            if "sparse" in video.parts:
                continue
            if not video.is_file():
                raise InputError(f"{path}: names {entry['video']}, which is not there")
            own = np.asarray(entry["camera_to_world"], np.float64).reshape(4, 4) @ FLIP_YZ
            c2w = np.vstack([Y_UP @ own[:3], own[3:]])
            k = np.asarray(entry["K"], np.float64).reshape(3, 3)
            lens = {
                "w": float(entry["image_width"]), "h": float(entry["image_height"]), "fl_x": k[0, 0],
                "fl_y": k[1, 1], "cx": k[0, 2], "cy": k[1, 2],
            }  # fmt: skip
            tracks.append(Track(label, video, posed(path, [c2w], [lens])))
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"{path}: not the cameras.json of 4DAnyone ({error!r})") from None
    note = "the world of 4DAnyone (+Y up) was turned to +Z up"
    return Capture("4DAnyone", tuple(tracks), generated=True, turned=Y_UP, notes=(note,))
