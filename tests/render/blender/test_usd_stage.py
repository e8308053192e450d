"""USD: time codes and seconds, animated visibility, and messages of the parser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

HEAD = '#usda 1.0\n(\n    defaultPrim = "top"\n    upAxis = "Z"\n    metersPerUnit = 1\n    {}\n)\n'
SHEET = """
def Mesh "{name}"
{{
    int[] faceVertexCounts = [3]
    int[] faceVertexIndices = [0, 1, 2]
    point3f[] points = [(0, 0, 0), (1, 0, 0), (0, 1, 0)]
    {extra}
}}
"""
RISE = """
    double3 xformOp:translate.timeSamples = {{ {} }}
    uniform token[] xformOpOrder = ["xformOp:translate"]
"""


def stage(path: Path, body: str, *metadata: str) -> Path:
    path.write_text(HEAD.format("\n    ".join(metadata)) + 'def Xform "top"\n{\n' + body + "}\n")
    return path


def rise(*samples: tuple[float, float]) -> str:
    """A mover with a sheet in it, at heights by time code."""
    keys = ", ".join(f"{code}: (0, 0, {height})" for code, height in samples)
    return 'def Xform "mover"\n{' + RISE.format(keys) + SHEET.format(name="sheet", extra="") + "}\n"


def heights(asset: dict[str, Any], name: str = "sheet") -> list[float]:
    return [round(moment[name]["place"][2], 3) for moment in asset["actions"][0]["moments"]]


def test_a_stage_without_a_range_has_that_of_its_samples(tmp_path: Path, read_actions: Any) -> None:
    """In seconds of timeCodesPerSecond, or else of framesPerSecond, or else of 24."""
    body = rise((10, 0), (40, 3), (70, 1))
    paths = [
        stage(tmp_path / "codes.usda", body, "timeCodesPerSecond = 60", "framesPerSecond = 30"),
        stage(tmp_path / "frames.usda", body, "framesPerSecond = 10"),
        stage(tmp_path / "bare.usda", body),
        stage(tmp_path / "empty.usda", body, "startTimeCode = 0", "endTimeCode = 0"),
        stage(tmp_path / "range.usda", body, "startTimeCode = 20", "endTimeCode = 50"),
        stage(tmp_path / "still.usda", SHEET.format(name="sheet", extra="")),
    ]
    codes, frames, bare, empty, given, still = read_actions(paths, (0.5, 1.0))
    assert [asset["actions"][0]["range"] for asset in (codes, frames, bare, empty, given)] == [
        pytest.approx([10 / 60, 70 / 60]), [1.0, 7.0], pytest.approx([10 / 24, 70 / 24]),
        pytest.approx([10 / 24, 70 / 24]), pytest.approx([20 / 24, 50 / 24]),
    ]  # fmt: skip
    assert heights(codes) == [2.0, 1.667]
    assert heights(frames) == [0.0, 0.0] and heights(bare) == [0.2, 1.4]
    assert still["actions"] == [] and still["meshes"] == ["sheet"]


POINTS = """
from orbit4d.render.blender.importers.load import load_asset
from orbit4d.render.blender.scene.motion import vertices_now
loaded = load_asset(path)
loaded.activate(0)
answer = {"range": [loaded.actions[0].seconds_start, loaded.actions[0].seconds_end], "tops": []}
for t in (0.0, 0.5, 1.0, 2.0):
    loaded.set_seconds(t)
    answer["tops"].append(round(float(vertices_now(loaded)[0][:, 2].max()), 3))
