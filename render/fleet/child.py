"""One Blender child process, owned by whoever made it: started on demand, watched, killed, recycled.

Blender aborts, hangs and leaks on files from the wild. All of that happens in a process of its own, with
its own process group and a pipe of its own, so that it costs one child and never the fleet.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

from orbit4d.datasets.core.scratch import make_scratch
from orbit4d.render.fleet.settings import START_TIMEOUT, Limits
from orbit4d.render.protocol import wire as protocol
from orbit4d.render.protocol.messages import (
    Answer,
    Done,
    Event,
    Failed,
    ProtocolError,
    Ready,
    Refused,
    Request,
    answer_of,
    to_json,
)

#: Bytes of the child's log that are kept with a failure.
LOG_TAIL_BYTES = 4000
#: Seconds between looks at the child's memory and clock.
POLL_SECONDS = 0.2

# The kernel's parent-death signal follows the thread that forked, not the process: a child started from a
# short thread would die with it. One thread that lives as long as the process starts them all.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="blender-spawner")


class ChildError(Exception):
    """A task did not end well. `reason` is a code; `retry` says whether another attempt may help."""

    retry = True

    def __init__(self, reason: str, detail: str, log_tail: str = "") -> None:
        super().__init__(detail)
        self.reason, self.detail, self.log_tail = reason, detail, log_tail

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.reason, self.detail, self.log_tail)


class TaskRefused(ChildError):
    """The input is bad in itself (`bad_file:…`): every attempt would end the same way."""

    retry = False


class TaskFailed(ChildError):
    """The task raised; the child lives on. Reason `error`."""


class ChildDied(ChildError):
    """The child is gone: `crash` (it ended by itself), `time_out` or `memory` (it was killed)."""


class BlenderChild:
    """A child process that runs tasks one at a time. Not safe to share between threads.

    Use as a context manager, or call `close()`.
    """

    def __init__(
        self,
        threads: int = 1,
        limits: Limits | None = None,
        recycle_growth_bytes: int = 2 << 30,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """`limits.max_rss_bytes` kills a task; `limits.recycle_after` tasks, or a child that keeps more than
        `recycle_growth_bytes` above what it had when it started, make the next task start a fresh child."""
        self.threads, self.limits = threads, limits or Limits()
        self.recycle_growth_bytes = recycle_growth_bytes
        self.env = dict(env or {})
        self.versions: dict[str, str] = {}
        self.peak_rss_bytes = 0
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._scratch: str | None = None
        self._buffer = b""
        self._served = 0
        self._rss_at_start = 0

    @property
    def pid(self) -> int | None:
        """Process id of the running child, which is also its process group; None when none runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the child now (otherwise the first call does) and wait until it has imported bpy."""
        if self._process is not None:
            return
        if self._log is not None:
            self._log.close()
        self._log = tempfile.TemporaryFile(prefix="orbit4d-blender-")  # noqa: SIM115 - outlives this call
        # Both ends share one offset: without append mode, emptying the file would leave a hole before the
        # next line.
        fcntl.fcntl(self._log, fcntl.F_SETFL, fcntl.fcntl(self._log, fcntl.F_GETFL) | os.O_APPEND)
        # Blender makes a temporary folder as it starts, which a killed one leaves behind.
        self._scratch = make_scratch()
        self._buffer, self._served = b"", 0
        self._process = _spawner.submit(self._spawn, self._log).result()
        self.starts += 1
        ready = self._answer(START_TIMEOUT, None)
        if not isinstance(ready, Ready):
            detail = str(getattr(ready, "detail", ready))
            tail = self.log_tail()
            self.close()
            raise TaskRefused("blender:import", detail, tail)
        self.versions = dict(ready.versions)
        self._rss_at_start = rss_bytes(self._process.pid)

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        threads = str(self.threads)
        limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PXR_WORK_THREAD_LIMIT"), threads)
        # -P keeps the working directory off sys.path: from the repository root, our `datasets` folder would
        # shadow Hugging Face's.
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "orbit4d.render.blender.main", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            bufsize=0,
            start_new_session=True,
            env={**os.environ, **limits, "TMPDIR": str(self._scratch), **self.env},
        )

    def call(
        self,
        task: str,
        payload: Mapping[str, Any],
        timeout: float,
        on_event: Callable[[dict[str, Any]], None] | None = None,
        import_timeout: float | None = None,
    ) -> dict[str, Any]:
        """Run one task and return its result. Raises TaskRefused, TaskFailed or ChildDied.

        `timeout` in seconds starts when the child is ready, and again with each event `action` that the task
        emits: an asset may hold many actions. A task that imports an asset emits `imported`; when it has not
        within `import_timeout`, the child is killed. Events go to `on_event`.
        """
        if self._process is not None and (self._process.poll() is not None or self._is_spent()):
            self.close()
        self.start()
        assert self._process is not None and self._process.stdin is not None and self._log is not None
        self._log.truncate(0)  # the child appends, so each task starts an empty log
        self.peak_rss_bytes = 0
        self._served += 1
        try:
            self._process.stdin.write(protocol.encode(to_json(Request(task, dict(payload)))))
        except BrokenPipeError:
            raise self._died("crash", "the child ended before it took the task") from None
        now = time.monotonic()
        answer = self._answer(timeout, on_event, None if import_timeout is None else now + import_timeout)
        if isinstance(answer, Done):
            return answer.result
        if isinstance(answer, Refused):
            raise TaskRefused(answer.code, answer.detail, self.log_tail())
        assert isinstance(answer, Failed), answer
        raise TaskFailed("error", answer.detail, self.log_tail() + answer.traceback)

    def _answer(
        self,
        timeout: float,
        on_event: Callable[[dict[str, Any]], None] | None,
        import_deadline: float | None = None,
    ) -> Answer:
        """The next message that is not an event; kills the child when it is late or too big."""
        process = self._process
        assert process is not None and process.stdout is not None
        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                while b"\n" in self._buffer:
                    line, self._buffer = self._buffer.split(b"\n", 1)
                    message = protocol.decode(line)
                    if message is None:
                        continue
                    try:
                        answer = answer_of(message)
                    except ProtocolError as error:
                        raise self._died("protocol", str(error)) from None
                    if not isinstance(answer, Event):
                        return answer
                    if answer.event == "imported":
                        import_deadline = None
                    if answer.event == "action":
                        deadline = time.monotonic() + timeout
                    if on_event is not None:
                        on_event({"event": answer.event, **answer.fields})
                left = min(deadline, import_deadline or deadline) - time.monotonic()
                if left <= 0:
                    what = "no answer" if import_deadline is None else "the file was not read"
                    raise self._died("time_out", f"{what} within the time limit")
                if selector.select(min(left, POLL_SECONDS)):
                    data = os.read(process.stdout.fileno(), 1 << 20)
                    if not data:
                        raise self._died("crash", "")
                    self._buffer += data
                rss = rss_bytes(process.pid)
                self.peak_rss_bytes = max(self.peak_rss_bytes, rss)
                most = self.limits.max_rss_bytes
                if most is not None and rss > most:
                    raise self._died("memory", f"{rss >> 20} MiB resident, the limit is {most >> 20}")

    def _died(self, reason: str, detail: str) -> ChildDied:
        """Close the child and say how it ended."""
        process = self._process
        assert process is not None
        if reason == "crash":
            try:
                code = process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                code = None
            detail = detail or f"the child ended with {_exit_text(code)}"
        tail = self.log_tail()
        self.close()
        return ChildDied(reason, detail, tail)

    def _is_spent(self) -> bool:
        assert self._process is not None
        grown = rss_bytes(self._process.pid) - self._rss_at_start
        return self._served >= self.limits.recycle_after or grown > self.recycle_growth_bytes

    def log_tail(self) -> str:
        """The end of what the child has printed during the task."""
        if self._log is None:
            return ""
        size = os.fstat(self._log.fileno()).st_size
        start = max(0, size - LOG_TAIL_BYTES)
        return os.pread(self._log.fileno(), size - start, start).decode(errors="replace")

    def close(self) -> None:
        """Kill the child and everything it started."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):  # it may be gone already; wait() still reaps it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def __enter__(self) -> BlenderChild:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
        if self._log is not None:
            self._log.close()
            self._log = None


def rss_bytes(pid: int) -> int:
    """Resident memory of a process in bytes, 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _exit_text(code: int | None) -> str:
    if code is None:
        return "no exit status"
    if code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"exit status {code}"
