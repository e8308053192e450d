"""Exports for trainers, read back by parsers written from each format's description."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from orbit4d.datasets import InputError, orbit, read_clip
from orbit4d.datasets.cli import export
from orbit4d.datasets.commands import export_options
from orbit4d.datasets.exports.settings import ExportSettings
from orbit4d.datasets.layouts.multi_camera import LAYOUTS
from orbit4d.datasets.trainers.exporting import TARGETS, export_for_trainer
from tests.datasets.trainers.trainer_readers import FRAMES, READERS, read_musubi, read_videofolder

_PATH = Path(__file__).parents[1] / "export_kit.py"
_SPEC = importlib.util.spec_from_file_location("orbit4d_tests_export_kit", _PATH)
assert _SPEC is not None and _SPEC.loader is not None
kit = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(kit)
marked = kit.marked

NAMES = ["fox__a0__dynamic_orbit__o0", "fox__a0__front_view__o0"]
CAPTION = 'A "red" fox, running'
FOX = "uid = 'fox'"


def test_there_is_a_reader_and_an_option_for_every_target():
    assert set(READERS) == set(TARGETS) == set(export_options.TRAINERS)
    assert set(LAYOUTS) == set(export_options.MULTI_CAMERA)
    names = {option.name for option in export.params}
    assert {n.removeprefix("--").replace("-", "_") for n, _ in export_options._OPTIONS} <= names


@pytest.fixture(scope="module")
def exported(marked, tmp_path_factory):
    """trainer -> its export with a mask as control (diffusers takes none), and what the command said."""
    root = tmp_path_factory.mktemp("exports")
    said = {}
    for name in TARGETS:
        words = [str(marked), "--format", name, "--out", str(root / name), "--where", FOX]
        words += ["--caption-prefix", "orb4d ", "--caption-suffix", "."]
        words += [] if name == "diffusers" else ["--control", "mask"]
        said[name] = CliRunner().invoke(export, words, catch_exceptions=False)
        assert said[name].exit_code == 0, said[name].output
    return root, said


@pytest.mark.parametrize("name", TARGETS)
def test_a_trainer_finds_every_clip_with_caption_control_and_marker(exported, marked, name):
    root = exported[0] / name
    found = READERS[name](root)
    assert sorted(found) == NAMES
    for stem, (caption, video, control, _) in found.items():
        assert caption == f"orb4d {CAPTION}."
        frames = kit.read_mp4(video)
        assert frames.shape == (FRAMES.get(name, 21), 64, 64, 3)
        clip = read_clip(marked, "fox", "", stem.split("__")[2])
        for i in (0, 7, len(frames) - 1):
            assert np.abs(kit.found_marker(frames[i]) - clip.cameras[i].project(kit.MARKER)[0]).max() < 1.0
        if name != "diffusers":
            mask = kit.read_mp4(control)
            alpha = np.stack([p[..., 3] >= 128 for p in clip.pixels()])[: len(mask)]
            # H.264 rings at edges; inside and outside stay apart.
            assert len(mask) == len(frames) and (alpha == (mask[..., 0] > 127)).mean() > 0.995


@pytest.mark.parametrize("name", TARGETS)
def test_no_file_is_unlisted_and_the_start_is_told(exported, name):
    root, said = exported[0] / name, exported[1][name]
    lines = [line for line in said.stdout.splitlines() if line.startswith("start: ")]
    assert len(lines) == 1 and (root / "START.md").read_text().strip() == lines[0]
    assert str(root) in lines[0]
    listed = {"START.md", "orbit4d.json"}
    record = json.loads((root / "orbit4d.json").read_text())
    assert record["format"] == name
    for clip in record["clips"]:
        listed |= {clip["video"], clip["camera"], *clip["controls"].values()}
        listed |= {clip["video"].removesuffix(".mp4") + ".txt"} if name == "musubi" else set()
    own = {
        "musubi": {"musubi.toml"},
        "diffsynth": {"metadata.csv"},
        "videox-fun": {"metadata.json"},
        "ltx": {"dataset.jsonl"},
        "finetrainers": {"training.json", "metadata.jsonl"},
        "diffusers": {"prompts.txt", "videos.txt"},
        "videofolder": {"metadata.jsonl", "README.md"},
    }
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    assert files == (listed | own[name]) - {None}


@pytest.mark.parametrize(("name", "says"), [("musubi", "24 to 21"), ("ltx", "24 to 17")])
def test_dropped_frames_are_told_once(exported, name, says):
    assert exported[1][name].stderr.count("drops") == 1 and says in exported[1][name].stderr


def test_equal_exports_are_equal_to_the_byte(exported, marked, tmp_path):
    export_for_trainer(marked, tmp_path / "again", "diffsynth", ExportSettings(
        controls=("mask",), caption_prefix="orb4d ", caption_suffix="."), where=FOX)  # fmt: skip
    first = exported[0] / "diffsynth"
    for path in (path for path in first.rglob("*") if path.is_file()):
        if path.name != "START.md":  # names its own folder
            assert path.read_bytes() == (tmp_path / "again" / path.relative_to(first)).read_bytes(), path


# Cameras ----------------------------------------------------------------------------------------------------


def project_line(line: str, size: tuple[int, int], point: np.ndarray, wide: bool) -> np.ndarray:
    """Pixel of a world point by a camera line, as VideoX-Fun (`wide`: 1280x720 original, resized to cover and
    cut) or RealEstate10K reads it."""
    n = [float(word) for word in line.split(" ")]
    assert len(n) == 19 and n[5] == n[6] == 0
    fx, fy, cx, cy = n[1:5]
    w, h = size
    if wide:
        if w / h < 16 / 9:
            fx = fx * (h / w) * (16 / 9)
        else:
            fy = fy * (w / h) * 9 / 16
    x, y, z = np.array(n[7:]).reshape(3, 4) @ [*point, 1.0]
    return np.array([w * (fx * x / z + cx), h * (fy * y / z + cy)])


@pytest.mark.parametrize("name", ["diffsynth", "videox-fun"])
def test_camera_text_projects_the_marker_onto_its_pixel(exported, name):
    for _, video, _, camera in READERS[name](exported[0] / name).values():
        frames = kit.read_mp4(video)
        title, *lines = camera.read_text().splitlines()
        assert title == "" and len(lines) == len(frames)
        for i in (0, 5, 20):
            pixel = project_line(lines[i], (64, 64), kit.MARKER, wide=True)
            assert np.abs(pixel - kit.found_marker(frames[i])).max() < 0.5


def test_videox_without_a_control_is_given_the_cameras(marked, tmp_path):
    done = export_for_trainer(marked, tmp_path / "x", "videox-fun", where=FOX)
    rows = json.loads((tmp_path / "x/metadata.json").read_text())
    assert [row["control_file_path"] for row in rows] == [f"cameras/{name}.txt" for name in NAMES]
    assert "control_camera_ref" in done.start and any("cannot train on camera text" in n for n in done.notes)


def test_the_worked_camera_line_and_ray():
    """Frame 6 of an orbit of 25 at 256 pixels, as the format's description gives it."""
    from orbit4d.datasets.exports.camera_text import camera_text, pluecker_maps

    cameras = orbit(25)
    seconds = [i / 24 for i in range(25)]
    line = camera_text(cameras, seconds, "videox-fun").splitlines()[7]
    numbers = [float(word) for word in line.split()]
    np.testing.assert_allclose(numbers[1:5], [0.781249, 1.388887, 0.5, 0.5], atol=1e-6)
    rows = [[0.0627905, 0.9980267, 0, 0], [0, 0, -1, 0], [-0.9980267, 0.0627905, 0, 2]]
    np.testing.assert_allclose(np.reshape(numbers[7:], (3, 4)), rows, atol=1e-7)
    assert numbers[0] == 250000
    plain = camera_text(cameras, seconds, "realestate").splitlines()[7].split()
    assert float(plain[1]) == cameras[0].fl_x / 256
    ray = pluecker_maps(cameras)[6, 0, 0]
    np.testing.assert_allclose(ray, [0.59948, -1.18074, -0.63838, -0.91019, -0.31982, -0.26319], atol=1e-5)


