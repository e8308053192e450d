"""Multi-camera layouts: read back by parsers written from their descriptions, and by our own import."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from orbit4d.datasets import (
    Camera,
    DatasetWriter,
    Index,
    InputError,
    export_dataset,
    read_clip,
    read_transforms,
)
from orbit4d.datasets.cameras.camera import orbit_c2w
from orbit4d.datasets.cli import export, import_
from orbit4d.datasets.exports.settings import ExportSettings
from orbit4d.datasets.layouts.multi_camera import LAYOUTS, READERS, export_scenes, import_scenes
from orbit4d.datasets.operations.verify import verify

_PATH = Path(__file__).parents[1] / "export_kit.py"
_SPEC = importlib.util.spec_from_file_location("orbit4d_tests_export_kit", _PATH)
assert _SPEC is not None and _SPEC.loader is not None
kit = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(kit)

FRAMES, SIZE, CAMERAS = 9, 64, 3
STATIC, MOVING = "rig = 'sync_basic'", "rig = 'sync_moving'"
#: Lens of 24 mm on the published square sensor.
FOCAL = 24 / 23.76 * SIZE


def camera(c2w: np.ndarray, focal: float = FOCAL) -> Camera:
    return Camera(c2w, focal, focal, SIZE / 2, SIZE / 2, SIZE, SIZE)


@pytest.fixture(scope="module")
def rigs(tmp_path_factory):
    """Two actions of `fox` seen by three fixed cameras, and by three moving ones; each shows the marker."""
    where = tmp_path_factory.mktemp("rigs") / "dataset"
    times = np.linspace(0, 1, FRAMES).tolist()
    clips = []
    for k in range(CAMERAS):
        fixed = [camera(orbit_c2w(30.0 - 40 * k, 8.0 * k, 1.8 + 0.2 * k))] * FRAMES
        moving = [camera(orbit_c2w(70.0 * k + 25 * t, 10.0 + 5 * t, 2.0)) for t in times]
        for rig, cameras in (("sync_basic", fixed), ("sync_moving", moving)):
            clip = kit.marker_clip("fox", rig, k, cameras, times, "a fox, seen")
            clips.append(replace(clip, measures={"coverage": 0.1 + k}, renderer={"engine": "test", "k": k}))
            if rig == "sync_basic":
                clips.append(replace(clip, action="Sit", action_index=1, passes={}))
    writer = DatasetWriter(where, {})
    writer.stage("fox", clips)
    writer.roll(final=True)
    return where


# Readers of the published layouts: scene, camera, frames, focal length, rows of each frame --------------


def unreal_rows(text: str) -> np.ndarray:
    return np.array([[float(w) for w in part.split()] for part in re.findall(r"\[([^]]*)\]", text)])


def unreal_pixel(rows: np.ndarray, point: np.ndarray, focal: float) -> np.ndarray:
    """Pixel of a point of our world, seen by a camera of Unreal's left-handed world: ours with x and y
    swapped, centimetres at 2 m a unit."""
    offset = 200.0 * point[[1, 0, 2]] - rows[3, :3]
    forward, right, up = rows[:3, :3] @ offset
    return SIZE / 2 + focal * np.array([right, -up]) / forward


def read_2024(root: Path):
    for scene in sorted((root / "train/cameras").iterdir()):
        table = json.loads((scene / "cameras.json").read_text())
        videos = root / "train/videos" / scene.name
        assert {path.stem for path in videos.iterdir()} == set(table)
        for key, text in table.items():
            focal = float(key.split("_")[2].removesuffix("mm")) / 23.76 * SIZE
            yield scene.name, key, kit.read_mp4(videos / f"{key}.mp4"), focal, [unreal_rows(text)] * FRAMES


def read_2025(root: Path):
    for scene in sorted(root.glob("train/f*_aperture*/scene*")):
        focal = float(scene.parent.name.split("_")[0][1:]) / 23.76 * SIZE
        table = json.loads((scene / "cameras/camera_extrinsics.json").read_text())
        assert list(table) == [f"frame{i}" for i in range(FRAMES)]
        for path in sorted((scene / "videos").glob("cam*.mp4")):
            rows = [unreal_rows(table[f"frame{i}"][path.stem]) for i in range(FRAMES)]
            yield scene.name, path.stem, kit.read_mp4(path), focal, rows


@pytest.mark.parametrize(
    ("layout", "where", "scenes"),
    [("syncamvideo-2024", STATIC, 2), ("syncamvideo-2025", STATIC, 2), ("multicamvideo", None, 3),
     ("recammaster", None, 3)],
)  # fmt: skip
def test_marker_in_the_unreal_layouts(rigs, tmp_path, layout, where, scenes):
    assert export_scenes(rigs, tmp_path / "x", layout, ExportSettings(exact=True), where)[0] == 3 * scenes
    reader = read_2024 if layout.endswith("2024") else read_2025
    found = list(reader(tmp_path / "x"))
    assert len({scene for scene, *_ in found}) == scenes and len(found) == 3 * scenes
    for _, _, frames, focal, rows in found:
        for i in (0, 4, 8):
            pixel = unreal_pixel(rows[i], kit.MARKER, focal)
            assert np.abs(pixel - kit.found_marker(frames[i])).max() < 0.5
            # Left-handed as published: read as a right-handed pose it is mirrored.
            assert np.linalg.det(rows[i][[1, 2, 0], :3] * [[1], [-1], [1]]) == pytest.approx(-1, abs=1e-4)
    if layout.endswith("2024"):
        assert [key for scene, key, *_ in found if scene == "scene1"] == [
            "C_01_24mm", "C_02_24mm", "C_03_24mm"
        ]  # fmt: skip
    if layout == "recammaster":
        with (tmp_path / "x/metadata.csv").open(newline="") as file:
            table = list(csv.DictReader(file))
        assert len(table) == 9 and {row["text"] for row in table} == {"a fox, seen"}
        assert all((tmp_path / "x/train" / row["file_name"]).is_file() for row in table)


def test_marker_in_dnerf(rigs, tmp_path):
    export_scenes(rigs, tmp_path / "x", "dnerf", where=MOVING)
    root = tmp_path / "x/fox__a0__sync_moving"
    counts = {}
    for split in ("train", "val", "test"):
        record = json.loads((root / f"transforms_{split}.json").read_text())
        counts[split] = len(record["frames"])
        for frame in record["frames"]:
            with Image.open(root / (frame["file_path"] + ".png")) as image:
                assert image.mode == "RGBA"
                pixels = np.asarray(image)
            focal = 0.5 * pixels.shape[1] / np.tan(0.5 * record["camera_angle_x"])
            w2c = np.linalg.inv(frame["transform_matrix"])
            x, y, z = (w2c @ [*kit.MARKER, 1])[:3]
            pixel = np.array([SIZE / 2 + focal * x / -z, SIZE / 2 - focal * y / -z])
            assert np.abs(pixel - kit.found_marker(pixels)).max() < 0.5
            assert 0 <= frame["time"] <= 1
    assert counts == {"train": 24, "val": 3, "test": 3}
    assert json.loads((root / "transforms_train.json").read_text())["frames"][0]["time"] == 0
    export_scenes(rigs, tmp_path / "y", "dnerf", ExportSettings(test_cameras=("cam02",)), MOVING)
    held = json.loads((tmp_path / "y/fox__a0__sync_moving/transforms_test.json").read_text())["frames"]
    want = [c.c2w.tolist() for c in read_clip(rigs, "fox", 0, "sync_moving", 1).cameras]
    assert [frame["transform_matrix"] for frame in held] == want


def test_marker_in_n3dv(rigs, tmp_path):
    export_scenes(rigs, tmp_path / "x", "n3dv", ExportSettings(exact=True, test_cameras=("3",)), STATIC)
    root = tmp_path / "x/fox__a0__sync_basic"
    rows = np.load(root / "poses_bounds.npy")
    videos = sorted(root.glob("cam*.mp4"))
    assert rows.shape == (3, 17) and rows.dtype == np.float64
    assert [video.name for video in videos] == ["cam00.mp4", "cam01.mp4", "cam02.mp4"]
    for row, video in zip(rows, videos):
        matrix, (height, width, focal) = row[:15].reshape(3, 5)[:, :4], row[:15].reshape(3, 5)[:, 4]
        down, right, back, centre = matrix.T
        assert (height, width) == (SIZE, SIZE)
        offset = kit.MARKER - centre
        depth = -back @ offset
        pixel = np.array([width / 2 + focal * (right @ offset) / depth,
                          height / 2 + focal * (down @ offset) / depth])  # fmt: skip
        assert np.abs(pixel - kit.found_marker(kit.read_mp4(video)[5])).max() < 0.5
        assert row[15] < depth < row[16]
    # The test view comes first: the third camera.
    clip = read_clip(rigs, "fox", 0, "sync_basic", 2)
    np.testing.assert_array_equal(rows[0][:15].reshape(3, 5)[:, 3], clip.cameras[0].position)
    z = clip.pass_arrays("depth")
    assert rows[0][15:] == pytest.approx([0.9 * z.min(), 1.1 * z[np.isfinite(z)].max()])


def test_nerfstudio_holds_the_cameras_of_a_rig_together(rigs, tmp_path):
    export_dataset(str(rigs), str(tmp_path / "x"), "nerfstudio", STATIC)
    root = tmp_path / "x/fox__a0__sync_basic"
    record = json.loads((root / "transforms.json").read_text())
    labels = [frame["camera_label"] for frame in record["frames"]]
    assert labels == ["cam01"] * 9 + ["cam02"] * 9 + ["cam03"] * 9
    names = [frame["file_path"] for frame in record["frames"]]
    assert names == sorted(names)
    for frame in record["frames"]:
        x, y, z = (np.linalg.inv(frame["transform_matrix"]) @ [*kit.MARKER, 1])[:3]
        pixel = [record["cx"] + record["fl_x"] * x / -z, record["cy"] - record["fl_y"] * y / -z]
        with Image.open(root / frame["file_path"]) as image:
            assert np.abs(kit.found_marker(np.asarray(image)) - pixel).max() < 0.5
        assert frame["seconds"] == 2 * frame["time"] and frame["frame"] == round(frame["time"] * 8)
    assert read_transforms(root / "transforms.json").notes == ()


# Round trips ------------------------------------------------------------------------------------------------


def on_white(pixels: np.ndarray) -> np.ndarray:
    alpha = pixels[..., 3:].astype(int)
    return (pixels[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "dnerf"])
def test_what_went_out_comes_back(rigs, tmp_path, layout):
    """All but what a video cannot hold: passes, and alpha, which is white now."""
    where = None if layout in ("multicamvideo", "recammaster") else STATIC
    count, notes = export_scenes(rigs, tmp_path / "x", layout, ExportSettings(exact=True), where)
    assert any("depth, normal" in note for note in notes)
    done = import_scenes(tmp_path / "x", tmp_path / "d", layout)
    assert (done.assets, done.clips, done.rejected) == (1, count, 0)
    assert verify(str(tmp_path / "d")).findings == []
    index = Index(tmp_path / "d")
    for number in range(len(index)):
        row = index.row(number)
        back = read_clip(tmp_path / "d", "fox", row["action_index"], row["rig"], row["orbit"])
        own = read_clip(rigs, "fox", row["action_index"], row["rig"], row["orbit"])
        pixels = back.pixels()
        np.testing.assert_array_equal(pixels[..., :3], on_white(own.pixels()))
        assert replace(back, frames=own.frames, passes=own.passes) == own


@pytest.mark.parametrize("layout", ["dnerf", "nerfstudio"])
def test_images_come_back_with_the_same_digest(rigs, tmp_path, layout):
    bare = tmp_path / "bare"
    writer = DatasetWriter(bare, {})
    index = Index(rigs)
    clips = [read_clip(rigs, r["uid"], r["action_index"], r["rig"], r["orbit"])
             for r in (index.row(i) for i in range(len(index)))]  # fmt: skip
    # D-NeRF has no place for passes; nerfstudio has.
    writer.stage("fox", [replace(c, passes={}) for c in clips] if layout == "dnerf" else clips)
    writer.roll(final=True)
    if layout == "dnerf":
        export_scenes(bare, tmp_path / "x", layout)
    else:
        export_dataset(str(bare), str(tmp_path / "x"), layout)
    import_scenes(tmp_path / "x", tmp_path / "back", layout)
    assert verify(str(tmp_path / "back")).digest == verify(str(bare)).digest


def test_archives_and_resuming(rigs, tmp_path):
    export_scenes(rigs, tmp_path / "x", "multicamvideo", ExportSettings(exact=True))
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "x", "MultiCamVideo-Dataset")
    words = ["--from", "multicamvideo", "--out"]
    for source, out in (("x", "a"), ("x.tar.gz", "b"), ("x", "a")):
        done = CliRunner().invoke(import_, [str(tmp_path / source), *words, str(tmp_path / out)])
        assert done.exit_code == 0, done.output
    assert "1 assets were there" in done.output
    assert verify(str(tmp_path / "a")).digest == verify(str(tmp_path / "b")).digest


def test_published_sets_without_our_neighbour(rigs, tmp_path):
    """As published there is no orbit4d.json: cameras come from the files, lens from the folder's name."""
    export_scenes(rigs, tmp_path / "x", "multicamvideo", ExportSettings(exact=True), MOVING)
    for path in (tmp_path / "x").rglob("orbit4d.json"):
        path.unlink()
    import_scenes(tmp_path / "x", tmp_path / "d", "multicamvideo")
    index = Index(tmp_path / "d")
    assert [index.row(i)["uid"] for i in range(3)] == ["f24_aperture5_scene1"] * 3
    for k in range(3):
        back = read_clip(tmp_path / "d", "f24_aperture5_scene1", "", "syncam", k)
        own = read_clip(rigs, "fox", 0, "sync_moving", k)
        assert back.cameras[0].fl_x == pytest.approx(FOCAL) and back.time == pytest.approx(own.time)
        assert back.seconds == pytest.approx([i / 15 for i in range(9)])
        # Six digits; the world's origin is 4 m ahead of the first camera, here the object's.
        mine, theirs = (np.stack([c.c2w for c in clip.cameras]) for clip in (own, back))
        np.testing.assert_allclose(theirs[:, :3, :3], mine[:, :3, :3], atol=5e-6)
        moved = theirs[:, :3, 3] - mine[:, :3, 3]
        np.testing.assert_allclose(moved, np.broadcast_to(moved[0], moved.shape), atol=5e-5)
    # A camera that was changed in the file wins over what our neighbour remembers.
    export_scenes(rigs, tmp_path / "y", "syncamvideo-2025", ExportSettings(exact=True), STATIC)
    path = tmp_path / "y/train/f24_aperture5/scene1/cameras/camera_extrinsics.json"
    table = json.loads(path.read_text())
    for frame in table.values():
        frame["cam01"] = "[1 0 0 0] [0 1 0 0] [0 0 1 0] [-500 0 0 1] "
    path.write_text(json.dumps(table))
    import_scenes(tmp_path / "y", tmp_path / "e", "syncamvideo-2025")
    changed = read_clip(tmp_path / "e", "fox", 0, "sync_basic", 0).cameras[0]
    np.testing.assert_allclose(changed.c2w, orbit_c2w(0, 0, 2.5), atol=1e-12)
    same = read_clip(tmp_path / "e", "fox", 0, "sync_basic", 1)
    assert same.cameras == read_clip(rigs, "fox", 0, "sync_basic", 1).cameras


