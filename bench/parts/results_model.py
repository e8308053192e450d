"""The tiny model of `make bench-results --tiny`: its clips, its training, its guided novel views.

Eight fish are trained on, two never seen. What is in the work folder already is not made again.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from orbit4d.datasets import Index

SEEN = "anglerfish betta blobfish bluetang butterflyfish cardinalfish clownfish coralgrouper"
NEW = ("cute_fish_pack_cowfish", "cute_fish_pack_flatfish")
CLIPS = (
    "--preset draft --frames 8 --resolution 32 --samples 16 --fov 30 --rigs static_orbit,dynamic_orbit "
    "--elevation 15 --passes depth"
)


def _command(*words: str) -> None:
    subprocess.run([sys.executable, "-P", "-m", "orbit4d.app", *words], check=True)


def clips(work: Path, pool: Path) -> str:
    """The dataset: static and dynamic orbits of 8 frames of 32 pixels, with depth."""
    names = [*(f"cute_fish_pack_{name}" for name in SEEN.split()), *NEW]
    sources = [pool / f"{name}.glb" for name in names]
    if missing := [source for source in sources if not source.is_file()]:
        sys.exit(f"error: {missing[0]}: not there; give --run and --guided")
    out = work / "clips"
    if not (out / "dataset.json").is_file():
        _command("render", *map(str, sources), "--out", str(out), *CLIPS.split())
    return str(out)


def trained(work: Path, dataset: str, steps: int) -> tuple[str, str]:
    """The run, and the file with the uids that it never saw."""
    run, ids = work / "run", work / "ids.txt"
    if not (run / "model").is_dir():
        words = ["train", dataset, "--out", str(run), "--preset", "tiny", "--steps", str(steps)]
        where = " and ".join(f"uid <> '{uid}'" for uid in NEW)
        _command(*words, "--where", where, *(["--resume"] if run.is_dir() else []))
    ids.write_text("\n".join(NEW) + "\n", encoding="utf-8")
    return str(run), str(ids)


def guided(work: Path, run: str, dataset: str) -> str:
    """Orbits of the new assets from view 0 and its depth, guided by the warp: a video each."""
    out = work / "guided_views"
    for uid in NEW:
        video = out / f"{uid}__a0.mp4"
        if video.is_file():
            continue
        rows = [row for _, part in Index(dataset).read(["uid", "action", "action_index"])
                for row in part.to_pylist()]  # fmt: skip
        action = next(row["action"] for row in rows if row["uid"] == uid and row["action_index"] == 0)
        words = ["novel-view", f"{dataset}:{uid}:{action}", "--model", run, "--path", "orbit"]
        _command(*words, "--steps", "8", "--out", str(video))
    return str(out)