def test_pluecker_maps_and_plain_camera_text_beside_any_target(marked, tmp_path):
    settings = ExportSettings(pluecker="float32", camera_text="realestate", frames="5", exact=True)
    export_for_trainer(marked, tmp_path / "m", "musubi", settings, where=FOX)
    with np.load(tmp_path / f"m/plucker/{NAMES[0]}.npz") as stored:
        maps, order = stored["plucker"], str(stored["order"])
    assert maps.shape == (5, 64, 64, 6) and maps.dtype == np.float32 and order == "moment,direction"
    # The marker's ray passes through it: m = p x d, in the first camera's frame (OpenCV axes).
    clip = read_clip(marked, "fox", "", "dynamic_orbit")
    point = (clip.cameras[0].w2c_opencv @ [*kit.MARKER, 1])[:3]
    for i in range(5):
        column, row = np.floor(clip.cameras[i].project(kit.MARKER)[0]).astype(int)
        moment, direction = maps[i, row, column, :3], maps[i, row, column, 3:]
        miss = np.linalg.norm(np.cross(point, direction) - moment)
        assert miss < 2.0 / clip.cameras[i].fl_x  # half a pixel's diagonal at depth 2, and rounding
    lines = (tmp_path / f"m/cameras/{NAMES[0]}.txt").read_text().splitlines()
    frames = kit.read_mp4(tmp_path / f"m/videos/{NAMES[0]}.mp4")
    pixel = project_line(lines[3], (64, 64), kit.MARKER, wide=False)
    assert np.abs(pixel - kit.found_marker(frames[2])).max() < 0.5