def test_published_dnerf_and_n3dv(rigs, tmp_path):
    export_scenes(rigs, tmp_path / "x", "dnerf", where=MOVING)
    export_scenes(rigs, tmp_path / "n", "n3dv", ExportSettings(exact=True), STATIC)
    for path in (*(tmp_path / "x").rglob("orbit4d.json"), *(tmp_path / "n").rglob("orbit4d.json")):
        path.unlink()
    import_scenes(tmp_path / "x", tmp_path / "d", "dnerf")
    train = read_clip(tmp_path / "d", "fox__a0__sync_moving", "", "dnerf", 0)
    assert len(train.frames) == 24 and train.time[0] == 0
    for i in (0, 11):
        pixel = train.cameras[i].project(kit.MARKER)[0]
        assert np.abs(pixel - kit.found_marker(train.pixels()[i])).max() < 0.5
    import_scenes(tmp_path / "n", tmp_path / "e", "n3dv")
    for k in range(3):
        clip = read_clip(tmp_path / "e", "fox__a0__sync_basic", "", "n3dv", k)
        own = read_clip(rigs, "fox", 0, "sync_basic", k)
        assert clip.cameras == own.cameras and clip.seconds[3] == pytest.approx(3 / 30)


# Bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["n3dv", "--where", MOVING], "the camera moves, N3DV holds static ones"),
        (["syncamvideo-2025", "--where", MOVING], "use --format multicamvideo"),
        (["syncamvideo-2024", "--where", MOVING], "the camera moves"),
        (["dnerf", "--test-cameras", "cam09"], "has no such camera; it has cam01, cam02, cam03"),
        (["dnerf", "--test-cameras", "1,2,3"], "names every camera"),
        (["n3dv", "--where", STATIC, "--test-cameras", "1,2"], "one test camera"),
        (["multicamvideo", "--frames", "4n+1", "--fps", "0"], "--fps 0"),
        (["multicamvideo", "--frames", "81"], "--frames 81 asks for 81"),
    ],
)
def test_what_a_layout_cannot_say_is_one_line(rigs, tmp_path, words, says):
    done = CliRunner().invoke(export, [str(rigs), "--out", str(tmp_path / "o"), "--format", *words])
    assert isinstance(done.exception, InputError), done.output
    assert says in str(done.exception) and "\n" not in str(done.exception)
    assert not (tmp_path / "o").exists()


