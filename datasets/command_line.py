"""A command as it was typed, for messages that say how to go on."""

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
        values = value if isinstance(value, list | tuple) else [value]
        if isinstance(param, click.Option):
            flag = param.secondary_opts[0] if param.is_flag and not value else param.opts[-1]
            words += [flag] if param.is_flag else [w for one in values for w in (flag, str(one))]
        else:
            words += [str(one) for one in values]
    return shlex.join([*words, *(word for word in more if word not in words)])