@pytest.mark.parametrize("size", ["96x64", "48x80"])
def test_cameras_follow_a_resize_and_cut(marked, tmp_path, size):
    """--size: the videos, the camera text and c2w with intrinsics agree on where the marker is."""
    w, h = map(int, size.split("x"))
    settings = ExportSettings(sizes=((w, h),), camera_text="realestate", frames="5", exact=True)
    export_for_trainer(marked, tmp_path / "v", "videofolder", settings, where=FOX)
    rows = [json.loads(line) for line in (tmp_path / "v/metadata.jsonl").read_text().splitlines()]
    for row in rows:
        frames = kit.read_mp4(tmp_path / "v" / row["file_name"])
        assert frames.shape[1:3] == (h, w) == (row["height"], row["width"])
        lines = (tmp_path / f"v/cameras/{Path(row['file_name']).stem}.txt").read_text().splitlines()
        for i in range(5):
            pixel = project_line(lines[i + 1], (w, h), kit.MARKER, wide=False)
            assert np.abs(pixel - kit.found_marker(frames[i])).max() < 0.5
            w2c = np.linalg.inv(np.reshape(row["c2w"][i], (4, 4)) @ np.diag([1, -1, -1, 1]))
            x, y, z = (w2c @ [*kit.MARKER, 1])[:3]
            own = [row["fl_x"] * x / z + row["cx"], row["fl_y"] * y / z + row["cy"]]
            np.testing.assert_allclose(own, pixel, atol=1e-9)


# Controls ---------------------------------------------------------------------------------------------------


