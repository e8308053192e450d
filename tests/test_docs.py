"""The pages: what the code makes is current, lines are short, links lead somewhere, the site builds."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
PAGES = [page for page in PAGES if "_build" not in page.parts]
LONGEST_LINE = 120


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generated", ROOT / "docs" / "generated.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_made_from_the_code_are_current(generated: ModuleType) -> None:
    assert generated.stale() == [], "run python docs/generated.py"


def test_a_changed_page_is_found_stale(generated: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(generated.PAGES, "reference/cli.md", lambda: "other")
    assert generated.stale() == ["reference/cli.md"]
    with pytest.raises(RuntimeError, match=r"reference/cli\.md"):
        generated.check()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_are_short_and_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for number, line in enumerate(text.splitlines(), 1):
        # A table's row cannot be broken, and a link alone on its line neither.
        if not line.startswith("|") and " " in line.strip():
            assert len(line) <= LONGEST_LINE, f"{page.relative_to(ROOT)}:{number}: {len(line)} characters"
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="sphinx is not installed (pip install 'orbit4d[docs]')")
    pytest.importorskip("furo", reason="furo is not installed (pip install 'orbit4d[docs]')")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "index.html").is_file() and (tmp_path / "reference" / "api.html").is_file()
