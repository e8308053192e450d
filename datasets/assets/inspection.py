"""Why a file is refused before Blender sees it, what was learned of one that is not, and shared guards."""

from __future__ import annotations

import mmap
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

#: Every reason code a file can be refused for. Their text in a table is `bad_file:<key>`.
REASONS = {
    "missing": "the file, or a buffer it needs, is not there",
    "unreadable": "the file cannot be read, or is no regular file",
    "empty": "the file has no bytes",
    "changed": "the contents are not the ones a table or publisher promised",
    "format": "the suffix is not a supported format",
    "magic": "the contents are not of the format that the suffix names",
    "version": "a version of the format that Blender does not read",
    "truncated": "the file ends before its contents do",
    "header": "lengths or offsets in the headers contradict each other or the file",
    "corrupt": "the contents cannot be decoded",
    "index": "an index points outside the list it indexes",
    "outside": "the file names another one outside its own folder, or on the network",
    "non_finite": "positions, key times or key values that are NaN or infinite",
    "absurd": "counts or sizes beyond any honest asset",
    "extension": "the file requires a glTF extension that Blender does not have",
    "graph": "the node tree has a cycle or a node with two parents",
}

#: Reasons that say nothing about a file's contents: it may be there, readable and whole the next time.
PASSING = ("bad_file:missing", "bad_file:unreadable", "bad_file:changed")


class BadFile(Exception):
    """An asset file is refused. `code` is `bad_file:<reason>` with a reason of REASONS."""

    def __init__(self, reason: str, detail: str = "") -> None:
        assert reason in REASONS, reason
        self.code = f"bad_file:{reason}"
        self.detail = " ".join(detail.split())[:300]
        super().__init__(f"{self.code} ({self.detail})" if self.detail else self.code)


@dataclass(frozen=True)
class Limits:
    """Beyond these a file is `absurd`: generous against Objaverse, small against a machine's memory."""

    file_bytes: int = 4 << 30
    json_bytes: int = 64 << 20
    """Python needs some ten times the text for a parsed document."""
    vertices: int = 20_000_000
    """Over all primitives and morph targets of an asset, instances counted."""
    triangles: int = 40_000_000
    entries: int = 1_000_000
    """Of any one list: nodes, accessors, FBX records / 4."""
    mentions: int = 50_000
    """Different paths named in one file."""
    elements_read: int = 400_000_000
    """Numbers inspected in one file; bounds the time spent on it."""
    image_pixels: int = 1 << 28
    """16384 x 16384."""


LIMITS = Limits()


@dataclass(frozen=True)
class Inspection:
    """What a file says about itself. None: this format does not tell without being loaded."""

    format: str
    bytes: int
    sha256: str = ""
    n_animations: int | None = None
    animation_names: tuple[str, ...] = ()
    n_meshes: int | None = None
    n_vertices: int | None = None
    """Sum over mesh primitives, as stored (before Blender merges seams)."""
    n_triangles: int | None = None
    n_textures: int | None = None
    n_missing_textures: int = 0
    """Images named by a path at which there is no file."""
    n_materials: int | None = None
    draco: bool = False
    title: str = ""
    license: str = ""
    author: str = ""
    source_url: str = ""
    notes: tuple[str, ...] = ()
    """What could not be inspected, as flags."""


class Budget:
    """Counts down the numbers that may be inspected in one file."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.left = limits.elements_read

    def spend(self, n: int) -> None:
        self.left -= n
        if self.left < 0:
            raise BadFile("absurd", "the file's parts overlap so that reading them all would take too long")


def map_file(path: str) -> memoryview:
    """The bytes of a regular file, mapped and not read. Raises BadFile."""
    try:
        # O_NONBLOCK: opening a pipe planted under a model's name must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        raise BadFile("missing", f"{os.path.basename(path)} is not there") from None
    except OSError as error:
        raise BadFile("unreadable", error.strerror or str(error)) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BadFile("unreadable", f"{os.path.basename(path)} is no regular file")
        if status.st_size == 0:
            raise BadFile("empty", f"{os.path.basename(path)} has no bytes")
        if status.st_size > LIMITS.file_bytes:
            raise BadFile("absurd", f"{status.st_size} bytes")
        return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
    finally:
        os.close(descriptor)


def companion(folder: str, uri: str, what: str) -> str:
    """Local path of a file that an asset names by a glTF `uri`. Raises BadFile("outside").

    Refused: any scheme, absolute paths, drive letters, backslashes, `..` that leaves the folder, and symbolic
    links that do. The URI is decoded once, as Blender's importer does it.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", uri):
        raise BadFile("outside", f"{what} has the URI {uri[:60]!r}")
    path = unquote(uri)
    if path.startswith(("/", "\\", "~")) or "\\" in path or "\0" in path or re.match(r"[A-Za-z]:", path):
        raise BadFile("outside", f"{what} has the path {path[:60]!r}")
    target = os.path.join(folder, path)
    if not inside(folder, target):
        raise BadFile("outside", f"{what} has the path {path[:60]!r}")
    return target


def inside(folder: str, path: str) -> bool:
    """Whether `path` lies below `folder`, both as written and after following symbolic links."""
    written = os.path.abspath(path).startswith(os.path.join(os.path.abspath(folder), ""))
    return written and os.path.realpath(path).startswith(os.path.join(os.path.realpath(folder), ""))


class Mentions:
    """Holds the paths that one FBX, MTL, COLLADA or USD text mentions against the folder rule.

    Exporters write absolute and `..` paths of the author's machine as a matter of course. They do no harm
    while nothing lies there, so only a path at which this machine has a file outside the folder is refused.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._seen: dict[str, bool] = {}

    def check(self, mention: str, what: str) -> bool:
        """Whether the folder holds the file. Raises BadFile when it lies elsewhere."""
        if mention not in self._seen:
            # Each costs a look at the disk.
            if len(self._seen) >= LIMITS.mentions:
                raise BadFile("absurd", f"more than {LIMITS.mentions} paths are named")
            self._seen[mention] = self._look(mention, what)
        return self._seen[mention]

    def _look(self, mention: str, what: str) -> bool:
        if not mention or "\0" in mention:
            return False
        path = mention.replace("\\", "/")
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", path):
            if not path.lower().startswith("file://"):
                return False
            path = unquote(path[7:])
        target = path if path.startswith("/") else os.path.join(self.folder, path)
        if len(target) > 4096 or not os.path.lexists(target):
            return False
        if not inside(self.folder, target):
            raise BadFile("outside", f"{what} names {mention[:80]!r}")
        return True


#: Bytes of a text format that are inspected together, and the longest line it may have.
_BLOCK = 4 << 20


def folder_of(path: str) -> str:
    """The folder that a file may refer to."""
    return os.path.dirname(os.path.abspath(path))


def text_blocks(data: memoryview) -> Iterator[bytes]:
    """Blocks of whole lines. Raises BadFile for a line longer than a block."""
    rest = b""
    for start in range(0, len(data), _BLOCK):
        block = rest + bytes(data[start : start + _BLOCK])
        cut = block.rfind(b"\n") + 1
        rest = block[cut:]
        if len(rest) > _BLOCK:
            raise BadFile("corrupt", "a line of more than 4 MiB")
        if cut:
            yield block[:cut]
    if rest:
        yield rest


def check_counts(vertices: int, triangles: int) -> None:
    """Raise BadFile for more vertices or triangles than LIMITS allow."""
    if vertices > LIMITS.vertices or triangles > LIMITS.triangles:
        raise BadFile("absurd", f"{vertices} vertices, {triangles} triangles")
