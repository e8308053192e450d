"""The pages: what the code makes is current, lines are short, links lead somewhere, the site builds."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import click
import pytest

from orbit4d.app.cli import command

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


def _lines(page: Path) -> list[str]:
    """Commands of a page's console blocks; a backslash at the end joins a line with the next."""
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    joined = "".join(blocks).replace("\\\n", " ")
    return [line[2:] for line in joined.splitlines() if line.startswith("$ ")]


def _target(words: Sequence[str]) -> tuple[list[click.Command], Sequence[str]]:
    """The click commands, one of which a line names, and the words for it; [] for another program."""
    from orbit4d.datasets.cli import export
    from orbit4d.recon4d.cli import export_scene

    context = click.Context(command, **command.context_settings)
    # Launchers hand over to the commands that these modules and the job script are.
    for launcher, name in (
        ("orbit4d.model.train_main", "train"),
        ("orbit4d.render.job", "render"),
        ("render/job.py", "render"),
    ):
        if launcher in words:
            words = ["orbit4d", name, *words[words.index(launcher) + 1 :]]
    if words[:3] == ["ray", "job", "submit"] and "orbit4d" in words:
        words = words[words.index("orbit4d") :]
    if words[0] != "orbit4d":
        return [], words
    if words[1] == "export":
        return [export, export_scene], words[2:]
    found = command.get_command(context, words[1])
    assert found is not None, f"there is no command {words[1]}"
    if isinstance(found, click.Group):
        # `compose` and `animate` take a prompt or an image in place of a subcommand.
        own = {"compose": "run", "animate": "make"}.get(words[1])
        other = own is not None and words[2] not in found.list_commands(context)
        found = found.get_command(context, own if own and other else words[2])
        assert found is not None, f"{words[1]} has no {words[2]}"
        return [found], words[3:]
    return [found], words[2:]


def _wrong(found: click.Command, words: Sequence[str]) -> str:
    """What is wrong with the options of a line, '' when nothing is."""
    options = {
        name: p for p in found.params if isinstance(p, click.Option) for name in (*p.opts, *p.secondary_opts)
    }
    for word, value in zip(words, [*words[1:], ""]):
        if word.startswith("--") and word != "--":
            if word not in options:
                return f"no {word}"
            kind = options[word].type
            if isinstance(kind, click.Choice) and value not in kind.choices:
                return f"{word} does not take {value}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_command_lines_name_options_that_exist(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in _lines(page):
        words = shlex.split(line)
        if words[0] == "make":
            assert set(words[1:]) <= targets, line
            continue
        if re.fullmatch(r"[A-Z_]+=.*", words[0]):
            continue
        found, rest = _target(words)
        elsewhere = (["ray", "up"], ["ray", "down"], ["ray", "start"], ["aws", "s3"])
        assert found or words[:2] in elsewhere, f"{page.name}: {line}: an unknown program"
        wrong = [_wrong(one, rest) for one in found]
        assert not wrong or "" in wrong, f"{page.relative_to(ROOT)}: {line}: {wrong}"


def test_a_wrong_option_is_found() -> None:
    found, rest = _target(shlex.split("orbit4d recon4d clip.mp4 --preset slow"))
    assert _wrong(found[0], rest) == "--preset does not take slow"
    found, rest = _target(shlex.split("ray submit c.yaml render/job.py -- t --out d --wrkers 2"))
    assert _wrong(found[0], rest) == "no --wrkers"


def test_files_and_folders_that_pages_name_exist() -> None:
    """Paths in backticks that begin with a package or tests; `tests/x.py` and so on."""
    for page in PAGES:
        if page.name == "CHANGELOG.md":
            continue
        folders = "datasets|render|curate|model|recon4d|compose|evaluate|app|tests|bench|examples|docs"
        pattern = rf"`((?:{folders})/[\w./-]*)`"
        for name in re.findall(pattern, page.read_text()):
            assert (ROOT / name).exists(), f"{page.relative_to(ROOT)} names {name}"


def test_modules_that_the_changelog_moves_to_exist() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| `([\w.]+)` \|$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert len(rows) > 150 and len({was for was, _ in rows}) == len(rows)
    for was, now in rows:
        assert (ROOT / Path(*now.split("."))).with_suffix(".py").is_file(), f"{was} -> {now}"


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
