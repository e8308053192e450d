"""The report: opens from disk without a broken image or an error, says the right numbers, escapes names."""

from __future__ import annotations

import io
import re
import shutil

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from orbit4d.curate import columns
from orbit4d.curate.report.histograms import histogram_svg
from orbit4d.curate.report.page import N_ACCEPTED, N_BORDERLINE, N_PER_REASON, margins, write_report
from orbit4d.curate.rule_settings import PRESETS
from orbit4d.curate.rules import decide
from orbit4d.datasets.core.errors import InputError

CHROMIUM = shutil.which("chromium")
NASTY = "<img src=x onerror=alert(1)>"


def preview(seed: int) -> bytes:
    memory = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (16, 48, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(memory, "WEBP")
    return memory.getvalue()


def decided(n: int, previews: bool = True) -> pa.Table:
    rng = np.random.default_rng(0)
    rows = [
        {
            "uid": f"asset{i // 3}", "action": NASTY if i % 7 == 0 else f"action{i}", "action_index": i % 3,
            "status": "measured", "license": NASTY if i % 5 else "CC0-1.0", "window_start": 0.0,
            "window_end": 1.0, "motion_geometry": float(10 ** rng.uniform(-3, 0.5)),
            "union_growth": float(1 + rng.exponential()), "out_of_frame": float(rng.random() ** 8),
            "coverage_mean": float(rng.random() / 3), "torn_edges": 0.0,
            "ssim_half": float(rng.random()), "n_triangles": int(rng.integers(10, 10_000)),
            "preview": preview(i % 20) if previews else None,
        }
        for i in range(n)
    ]  # fmt: skip
    rows += [
        {"uid": "cut", "action": "", "status": "refused", "failure": "bad_file:truncated", "detail": NASTY},
        {"uid": "slow", "action": "", "status": "failed", "failure": "time_out", "detail": "too slow"},
    ]
    return decide(columns.build(rows, {"versions": {"bpy": "4.5"}}), PRESETS["default"])


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    table = decided(90)
    return table, write_report(table, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(report):
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: `apt-get install chromium`")
    sync = pytest.importorskip("playwright.sync_api")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = browser.new_page()
        page.problems = []
        page.on("console", lambda m: page.problems.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on(
            "request", lambda r: page.problems.append(r.url) if r.url[:5] not in ("file:", "data:") else None
        )
        page.on("dialog", lambda dialog: (page.problems.append("a name ran as a script"), dialog.dismiss()))
        page.goto(report[1].as_uri())
        yield page
        browser.close()


def test_it_opens_from_disk_without_a_broken_image_or_an_error(page):
    page.evaluate("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
    page.wait_for_function("[...document.images].every(i => i.complete)")
    assert page.evaluate("document.images.length") > 40
    assert page.evaluate("[...document.images].filter(i => i.naturalWidth === 0).length") == 0
    assert page.problems == []


def test_nothing_overflows_the_page(page):
    for width in (1200, 420):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width + 1


def test_every_measure_with_a_threshold_shows_it(page):
    found = page.eval_on_selector_all("svg .threshold-text", "nodes => nodes.map(n => n.textContent)")
    assert {"min_motion 0.014", "max_growth 3", "max_boundary 1"} <= set(found)
    assert page.eval_on_selector_all("svg", "nodes => nodes.length") >= 6


def test_the_counts_are_those_of_the_table(report, page):
    table, _ = report
    shown = page.eval_on_selector_all(".counts b", "nodes => nodes.map(n => n.textContent)")
    verdicts = table["verdict"].to_pylist()
    expected = [len(verdicts), *(verdicts.count(word) for word in ("accepted", "rejected", "failed"))]
    assert shown[:4] == [str(n) for n in expected]
    reasons = [reason for row in table["reasons"].to_pylist() for reason in row]
    cells = page.eval_on_selector_all(
        "table:first-of-type tr", "rows => rows.map(r => r.innerText.split('\\t'))"
    )
    for row in cells[1:]:
        if row[0] in ("low_motion", "flies_away", "boundary", "empty", "drastic"):
            assert int(row[1]) == reasons.count(row[0])


def test_names_are_escaped(report):
    text = report[1].read_text()
    assert NASTY not in text and "&lt;img src=x" in text
    assert not re.search(r"(src|href)=\"?(https?:|//|/)", text)


def test_bars_add_up_to_the_actions():
    rng = np.random.default_rng(0)
    for log in (False, True):
        values = np.concatenate([10.0 ** rng.uniform(-4, 2, 500), [np.nan, 0.0, 1e9]])
        accepted = rng.random(503) < 0.5
        svg = histogram_svg(values, accepted, [("limit", 0.5)], log)
        counted = {
            word: sum(map(int, re.findall(rf">(\d+) {word}", svg))) for word in ("accepted", "rejected")
        }
        known = np.isfinite(values)
        assert counted == {"accepted": (accepted & known).sum(), "rejected": (~accepted & known).sum()}


def test_a_histogram_of_nothing_or_of_one_value_is_no_error():
    assert histogram_svg(np.full(3, np.nan), np.ones(3, bool)) == ""
    assert "<svg" in histogram_svg(np.ones(3), np.ones(3, bool), [("limit", 1.0)], log=True)
    assert "<svg" in histogram_svg(np.zeros(3), np.ones(3, bool), [("limit", 0.0)], log=True)


def test_borderline_is_near_a_threshold():
    table = decided(90)
    near = margins(table, PRESETS["default"])
    motion = np.array([value or np.nan for value in table["motion_geometry"].to_pylist()])
    closest = np.nanargmin(np.abs(np.log(motion / 0.014)))
    assert near[closest] <= abs(np.log10(motion[closest] / 0.014)) + 1e-12
    assert near[np.isfinite(near)].min() == near.min()


def test_of_similarities_the_distance_from_one_counts_and_one_moment_is_enough():
    names = ("ssim_object_quarter", "ssim_object_half", "ssim_object_peak")
    seen = [(1.0, 1.0, 0.4), (0.1, 1.0, 1.0), (0.7, 1.0, 1.0), (1.0, 1.0, 1.0)]
    rows = [{"uid": "a", "status": "measured", **dict(zip(names, row))} for row in seen]
    near = margins(columns.build(rows, {}), PRESETS["default"])
    np.testing.assert_allclose(near[:3], [np.log10(2), np.log10(3), 0.0], atol=1e-9)
    assert np.isinf(near[3])


def test_a_report_of_ten_thousand_rows_shows_a_few_of_them(tmp_path, count_calls):
    """Sheets hold a sample, and a row costs a handful of calls, not a tile or a look at the whole table."""
    from orbit4d.curate.rules import REASONS

    small, large = (decided(n, previews=False) for n in (1_000, 10_000))
    write_report(small, tmp_path)
    calls = [count_calls(lambda table=table: write_report(table, tmp_path)) for table in (small, large)]
    assert (calls[1] - calls[0]) / 9_000 < 20, calls
    # Two more reasons are those of files that were never measured.
    tiles = (tmp_path / "index.html").read_text(encoding="utf-8").count('class="tile')
    assert 0 < tiles <= N_ACCEPTED + N_BORDERLINE + N_PER_REASON * (len(REASONS) + 2), tiles


def test_an_undecided_table_and_a_bad_folder_are_refused(report, tmp_path):
    with pytest.raises(InputError, match="never decided"):
        write_report(columns.build([], {}), tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(report[0], tmp_path / "file")


def test_an_empty_table_still_reports(tmp_path):
    assert write_report(decide(columns.build([], {})), tmp_path).exists()
