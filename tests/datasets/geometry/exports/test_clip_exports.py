"""Exports of flow and tracks, each read by a parser that shares nothing with its writer."""

from __future__ import annotations

import io
import pickle
import struct
import zlib

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from orbit4d.datasets import read_geometry
from orbit4d.datasets.exports.geometry_files import export_geometry
from orbit4d.datasets.geometry.exports.flow_files import encode_flo, encode_kitti
from orbit4d.datasets.geometry.exports.job import GeometrySettings

CLIP = "uid = 'a' AND rig = 'dynamic_orbit'"
NAME = "a__a0__dynamic_orbit__o0"


@pytest.fixture(scope="module")
def clip(geometry_dataset):
    return read_geometry(str(geometry_dataset), "a", "Run").clip()


@pytest.fixture
def export(geometry_dataset, tmp_path):
    def run(name, **settings):
        export_geometry(str(geometry_dataset), str(tmp_path), name, GeometrySettings(**settings), CLIP)
        return tmp_path

    return run


def read_flo(data):
    tag, width, height = struct.unpack_from("<fii", data)
    assert tag == 202021.25 and len(data) == 12 + 8 * width * height
    return np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2)


def read_png16(data):
    """[H, W, 3] of a 16-bit RGB PNG with unfiltered rows; CRCs are checked."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    place, packed, size = 8, b"", None
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        body = data[place + 8 : place + 8 + length]
        (crc,) = struct.unpack_from(">I", data, place + 8 + length)
        assert crc == zlib.crc32(kind + body)
        if kind == b"IHDR":
            size = struct.unpack(">IIBBBBB", body)
        packed += body if kind == b"IDAT" else b""
        place += 12 + length
    width, height, depth, colour, *_ = size
    assert (depth, colour) == (16, 2)
    rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + 6 * width)
    assert not rows[:, 0].any()
    return np.frombuffer(rows[:, 1:].tobytes(), ">u2").reshape(height, width, 3).astype(int)


def test_flo_is_the_flow_and_unknown_elsewhere(export, clip):
    folder = export("flo", gap=2) / NAME
    assert len(list(folder.glob("*.flo"))) == len(clip) - 2 and len(list(folder.glob("frame_*.png"))) == 8
    flow, visible = clip.flow(1, 3)
    read = read_flo((folder / "frame_0001.flo").read_bytes())
    covered = clip.surface_map(1)[0] >= 0
    assert covered.any() and not covered.all()
    np.testing.assert_array_equal(read[covered], flow[covered])
    assert (np.abs(read[~covered]) > 1e9).all()
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "visible_0001.png")) > 0, visible)
    # Pixels go where the camera's own projection puts the surface.
    later = clip.points(1)[covered].astype(float) + clip.scene_flow(1, 3)[covered]
    rows, columns = np.nonzero(covered)
    goal = clip.cameras[3].project(later)[0]
    np.testing.assert_allclose(np.stack([columns, rows], 1) + 0.5 + read[covered], goal, atol=0.01)


def test_kitti_flow_to_its_step(export, clip):
    folder = export("kitti-flow") / NAME
    flow, visible = clip.flow(2, 3)
    covered = clip.surface_map(2)[0] >= 0
    for name, valid in (("flow_occ", covered), ("flow_noc", covered & visible)):
        read = read_png16((folder / name / "000002_10.png").read_bytes())
        np.testing.assert_array_equal(read[..., 2], valid)
        assert not read[~valid].any()
        decoded = (read[..., :2] - 32768) / 64
        # Half a step.
        assert np.abs(decoded - flow)[valid].max() <= 1 / 128 + 1e-6
    assert (folder / "image_2" / "000002_11.png").is_file()


def test_flow_beyond_the_range_of_kitti_is_not_valid():
    flow = np.array([[[600.0, 0.0], [0.0, -512.0]], [[511.9, 3.0], [1.0, 1.0]]], np.float32)
    known = np.array([[True, True], [True, False]])
    np.testing.assert_array_equal(read_png16(encode_kitti(flow, known))[..., 2], [[0, 1], [1, 0]])
    assert read_flo(encode_flo(flow, known))[0, 0, 0] == 600.0


def test_warping_a_smooth_texture_back_gives_the_frame(export, clip):
    """8-bit frames of a texture that sticks to the surface: over 50 dB, as an exact flow gives."""
    read = read_flo((export("flo") / NAME / "frame_0000.flo").read_bytes())
    fine_a, fine_b = (_textured(clip, frame) for frame in (0, 1))
    flow, visible = clip.flow(0, 1)
    assert np.array_equal(read[visible], flow[visible])
    rows, columns = np.nonzero(visible)
    goal = np.stack([columns, rows], 1) + 0.5 + read[rows, columns]
    # The texture of b is known everywhere, also between pixels: what is at `goal` in b is looked up exactly.
    camera = clip.cameras[1]
    places = clip.points(0)[visible].astype(float) + clip.scene_flow(0, 1)[visible]
    np.testing.assert_allclose(camera.project(places)[0], goal, atol=0.01)
    inner = (np.abs(goal - np.rint(goal - 0.5) - 0.5) < 0.25).all(axis=1)
    near = np.rint(goal - 0.5).astype(int)
    inside = inner & (near >= 0).all(axis=1) & (near < 32).all(axis=1)
    inside[inside] &= (
        clip.surface_map(1)[0][near[inside, 1], near[inside, 0]]
        == clip.surface_map(0)[0][rows[inside], columns[inside]]
    )
    assert inside.sum() > 10
    error = fine_b[near[inside, 1], near[inside, 0]] - fine_a[rows[inside], columns[inside]]
    # A quarter of a pixel of a texture whose slope is 0.02 a pixel at most.
    assert np.abs(error).max() < 0.02


def _textured(clip, frame):
    """[H, W] of a wave along the surface's places at the first time."""
    places = clip.points(frame).astype(float) + clip.scene_flow(frame, 0)
    return 0.5 + 0.5 * np.sin(places @ [1.0, 0.7, 0.4])


