"""What is drawn is what is measured: files of ../shared/faults, curated and rendered by one Blender."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orbit4d.curate import columns
from orbit4d.curate.rules import decide
from orbit4d.datasets.store.clip import decode
from orbit4d.render.dataset.asset_job import clips_of_action
from orbit4d.render.fleet.child import BlenderChild
from orbit4d.render.planning.settings import preset

CASES = ("C1", "D1", "D2", "F1", "F2", "F3", "G1", "G2", "I1", "J1", "J2", "K1", "K2", "K3", "N1",
         "Q1", "Q2", "Q3", "Q4", "Q5", "R1", "11-1")  # fmt: skip


@pytest.fixture(scope="module")
def curate_and_render(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], Any]]:
    """`curate_and_render(path)`: (rows of the table as dicts, {rig: [F, H, W, 4]} of the first action)."""
    with BlenderChild() as child:

        def run(path: Path, draw: bool = True) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
            asked = {"path": str(path), "previews": "window", "preview_size": 64, "preview_samples": 4}
            found = child.call("measure", asked, 120)
            shared = {k: v for k, v in found["asset"].items() if k in columns.COLUMNS}
            rows = [{"status": "measured", **shared, **row, "preview": None} for row in found["actions"]]
            table = decide(columns.build(rows, {})).to_pylist()
            if not draw or table[0]["verdict"] != "accepted":
                return table, {}
            settings = preset("default", frames=4, resolution=64, samples=8)
            payload = {"uid": path.stem, "path": str(path), "sha256": "", "settings": settings.as_config(),
                       "scratch": str(tmp_path_factory.mktemp(path.stem)), "provenance": {},
                       "actions": [0]}  # fmt: skip
            result = child.call("render_clips", payload, 120)
            clips = clips_of_action(payload, settings, result["actions"][0], result)
            return table, {c.rig: np.stack([decode(image) for image in c.frames]) for c in clips}

        yield run


def box_of(image: np.ndarray) -> list[int]:
    rows, cols = np.nonzero(image[..., 3] > 64)
    return [int(cols.min()), int(rows.min()), int(cols.max()) + 1, int(rows.max()) + 1]


def near(value: float, wanted: Any, tolerance: float) -> bool:
    low, high = wanted if isinstance(wanted, list) else (wanted, wanted)
    return low - tolerance <= value <= high + tolerance


def problem(check: dict[str, Any], rows: list[dict[str, Any]], clips: dict[str, np.ndarray]) -> str:
    """What is wrong by one check; '' when nothing is."""
    row, kind = rows[0], check["c"]
    if kind == "verdict":
        return "" if row["verdict"] == check["is"] else f"{row['verdict']} {row['reasons']} {row['detail']}"
    if kind == "reason":
        return "" if any(re.search(check["re"], r) for r in row["reasons"]) else str(row["reasons"])
    if kind == "flag":
        return "" if any(re.search(check["re"], f) for f in row["flags"]) else str(row["flags"])
    if kind == "count":
        return "" if len(rows) == check["n"] else f"{len(rows)} actions"
    if kind == "measure":
        value = row[check["name"]]
        return "" if check["min"] <= value <= check["max"] else f"{check['name']} {value}"
    if kind == "window":
        ends = row["window_start"], row["window_end"]
        good = None not in ends and all(
            near(v, check[k], check["tol"]) for v, k in zip(ends, ("start", "end"))
        )
        return "" if good else f"window {ends}"
    images = clips[check.get("rig", "front_view")]
    if kind == "inside":
        edges = [images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]]
        return "" if max(int(edge[..., 3].max()) for edge in edges) <= 64 else "something touches the edge"
    image = images[check.get("frame", 0)]
    if kind == "box":
        box = box_of(image)
        return "" if np.abs(np.subtract(box, check["box"])).max() <= check["tol"] else f"{check}: box {box}"
    assert kind == "share", kind
    covered = image[image[..., 3] > 64][:, :3].astype(int)
    share = float(((covered >= check["lo"]) & (covered <= check["hi"])).all(axis=1).mean())
    good = check.get("min", 0.0) <= share <= check.get("max", 1.0)
    return "" if good and len(covered) else f"{check}: share {share}"


@pytest.mark.parametrize("case", CASES)
def test_a_fault_case_gives_what_is_right(case: str, shared: Path, curate_and_render: Any) -> None:
    table = shared / "faults" / "cases.csv"
    if not table.is_file():
        pytest.skip("no faults in ../shared")
    with open(table, newline="") as file:
        entry = next(row for row in csv.DictReader(file) if row["id"] == case)
    checks = json.loads(entry["check"])
    draw = any(check["c"] in ("box", "share", "inside") for check in checks)
    found = curate_and_render(shared / "faults" / entry["file"], draw)
    assert [p for check in checks if (p := problem(check, *found))] == []
