"""How commands end: one line, an exit code, no traceback unless asked."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from orbit4d.app.cli import command as umbrella
from orbit4d.app.doctor import system_packages
from orbit4d.datasets.commands.command import run
from orbit4d.datasets.commands.options import Command
from orbit4d.datasets.core.errors import InputError, WorkError


def failing(error: BaseException) -> click.Command:
    @click.command()
    @click.option("--frames", type=int)
    def command(frames: int | None) -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("no such folder: assets; give one that exists"), 2),
        (WorkError("shard 3\nis truncated"), 1),
        (RuntimeError("surprise"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_an_error_is_one_line_and_a_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(failing(error), []) == code
    out, err = capsys.readouterr()
    # click moves below an echoed ^C before we speak, hence the strip.
    assert out == "" and err.strip().count("\n") == 0 and err.strip() and "Traceback" not in err


def test_bad_use_is_one_line_with_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["--frames", "many"], ["--nonsense"], ["surplus"]):
        assert run(failing(AssertionError("not reached")), argv) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and err.startswith("error: ")


def test_debug_lets_the_traceback_through() -> None:
    with pytest.raises(WorkError):
        run(failing(WorkError("broken")), ["--debug"])


def test_a_command_may_return_its_exit_code() -> None:
    @click.command()
    def command() -> int:
        return 1

    assert run(command, []) == 1


def test_system_packages_are_read_and_probed() -> None:
    packages = system_packages()
    assert {"python3.11-venv", "libgl1", "chromium"} <= {package.name for package in packages}
    assert all(package.probe.split(":")[0] in {"lib", "bin", "venv"} for package in packages)
    missing = type(packages[0])("nothing", "lib:libnothing-at-all.so.9", "nobody")
    assert not missing.present()


def options_of(
    command: click.Command, parent: click.Context | None, name: str
) -> list[tuple[str, click.Option]]:
    """(command as typed, option) of a command and of those below it."""
    context = click.Context(command, info_name=name, parent=parent, **command.context_settings)
    found = [(context.command_path, param) for param in command.params if isinstance(param, click.Option)]
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            member = command.get_command(context, child)
            assert member is not None
            found += options_of(member, context, child)
    return found


@pytest.mark.parametrize("name", ["render", "curate", "train", "generate", "recon4d"])
def test_groups_of_options_name_each_once(name: str) -> None:
    command = umbrella.get_command(click.Context(umbrella), name)
    assert isinstance(command, Command)
    named = [option for names in command.groups.values() for option in names]
    options = [param.opts[0] for param in command.params if isinstance(param, click.Option)]
    assert set(options) <= set(named) and len(named) == len(set(named))
    page = command.get_help(click.Context(command, **command.context_settings))
    assert [page.index(f"\n{heading}:\n") for heading in (*command.groups, "Options")]
    assert all(page.count(f"  {option} ") + page.count(f"  {option},") <= 1 for option in options)


def test_every_option_has_a_description() -> None:
    bare = [(path, option.opts) for path, option in options_of(umbrella, None, "orbit4d") if not option.help]
    assert bare == []


def test_the_script_curate_knows_the_built_in_assets() -> None:
    """`demo:` is registered by the app, which the script starts in, too."""
    code = (
        "import sys; sys.argv = ['curate', 'demo:other']; "
        "from orbit4d.app.cli import curate_main; curate_main()"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "write demo: or demo:small" in done.stderr