def test_tapvid3d_agrees_with_the_camera_and_with_tapvid(export, clip):
    root = export("tapvid3d", points=300, seed=4)
    with np.load(root / f"{NAME}.npz", allow_pickle=True) as file:
        told = {key: file[key] for key in file}
    frames, n, _ = told["tracks_XYZ"].shape
    visible, (fx, fy, cx, cy) = told["visibility"], told["fx_fy_cx_cy"].astype(float)
    assert frames == 8 and visible.shape == (8, n) and visible.any(axis=0).all() and not visible.all()
    xyz = told["tracks_XYZ"].astype(float)
    pixels = np.stack([fx * xyz[..., 0] / xyz[..., 2] + cx, fy * xyz[..., 1] / xyz[..., 2] + cy], axis=-1)
    assert (pixels[visible] >= 0).all() and (pixels[visible] <= 32).all()
    start = told["queries_xyt"][:, 2].astype(int)
    np.testing.assert_array_equal(start, visible.argmax(axis=0))
    np.testing.assert_allclose(told["queries_xyt"][:, :2], pixels[start, np.arange(n)], atol=0.01)
    images = [Image.open(io.BytesIO(data)) for data in told["images_jpeg_bytes"]]
    assert {image.size for image in images} == {(32, 32)} and {i.format for i in images} == {"JPEG"}
    # In the world all points of the sliding box move alike.
    w2c = told["extrinsics_w2c"].astype(float)
    world = np.einsum("fji,fnj->fni", w2c[:, :3, :3], xyz - w2c[:, None, :3, 3])
    moved = world - world[0]
    # Two vertices at two times, each off by the bound.
    assert np.ptp(moved, axis=1).max() < 4 * clip.mesh.bound + 1e-6 and np.abs(moved[-1]).max() > 0.1

    (entry,) = pickle.loads((export("tapvid", points=300, seed=4) / "tapvid_0000.pkl").read_bytes()).values()
    np.testing.assert_array_equal(~entry["occluded"], visible.T)
    points = entry["points"]
    assert points.dtype == np.float32 and ((points >= 0) & (points <= 1))[~entry["occluded"]].all()
    np.testing.assert_allclose(points.transpose(1, 0, 2)[visible] * 32, pixels[visible], atol=0.01)
    assert entry["video"].shape == (8, 32, 32, 3) and entry["video"].dtype == np.uint8
    # A point is seen where no pixel's surface is more than 1 % in front of it, but for the edges.
    depth = np.stack([clip.depth(f) for f in range(8)])
    f, i = np.nonzero(visible)
    at = np.floor(pixels[f, i]).astype(int).clip(0, 31)
    close = depth[f, at[:, 1], at[:, 0]] > xyz[f, i, 2] * 0.97
    assert close.mean() > 0.95


