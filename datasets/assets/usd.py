"""USD as text, as a crate (.usdc) and in a package (.usdz): structure, lengths, mentioned paths.

Each inspector takes (path, mapped bytes, format name) and raises BadFile; see `assets/inspect.py`. A
crate holds every string once, in its section TOKENS, so that the paths it names are found without reading its
scene.
"""

from __future__ import annotations

import re
import struct
import zipfile
from collections.abc import Iterator

from orbit4d.datasets.assets.inspection import BadFile, Inspection, Mentions, folder_of, inside, text_blocks

_CRATE = b"PXR-USDC"
_PATH = re.compile(rb"@([^@\r\n]{1,1024})@")
#: Bytes of TOKENS, packed and unpacked; names of 100,000 prims take some 2 MiB.
_MOST_PACKED, _MOST_TOKENS = 8 << 20, 32 << 20


def inspect_usd(path: str, data: memoryview, name: str) -> Inspection:
    """A layer: text or crate."""
    _check_layer(data, name, Mentions(folder_of(path)))
    return Inspection(name, len(data))


def inspect_usdz(path: str, data: memoryview, name: str) -> Inspection:
    """A package: every layer in it is held to the rules of a layer beside it."""
    if bytes(data[:4]) != b"PK\x03\x04":
        raise BadFile("magic", f"starts with {bytes(data[:4])!r}")
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise BadFile("truncated", str(error)) from None
    with archive:
        members = archive.infolist()
    if len(members) > 100_000:
        raise BadFile("absurd", f"{len(members)} members")
    mentions = Mentions(folder_of(path))
    layers = 0
    for member in members:
        title = repr(member.filename[:80])
        if not inside("/package", "/package/" + member.filename) or "\\" in member.filename:
            raise BadFile("outside", f"member {title}")
        # The format stores members as they are; a compressed one is not a usdz, and may be a bomb.
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise BadFile("header", f"member {title} is compressed")
        start = member.header_offset + 30
        if start > len(data):
            raise BadFile("truncated", f"member {title}")
        # The local header's own name and extra field may differ in length from those of the directory.
        start += sum(struct.unpack_from("<HH", data, start - 4))
        if start + member.file_size > len(data):
            raise BadFile("truncated", f"member {title}")
        suffix = member.filename.lower().rpartition(".")[2]
        if suffix in ("usd", "usda", "usdc"):
            layers += 1
            _check_layer(data[start : start + member.file_size], suffix, mentions)
    if not layers:
        raise BadFile("corrupt", "no USD layer in the package")
    return Inspection(name, len(data))


def usd_names(path: str, data: memoryview) -> list[str]:
    """Paths that a stage names, and other strings that may be some. Raises BadFile."""
    if bytes(data[:2]) == b"PK":
        with zipfile.ZipFile(path) as archive:
            layers = [
                n for n in archive.namelist() if n.lower().rpartition(".")[2] in ("usd", "usda", "usdc")
            ]
            return [name for n in layers for name in usd_names(path, memoryview(archive.read(n)))]
    if bytes(data[:8]) == _CRATE:
        return list(_crate_names(data))
    return [name.decode("utf-8", "replace") for block in text_blocks(data) for name in _PATH.findall(block)]


def usd_speaks_of(path: str, data: memoryview, word: bytes) -> bool:
    """Whether a stage has a name that contains `word`. Raises BadFile."""
    if bytes(data[:2]) == b"PK":
        with zipfile.ZipFile(path) as archive:
            layers = [n for n in archive.namelist() if n.lower().endswith((".usd", ".usda", ".usdc"))]
            return any(usd_speaks_of(path, memoryview(archive.read(n)), word) for n in layers)
    if bytes(data[:8]) == _CRATE:
        return any(word in token for token in _crate_tokens(data))
    return any(word in block for block in text_blocks(data))


def _check_layer(data: memoryview, name: str, mentions: Mentions) -> None:
    head = bytes(data[:16])
    if head.startswith(_CRATE):
        for name_in_it in _crate_names(data):
            mentions.check(name_in_it, "the stage")
    elif head.startswith(b"#usda"):
        if name == "usdc":
            raise BadFile("magic", "text in a .usdc file")
        for block in text_blocks(data):
            if b"\0" in block:
                raise BadFile("corrupt", "binary bytes in a text format")
            for mention in _PATH.findall(block):
                mentions.check(mention.decode("utf-8", "replace"), "the stage")
        _check_braces(data)
    elif _CRATE.startswith(head) or b"#usda".startswith(head):
        raise BadFile("truncated", f"{len(data)} bytes")
    else:
        raise BadFile("magic", f"starts with {head[:8]!r}")


def _check_braces(data: memoryview) -> None:
    opened = closed = 0
    for block in text_blocks(data):
        # Outside of strings. No regular expression: on hostile quotes its time would grow with the square.
        pieces = (line.replace(b'\\"', b"").split(b'"')[::2] for line in block.split(b"\n"))
        plain = b"".join(part for line in pieces for part in line)
        opened += sum(map(plain.count, (b"{", b"(", b"[")))
        closed += sum(map(plain.count, (b"}", b")", b"]")))
    if closed < opened:
        raise BadFile("truncated", f"{opened} brackets open, {closed} close")


