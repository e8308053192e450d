"""The inputs of ../shared/faults that are images, videos, masks and cameras give what its README says."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orbit4d.datasets import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.layouts.published_cameras import polar
from orbit4d.recon4d import load_scene, reconstruct
from orbit4d.recon4d.fitting.settings import PRESETS
from orbit4d.recon4d.inputs.loading import Frames, load_frames

CASES = [
    "E1",
    "E2",
    "E3",
    "U1",
    "U2",
    "U3",
    "U4",
    "V1",
    "V2",
    "V3",
    "V4",
    "X1",
    "Y1",
    "9-2",
    "9-3",
    "10-3",
    "12-1",
    "12-2",
    "12-3",
]


def rgb_of(frames: Frames, check: dict[str, Any]) -> np.ndarray:
    """Straight RGBA of a box [left, top, width, height] of a frame, 0 to 255."""
    left, top, w, h = check["at"]
    box = frames.rgba[check["frame"], top : top + h, left : left + w]
    rgb = box[..., :3] / np.maximum(box[..., 3:], 1e-3)
    return np.concatenate([rgb, box[..., 3:]], -1).reshape(-1, 4) * 255


def bar_places(frames: Frames) -> np.ndarray:
    columns = np.arange(frames.rgba.shape[2]) + 0.5
    alpha = frames.rgba[..., 3]
    return np.array([(plane.sum(0) * columns).sum() / plane.sum() for plane in alpha])


def degrees_apart(a: float, b: float) -> float:
    return abs((a - b + 180) % 360 - 180)


def check_camera(frames: Frames, check: dict[str, Any]) -> None:
    for i, camera in enumerate(frames.cameras):
        azimuth, elevation, _ = polar(camera)
        if "azimuth" in check:
            assert degrees_apart(azimuth, check["azimuth"][i]) < 0.5, (i, azimuth)
        if "elevation" in check:
            assert abs(elevation - check["elevation"]) < 0.5, (i, elevation)
        if "fov" in check:
            assert abs(camera.fov_x_deg - check["fov"]) < 0.5


def holds(frames: Frames, check: dict[str, Any]) -> None:
    """One check of cases.csv; AssertionError where it fails."""
    kind = check["c"]
    if kind == "any":
        failed = []
        for some in check["of"]:
            try:
                for one in some:
                    holds(frames, one)
                return
            except AssertionError as error:
                failed.append(str(error))
        raise AssertionError("; ".join(failed))
    h, w = frames.rgba.shape[1:3]
    if kind == "frames":
        assert len(frames) == check["n"]
    elif kind == "order":
        assert (np.diff(bar_places(frames)) > 0).all(), bar_places(frames)
    elif kind == "camera":
        check_camera(frames, check)
    elif kind == "times":
        assert frames.time == pytest.approx(check["is"], abs=1e-6)
    elif kind == "aspect":
        assert abs(w / h - check["is"]) < 0.04, (w, h)
    elif kind == "note":
        assert any(re.search(check["re"], note, re.I) for note in frames.notes), frames.notes
    elif kind == "frame_colour":
        mean = rgb_of(frames, check)[:, :3].mean(0)
        assert (mean >= check["lo"]).all() and (mean <= check["hi"]).all(), mean
    elif kind == "frame_alpha":
        alpha = rgb_of(frames, check)[:, 3]
        assert check["min"] <= alpha.min() and alpha.max() <= check["max"], (alpha.min(), alpha.max())
    elif kind == "comb":
        grey = 255 * (frames.rgba[..., :3].mean(-1) + 1 - frames.rgba[..., 3])
        combed = np.abs(grey[:, 1:-1] - (grey[:, :-2] + grey[:, 2:]) / 2).mean()
        assert combed <= check["max"], combed
    elif kind == "paired":
        # A bar at place i of n has azimuth step * i.
        middles = bar_places(frames)
        first, last = middles.min(), middles.max()
        azimuths = [polar(camera)[0] % 360 for camera in frames.cameras]
        lowest, highest = min(azimuths), max(azimuths)
        place = (middles - first) / (last - first) * (highest - lowest) + lowest
        assert max(degrees_apart(a, p) for a, p in zip(azimuths, place)) < check["step"] / 4
    else:
        raise AssertionError(f"no such check: {kind}")


@pytest.mark.parametrize("case", CASES)
def test_what_is_read_is_what_was_meant(shared: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = shared / "faults"
    if not (faults / "cases.csv").is_file():
        pytest.skip("../shared/faults is not beside this checkout")
    with (faults / "cases.csv").open(newline="", encoding="utf-8") as file:
        row = next(row for row in csv.DictReader(file) if row["id"] == case)
    monkeypatch.chdir(faults)
    read = json.loads(row["read"])
    frames = load_frames(read["source"], read.get("cameras"), mask=read.get("mask"))
    for check in json.loads(row["check"]):
        holds(frames, check)


# ../shared/faults/more --------------------------------------------------------------------------------------


@pytest.fixture
def more(shared: Path) -> Path:
    folder = shared / "faults" / "more"
    if not folder.is_dir():
        pytest.skip("../shared/faults/more is not beside this checkout")
    return folder


@pytest.fixture
def fitted(more: Path, tmp_path: Path) -> Callable[..., tuple[Any, Path]]:
    """`fitted(name, **options)`: the scene of a case after a few steps, and its folder of images."""

    def fit(name: str, **options: Any) -> tuple[Any, Path]:
        few = replace(PRESETS["fast"], n_gaussians=2000, coarse_steps=80, fine_steps=20, resolution=64)
        reconstruct(more / name, tmp_path / "scene", settings=few, threads=1, **options)
        return load_scene(tmp_path / "scene"), more / name

    return fit


def overlap(scene: Any, truth: Path) -> float:
    """Mean IoU over every third camera with silhouettes of pinhole cameras."""
    data = np.load(truth)
    w, h = map(int, data["size"])
    masks = np.unpackbits(data["mask"], axis=-1)[..., :w].astype(bool)
    found = []
    for i in range(0, len(masks), 3):
        camera = Camera(data["c2w"][i], *map(float, data["K"]), w, h)
        made = scene.render(camera, float(data["time"][i]))[..., 3] > 0.5
        found.append((made & masks[i]).sum() / (made | masks[i]).sum())
    return float(np.mean(found))


@pytest.mark.parametrize(
    ("name", "mask", "least", "says"),
    [
        ("a_barrel", None, 0.875, "lens distortion k1 -0.45"),
        ("c_some", None, 0.85, "4 images without a camera"),
        ("w_stand", None, 0.85, "mask_path"),
        ("d_busy", "d_mask01", 0.85, "1 for the object"),
    ],
)
def test_silhouettes_agree(
    fitted: Callable[..., Any], more: Path, name: str, mask: str | None, least: float, says: str
) -> None:
    scene, _ = fitted(name, **({"mask": more / mask} if mask else {}))
    assert overlap(scene, more / f"{name}.truth.npz") >= least
    assert any(says in note for note in scene.info["notes"])


def test_a_world_of_its_own_is_seen_at_its_own_cameras(fitted: Callable[..., Any]) -> None:
    scene, folder = fitted("f_away")
    found = []
    for i in range(0, len(scene.cameras), 3):
        with Image.open(folder / f"{i:03d}.png") as image:
            wanted = np.asarray(image.convert("RGBA"))[..., 3] > 127
        made = scene.render(scene.cameras[i], scene.time[i])[..., 3] > 0.5
        found.append((made & wanted).sum() / (made | wanted).sum())
    assert np.mean(found) >= 0.8
    np.testing.assert_allclose(scene.cameras[0].position, [1.5, -7.0, 0.6], atol=1e-6)


def test_pixels_that_are_not_square(more: Path) -> None:
    camera = load_frames(more / "b_wide").cameras[0]
    assert camera.fl_y / camera.fl_x == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize(
    ("name", "says"),
    [("e_time", r"006\.png has no time"), ("g_portrait", "72x48 pixels, its image has 48x72")],
)
def test_contradictions_are_refused_by_name(more: Path, name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_frames(more / name)


def test_an_odd_edge_survives_the_codec(more: Path, tmp_path: Path) -> None:
    from orbit4d.datasets.images.folders import read_images
    from orbit4d.datasets.videos.video import write_video
    from orbit4d.evaluate.tasks.frames import load_frames as measured

    write_video(tmp_path / "odd.mp4", read_images(more / "j_odd")[..., :3], 8)
    made, real = measured(str(tmp_path / "odd.mp4")).rgb, measured(str(more / "j_odd")).rgb
    assert made.shape == real.shape and made.shape[2:] == (49, 65)
    assert -10 * np.log10(float((made - real).square().mean())) >= 30
