"""What each stage of the demo made, in one line read from its results, and the work of its own two stages."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from orbit4d.app.gallery.material import about_generated, read_log
from orbit4d.datasets.core.errors import WorkError


def built(folder: Path, only: Sequence[str] | None) -> str:
    """Build the assets under a progress bar."""
    from orbit4d.app.demo.source import build_assets
    from orbit4d.datasets.core.progress import Progress

    bar: list[Progress] = []

    def on_file(done: int, total: int, name: str) -> None:
        if not bar:
            bar.append(Progress("assets", total, "file"))
        bar[0].update(done - bar[0].done, now=name)

    try:
        rows = build_assets(folder / "assets", only, on_file)
    finally:
        for progress in bar:
            progress.close()
    actions = sum(len(row["animations"]) for row in rows)
    return f"{len(rows)} GLB files, {actions} actions, {sum(row['bytes'] for row in rows) / 2**20:.1f} MiB"


def curated(folder: Path, lines: list[str]) -> str:
    """Verdicts and reasons of the table."""
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "table.parquet", columns=["verdict", "reasons"])
    verdicts = Counter(table["verdict"].to_pylist())
    reasons = Counter(reason for row in table["reasons"].to_pylist() for reason in row or ())
    if verdicts["failed"]:
        raise WorkError(
            f"curate could not measure {verdicts['failed']} assets; see {folder / 'table.parquet'}"
        )
    why = ", ".join(f"{name} {count}" for name, count in sorted(reasons.items()))
    return f"{verdicts['accepted']} accepted, {table.num_rows - verdicts['accepted']} not" + (
        f" ({why})" if why else ""
    )


def rendered(folder: Path, lines: list[str]) -> str:
    """Size of the dataset, and the line that accounts for every input."""
    from orbit4d.datasets.index.index import Index

    index = Index(folder / "dataset")
    frames = sum(sum(table["n_frames"].to_pylist()) for _, table in index.read(["n_frames"]))
    account = next((line for line in reversed(lines) if line.startswith("input ")), "")
    return f"{len(index)} clips, {frames} frames; {account}".rstrip("; ")


def verified(folder: Path, lines: list[str]) -> str:
    """The digest."""
    digest = next((line.split()[-1] for line in reversed(lines) if line.startswith("digest ")), None)
    if digest is None:
        raise WorkError(f"{folder / 'dataset'}: verify printed no digest")
    return f"digest {digest[:16]}…"


def trained(folder: Path, lines: list[str]) -> str:
    """Steps, and the loss at the start and end of the last stage."""
    rows = read_log(folder / "run" / "log.jsonl")
    if not rows:
        return "no steps"
    last = [row["loss"] for row in rows if row.get("stage") == rows[-1].get("stage")]
    n = max(1, len(last) // 8)
    first, final = sum(last[:n]) / n, sum(last[-n:]) / n
    return f"{rows[-1]['step']} steps, loss {first:.3f} to {final:.3f}"


def generated(level: str) -> Callable[[Path, list[str]], str]:
    """The motion that was asked for, and how much the frames differ from the first one's still object."""

    def tell(folder: Path, lines: list[str]) -> str:
        about = about_generated(folder, level)
        asked = about.get("motion")
        return f"{level}.mp4, m = {asked:.2g}" if isinstance(asked, float) else f"{level}.mp4"

    return tell


def reconstructed(folder: Path, lines: list[str]) -> str:
    """PSNR on views it saw and on views it never saw."""
    metrics = json.loads((folder / "scene" / "metrics.json").read_text(encoding="utf-8"))
    parts = [
        f"{name} {metrics[key]:.1f} dB"
        for name, key in (("training views", "psnr_train"), ("held-out", "psnr_heldout"))
        if isinstance(metrics.get(key), int | float)
    ]
    count = metrics.get("n_gaussians")
    return ", ".join([*([f"{count} Gaussians"] if count else []), *parts])


def filmed(folder: Path, lines: list[str]) -> str:
    """Frames of the film."""
    from orbit4d.datasets.videos.video import read_video

    video = read_video(folder / "film.mp4")
    return f"{len(video.frames)} frames of {video.frames.shape[2]} x {video.frames.shape[1]}"


def write_input_picture(folder: Path, subject: str) -> Path:
    """The first front view of the subject, as the image that generation starts from."""
    from PIL import Image

    from orbit4d.datasets.images.codec import decode
    from orbit4d.datasets.index.reader import read_clip

    clip = read_clip(folder / "dataset", subject, "", "front_view")
    path = folder / "generated" / "input.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(decode(clip.frames[0])).save(path)
    return path


def gallery(folder: Path) -> str:
    """Write the page."""
    from orbit4d.app.gallery.page import write_gallery

    page = write_gallery(folder)
    files = [path for path in (folder / "gallery").iterdir() if path.is_file()]
    return f"{page.name} and {len(files)} files, {sum(f.stat().st_size for f in files) / 2**20:.1f} MiB"
