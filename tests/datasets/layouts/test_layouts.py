"""Import and export of other layouts: exact round trips, and broken folders by name."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from orbit4d.datasets import (
    DatasetWriter,
    Index,
    InputError,
    OrbitDataset,
    WorkError,
    export_dataset,
    import_diffusion4d,
    import_gobjaverse,
    orbit,
    read_clip,
)
from orbit4d.datasets.cli import export, import_
from orbit4d.datasets.layouts.published_cameras import (
    camera_from_json,
    camera_to_json,
    folder_name,
    parse_folder,
)
from orbit4d.datasets.operations.verify import verify

RNG = np.random.default_rng(0)


def noise(n: int, size: int = 8) -> np.ndarray:
    """Any RGBA at all: colour under alpha 0 too."""
    frames = RNG.integers(0, 256, (n, size, size, 4), dtype=np.uint8)
    frames[:, :3, :, 3] = 0
    return frames


def write_published(folder, frames, names=("multi_frame", "multi_static_frame", "front_frame"), cameras=None):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        for i, pixels in enumerate(frames[name]):
            Image.fromarray(pixels).save(folder / f"{name}{i}.png")
    for i, camera in enumerate(cameras or []):
        for prefix in ("multi", "static"):
            (folder / f"{prefix}{i}.json").write_text(json.dumps(camera_to_json(camera)))


@pytest.fixture
def published(tmp_path):
    """One asset as published: no camera JSON, a base folder and one of another azimuth and elevation."""
    root = tmp_path / "published"
    frames = {}
    for name in ("fox_1", "fox_1_az0.37_el12.00"):
        frames[name] = {k: noise(24) for k in ("multi_frame", "multi_static_frame", "front_frame")}
        write_published(root / "dynamic4d" / name, frames[name])
    return root, frames


def test_published_folders_without_json_follow_the_published_orbit(published, tmp_path):
    root, frames = published
    done = import_diffusion4d(root, tmp_path / "d")
    assert (done.assets, done.clips, done.rejected) == (1, 6, 0)
    assert verify(str(tmp_path / "d")).findings == []
    for number, (folder, azimuth, elevation) in enumerate(
        (("fox_1", 0.0, 0.0), ("fox_1_az0.37_el12.00", -360 * 0.37, np.degrees(np.arctan(12 / 180))))
    ):
        for rig, name in (
            ("dynamic_orbit", "multi_frame"),
            ("static_orbit", "multi_static_frame"),
            ("front_view", "front_frame"),
        ):
            clip = read_clip(tmp_path / "d", "fox_1", "", rig, number)
            np.testing.assert_array_equal(clip.pixels(), frames[folder][name])
            want = orbit(24, 2.0, elevation, azimuth0_deg=azimuth, size=(8, 8), closed=True)
            want = [want[0]] * 24 if rig == "front_view" else want
            np.testing.assert_allclose(
                np.stack([c.c2w for c in clip.cameras]), np.stack([c.c2w for c in want]), atol=1e-12
            )
            assert clip.cameras[0].fov_x_deg == pytest.approx(39.5978, abs=1e-6)
            want_time = [1 / 23] * 24 if rig == "static_orbit" else [i / 23 for i in range(24)]
            assert clip.time == pytest.approx(want_time)
    sample = OrbitDataset(tmp_path / "d")[0]
    assert sample["motion_magnitude"].item() == pytest.approx(
        (sample["dynamic"] - sample["static"]).square().mean().item(), rel=1e-4
    )


def test_camera_json_wins_over_argument_and_suffix(tmp_path):
    cameras = orbit(6, 1.7, 20.0, 50.0, azimuth0_deg=33.0, size=(8, 8))
    frames = {k: noise(6) for k in ("multi_frame", "multi_static_frame", "front_frame")}
    write_published(tmp_path / "p/bee_az0.5", frames, cameras=cameras)
    import_diffusion4d(tmp_path / "p", tmp_path / "d", azimuth0_deg=90.0)
    clip = read_clip(tmp_path / "d", "bee", "", "dynamic_orbit")
    for have, want in zip(clip.cameras, cameras):
        np.testing.assert_allclose(have.c2w, want.c2w, atol=1e-12)
        assert have.fl_x == pytest.approx(want.fl_x, rel=1e-12)
    assert (clip.azimuth0_deg, clip.elevation_deg, clip.radius) == pytest.approx((33.0, 20.0, 1.7))
    # The front view has no JSON: there the argument wins over the suffix.
    assert read_clip(tmp_path / "d", "bee", "", "front_view").azimuth0_deg == pytest.approx(90.0)


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_archives_are_read_as_a_stream_and_give_the_same_dataset(published, tmp_path, ending):
    root, _ = published
    archive = tmp_path / f"x.{ending}"
    with tarfile.open(archive, "w:gz" if ending.endswith("gz") else "w") as tar:
        # Members of the asset's folders interleaved: nothing promises their order.
        for path in sorted(root.rglob("*.png"), key=lambda p: (p.name, p.parent)):
            tar.add(path, path.relative_to(tmp_path))
    import_diffusion4d(root, tmp_path / "from-folder")
    before = set(tmp_path.rglob("*.png"))
    import_diffusion4d(archive, tmp_path / "from-tar")
    digests = [
        DatasetWriter(tmp_path / n, {"imported": "diffusion4d", "azimuth0_deg": None}).digest()
        for n in ("from-folder", "from-tar")
    ]
    assert digests[0] == digests[1]
    assert set(tmp_path.rglob("*.png")) == before
    cut = tmp_path / f"cut.{ending}"
    cut.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    with pytest.raises(WorkError, match="truncated"):
        import_diffusion4d(cut, tmp_path / "from-cut")
    assert not (tmp_path / "from-cut").exists()


def test_export_and_import_of_the_published_layout_give_the_same_digest(tmp_path, make_clips):
    writer = DatasetWriter(tmp_path / "a", {})
    writer.stage("fox", make_clips("fox", ("Run", "Jump up"), n_frames=5, size=16, orbits=2, caption="a fox"))
    writer.stage("bee", make_clips("bee", ("",), n_frames=4, size=16, rigs=("dynamic_orbit",)))
    writer.roll(final=True)
    export_dataset(str(tmp_path / "a"), str(tmp_path / "p"), "diffusion4d")
    assert (tmp_path / "p/fox__a1_az0.75/multi_frame4.png").exists()
    import_diffusion4d(tmp_path / "p", tmp_path / "b")
    for key in (
        ("fox", 1, rig, k) for rig in ("dynamic_orbit", "static_orbit", "front_view") for k in (0, 1)
    ):
        a, b = read_clip(tmp_path / "a", *key), read_clip(tmp_path / "b", *key)
        np.testing.assert_array_equal(a.pixels(), b.pixels())
        for have, want in zip(b.cameras, a.cameras):
            np.testing.assert_allclose(have.c2w, want.c2w, atol=1e-6)
            np.testing.assert_allclose(have.K, want.K, rtol=1e-12)
        for field in (
            "action",
            "frames",
            "time",
            "seconds",
            "window",
            "measures",
            "caption",
            "license",
            "renderer",
        ):
            assert getattr(a, field) == getattr(b, field), field
    assert len(Index(tmp_path / "b")) == len(Index(tmp_path / "a")) == 13
    assert verify(str(tmp_path / "b")).ok


def test_nerfstudio_and_frames_hold_the_exact_pixels_and_cameras(synthetic_dataset, tmp_path):
    where = "uid = 'asset-002' and rig <> 'static_orbit'"
    assert export_dataset(str(synthetic_dataset), str(tmp_path / "n"), "nerfstudio", where) == 4
    assert export_dataset(str(synthetic_dataset), str(tmp_path / "f"), "frames", where) == 4
    clip = read_clip(synthetic_dataset, "asset-002", "Jump", "dynamic_orbit")
    folder = tmp_path / "n/asset-002__a1__dynamic_orbit__o0"
    content = json.loads((folder / "transforms.json").read_text())
    assert [frame["time"] for frame in content["frames"]] == list(clip.time)
    for frame, camera, pixels in zip(content["frames"], clip.cameras, clip.pixels()):
        np.testing.assert_array_equal(np.array(frame["transform_matrix"]), camera.c2w)
        np.testing.assert_array_equal(np.array(Image.open(folder / frame["file_path"])), pixels)
        number = frame["file_path"].rsplit("/", 1)[-1]
        plain = tmp_path / "f/asset-002__a1__dynamic_orbit__o0" / number
        np.testing.assert_array_equal(np.array(Image.open(plain)), pixels)
    assert (content["fl_x"], content["w"]) == (clip.cameras[0].fl_x, 32)


def test_png_keeps_colour_under_alpha_0():
    from orbit4d.datasets.layouts.exporting import png

    pixels = noise(1)[0]
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(png(pixels)))), pixels)


def test_broken_folders_become_rejections_and_good_ones_pass(tmp_path):
    frames = {k: noise(4) for k in ("multi_frame", "multi_static_frame", "front_frame")}
    for uid in ("good", "gap", "cut", "half", "nojson"):
        write_published(tmp_path / "p" / uid, frames, cameras=orbit(4, size=(8, 8)))
    (tmp_path / "p/gap/multi_frame2.png").unlink()
    cut = tmp_path / "p/cut/front_frame1.png"
    cut.write_bytes(cut.read_bytes()[:-30])
    (tmp_path / "p/half/static3.json").unlink()
    (tmp_path / "p/nojson/multi0.json").write_text('{"x": [1, 0]}')
    result = CliRunner().invoke(import_, [str(tmp_path / "p"), "--out", str(tmp_path / "d")])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1].startswith("1 assets, 3 clips, 4 folders rejected")
    writer = DatasetWriter(tmp_path / "d", {"imported": "diffusion4d", "azimuth0_deg": None})
    assert {uid: row.reason for uid, row in writer.rejected().items()} == {
        "gap": "bad_file:missing_frames",
        "cut": "bad_file:truncated",
        "half": "bad_file:missing_cameras",
        "nojson": "bad_file:camera",
    }
    again = CliRunner().invoke(import_, [str(tmp_path / "p"), "--out", str(tmp_path / "d")])
    assert "0 assets, 0 clips, 4 folders rejected, 1 assets were there" in again.output
    assert len(writer.rejections()) == 4


def test_bad_sources_are_one_line_and_write_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    for source in ("empty", "nowhere", "nowhere.tar.gz"):
        with pytest.raises(InputError, match=source):
            import_diffusion4d(tmp_path / source, tmp_path / "d")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("style", ["cap3d", "header"])
def test_captions_join_by_uid(tmp_path, style):
    frames = {k: noise(3) for k in ("multi_frame", "multi_static_frame", "front_frame")}
    for uid in ("a1", "b2"):
        write_published(tmp_path / "p" / uid, frames)
    header = "uid,caption\n" if style == "header" else ""
    (tmp_path / "c.csv").write_text(f'{header}a1,"a fox, running"\nzz,nobody\n')
    import_diffusion4d(tmp_path / "p", tmp_path / "d", captions=str(tmp_path / "c.csv"))
    assert read_clip(tmp_path / "d", "a1").caption == "a fox, running"
    assert read_clip(tmp_path / "d", "b2").caption == ""


def test_published_archives_of_one_rig_each_merge_into_whole_assets(published, tmp_path):
    from orbit4d.datasets.operations.select import merge

    root, _ = published
    import_diffusion4d(root, tmp_path / "whole")
    for name in ("multi_frame", "multi_static_frame", "front_frame"):
        for path in root.rglob(f"{name}*.png"):
            target = tmp_path / "split" / name / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
        import_diffusion4d(tmp_path / "split" / name, tmp_path / name)
    merged = merge(
        [str(tmp_path / n) for n in ("multi_frame", "multi_static_frame", "front_frame")], str(tmp_path / "m")
    )
    assert (merged.clips, merged.duplicates) == (6, [])
    assert verify(str(tmp_path / "m")).digest == verify(str(tmp_path / "whole")).digest


def test_gobjaverse_views(tmp_path):
    cameras = orbit(5, 1.6, 12.0, size=(8, 8))
    frames = noise(5)
    for i, (camera, pixels) in enumerate(zip(cameras, frames)):
        folder = tmp_path / "g/0/10010/campos_512_v4" / f"{i:05d}"
        folder.mkdir(parents=True)
        Image.fromarray(pixels).save(folder / f"{i:05d}.png")
        content = {
            k: v
            for k, v in camera_to_json(camera).items()
            if k in ("x", "y", "z", "origin", "x_fov", "y_fov")
        }
        (folder / f"{i:05d}.json").write_text(json.dumps(content))
        (folder / f"{i:05d}_nd.exr").write_bytes(b"normals")
    import_gobjaverse(tmp_path / "g", tmp_path / "d")
    clip = read_clip(tmp_path / "d", "10010", "", "view_set")
    np.testing.assert_array_equal(clip.pixels(), frames)
    for have, want in zip(clip.cameras, cameras):
        np.testing.assert_allclose(have.c2w, want.c2w, atol=1e-12)
    assert verify(str(tmp_path / "d")).ok


def test_a_principal_point_off_centre_survives_camera_json():
    camera = replace(orbit(3, 1.6, 12.0, size=(8, 6))[1], cx=3.25, cy=4.5)
    back = camera_from_json(json.loads(json.dumps(camera_to_json(camera))), (8, 6))
    np.testing.assert_allclose(back.K, camera.K, rtol=1e-12)
    assert not {"cx", "cy"} & set(camera_to_json(replace(camera, cx=4.0, cy=3.0)))


def test_clips_without_a_place_in_the_published_layout_are_said(tmp_path, make_clips):
    writer = DatasetWriter(tmp_path / "d", {})
    front, views = make_clips("a", n_frames=2, size=8, rigs=("front_view", "static_orbit"))
    writer.stage("a", [front, replace(views, rig="view_set")])
    writer.roll(final=True)
    with pytest.raises(InputError, match="no place for view_set clips; --where"):
        export_dataset(str(tmp_path / "d"), str(tmp_path / "p"), "diffusion4d")
    assert not (tmp_path / "p").exists()
    assert export_dataset(str(tmp_path / "d"), str(tmp_path / "p"), "diffusion4d", "rig <> 'view_set'") == 1


def test_known_camera_json():
    """A front camera at (0, -2, 0): right is +X, down -Z, forward +Y."""
    content = {
        "x": [1, 0, 0],
        "y": [0, 0, -1],
        "z": [0, 1, 0],
        "origin": [0, -2, 0],
        "x_fov": 0.69111,
        "y_fov": 0.69111,
    }
    camera = camera_from_json(content, (256, 256))
    np.testing.assert_allclose(camera.c2w, orbit(1)[0].c2w, atol=1e-12)
    assert camera.fl_x == pytest.approx(orbit(1)[0].fl_x, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("abc", ("abc", 0, 0.0, 0.0)),
        ("abc_az0.37", ("abc", 0, -133.2, 0.0)),
        ("a_b_az0.5_el12.00", ("a_b", 0, -180.0, np.degrees(np.arctan(12 / 180)))),
        ("abc__a2_el30", ("abc", 2, 0.0, np.degrees(np.arctan(30 / 180)))),
    ],
)
def test_folder_names(name, want):
    found = parse_folder(name)
    assert (found.uid, found.action_index) == want[:2]
    assert (found.azimuth0_deg, found.elevation_deg) == pytest.approx(want[2:])
    again = parse_folder(folder_name(found.uid, found.action_index, found.azimuth0_deg, found.elevation_deg))
    assert (again.uid, again.action_index) == want[:2]
    assert np.cos(np.radians(again.azimuth0_deg - want[2])) == pytest.approx(1.0)


def test_the_dataset_card_names_licences_and_every_column(synthetic_dataset, tmp_path):
    result = CliRunner().invoke(
        export, [str(synthetic_dataset), "--format", "hf-card", "--out", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    text = (tmp_path / "README.md").read_text()
    import yaml

    from orbit4d.datasets.store.schema import INDEX_SCHEMA

    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == ["cc-by-4.0", "cc0-1.0"]
    assert front["configs"][0]["data_files"] == "index/*.parquet"
    assert all(f"| {name} |" in text for name in INDEX_SCHEMA.names)
    assert "24 clips of 6 assets" in text
