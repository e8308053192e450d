"""The detail of a failed import holds the cause, however long the traceback around it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from orbit4d.render.blender.importers.cause import cause_of


def traceback(frames: int, last: str) -> str:
    lines = ["Error: Python: Traceback (most recent call last):"]
    for i in range(frames):
        lines += [f'  File "/a/long/path/of/an/importer/part_{i}.py", line {i + 7}, in read_{i}']
        lines += [f"    read_{i + 1}(gltf, index, material)", "    ~~~~~~^^^^^^^^^^^^^^"]
    return "\n".join([*lines, last, "", "Location: /a/bpy/ops.py:109"])


@pytest.mark.parametrize("frames", [1, 40])
def test_the_last_line_of_a_traceback_and_its_place_are_told(frames: int) -> None:
    found = cause_of(RuntimeError(traceback(frames, "KeyError: 'baseColor'")))
    assert found == f"KeyError: 'baseColor' (part_{frames - 1}.py, line {frames + 6}, in read_{frames - 1})"


def test_a_cause_may_have_several_lines_and_be_long() -> None:
    found = cause_of(RuntimeError(traceback(9, "a.b.Broken: first\nsecond " + "x" * 900)))
    assert found.startswith("a.b.Broken: first second xxx") and len(found) <= 500
    assert found.endswith("(part_8.py, line 15, in read_8)")


def test_other_messages_stay_as_they_are() -> None:
    assert cause_of(RuntimeError("Error: Unable to open\n  the file\n")) == "Error: Unable to open the file"
    assert cause_of(KeyError()) == "KeyError" and len(cause_of(ValueError("y" * 900))) == 500


def test_an_import_that_fails_in_blender_names_its_cause(
    tmp_path: Path, gltf: Any, part: Any, read_actions: Any
) -> None:
    path = gltf(tmp_path / "a.glb", [part()])
    data = path.read_bytes()
    size = struct.unpack_from("<I", data, 12)[0]
    # A light that the file does not have; an importer's own error deep inside.
    text = data[20 : 20 + size].replace(
        b'"name": "part0"', b'"extensions": {"KHR_lights_punctual": {"light": 7}}'
    )
    text = text.rstrip() + b" " * (-len(text.rstrip()) % 4)
    rest = data[20 + size :]
    head = struct.pack("<4sII", b"glTF", 2, 20 + len(text) + len(rest)) + struct.pack(
        "<I4s", len(text), b"JSON"
    )
    path.write_bytes(head + text + rest)
    [found] = read_actions([path])
    assert found["code"] == "bad_file:import" and "Traceback" not in found["detail"]
    assert "Error: " in found["detail"] and ".py, line " in found["detail"]
