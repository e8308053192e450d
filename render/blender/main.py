# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""The Blender child: read tasks, run them, answer. Started by `orbit4d.render.fleet.child`, never by hand.

bpy and its add-ons print to stdout whatever they like, so the pipe is moved to another file descriptor before
bpy is imported, and stdout joins stderr in the log.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import signal
import sys
import traceback
from typing import IO, Any

from orbit4d.render.protocol.messages import (
    Answer,
    Done,
    Event,
    Failed,
    ProtocolError,
    Ready,
    Refused,
    Request,
    answer_to_json,
    from_json,
)

PR_SET_PDEATHSIG = 1


def main(parent_pid: int) -> None:
    """Serve tasks from fd 0, answer on what was fd 1, until the parent closes the pipe or dies."""
    _die_with(parent_pid)
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    try:
        import bpy
    except ImportError as error:
        # Most often a shared library that the system lacks; trying again cannot help.
        _send(answers, Refused("blender:import", str(error)))
        os._exit(1)
    _send(answers, Ready({"bpy": bpy.app.version_string}))
    for line in requests:
        _send(answers, _serve(line, answers))
        gc.collect()
    # Interpreter shutdown tears Blender down in an order that can crash it; there is nothing left to save.
    os._exit(0)


def _serve(line: bytes, answers: IO[bytes]) -> Answer:
    from orbit4d.render.blender.importers.cause import cause_of
    from orbit4d.render.protocol import wire as protocol

    try:
        request = from_json(Request, protocol.decode(line))
    except ProtocolError as error:
        return Refused("bad_task", str(error))
    if not protocol.TASK_NAME.match(request.task):
        return Refused("bad_task", f"no task named {request.task!r}")

    def emit(event: str, **fields: Any) -> None:
        _send(answers, Event(event, fields))

    try:
        module = importlib.import_module(f"orbit4d.render.blender.tasks.{request.task}")
        return Done(module.run(request.payload, emit) or {})
    except Exception as error:
        # The fence between untrusted work and the fleet: whatever a task raises becomes an answer.
        code = getattr(error, "code", None)
        if isinstance(code, str):
            return Refused(code, str(error))
        detail = f"{type(error).__name__}: {cause_of(error)}"
        return Failed(detail, traceback.format_exc()[-8000:])


def _send(answers: IO[bytes], message: Answer) -> None:
    from orbit4d.render.protocol import wire as protocol

    data = memoryview(protocol.encode(answer_to_json(message)))
    while data:
        data = data[answers.write(data) :]


def _die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies, however the parent dies (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        try:
            with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
                file.write("800")  # when memory runs out, lose this child and not the actor that owns it
        except OSError:
            print("oom_score_adj cannot be set here", file=sys.stderr)
    if os.getppid() != parent_pid:
        os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
