"""Compositions: a union drawn as one set, places that are exact, folders that are scenes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from orbit4d.datasets import InputError, WorkError, orbit
from orbit4d.recon4d.composition import (
    Composition,
    Part,
    Track,
    between,
    camera_record,
    load_scene,
    placed,
    times_at_points,
    track_of,
    track_record,
    union,
)
from orbit4d.recon4d.deformation.building import StillField
from orbit4d.recon4d.export.formats import export_scene
from orbit4d.recon4d.filming import film, film_directed
from orbit4d.recon4d.gaussians import Gaussians, from_points
from orbit4d.recon4d.scene import Scene, draw


def blob(seed: int, n: int = 400, at: tuple[float, float, float] = (0, 0, 0)) -> Gaussians:
    rng = np.random.default_rng(seed)
    found = from_points(rng.normal(size=(n, 3)) * 0.12 + at, rng.random((n, 3)), opacity=0.7)
    found.log_scales = found.log_scales + 0.3 * torch.tensor(rng.normal(size=(n, 3)), dtype=torch.float32)
    found.quats = torch.tensor(rng.normal(size=(n, 4)), dtype=torch.float32)
    return found


CAMERA = orbit(8, 2.0, 10.0)[1].resized(96, 96)


def straight(n: int = 20, seconds: float = 2.0, **more: object) -> Track:
    points = np.column_stack([np.linspace(-0.5, 0.5, n), np.zeros(n), np.zeros(n)])
    return Track(points, np.tile(np.eye(3), (n, 1, 1)), 1.0, end=seconds, **more)  # type: ignore[arg-type]


def test_union_is_drawn_as_the_merged_set() -> None:
    a, b, c = blob(0), blob(1, at=(0.1, -0.2, 0)), blob(2, at=(-0.1, 0.2, 0.1))
    scene = Composition.of([Part(str(i), Scene(g, StillField())) for i, g in enumerate((a, b, c))], 1.0)
    merged = Gaussians(**{n: torch.cat([getattr(g, n) for g in (a, b, c)]) for n in Gaussians.names()})
    assert np.array_equal(scene.render(CAMERA, 0.3), Scene(merged, StillField()).render(CAMERA, 0.3))
    other = draw(union([c, a, b]), CAMERA)[0]
    assert (other - draw(union([a, b, c]), CAMERA)[0]).abs().max() <= 1e-3
    empty = Gaussians(**{name: tensor[:0] for name, tensor in a.tensors().items()})
    assert torch.equal(draw(union([a, b, c, empty]), CAMERA)[0], draw(union([a, b, c]), CAMERA)[0])


def test_what_was_fitted_covers_as_much_of_itself_from_any_distance() -> None:
    """A fit's low-pass is in pixels of its images; in a film it keeps its size on the object."""
    shell = blob(0, 2500)
    shell.means = 0.3 * torch.nn.functional.normalize(shell.means, dim=1)
    shell.log_scales = torch.full_like(shell.log_scales, float(np.log(0.02)))
    shell.logits = torch.full_like(shell.logits, 3.0)
    track = straight(seconds=0.0)
    fitted = Part("s", Scene(shell, StillField(), (CAMERA,) * 3, (0.0,) * 3), track)
    scene = Composition.of([Part("f", Scene(blob(4, at=(0, 0, -1)), StillField())), fitted], 1.0)
    alone = Composition.of([fitted], 1.0)
    place = alone.at(0.0).means.mean(0).numpy()
    mass, plain = [], []
    for far in (1.0, 2.0, 3.0):
        c2w = CAMERA.c2w.copy()
        c2w[:3, 3] = place + far * CAMERA.c2w[:3, 3]
        camera = replace(CAMERA, c2w=c2w)
        # A ball of radius 0.3 covers 1 / (1 - 0.3² / distance²) more of an image than its distance says.
        area = far**2 - 0.09 / 4.0
        mass.append(area * alone.render(camera, 0.0)[..., 3].sum())
        plain.append(area * draw(alone.at(0.0), camera)[1].sum().item())
        drawn, eps2d = scene.as_drawn(camera, 0.3)
        assert 0 < eps2d <= 0.3001
        one_set = Scene(drawn, StillField(), eps2d=eps2d).render(camera, 0.0)
        assert np.array_equal(scene.render(camera, 0.3), one_set)
    # Pixels sample the rim of 30 pixels at the farthest.
    assert np.ptp(mass) <= 0.02 * mass[0] and plain[2] > 1.08 * plain[0], (mass, plain)


def test_harmonics_are_filled_up() -> None:
    a, b = blob(0), blob(1)
    b.harmonics = torch.zeros(len(b), 3, 3)
    assert union([a, b]).harmonics.shape == (len(a) + len(b), 3, 3)


