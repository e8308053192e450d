"""How a USD crate packs the names in it."""

from __future__ import annotations

import struct

import pytest

from orbit4d.datasets.assets import usd as usd_file
from orbit4d.datasets.assets.inspection import BadFile


def test_the_names_in_a_crate_are_unpacked(cubes):
    data = memoryview((cubes["usdc"].parent / "inner" / "leak.usdc").read_bytes())
    toc, found = struct.unpack_from("<q", data, 16)[0], []
    for i in range(struct.unpack_from("<Q", data, toc)[0]):
        at = toc + 8 + 32 * i
        start, size = struct.unpack_from("<qq", data, at + 16)
        if bytes(data[at : at + 6]) == b"TOKENS":
            found = usd_file._tokens(data[start : start + size], tuple(data[8:11]))
            assert struct.unpack_from("<Q", data, start)[0] == len(found)
            assert struct.unpack_from("<QQ", data, start + 8)[1] < sum(map(len, found))  # it is packed
    assert {b"limb_of_the_long_name_%03d" % i for i in range(40)} <= set(found)


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (b"\x50hello", b"hello"),
        # One byte, then a copy that overlaps what it writes.
        (b"\x1aa\x01\x00\x10b", b"a" * 15 + b"b"),
        (b"\x21ab\x02\x00\x10c", b"ab" + b"ababa" + b"c"),
        # Lengths of fifteen and more continue in bytes of their own.
        (b"\xf0\x02" + b"x" * 17, b"x" * 17),
        (b"\x1fa\x01\x00\xff\x00\x10b", b"a" * (1 + 19 + 255) + b"b"),
    ],
)
def test_lz4_blocks_unpack(block, text):
    assert usd_file._unpack(memoryview(b"\0" + block), len(text)) == text
    chunk = struct.pack("<i", len(block)) + block
    assert usd_file._unpack(memoryview(b"\2" + chunk + chunk), 2 * len(text)) == text + text
    for limit in (0, len(text) - 1):
        with pytest.raises(BadFile):
            usd_file._unpack(memoryview(b"\0" + block), limit)
    with pytest.raises(BadFile):  # a copy from before the beginning
        usd_file._unpack(memoryview(b"\0\x1aa\x09\x00\x10b"), 99)
