"""Lights, panoramas, shadows and depth of field as they are rendered."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orbit4d.datasets.store.clip import Clip
from orbit4d.render.dataset.asset_job import clips_of_action
from orbit4d.render.fleet.child import BlenderChild, TaskRefused
from orbit4d.render.planning.asked import fields_of
from orbit4d.render.planning.settings import RenderSettings, preset

pytestmark = pytest.mark.blender

Render = Callable[..., list[Clip]]


@pytest.fixture(scope="module")
def render(child: BlenderChild, tmp_path_factory: pytest.TempPathFactory, gltf: Any, part: Any) -> Render:
    """`render(**options)`: clips of a white octahedron that hardly moves, options as in the command."""
    moves = {"Go": [(0.0, (0.0, 0.0, 0.0)), (1.0, (0.0, 0.0, 0.02))]}
    solid = gltf(
        tmp_path_factory.mktemp("solid") / "solid.glb",
        [part((0.0, 0.0, 0.0), 0.5, (0.8, 0.8, 0.8), moves)],
        ("Go",),
    )

    def run(path: Path = solid, **options: Any) -> list[Clip]:
        small = {"frames": 2, "resolution": 48, "samples": 16, "rigs": ("front_view",)}
        config = json.loads(json.dumps(preset("draft", **fields_of({**small, **options})).as_config()))
        payload = {
            "uid": "solid", "path": str(path), "sha256": "", "actions": None, "provenance": {},
            "scratch": str(tmp_path_factory.mktemp("scratch")), "settings": config,
        }  # fmt: skip
        result = child.call("render_clips", payload, 300)
        settings = RenderSettings.from_config(config)
        return [c for action in result["actions"] for c in clips_of_action(payload, settings, action, result)]

    return run


def brightness(frame: np.ndarray, side: slice = slice(None)) -> float:
    """Mean of what covers the pixels, in columns `side`."""
    some = frame[:, side]
    return float(some[some[..., 3] > 128][:, :3].mean())


def panorama(path: Path, azimuth_deg: float) -> Path:
    """A dark panorama, as an HDR file, with a bright patch on the horizon at an azimuth (0 is -Y)."""
    height, width = 32, 64
    pixels = np.full((height, width, 3), 0.02)
    # Blender's equirectangular images have +X in the middle, and -Y a quarter of the width to the right.
    a = np.radians(azimuth_deg)
    x, y = np.sin(a), -np.cos(a)
    column = int((-np.arctan2(y, x) / (2 * np.pi) + 0.5) * width) % width
    pixels[height // 2 - 3 : height // 2 + 3, np.arange(column - 3, column + 3) % width] = 40.0
    scale = np.frexp(pixels.max(-1))
    rgbe = np.zeros((height, width, 4), np.uint8)
    rgbe[..., :3] = pixels * (scale[0] / pixels.max(-1) * 256.0)[..., None]
    rgbe[..., 3] = scale[1] + 128
    head = f"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y {height} +X {width}\n"
    path.write_bytes(head.encode() + rgbe.tobytes())
    return path


def test_three_lights_of_one_clip_look_different_and_show_the_same(render: Render) -> None:
    clips = render(n_lights=3)
    assert [clip.light for clip in clips] == [0, 1, 2] and clips[0].lighting == {}
    assert [clip.lighting["kind"] for clip in clips[1:]] == ["suns", "suns"]
    assert len({clip.renderer["suns"] for clip in clips}) > 1
    alphas = [clip.pixels()[..., 3] for clip in clips]
    assert all((alpha == alphas[0]).all() for alpha in alphas)
    colours = [clip.pixels()[..., :3].astype(int) for clip in clips]
    for i in range(3):
        assert np.abs(colours[i] - colours[(i + 1) % 3]).mean() > 1.0
    (alone,) = render()
    assert np.abs(colours[0] - alone.pixels()[..., :3]).mean() < 0.5, "the first light is the preset's"


@pytest.mark.parametrize(
    "options",
    [{"n_lights": 3}, {"n_lights": 4, "light_kind": "any"}, {"n_lights": 3, "environment": "builtin"}],
)
def test_lights_are_rendered_the_same_every_time(render: Render, options: dict[str, Any]) -> None:
    """To the bit, or a dataset that was resumed would have another digest."""
    first, *others = ([clip.frames for clip in render(**options)] for _ in range(3))
    assert all(other == first for other in others)


def test_a_panorama_is_turned_counter_clockwise(render: Render, tmp_path: Path) -> None:
    """Light from the right (azimuth 90) shines on the right side of the front view, turned by 180 on the
    left."""
    folder = tmp_path / "skies"
    folder.mkdir()
    panorama(folder / "right.hdr", 90.0)
    left, right = slice(0, 20), slice(28, 48)
    found = {}
    for turn in ("0", "180"):
        (clip,) = render(environment=str(folder), light_rotation=turn)
        assert clip.lighting["environment"] == "right.hdr" and clip.lighting["rotation_deg"] == float(turn)
        frame = clip.pixels()[0]
        found[turn] = brightness(frame, left), brightness(frame, right)
    assert found["0"][1] > 1.5 * found["0"][0] and found["180"][0] > 1.5 * found["180"][1]
    # Turned by 90 it stands at azimuth 180, behind the object: the front is dark.
    (behind,) = render(environment=str(folder), light_rotation="90")
    (before,) = render(environment=str(folder), light_rotation="-90")
    assert brightness(before.pixels()[0]) > 1.5 * brightness(behind.pixels()[0])


def test_built_in_panoramas_are_brought_to_one_luminance(render: Render) -> None:
    clips = render(environment="builtin", n_lights=8, frames=2)
    assert len({clip.lighting["environment"] for clip in clips}) == 8
    # Mean luminances of the eight files, formats.md: 0.936 for the city, 0.165 for the night.
    level = {clip.lighting["environment"]: clip.lighting["level"] for clip in clips}
    assert level["city.exr"] == pytest.approx(0.75 / 0.936, rel=0.01)
    assert level["night.exr"] == pytest.approx(0.75 / 0.165, rel=0.01)
    values = [brightness(clip.pixels()[0]) for clip in clips]
    assert max(values) < 2.5 * min(values)


def test_strength_is_a_factor(render: Render) -> None:
    (dark,), (bright,) = (render(environment="builtin", light_strength=s) for s in ("0.2", "0.6"))
    assert dark.lighting["environment"] == bright.lighting["environment"]
    assert brightness(bright.pixels()[0]) > 1.3 * brightness(dark.pixels()[0])


def test_a_visible_environment_fills_the_frame(render: Render) -> None:
    (clip,) = render(environment="builtin", environment_visible=True)
    assert (clip.pixels()[..., 3] == 255).all()
    assert "coverage" not in clip.measures and "boundary_touch" not in clip.measures
    (hidden,) = render(environment="builtin")
    assert 0 < hidden.measures["coverage"] < 0.6
    solid = hidden.pixels()[0, ..., 3] == 255
    difference = np.abs(clip.pixels()[0][solid].astype(int) - hidden.pixels()[0][solid])
    # Only the noise of 16 samples differs where the object hides the background.
    assert np.median(difference) < 12


def test_a_ground_shows_the_shadow_alone(render: Render) -> None:
    options = {"rigs": ("ring:1@35",), "samples": 32}
    (plain,), (grounded,) = render(**options), render(**options, shadow_catcher=True)
    extra = (grounded.pixels()[0, ..., 3] > 60) & (plain.pixels()[0, ..., 3] == 0)
    assert extra.sum() > 30, "no shadow"
    assert grounded.pixels()[0][extra][:, :3].mean() < 40, "a shadow is dark"
    assert extra.mean() < 0.5, "the ground itself shows"
    solid = plain.pixels()[0, ..., 3] == 255
    assert (grounded.pixels()[0, ..., 3][solid] == 255).all()


def test_point_lamps_light_the_object(render: Render) -> None:
    (clip,) = render(light_kind="points")
    assert clip.lighting["kind"] == "points" and 40 < brightness(clip.pixels()[0]) < 250


def test_what_lights_nothing_is_refused_by_name(render: Render, tmp_path: Path) -> None:
    (tmp_path / "black").mkdir()
    path = tmp_path / "black" / "void.hdr"
    head = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 4 +X 8\n"
    path.write_bytes(head + bytes(4 * 8 * 4))
    with pytest.raises(TaskRefused, match=r"void\.hdr: is black throughout"):
        render(environment=str(path.parent))
    path.write_bytes(head)
    with pytest.raises(TaskRefused, match=r"void\.hdr"):
        render(environment=str(path.parent))


def test_a_wide_aperture_blurs_what_is_out_of_focus(render: Render) -> None:
    """The tips towards and away from a ring's camera lie far from the plane of focus. The crop must leave
    room for their blur."""
    options = {"rigs": ("ring:1@35",), "samples": 64}
    (sharp,), (soft,) = (render(aperture=f, **options) for f in ("11", "0.05"))
    assert soft.camera_draw["f_number"] == 0.05 and sharp.camera_draw["f_number"] == 11.0

    def rim(clip: Clip) -> float:
        alpha = clip.pixels()[0, ..., 3]
        return float(((alpha > 10) & (alpha < 245)).mean())

    assert rim(soft) > 1.2 * rim(sharp)
    (whole,) = render(aperture="0.05", crop=False, **options)
    assert (whole.pixels() == soft.pixels()).all(), "the crop cuts blur off"
