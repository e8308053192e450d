"""Pages of docs/reference made from the code: commands, public names, schema of the index, packages.

python docs/generated.py            write them
python docs/generated.py --check    exit 1 when one is stale (tests/test_docs.py does the same)
"""

from __future__ import annotations

import ast
import sys
import textwrap
from pathlib import Path

import click

HERE = Path(__file__).resolve().parent
PACKAGES = ("datasets", "render", "curate", "model", "recon4d", "compose", "evaluate", "app")
NOTE = "<!-- made by docs/generated.py: edit the code, not this page -->\n\n"


def commands() -> str:
    """reference/cli.md: every command with its help, options in a table."""
    from orbit4d.app.cli import command
    from orbit4d.datasets.cli import export
    from orbit4d.recon4d.cli import export_scene

    lines = ["# Commands\n", "Every command takes `--help`. `orbit4d COMMAND --debug` shows tracebacks.\n"]
    context = click.Context(command, info_name="orbit4d", **command.context_settings)
    for name in command.list_commands(context):
        lines += _command(command.get_command(context, name), f"orbit4d {name}", context, 2)
        if name == "export":  # hands over to one of two commands by what lies in the folder
            lines += _command(export, "orbit4d export DATASET", context, 3)
            lines += _command(export_scene, "orbit4d export SCENE", context, 3)
    return NOTE + "\n".join(lines) + "\n"


def _command(command: click.Command, name: str, parent: click.Context, level: int) -> list[str]:
    context = click.Context(command, info_name=name, parent=parent, **command.context_settings)
    pieces = command.collect_usage_pieces(context)
    usage = " ".join([name, *(piece for piece in pieces if piece not in name.split())])
    lines = [f"{'#' * level} {name}\n", f"    {usage}\n", _dedent(command.help or ""), ""]
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    if options:
        lines += ["| option | what it does |", "|---|---|"]
        lines += [
            f"| `{_cell(record[0])}` | {_cell(record[1])} |"
            for p in options
            if (record := p.get_help_record(context))
        ]
        lines.append("")
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None:
                lines += _command(found, f"{name} {child}", context, level + 1)
    return lines


def _dedent(text: str) -> str:
    """click's help as Markdown: what stands after \\b keeps its lines."""
    blocks = []
    for block in text.replace("\f", "").strip().split("\n\n"):
        lines = [line.rstrip() for line in block.splitlines()]
        if lines and lines[0].strip() == "\b":
            blocks.append("```text\n" + "\n".join(line.strip("\b") for line in lines[1:]) + "\n```")
        else:
            words = " ".join(line.strip() for line in lines)
            blocks.append(textwrap.fill(words, 118, break_long_words=False, break_on_hyphens=False))
    return "\n\n".join(blocks)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def names() -> str:
    """reference/api.md: every public name of every package, by its stub."""
    lines = ["# Python API\n"]
    for package in PACKAGES:
        lines += [f"## orbit4d.{package}\n", "```{eval-rst}", f".. currentmodule:: orbit4d.{package}\n"]
        for name, kind in sorted(_kinds(package).items()):
            lines.append(f".. {kind}:: orbit4d.{package}.{name}")
            if kind == "autoclass":
                lines.append("   :members:")
            lines.append("")
        lines.append("```\n")
    return NOTE + "\n".join(lines)


def _kinds(package: str) -> dict[str, str]:
    """Public name -> autodoc directive, read from the stub and the defining file without importing it."""
    root = HERE.parent
    kinds = {}
    for statement in ast.parse((root / package / "__init__.pyi").read_text()).body:
        assert isinstance(statement, ast.ImportFrom) and statement.module
        home = root / Path(*statement.module.split(".")[1:]).with_suffix(".py")
        body = ast.parse(home.read_text()).body
        for alias in statement.names:
            found = next((n for n in body if getattr(n, "name", None) == alias.name), None)
            kinds[alias.name] = (
                "autoclass" if isinstance(found, ast.ClassDef) else "autofunction" if found else "data"
            )
    return kinds


def schema() -> str:
    """reference/index-schema.md: the columns of the index with their descriptions."""
    from orbit4d.datasets.store.schema import INDEX_SCHEMA, SCHEMA_VERSION

    lines = [
        "# Index schema\n",
        f"Version {SCHEMA_VERSION}. One row per clip; the descriptions stand in the Parquet files too.\n",
        "| column | Arrow type | what it is |",
        "|---|---|---|",
    ]
    for field in INDEX_SCHEMA:
        text = field.metadata[b"description"].decode()
        lines.append(
            f"| `{field.name}` | {_cell(str(field.type).replace('<', chr(92) + '<'))} | {_cell(text)} |"
        )
    return NOTE + "\n".join(lines) + "\n"


def packages() -> str:
    """reference/packages.md: every package and sub-package with the first line of its docstring."""
    lines = ["# Packages and sub-packages\n", "| folder | what it is |", "|---|---|"]
    for package in PACKAGES:
        for home in sorted((HERE.parent / package).rglob("__init__.py")):
            text = (ast.get_docstring(ast.parse(home.read_text())) or "").split("\n\n")[0]
            lines.append(f"| `{home.parent.relative_to(HERE.parent)}/` | {_cell(text)} |")
    return NOTE + "\n".join(lines) + "\n"


PAGES = {
    "reference/cli.md": commands,
    "reference/api.md": names,
    "reference/index-schema.md": schema,
    "reference/packages.md": packages,
}


def stale() -> list[str]:
    """Pages whose text is not what the code says."""
    return [p for p, make in PAGES.items() if not (HERE / p).exists() or (HERE / p).read_text() != make()]


def check() -> None:
    """Raises RuntimeError naming stale pages."""
    if old := stale():
        raise RuntimeError(f"stale: {', '.join(old)}; run python docs/generated.py")


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(f"stale: {stale()}" if stale() else 0)
    for page, make in PAGES.items():
        (HERE / page).parent.mkdir(exist_ok=True)
        (HERE / page).write_text(make())
        print(page)
