"""PLY as a table of columns: ASCII, little- and big-endian, any property types, any elements around."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.errors import InputError

#: Names of PLY's number types, old and new, as numpy has them.
_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4",
    "float": "f4", "double": "f8",
    "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}
#: A header longer than this is none: a PLY of Gaussians of degree 3 has 1.5 kB.
_LONGEST_HEADER = 1 << 20

Columns = dict[str, npt.NDArray[Any]]


@dataclass
class Element:
    """One element of the header."""

    name: str
    count: int
    properties: list[tuple[str, str]] = field(default_factory=list)
    """(name, numpy type) in order; the type of a list is `count type|item type`."""

    @property
    def has_lists(self) -> bool:
        """Whether rows differ in length."""
        return any("|" in kind for _, kind in self.properties)


def read_elements(data: bytes, name: str) -> dict[str, Columns]:
    """Element -> property -> values [count], of a whole file; list properties are left out.

    InputError, which calls the file `name`, for anything but a PLY, and for one that ends too early.
    """
    order, elements, start = parse_header(data, name)
    if order == "":
        return _read_text(data[start:], elements, name)
    found: dict[str, Columns] = {}
    for element in elements:
        if element.has_lists:
            start = _skip_lists(data, start, element, order, name)
            continue
        row = np.dtype([(key, order + kind) for key, kind in element.properties])
        size = element.count * row.itemsize
        if len(data) - start < size:
            raise InputError(f"{name}: truncated, {element.count} rows of {element.name} promised")
        table = np.frombuffer(data, row, element.count, start)
        found[element.name] = {key: table[key] for key, _ in element.properties}
        start += size
    return found


def parse_header(data: bytes, name: str) -> tuple[str, list[Element], int]:
    """Byte order (`<`, `>` or empty for ASCII), elements, and where the rows start."""
    lines, start = _header_lines(data, name)
    order: str | None = None
    elements: list[Element] = []
    try:
        for line in lines[1:]:
            words = line.split()
            if not words or words[0] in ("comment", "obj_info"):
                continue
            if words[0] == "format":
                order = _ORDERS[words[1]]
            elif words[0] == "element":
                elements.append(Element(words[1], int(words[2])))
            elif words[0] == "property":
                kind = "|".join(_TYPES[w] for w in words[2:4]) if words[1] == "list" else _TYPES[words[1]]
                elements[-1].properties.append((words[-1], kind))
            else:
                raise ValueError(line)
    except (KeyError, ValueError, IndexError):
        raise InputError(
            f"{name}: its PLY header has a line that says nothing known: {line[:60]!r}"
        ) from None
    if order is None or not elements or any(e.count < 0 for e in elements):
        raise InputError(f"{name}: its PLY header names no format or no element")
    for element in elements:
        if len({key for key, _ in element.properties}) != len(element.properties):
            raise InputError(f"{name}: its PLY header names a property of {element.name} twice")
    return order, elements, start


def _header_lines(data: bytes, name: str) -> tuple[list[str], int]:
    if data[:3] != b"ply" or data[3:4] not in (b"\n", b"\r"):
        raise InputError(f"{name}: not a PLY file")
    lines, start = [], 0
    while start < min(len(data), _LONGEST_HEADER):
        end = data.find(b"\n", start)
        if end < 0:
            break
        lines.append(data[start:end].decode("ascii", "replace").strip())
        start = end + 1
        if lines[-1] == "end_header":
            return lines[:-1], start
    raise InputError(f"{name}: not a whole PLY file (no end_header)")


def _skip_lists(data: bytes, start: int, element: Element, order: str, name: str) -> int:
    """Where the rows of an element with lists end."""
    for _ in range(element.count):
        for _, kind in element.properties:
            head, _, item = kind.partition("|")
            size = np.dtype(head).itemsize
            if item and len(data) >= start + size:
                (length,) = np.frombuffer(data, order + head, 1, start)
                size += max(int(length), 0) * np.dtype(item).itemsize
            start += size
            if start > len(data):
                raise InputError(f"{name}: truncated, {element.count} rows of {element.name} promised")
    return start


def _read_text(body: bytes, elements: list[Element], name: str) -> dict[str, Columns]:
    rows = body.decode("ascii", "replace").splitlines()
    found: dict[str, Columns] = {}
    for element in elements:
        if len(rows) < element.count:
            raise InputError(f"{name}: truncated, {element.count} rows of {element.name} promised")
        own, rows = rows[: element.count], rows[element.count :]
        if element.has_lists:
            continue
        width = len(element.properties)
        try:
            table = np.array([line.split() for line in own], np.float64).reshape(element.count, width)
        except ValueError:
            raise InputError(
                f"{name}: a row of {element.name} does not hold {width} numbers, as its header promises"
            ) from None
        found[element.name] = {
            key: table[:, i].astype(kind) for i, (key, kind) in enumerate(element.properties)
        }
    return found
