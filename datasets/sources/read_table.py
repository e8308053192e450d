"""Tables that a user brings, CSV or Parquet, with columns as what they are and not as what they look like.

A reader that guesses types makes 12 of the uid `0012` and a number of `1e10`. So uid, path, hashes and every
other column of names is text here, whoever wrote the table and with whatever: Arrow's large or dictionary
strings, bytes, or whole numbers become strings, and what cannot be text without loss is refused.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.sources.lists import lines_of, read_text

#: Columns of text, under the spelling that readers ask for.
TEXT = (
    *("uid", "path", "file", "sha256", "asset_sha256", "caption", "license", "licence", "author"),
    *("source_url", "action", "verdict", "fileIdentifier", "source", "fileType", "metadata"),
)
#: Columns of whole numbers.
WHOLE = ("action_index",)
_SPELLING = {name.lower(): name for name in (*TEXT, *WHOLE)}
_SEPARATORS = ",;\t"


def read_table(source: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A CSV or Parquet file, local or fsspec, as an Arrow table; `columns` are read where present.

    TEXT columns come as strings, WHOLE ones as int64, other columns of a CSV as strings. Raises InputError
    for what is no table, damaged, or holds numbers with a fraction where names belong.
    """
    if os.path.splitext(source)[1].lower() == ".csv":
        header, body = split_header(read_rows(source), source)
        arrays = [pa.array(values, pa.string()) for values in zip(*body)] or [
            pa.array([], pa.string()) for _ in header
        ]
        table = pa.Table.from_arrays(arrays, names=header)
        if columns is not None:
            table = table.select([name for name in table.column_names if name in columns])
        return typed(table, source)
    return typed(_read_parquet(source, columns), source)


def _read_parquet(source: str, columns: Sequence[str] | None) -> pa.Table:
    import fsspec
    import pyarrow.parquet as pq

    try:
        with fsspec.open(source, "rb") as file:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            names = parquet.schema_arrow.names
            table = parquet.read(columns=None if columns is None else [c for c in columns if c in names])
        # Strings are checked here, once, and not where the first of them is inspected.
        table.validate(full=True)
    except Exception as error:
        # Damaged bytes make Arrow raise anything, and object stores have classes of their own.
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{source}: cannot be read as a table ({why})") from error
    return table


def typed(table: pa.Table, source: str) -> pa.Table:
    """The table with TEXT columns as strings and WHOLE ones as int64. Raises InputError."""
    for kind, names in ((pa.string(), TEXT), (pa.int64(), WHOLE)):
        for name in names:
            if name in table.column_names:
                at = table.column_names.index(name)
                table = table.set_column(at, name, cast(table.column(at), kind, f"{source}: column {name}"))
    return table


def cast(column: pa.ChunkedArray, kind: pa.DataType, where: str) -> pa.ChunkedArray:
    """`column` as `kind`, where nothing is lost by it. Raises InputError that begins with `where`."""
    types = pa.types
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    found = column.type
    if types.is_floating(found):
        # pandas holds whole numbers with gaps, and columns of nothing, as floats.
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, found), column)
        if column.null_count == len(column):
            return pa.chunked_array([pa.nulls(len(column), kind)])
    if found == kind:
        return column
    if types.is_string(found) and not types.is_string(kind):
        column = pc.if_else(pc.equal(pc.utf8_trim_whitespace(column), ""), pa.scalar(None, found), column)
    if types.is_string(kind) and not _is_text(found):
        raise InputError(f"{where} holds {found}, not text; write it as text, so that no name is changed")
    try:
        return column.cast(kind)
    except pa.ArrowException as error:
        why = " ".join(str(error).split())[:120]
        raise InputError(f"{where} cannot be read as {kind} ({why})") from error


def _is_text(kind: pa.DataType) -> bool:
    """Whether values of a type are text, or become it without loss."""
    types = pa.types
    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    return any(test(kind) for test in (*tests, types.is_binary, types.is_large_binary, types.is_integer))


def read_rows(source: str) -> list[list[str]]:
    """Fields of a CSV file, row by row, blanks around them removed and empty rows left out.

    Comma, semicolon or tab between the fields, whichever the first row has. Raises InputError for rows of
    different lengths (text with an unquoted comma in it) and open quotes, with the line.
    """
    text = read_text(source, "a CSV table")
    first = next((line for line in lines_of(text) if line.strip()), "")
    separator = next((mark for mark in _SEPARATORS if mark in first), ",")
    if first.lower().startswith("sep=") and len(first.strip()) == 5:
        # Excel's own way to name the separator.
        separator, text = first.strip()[4], text[text.index(first) + len(first) :]
    csv.field_size_limit(1 << 24)
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    rows: list[list[str]] = []
    try:
        for fields in reader:
            row = [field.strip() for field in fields]
            if not any(row):
                continue
            if rows and len(row) > len(rows[0]) and not any(row[len(rows[0]) :]):
                row = row[: len(rows[0])]
            if rows and len(row) != len(rows[0]):
                raise InputError(
                    f"{source}: line {reader.line_num} has {len(row)} fields instead of {len(rows[0])}; "
                    f"put quotes around text that holds a {separator!r}"
                )
            rows.append(row)
    except csv.Error as error:
        raise InputError(f"{source}: line {reader.line_num} cannot be read as CSV ({error})") from error
    if not rows:
        raise InputError(f"{source}: the table is empty")
    return rows


def split_header(rows: list[list[str]], source: str) -> tuple[list[str], list[list[str]]]:
    """(names of the columns, the other rows). Known names are found in any case. Raises InputError."""
    header = [_SPELLING.get(name.lower(), name) for name in rows[0]]
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise InputError(f"{source}: has two columns {twice[0]}; leave one")
    # Several columns without a name are as good as one: nobody can ask for them.
    keep = [i for i, name in enumerate(header) if name]
    return [header[i] for i in keep], [[row[i] for i in keep] for row in rows[1:]]
