"""Exports that appear whole or not at all: a draft of the folder, filled by threads in a steady order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from orbit4d.datasets.core.atomic import replacing_folder
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.core.paths import is_uri
from orbit4d.datasets.core.remote import stand_in
from orbit4d.datasets.core.storage import Store

T = TypeVar("T")


@contextmanager
def placed(out: str) -> Iterator[tuple[Path, str]]:
    """(folder to fill, what `out` is called in files and messages). It becomes `out`, a path or URI, when the
    body ends well; nothing is left of it otherwise. InputError where `out` holds something already."""
    store = Store(out)
    taken = store.entries()
    if taken:
        raise InputError(f"{out}: holds {taken[0]} already; choose an empty --out")
    with ExitStack() as held:
        local = held.enter_context(stand_in(out)) if is_uri(out) else store.local
        assert local is not None
        try:
            local.parent.mkdir(parents=True, exist_ok=True)
            with replacing_folder(local) as draft:
                yield draft, store.uri
        except OSError as error:
            raise WorkError(f"{out}: cannot be written ({error.strerror or error})") from error


def files_in_order(
    pool: Executor, work: Iterable[tuple[Any, ...]], folder: Path, ahead: int
) -> Iterator[Any]:
    """Run `(function, *arguments)` of `work` in a pool; each gives (name -> bytes, result). Files are written
    as they come, results given in the order of `work`; at most `ahead` wait at a time."""
    waiting: deque[Future[Any]] = deque()
    for function, *arguments in work:
        waiting.append(pool.submit(_run, folder, function, arguments))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _run(folder: Path, function: Callable[..., tuple[dict[str, bytes], T]], arguments: list[Any]) -> T:
    files, result = function(*arguments)
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return result