"""


def test_animated_points_play_at_the_codes_of_the_file(tmp_path: Path, in_blender: Any) -> None:
    keys = ", ".join(f"{c}: [(0, 0, 0), (1, 0, 0), (0, 1, {h})]" for c, h in ((0, 0), (50, 2), (100, 4)))
    body = SHEET.format(name="sheet", extra=f"point3f[] points.timeSamples = {{ {keys} }}")
    path = stage(tmp_path / "points.usda", body, "timeCodesPerSecond = 50", "framesPerSecond = 25")
    assert in_blender(POINTS, path=str(path)) == {"range": [0.0, 2.0], "tops": [0.0, 1.0, 2.0, 4.0]}


VISIBILITY = """
def Xform "group"
{{
    token visibility.timeSamples = {{ 6: "inherited", 12: "invisible", 30: "inherited" }}
    {first}
    {second}
}}
{third}
"""


def visibility_body() -> str:
    own = 'token visibility.timeSamples = { 0: "invisible", 18: "inherited" }'
    return rise((0, 0), (36, 1)) + VISIBILITY.format(
        first=SHEET.format(name="first", extra=""),
        second=SHEET.format(name="second", extra=own),
        third=SHEET.format(name="third", extra=own),
    )


TO_CRATE = """
import bpy
bpy.utils.expose_bundled_modules()
from pxr import Sdf
answer = Sdf.Layer.FindOrOpen(path).Export(crate)
"""


def test_visibility_is_shown_over_time(tmp_path: Path, read_actions: Any, in_blender: Any) -> None:
    text = stage(tmp_path / "seen.usda", visibility_body(), "timeCodesPerSecond = 12")
    crate = tmp_path / "seen.usdc"
    assert in_blender(TO_CRATE, path=str(text), crate=str(crate))
    for asset in read_actions([text, crate], (0.0, 1.1, 1.6, 2.6)):
        moments = asset["actions"][0]["moments"]
        seen = {name: [not m[name]["hidden"] for m in moments] for name in ("first", "second", "third")}
        assert seen == {
            "first": [True, False, False, True],
            "second": [False, False, False, True],
            "third": [False, False, True, True],
        }
        assert not any(moment["sheet"]["hidden"] for moment in moments)
        assert set(asset["meshes"]) == {"sheet", "first", "second", "third"}
        assert asset["actions"][0]["range"] == [0.0, 3.0]


def test_visibility_alone_is_an_action(tmp_path: Path, read_actions: Any) -> None:
    extra = 'token visibility.timeSamples = { 0: "inherited", 24: "invisible" }'
    [asset] = read_actions([stage(tmp_path / "a.usda", SHEET.format(name="sheet", extra=extra))], (0.5, 1.0))
    assert asset["actions"][0]["range"] == [0.0, 1.0]
    assert [m["sheet"]["hidden"] for m in asset["actions"][0]["moments"]] == [False, True]


def test_animated_materials_are_a_flag_and_no_range(tmp_path: Path, read_actions: Any) -> None:
    shader = 'def Shader "s" {\n float inputs:roughness.timeSamples = { 0: 0.1, 90: 1 }\n}'
    body = rise((0, 0), (24, 1)) + f'def Material "m"\n{{\n{shader}\n}}\n'
    [asset] = read_actions([stage(tmp_path / "a.usda", body)])
    assert asset["actions"][0]["range"] == [0.0, 1.0]
    assert asset["flags"] == ["ignored_animation:/top/m/s.inputs:roughness"]


def test_a_parse_error_names_the_line(tmp_path: Path, read_actions: Any) -> None:
    broken = stage(tmp_path / "broken.usda", rise((0, 0), (24, 1)).replace("(1, 0, 0), ", "(1, 0 0), "))
    line = 1 + broken.read_text().split("(1, 0 0)")[0].count("\n")
    unquoted = stage(tmp_path / "unquoted.usda", rise((0, 0), (24, 1)).replace('"mover"', "mover"))
    first, second = read_actions([broken, unquoted])
    assert first["code"] == second["code"] == "bad_file:import"
    assert first["detail"].startswith(f"broken.usda:{line}:") and "parse error" in first["detail"]
    line = 1 + unquoted.read_text().split("Xform mover")[0].count("\n")
    assert second["detail"].startswith(f"unquoted.usda:{line}:")
    assert str(tmp_path) not in first["detail"] and "__" not in first["detail"]


def test_a_layer_outside_the_folder_is_refused(tmp_path: Path, read_actions: Any) -> None:
    """Also where it is a layer inside the folder that names it."""
    (tmp_path / "in").mkdir()
    stage(tmp_path / "secret.usda", SHEET.format(name="sheet", extra=""))
    middle = 'def "below" (\n    references = @{}@\n)\n{{\n}}\n'
    stage(tmp_path / "in" / "middle.usda", middle.format("../secret.usda"))
    outer = stage(tmp_path / "in" / "outer.usda", middle.format("./middle.usda"))
    stage(tmp_path / "in" / "plain.usda", SHEET.format(name="sheet", extra=""))
    fine = stage(tmp_path / "in" / "fine.usda", middle.format("./plain.usda"))
    first, second = read_actions([outer, fine])
    assert first["code"] == "bad_file:outside_reference" and "secret.usda" in first["detail"]
    assert second["meshes"] == ["sheet"]