def test_depth_and_normal_say_what_was_measured(marked, tmp_path):
    settings = ExportSettings(controls=("depth", "normal", "mask"), frames="3", exact=True)
    export_for_trainer(marked, tmp_path / "v", "videofolder", settings, where=FOX)
    row = json.loads((tmp_path / "v/metadata.jsonl").read_text().splitlines()[0])
    clip = read_clip(marked, "fox", "", "dynamic_orbit")
    grey = kit.read_mp4(tmp_path / "v" / row["depth_file_name"])[..., 0] / 255
    z = clip.pass_arrays("depth")[:3]
    seen = np.isfinite(z)
    assert (grey[~seen] == 0).all()
    near, far = row["z_near"], row["z_far"]
    # One grey step in 1/z is the error of the mapping back; values beyond the percentiles are cut.
    inside = seen & (z >= near) & (z <= far)
    back = grey * (1 / near - 1 / far) + 1 / far
    assert np.abs(back - 1 / z)[inside].max() <= (1 / near - 1 / far) / 510 + 1e-6
    normal = kit.read_mp4(tmp_path / "v" / row["normal_file_name"]).astype(float)
    assert (normal[~seen] == (128, 128, 255)).all()
    for i in range(3):
        # World (0, -1, 0) in the camera's axes.
        want = 127.5 * (clip.cameras[i].c2w[:3, :3].T @ [0, -1, 0] + 1)
        assert np.abs(normal[i][seen[i]] - want).max() <= 0.51
    assert "OpenGL" in row["normal_axes"] and row["mask_file_name"]


def test_linear_depth(marked, tmp_path):
    settings = ExportSettings(controls=("depth",), depth="linear", frames="5", exact=True)
    export_for_trainer(marked, tmp_path / "d", "diffsynth", settings, where=FOX)
    record = json.loads((tmp_path / "d/orbit4d.json").read_text())["clips"][0]
    z = read_clip(marked, "fox", "", "dynamic_orbit").pass_arrays("depth")[:5]
    grey = kit.read_mp4(tmp_path / "d" / record["controls"]["depth"])[..., 0] / 255
    near, far = record["z_near"], record["z_far"]
    inside = np.isfinite(z) & (z >= near) & (z <= far)
    assert np.abs((far - grey * (far - near)) - z)[inside].max() <= (far - near) / 510 + 1e-6


def test_a_flat_patch_keeps_its_colour_and_backgrounds_are_as_asked(marked, tmp_path):
    for background, want in (("white", (255,) * 3), ("black", (0,) * 3), ("#c81e1e", (200, 30, 30))):
        out = tmp_path / background.strip("#")
        export_for_trainer(
            marked, out, "musubi", ExportSettings(background=background, frames="5"), where=FOX
        )
        corner = kit.read_mp4(out / f"videos/{NAMES[0]}.mp4")[:, :6, :6].astype(int)
        assert np.abs(corner - want).max() <= 2
    drawn = []
    for seed in (0, 1):
        settings = ExportSettings(background="random", seed=seed, frames="5", exact=True)
        export_for_trainer(marked, tmp_path / f"r{seed}", "diffsynth", settings, where=FOX)
        for clip in json.loads((tmp_path / f"r{seed}/orbit4d.json").read_text())["clips"]:
            corner = kit.read_mp4(tmp_path / f"r{seed}" / clip["video"])[0, 0, 0].tolist()
            assert corner == clip["background"]
            drawn.append(tuple(corner))
    assert len(set(drawn)) == 4


def test_several_sizes_become_buckets(marked, tmp_path):
    from orbit4d.datasets import DatasetWriter

    writer = DatasetWriter(tmp_path / "d", {})
    square = read_clip(marked, "fox", "", "front_view")
    from dataclasses import replace

    wide = kit.with_other_size(replace(square, uid="wide"), (96, 48))
    names = ("frames", "cameras", "time", "seconds")
    short = replace(square, uid="short", passes={}, **{name: getattr(square, name)[:9] for name in names})
    for clip in (square, wide, short):
        writer.stage(clip.uid, [clip])
    writer.roll(final=True)
    done = export_for_trainer(tmp_path / "d", tmp_path / "m", "musubi")
    config = tomllib.loads((tmp_path / "m/musubi.toml").read_text())
    folders = {part["video_directory"]: part["target_frames"] for part in config["datasets"]}
    assert folders == {"videos/9x64x64": [9], "videos/21x64x64": [21], "videos/21x96x48": [21]}
    assert sorted(read_musubi(tmp_path / "m")) == sorted(
        f"{uid}__a0__front_view__o0" for uid in ("fox", "wide", "short")
    )
    done = export_for_trainer(
        tmp_path / "d", tmp_path / "l", "ltx", ExportSettings(sizes=((64, 64), (128, 64)))
    )
    assert '"64x64x9;64x64x17;128x64x17"' in done.start
    assert kit.read_mp4(tmp_path / "l/videos/wide__a0__front_view__o0.mp4").shape == (17, 64, 128, 3)


