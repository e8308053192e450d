"""How every orbit4d command starts and ends: one-line errors, exit codes, no traceback without --debug."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from orbit4d.datasets.errors import OrbitError


def run(command: click.Command, argv: Sequence[str] | None = None, prog_name: str | None = None) -> int:
    """Run a click command and return its exit code: 0 good, 2 bad use, 1 failed work, 130 interrupted.

    `--debug` (anywhere before a bare `--`) or ORBIT4D_DEBUG=1 lets tracebacks through. Called by `python -m`
    from the root of a checkout, it takes that root off sys.path again, where our folder `datasets` would
    stand in front of Hugging Face's.
    """
    keep_root_off_path()
    args = list(sys.argv[1:] if argv is None else argv)
    debug = os.environ.get("ORBIT4D_DEBUG") == "1"
    head = args[: args.index("--")] if "--" in args else args
    if "--debug" in head:
        args.remove("--debug")
        debug = True
    try:
        result = command.main(args=args, prog_name=prog_name, standalone_mode=False)
    except click.exceptions.Exit as end:
        return end.exit_code
    except (click.Abort, KeyboardInterrupt):
        print("interrupted: what was committed is kept; run the same command again to go on", file=sys.stderr)
        return 130
    except click.ClickException as error:
        return _say(error.format_message(), 2)
    except OrbitError as error:
        if debug:
            raise
        return _say(str(error), error.exit_code)
    except BrokenPipeError:
        # The reader of our output left (`orbit4d stats | head`); keep the interpreter from complaining too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        return _say(f"{type(error).__name__}: {error} (run again with --debug for the traceback)", 1)
    return result if isinstance(result, int) else 0


def leave(code: int) -> NoReturn:
    """End the process with a command's exit code, without tearing the interpreter down.

    Threads of native libraries (Arrow, Ray, Blender) may let go of Python objects only while it is torn down,
    which aborts a process whose work is done. What was registered with `atexit` runs first.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BrokenPipeError, ValueError):
            stream.flush()
    os._exit(code)


def keep_root_off_path() -> None:
    """Drop the root of this checkout from sys.path; an installed orbit4d is not affected."""
    root = Path(__file__).resolve().parent.parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != root]


def _say(message: str, code: int) -> int:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return code
