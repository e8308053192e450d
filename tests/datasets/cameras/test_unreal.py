"""Cameras of the SynCamVideo and MultiCamVideo sets: strings, axes, and the trap of their determinant."""

from __future__ import annotations

import json

import numpy as np
import pytest

from orbit4d.datasets.cameras.camera import FLIP_YZ, orbit_c2w
from orbit4d.datasets.cameras.unreal import (
    from_c2w,
    matrix_text,
    parse_matrix,
    relative_numbers,
    target_of,
    to_c2w,
)

#: The worked examples of the format's description: (string, target, position of c2w).
WORKED = [
    (
        "[-0.95125 -0.16773 -0.25882 0] [0.17365 -0.98481 0 0] [-0.25489 -0.04494 0.96593 0] "
        "[380.50 67.0925 103.528 1]",
        (0, 0, 0),
        orbit_c2w(170, 15, 2.0),
    ),
    (
        "[0.984808 0 -0.173648 0] [-0 1 0 0] [0.173648 0 0.984808 0] [12920 1100 -517.102 1] ",
        (13220, 1100, -570),
        orbit_c2w(0, 10, 1.5 / np.cos(np.radians(10))),
    ),
    (
        "[0.867575 0.497306 0 0] [-0.497306 0.867575 0 0] [0 -0 1 0] [3443.26 1181.24 240 1] ",
        (3790, 1380, 240),
        None,
    ),
]


@pytest.mark.parametrize(("text", "target", "c2w"), WORKED)
def test_worked_examples(text, target, c2w):
    found = to_c2w(parse_matrix(text), target)
    if c2w is None:
        want = np.eye(4)
        want[:3] = [
            [0.867575, 0, -0.497306, -0.9938],
            [-0.497306, 0, -0.867575, -1.7337],
            [0, 1, 0, 0],
        ]
        c2w = want
    # Five and six significant digits of centimetres, divided by 200.
    np.testing.assert_allclose(found, c2w, atol=2e-4)
    assert np.linalg.det(found[:3, :3]) == pytest.approx(1, abs=1e-4)


def test_back_is_exact_and_the_identity_is_our_front():
    rng = np.random.default_rng(3)
    c2w = np.stack([orbit_c2w(*angles, 2.5) for angles in rng.uniform(-80, 80, (20, 2))])
    back = to_c2w(from_c2w(c2w, (10.0, -20.0, 30.0), 1.7), (10.0, -20.0, 30.0), 1.7)
    np.testing.assert_allclose(back, c2w, atol=1e-14 * 100)
    np.testing.assert_array_equal(to_c2w(np.eye(4), (0, 0, 0))[:3, :3], orbit_c2w(0)[:3, :3])


def test_the_released_reading_is_mirrored_and_relative_poses_are_not():
    """The released code: transpose, columns (right, -up, forward), centimetres / 200."""
    rng = np.random.default_rng(0)
    c2w = np.stack([orbit_c2w(*angles, 2.0) for angles in rng.uniform(-60, 60, (4, 2))])
    rows = from_c2w(c2w, (0, 0, 0))
    released = np.zeros_like(rows)
    for i, (row, sign) in enumerate(((1, 1), (2, -1), (0, 1))):
        released[:, :3, i] = sign * rows[:, row, :3]
    released[:, :3, 3], released[:, 3, 3] = rows[:, 3, :3] / 200, 1
    assert np.linalg.det(released[:, :3, :3]) == pytest.approx(-np.ones(4))
    theirs = np.linalg.inv(released[0]) @ released
    np.testing.assert_allclose(relative_numbers(c2w[0], c2w), theirs[:, :3].reshape(4, 12), atol=1e-12)
    turned = FLIP_YZ  # any rigid motion of the whole rig
    np.testing.assert_allclose(
        relative_numbers(turned @ c2w[0], turned @ c2w), relative_numbers(c2w[0], c2w), atol=1e-12
    )
    first = relative_numbers(c2w[0], c2w[:1])[0]
    np.testing.assert_allclose(first, [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0], atol=1e-15)