def test_many_clips_go_into_several_folders(marked, tmp_path, monkeypatch):
    from dataclasses import replace

    monkeypatch.setitem(TARGETS, "videofolder", replace(TARGETS["videofolder"], most_files=1))
    export_for_trainer(marked, tmp_path / "v", "videofolder", ExportSettings(controls=("mask",)), where=FOX)
    found = read_videofolder(tmp_path / "v")
    assert [str(video.relative_to(tmp_path / "v").parent) for _, video, _, _ in found.values()] == [
        "videos/000", "videos/001"
    ]  # fmt: skip
    assert all(control.is_file() for _, _, control, _ in found.values())


def test_diffsynths_own_class_iterates_the_export(exported):
    pytest.importorskip("torchvision", reason="torchvision does not go with this torch")
    data = pytest.importorskip("diffsynth.core.data", reason="diffsynth is not installed")
    root = str(exported[0] / "diffsynth")
    operator = data.UnifiedDataset.default_video_operator(
        base_path=root, max_pixels=1 << 20, height=None, width=None, height_division_factor=16,
        width_division_factor=16, num_frames=81, time_division_factor=4, time_division_remainder=1,
    )  # fmt: skip
    rows = data.UnifiedDataset(
        base_path=root, metadata_path=f"{root}/metadata.csv", repeat=1,
        data_file_keys=("video", "control_video"), main_data_operator=operator,
    )  # fmt: skip
    assert len(rows) == 2
    for row in (rows[0], rows[1]):
        assert row["prompt"] == f"orb4d {CAPTION}."
        assert len(row["video"]) == len(row["control_video"]) == 21 and row["video"][0].size == (64, 64)


# Hugging Face -----------------------------------------------------------------------------------------------

_LOAD = """
import json, os, sys
from datasets import Video, load_dataset
from datasets.utils.logging import disable_progress_bar
disable_progress_bar()
found = load_dataset("videofolder", data_dir=sys.argv[1])
rows = found["train"]
rows = rows.cast_column("video", Video(decode=False)).cast_column("mask", Video(decode=False))
print(json.dumps([{**row, "video": row["video"]["path"], "mask": row["mask"]["path"]} for row in rows]))
"""