def _crate_names(data: memoryview) -> Iterator[str]:
    """Strings that may be paths."""
    for token in _crate_tokens(data):
        if b"/" in token or b"\\" in token or b"." in token:
            yield token.decode("utf-8", "replace")


def _crate_tokens(data: memoryview) -> Iterator[bytes]:
    """All strings.

    Bootstrap (8 magic, 8 version, 8 offset of the table of contents), then sections inside the file.
    Layout: OpenUSD, pxr/usd/usd/crateFile.h and crateFile.cpp (_ReadTokens).
    """
    if len(data) < 88:
        raise BadFile("truncated", f"{len(data)} bytes, the bootstrap alone has 88")
    version = tuple(data[8:11])
    toc = struct.unpack_from("<q", data, 16)[0]
    if toc < 88 or toc + 8 > len(data):
        raise BadFile("truncated", f"the table of contents lies at byte {toc} of {len(data)}")
    count = struct.unpack_from("<Q", data, toc)[0]
    if count > 64 or toc + 8 + 32 * count > len(data):
        raise BadFile("header", f"{count} sections at byte {toc} of {len(data)}")
    for i in range(count):
        title = bytes(data[toc + 8 + 32 * i : toc + 24 + 32 * i]).rstrip(b"\0")
        start, size = struct.unpack_from("<qq", data, toc + 8 + 32 * i + 16)
        if start < 0 or size < 0 or start + size > len(data):
            raise BadFile("header", f"section {i} ends at {start + size} of {len(data)}")
        if title == b"TOKENS":
            yield from _tokens(data[start : start + size], version)


def _tokens(section: memoryview, version: tuple[int, ...]) -> list[bytes]:
    """The strings of section TOKENS. Raises BadFile where lengths lie or nothing can be unpacked."""
    packed_since = (0, 4, 0)
    if len(section) < (24 if version >= packed_since else 16):
        raise BadFile("header", "the section of names is too short")
    if version >= packed_since:
        count, size, packed = struct.unpack_from("<QQQ", section)
        if size > _MOST_TOKENS or packed > _MOST_PACKED:
            raise BadFile("absurd", f"names of {size} bytes")
        if packed > len(section) - 24:
            raise BadFile("header", "the section of names is too short")
        text = _unpack(section[24 : 24 + packed], size)
    else:
        count, size = struct.unpack_from("<QQ", section)
        if size > _MOST_TOKENS:
            raise BadFile("absurd", f"names of {size} bytes")
        text = bytes(section[16 : 16 + size])
    found = text.split(b"\0")[:-1]
    if len(text) != size or count > len(found):
        raise BadFile("corrupt", f"{len(found)} names where {count} are promised")
    return found[:count]


def _unpack(packed: memoryview, size: int) -> bytes:
    """`size` bytes from OpenUSD's TfFastCompression: a count of chunks, then LZ4 blocks; count 0 is one block
    without a length of its own. Layout: OpenUSD, pxr/base/tf/fastCompression.cpp."""
    if not len(packed):
        raise BadFile("header", "nothing is packed")
    chunks, at, found = packed[0], 1, bytearray()
    if chunks == 0:
        _unpack_lz4(packed[1:], found, size)
    for _ in range(chunks):
        if at + 4 > len(packed):
            raise BadFile("header", "a chunk lies beyond the end")
        length = struct.unpack_from("<i", packed, at)[0]
        at += 4
        if length < 0 or at + length > len(packed):
            raise BadFile("header", "a chunk lies beyond the end")
        _unpack_lz4(packed[at : at + length], found, size)
        at += length
    return bytes(found)


def _unpack_lz4(block: memoryview, found: bytearray, limit: int) -> None:
    """Append what an LZ4 block holds to `found`, of which it may copy the part it wrote itself.

    Layout: LZ4's lz4_Block_format.md. Raises BadFile for a block that is none, or makes more than `limit`.
    """
    at, end, first = 0, len(block), len(found)

    def length(start: int) -> int:
        nonlocal at
        if start == 15:
            while True:
                more = block[at]
                at += 1
                start += more
                if more != 255:
                    break
        return start

    try:
        while at < end:
            token = block[at]
            at += 1
            literal = length(token >> 4)
            if at + literal > end or len(found) + literal > limit:
                raise BadFile("corrupt", "packed names cannot be unpacked")
            found += block[at : at + literal]
            at += literal
            if at == end:
                return  # the last sequence has literals alone
            back = block[at] | block[at + 1] << 8
            at += 2
            copied = length(token & 15) + 4
            start = len(found) - back
            if back == 0 or start < first or len(found) + copied > limit:
                raise BadFile("corrupt", "packed names cannot be unpacked")
            if back >= copied:
                found += found[start : start + copied]
            else:
                # A copy may overlap what it writes: the piece repeats itself.
                found += (bytes(found[start:]) * (copied // back + 1))[:copied]
    except IndexError:
        raise BadFile("corrupt", "packed names cannot be unpacked") from None
