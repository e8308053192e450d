"""What each trainer reads of an export: stem -> (caption, video, control, camera text)."""

from __future__ import annotations

import csv
import json
import tomllib
from pathlib import Path

from tests.datasets.export_kit import read_mp4


def read_musubi(root: Path) -> dict:
    config = tomllib.loads((root / "musubi.toml").read_text())
    general = {
        "caption_extension",
        "batch_size",
        "num_repeats",
        "resolution",
        "enable_bucket",
        "bucket_no_upscale",
    }
    video = {"video_directory", "control_directory", "cache_directory", "target_frames", "frame_extraction"}
    assert set(config) == {"general", "datasets"} and set(config["general"]) <= general
    found, caches = {}, set()
    for part in config["datasets"]:
        assert set(part) <= general | video and part["frame_extraction"] == "head"
        caches.add(part["cache_directory"])
        for path in sorted((root / part["video_directory"]).glob("*.mp4")):
            caption = path.with_suffix(config["general"]["caption_extension"]).read_text().strip()
            control = root / part["control_directory"] / path.name if "control_directory" in part else None
            frames = [t for t in part["target_frames"] if t <= len(read_mp4(path)) and t % 4 == 1]
            assert frames, "a clip shorter than every target gives nothing"
            found[path.stem] = (caption, path, control, None)
    assert len(caches) == len(config["datasets"])
    return found


def read_diffsynth(root: Path) -> dict:
    found = {}
    with (root / "metadata.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            control = root / row["control_video"] if row.get("control_video") else None
            stem = Path(row["video"]).stem
            found[stem] = (row["prompt"], root / row["video"], control, root / f"cameras/{stem}.txt")
    return found


def read_videox(root: Path) -> dict:
    found = {}
    for row in json.loads((root / "metadata.json").read_text()):
        assert row["type"] == "video"
        control = root / row["control_file_path"]
        stem = Path(row["file_path"]).stem
        camera = control if control.suffix == ".txt" else root / f"cameras/{stem}.txt"
        assert read_mp4(root / row["file_path"]).shape[1:3] == (row["height"], row["width"])
        found[stem] = (row["text"], root / row["file_path"], control if control != camera else None, camera)
    return found


def read_ltx(root: Path) -> dict:
    found = {}
    for line in (root / "dataset.jsonl").read_text().splitlines():
        row = json.loads(line)
        control = row.get("reference_video") or row.get("video_mask")
        frames, h, w, _ = read_mp4(root / row["video"]).shape
        assert frames % 8 == 1 and h % 32 == 0 and w % 32 == 0
        found[Path(row["video"]).stem] = (
            row["caption"],
            root / row["video"],
            control and root / control,
            None,
        )
    return found


def read_lists(root: Path) -> dict:
    assert not list(root.rglob("metadata.*")) and not list(root.rglob("*.tar"))
    prompts = [line for line in (root / "prompts.txt").read_text().split("\n") if line]
    videos = [line for line in (root / "videos.txt").read_text().split("\n") if line]
    assert len(prompts) == len(videos)
    return {Path(v).stem: (p, root / v, None, None) for p, v in zip(prompts, videos)}


def read_finetrainers(root: Path) -> dict:
    config = json.loads((root / "training.json").read_text())["datasets"][0]
    assert Path(config["data_root"]) == root.resolve() and config["dataset_type"] == "video"
    if not (root / "metadata.jsonl").exists():
        return read_lists(root)
    assert not (root / "prompts.txt").exists()
    rows = [json.loads(line) for line in (root / "metadata.jsonl").read_text().splitlines()]
    return {
        Path(row["file_name"]).stem: (
            row["caption"], root / row["file_name"], root / row["control_video_file_name"], None
        )
        for row in rows
    }  # fmt: skip


def read_videofolder(root: Path) -> dict:
    found = {}
    for line in (root / "metadata.jsonl").read_text().splitlines():
        row = json.loads(line)
        control = next((root / row[name] for name in row if name.endswith("_file_name")), None)
        found[Path(row["file_name"]).stem] = (row["text"], root / row["file_name"], control, None)
    return found


READERS = {
    "musubi": read_musubi, "diffsynth": read_diffsynth, "videox-fun": read_videox, "ltx": read_ltx,
    "finetrainers": read_finetrainers, "diffusers": read_lists, "videofolder": read_videofolder,
}  # fmt: skip
FRAMES = {"ltx": 17, "videofolder": 24}
