"""What people are shown of the geometry: colours that can be read off again."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from orbit4d.datasets import read_geometry
from orbit4d.datasets.geometry.layers import LAYERS, depth_frames, flow_frames, layers, skeleton_frames, wheel
from orbit4d.datasets.geometry.skeleton import stored_skeleton


@pytest.fixture(scope="module")
def clip(geometry_dataset):
    return read_geometry(str(geometry_dataset), "a", "Run").clip()


def blank(clip):
    return np.full((len(clip), 32, 32, 3), 255, np.uint8)


def test_the_wheels_hue_is_the_direction_and_its_strength_the_length():
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    for length in (0.25, 1.0):
        flow = 3 * length * np.stack([np.cos(angles), np.sin(angles)], -1)[None]
        for angle, rgb in zip(angles, wheel(flow, 3.0)[0] / 255.0):
            hue, strength, value = colorsys.rgb_to_hsv(*rgb)
            assert value == pytest.approx(1.0) and strength == pytest.approx(length, abs=0.01)
            assert abs((hue - angle / (2 * np.pi) + 0.5) % 1 - 0.5) < 0.01
    still = wheel(np.zeros((2, 2, 2)), 1.0)
    assert (still == 255).all()
    assert (wheel(np.ones((2, 2, 2)), 1.0, np.zeros((2, 2), bool)) == 255).all()


def test_depth_goes_from_light_to_dark_and_is_white_where_nothing_is(clip):
    shown, depth = depth_frames(clip).astype(int), np.stack([clip.depth(f) for f in range(8)])
    seen = np.isfinite(depth)
    assert (shown[~seen] == 255).all()
    lightness = shown[seen] @ [0.3, 0.59, 0.11]
    order = np.argsort(depth[seen])
    # Two depths of one shade differ by its rounding.
    assert np.corrcoef(depth[seen], lightness)[0, 1] < -0.95
    assert lightness[order[0]] > lightness[order[-1]] + 150


def test_flow_of_the_last_frame_goes_on_in_the_direction_of_the_one_before(clip):
    shown = flow_frames(clip)
    seen = clip.triangles(7) >= 0
    back = -clip.flow(7, 6)[0]
    hue = (np.arctan2(back[..., 1], back[..., 0]) / (2 * np.pi)) % 1
    for row, column in np.argwhere(seen)[::7]:
        found, strength, _ = colorsys.rgb_to_hsv(*(shown[7, row, column] / 255.0))
        assert strength < 0.2 or abs((found - hue[row, column] + 0.5) % 1 - 0.5) < 0.05


def test_layers_of_a_clip_with_bones_and_without(clip):
    images = blank(clip)
    assert set(layers(clip, images)) == set(LAYERS) - {"skeleton"}
    places = np.tile(np.eye(4), (2, 1, 1))
    places[1, 2, 3] = 0.2
    count = len(clip.mesh.weld)
    skeleton = stored_skeleton(
        ("a", "b"), (), np.array([(v, 0, 1.0) for v in range(count)]), parents=np.array([-1, 0]), rest=places,
        pose=np.tile(places, (len(clip.mesh.seconds), 1, 1, 1)), basis=np.zeros((count, 3)),
        deltas=np.zeros((0, count, 3)), morph_weights=np.zeros((len(clip.mesh.seconds), 0)),
    )  # fmt: skip
    made = layers(clip, images, skeleton)
    assert set(made) == set(LAYERS)
    for frames in made.values():
        assert frames.shape == images.shape and frames.dtype == np.uint8
        assert (frames != 255).any()
    assert (images == 255).all()
    # The bone runs upwards from the middle of the image, through (16, 16) and the joint's own projection.
    drawn = (skeleton_frames(clip, images, skeleton)[0] != 255).any(axis=-1)
    upper = clip.cameras[0].project(places[1, :3, 3])[0]
    for share in (0.2, 0.5, 0.8):
        x, y = (1 - share) * np.array([16.0, 16.0]) + share * upper
        assert drawn[int(y), int(x) - 1 : int(x) + 1].any()
    assert not drawn[:, :8].any() and not drawn[20:].any()
