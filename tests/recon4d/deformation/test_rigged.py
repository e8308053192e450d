"""A rig as glTF says it, surfaces that Gaussians are bound to, and the scene that results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from orbit4d.datasets import InputError, WorkError, orbit
from orbit4d.recon4d import load_scene, read_splats
from orbit4d.recon4d.deformation.rigs.rig import Channel, Motion, Rig, blended, composed, decomposed
from orbit4d.recon4d.deformation.rigs.rigged import RigField, rig_field
from orbit4d.recon4d.deformation.surface import SkinnedSurface, bind_to_surface, nearest_on_triangles
from orbit4d.recon4d.export.formats import export_scene
from orbit4d.recon4d.fitting.rigging.fit import refuse_moment
from orbit4d.recon4d.gaussians import from_points
from orbit4d.recon4d.scene import Scene


def arm(scale_to_zero: bool = False) -> tuple[Rig, SkinnedSurface]:
    """A bar along x from 0 to 1 with a joint at 0 and one at 0.5, which bends by 90 degrees in a second."""
    trs = np.tile([0, 0, 0, 0, 0, 0, 1.0, 1, 1, 1], (2, 1)).astype(float)
    trs[1, 0] = 0.5
    half = np.sqrt(0.5)
    bend = Channel(1, "rotation", np.array([0.0, 1.0]), np.array([[0, 0, 0, 1.0], [0, 0, half, half]]))
    keys = [bend]
    if scale_to_zero:
        keys.append(Channel(1, "scale", np.array([0.0, 1.0]), np.array([[1.0, 1, 1], [0, 0, 0]])))
    bind = np.tile(np.eye(4), (2, 1, 1))
    bind[1, 0, 3] = -0.5
    motions = (Motion("Arm|Bend", 0.0, 1.0, tuple(keys)), Motion("Arm|Rest", 0.0, 2.0, ()))
    rig = Rig(("root", "elbow"), np.array([-1, 0]), composed(trs), trs, np.array([0, 1]), bind, motions)
    x = np.linspace(0, 1, 11)
    vertices = np.array([(a, y, 0.0) for a in x for y in (-0.05, 0.05)])
    faces = np.array(
        [f for i in range(10) for f in ((2 * i, 2 * i + 2, 2 * i + 1), (2 * i + 1, 2 * i + 2, 2 * i + 3))]
    )
    far = (vertices[:, 0] > 0.5).astype(float)
    return rig, SkinnedSurface(vertices, faces, np.tile([0, 1], (22, 1)), np.stack([1 - far, far], 1))


def scene_of(rig: Rig, surface: SkinnedSurface, moment: float = 0.0) -> Scene:
    rng = np.random.default_rng(0)
    points = np.stack([rng.uniform(0, 1, 60), rng.uniform(-0.04, 0.04, 60), rng.uniform(-0.01, 0.01, 60)], 1)
    binding = bind_to_surface(points, None, surface, surface.posed(rig.maps(0, moment)))
    field = rig_field(rig, binding, "Arm|Bend", (0.0, 1.0), ("Arm|Bend", moment))
    return Scene(
        from_points(points, np.tile([0.2, 0.6, 0.3], (60, 1))), field, (orbit(1)[0].resized(48, 48),), (0.0,)
    )


def test_channels_hold_step_and_curve() -> None:
    times, values = np.array([1.0, 2.0]), np.array([[0.0, 0, 0], [2, 4, 6]])
    linear = Channel(0, "translation", times, values)
    assert np.allclose([linear.at(0.0), linear.at(1.5), linear.at(9.0)], [[0, 0, 0], [1, 2, 3], [2, 4, 6]])
    step = replace(linear, mode="STEP")
    assert np.allclose(step.at(1.99), 0) and np.allclose(step.at(2.0), [2, 4, 6])
    # A cubic with the tangents of a straight line is that line.
    slope = np.array([2.0, 4, 6])
    rows = np.concatenate([[slope, values[0], slope], [slope, values[1], slope]])
    cubic = Channel(0, "translation", times, rows, "CUBICSPLINE")
    assert np.allclose(cubic.at(1.3), linear.at(1.3)) and np.allclose(cubic.at(2.5), values[1])


def test_quaternions_go_the_short_way() -> None:
    a, b = np.array([0, 0, 0, 1.0]), -np.array([0, 0, np.sin(0.2), np.cos(0.2)])
    for slerp in (False, True):
        assert np.allclose(blended(a, b, 0.5, slerp), [0, 0, np.sin(0.1), np.cos(0.1)])
    wide = np.array([0, 0, np.sin(1.2), np.cos(1.2)])
    assert np.allclose(blended(a, wide, 0.25, True), [0, 0, np.sin(0.3), np.cos(0.3)])
    assert np.linalg.norm(blended(a, wide, 0.25) - blended(a, wide, 0.25, True)) > 1e-3


def test_decomposed_inverts_composed(seed: int) -> None:
    trs = np.random.default_rng(seed).normal(size=(50, 10))
    trs[:, 7:] = np.abs(trs[:, 7:]) + 0.1
    assert np.allclose(composed(decomposed(composed(trs))), composed(trs), atol=1e-12)


def test_nearest_point_of_a_triangle_against_many_points(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners, points = rng.normal(size=(20, 3, 3)), rng.normal(size=(20, 3)) * 2
    bary, distance = nearest_on_triangles(points, corners)
    assert (bary >= 0).all() and np.allclose(bary.sum(-1), 1)
    tries = rng.dirichlet(np.ones(3), 20_000)
    for p, triangle, d in zip(points, corners, distance, strict=True):
        best = np.linalg.norm(tries @ triangle - p, axis=1).min()
        assert d <= best + 1e-12 and d > best - 0.05


def test_a_tip_follows_its_joint_and_the_fit_moment_is_kept() -> None:
    rig, surface = arm()
    scene = scene_of(rig, surface)
    start, bent = scene.at(0.0), scene.at(1.0)
    assert torch.allclose(start.means, scene.gaussians.means, atol=1e-6)
    assert torch.allclose(start.log_scales.sort(1)[0], scene.gaussians.log_scales.sort(1)[0], atol=1e-5)
    tip = int(scene.gaussians.means[:, 0].argmax())
    x, y, z = scene.gaussians.means[tip].tolist()
    assert np.allclose(bent.means[tip].numpy(), [0.5 - y, x - 0.5, z], atol=1e-5)
    near = int(scene.gaussians.means[:, 0].argmin())
    assert torch.allclose(bent.means[near], scene.gaussians.means[near], atol=1e-6)


def test_fitted_bent_it_straightens() -> None:
    """Gaussians taken at another moment are driven from there: M(t) M(t0)⁻¹."""
    rig, surface = arm()
    straight = scene_of(rig, surface)
    bent = straight.at(1.0)
    field = rig_field(
        rig, bind_to_surface(bent.means.numpy(), None, surface, surface.posed(rig.maps(0, 1.0))),
        "Arm|Bend", (0.0, 1.0), ("Arm|Bend", 1.0),
    )  # fmt: skip
    back = Scene(bent, field).at(0.0).means
    moved = (back - straight.gaussians.means).norm(dim=1)
    # Between the vertices at 0.5 and 0.6 weights blend, and their surface is another one when bent.
    firm = (straight.gaussians.means[:, 0] < 0.45) | (straight.gaussians.means[:, 0] > 0.65)
    assert float(moved[firm].max()) < 1e-5


def test_saved_and_loaded_it_draws_the_same(tmp_path: Path) -> None:
    rig, surface = arm()
    scene = scene_of(rig, surface)
    scene.save(tmp_path / "s")
    again = load_scene(tmp_path / "s")
    for name in ("rig.npz", "rig.json"):
        assert (tmp_path / "s" / name).is_file()
    camera = scene.cameras[0]
    # Colours become harmonics in the file and come back rounded.
    assert np.allclose(again.render(camera, 0.7), scene.render(camera, 0.7), atol=1e-6)
    assert again.actions() == ("Arm|Bend", "Arm|Rest")
    still = again.with_action("Rest")
    assert torch.allclose(still.at(0.9).means, scene.gaussians.means, atol=1e-6)
    (tmp_path / "s" / "binding.npz").write_bytes(b"PK")
    with pytest.raises(WorkError, match="damaged scene"):
        load_scene(tmp_path / "s")


@pytest.mark.parametrize("format", ["ply", "compressed-ply", "splat", "spz", "sog", "glb"])
def test_each_file_holds_the_posed_moment(format: str, tmp_path: Path) -> None:
    scene = scene_of(*arm())
    (out,) = export_scene(scene, tmp_path / f"x.{format.rpartition('-')[2]}", format, time=1.0)
    wanted = scene.at(1.0)
    found = read_splats(out, "y-up" if format == "glb" else "file").means.numpy()
    distance = cKDTree(found).query(wanted.means.numpy())[0]
    assert len(found) == len(wanted) and distance.max() < 1e-3


def test_moving_files_follow_the_skeleton_and_a_mesh_is_refused(tmp_path: Path) -> None:
    scene = scene_of(*arm())
    frames = export_scene(scene, tmp_path / "seq", "ply-sequence", frames=3)
    for i, path in enumerate(frames):
        assert torch.allclose(read_splats(path).means, scene.at(i / 2).means, atol=1e-6)
    assert export_scene(scene, tmp_path / "x.4dgs", "4dgs", frames=3)
    for format in ("mesh-glb", "mesh-obj"):
        with pytest.raises(InputError, match="moved by its asset's own skeleton"):
            export_scene(scene, tmp_path / "m", format)
    Usd = pytest.importorskip("pxr.Usd", reason="usd-core is not installed")
    export_scene(scene, tmp_path / "x.usdc", "usd", frames=3)
    stage = Usd.Stage.Open(str(tmp_path / "x.usdc"))
    places = np.array(stage.GetPrimAtPath("/scene/splats").GetAttribute("positions").Get(2))
    np.testing.assert_allclose(places, scene.at(1.0).means.numpy(), atol=1e-6)


def test_unknown_actions_and_flat_joints_are_named() -> None:
    rig, surface = arm(scale_to_zero=True)
    with pytest.raises(InputError, match="'Bent': unknown; the nearest is Bend"):
        rig.motion("Bent")
    scene = scene_of(arm()[0], surface)
    assert isinstance(scene.field, RigField)
    flat = RigField("Arm|Bend", (0.0, 1.0), ("Arm|Bend", 1.0)).attach(
        rig, scene.field.index, scene.field.weights
    )
    with pytest.raises(InputError, match="'elbow' is scaled to nothing"):
        Scene(scene.gaussians, flat).at(0.0)


def test_a_part_scaled_to_nothing_is_bound_to_nobody_and_a_flat_one_is_refused_before_a_fit() -> None:
    rig, surface = arm(scale_to_zero=True)
    # At 1 s the far half is a point at the elbow: what is left is the near half, and all of it is sound.
    posed = surface.posed(rig.maps(0, 1.0))
    points = np.column_stack([np.linspace(0.05, 0.49, 20), np.zeros(20), np.zeros(20)])
    near = bind_to_surface(points, None, surface, posed)
    firm = points[:, 0] < 0.5
    assert (near.weights[firm][near.index[firm] == 1] == 0).all()
    read = SimpleNamespace(rig=rig, surface=surface)
    refuse_moment(read, ("Arm|Bend", 0.0))
    flat = Channel(1, "scale", np.array([0.0]), np.array([[1.0, 1.0, 0.0]]))
    still = replace(rig, motions=(Motion("Arm|Flat", 0.0, 1.0, (flat,)),))
    says = r"joint 'elbow' is scaled to nothing at 0 s of Arm\|Flat: .*--rig-moment"
    with pytest.raises(InputError, match=says):
        refuse_moment(SimpleNamespace(rig=still, surface=surface), ("Arm|Flat", 0.0))
