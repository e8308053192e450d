"""Named places where a test may kill the process, to prove the promises of the commit protocol.

`ORBIT4D_CRASH_AT=roll_after_shard` ends the process with SIGKILL the first time it passes that point;
`roll_after_shard:3` the third time. Several points are separated by commas. With `ORBIT4D_CRASH_ONCE=FOLDER`
each kills one process only, however many pass it: the first to leave its mark in that folder. Without the
variable a crash point costs one dictionary look-up.
"""

from __future__ import annotations

import os
import signal

#: Every point of the dataset's commit protocol, in the order they are passed.
COMMIT_POINTS = (
    "create_before_manifest",
    "create_after_manifest",
    "put_before_rename",
    "stage_before_tar",
    "stage_after_tar",
    "stage_done",
    "roll_after_rejected",
    "roll_before_shard",
    "roll_after_shard",
    "roll_after_index",
    "roll_half_deleted",
    "roll_done",
    "compact_after_merged",
    "compact_half_deleted",
)

_seen: dict[str, int] = {}


def crash_point(name: str) -> None:
    """Die here if the environment asks for it."""
    asked = os.environ.get("ORBIT4D_CRASH_AT")
    if not asked:
        return
    for entry in asked.split(","):
        point, _, count = entry.partition(":")
        if point == name:
            _seen[name] = _seen.get(name, 0) + 1
            if _seen[name] >= int(count or 1) and _first(name):
                os.kill(os.getpid(), signal.SIGKILL)


def _first(name: str) -> bool:
    """Whether no process died at this point yet, when each is to kill only one."""
    folder = os.environ.get("ORBIT4D_CRASH_ONCE")
    if not folder:
        return True
    try:
        os.close(os.open(os.path.join(folder, name), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True