def test_cameras_that_no_layout_can_hold(rigs, tmp_path):
    own = [read_clip(rigs, "fox", 0, "sync_basic", k) for k in range(2)]
    wide = replace(own[1], cameras=tuple(replace(c, fl_x=99.0, fl_y=99.0) for c in own[1].cameras))
    late = replace(own[1], time=tuple(t / 2 for t in own[1].time))
    shifted = [replace(c, cameras=tuple(replace(x, cx=20.0) for x in c.cameras)) for c in own]
    mute = [replace(c, caption="") for c in own]
    for name, clips, layouts, says in (
        ("lens", [own[0], wide], ("multicamvideo", "dnerf"), "lens or size"),
        ("late", [own[0], late], LAYOUTS, "see different times"),
        ("shift", shifted, LAYOUTS, "centred principal point"),
        ("mute", mute, ("recammaster",), "2 of 2 clips have no caption"),
    ):
        writer = DatasetWriter(tmp_path / name, {})
        writer.stage("fox", clips)
        writer.roll(final=True)
        for layout in layouts:
            with pytest.raises(InputError, match=says):
                export_scenes(tmp_path / name, tmp_path / "o", layout)
    # 37 cameras are one more than the 2024 set has letters for.
    writer = DatasetWriter(tmp_path / "many", {})
    writer.stage("fox", [replace(own[0], orbit=k, passes={}) for k in range(37)])
    writer.roll(final=True)
    with pytest.raises(InputError, match="37 cameras, SynCamVideo of 2024 holds 36"):
        export_scenes(tmp_path / "many", tmp_path / "o", "syncamvideo-2024")


