"""Stored arrays come back to the bit, damage is found, and quantising keeps the bound that it states."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orbit4d.datasets import WorkError, orbit
from orbit4d.datasets.geometry import container
from orbit4d.datasets.geometry.skinned import fit_skin, skin_blocks, steps_of
from orbit4d.datasets.geometry.vertices import bits_for, quantise, residual, restored

MAGIC = b"O4DTEST1"
BLOCKS = {
    "a": (np.arange(12, dtype=np.int32).reshape(4, 3) * -7, "delta+zigzag+split+zstd"),
    "b": (np.linspace(-1, 1, 5, dtype=np.float32), "split+zstd"),
    "c": (np.zeros((0, 3), np.uint16), "delta+split+zstd"),
    "d": (np.array([1.5, -2.5]), "zstd"),
    "e": (np.array([2**31 - 1, -(2**31)], np.int32), "delta+zigzag+split+zstd"),
}


def test_arrays_come_back_to_the_bit_with_dtype_and_shape() -> None:
    header, found = container.unpack(MAGIC, container.pack(MAGIC, {"n": 3}, BLOCKS), "x")
    assert header == {"n": 3}
    for name, (array, _) in BLOCKS.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_any_flipped_bit_is_damage_or_another_header_never_another_array() -> None:
    data = container.pack(MAGIC, {"n": 3}, BLOCKS)
    for place in range(len(data)):
        broken = bytearray(data)
        broken[place] ^= 1 << (place % 8)
        try:
            header, found = container.unpack(MAGIC, bytes(broken), "x")
        except WorkError:
            continue
        # No checksum covers the caller's own words: the shard's and the row's do.
        assert header != {"n": 3} or found.keys() != BLOCKS.keys() or place < 400
        for name in found.keys() & BLOCKS.keys():
            if found[name].dtype == BLOCKS[name][0].dtype and found[name].shape == BLOCKS[name][0].shape:
                np.testing.assert_array_equal(found[name], BLOCKS[name][0])


@pytest.mark.parametrize("data", [b"", b"O4DTEST1", b"PK\3\4" * 20])
def test_what_is_no_such_file_is_one_line(data: bytes) -> None:
    with pytest.raises(WorkError, match="x: damaged"):
        container.unpack(MAGIC, data, "x")


@settings(deadline=None)  # the kernel may be compiled first
@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_prediction_is_undone_exactly(n_times: int, n_vertices: int, seed: int) -> None:
    steps = np.random.default_rng(seed).integers(0, 1 << 22, (n_times, n_vertices, 3)).astype(np.int32)
    np.testing.assert_array_equal(restored(residual(steps)), steps)


def test_quantising_keeps_its_bound_and_welds_what_is_equal_at_all_times(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-0.5, 0.5, (4, 30, 3))
    points = np.concatenate([points, points[:, :10]], axis=1)
    points[2, 35] += 0.01  # equal to vertex 5 but for one time
    for bits in (16, 20):
        found = quantise(points, bits)
        back = found.positions()[:, found.weld]
        assert np.abs(back - points).max() <= found.bound
        assert back.dtype == np.float32 and found.positions().shape[1] == 31
        assert found.weld[0] == found.weld[30] and found.weld[5] != found.weld[35]


def test_a_mesh_without_extent_is_kept() -> None:
    found = quantise(np.full((3, 4, 3), 0.25), 16)
    np.testing.assert_array_equal(found.positions(), np.full((3, 1, 3), np.float32(0.25)))


def test_bits_grow_with_the_image_until_vertices_stay_on_their_pixels() -> None:
    """0.01 px in the image is what a vertex may move; checked by projecting, not by the formula."""
    rng = np.random.default_rng(3)
    points = rng.uniform(-0.45, 0.45, (2, 400, 3))
    bits = []
    for size in (64, 256, 1024, 4096):
        cameras = orbit(5, size=(size, size))
        bits.append(bits_for(points, cameras))
        found = quantise(points, bits[-1])
        back = found.positions()[:, found.weld].astype(np.float64)
        for camera in cameras:
            moved = np.linalg.norm(camera.project(back)[0] - camera.project(points)[0], axis=-1)
            assert moved.max() <= 0.01 * (1 if bits[-1] < 22 else 2)
    assert bits == sorted(bits) and bits[0] == 16 and bits[-1] > 16


# Prediction by joints -------------------------------------------------------------------------------------


def _skinned(seed: int, n: int = 60, times: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(vertices [T, V, 3], basis [V, 3], coo): a rod on two turning joints, each vertex on both."""
    rng = np.random.default_rng(seed)
    basis = rng.uniform(-0.4, 0.4, (n, 3))
    share = (basis[:, 2] / 0.8 + 0.5).clip(0, 1)
    moved = []
    for t in range(times):
        places = []
        for joint in range(2):
            a = 0.3 * t * (joint + 1)
            turn = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
            places.append(basis @ turn.T + [0.02 * t, 0, 0])
        moved.append((1 - share)[:, None] * places[0] + share[:, None] * places[1])
    vertex = np.arange(n)
    coo = np.concatenate([np.stack([vertex, np.full(n, j), (1 - share, share)[j]], 1) for j in (0, 1)])
    return np.stack(moved), basis, coo


def test_joints_predict_a_skin_to_a_step_and_the_rest_is_exact(seed: int) -> None:
    vertices, basis, coo = _skinned(seed)
    found = quantise(vertices, 16)
    skin = fit_skin(found, basis, coo)
    assert skin is not None and np.abs(found.steps - skin.predicted()).max() <= 2
    arrays = {name: array for name, (array, _) in skin_blocks(skin, found).items()}
    np.testing.assert_array_equal(steps_of(arrays), found.steps)


def test_any_other_motion_is_exact_too(seed: int) -> None:
    """Weights that explain nothing, a joint that holds nobody, welded vertices: larger, and still exact."""
    rng = np.random.default_rng(seed)
    vertices, basis, coo = _skinned(seed)
    vertices = vertices + rng.normal(0, 0.05, vertices.shape)
    vertices[:, 7] = vertices[:, 3]
    coo[:, 1] *= 3
    found = quantise(vertices, 18)
    skin = fit_skin(found, basis, coo)
    assert skin is not None and np.abs(found.steps - skin.predicted()).max() > 100
    arrays = {name: array for name, (array, _) in skin_blocks(skin, found).items()}
    np.testing.assert_array_equal(steps_of(arrays), found.steps)
    arrays["skin_joint"] = arrays["skin_joint"] + np.uint16(9)
    with pytest.raises(ValueError, match="does not fit"):
        steps_of(arrays)


def test_too_many_joints_are_left_to_the_other_prediction() -> None:
    vertices, basis, coo = _skinned(0)
    coo[0, 1] = 300
    assert fit_skin(quantise(vertices, 16), basis, coo) is None
