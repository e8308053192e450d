"""`.4dgs` and `.ksplat` are read: files of others within bounds, ours as they were, damage in one line."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))
from splat_kit import FIXTURES, errors, some, truth_of

from orbit4d.datasets import InputError, read_video
from orbit4d.recon4d import Scene, load_scene, open_scene, read_splats
from orbit4d.recon4d.cli import export_scene as export_command
from orbit4d.recon4d.cli import film as film_command
from orbit4d.recon4d.export.formats import export_scene
from orbit4d.recon4d.export.fourdgs import fourdgs_bytes
from orbit4d.recon4d.export.readers import still_scene
from orbit4d.recon4d.export.reading.fourdgs_file import read_fourdgs


@pytest.fixture(scope="module")
def scene(tiny_scene: Path) -> Scene:
    return load_scene(tiny_scene)


@pytest.fixture(scope="module")
def ours(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scene at five times, four a second."""
    out = tmp_path_factory.mktemp("moving") / "a.4dgs"
    export_scene(scene, out, "4dgs", frames=5, fps=4)
    return out


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_ksplat_of_others_is_read_within_its_bounds(degree: int) -> None:
    if FIXTURES is None:
        pytest.skip("the shared fixtures are not here")
    folder, name = FIXTURES / f"sh{degree}", "mkkellogg-1.ksplat"
    bounds = json.loads((FIXTURES / "bounds.json").read_text())[f"sh{degree}"].get(name)
    if bounds is None:
        pytest.skip(f"no .ksplat of degree {degree}")
    found = errors(read_splats(folder / name), truth_of(folder))
    over = {key: (found[key], bound) for key, bound in bounds.items() if key != "K" and found[key] > bound}
    assert not over and found["K"] == bounds["K"]


def test_a_scene_comes_back_from_4dgs_at_its_times(scene: Scene, ours: Path) -> None:
    again = open_scene(ours)
    edge = np.ptp(np.concatenate([scene.at(i / 4).means.numpy() for i in range(5)]), axis=0).max()
    for i in range(5):
        wanted, found = scene.at(i / 4), again.at(i / 4)
        assert len(found) == len(wanted)
        # A step of 1/16384 of the longest edge for the place, and as much for a window's way.
        np.testing.assert_allclose(found.means, wanted.means, atol=1.1 * edge / 16384)
        if i < 4:  # rotations stand still in a window: the last moment has those of the last window
            assert errors(found, wanted)["rot_deg"] < 0.2
        np.testing.assert_allclose(found.opacities, wanted.opacities, atol=0.003)
    half = (again.at(0.125).means - (again.at(0.0).means + again.at(0.25).means) / 2).abs().max()
    assert half < 1e-4, "on straight lines between"
    first = read_splats(ours)
    np.testing.assert_allclose(first.means, again.at(0.0).means, atol=1e-6)


def test_4dgs_of_the_formats_own_package_is_read() -> None:
    if FIXTURES is None:
        pytest.skip("the shared fixtures are not here")
    from scipy.spatial import cKDTree

    truth = np.load(FIXTURES / "moving" / "truth.npz")
    scene = open_scene(FIXTURES / "moving" / "fourdgs-windows.4dgs", axes="file")
    for i, time in enumerate(truth["time"] / truth["time"][-1]):
        found = scene.at(float(time))
        assert len(found) == 200, "also at the end, where half-open windows show nothing"
        which = cKDTree(found.means.numpy()).query(truth["means_t"][i])[1]
        assert len(set(which)) == 200
        # At the last time the last window's end, which is rounded as its way is.
        np.testing.assert_allclose(found.means[which], truth["means_t"][i], atol=1e-3 if i == 6 else 5e-4)
        assert np.abs(found.log_scales[which].numpy() - np.log(truth["scales"])).max() < 0.006
        assert np.abs(found.opacities[which].numpy() - truth["opacities"]).max() < 0.002
        assert np.abs(found.harmonics[which].numpy() - truth["sh"][:, 1:]).max() < 8 / 255
        if i < 6:
            dots = torch.nn.functional.normalize(found.quats[which], dim=1).numpy() * truth["quats_t"][i]
            assert np.degrees(2 * np.arccos(np.abs(dots.sum(1)).clip(0, 1))).max() < 0.15


def test_our_reader_and_the_package_see_the_same(scene: Scene, ours: Path) -> None:
    fourdgs = pytest.importorskip("fourdgs", reason="fourdgs, the format's own package, is not installed")
    held = fourdgs.read(str(ours)).gaussians
    gaussians, field, axes = read_fourdgs(ours.read_bytes(), "a.4dgs")
    assert axes == "z-up" and len(gaussians) == held.count
    for t in (0.0, 0.13, 0.6, 0.99):
        state, found = held.state_at(t), field.move(gaussians, t / field.config["span"])
        np.testing.assert_allclose(found.means, state["centers"], atol=1e-6)
        np.testing.assert_allclose(found.opacities, state["opacity"], atol=2e-6)