def test_target_is_where_axes_meet_else_ahead_of_the_first():
    ring = np.stack([orbit_c2w(a, 20.0, 2.0) for a in (0, 40, 90)])
    target = (120.0, -40.0, 7.0)
    np.testing.assert_allclose(target_of(from_c2w(ring, target)), target, atol=1e-9)
    np.testing.assert_allclose(target_of(from_c2w(ring, target), moving=True), target, atol=1e-9)
    aside = ring.copy()
    aside[1, :3, 3] += 2.0  # its axis misses by more than half a metre
    np.testing.assert_allclose(target_of(from_c2w(aside, target)), target, atol=1e-9)


@pytest.mark.parametrize(
    "text",
    ["", "[1 0 0 0] [0 1 0 0] [0 0 1 0]", "[1 0 0 0] [1 0 0 0] [0 0 1 0] [0 0 0 1]",
     "[nan 0 0 0] [0 1 0 0] [0 0 1 0] [0 0 0 1]", "[a 0 0 0] [0 1 0 0] [0 0 1 0] [0 0 0 1]"],
)  # fmt: skip
def test_no_camera(text):
    with pytest.raises(ValueError):
        parse_matrix(text)


def test_rows_of_three_are_older_files():
    full = parse_matrix("[1 0 0 0] [0 1 0 0] [0 0 1 0] [5 6 7 1]")
    np.testing.assert_array_equal(parse_matrix("[1 0 0] [0 1 0] [0 0 1] [5 6 7]"), full)


def test_published_files(shared):
    folder = shared / "fixtures" / "syncammaster"
    stored, about = np.load(folder / "cameras.npz"), json.loads((folder / "cameras.json").read_text())
    for name in ("hemi36_a", "hemi36_b"):
        table = json.loads((folder / f"cameras/{name}.json").read_text())
        matrices = np.stack([parse_matrix(text) for text in table.values()])
        target = about["files"][f"{name}.json"]["target_cm"]
        np.testing.assert_allclose(to_c2w(matrices, target), stored[f"{name}/c2w"], atol=1e-9)
        np.testing.assert_allclose(target_of(matrices), target, atol=1e-9)
        again = np.stack([parse_matrix(matrix_text(from_c2w(c, target))) for c in stored[f"{name}/c2w"]])
        np.testing.assert_allclose(to_c2w(again, target), stored[f"{name}/c2w"], atol=1e-9)
    for name in ("static", "moving"):
        table = json.loads((folder / f"cameras/{name}_extrinsics.json").read_text())
        texts = [list(cameras.values()) for cameras in table.values()]
        matrices = np.array([[parse_matrix(text) for text in row] for row in texts])
        target = about["files"][f"{name}_extrinsics.json"]["target_cm"]
        c2w = to_c2w(matrices, target)
        np.testing.assert_allclose(c2w, stored[f"{name}/c2w"], atol=1e-9)
        assert [[matrix_text(m, 6) for m in row] for row in matrices] == texts
        # The network's numbers, every fourth frame; float32 at the end.
        for key in (key for key in stored.files if key.startswith(f"{name}/camera12")):
            cameras = [int(number) - 1 for number in key.split("_")[1:]]
            found = [relative_numbers(c2w[::4, cameras[0]], c2w[::4, camera]) for camera in cameras]
            np.testing.assert_allclose(np.stack(found), stored[key], atol=1e-6)
        found = relative_numbers(c2w[0], c2w[::4], 1.0).transpose(1, 0, 2)
        np.testing.assert_allclose(found, stored[f"{name}/recam12"], atol=1e-6)
    np.testing.assert_allclose(
        target_of([parse_matrix(t) for t in json.loads(
            (folder / "cameras/static_extrinsics.json").read_text())["frame0"].values()]),
        stored["static/axes_target_cm"], atol=1e-6,
    )  # fmt: skip
