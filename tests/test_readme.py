"""What the README says of the dataset and the commands is what the code does."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from click.testing import CliRunner

from orbit4d.app.cli import COMMANDS, command
from orbit4d.datasets.store.schema import INDEX_SCHEMA

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_schema_table_is_the_schema() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", README, re.MULTILINE)
    assert rows == [(f.name, f.metadata[b"description"].decode()) for f in INDEX_SCHEMA]


def test_every_command_is_shown_with_options_that_exist() -> None:
    """Each line `$ orbit4d NAME ...` of the README names a command, and options that its --help lists."""
    lines = [line[2:] for line in README.splitlines() if line.startswith("$ orbit4d ")]
    shown = {shlex.split(line)[1] for line in lines}
    assert shown == set(COMMANDS), shown ^ set(COMMANDS)
    for line in lines:
        words = shlex.split(line)
        name, rest = words[1], words[2:]
        group = [rest[0]] if name == "eval" else []
        scene = ["demo/scene"] if name == "export" else []
        help_text = CliRunner().invoke(command, [name, *group, *scene, "--help"]).output
        for word in rest:
            if word.startswith("--"):
                assert word in help_text or name == "export", f"{line}: {name} has no {word}"


def test_pictures_and_files_that_it_names_exist() -> None:
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / path).stat().st_size < 1_000_000, path
    for name in (
        "ray_cluster.yaml",
        "datasets/cameras/camera.py",
        "datasets/store/schema.py",
        "tests/test_house.py",
    ):
        assert name in README and (ROOT / name).is_file()