def test_a_gaussian_that_fades_is_as_opaque_as_its_bell_says(tmp_path: Path) -> None:
    still, field, _ = read_fourdgs(fourdgs_bytes([some(1, 20)] * 2, 1.0), "two")
    field.fading[:10], field.peak[:] = 1 / 0.2, 0.5
    moved = field.move(still, 0.3)
    share = (moved.opacities / still.opacities).numpy()
    np.testing.assert_allclose(share[:10], np.exp(-0.5), atol=1e-4)
    np.testing.assert_allclose(share[10:], 1, atol=1e-4)
    assert len(field.move(still, 0.0)) == 10, "2.5 sigma away is below the cutoff of 0.05"


def test_axes_and_world_of_what_moves(scene: Scene, tmp_path: Path) -> None:
    export_scene(scene, tmp_path / "y.4dgs", "4dgs", frames=3, up="y")
    again = open_scene(tmp_path / "y.4dgs")
    np.testing.assert_allclose(again.at(0.5).means, scene.at(0.5).means, atol=2e-4)
    moments = [some(0, 60) for _ in range(3)]
    for i, moment in enumerate(moments):
        moment.means = moment.means * 50 + torch.tensor([10.0 * i, 0, 300.0])
    (tmp_path / "far.4dgs").write_bytes(fourdgs_bytes(moments, 2.0))
    far = open_scene(tmp_path / "far.4dgs")
    assert far.world.scale > 30
    np.testing.assert_allclose(far.at(0.75).means, moments[0].means + torch.tensor([15.0, 0, 0]), atol=0.02)
    far.save(tmp_path / "scene")
    np.testing.assert_allclose(load_scene(tmp_path / "scene").at(0.75).means, far.at(0.75).means)


def test_the_commands_take_4dgs(ours: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    words = [str(ours), "--out", str(tmp_path / "a.mp4"), "--frames", "3", "--size", "40"]
    assert (done := runner.invoke(film_command, words)).exit_code == 0, done.output
    assert read_video(tmp_path / "a.mp4").frames.min() < 200, "something is seen"
    for format, name in (("ply-sequence", "seq"), ("usd", "a.usdc"), ("4dgs", "b.4dgs"), ("html", "a.html")):
        words = [str(ours), "--format", format, "--frames", "3", "--out", str(tmp_path / name)]
        assert (done := runner.invoke(export_command, words)).exit_code == 0, done.output
    words = [str(ours), "--format", "mesh-glb", "--out", str(tmp_path / "m.glb")]
    assert "control nodes" in str(runner.invoke(export_command, words).exception)


def test_windows_that_differ_are_refused_where_all_times_are_one_set(tmp_path: Path) -> None:
    gaussians, field, _ = read_fourdgs(fourdgs_bytes([some(0, 30)] * 4, 1.0), "three windows")
    field.window[:7, 1] = 0.1
    scene = still_scene(gaussians, field=field)
    assert len(scene.at(0.0)) == 30 and len(scene.at(0.2)) == 23
    for format, name in (("4dgs", "a.4dgs"), ("html", "a.html")):
        with pytest.raises(InputError, match="ply-sequence"):
            export_scene(scene, tmp_path / name, format)
    export_scene(scene, tmp_path / "a.usdc", "usd", frames=3)
    assert [path.name for path in tmp_path.iterdir()] == ["a.usdc"]


def test_damage_is_one_line(ours: Path, tmp_path: Path) -> None:
    whole, rng = ours.read_bytes(), np.random.default_rng(0)
    place = tmp_path / "cut.4dgs"
    for size in (0, 4, 9, 60, len(whole) // 2, len(whole) - 1):
        place.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"cut\.4dgs") as caught:
            read_splats(place)
        assert "\n" not in str(caught.value)
    place.write_bytes(whole.replace(b"gaussian-birth", b"keyframe-delta"))
    with pytest.raises(InputError, match="keyframe-delta"):
        read_splats(place)
    refused = 0
    for _ in range(60):
        broken = bytearray(whole)
        for at in rng.integers(8, 600, 4):
            broken[at] = rng.integers(0, 256)
        place.write_bytes(bytes(broken))
        try:
            assert open_scene(place).fault() is None
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 20


def test_damaged_ksplat_is_one_line(tmp_path: Path) -> None:
    head = bytearray(4096 + 1024)
    head[1] = 1
    struct.pack_into("<I", head, 4, 1)
    struct.pack_into("<I", head, 16, 2)
    struct.pack_into("<4I", head, 4096, 2, 2, 0, 0)
    row = struct.pack("<10f4B", 1, 2, 3, 0.1, 0.2, 0.3, 1, 0, 0, 0, 255, 0, 0, 128)
    good = bytes(head) + row * 2
    (tmp_path / "a.ksplat").write_bytes(good)
    g = read_splats(tmp_path / "a.ksplat")
    assert g.means.tolist() == [[1, 2, 3]] * 2 and g.scales[0].tolist() == pytest.approx([0.1, 0.2, 0.3])
    negative = row[:12] + struct.pack("<f", -1.0) + row[16:]
    for data in (good[:-1], good[:4000], good[:4096], bytes(5120), bytes(head) + row + negative):
        (tmp_path / "a.ksplat").write_bytes(data)
        with pytest.raises(InputError, match=r"a\.ksplat"):
            read_splats(tmp_path / "a.ksplat")