def test_hugging_face_loads_the_videofolder_offline(exported, tmp_path):
    """In a process of its own: from the root of the checkout the name `datasets` is ours."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"),
                   "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}  # fmt: skip
    look = "import importlib.util as u; s = u.find_spec('datasets'); print(s and s.origin)"
    base = [sys.executable, "-P", "-c"]
    origin = subprocess.run(
        [*base, look], cwd=tmp_path, env=environment, capture_output=True, text=True
    ).stdout
    if "site-packages" not in origin:
        pytest.skip("Hugging Face's `datasets` is not installed (pip install 'orbit4d[dev]')")
    root = exported[0] / "videofolder"
    done = subprocess.run(
        [*base, _LOAD, str(root)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(done.stdout.splitlines()[-1])
    assert [Path(row["video"]).stem for row in rows] == NAMES
    for row in rows:
        assert row["text"] == f"orb4d {CAPTION}." and row["license"] == "CC0-1.0" and len(row["c2w"]) == 24
        frames = kit.read_mp4(Path(row["video"]))
        w2c = np.linalg.inv(np.reshape(row["c2w"][9], (4, 4)) @ np.diag([1, -1, -1, 1]))
        x, y, z = (w2c @ [*kit.MARKER, 1])[:3]
        pixel = [row["fl_x"] * x / z + row["cx"], row["fl_y"] * y / z + row["cy"]]
        assert np.abs(kit.found_marker(frames[9]) - pixel).max() < 0.5
        assert kit.read_mp4(Path(row["mask"])).shape == frames.shape


# Bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--format musubi", "1 of 3 clips have no caption (first: mute__a0__front_view__o0)"),
        ("--format musubi --frames 8x", "--frames 8x: give all, 4n+1"),
        ("--format musubi --frames 0", "--frames 0: give all"),
        (f"--format musubi --frames 30 --where {FOX}", "has 24 frames, --frames 30 asks for 30"),
        (f"--format ltx --frames 33n+1 --where {FOX}", "--frames 33n+1 leaves none of that form"),
        (
            f"--format ltx --size 100x64 --where {FOX}",
            "--size 100x64: ltx takes multiples of 32; 96x64 is one",
        ),
        ("--format ltx --size big", "--size big: give WIDTHxHEIGHT"),
        ("--format ltx --background pink", "--background pink: give white"),
        ("--format ltx --fps 0", "--fps 0: give a rate"),
        (f"--format musubi --control flow --where {FOX}", "--control flow needs the geometry"),
        (f"--format musubi --control mask --control depth --where {FOX}", "musubi takes one control video"),
        (f"--format diffusers --control mask --where {FOX}", "--format finetrainers takes one"),
        ("--format nerfstudio --fps 8", "--fps: --format nerfstudio has no use for it"),
        ("--format n3dv --caption x", "--caption: --format n3dv has no use for it"),
        ("--format musubi --where uid='owl'", "no clip matches"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(marked, tmp_path, words, says):
    split = words.split(" --where ")
    given = split[0].split() + (["--where", split[1]] if len(split) > 1 else [])
    done = CliRunner().invoke(export, [str(marked), "--out", str(tmp_path / "o"), *given])
    assert isinstance(done.exception, InputError), done.output
    assert says in str(done.exception) and "\n" not in str(done.exception)
    assert not (tmp_path / "o").exists() and not list(tmp_path.iterdir())


def test_a_pass_that_is_not_stored_and_a_place_that_is_taken(marked, tmp_path, make_clips):
    from orbit4d.datasets import DatasetWriter

    writer = DatasetWriter(tmp_path / "d", {})
    writer.stage("owl", make_clips("owl", n_frames=5, size=16, caption="an owl"))
    writer.roll(final=True)
    with pytest.raises(InputError, match="stores no depth; render with --passes depth"):
        export_for_trainer(tmp_path / "d", tmp_path / "o", "musubi", ExportSettings(controls=("depth",)))
    with pytest.raises(InputError, match="is 16x16, ltx takes multiples of 32; give --size"):
        export_for_trainer(tmp_path / "d", tmp_path / "o", "ltx", ExportSettings(frames="5"))
    (tmp_path / "o").mkdir()
    (tmp_path / "o/notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds notes\.txt already; choose an empty --out"):
        export_for_trainer(tmp_path / "d", tmp_path / "o", "musubi")
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["notes.txt"]


def test_a_damaged_clip_leaves_nothing_behind(marked, tmp_path):
    from orbit4d.datasets import WorkError

    copy = tmp_path / "d"
    shutil.copytree(marked, copy)
    shard = next((copy / "shards").glob("*.tar"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    shard.write_bytes(data)
    with pytest.raises(WorkError):
        export_for_trainer(copy, tmp_path / "o", "musubi", ExportSettings(caption="x"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d"]


def test_an_export_to_a_uri(marked):
    import fsspec

    done = export_for_trainer(
        marked, "memory://exports/one", "diffsynth", ExportSettings(frames="5"), where=FOX
    )
    files = fsspec.filesystem("memory").find("/exports/one")
    assert f"/exports/one/videos/{NAMES[0]}.mp4" in files and "/exports/one/metadata.csv" in files
    assert "memory://exports/one" in done.start
