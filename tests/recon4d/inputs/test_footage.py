"""Images, cameras and masks belong together by name; what is read is what was meant, or it is said."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orbit4d.datasets import orbit
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.index.reader import read_clip
from orbit4d.datasets.layouts.exporting import export_dataset
from orbit4d.datasets.layouts.published_cameras import polar
from orbit4d.datasets.videos.video import write_video
from orbit4d.recon4d.inputs.footage import MAX_EDGE, MAX_FRAMES
from orbit4d.recon4d.inputs.loading import Frames, OrbitSpec, from_clip, load_frames

W, H = 40, 32


def picture(i: int, alpha: bool = True, w: int = W, h: int = H) -> np.ndarray:
    """Image i: an upright bar whose place tells i (of 16), straight RGBA uint8 [h, w, 4] or RGB on white."""
    rgba = np.zeros((h, w, 4), np.uint8)
    left = 2 + i * (w - 8) // 16
    rgba[4 : h - 4, left : left + 5] = [200, 40 + 10 * i, 60, 255]
    if alpha:
        return rgba
    return np.where(rgba[..., 3:] > 0, rgba[..., :3], 255).astype(np.uint8)


def places(frames: Frames) -> list[int]:
    """Which image each frame is."""
    columns = np.arange(frames.rgba.shape[2])
    middles = [(a.sum(0) * columns).sum() / a.sum() for a in frames.rgba[..., 3]]
    return [round((m - 4) * 16 / (frames.rgba.shape[2] - 8)) for m in middles]


def azimuths(frames: Frames) -> list[int]:
    return [round(polar(camera)[0]) % 360 for camera in frames.cameras]


def save(folder: Path, names: dict[str, int], alpha: bool = True) -> Path:
    """Images by name."""
    for name, i in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(i, alpha)).save(folder / name)
    return folder


def listing(folder: Path, names: dict[str, int], file: str = "transforms.json", **top: Any) -> Path:
    """A transforms.json whose frame i of 16 has azimuth 20 i, in the order of `names`."""
    folder.mkdir(parents=True, exist_ok=True)
    cameras = orbit(18, 2.0, 10.0, size=(W, H))
    frames = [{"file_path": n, "transform_matrix": cameras[i].c2w.tolist()} for n, i in names.items()]
    base = {"w": W, "h": H, "fl_x": cameras[0].fl_x}
    (folder / file).write_text(json.dumps({**base, **top, "frames": frames}))
    return folder / file


def test_numbers_order_images_masks_and_videos_of_them(tmp_path: Path) -> None:
    names = {f"shot{i}.png": i for i in range(12)}
    assert places(load_frames(save(tmp_path / "a", names))) == list(range(12))
    busy = np.random.default_rng(0).integers(0, 255, (12, H, W, 3), dtype=np.uint8)
    write_video(tmp_path / "busy.mp4", busy)
    for i in range(12):
        path = tmp_path / "masks" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture(i)[..., 3]).save(path)
    assert places(load_frames(tmp_path / "busy.mp4", mask=tmp_path / "masks")) == list(range(12))
    (tmp_path / "masks" / "3.png").unlink()
    with pytest.raises(InputError, match="11 images for 12 frames"):
        load_frames(tmp_path / "busy.mp4", mask=tmp_path / "masks")


def test_a_listed_order_is_kept(tmp_path: Path) -> None:
    names = {f"frames/r_{i}.png": i for i in range(12)}
    write_video(tmp_path / "a.mp4", np.stack([picture(i, False) for i in range(12)]), crf=4)
    frames = load_frames(tmp_path / "a.mp4", listing(tmp_path / "elsewhere", names))
    assert places(frames) == list(range(12)) and azimuths(frames) == [20 * i for i in range(12)]


@pytest.mark.parametrize(
    "listed",
    [
        {"images/f_7.png": 7, "images/f_1.png": 1, "images/f_10.png": 10, "images/f_2.png": 2},
        {"./images/f_7": 7, "./images/f_1": 1, "./images/f_10": 10, "./images/f_2": 2},
        {"f_7.png": 7, "f_1.png": 1, "f_10.png": 10, "f_2.png": 2},
        {"images\\f_7.jpg": 7, "images\\f_1.jpg": 1, "images\\f_10.jpg": 10, "images\\f_2.jpg": 2},
    ],
    ids=["relative", "no suffix", "bare", "windows, another suffix"],
)
@pytest.mark.parametrize("given", [False, True])
def test_part_of_the_images_in_any_order(tmp_path: Path, listed: dict[str, int], given: bool) -> None:
    """What COLMAP could register: each image keeps its camera, and its place in time."""
    save(tmp_path / "x" / "images", {f"f_{i}.png": i for i in range(1, 12)})
    path = listing(tmp_path / "x", listed)
    frames = load_frames(tmp_path / "x" / "images" if given else tmp_path / "x", path if given else None)
    assert places(frames) == [7, 1, 10, 2] and azimuths(frames) == [140, 20, 200, 40]
    np.testing.assert_allclose(frames.time, [6 / 9, 0, 1, 1 / 9])
    notes = " ".join(frames.notes)
    assert "7 images without a camera in transforms.json are left out: f_3.png, f_4.png" in notes
    assert "time follows the order of the file names" in notes


def test_images_that_are_listed_and_not_there_are_named(tmp_path: Path) -> None:
    names = {f"{i}.png": i for i in range(5)}
    save(tmp_path / "x", names)
    listing(tmp_path / "x", {**names, "11.png": 11})
    with pytest.raises(InputError, match=r"lists 11\.png, which is not in .* \(1 of 6 are not there\)"):
        load_frames(tmp_path / "x")
    listing(tmp_path / "x", {"0.png": 0, "./0.png": 1, "1.png": 1})
    with pytest.raises(InputError, match=r"0\.png and \./0\.png are one image"):
        load_frames(tmp_path / "x")


def test_names_in_several_folders_are_told_apart(tmp_path: Path) -> None:
    names = {f"cam{k}/0.png": k for k in (0, 1, 2, 10)}
    save(tmp_path / "x", names)
    listing(tmp_path / "x", dict(reversed(names.items())))
    frames = load_frames(tmp_path / "x")
    assert places(frames) == [10, 2, 1, 0] and azimuths(frames) == [200, 40, 20, 0]
    assert frames.time == pytest.approx([0, 1 / 3, 2 / 3, 1]), "in the listed order"


def test_paths_of_images(tmp_path: Path) -> None:
    save(tmp_path / "x", {f"f{i}.png": i for i in (3, 11, 5)})
    paths = [tmp_path / "x" / f"f{i}.png" for i in (11, 3, 5)]
    assert places(load_frames(paths)) == [11, 3, 5]
    assert places(load_frames([str(path) for path in paths])) == [11, 3, 5]
    path = listing(tmp_path / "y", {f"images/f{i}.png": i for i in (3, 4, 5, 11)})
    assert azimuths(load_frames(paths, path)) == [220, 60, 100]
    save(tmp_path / "x", {"g7.png": 7})
    with pytest.raises(InputError, match=r"no camera for g7\.png"):
        load_frames([*paths, tmp_path / "x" / "g7.png"], path)
    with pytest.raises(InputError, match="no such file"):
        load_frames([*paths, tmp_path / "x" / "f99.png"])


def test_masks_that_the_record_names(tmp_path: Path) -> None:
    """A stand below the object is left out, by masks of the object and by masks of all but the stand."""
    names = {f"{i}.png": i for i in range(6)}
    x = tmp_path / "x"
    for kind in ("object", "ignored"):
        for i in range(6):
            shown = picture(i, False)
            shown[-3:] = 30
            mask = picture(i)[..., 3] // 255 if kind == "object" else np.ones((H, W), np.uint8)
            mask[-3:] = 0
            for name, pixels in ((f"{i}.png", shown), (f"masks/{kind}/m{5 - i}.png", mask * 255)):
                (x / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(x / name)
        path = listing(x, names)
        made = json.loads(path.read_text())
        for i, frame in enumerate(made["frames"]):
            frame["mask_path"] = f"masks/{kind}/m{5 - i}.png"
        path.write_text(json.dumps(made))
        frames = load_frames(x)
        wanted = np.stack([picture(i)[..., 3] for i in range(6)]) / 255
        np.testing.assert_allclose(frames.rgba[..., 3], wanted, atol=0.01)
        assert any("mask_path" in note for note in frames.notes)
    plain = load_frames(x, mask=x / "masks" / "object").notes
    assert any("are not read: --mask is given" in note for note in plain)
    (x / "masks/ignored/m2.png").unlink()
    with pytest.raises(InputError, match=r"mask_path: .*m2\.png is not there"):
        load_frames(x)


def test_masks_of_another_shape_are_refused_with_both_sizes(tmp_path: Path) -> None:
    save(tmp_path / "x", {f"{i}.png": i for i in range(4)}, alpha=False)
    (tmp_path / "m").mkdir()
    for i in range(4):
        Image.fromarray(picture(i, w=H, h=W)[..., 3]).save(tmp_path / "m" / f"{i}.png")
    with pytest.raises(InputError, match=f"0.png has {H}x{W} pixels, its frame {W}x{H}"):
        load_frames(tmp_path / "x", mask=tmp_path / "m")


def test_sizes_of_cameras_and_images(tmp_path: Path) -> None:
    names = {f"{i}.png": i for i in range(4)}
    save(tmp_path / "x", names)
    listing(tmp_path / "x", names, w=3 * W, h=3 * H, fl_x=150)
    camera = load_frames(tmp_path / "x").cameras[0]
    assert (camera.w, camera.h, camera.fl_x) == (W, H, 50)
    listing(tmp_path / "x", names, w=H, h=W)
    with pytest.raises(InputError, match=f"{H}x{W} pixels, its image has {W}x{H}"):
        load_frames(tmp_path / "x")
    with pytest.raises(InputError, match=f"camera of {H}x{W} pixels for images of {W}x{H}"):
        load_frames([picture(i) for i in range(4)], orbit(4, size=(H, W)))


@pytest.mark.parametrize("lens", [{"k1": 0.3}, {"camera_model": "OPENCV_FISHEYE", "k1": -0.05}])
def test_a_lens_is_taken_out_and_named(tmp_path: Path, lens: dict[str, Any]) -> None:
    names = {f"{i}.png": i for i in range(6)}
    for alpha in (True, False):
        save(tmp_path / f"x{alpha}", names, alpha)
        listing(tmp_path / f"x{alpha}", names, fl_x=25, **lens)
        frames = load_frames(tmp_path / f"x{alpha}")
        assert any("taken out of the images" in note and "k1" in note for note in frames.notes)
        wanted = np.stack([picture(i)[..., 3] for i in range(6)]) / 255
        assert frames.rgba[0, ..., 3].sum() > 40 and np.abs(frames.rgba[..., 3] - wanted).mean() > 0.01


def test_names_of_a_videos_frames_in_another_order_are_noted(tmp_path: Path) -> None:
    video = np.stack([picture(i) for i in range(4)])
    path = listing(tmp_path, {"f2.png": 2, "f10.png": 10, "f1.png": 1, "f3.png": 3})
    frames = load_frames(video, path)
    assert azimuths(frames) == [40, 200, 20, 60], "a listed order is kept"
    assert any("in another order than their names" in note for note in frames.notes)


def test_cameras_beside_a_video_are_taken_and_said(tmp_path: Path) -> None:
    video = tmp_path / "clip.mp4"
    write_video(video, np.stack([picture(i, False) for i in range(9)]), crf=4)
    path = listing(
        tmp_path / "clip", {f"frames/{i:03d}.png": i for i in range(9)}, background=[255, 255, 255]
    )
    frames = load_frames(video)
    assert azimuths(frames) == [20 * i for i in range(9)] and frames.posed
    assert f"cameras of {path}" in frames.notes
    told = load_frames(video, spec=OrbitSpec(elevation_deg=40)).notes
    assert f"cameras of {path}; --orbit, --radius, --fov, --elevation are not used" in told
    listing(tmp_path / "clip", {f"frames/{i:03d}.png": i for i in range(8)})
    with pytest.raises(InputError, match=r"9 frames but 8 cameras in .*transforms\.json"):
        load_frames(video)
    other = listing(tmp_path, {f"{i}.png": i for i in range(9)}, "mine.json", fl_x=99)
    assert load_frames(video, other).cameras[0].fl_x == 99, "what is given comes first"


def test_folders_of_nerf_synthetic_and_d_nerf(tmp_path: Path) -> None:
    names = {f"./train/r_{i:03d}": i for i in (0, 3, 6)}
    save(tmp_path / "lego" / "train", {f"r_{i:03d}.png": i for i in (0, 3, 6)})
    save(tmp_path / "lego" / "test", {f"r_{i:03d}.png": 12 for i in range(3)})
    path = listing(tmp_path / "lego", names, "transforms_train.json")
    made = json.loads(path.read_text())
    path.write_text(json.dumps({"camera_angle_x": 0.8, "frames": [
        {**frame, "time": i / 4, "rotation": 0.1} for i, frame in enumerate(made["frames"])
    ]}))  # fmt: skip
    for source, cameras in ((tmp_path / "lego", None), (tmp_path / "lego" / "train", None),
                            (tmp_path / "lego" / "train", path)):  # fmt: skip
        frames = load_frames(source, cameras)
        assert places(frames) == [0, 3, 6] and azimuths(frames) == [0, 60, 120]
        assert frames.time == (0.0, 0.25, 0.5)
        assert np.radians(frames.cameras[0].fov_x_deg) == pytest.approx(0.8)


def test_many_images_are_thinned_with_their_cameras_and_masks(tmp_path: Path) -> None:
    n = MAX_FRAMES + 31
    names = {f"{i}.png": i % 16 for i in range(n)}
    save(tmp_path / "x", names)
    listing(tmp_path / "x", names)
    frames = load_frames(tmp_path / "x")
    assert len(frames) == MAX_FRAMES and frames.given == n
    assert azimuths(frames) == [20 * i for i in places(frames)]
    assert frames.time[0] == 0 and frames.time[-1] == 1
    busy = np.zeros((n, H, W, 3), np.uint8) + np.arange(n, dtype=np.uint8)[:, None, None, None]
    (tmp_path / "m").mkdir()
    for name, i in names.items():
        Image.fromarray(picture(i)[..., 3]).save(tmp_path / "m" / name)
    assert places(load_frames(np.maximum(busy, 9), mask=tmp_path / "m")) == places(frames)


def test_large_images_are_reduced_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for i in range(6):
        Image.fromarray(picture(i, w=1300, h=1000)).save(tmp_path / "x" / f"{i}.png", compress_level=1)
    tracemalloc.start()
    frames = load_frames(tmp_path / "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(frames.rgba.shape[1:3]) == MAX_EDGE and places(frames) == list(range(6))
    assert peak < 5 * frames.rgba.nbytes, "a few copies at the reduced size; one at the full is 6.4 times"
    assert load_frames(tmp_path / "x", max_edge=1024).rgba.shape[2] == 1024


def test_large_arrays_are_reduced_too() -> None:
    frames = load_frames([np.ascontiguousarray(picture(i, w=900, h=700)) for i in range(3)])
    assert max(frames.rgba.shape[1:3]) == MAX_EDGE and places(frames) == [0, 1, 2]
    assert (frames.cameras[0].w, frames.cameras[0].h) == (512, 398)


def test_our_own_nerfstudio_export_is_read_back(tmp_path: Path, make_dataset: Callable[..., Path]) -> None:
    dataset = make_dataset(tmp_path / "dataset", assets=1, n_frames=12, size=24)
    export_dataset(str(dataset), str(tmp_path / "out"), "nerfstudio", where="rig = 'dynamic_orbit'")
    folder = next((tmp_path / "out").iterdir())
    frames, clip = load_frames(folder), read_clip(str(dataset), "asset-000", "Run", "dynamic_orbit")
    whole = from_clip(clip)
    np.testing.assert_array_equal(frames.rgba, whole.rgba)
    assert frames.cameras == whole.cameras and frames.time == whole.time and frames.notes == ()
