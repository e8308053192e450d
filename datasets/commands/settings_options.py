"""Options of a command from the fields of a frozen dataclass: names, types, choices, defaults and help.

So a setting's default and description stand once. The docstring under a field is its help; it is read from
the source only when help is shown.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class Size(click.ParamType):
    """Bytes, written 512M, 8G or 1.5GiB."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(?:i?B)?", str(value), re.IGNORECASE)
        if match is None:
            self.fail(f"{value!r} is not a size; write 512M or 8G", param, ctx)
        power = " KMGT".index(match.group(2).upper() or " ")
        return int(float(match.group(1)) * 1024**power)


def size_text(n_bytes: int | None) -> str | None:
    """`Size` of a whole number of GiB as text, say 8G; None stays None, no size."""
    return None if n_bytes is None else f"{n_bytes >> 30}G"


def field_docs(settings: type[Any]) -> dict[str, str]:
    """Field -> the docstring under it, in one line, for the fields that have one."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(settings))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for statement, after in zip(body.body, body.body[1:]):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            text = after.value if isinstance(after, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                found[statement.target.id] = " ".join(text.value.split())
    return found


class FieldOption(click.Option):
    """An option whose help is the docstring of a field."""

    def __init__(self, *args: Any, settings: type[Any], field: str, **kwargs: Any) -> None:
        self._settings, self._field = settings, field
        super().__init__(*args, **kwargs)

    @property
    def help(self) -> str | None:  # type: ignore[override]
        """The docstring under the field, read at the first call."""
        return field_docs(self._settings)[self._field]

    @help.setter
    def help(self, text: str | None) -> None:
        if text is not None:
            raise ValueError("the help of a FieldOption is its field's docstring")


def options_of(settings: type[Any], *names: str) -> Callable[[F], F]:
    """Decorator that adds an option for each of the fields `names`, in that order.

    A field `max_rss_bytes` becomes `--max-rss` and takes a `Size`; a Literal becomes a choice, a bool that is
    False a flag. The command's function gets the values under the fields' names. KeyError for a name that is
    no field, ValueError for a type that no option can have.
    """
    hints = typing.get_type_hints(settings)
    defaults = {each.name: None if each.default is MISSING else each.default for each in fields(settings)}

    def add(function: F) -> F:
        for name in reversed(names):
            flag = "--" + name.removesuffix("_bytes").replace("_", "-")
            how = _how(name, hints[name], defaults[name])
            function = click.option(flag, name, cls=FieldOption, settings=settings, field=name, **how)(
                function
            )
        return function

    return add


def _how(name: str, hint: Any, default: Any) -> dict[str, Any]:
    """What click wants to know of an option."""
    shown = {"default": default, "show_default": default is not None}
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (hint,) = (each for each in typing.get_args(hint) if each is not type(None))
    if name.endswith("_bytes"):
        return {**shown, "type": Size(), "default": size_text(default)}
    if typing.get_origin(hint) is typing.Literal:
        return {**shown, "type": click.Choice(list(typing.get_args(hint)))}
    if hint is bool and default is False:
        return {"is_flag": True, "default": False}
    if hint not in (int, float, str):
        raise ValueError(f"{name}: no option has the type {hint}")
    return {**shown, "type": hint}
