"""The review page in a real browser, against the command in a process of its own."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from orbit4d.curate.labels import read_labels


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def served(source: Path, *more: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`orbit4d review` as a user starts it; yields its address and the process."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "orbit4d.app",
        "review",
        str(source),
        "--port",
        str(free_port()),
        *more,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline(), process.stdout.readline()]
            match = re.search(r"http://\S+", lines[1])
            assert match, lines
            yield match.group(), process
        finally:
            process.kill()


@contextlib.contextmanager
def opened(browser: Any, url: str) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.problems = []
    page.on("console", lambda m: page.problems.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith(url) else page.problems.append(r.url))
    page.goto(url)
    page.wait_for_selector("body[data-ready]", timeout=30_000)
    yield page
    context.close()


def until(page: Any, condition: str) -> None:
    """Wait until a JavaScript expression is true; the page's own policy forbids Playwright's way to wait."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never: {condition}; {page.problems}")


def tiles(page: Any) -> list[str]:
    """The rows that the grid shows, in its order."""
    return page.eval_on_selector_all("#grid .tile", "all => all.map(one => one.dataset.row)")


def labelled(page: Any, count: int) -> None:
    until(page, f"document.getElementById('n-labelled').textContent === '{count}'")


def test_twenty_clips_by_keyboard_the_server_killed_and_nothing_lost(browser: Any, table_path: Path) -> None:
    labels = table_path.with_name("clips.labels.parquet")
    keys = ["a", "r", "a", "f", "r"] * 4
    words = {"a": "accept", "r": "reject", "f": "flag"}
    with served(table_path, "--reviewer", "ada") as (url, process), opened(browser, url) as page:
        assert len(tiles(page)) == 30
        for key in keys:
            page.keyboard.press(key)
        labelled(page, 20)
        process.send_signal(signal.SIGKILL)
        process.wait()
        # What is said now cannot be saved, and the page says so and takes it back.
        page.keyboard.press("a")
        page.wait_for_selector("#error:not([hidden])")
        assert page.locator("#grid .badge").count() == 20
    found = read_labels(labels)
    assert [(label.uid, label.action_index) for label in found] == [
        (f"asset-{i // 2:03d}", i % 2) for i in range(20)
    ]
    assert [label.label for label in found] == [words[key] for key in keys]
    assert {label.reviewer for label in found} == {"ada"}
    # The next server continues where the killed one stopped: badges, undo and all.
    with served(table_path, "--reviewer", "ada") as (url, process), opened(browser, url) as page:
        assert page.locator("#grid .badge").count() == 20
        page.keyboard.press("u")
        labelled(page, 19)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) in (0, 130)
    last = read_labels(labels)[19]
    assert last.label is None and [event["undo"] for event in last.audit] == [False, True]
    assert pq.read_table(labels).num_rows == 20


def test_filters_thresholds_and_clips_that_look_alike(browser: Any, table_path: Path, tmp_path: Path) -> None:
    with (
        served(table_path, "--labels", str(tmp_path / "l.parquet")) as (url, _),
        opened(browser, url) as page,
    ):
        moved = page.locator("#counts .accepted").inner_text()
        assert moved == "21", "the nine that move less than 0.014 are rejected"
        number = page.locator("[data-rule=min_motion] .number")
        number.fill("0.05")
        number.press("Enter")
        until(page, "document.querySelector('#counts .accepted').textContent === '11'")
        assert "−10" in page.locator("#effect").inner_text()
        line = page.locator("#borderline .tile")
        assert line.count() == 10 and page.locator("#borderline .cut").count() == 1
        page.keyboard.press("Escape")
        page.locator("#changed").check()
        until(page, "document.querySelectorAll('#grid .tile').length === 10")
        page.locator("#reset").click()
        until(page, "document.querySelectorAll('#grid .tile').length === 0")
        page.locator("#changed").uncheck()
        until(page, "document.querySelectorAll('#grid .tile').length === 30")
        # An expression, and one that is broken: the page says why, and continues.
        where = page.locator("#where")
        where.fill("license = 'CC0-1.0' and motion_geometry > 0.1")
        where.press("Enter")
        until(page, "document.querySelectorAll('#grid .tile').length < 15")
        where.fill("motion_geometri > 1")
        where.press("Enter")
        page.wait_for_selector("#where.wrong")
        assert "motion_geometri" in page.locator("#error").inner_text()
        where.fill("")
        where.press("Enter")
        until(page, "document.querySelectorAll('#grid .tile').length === 30")
        where.press("Escape")
        page.select_option("#sort", "motion_geometry")
        page.locator("#way").click()
        until(page, "document.querySelector('#grid .tile').dataset.row === '29'")
        page.locator("#alike").check()
        until(page, "document.querySelectorAll('#grid .tile').length === 4")
        page.locator("#grid .tile").first.click()
        until(page, "document.querySelector('#detail h2').textContent === 'asset-003'")
        page.keyboard.press("d")
        page.wait_for_selector("dialog#side[open]")
        assert page.locator("#pairs .tile b").all_inner_texts() == ["asset-003", "asset-000"]
        assert (
            page.locator("#pairs .near").all_inner_texts()
            == page.locator("#grid .near").all_inner_texts()[:2]
        )
        said = [problem for problem in page.problems if "400" not in problem]
        assert said == []


def test_a_second_reviewer_is_not_swayed_and_kappa_is_shown(browser: Any, table_path: Path) -> None:
    with served(table_path, "--reviewer", "ada") as (url, _), opened(browser, url) as page:
        for key in "aarr":
            page.keyboard.press(key)
        labelled(page, 4)
        page.fill("#reviewer", "bob")
        page.press("#reviewer", "Enter")
        labelled(page, 0)
        page.locator("#grid .tile").first.click()
        page.wait_for_selector("#detail .say")
        assert "ada" not in page.locator("#detail").inner_text(), "bob looks first"
        for key in "aaar":
            page.keyboard.press(key)
        labelled(page, 4)
        page.wait_for_selector(".kappa")
        assert page.locator(".kappa").inner_text() == "κ 0.50 ada and bob"
        page.locator("#grid .tile").first.click()
        until(page, "document.querySelector('#detail').innerText.includes('ada: accept')")
        assert page.problems == []
