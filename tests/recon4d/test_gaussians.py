"""Canonical Gaussians: the PLY round trip, and where they start."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.gaussians import SH_C0, Gaussians, from_points, load_ply, save_ply


def random_gaussians(n: int = 50) -> Gaussians:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    quats = torch.nn.functional.normalize(draw(n, 4), dim=-1)
    return Gaussians(draw(n, 3), draw(n, 3), quats, draw(n), draw(n, 3))


def test_ply_round_trip(tmp_path: Path) -> None:
    before = random_gaussians()
    save_ply(before, tmp_path / "a.ply")
    after = load_ply(tmp_path / "a.ply")
    for name, tensor in before.tensors().items():
        # Colours go through the harmonic's constant: one rounding.
        torch.testing.assert_close(getattr(after, name), tensor, atol=1e-6, rtol=1e-6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.ply"]


def test_ply_has_the_columns_of_inria(tmp_path: Path) -> None:
    g = random_gaussians(3)
    save_ply(g, tmp_path / "a.ply")
    header, body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n")
    names = [line.split()[-1].decode() for line in header.split(b"\n") if line.startswith(b"property float")]
    expected = "x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
    assert names == expected.split()
    table = np.frombuffer(body, "<f4").reshape(3, -1)
    np.testing.assert_allclose(table[:, 6:9] * SH_C0 + 0.5, g.colors, atol=1e-6)
    np.testing.assert_array_equal(table[:, 9], g.logits)


@pytest.mark.parametrize("degree", [1, 3])
def test_harmonics_round_trip_in_the_order_of_inria(tmp_path: Path, degree: int) -> None:
    """f_rest holds all coefficients of red, then of green, then of blue."""
    g = random_gaussians(4)
    count = (degree + 1) ** 2 - 1
    g.harmonics = torch.arange(4 * count * 3, dtype=torch.float32).reshape(4, count, 3)
    assert g.sh_degree == degree and g.coefficients().shape == (4, count + 1, 3)
    save_ply(g, tmp_path / "a.ply")
    header, body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n")
    names = [line.split()[-1].decode() for line in header.split(b"\n") if line.startswith(b"property float")]
    assert names[9 : 9 + 3 * count] == [f"f_rest_{i}" for i in range(3 * count)]
    row = np.frombuffer(body, "<f4").reshape(4, -1)[1]
    np.testing.assert_array_equal(row[9 : 9 + count], g.harmonics[1, :, 0])
    np.testing.assert_array_equal(row[9 + count : 9 + 2 * count], g.harmonics[1, :, 1])
    torch.testing.assert_close(load_ply(tmp_path / "a.ply").harmonics, g.harmonics)


def test_a_ply_with_a_broken_set_of_harmonics_is_refused(tmp_path: Path) -> None:
    g = random_gaussians(4)
    g.harmonics = torch.zeros(4, 3, 3)
    save_ply(g, tmp_path / "a.ply")
    data = (tmp_path / "a.ply").read_bytes()
    (tmp_path / "a.ply").write_bytes(data.replace(b"f_rest_8", b"f_last_8"))
    with pytest.raises(InputError, match=r"a\.ply"):
        load_ply(tmp_path / "a.ply")


@pytest.mark.parametrize("damage", ["cut", "text", "points"])
def test_other_ply_files_are_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.ply"
    save_ply(random_gaussians(), path)
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[:-40])
    elif damage == "text":
        path.write_text("solid cube")
    else:
        path.write_bytes(data.replace(b"opacity", b"quality"))
    with pytest.raises(InputError, match=r"a\.ply"):
        load_ply(path)


def test_gaussians_start_as_wide_as_their_neighbours_are_far() -> None:
    axis = np.arange(5) * 0.1
    grid = np.stack(np.meshgrid(axis, axis, axis), -1).reshape(-1, 3)
    g = from_points(grid, np.full((125, 3), 0.3))
    torch.testing.assert_close(g.scales, torch.full((125, 3), 0.1))
    torch.testing.assert_close(g.opacities, torch.full((125,), 0.3))
    with pytest.raises(InputError, match="3 points"):
        from_points(grid[:3], grid[:3])
