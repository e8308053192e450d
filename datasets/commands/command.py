"""How every orbit4d command starts and ends: one-line errors, exit codes, no traceback without --debug."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from orbit4d.datasets.commands.options import Interrupted, ReaderLeft
from orbit4d.datasets.commands.streams import prepare_streams
from orbit4d.datasets.core.errors import InputError, OrbitError
from orbit4d.datasets.core.scratch import shorten_listeners, sweep_scratch

#: Packages of object stores' clients, whose exceptions are about addresses and credentials.
_CLOUD_CLIENTS = ("botocore", "aiobotocore", "boto3", "s3fs", "gcsfs", "google", "aiohttp", "adlfs", "azure")


def run(command: click.Command, argv: Sequence[str] | None = None, prog_name: str | None = None) -> int:
    """Run a click command and return its exit code: 0 good, 2 bad use, 1 failed work, 130 interrupted.

    `--debug` (anywhere before a bare `--`) or ORBIT4D_DEBUG=1 lets tracebacks through. Called by `python -m`
    from the root of a checkout, it takes that root off sys.path again, where our folder `datasets` would
    stand in front of Hugging Face's.
    """
    prepare_streams()
    keep_root_off_path()
    sweep_scratch()
    args = list(sys.argv[1:] if argv is None else argv)
    debug = os.environ.get("ORBIT4D_DEBUG") == "1"
    head = args[: args.index("--")] if "--" in args else args
    if "--debug" in head:
        args.remove("--debug")
        debug = True
    try:
        _check_letters(args)
        shorten_listeners()
        result = command.main(args=args, prog_name=prog_name, standalone_mode=False)
        # What does not fit on a full disk is an error now and not while Python ends.
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except Interrupted as stop:
        return _say(str(stop), 130, "")
    except (click.Abort, KeyboardInterrupt):
        return _say("interrupted", 130, "")
    except click.ClickException as error:
        return _say(error.format_message(), 2)
    except OrbitError as error:
        if debug:
            raise
        return _say(str(error), error.exit_code)
    except (BrokenPipeError, ReaderLeft):
        # The reader of our output left (`orbit4d stats | head`); keep the interpreter from complaining too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        return _say(*one_line(error, args))
    return result if isinstance(result, int) else 0


def one_line(error: Exception, words: Sequence[str] = ()) -> tuple[str, int]:
    """(message, exit code) for an exception that nobody turned into one of ours.

    `words` are those of the command: the URIs among them are named where a client of an object store failed.
    """
    kind, text = type(error), " ".join(str(error).split())
    package = kind.__module__.partition(".")[0]
    if package in _CLOUD_CLIENTS:
        where = ", ".join(word for word in words if "://" in word)
        what = f"{where}: {text or kind.__name__}" if where else text or kind.__name__
        return f"{what}; check the address, the network and the credentials", 2
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
        return "no space left for the output; free space and run the same command again", 1
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        fix = {
            errno.ENOSPC: "free space and run the same command again",
            errno.EROFS: "choose a place that can be written",
            errno.EACCES: "choose a place that you may use",
            errno.EPERM: "choose a place that you may use",
            errno.ENOENT: "check the path",
            errno.ENOTDIR: "check the path",
            errno.ENAMETOOLONG: "choose a shorter name",
        }.get(error.errno or 0, "check the path")
        return f"{os.fsdecode(error.filename)}: {error.strerror}; {fix}", 1
    return f"{kind.__name__}: {text} (run again with --debug for the traceback)", 1


def _check_letters(words: Sequence[str]) -> None:
    """Refuse words that are no text in the locale's encoding; libraries below take only text."""
    for word in words:
        if any("\udc80" <= letter <= "\udcff" for letter in word):
            raise InputError(
                f"{word}: is not {sys.getfilesystemencoding()} text; set PYTHONUTF8=1 if it is UTF-8, "
                "else rename it"
            )


def leave(code: int) -> NoReturn:
    """End the process with a command's exit code, without tearing the interpreter down.

    Threads of native libraries (Arrow, Ray, Blender) may let go of Python objects only while it is torn down,
    which aborts a process whose work is done. What was registered with `atexit` runs first.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def keep_root_off_path() -> None:
    """Drop the root of this checkout from sys.path; an installed orbit4d is not affected."""
    root = Path(__file__).resolve().parents[2]
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != root]


def _say(message: str, code: int, head: str = "error: ") -> int:
    with contextlib.suppress(OSError, ValueError):
        print(head + " ".join(message.split()), file=sys.stderr, flush=True)
    return code
