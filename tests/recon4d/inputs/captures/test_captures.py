"""Every layout gives the images, cameras, times and split that were put into it; the rest is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.cameras.transforms import intrinsics_record
from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.inputs.captures.fourdanyone import Y_UP
from orbit4d.recon4d.inputs.captures.n3dv import turn_up
from orbit4d.recon4d.inputs.holding import Hold
from orbit4d.recon4d.inputs.loading import OrbitSpec, premultiply
from orbit4d.recon4d.inputs.open_views import ViewOptions, open_views
from orbit4d.recon4d.inputs.views import Views

#: Mean absolute error of premultiplied RGBA after H.264 and a matte off white.
CODEC = 0.02


def views_of(source: Any, cameras: Any = None, **options: Any) -> Views:
    spec = options.pop("spec", None)
    matte = options.pop("matte", "flat")
    mask = options.pop("mask", None)
    found = open_views(source, cameras, spec, mask, matte, 512, ViewOptions(**options))
    assert found is not None
    return found


def agrees(views: Views, rig: Any, exact: bool, held: str | None = None) -> None:
    """All images of all cameras are there, with their cameras and times."""
    sets = [views.train, *views.held_out.values()]
    assert sum(map(len, sets)) == rig.rgba.shape[0] * rig.rgba.shape[1]
    for frames in sets:
        for image, camera, t in zip(frames.rgba, frames.cameras, frames.time):
            gap = [np.abs(camera.c2w - own.c2w).max() for own in rig.cameras]
            v, i = int(np.argmin(gap)), int(np.argmin([abs(t - own) for own in rig.times]))
            assert gap[v] < 1e-9 and abs(rig.times[i] - t) < 1e-9
            assert np.isclose(camera.fl_x, rig.cameras[v].fl_x) and camera.w == rig.cameras[v].w
            off = np.abs(image - premultiply(rig.rgba[v, i]))
            assert off.max() < 1e-6 if exact else off.mean() < CODEC


def test_a_folder_per_camera_with_entries_per_image_and_its_holes(rig: Any, tmp_path: Path) -> None:
    folder = rig.folders(tmp_path / "views")
    rig.transforms(folder / "transforms.json")
    views = views_of(folder)
    agrees(views, rig, exact=True)
    assert views.still is not None and len(views.still) == 4 and set(views.still.time) == {0.5}
    (folder / "cam02" / "002.png").unlink()
    with pytest.raises(InputError, match=r"lists cam02/002.png, which is not there \(1 of 20"):
        views_of(folder)
    holed = views_of(folder, allow_missing=True)
    assert len(holed.train) == 19
    assert holed.still is not None and len(holed.still) == 4 and holed.still.time[0] in (0.25, 0.75)


def test_one_entry_per_camera_and_folders_videos_or_a_list_of_them(rig: Any, tmp_path: Path) -> None:
    folders, videos = rig.folders(tmp_path / "a"), rig.videos(tmp_path / "b", first="cam{:02d}")
    rig.transforms(folders / "transforms.json", per_shot=False)
    agrees(views_of(folders), rig, exact=True)
    (tmp_path / "c").mkdir()
    for v, label in enumerate(rig.labels):
        (videos / f"cam{v:02d}.mp4").rename(tmp_path / "c" / f"{label}.mp4")
    cameras = rig.transforms(tmp_path / "cameras.json", per_shot=False)
    agrees(views_of(tmp_path / "c", cameras), rig, exact=False)
    files = [tmp_path / "c" / f"{label}.mp4" for label in rig.labels]
    agrees(views_of(files, rig.cameras), rig, exact=False)
    agrees(views_of(rig.rgba, rig.cameras), rig, exact=True)
    agrees(views_of(list(rig.rgba), [[camera] * 5 for camera in rig.cameras]), rig, exact=True)


def test_a_ring_of_azimuths_and_what_is_said_without_one(rig: Any, tmp_path: Path) -> None:
    folder = rig.folders(tmp_path / "views")
    spec = OrbitSpec(elevation_deg=10.0, fov_x_deg=39.6)
    agrees(views_of(folder, ring=(0, 90, 180, 270), spec=spec), rig, exact=True)
    with pytest.raises(InputError, match=r"4 cameras .* no transforms.json; give --cameras FILE, or --ring"):
        views_of(folder)
    with pytest.raises(InputError, match=r"3 azimuths for 4 cameras"):
        views_of(folder, ring=(0, 90, 180))


def test_masks_by_camera_and_frame(rig: Any, tmp_path: Path) -> None:
    folder = rig.folders(tmp_path / "views")
    for name, root in (("fmasks", folder), ("mine", tmp_path)):
        for v, label in enumerate(rig.labels):
            (root / name / label).mkdir(parents=True)
            for t in range(5):
                Image.fromarray(rig.rgba[v, t, ..., :3]).save(folder / label / f"{t:03d}.png")
                Image.fromarray(rig.rgba[v, t, ..., 3]).save(root / name / label / f"{t:03d}.png")
    rig.transforms(folder / "transforms.json", per_shot=False)
    agrees(views_of(folder), rig, exact=True)
    agrees(views_of(folder, mask=tmp_path / "mine"), rig, exact=True)
    (tmp_path / "mine" / "cam03" / "001.png").unlink()
    with pytest.raises(InputError, match=r"no mask for 001.png"):
        views_of(folder, mask=tmp_path / "mine")


def test_dnerf_keeps_its_published_split(rig: Any, tmp_path: Path) -> None:
    angle = float(2 * np.arctan(20 / rig.cameras[0].fl_x))
    splits = {
        "train": [(v, t) for v in range(4) for t in (0, 2, 4)],
        "val": [(0, 1)],
        "test": [(v, t) for v in range(4) for t in (1, 3)],
    }
    for split, pairs in splits.items():
        (tmp_path / split).mkdir()
        frames = []
        for i, (v, t) in enumerate(pairs):
            Image.fromarray(rig.rgba[v, t]).save(tmp_path / split / f"r_{i:03d}.png")
            matrix = rig.cameras[v].c2w.tolist()
            name = f"./{split}/r_{i:03d}"
            frames.append({"file_path": name, "rotation": 0.1, "time": t / 4, "transform_matrix": matrix})
        record = {"camera_angle_x": angle, "frames": frames}
        (tmp_path / f"transforms_{split}.json").write_text(json.dumps(record))
    views = views_of(tmp_path)
    agrees(views, rig, exact=True)
    assert set(views.held_out) == {"test"} and len(views.held_out["test"]) == 8
    assert set(views.held_out["test"].time) == {0.25, 0.75}
    assert views.record["layout"] == "D-NeRF" and "split" in views.record


def test_n3dv_has_the_first_camera_for_testing(rig: Any, tmp_path: Path) -> None:
    rig.videos(tmp_path)
    rows = []
    for camera in rig.cameras:
        c2w = camera.c2w
        size = np.array([camera.h * 2.0, camera.w * 2.0, camera.fl_x * 2])
        columns = [-c2w[:3, 1], c2w[:3, 0], c2w[:3, 2], c2w[:3, 3], size]
        rows.append([*np.stack(columns, 1).reshape(15), 1.0, 4.0])
    np.save(tmp_path / "poses_bounds.npy", np.array(rows))
    views = views_of(tmp_path)
    agrees(views, rig, exact=False)
    assert set(views.held_out) == {"cam00"} and views.depths == (1.0, 4.0)
    np.save(tmp_path / "poses_bounds.npy", np.array(rows[:3]))
    with pytest.raises(InputError, match=r"3 cameras in poses_bounds.npy for 4 videos"):
        views_of(tmp_path)


def test_a_world_that_lies_on_its_side_is_turned_up(rig: Any) -> None:
    assert turn_up([camera.c2w for camera in rig.cameras]) is None
    lying = [np.vstack([Y_UP.T @ camera.c2w[:3], camera.c2w[3:]]) for camera in rig.cameras]
    turn = turn_up(lying)
    assert turn is not None and np.allclose(turn @ turn.T, np.eye(3)) and np.linalg.det(turn) > 0
    up = np.mean([turn @ pose[:3, 1] for pose in lying], axis=0)
    assert np.allclose(up / np.linalg.norm(up), (0, 0, 1))


def test_4danyone_stands_up_in_our_world(rig: Any, tmp_path: Path) -> None:
    entries = rig.fourdanyone(tmp_path)
    record = {"camera_model": "OPENCV", "world_frame": "y_up", "cameras": entries}
    (tmp_path / "cameras.json").write_text(json.dumps(record))
    views = views_of(tmp_path)
    agrees(views, rig, exact=False)
    assert views.generated and views.record["rotation_from_layout"] == Y_UP.tolist()


@pytest.mark.parametrize("sign", [1, -1])
def test_sv4d_goes_round_the_way_that_the_silhouettes_say(
    sign: int, rig: Any, tmp_path: Path, draw_views: Any
) -> None:
    from orbit4d.datasets.cameras.camera import focal_from_fov, orbit_c2w

    focal = focal_from_fov(33.8, 40)
    cameras = [
        Camera(orbit_c2w(sign * a, 0.0, 2.4), focal, focal, 20, 20, 40, 40) for a in (0, 60, 120, 180, 240)
    ]
    rgba = np.stack([draw_views("asset-000", 0, [camera] * 5, rig.times) for camera in cameras])
    five = replace(rig, cameras=cameras, rgba=rgba)
    five.videos(tmp_path, (8,) * 5, first="000000_v{:03d}")
    (tmp_path / "000000_v000.mp4").rename(tmp_path / "000000_process_input.mp4")
    views = views_of(tmp_path, spec=OrbitSpec(radius=2.4))
    agrees(views, five, exact=False)
    assert views.record["layout"] == "SV4D 2.0" and "go " in views.train.notes[-1]
    (tmp_path / "000000_v003.mp4").unlink()
    with pytest.raises(InputError, match=r"3 views of SV4D"):
        views_of(tmp_path)


def test_what_does_not_belong_together_is_said_in_one_line(rig: Any, tmp_path: Path) -> None:
    short = rig.folders(tmp_path / "short", {2: [0, 1, 2]})
    rig.transforms(short / "transforms.json", per_shot=False)
    with pytest.raises(InputError, match=r"cam03 has 3 frames, cam01 5: cameras must be synchronised"):
        views_of(short)
    assert len(views_of(short, allow_missing=True).train) == 12
    gap = rig.folders(tmp_path / "gap", {0: [0, 1, 2, 3], 1: [0, 1, 2, 4], 2: [0, 1, 2, 3], 3: [0, 1, 2, 3]})
    rig.transforms(gap / "transforms.json", per_shot=False)
    with pytest.raises(InputError, match=r"cam01 has no frame 4|cam02 has no frame 3"):
        views_of(gap)
    clocks = rig.videos(tmp_path / "clocks", (8, 8, 5, 8), first="cam{:02d}")
    with pytest.raises(InputError, match=r"cam00 and cam02 are not synchronised.*\(8 and 5 frames"):
        views_of(clocks, ring=(0, 90, 180, 270))
    sizes = rig.folders(tmp_path / "sizes")
    for file in (sizes / "cam04").iterdir():
        Image.open(file).resize((20, 20)).save(file)
    with pytest.raises(InputError, match=r"cam01 has 40x40 pixels, cam04 20x20"):
        views_of(sizes, ring=(0, 90, 180, 270))
    with pytest.raises(InputError, match=r"cam04 has 40x40|cam01 has 40x40"):
        views_of([*rig.rgba[:3], rig.rgba[3][:, :20, :20]], rig.cameras)


def test_unknown_layouts_are_named(rig: Any, tmp_path: Path) -> None:
    (tmp_path / "sparse" / "0").mkdir(parents=True)
    with pytest.raises(InputError, match=r"COLMAP \(sparse/0\) is not read"):
        views_of(tmp_path)
    with pytest.raises(InputError, match=r"does not hold what the layout n3dv needs"):
        views_of(rig.folders(tmp_path / "views"), layout="n3dv")
    with pytest.raises(InputError, match=r"--layout nonsense: choose from"):
        views_of(tmp_path / "views", layout="nonsense")
    one = tmp_path / "views" / "cam01"
    assert open_views(one, None, None, None) is None
    with pytest.raises(InputError, match=r"--hold-cameras: for several cameras"):
        views_of(one, hold_cameras="1")


def test_what_is_held_out(rig: Any, tmp_path: Path) -> None:
    views = views_of(rig.rgba, rig.cameras, hold_cameras="3", hold_times="0.25")
    assert len(views.train) == 3 * 4 and set(views.held_out) == {"cam03", "times"}
    assert len(views.held_out["cam03"]) == 5 and set(views.held_out["times"].time) == {0.25}
    assert "cam03" not in views.train.labels and 0.25 not in views.train.time
    every = views_of(rig.rgba, rig.cameras, hold_times="every:2")
    assert set(every.held_out["times"].time) == {0.25, 0.75}
    for wrong, said in (
        ({"hold_cameras": "9"}, "no such camera; it has cam01"),
        ({"hold_cameras": "1,2,3,4"}, "every camera or time is held out"),
        ({"hold_times": "0.4"}, None),
        ({"hold_times": "2"}, "give times in"),
        ({"hold_times": "every:1"}, "give times in"),
    ):
        if said is not None:
            with pytest.raises(InputError, match=said):
                views_of(rig.rgba, rig.cameras, **wrong)
    assert Hold.parse("a, b", None).cameras == ("a", "b")


def test_a_dataset_rig_with_another_rig_held_out(rig: Any, tmp_path: Path, make_clips: Any) -> None:
    from orbit4d.datasets import DatasetWriter, encode_webp

    clip = make_clips("asset-000", n_frames=5, size=40)[0]
    out = tmp_path / "ds"
    writer = DatasetWriter(out, {"frames": 5})
    clips = []
    for name, places in (("ring_3", (0, 1, 2)), ("held", (3,))):
        for number, v in enumerate(places):
            frames = tuple(encode_webp(image) for image in rig.rgba[v])
            clips.append(replace(
                clip, rig=name, orbit=number, frames=frames, cameras=(rig.cameras[v],) * 5,
                time=tuple(rig.times),
            ))  # fmt: skip
    writer.stage("asset-000", clips)
    writer.roll(final=True)
    found = views_of(f"{out}:asset-000", sync="ring_3", hold_cameras="held")
    agrees(found, rig, exact=True)
    assert set(found.held_out) == {"held/cam01"}
    with pytest.raises(InputError, match=r"several rigs \(held, ring_3\); name one by --sync"):
        views_of(f"{out}:asset-000")
    with pytest.raises(InputError, match=r"no synchronised rig ring_9; it has"):
        views_of(f"{out}:asset-000", sync="ring_9")


def test_cameras_whose_intrinsics_differ_keep_them(rig: Any, tmp_path: Path) -> None:
    folder = rig.folders(tmp_path / "views")
    path = rig.transforms(folder / "transforms.json", per_shot=False)
    record = json.loads(path.read_text())
    record["frames"][1] |= {"fl_x": 77.0, "fl_y": 77.0}
    path.write_text(json.dumps(record))
    train = views_of(folder).train
    lens = {label: camera.fl_x for label, camera in zip(train.labels, train.cameras)}
    assert lens["cam02"] == 77.0 and lens["cam01"] == intrinsics_record(rig.cameras[0])["fl_x"]