def test_placed_is_the_formula(seed: int) -> None:
    rng = np.random.default_rng(seed)
    g = blob(3, 50)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    point, scale, ground = rng.normal(size=3), 1.7, -0.2
    found = placed(g, scale, turn, point, ground)
    wanted = scale * (g.means.numpy() - [0, 0, ground]) @ turn.T + point
    assert np.abs(found.means.numpy() - wanted).max() < 1e-5

    def covariance(one: Gaussians) -> np.ndarray:
        from orbit4d.recon4d import rotations

        axes = rotations.to_matrix(torch.nn.functional.normalize(one.quats, dim=1)).double().numpy()
        return (axes * np.exp(2 * one.log_scales.double().numpy())[:, None]) @ axes.transpose(0, 2, 1)

    theirs = scale**2 * turn @ covariance(g) @ turn.T
    assert np.abs(covariance(found) - theirs).max() <= 1e-5 * np.abs(theirs).max()
    assert torch.equal(found.logits, g.logits) and torch.equal(found.colors, g.colors)


def test_a_track_eases_in_keeps_its_speed_and_arrives() -> None:
    track = straight(ease=0.25, stride=0.4)
    ways = np.array([track.travelled(t) for t in np.linspace(0, 2, 401)])
    assert ways[0] == 0 and ways[-1] == pytest.approx(track.length) and (np.diff(ways) >= 0).all()
    pace = np.diff(ways) / 0.005
    assert np.allclose(pace[60:340], 1.0 / 1.75, rtol=1e-6) and pace[0] < 0.05 and pace[-1] < 0.05
    assert track.clip_seconds(1.0) == pytest.approx(track.travelled(1.0) / 0.4)
    assert track.place(9.0)[0].tolist() == [0.5, 0, 0]
    times = times_at_points(track)
    assert np.allclose([track.travelled(t) for t in times], np.linspace(0, 1, 20), atol=1e-4)
    back = track_of(json.loads(json.dumps(track_record(track))))
    assert np.array_equal(back.points, track.points) and back.stride == track.stride


def test_rotations_between_go_the_short_way() -> None:
    half = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    quarter = between(np.eye(3), half, 0.5)
    assert np.allclose(quarter @ quarter, half, atol=1e-12)
    assert between(half, half, 0.3) is half


def made(folder: Path) -> Path:
    """A composition of two still things, one on its way, written as `compose` writes it."""
    for key, g in (("ground", blob(5)), ("thing", blob(6, at=(0, 0, 0.2)))):
        Scene(g, StillField()).save(folder / "concepts" / key)
    rows = [{"concept": "ground", "track": None}, {"concept": "thing", "track": track_record(straight())}]
    shots = [camera_record(CAMERA, t) for t in (0.0, 0.5)]
    record = {"format": 1, "seconds": 2.0, "fps": 8.0, "parts": rows, "camera": shots, "prompt": "p"}
    (folder / "composition.json").write_text(json.dumps(record))
    (folder / "scene.json").write_text(json.dumps({"format": 1, "kind": "composition"}))
    return folder


def test_a_folder_is_a_scene(tmp_path: Path) -> None:
    root = made(tmp_path / "film")
    scene = load_scene(root)
    assert isinstance(scene, Composition) and len(scene.gaussians) == 800
    first, last = scene.at(0.0), scene.at(1.0)
    assert torch.allclose(last.means[400:] - first.means[400:], torch.tensor([1.0, 0, 0]), atol=1e-5)
    assert torch.equal(last.means[:400], first.means[:400])
    assert film_directed(scene, root, tmp_path / "d.mp4", size=64).shape == (2, 64, 64, 3)
    assert film(scene, tmp_path / "b.mp4", "bullet_time", frames=2, size=48).shape == (2, 48, 48, 3)
    assert len(export_scene(scene, tmp_path / "ply", "ply-sequence", frames=2)) == 2


def test_bad_folders_are_named(tmp_path: Path) -> None:
    root = made(tmp_path / "film")
    plain = tmp_path / "plain"
    Scene(blob(1), StillField()).save(plain)
    with pytest.raises(InputError, match="--rig director needs a film made by `orbit4d compose`"):
        film_directed(load_scene(plain), plain, tmp_path / "x.mp4")
    (root / "concepts" / "thing" / "canonical.ply").unlink()
    with pytest.raises(WorkError, match="damaged scene"):
        load_scene(root)
    record = json.loads((root / "composition.json").read_text())
    record["parts"][1]["concept"] = "../../plain"
    (root / "composition.json").write_text(json.dumps(record))
    with pytest.raises(WorkError, match="damaged composition"):
        load_scene(root)
