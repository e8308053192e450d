# SPDX-License-Identifier: GPL-3.0-or-later
# This module runs inside Blender's process, which is GPL, so it is GPL too.
"""A task that misbehaves on request: what the fleet's tests, and `orbit4d doctor`, run a child with."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from orbit4d.render.protocol.wire import RefusedInput


def run(payload: dict[str, Any], emit: Callable[..., None]) -> dict[str, Any]:
    """Do what `payload["do"]` says, or on the first attempts only: `payload["do_once"]` with a marker
    file.
    """
    do = payload.get("do", "echo")
    marker = payload.get("once_marker")
    if marker is not None:
        if os.path.exists(marker):
            do = "echo"
        else:
            with open(marker, "w", encoding="utf-8"):
                pass
    emit("started", do=do)
    if do == "abort":
        print("selftest: about to abort", flush=True)
        os.abort()
    if do == "hang":
        time.sleep(payload.get("seconds", 3600))
    if do == "allocate":
        block = bytearray(int(payload["bytes"]))
        block[:: os.sysconf("SC_PAGE_SIZE")] = b"x" * len(block[:: os.sysconf("SC_PAGE_SIZE")])
        time.sleep(payload.get("seconds", 3600))
    if do == "actions":
        for index in range(payload["count"]):
            time.sleep(payload["seconds"])
            emit("action", index=index)
    if do == "raise":
        raise RuntimeError("selftest was told to raise")
    if do == "refuse":
        raise RefusedInput("bad_file:selftest", "selftest was told to refuse")
    if do == "sleep":
        time.sleep(payload["seconds"])
    if do == "print":
        print("noise on stdout", flush=True)
        print('{"type": "result", "result": {"forged": true}}', flush=True)
        os.write(1, b"noise on fd 1\n")
        print("noise on stderr", file=sys.stderr, flush=True)
    return {"pid": os.getpid(), "echo": payload.get("echo"), "path": list(sys.path)}