def test_tracks_video_starts_with_the_colours_of_places(export, clip):
    from orbit4d.datasets.geometry.exports.tracks_video import dense_frames, point_frames
    from orbit4d.datasets.videos.video import read_video

    root = export("tracks-video")
    lists = {
        name: (root / f"{name}.txt").read_text().splitlines()
        for name in ("prompt", "videos", "trackings", "images")
    }
    assert {len(lines) for lines in lists.values()} == {1} and lists["prompt"] == ["a"]
    for name in ("videos", "trackings", "images"):
        assert (root / lists[name][0]).is_file()
    frames = dense_frames(clip)
    rows, columns = np.nonzero(clip.surface_map(0)[0] >= 0)
    places = np.stack([columns + 0.5, rows + 0.5], 1)
    first = frames[0][rows, columns].astype(float)
    np.testing.assert_allclose(first[:, :2], 255 * places / 32, atol=1.0)  # truncated
    assert not first[:, 2].any()  # the box shows a face of one depth
    assert not frames[0][clip.surface_map(0)[0] < 0].any()
    # A surface point has one colour in all frames.
    flow, visible = clip.flow(3, 0)
    rows, columns = np.nonzero(visible)
    goal = np.stack([columns, rows], 1) + 0.5 + flow[visible]
    np.testing.assert_allclose(frames[3][rows, columns][:, :2], 255 * goal / 32, atol=1.0)
    video = read_video(root / lists["trackings"][0]).frames[..., :3].astype(float)
    assert video.shape == frames.shape
    # yuv420p halves the colours of a small image: only the even middle is compared.
    inner = np.zeros((32, 32), bool)
    inner[14:18, 14:18] = True
    assert np.abs(video[0] - frames[0])[inner].mean() < 12

    squares = point_frames(clip, 20, 0)
    xyz, pixels, seen = clip.tracks(20, 0, on="pixels", frame=0)
    near = int(np.argsort(-clip.cameras[0].project(xyz[:, 0])[1], kind="stable")[-1])  # drawn last
    assert seen[near, 0]
    x, y = pixels[near, 0].astype(int)
    np.testing.assert_allclose(squares[0, y, x, :2], 255 * pixels[near, 0] / 32, atol=1.0)


def test_blue_is_one_over_depth_between_percentiles():
    from orbit4d.datasets.cameras.camera import orbit
    from orbit4d.datasets.geometry.exports.tracks_video import depth_limits, first_frame_colours

    camera = orbit(1, size=(64, 48))[0]  # at (0, -2, 0), looks along +y
    depths = np.linspace(1.0, 3.0, 101)
    places = np.stack([np.zeros(101), depths - 2.0, np.zeros(101)], axis=1)
    low, high = depth_limits(places, camera)
    inverse = np.sort(1 / depths)
    np.testing.assert_allclose([low, high], [inverse[2], inverse[98]], rtol=1e-12)
    colours = first_frame_colours(places, camera, (low, high)).astype(int)
    want = np.floor(255 * np.clip((1 / depths - low) / (high - low), 0, 1))
    assert np.abs(colours[:, 2] - want).max() <= 1 and colours[0, 2] == 255 and colours[-1, 2] == 0
    assert (colours[:, :2] == 127).all()
    behind = first_frame_colours(np.array([[0.0, -5.0, 0.0]]), camera, (low, high))
    assert behind[0, 2] == 255


def test_the_command_takes_the_formats_that_there_are(geometry_dataset, tmp_path):
    from orbit4d.datasets.cli import export as command
    from orbit4d.datasets.commands.geometry_options import GEOMETRY_FORMATS
    from orbit4d.datasets.core.errors import InputError
    from orbit4d.datasets.geometry.exports.formats import FORMATS, MESHES

    assert set(GEOMETRY_FORMATS) == set(FORMATS) and set(MESHES) < set(FORMATS)
    words = [str(geometry_dataset), "--format", "flo", "--gap", "7", "--out", str(tmp_path), "--where", CLIP]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0 and "1 actions, 10 files" in done.output
    for more, said in (
        (["--gap", "9"], "lower --gap"),
        (["--gap", "0"], "--gap 0: at least 1"),
        (["--points", "4"], "has no use for it; it is heeded by actionbench"),
    ):
        failed = CliRunner().invoke(command, [*words, *more])
        assert isinstance(failed.exception, InputError) and said in str(failed.exception)
