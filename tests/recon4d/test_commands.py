"""The commands a user types, run as they are installed, and what they leave behind."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from orbit4d.datasets.commands.command import run
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.videos.video import read_video, write_video
from orbit4d.recon4d import reconstruct
from orbit4d.recon4d.cli import _summary, export_scene, film, recon4d
from orbit4d.recon4d.export.formats import export_scene as export
from orbit4d.recon4d.export.formats import splat_bytes
from orbit4d.recon4d.filming import PATHS, camera_path
from orbit4d.recon4d.fitting import fused_view, losses, reconstruction
from orbit4d.recon4d.gaussians import load_ply
from orbit4d.recon4d.inputs.loading import load_frames
from orbit4d.recon4d.scene import load_scene


def test_a_video_becomes_a_scene_and_a_film(tmp_path: Path, moving_ball: dict[str, np.ndarray]) -> None:
    alpha = moving_ball["dynamic_orbit"][..., 3:] / 255
    white = moving_ball["dynamic_orbit"][..., :3] * alpha + 255 * (1 - alpha)
    write_video(tmp_path / "orbit.mp4", white.astype(np.uint8))
    words = [str(tmp_path / "orbit.mp4"), "--out", str(tmp_path / "scene"), "--preset", "fast"]
    runner = CliRunner()
    result = runner.invoke(recon4d, [*words, "--steps", "30", "--threads", "1"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "background" in result.output and "PSNR" in result.output
    assert json.loads((tmp_path / "scene" / "metrics.json").read_text())["psnr_train"] > 12
    out = tmp_path / "clips" / "film.mp4"
    words = [str(tmp_path / "scene"), "--rig", "dynamic_orbit", "--frames", "5", "--size", "64"]
    assert runner.invoke(film, [*words, "--out", str(out)], catch_exceptions=False).exit_code == 0
    assert read_video(out).frames.shape == (5, 64, 64, 3)


@pytest.mark.parametrize(
    "words",
    [
        ["nothing.mp4", "--out", "scene"],
        ["one.mp4", "--out", "scene"],
        ["cut.mp4", "--out", "scene"],
        ["black.mp4", "--out", "scene"],
        ["empty", "--out", "scene"],
        ["good.mp4", "--out", "scene", "--cameras", "three.json"],
        ["good.mp4", "--out", "scene", "--static-time", "2"],
        ["good.mp4", "--out", "scene", "--preset", "slow"],
        ["good.mp4", "--out", "scene", "--radius", "-1"],
        ["good.mp4", "--out", "scene", "--fov", "0"],
        ["good.mp4", "--out", "scene", "--resolution", "0"],
        ["good.mp4", "--out", "scene", "--steps", "-4"],
        ["good.mp4", "--out", "scene", "--threads", "0"],
        ["good.mp4", "--out", "scene", "--matte", "green"],
        ["good.mp4", "--out", "scene", "--static-cameras", "three.json"],
        ["good.mp4", "--out", "good.mp4"],
        ["good.mp4", "--out", "good.mp4/scene"],
        ["dataset:fox:Run", "--out", "scene"],
    ],
    ids=" ".join,
)
def test_bad_use_is_one_line_and_leaves_nothing(
    tmp_path: Path,
    moving_ball: dict[str, np.ndarray],
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    rgba = moving_ball["dynamic_orbit"]
    (tmp_path / "empty").mkdir()
    white = np.where(rgba[..., 3:] > 127, rgba[..., :3], 255).astype(np.uint8)
    write_video(tmp_path / "good.mp4", white)
    write_video(tmp_path / "one.mp4", white[:1])
    write_video(tmp_path / "black.mp4", white * 0)
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "good.mp4").read_bytes()[:-500])
    eye = np.eye(4).tolist()
    frame = {"transform_matrix": eye, "fl_x": 50, "w": 48, "h": 48}
    (tmp_path / "three.json").write_text(json.dumps({"frames": [frame] * 3}))
    before = sorted(p.name for p in tmp_path.iterdir())
    assert run(recon4d, words) in (1, 2)
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error and "Traceback" not in error
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_help_is_quick_and_shows_an_example() -> None:
    code = (
        "import sys; sys.argv = ['recon4d', '--help']; "
        "from orbit4d.app.cli import recon4d_main; recon4d_main()"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "Example" in done.stdout
    code = "import sys, orbit4d.recon4d.cli; print([m for m in ('torch', 'numba', 'av') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("rig", PATHS)
def test_paths_move_what_they_say(tiny_scene: Path, rig: str) -> None:
    scene = load_scene(tiny_scene)
    shots = camera_path(scene, rig, 8, size=64, time=0.3)
    azimuths = {tuple(camera.c2w[:3, 3].round(6)) for camera, _ in shots}
    times = [time for _, time in shots]
    assert len(azimuths) == (1 if rig == "front_view" else 8)
    assert times == ([0.3] * 8 if rig == "bullet_time" else pytest.approx([i / 7 for i in range(8)]))
    np.testing.assert_allclose(shots[0][0].c2w, scene.cameras[0].c2w, atol=1e-9)
    assert shots[0][0].fov_x_deg == pytest.approx(scene.cameras[0].fov_x_deg)
    with pytest.raises(InputError):
        camera_path(scene, "spiral", 8)
    nan = float("nan")
    for bad in (
        {"radius": 0.0},
        {"radius": -1.0},
        {"radius": nan},
        {"elevation_deg": nan},
        {"elevation_deg": 91},
    ):
        with pytest.raises(InputError, match=f"--{next(iter(bad)).removesuffix('_deg')}"):
            camera_path(scene, rig, 8, **bad)


def test_ply_sequence_is_the_scene_at_its_times(tiny_scene: Path, tmp_path: Path) -> None:
    scene = load_scene(tiny_scene)
    written = export(scene, tmp_path / "ply", "ply-sequence", frames=3)
    assert [p.name for p in written] == ["000.ply", "001.ply", "002.ply"]
    means = [load_ply(path).means for path in written]
    for time, found in zip((0.0, 0.5, 1.0), means):
        np.testing.assert_allclose(found, scene.at(time).means, atol=1e-6)
    assert (means[2] - means[0]).norm(dim=1).max() > 0.02, "it moves"
    with pytest.raises(InputError, match="holds something"):
        export(scene, tmp_path / "ply", "ply-sequence", frames=3)


def test_splat_records(tiny_scene: Path) -> None:
    scene = load_scene(tiny_scene)
    g = scene.at(0.5)
    raw = np.frombuffer(splat_bytes(g), np.uint8).reshape(len(g), 32)
    floats = raw[:, :24].copy().view("<f4")
    order = np.argsort(-g.scales.numpy().prod(1) * g.opacities.numpy(), kind="stable")
    np.testing.assert_array_equal(floats[:, :3], g.means.numpy()[order])
    np.testing.assert_allclose(floats[:, 3:], g.scales.numpy()[order], rtol=1e-6)
    np.testing.assert_allclose(raw[:, 27] / 255, g.opacities.numpy()[order], atol=1 / 255)
    quats = (raw[:, 28:].astype(float) - 128) / 128
    unit = g.quats.numpy()[order] / np.linalg.norm(g.quats.numpy()[order], axis=1, keepdims=True)
    assert np.abs(np.clip(unit, -1, 127 / 128) - quats).max() <= 0.5 / 128 + 1e-6


def test_exported_views_go_back_in(tiny_scene: Path, tmp_path: Path) -> None:
    words = [str(tiny_scene), "--format", "frames", "--frames", "4", "--size", "32"]
    result = CliRunner().invoke(export_scene, [*words, "--out", str(tmp_path / "views")])
    assert result.exit_code == 0, result.output
    frames = load_frames(tmp_path / "views")
    assert frames.rgba.shape == (4, 32, 32, 4)
    assert frames.time == pytest.approx([0, 1 / 3, 2 / 3, 1])
    scene = load_scene(tiny_scene)
    np.testing.assert_allclose(frames.cameras[1].c2w, camera_path(scene, "dynamic_orbit", 4)[1][0].c2w)
    drawn = scene.render(frames.cameras[2], frames.time[2])
    np.testing.assert_allclose(frames.rgba[2, ..., 3], drawn[..., 3], atol=0.6 / 255)
    with Image.open(tmp_path / "views" / "000.png") as image:
        assert image.mode == "RGBA"


def test_the_low_pass_of_a_scene_stays_with_it(tiny_scene: Path, tmp_path: Path) -> None:
    scene = load_scene(tiny_scene)
    assert scene.eps2d == 0.3 and b"comment" not in (tiny_scene / "canonical.ply").read_bytes()[:200]
    camera, soft = scene.cameras[1], scene.render(scene.cameras[1], 0.2)
    scene.eps2d = 0.07
    sharp = scene.render(camera, 0.2)
    assert np.abs(sharp - soft).max() > 0.02
    scene.save(tmp_path / "sharp")
    assert json.loads((tmp_path / "sharp" / "scene.json").read_text())["eps2d"] == 0.07
    again = load_scene(tmp_path / "sharp")
    np.testing.assert_allclose(again.render(camera, 0.2), sharp, atol=2e-4)
    export(again, tmp_path / "moments", frames=2)
    for file in (tmp_path / "sharp" / "canonical.ply", *(tmp_path / "moments").iterdir()):
        assert b"\ncomment eps2d 0.07\n" in file.read_bytes()[:200], file
        assert len(load_ply(file)) == len(scene.gaussians)
    words = [str(tmp_path / "sharp"), "--format", "splat", "--out", str(tmp_path / "sharp.splat")]
    result = CliRunner().invoke(export_scene, words)
    assert result.exit_code == 0 and "no place for the scene's eps2d of 0.07" in result.output
    words = [str(tiny_scene), "--format", "splat", "--out", str(tmp_path / "usual.splat")]
    assert "eps2d" not in CliRunner().invoke(export_scene, words).output


def test_a_scene_is_fitted_with_the_low_pass_it_keeps(
    tmp_path: Path, moving_ball: dict[str, np.ndarray], tiny_settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    draw = losses.draw

    class Noted(fused_view.Canvas):
        def __init__(self, n: int, width: int, height: int, eps2d: float) -> None:
            asked.append(eps2d)
            super().__init__(n, width, height, eps2d)

    def noted(*args: Any, **options: Any) -> Any:
        asked.append(options["eps2d"])
        return draw(*args, **options)

    monkeypatch.setattr(fused_view, "Canvas", Noted)
    monkeypatch.setattr(losses, "draw", noted)
    settings = replace(tiny_settings, coarse_steps=2, fine_steps=2, eps2d=0.05)
    # The slow way draws each of four steps; the kernels' buffers are made for each size and view.
    slow = replace(settings, weights=replace(settings.weights, depth_smoothness=0.1))
    for name, chosen in (("kernels", settings), ("autograd", slow)):
        asked.clear()
        scene = reconstruct(moving_ball["dynamic_orbit"], tmp_path / name, settings=chosen, device="cpu")
        assert asked and set(asked) == {0.05} and (name == "kernels" or len(asked) == 4)
        assert scene.eps2d == 0.05 == load_scene(tmp_path / name).eps2d
    with pytest.raises(InputError, match="eps2d"):
        replace(settings, eps2d=-0.1)


def test_exposure_is_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool | None] = []

    def noted(*_: Any, settings: Any, **__: Any) -> Any:
        asked.append(settings.exposure)
        raise InputError("enough")

    monkeypatch.setattr(reconstruction, "reconstruct", noted)
    for option in ([], ["--exposure"], ["--no-exposure"]):
        assert run(recon4d, ["orbit.mp4", "--out", "scene", *option]) == 2
    assert asked == [None, True, False]


def test_the_summary_tells_gains_and_an_early_end() -> None:
    metrics = {
        "psnr_train": 27.0,
        "ssim_train": 0.9,
        "exposure": {"psnr_train": 28.25, "psnr_static": 29.0},
        "heldout": {"front": {"psnr": 24.0, "ssim": 0.8, "gain": 1.042, "psnr_with_gain": 24.5}},
        "stopped": "stopped after 9 of 20 fine steps: ...",
        "failed": "the fit failed: ...",
    }
    lines = _summary(metrics)
    assert "27.00 dB" in lines[0] and "28.25 dB with the gains fitted" in lines[0]
    assert "24.50 dB with its own gain of 1.042" in lines[1] and lines[2].startswith("stopped after 9")
    assert lines[3].startswith("the fit failed"), "no failed fit without a word"
    plain = _summary({"psnr_train": 27.0, "ssim_train": 0.9, "heldout": {"front": {"psnr": 24, "ssim": 0.8}}})
    assert len(plain) == 2 and not any("gain" in line for line in plain)


def test_gsply_reads_our_spz(tiny_scene: Path, tmp_path: Path) -> None:
    gsply = pytest.importorskip("gsply", reason="gsply, an independent reader, is not installed")
    pytest.importorskip("zstandard", reason="gsply reads version 4 with zstandard, which is not installed")
    scene = load_scene(tiny_scene)
    export(scene, tmp_path / "a.spz", "spz", time=0.5)
    read = gsply.read_spz(tmp_path / "a.spz")
    g = scene.at(0.5)
    # 12 fractional bits of position.
    np.testing.assert_allclose(read.means, g.means, atol=2**-12)
    assert len(read.scales) == len(g)
