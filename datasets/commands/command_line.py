"""A command as it was typed, for messages that say how to continue."""

from __future__ import annotations

import shlex

import click
from click.core import ParameterSource


def command_line(context: click.Context, *more: str) -> str:
    """The running command with the options it was given, quoted for a shell, and `more` behind them that are
    not among them already."""
    words = context.command_path.split()
    for param in context.command.params:
        if param.name is None or context.get_parameter_source(param.name) != ParameterSource.COMMANDLINE:
            continue
        value = context.params[param.name]
        if not isinstance(param, click.Option):
            words += _texts(value)
        elif param.is_flag:
            words.append(param.opts[-1] if value else param.secondary_opts[-1])
        else:
            for one in value if param.multiple else [value]:
                words += [param.opts[-1], *_texts(one)]
    return shlex.join([*words, *(word for word in more if word not in words)])


def _texts(value: object) -> list[str]:
    return [str(one) for one in (value if isinstance(value, list | tuple) else [value])]
