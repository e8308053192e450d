"""The table of `make bench-results`, and its place in docs/measured/results.md."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from parts.results_rows import KINDS

from orbit4d.datasets import Index
from orbit4d.recon4d.fitting.settings import ReconstructionSettings

BEGIN, END = "<!-- bench-results: begin -->", "<!-- bench-results: end -->"
#: Column -> (heading, digits).
COLUMNS = {
    "PSNR": ("PSNR ↑", 2), "SSIM": ("SSIM ↑", 3), "IoU": ("IoU ↑", 3), "flicker": ("flicker ↓", 4),
    "flicker of truth": ("of truth", 4), "CD-3D": ("CD-3D ↓", 4), "CD-4D": ("CD-4D ↓", 4),
    "CD-M": ("CD-M ↓", 4), "Chamfer": ("Chamfer ↓", 4), "F": ("F at 1 % ↑", 3),
    "matched": ("matched ↑", 3), "matched of truth": ("of truth", 3), "rot": ("rot ° ↓", 2),
    "trans": ("trans ↓", 4), "ate": ("ATE ↓", 4), "seconds": ("s", 0),
}  # fmt: skip
#: Rig of an evaluation -> what the table calls it.
_MODEL = {"dynamic_orbit": "tiny model, its orbits", "front_view": "tiny model, scenes of its orbits, front"}


def means(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean of every kind over the actions."""
    found = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        mine = [row for row in rows if row["kind"] == kind]
        names = [name for name in COLUMNS if name in mine[0]]
        values = {name: float(np.mean([row[name] for row in mine])) for name in names}
        found.append({"what": KINDS[kind], "clips": len(mine), **values})
    return found


def of_model(summary: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """Rows of a model's own evaluation, whose truth is another."""
    return [{"what": _MODEL.get(rig, f"tiny model, {rig}"), **values} for rig, values in summary.items()]


def of_guided(summary: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    return [{"what": f"guided novel views, {rig}", **values} for rig, values in summary.items()]


def bare(rows: Sequence[Mapping[str, Any]]) -> str:
    """Every orbit whose cameras were looked for, one by one: their mean says little where one went wrong."""
    found = [
        f"{row['case']} {row['rot']:.1f} degrees, ATE {row['ate']:.3f}"
        for row in rows
        if row["kind"] == "bare"
    ]
    return f" One by one: {'; '.join(found)}." if found else ""


def size_of(
    dataset: str, cases: Sequence[str], settings: ReconstructionSettings, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What was measured, at which size."""
    frames = next(part["n_frames"][0].as_py() for _, part in Index(dataset).read(["n_frames"]) if len(part))
    return {
        "actions": list(cases), "frames": frames, "resolution": settings.resolution,
        "preset": settings.preset, "coarse": settings.coarse_steps, "fine": settings.fine_steps,
        "gaussians": settings.n_gaussians, "rows": len(rows),
    }  # fmt: skip


def text(
    rows: Sequence[Mapping[str, Any]], size: Mapping[str, Any], align: str | None, cases: str = ""
) -> str:
    """The section: how, the table, what its columns mean."""
    root = Path(__file__).resolve().parents[2]
    asked = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(asked, capture_output=True, text=True)
    names = [name for name in COLUMNS if any(name in row for row in rows)]
    words = " ".join(_said(sys.argv[1:]))
    lines = [
        BEGIN,
        f"`make bench-results BENCH_ARGS='{words}'`, commit {done.stdout.strip() or 'unknown'}: "
        f"{', '.join(size['actions'])}; {size['frames']} frames of {size['resolution']} x "
        f"{size['resolution']}, preset {size['preset']} ({size['gaussians']} Gaussians, {size['coarse']} + "
        f"{size['fine']} steps). Means over the actions.",
        "",
        "| measured | clips | " + " | ".join(COLUMNS[name][0] for name in names) + " |",
        "|" + "---|" * (len(names) + 2),
    ]
    for row in rows:
        cells = [f"{row[name]:.{COLUMNS[name][1]}f}" if name in row else "–" for name in names]
        lines.append(f"| {row['what']} | {row.get('clips', '–')} | " + " | ".join(cells) + " |")
    aligned = "as they lie" if align is None else f"aligned by {align}"
    lines += [
        "",
        "PSNR to matched pixels are of four cameras that no fit saw, at all times. Distances are in units of "
        "the clip's world, of the Gaussians' centres (opacity of 0.1 and above) against points on the true "
        f"mesh, {aligned}; compared as they lie, CD-3D equals CD-4D. Chamfer and F are of the middle frame. "
        f"Camera errors are of cameras found from the bare video.{cases} Seconds are of the fit and its "
        "own scores; a model's, of making one orbit.",
        END,
    ]
    return "\n".join(_wrapped(line) for line in lines)


def _wrapped(line: str) -> str:
    """Prose at most 115 characters wide, as the page has it; table rows stay whole."""
    return line if line.startswith("|") else textwrap.fill(line, 115, break_on_hyphens=False)


def _said(words: Sequence[str]) -> list[str]:
    """The command without places of this machine: the value of `--work` is WORK."""
    pairs = zip(["", *words], words, strict=False)
    return [before[2:].upper() if "/" in word else word for before, word in pairs if word != "--write"]


def write(path: Path, block: str) -> None:
    """Replace the section between the marks; the page's other sections stay."""
    page = path.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        sys.exit(f"error: {path}: lacks {BEGIN} and {END}; put them where the table belongs")
    path.write_text(before + block + after, encoding="utf-8")
