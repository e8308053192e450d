"""The page of the demo, made from a small drawn demo folder and looked at by a real browser."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from orbit4d.app.gallery.charts import Line, chart, log_ticks, smoothed, ticks
from orbit4d.app.gallery.media import frame_psnr, on_white
from orbit4d.app.gallery.page import write_gallery
from orbit4d.datasets import decode, read_clip
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.videos.video import write_video

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
EVIL = "<script>alert(1)</script>"


def preview() -> bytes:
    out = io.BytesIO()
    Image.new("RGBA", (96, 32), (200, 80, 40, 255)).save(out, "WEBP")
    return out.getvalue()


def table_row(uid: str, action: str, verdict: str, reasons: list[str], **more: Any) -> dict[str, Any]:
    row = {"uid": uid, "action": action, "action_index": 0, "verdict": verdict, "reasons": reasons}
    numbers = {"motion_geometry": 0.11, "union_growth": 1.1, "out_of_frame": 0.0, "coverage_mean": 0.2}
    return {**row, "detail": None, "preview": preview(), **numbers, **more}


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Path]) -> Path:
    """A demo folder as the commands leave it, with every file the page reads."""
    folder = tmp_path_factory.mktemp("gallery") / "demo"
    make_dataset(folder / "dataset", assets=3)
    rows = [table_row(f"asset-{i:03d}", "Run", "accepted", []) for i in range(3)]
    rows += [
        table_row("statue", "", "rejected", ["static"], action_index=None),
        table_row("rocket", "Fly", "rejected", ["flies_away", "boundary"], union_growth=7.2),
        table_row(EVIL, EVIL, "rejected", ["low_motion"], motion_geometry=0.003),
        table_row("torn", "", "rejected", ["bad_file:truncated"], preview=None, detail="10 of 20 bytes"),
    ]
    rules = json.dumps({"rules": {"min_motion": 0.02, "max_growth": 2.5, "max_boundary": 0.9}})
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"orbit4d.curate": rules})
    pq.write_table(table, folder / "table.parquet")
    (folder / "run").mkdir()
    log = [
        {
            "step": i + 1,
            "stage": "static" if i < 20 else "dynamic",
            "loss": math.exp(-i / 15),
            "seconds": i / 2.0,
        }
        for i in range(50)
    ]
    (folder / "run" / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log) + '{"step": 5')
    (folder / "run" / "config.json").write_text(
        json.dumps({"preset": "tiny", "data": {"resolution": 32, "frames": 8}})
    )
    rng = np.random.default_rng(0)
    for level in ("low", "high"):
        write_video(folder / "generated" / f"{level}.mp4", rng.integers(0, 255, (8, 32, 32, 3), np.uint8))
        (folder / "generated" / level).mkdir()
        about = {"orbit4d": {"motion": 0.001 if level == "low" else 0.02}}
        (folder / "generated" / level / "transforms.json").write_text(json.dumps(about))
    Image.new("RGB", (32, 32), "white").save(folder / "generated" / "input.png")
    truth = read_clip(folder / "dataset", "asset-000", "", "front_view")
    film = on_white(np.stack([decode(frame) for frame in truth.frames]))
    write_video(folder / "film.mp4", film, 10.0)
    (folder / "scene").mkdir()
    metrics = {
        "psnr_train": 29.5,
        "psnr_heldout": 22.25,
        "ssim_heldout": 0.9,
        "n_gaussians": 6000,
        "seconds": 61.0,
    }
    (folder / "scene" / "metrics.json").write_text(json.dumps(metrics | {"baselines": {"static": 18.0}}))
    stages = [
        {"name": name, "title": name.title(), "command": f"orbit4d {name}", "seconds": 3.5, "outcome": "done",
         "lines": ["input 3 = done 3", "digest " + "ab" * 32]}
        for name in ("curate", "render", "verify", "train")
    ]  # fmt: skip
    record = {"version": 1, "plan": {"subject": "asset-000"}, "stages": stages}
    (folder / "demo.json").write_text(json.dumps(record))
    return folder


@pytest.fixture(scope="module")
def page(demo_folder: Path) -> Path:
    return write_gallery(demo_folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not Path(CHROMIUM).exists():
        pytest.skip("chromium is not installed (apt-get install chromium)")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as play:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        yield play.chromium.launch(executable_path=CHROMIUM, args=flags)


LOADED = """() => Promise.all([...document.images, ...document.querySelectorAll("video")].map(async (m) => {
    const video = m.tagName === "VIDEO";
    const ok = () => video
        ? m.readyState >= 2 && m.videoWidth > 0 && !m.error
        : m.complete && m.naturalWidth > 0;
    for (let i = 0; i < 100 && !ok(); i++) await new Promise((r) => setTimeout(r, 100));
    return [m.currentSrc || m.src, ok()];
}))"""


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_broken_in_a_browser(browser: Any, page: Path, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    view = context.new_page()
    complaints: list[str] = []
    view.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    view.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    view.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
    asked: list[str] = []
    view.on("request", lambda request: asked.append(request.url))
    view.goto(page.as_uri())
    media = view.evaluate(LOADED)
    assert len(media) == 4 * 3 + 3 + 1 + 4, "four clips of three rigs, previews, input, four videos"
    assert [src for src, ok in media if not ok] == []
    assert complaints == []
    assert all(url.startswith(("file://", "data:")) for url in asked)
    assert view.evaluate("document.documentElement.scrollWidth <= innerWidth"), "no sideways scrolling"
    # Chromium starts muted videos when they come into view.
    for video in view.query_selector_all("video"):
        video.scroll_into_view_if_needed()
        view.wait_for_function("(v) => !v.paused && v.currentTime > 0", arg=video, timeout=10_000)
    context.close()


def test_the_cameras_of_a_card_are_chosen_by_its_buttons(browser: Any, page: Path) -> None:
    view = browser.new_page(viewport={"width": 1280, "height": 900})
    view.goto(page.as_uri())

    def seen() -> list[str]:
        return view.evaluate(
            "[...document.querySelector('.card').querySelectorAll('picture')]"
            ".filter((p) => getComputedStyle(p).visibility === 'visible')"
            ".map((p) => p.querySelector('img').alt)"
        )

    assert seen() == ["asset-000 · Run, orbit"]
    view.click(".card >> text=Front")
    assert seen() == ["asset-000 · Run, front"]
    view.close()


def test_less_motion_is_respected(browser: Any, page: Path) -> None:
    context = browser.new_context(reduced_motion="reduce")
    view = context.new_page()
    view.goto(page.as_uri())
    assert all(ok for _, ok in view.evaluate(LOADED))
    assert view.evaluate("[...document.querySelectorAll('video')].every((v) => v.paused && v.controls)")
    sources = view.evaluate("[...document.querySelectorAll('.card img')].map((i) => i.currentSrc)")
    assert all(source.endswith("-still.webp") for source in sources)
    context.close()


def test_the_page_says_what_the_files_say(page: Path) -> None:
    text = page.read_text()
    assert EVIL not in text and "&lt;script&gt;alert(1)" in text
    for fact in ("ab" * 32, "flies_away", "growth 7.2, at most 2.5", "motion 0.003, at least 0.02",
                 "10 of 20 bytes", "29.5 dB", "22.2 dB", "18.0 dB", "m = 0.001", "m = 0.02",
                 "input 3 = done 3", "50", "orbit4d curate"):  # fmt: skip
        assert fact in text, fact
    assert not re.search(r"(?:src|href)=[\"'](?:https?:|//|/)", text), "relative paths alone"
    paths = re.findall(r'(?:src|srcset|href)="(?!data:|#)([^"]+)"', text)
    missing = [p for p in paths if not (page.parent / p).exists() and p != "report/index.html"]
    assert not missing


def test_loops_are_endless_and_transparent(page: Path) -> None:
    with Image.open(next((page.parent / "gallery").glob("asset-000-0-dynamic_orbit.webp"))) as loop:
        assert (loop.n_frames, loop.info["loop"], loop.mode) == (8, 0, "RGBA")
        assert loop.getextrema()[3][0] == 0, "the background shows through"


def test_a_page_can_be_written_after_any_stage(demo_folder: Path, tmp_path: Path) -> None:
    early = tmp_path / "early"
    early.mkdir()
    with pytest.raises(InputError, match="holds no demo"):
        write_gallery(early)
    shutil.copy(demo_folder / "demo.json", early)
    sizes = [len(write_gallery(early).read_text())]
    for piece in ("table.parquet", "dataset", "run", "generated", "scene", "film.mp4"):
        source = demo_folder / piece
        (shutil.copytree if source.is_dir() else shutil.copy)(source, early / piece)
        sizes.append(len(write_gallery(early).read_text()))
    assert sizes == sorted(set(sizes)), "each stage adds its part"


def test_a_film_is_scored_frame_by_frame() -> None:
    truth = np.full((3, 10, 11, 3), 100, np.uint8)
    film = np.pad(truth, ((0, 0), (0, 0), (0, 1), (0, 0)))
    film[1, :, :11] += 10
    scores = frame_psnr(film, truth)
    assert scores is not None
    assert scores[0] > 90 and scores[1] == pytest.approx(20 * math.log10(25.5), abs=1e-6)
    assert frame_psnr(film[:2], truth) is None


def test_charts_keep_their_values() -> None:
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(0.13, 0.47, 4) == [0.2, 0.3, 0.4]
    assert log_ticks(0.03, 3) == pytest.approx([0.05, 0.1, 0.2, 0.5, 1, 2])
    assert smoothed([2.0] * 9) == pytest.approx([2.0] * 9)
    svg = chart(
        [Line("a", [0, 1, 2], [1.0, math.nan, 3.0]), Line("", [0, 2], [0.0, 2.0], "b")], "x", "y", "t"
    )
    assert "nan" not in svg.lower()
    assert chart([Line("a", [], [])], "x", "y", "t") == ""
    log = chart([Line("a", [0, 1, 2], [10.0, 1.0, 0.1])], "x", "y", "t", log_y=True)
    heights = [float(pair.split()[1]) for pair in re.search(r'd="M([^"]+)"/></svg>', log)[1].split("L")]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.11), (
        "equal ratios, equal steps"
    )
