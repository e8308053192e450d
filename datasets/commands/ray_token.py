"""Ray's authentication token, for commands that start a Ray or look for one.

A local Ray guards itself by a token, which it would leave in ~/.ray/auth_token. A cluster that is started or
looked for on this machine later would take that token for its own, and refuse, or be refused by, everyone
without it. So a Ray of ours gets its token by the environment, for its own time.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

_MODE, _TOKEN, _PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


def kept_token() -> str:
    """Where this machine's own token stands: the name of a variable or file, '' where there is none."""
    for name in (_TOKEN, _PATH):
        if os.environ.get(name):
            return name
    try:
        path = Path.home() / ".ray" / "auth_token"
        return "~/.ray/auth_token" if path.is_file() else ""
    except (OSError, RuntimeError):
        return ""  # no home folder


@contextlib.contextmanager
def passing_token() -> Iterator[None]:
    """Give a Ray that is started in the body a token that is kept in no file and forgotten at the end.

    What the user has set, or kept in a file, is left as it is.
    """
    if os.environ.get(_MODE) is not None or kept_token():
        yield
        return
    os.environ[_TOKEN] = secrets.token_hex(32)
    _read_again()
    try:
        yield
    finally:
        for name in (_TOKEN, _MODE):  # the second is Ray's own doing
            os.environ.pop(name, None)
        _read_again()


def _read_again() -> None:
    """Let Ray, which keeps what it read of the environment, read it again."""
    with contextlib.suppress(ImportError, AttributeError):
        raylet = importlib.import_module("ray._raylet")  # made of C++, without types
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()


def token_hint() -> str:
    """What to try where a cluster cannot be reached, as far as tokens may be the reason."""
    if kept := kept_token():
        fix = f"set {_MODE}=disabled where it has none, or {_TOKEN}"
        return f"the token in {kept} may not be the cluster's: {fix}"
    return f"where it asks for a token set {_MODE}=token and {_TOKEN}"
