"""Tables of drawn clips that the page shows, and a browser."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageDraw

from orbit4d.curate import columns
from orbit4d.curate.rules import decide
from orbit4d.curate.tables import write_table

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def strip(number: int) -> bytes:
    """Three images side by side of a ball that moves, another colour for every number."""
    image = Image.new("RGBA", (192, 64), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    colour = tuple(int(c) for c in np.random.default_rng(number).integers(40, 220, 3))
    for i in range(3):
        x, y = 64 * i + 12 + 10 * i, 20 + (number * 7 + 13 * i) % 20
        draw.ellipse((x, y, x + 22, y + 22), fill=(*colour, 255))
    out = io.BytesIO()
    image.save(out, "WEBP", quality=80)
    return out.getvalue()


def drawn_table(n: int, assets_of: int = 2) -> pa.Table:
    """n measured rows, two actions an asset, motion growing with the row; asset 3 looks like asset 0."""
    rows = []
    for i in range(n):
        asset = i // assets_of
        rows.append(
            {
                "uid": f"asset-{asset:03d}",
                "action": ("Run", "Jump")[i % assets_of],
                "action_index": i % assets_of,
                "status": "measured",
                "asset_sha256": f"{asset:064x}",
                "caption": f"a ball number {asset}",
                "license": "CC0-1.0" if asset % 2 else "CC-BY-4.0",
                "window_start": 0.0,
                "window_end": 2.0,
                "seconds": 2.0,
                "motion_geometry": 0.004 * 1.15**i,
                "union_growth": 1.0 + 0.1 * (i % 7),
                "coverage_fit": 0.05 + 0.01 * (i % 5),
                "coverage_mean": 0.2,
                "phash": f"{asset:016x}-808080",
                "duplicate_of": "asset-000" if asset == 3 else None,
                "preview": strip(i),
                "flags": [],
            }
        )
    return decide(columns.build(rows, {"measure_version": 3}))


@pytest.fixture(scope="session")
def make_table() -> Callable[..., pa.Table]:
    """`make_table(n)`: see `drawn_table`."""
    return drawn_table


@pytest.fixture
def table_path(tmp_path: Path) -> Path:
    """A written table of 30 clips."""
    path = tmp_path / "clips.curated.parquet"
    write_table(drawn_table(30), str(path))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: `apt-get install chromium`")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with api.sync_playwright() as play:
        yield play.chromium.launch(executable_path=CHROMIUM, args=flags)
