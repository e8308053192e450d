"""Paths and URIs as arguments and options: one click type, and the commands that serve it.

A `Place` may be a path or an fsspec URI. Commands of this module's classes hand their functions local paths:
what is at a URI is fetched before, what belongs there is uploaded afterwards (`remote`).
"""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import click

from orbit4d.datasets.core.errors import InputError, OrbitError

Use = Literal["input", "file", "folder", "run", "local"]
#: What the user reads when Ctrl-C ends a command whose work is kept.
RESUMED = "interrupted; run the same command again to resume"
#: What videos are called; other URIs of a truth are datasets and assets, which are read where they are.
VIDEOS = (".mp4", ".webm", ".gif", ".mov", ".avi", ".mkv", ".m4v")


class Place(click.ParamType):
    """A path, or a URI that the command's function sees as a local path.

    `use`: `input` is fetched; `file` and `folder` are written locally and then uploaded; `run` is a folder
    that also starts with what the URI holds and is uploaded when the command stops early; `local` is refused
    as a URI. Folders directly under it named by `leave_out`, a collection or a function of the command's
    parameters, are not fetched. `native` says which texts are left as they are, since the command reads URIs
    of that kind itself.
    """

    name = "path"

    def __init__(
        self,
        use: Use = "input",
        as_text: bool = False,
        leave_out: Collection[str] | Callable[[dict[str, Any]], Collection[str]] = (),
        native: Callable[[str], bool] | None = None,
    ) -> None:
        self.use, self.as_text, self.leave_out, self.native = use, as_text, leave_out, native

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = os.fspath(value)
        if text.startswith("file://"):
            text = text.removeprefix("file://")
        # A URI stays a text until the command runs: pathlib would take a slash from it.
        return text if self.as_text or "://" in text else Path(text)

    def open(self, value: Any, params: dict[str, Any], held: contextlib.ExitStack) -> Any:
        """The local path of a converted value; what has to be undone or uploaded is put on `held`."""
        from orbit4d.datasets.core.remote import fetched, is_remote, stand_in

        if not isinstance(value, str) or not is_remote(value) or (self.native and self.native(value)):
            return value
        if self.use == "local":
            raise InputError(f"{value}: is a URI where a local path is needed; give a path")
        leave_out = self.leave_out(params) if callable(self.leave_out) else self.leave_out
        if self.use == "input":
            path = held.enter_context(fetched(value, leave_out))
        else:
            path = held.enter_context(stand_in(value, self.use == "file", self.use == "run", leave_out))
        return str(path) if self.as_text else path


def in_dataset(text: str) -> bool:
    """`native` of what may be a dataset or DATASET:uid[:action], which are read where they are."""
    from orbit4d.datasets.core.paths import is_dataset
    from orbit4d.datasets.index.reference import split_reference

    return is_dataset(split_reference(text)[0])


def not_a_video(text: str) -> bool:
    """`native` of a ground truth: all but videos is read where it is."""
    return os.path.splitext(text)[1].lower() not in VIDEOS


class Interrupted(Exception):
    """Ctrl-C ended a command; the text is what the user reads."""


class ReaderLeft(Exception):
    """Whoever read the output closed it (`orbit4d list ds | head`); click would make a failure of it."""


class Command(click.Command):
    """A command that serves parameters of type `Place` and `-h`; `on_interrupt` is printed at Ctrl-C.

    `groups` are the sections of its help: heading -> the options below it, as one line of words. What no
    group names stands under `Options`.
    """

    def __init__(
        self,
        *args: Any,
        on_interrupt: str = "interrupted",
        groups: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **_with_short_help(kwargs))
        self.on_interrupt = on_interrupt
        self.groups = {heading: tuple(names.split()) for heading, names in (groups or {}).items()}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        heading_of = {name: heading for heading, names in self.groups.items() for name in names}
        sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in (*self.groups, "Options")}
        for option in self.get_params(ctx):
            if (record := option.get_help_record(ctx)) is not None:
                sections[heading_of.get(option.opts[0], "Options")].append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with contextlib.ExitStack() as held:
                if _open_places(self, ctx, held):
                    _name_output(held)
                return super().invoke(ctx)
        except (click.Abort, KeyboardInterrupt) as error:
            raise Interrupted(self.on_interrupt) from error
        except BrokenPipeError as error:
            raise ReaderLeft from error


class Group(click.Group):
    """A group that suggests the command that was meant; `-h` helps."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **_with_short_help(kwargs))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            names = self.list_commands(ctx)
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
            meant = f"; did you mean `{near[0]}`?" if near else f"; there are {', '.join(names)}"
            ctx.fail(f"no such command {name!r}{meant}")
        return super().resolve_command(ctx, args)


def _with_short_help(kwargs: dict[str, Any]) -> dict[str, Any]:
    settings = {"help_option_names": ["-h", "--help"], **(kwargs.get("context_settings") or {})}
    return {**kwargs, "context_settings": settings}


def _open_places(command: click.Command, ctx: click.Context, held: contextlib.ExitStack) -> bool:
    """Put local paths for the URIs among the parameters; whether there were any."""
    opened = False
    # Inputs first: an output is not touched before all inputs are known to be there.
    places = [(p.name, p.type) for p in command.params if p.name and isinstance(p.type, Place)]
    for name, place in sorted(places, key=lambda found: found[1].use != "input"):
        before = ctx.params.get(name)
        if isinstance(before, tuple):
            after: Any = tuple(place.open(value, ctx.params, held) for value in before)
        else:
            after = place.open(before, ctx.params, held)
        opened |= after != before
        ctx.params[name] = after
    return opened


@contextlib.contextmanager
def _named_errors() -> Any:
    from orbit4d.datasets.core.remote import named

    try:
        yield
    except OrbitError as error:
        error.args = (named(str(error)),)
        raise


def _name_output(held: contextlib.ExitStack) -> None:
    """Let messages and output name URIs. Innermost on `held`: outside of it no stand-in has a name."""
    from orbit4d.datasets.core.remote import NamedStream

    held.enter_context(_named_errors())
    held.enter_context(contextlib.redirect_stdout(NamedStream(sys.stdout)))
    held.enter_context(contextlib.redirect_stderr(NamedStream(sys.stderr)))
