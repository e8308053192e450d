"""glTF files whose numbers lie: each lie has its reason code, and none is any other exception."""

from __future__ import annotations

import copy
import struct
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orbit4d.datasets.assets.inspect import Inspection, inspect
from orbit4d.datasets.assets.inspection import LIMITS, REASONS, BadFile

#: Seconds of processor time for a inspect one file.
PATIENCE = 5.0


def look(path) -> str:
    """'' when the file passes, else its code. Any other exception, or slowness, fails the test."""
    cpu = time.process_time()
    try:
        found = inspect(path)
        assert isinstance(found, Inspection)
        code = ""
    except BadFile as bad:
        assert bad.code.removeprefix("bad_file:") in REASONS
        assert "\n" not in str(bad)
        code = bad.code
    # Processor time, which other work on the machine does not use up; waiting for what never comes is
    # ended by pytest's own time limit.
    assert time.process_time() - cpu < PATIENCE
    return code


def code_of(path, data: bytes) -> str:
    path.write_bytes(data)
    return look(path)


numbers = st.sampled_from([-1, 0, 1, 3, 2**31, 2**63, 1e308, 0.5, True, None, "x", [], {}, "../x", 10**30])


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_lying_documents_never_raise_anything_but_bad_file(cube_document, pack_glb, tmp_path, data):
    doc, binary = cube_document()
    for _ in range(data.draw(st.integers(1, 4))):
        node = doc
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if isinstance(node[key], dict | list) and node[key] and data.draw(st.booleans()):
                node = node[key]
                continue
            node[key] = data.draw(numbers)
            break
    path = tmp_path / "lying.glb"
    code_of(path, pack_glb(doc, binary))


def _broken(make):
    return pytest.param(make, id=make.__name__)


def nan_position(doc, binary):
    return doc, struct.pack("<f", float("nan")) + binary[4:]


def infinite_key_time(doc, binary):
    view = doc["bufferViews"][doc["accessors"][2]["bufferView"]]
    at = view["byteOffset"] + 4
    return doc, binary[:at] + struct.pack("<f", float("inf")) + binary[at + 4 :]


def huge_count(doc, binary):
    doc["accessors"][0]["count"] = 2**40
    return doc, binary


def huge_count_without_data(doc, binary):
    doc["accessors"][0]["count"] = LIMITS.vertices * 3
    del doc["accessors"][0]["bufferView"]
    return doc, binary


def accessor_past_its_view(doc, binary):
    doc["accessors"][0]["count"] += 1
    return doc, binary


def view_past_its_buffer(doc, binary):
    doc["bufferViews"][-1]["byteLength"] += 4096
    return doc, binary


def buffer_past_the_file(doc, binary):
    doc["buffers"][0]["byteLength"] += 4096
    return doc, binary


def index_out_of_range(doc, binary):
    at = doc["bufferViews"][1]["byteOffset"]
    return doc, binary[:at] + struct.pack("<H", 8) + binary[at + 2 :]


def node_cycle(doc, binary):
    doc["nodes"] += [{"children": [2]}, {"children": [1]}]
    return doc, binary


def two_parents(doc, binary):
    doc["nodes"] += [{"children": [0]}, {"children": [0]}]
    return doc, binary


def unknown_required_extension(doc, binary):
    doc["extensionsRequired"] = ["EXT_of_nobody"]
    return doc, binary


def nan_in_json(doc, binary):
    doc["nodes"][0]["translation"] = [float("nan"), 0, 0]
    return doc, binary


def gltf_1(doc, binary):
    doc["asset"]["version"] = "1.0"
    return doc, binary


def instance_bomb(doc, binary):
    doc["accessors"][0] |= {"count": 4_000_000}
    del doc["accessors"][0]["bufferView"]
    del doc["meshes"][0]["primitives"][0]["indices"]
    doc["nodes"] = [{"mesh": 0} for _ in range(40)]
    return doc, binary


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (nan_position, "non_finite"),
        (infinite_key_time, "non_finite"),
        (nan_in_json, "non_finite"),
        (huge_count, "absurd"),
        (huge_count_without_data, "absurd"),
        (instance_bomb, "absurd"),
        (accessor_past_its_view, "header"),
        (view_past_its_buffer, "header"),
        (buffer_past_the_file, "truncated"),
        (index_out_of_range, "index"),
        (node_cycle, "graph"),
        (two_parents, "graph"),
        (unknown_required_extension, "extension"),
        (gltf_1, "version"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_each_lie_has_its_reason(cube_document, pack_glb, tmp_path, make, reason):
    doc, binary = cube_document()
    assert code_of(tmp_path / "good.glb", pack_glb(doc, binary)) == ""
    doc, binary = make(copy.deepcopy(doc), binary)
    assert code_of(tmp_path / "bad.glb", pack_glb(doc, binary)) == f"bad_file:{reason}"
