"""A scene that is exported with +Y up looks the same from every side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from orbit4d.datasets import InputError, orbit
from orbit4d.recon4d import load_scene, rasterize
from orbit4d.recon4d.cli import export_scene
from orbit4d.recon4d.export.formats import export_scene as export
from orbit4d.recon4d.export.formats import splat_bytes
from orbit4d.recon4d.export.upright import turn_camera, turn_gaussians
from orbit4d.recon4d.gaussians import Gaussians, load_ply


def some(degree: int, n: int = 40) -> Gaussians:
    """Long Gaussians of all directions whose colour depends strongly on the view."""
    rng = np.random.default_rng(degree)

    def draw(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=shape)).float()

    return Gaussians(
        means=0.3 * draw(n, 3), log_scales=draw(n, 3) * 0.8 - 2.5, quats=draw(n, 4), logits=draw(n),
        colors=torch.from_numpy(rng.uniform(0.3, 0.7, (n, 3))).float(),
        harmonics=0.2 * draw(n, (degree + 1) ** 2 - 1, 3),
    )  # fmt: skip


def drawn(g: Gaussians, camera: object) -> np.ndarray:
    views, ks = (torch.from_numpy(np.asarray(a)[None]).float() for a in (camera.w2c_opencv, camera.K))  # type: ignore[attr-defined]
    colors, _, _ = rasterize(
        g.means, torch.nn.functional.normalize(g.quats, dim=-1), g.scales, g.opacities, g.coefficients(),
        views, ks, 40, 40, sh_degree=g.sh_degree, backend="torch",
    )  # fmt: skip
    return colors[0].detach().numpy()


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_turned_gaussians_look_the_same_to_turned_cameras(degree: int) -> None:
    g = some(degree)
    turned = turn_gaussians(g, "y")
    np.testing.assert_allclose(turned.means.numpy(), g.means.numpy()[:, [0, 2, 1]] * (1, 1, -1), atol=1e-6)
    for elevation in (-35.0, 50.0):
        for camera in orbit(3, elevation_deg=elevation, size=(40, 40)):
            before, after = drawn(g, camera), drawn(turned, turn_camera(camera, "y"))
            assert np.ptp(before) > 0.2
            np.testing.assert_allclose(after, before, atol=2e-4)
    if degree:
        forgotten = Gaussians(**{**turned.tensors(), "harmonics": g.harmonics})
        camera = orbit(3, elevation_deg=50.0, size=(40, 40))[1]
        assert np.abs(drawn(forgotten, turn_camera(camera, "y")) - drawn(g, camera)).max() > 0.02


def test_z_is_the_default_and_changes_nothing(tiny_scene: Path, tmp_path: Path) -> None:
    scene = load_scene(tiny_scene)
    export(scene, tmp_path / "a.splat", "splat", time=0.5)
    assert (tmp_path / "a.splat").read_bytes() == splat_bytes(scene.at(0.5))
    export(scene, tmp_path / "b.splat", "splat", time=0.5, up="y")
    assert (tmp_path / "b.splat").read_bytes() == splat_bytes(turn_gaussians(scene.at(0.5), "y"))
    with pytest.raises(InputError, match="choose y or z"):
        export(scene, tmp_path / "c", up="x")


def test_the_command_says_which_axis_is_up(tiny_scene: Path, tmp_path: Path) -> None:
    said = {}
    for up in ("y", "z"):
        words = [str(tiny_scene), "--frames", "2", "--up", up, "--out", str(tmp_path / up)]
        result = CliRunner().invoke(export_scene, words)
        assert result.exit_code == 0, result.output
        said[up] = result.output
    assert "+Y" in said["y"] and "+Z" in said["z"] and "--up y" in said["z"]
    y, z = (load_ply(tmp_path / up / "001.ply").means.numpy() for up in ("y", "z"))
    np.testing.assert_allclose(y, z[:, [0, 2, 1]] * (1, 1, -1), atol=1e-6)
    assert "default: z" in " ".join(CliRunner().invoke(export_scene, ["--help"]).output.split())
