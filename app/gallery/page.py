"""The demo's page: DIR/index.html, which opens from disk and stands on the files of the demo alone.

`write_gallery` reads what the commands left (demo.json, table.parquet, dataset/, run/, generated/, scene/,
film.mp4), writes images to DIR/gallery/ and the page beside them. A part whose files are missing is left
out, so the page can be written after any stage.
"""

from __future__ import annotations

import json
import shutil
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from orbit4d.app.gallery import media, sections
from orbit4d.app.gallery.material import Material, about_generated, read_log
from orbit4d.datasets.core.errors import InputError

MEDIA = "gallery"
RIGS = ("dynamic_orbit", "static_orbit", "front_view")


def write_gallery(folder: Path) -> Path:
    """Write `folder`/index.html with its media and return its path. InputError without a demo.json there."""
    try:
        record = json.loads((folder / "demo.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{folder}: holds no demo (demo.json is missing or damaged)") from None
    shutil.rmtree(folder / MEDIA, ignore_errors=True)
    (folder / MEDIA).mkdir(parents=True)
    material = Material(record)
    _take_table(folder, material)
    _take_dataset(folder, material)
    material.log = read_log(folder / "run" / "log.jsonl")
    material.model = _json(folder / "run" / "config.json")
    _take_motion(folder, material)
    _take_scene(folder, material)
    page = folder / "index.html"
    media.put(page, _page(material).encode())
    return page


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _take_table(folder: Path, material: Material) -> None:
    import pyarrow.parquet as pq

    path = folder / "table.parquet"
    if not path.is_file():
        return
    table = pq.read_table(path)
    stored = (table.schema.metadata or {}).get(b"orbit4d.curate")
    material.rules = dict(json.loads(stored).get("rules") or {}) if stored else {}
    for number, row in enumerate(table.to_pylist()):
        image = media.first_picture(row.pop("preview", None))
        row["thumb"] = None
        if image is not None:
            row["thumb"] = f"{MEDIA}/asset-{number:03d}.webp"
            media.put(folder / row["thumb"], image)
        material.rows.append(row)


def _take_dataset(folder: Path, material: Material) -> None:
    from orbit4d.datasets.index.index import Index
    from orbit4d.datasets.index.reader import read_clip

    if not (folder / "dataset" / "dataset.json").is_file():
        return
    index = Index(folder / "dataset")
    shown: dict[tuple[str, int], dict[str, Any]] = {}
    frames, shards, size = 0, set(), None
    for number in range(len(index)):
        row = index.row(number)
        frames += row["n_frames"]
        shards.add((row["shard"], row["shard_bytes"]))
        size = (row["width"], row["height"], row["n_frames"])
        if row["orbit"] != 0 or row["rig"] not in RIGS:
            continue
        entry = shown.setdefault((row["uid"], row["action_index"]), {"loops": {}, **row})
        entry["measures"] = {**(entry.get("measures") or {}), **_known(row.get("measures"))}
        clip = read_clip(index, row["uid"], row["action_index"], row["rig"])
        name = f"{MEDIA}/{row['uid']}-{row['action_index']}-{row['rig']}.webp"
        media.write_loop(folder / name, media.clip_frames(clip))
        entry["loops"][row["rig"]] = name
        if row["rig"] == "dynamic_orbit":
            for layer, shown_as in media.geometry_layers(index, clip).items():
                name = f"{MEDIA}/{row['uid']}-{row['action_index']}-{layer}.webp"
                media.write_loop(folder / name, shown_as)
                entry["loops"][layer] = name
    material.clips = list(shown.values())
    verified = (stage["lines"] for stage in material.record["stages"] if stage["name"] == "verify")
    lines: list[str] = next(verified, [])
    material.dataset = {
        "clips": len(index),
        "assets": len({uid for uid, _ in shown}),
        "frames": frames,
        "size": size,
        "shards": len(shards),
        "bytes": sum(count for _, count in shards),
        "digest": next((ln.split()[-1] for ln in lines if ln.startswith("digest ")), ""),
        "config": dict(index.manifest.config),
        "software": dict(index.manifest.software),
    }


def _known(measures: dict[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (measures or {}).items() if value is not None}


def _take_motion(folder: Path, material: Material) -> None:
    from orbit4d.datasets.videos.video import read_video

    made = folder / "generated"
    if not all((made / f"{level}.mp4").is_file() for level in ("low", "high")):
        return
    low, high = (read_video(made / f"{level}.mp4").frames[..., :3] for level in ("low", "high"))
    material.motion = {
        "input": "generated/input.png" if (made / "input.png").is_file() else None,
        "size": low.shape[2],
        "frames": len(low),
        "apart": media.mean_square(low, high),
        "levels": [
            {"name": level, "video": f"generated/{level}.mp4", "about": about_generated(folder, level)}
            for level in ("low", "high")
        ],
    }


def _take_scene(folder: Path, material: Material) -> None:
    from orbit4d.datasets.index.reader import read_clip
    from orbit4d.datasets.videos.video import read_video, write_video

    metrics = _json(folder / "scene" / "metrics.json")
    if not metrics:
        return
    material.scene = {"metrics": metrics, "film": None, "truth": None, "psnr": None}
    film = folder / "film.mp4"
    if not film.is_file():
        return
    video = read_video(film)
    material.scene["film"] = "film.mp4"
    subject = material.record.get("plan", {}).get("subject", "")
    try:
        clip = read_clip(folder / "dataset", subject, "", "front_view")
    except InputError:
        return
    truth = media.on_white(media.clip_frames(clip))
    seconds = float(video.seconds[-1]) if len(video.seconds) > 1 else 1.0
    write_video(folder / MEDIA / "truth.mp4", truth, (len(video.frames) - 1) / seconds)
    material.scene |= {
        "truth": f"{MEDIA}/truth.mp4",
        "psnr": media.frame_psnr(video.frames[..., :3], truth),
        "subject": subject,
    }


def _page(material: Material) -> str:
    here = files("orbit4d.app.gallery")
    style, script = (
        here.joinpath(name).read_text(encoding="utf-8") for name in ("gallery.css", "gallery.js")
    )
    body = "".join(
        (
            sections.hero(material),
            sections.clips(material),
            sections.rejected(material),
            sections.dataset(material),
            sections.training(material),
            sections.motion(material),
            sections.scene(material),
            sections.commands(material),
        )
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape('orbit4d, the whole chain')}</title>\n"
        # An empty icon: without it a browser asks for favicon.ico and logs that it is not there.
        '<link rel="icon" href="data:,">\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n{body}<script>\n{script}</script>\n</body>\n</html>\n"
    )
