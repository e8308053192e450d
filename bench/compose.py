"""make bench-compose: three films of three prompts, what their feet do, and how fast they are made; then who
of two actors that cross covers which pixel, against Blender.

Assets are those of ../shared/pool beside the checkout (or `--library actions.csv`). Concepts that are not
in `--cache` are fitted first, which is timed apart; then each film is made again from the cache. Kept are
the row of the table, frames, and `film.mp4` to be looked at frame by frame.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path

from parts.compose_occlusion import occlusion

from orbit4d.compose.cli.production import Wanted, produce
from orbit4d.compose.cli.swapping import swap_film

PROMPTS = (
    "a fox walks from the left to the right",
    "a wolf follows a stag, which walks slowly",
    "Two white horses gallop from the barn to the river while a donkey eats near the fence",
)


def library_of(shared: Path, folder: Path) -> str:
    """actions.csv of the fixtures with paths that hold from anywhere."""
    source = shared / "fixtures" / "c3v" / "actions.csv"
    rows = list(csv.DictReader(source.open(encoding="utf-8")))
    for row in rows:
        row["file"] = str((source.parent / row["file"]).resolve())
    out = folder / "library.csv"
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return str(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    beside = Path(__file__).resolve().parent.parent.parent / "shared"
    parser.add_argument("--library", help="CSV of actions; default: the one of ../shared")
    parser.add_argument("--cache", type=Path, help="folder of fitted concepts")
    parser.add_argument("--out", type=Path, help="folder of the films; default: a temporary one")
    asked = parser.parse_args()
    out = asked.out or Path(tempfile.mkdtemp(prefix="orbit4d-bench-compose-"))
    out.mkdir(parents=True, exist_ok=True)
    library = asked.library or library_of(beside, out)
    cache = asked.cache or out / "cache"
    print("| prompt | first, s | cached, s | frames/s | sink | gap | sliding | facing | inside |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for number, prompt in enumerate(PROMPTS):
        seconds = []
        for name in (f"film{number}_first", f"film{number}"):
            began = time.monotonic()
            lines = produce(Wanted(prompt, (library,)), out / name, cache)
            seconds.append(time.monotonic() - began)
        found = json.loads((out / f"film{number}" / "metrics.json").read_text(encoding="utf-8"))
        print(
            f"| {prompt} | {seconds[0]:.0f} | {seconds[1]:.1f} | {found['frames_per_second']:.1f} | "
            f"{found['feet_sink_max']:.3f} | {found['feet_gap_max']:.3f} | "
            f"{found['sliding_excess_max']:.3f} | "
            f"{found['facing_deg_max']:.1f} | {found['in_picture']:.2f} |"
        )
        print("\n".join(f"    {line}" for line in lines))
    swap_film(out / "film1", out / "swapped", 0, "a fox", None, None, None, False, cache)
    kept = unchanged(out / "film1", out / "swapped")
    print(f"swap of actor 0: {kept} files of other concepts are bit for bit what they were")
    print(f"films in {out}")
    if asked.library is None:
        occlusion(beside / "pool", cache)


def unchanged(film: Path, swapped: Path) -> int:
    """Files of concepts of `film` that `swapped` holds, each compared; tracks of other actors too."""
    count = 0
    for path in sorted((film / "concepts").rglob("*")):
        if path.is_file():
            same = swapped / path.relative_to(film)
            assert same.read_bytes() == path.read_bytes(), path
            count += 1
    parts = [
        json.loads((folder / "composition.json").read_text(encoding="utf-8"))["parts"]
        for folder in (film, swapped)
    ]
    for old, new in zip(*parts, strict=True):
        if old.get("actor") != 0:
            assert old == new, old["concept"]
    return count


if __name__ == "__main__":
    main()