def test_broken_scenes_become_rejections(rigs, tmp_path):
    export_scenes(rigs, tmp_path / "x", "syncamvideo-2025", ExportSettings(exact=True), STATIC)
    export_scenes(rigs, tmp_path / "n", "n3dv", ExportSettings(exact=True), STATIC)
    export_scenes(rigs, tmp_path / "b", "dnerf", where=MOVING)
    scenes = tmp_path / "x/train/f24_aperture5"
    (scenes / "scene1/videos/cam02.mp4").unlink()
    (scenes / "scene2/cameras/camera_extrinsics.json").write_text('{"frame0": {"cam01": "[1 0"}}')
    done = import_scenes(tmp_path / "x", tmp_path / "d", "syncamvideo-2025")
    assert (done.clips, done.rejected) == (0, 2)
    rejected = {row.reason: row.detail for row in DatasetWriter(
        tmp_path / "d", {"imported": "syncamvideo-2025"}).rejections()}  # fmt: skip
    assert set(rejected) == {"bad_file:missing_cameras", "bad_file:camera"}
    assert "cam02 has a video or a camera, not both" in rejected["bad_file:missing_cameras"]
    (tmp_path / "n/fox__a0__sync_basic/cam01.mp4").write_bytes(b"no video")
    np.save(tmp_path / "n/fox__a1__sync_basic/poses_bounds.npy", np.zeros((3, 16)))
    assert import_scenes(tmp_path / "n", tmp_path / "e", "n3dv").rejected == 2
    (tmp_path / "b/fox__a0__sync_moving/train/r_003.png").unlink()
    assert import_scenes(tmp_path / "b", tmp_path / "f", "dnerf").rejected == 1
    for layout in READERS:
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="holds no file of this layout"):
            import_scenes(tmp_path / "empty", tmp_path / "g", layout)
    with pytest.raises(InputError, match="known are syncamvideo-2024"):
        import_scenes(tmp_path / "x", tmp_path / "g", "colmap")
