"""What is seen is where the camera conventions say: a marker's picture against its projection."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orbit4d.datasets.store.clip import decode
from orbit4d.render.dataset.asset_job import clips_of_action
from orbit4d.render.fleet.child import BlenderChild, TaskRefused
from orbit4d.render.planning.settings import RenderSettings, preset

#: Linear colours whose sRGB values are told apart by their channel alone.
RED, GREEN = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


@pytest.fixture(scope="module")
def render() -> Iterator[Callable[..., list[Any]]]:
    """`render(path, settings, scratch, actions=None)`: the clips of one asset, all from one Blender."""
    with BlenderChild() as child:

        def run(
            path: Path, settings: RenderSettings, scratch: Path, actions: list[int] | None = None
        ) -> list[Any]:
            payload = {
                "uid": path.stem,
                "path": str(path),
                "sha256": "",
                "settings": settings.as_config(),
                "scratch": str(scratch),
                "provenance": {},
                "actions": actions,
            }
            result = child.call("render_clips", payload, 120)
            return [
                clip
                for action in result["actions"]
                for clip in clips_of_action(payload, settings, action, result)
            ]

        yield run


def centroid(weights: np.ndarray) -> np.ndarray:
    """(column, row) of the mass, pixel centres at +0.5."""
    rows, columns = np.indices(weights.shape) + 0.5
    return np.array([(columns * weights).sum(), (rows * weights).sum()]) / weights.sum()


@pytest.mark.parametrize("engine", [{}, {"filter_width": 0.01, "crop": False}])
def test_a_marker_is_seen_where_it_projects(
    tmp_path: Path, render: Any, gltf: Callable[..., Path], part: Any, engine: dict[str, Any]
) -> None:
    """Every view of every rig, within half a pixel: pose, lens, handedness, pixel centres, time and scale."""
    start, end = np.array([3.0, -2.0, 1.0]), np.array([-1.0, 2.5, 3.0])
    still = np.array([-2.0, -1.0, -1.5])
    markers = [
        part(tuple(start), 0.35, RED, {"Fly": [(0.5, tuple(start)), (2.5, tuple(end))]}, unlit=True),
        part(tuple(still), 0.35, GREEN, unlit=True),
    ]
    path = gltf(tmp_path / "marker.glb", markers, ("Fly",))
    settings = preset(
        "draft",
        frames=8,
        resolution=96,
        samples=64,
        elevation_deg=20.0,
        azimuths_deg=(30.0,),
        passes=("depth", "mask"),
        **engine,
    )
    clips = render(path, settings, tmp_path)
    assert {clip.rig for clip in clips} == {"static_orbit", "dynamic_orbit", "front_view"}
    seen = 0
    for clip in clips:
        assert clip.window == pytest.approx((0.5, 2.5), abs=0.05)
        for i, camera in enumerate(clip.cameras):
            pixels = decode(clip.frames[i]).astype(float)
            alpha = pixels[..., 3] / 255.0
            fraction = (clip.seconds[i] - 0.5) / 2.0
            places = {0: start + fraction * (end - start), 1: still}
            expected = {
                k: camera.project(clip.scale * (place - np.array(clip.centre))) for k, place in places.items()
            }
            if np.linalg.norm(expected[0][0] - expected[1][0]) < 14.0:
                continue  # one marker hides part of the other here
            for channel, (at, depth) in expected.items():
                marker = alpha * (pixels[..., channel] > 128)
                assert marker.sum() > 3.0
                off = centroid(marker) - at
                assert np.abs(off).max() < 0.5, (clip.rig, i, channel, off)
                depths = np.load(io.BytesIO(clip.passes["depth"][i]))
                near = depths[(marker > 0.9) & np.isfinite(depths)]
                assert abs(np.median(near) - depth) < 0.35 * clip.scale * 1.05
                seen += 1
    assert seen > 30


def test_up_is_up_and_the_front_faces_the_camera(
    tmp_path: Path, render: Any, gltf: Callable[..., Path], part: Any
) -> None:
    """View 0 stands at -Y: +X is right, +Z up, and what is nearer hides what is behind."""
    parts = [
        part((0.0, 1.0, 0.0), 0.5, GREEN, unlit=True),
        part((0.0, -1.0, 0.0), 0.5, RED, unlit=True),
        part((1.0, 0.0, 0.0), 0.3, (0.0, 0.0, 1.0), unlit=True),
        part((0.0, 0.0, 1.0), 0.3, (1.0, 1.0, 0.0), unlit=True),
    ]
    path = gltf(tmp_path / "axes.glb", parts)
    clip = render(path, preset("draft", frames=4, resolution=64, rigs=("static_orbit",)), tmp_path)[0]

    def colour_at(view: int, place: tuple[float, float, float]) -> tuple[int, ...]:
        at, _ = clip.cameras[view].project(clip.scale * (np.array(place) - np.array(clip.centre)))
        return tuple(int(c) for c in decode(clip.frames[view])[int(at[1]), int(at[0]), :3])

    def mean(view: int, channel: int, of: tuple[int, int, int]) -> float:
        pixels = decode(clip.frames[view])
        return float(
            np.argwhere((np.abs(pixels[..., :3].astype(int) - of) < 40).all(axis=-1))[:, channel].mean()
        )

    red, blue, yellow = (255, 0, 0), (0, 0, 255), (255, 255, 0)
    # The line through red and green is the view's axis at the front and at the back.
    assert colour_at(0, (0.0, -1.0, 0.0)) == red and colour_at(2, (0.0, 1.0, 0.0)) == (0, 255, 0)
    assert mean(0, 1, blue) > mean(0, 1, red) and mean(0, 0, yellow) < mean(0, 0, red)
    # View 1 of 4 stands at +X: the blue part is in front, red (at -Y) on its left.
    assert colour_at(1, (1.0, 0.0, 0.0)) == blue
    assert mean(1, 1, red) < mean(1, 1, blue)
    assert mean(3, 1, red) > mean(3, 1, yellow)


def test_cropping_to_the_projected_box_changes_no_pixel(
    tmp_path: Path, render: Any, toy: Callable[..., Path]
) -> None:
    path = toy(tmp_path / "toy.glb", 3)
    common = {"frames": 5, "resolution": 48, "samples": 8}
    cropped = render(path, preset("default", **common), tmp_path)
    whole = render(path, preset("default", crop=False, **common), tmp_path)
    assert [clip.sha256 for clip in cropped] == [clip.sha256 for clip in whole]


def test_keeping_unlit_triangles_from_the_lamps_changes_no_pixel(
    tmp_path: Path, render: Any, gltf: Callable[..., Path], part: Any
) -> None:
    parts = [part((0.0, 0.0, 0.0), 0.5, (0.7, 0.3, 0.1), unlit=True), part((0.6, 0.0, 0.0), 0.2, RED)]
    path = gltf(tmp_path / "unlit.glb", parts)
    common = {"frames": 3, "resolution": 32, "rigs": ("static_orbit",)}
    fast = render(path, preset("draft", **common), tmp_path)
    slow = render(path, preset("draft", skip_unlit_lights=False, **common), tmp_path)
    difference = np.abs(fast[0].pixels().astype(int) - slow[0].pixels().astype(int))
    # The lit part may draw other random numbers; the unlit one is the same.
    assert np.median(difference) == 0 and difference.mean() < 1.0


def test_colour_is_straight_and_zero_where_nothing_is(
    tmp_path: Path, render: Any, toy: Callable[..., Path]
) -> None:
    clips = render(toy(tmp_path / "toy.glb"), preset("draft", frames=3, resolution=32), tmp_path, [1])
    for clip in clips:
        pixels = clip.pixels()
        empty = pixels[..., 3] == 0
        assert empty.any() and (pixels[empty] == 0).all()
        # Straight colour: on the rim, where alpha is low, the colour is not darkened towards black.
        rim = (pixels[..., 3] > 16) & (pixels[..., 3] < 128)
        full = pixels[..., 3] == 255
        assert pixels[rim][:, :3].max(axis=1).mean() > 0.6 * pixels[full][:, :3].max(axis=1).mean()


def test_orbits_share_frame_window_and_lights(tmp_path: Path, render: Any, toy: Callable[..., Path]) -> None:
    clips = render(
        toy(tmp_path / "toy.glb"), preset("draft", frames=4, resolution=24, orbits=2), tmp_path, [1, 2]
    )
    assert len(clips) == 12
    by_action: dict[int, set[Any]] = {}
    for clip in clips:
        by_action.setdefault(clip.action_index, set()).add((clip.window, clip.scale, clip.centre))
    assert {k: len(v) for k, v in by_action.items()} == {1: 1, 2: 1}
    assert len({clip.renderer["suns"] for clip in clips}) == 1


def test_an_environment_lights_and_is_not_seen(
    tmp_path: Path, render: Any, toy: Callable[..., Path], in_blender: Callable[..., Any]
) -> None:
    """A panorama that is red where +X looks and blue on the other side, and no suns."""
    sky = tmp_path / "sky.exr"
    in_blender(
        """
        import bpy, numpy as np
        image = bpy.data.images.new("sky", 64, 32, float_buffer=True)
        pixels = np.zeros((32, 64, 4), np.float32)
        pixels[..., 3] = 1.0
        pixels[:, :16, 2] = pixels[:, 48:, 2] = 5.0
        pixels[:, 16:48, 0] = 5.0
        image.pixels.foreach_set(pixels.ravel())
        image.file_format, image.filepath_raw = "OPEN_EXR", sky
        image.save()
        """,
        sky=str(sky),
    )
    path = toy(tmp_path / "toy.glb")
    common = {"frames": 4, "resolution": 32, "rigs": ("static_orbit",), "suns": ()}
    lit = render(path, preset("draft", environment=str(sky), **common), tmp_path, [1])[0].pixels()
    grey = render(path, preset("draft", **common), tmp_path, [1])[0].pixels()
    assert (lit[..., 3] == grey[..., 3]).all() and (lit[:, 0, 0, 3] == 0).all()
    red_minus_blue = [
        float((p[p[..., 3] == 255][:, 0].astype(int) - p[p[..., 3] == 255][:, 2]).mean()) for p in lit
    ]
    # Panorama's middle is +X in Blender; the sides seen from +X and from -X differ in colour.
    assert red_minus_blue[1] > 40 and red_minus_blue[3] < -40
    with pytest.raises(TaskRefused, match="no environment file"):
        render(path, preset("draft", environment=str(tmp_path / "gone.exr"), **common), tmp_path, [1])


def test_what_was_rendered_is_checked_before_it_is_kept(
    tmp_path: Path, toy: Callable[..., Path], gltf: Any, part: Any, in_blender: Callable[..., Any]
) -> None:
    """NaN in the float buffer, one flat colour, and nothing at all are told apart; a texture of NaN and
    infinities does not reach the buffer."""
    toy(tmp_path / "toy.glb")
    black = (0.0, 0.0, 0.0)
    gltf(tmp_path / "flat.glb", [part(colour=black, unlit=True)])
    code = """
    import bpy, numpy as np
    from orbit4d.render.blender.tasks import render_clips
    from orbit4d.render.blender.scene import studio
    from orbit4d.render.protocol.wire import RefusedInput
    from orbit4d.render.planning.settings import preset
    real_load, real_buffer = render_clips.load_asset, studio.Studio.float_buffer
    real_render = studio.Studio.render
    def load_with_nan(path, merge):
        loaded = real_load(path, merge)
        image = bpy.data.images.new("nan", 4, 4, float_buffer=True)
        image.pixels.foreach_set(np.array([np.nan, np.inf, -np.inf, 1.0] * 16, np.float32))
        for material in bpy.data.materials:
            tree = material.node_tree
            texture = tree.nodes.new("ShaderNodeTexImage")
            texture.image = image
            shader = next(n for n in tree.nodes if n.type == "BSDF_PRINCIPLED")
            tree.links.new(texture.outputs["Color"], shader.inputs["Base Color"])
            tree.links.new(texture.outputs["Color"], shader.inputs["Emission Color"])
            shader.inputs["Emission Strength"].default_value = 1.0
        return loaded
    seen = []
    def buffer(self):
        values = real_buffer(self)
        seen.append([list(values.shape), bool(np.isfinite(values).all()), float(values[..., 3].max())])
        return values
    def buffer_with_nan(self):
        values = real_buffer(self).copy()
        values[3, 4, 1] = np.nan
        return values
    def render_nothing(self, *arguments, **named):
        return np.zeros_like(real_render(self, *arguments, **named))
    def run(name):
        settings = preset("draft", frames=3, resolution=16, rigs=("static_orbit",)).as_config()
        payload = {"path": f"{folder}/{name}.glb", "uid": name, "settings": settings, "scratch": folder}
        try:
            return len(render_clips.run(payload, lambda *a, **k: None)["actions"])
        except RefusedInput as refused:
            return refused.code
    answer = {"calm": run("toy"), "flat": run("flat")}
    studio.Studio.float_buffer = buffer
    render_clips.load_asset = load_with_nan
    answer["texture"], answer["seen"] = run("toy"), seen
    render_clips.load_asset = real_load
    studio.Studio.float_buffer = buffer_with_nan
    answer["nan"] = run("toy")
    studio.Studio.float_buffer = real_buffer
    studio.Studio.render = render_nothing
    answer["nothing"] = run("toy")
    """
    found = in_blender(code, folder=str(tmp_path))
    assert found["calm"] == 3 and found["texture"] == 3
    assert all(one == [[16, 16, 4], True, 1.0] for one in found["seen"]) and len(found["seen"]) == 9
    assert found["nan"] == "render:non_finite"
    assert found["flat"] == "render:flat" and found["nothing"] == "render:blank"
