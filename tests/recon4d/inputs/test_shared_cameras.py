"""A video and a static orbit of one capture: who takes whose cameras, and when neither can be guessed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orbit4d.datasets.cameras.camera import Camera, orbit
from orbit4d.datasets.cameras.transforms import cameras_record
from orbit4d.datasets.commands.command import run
from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.cli import recon4d
from orbit4d.recon4d.fitting.inputs import Inputs, read_inputs
from orbit4d.recon4d.inputs.loading import Frames, OrbitSpec
from orbit4d.recon4d.inputs.shared_cameras import on_static_orbit, rest_times, stays


def discs(n: int, size: int = 24) -> np.ndarray:
    rgba = np.zeros((n, size, size, 4), np.uint8)
    rgba[:, 6:18, 6:18] = [200, 90, 40, 255]
    return rgba


def closed(n: int, size: int = 24, elevation: float = 15.0) -> list[Camera]:
    return orbit(n, radius=1.7, elevation_deg=elevation, size=(size, size), closed=True)


def read(video: object, static: object, cameras: object = None, static_cameras: object = None,
         spec: OrbitSpec | None = None) -> Inputs:  # fmt: skip
    return read_inputs(video, static, cameras, static_cameras, 0.25, spec, None)


def ways(cameras: tuple[Camera, ...] | list[Camera]) -> np.ndarray:
    return np.stack([camera.c2w for camera in cameras])


def test_as_many_static_frames_take_the_cameras_of_the_video() -> None:
    cameras = closed(9)
    inputs = read(discs(9), discs(9), cameras)
    assert inputs.static is not None and inputs.static.time == (0.25,) * 9
    np.testing.assert_array_equal(ways(inputs.static.cameras), ways(cameras))
    assert any("cameras of the video" in note for note in inputs.notes)


def test_frames_of_another_size_take_them_too() -> None:
    inputs = read(discs(7), discs(7, 48), closed(7))
    assert inputs.static is not None
    assert {(c.w, c.h) for c in inputs.static.cameras} == {(24, 24)}
    np.testing.assert_array_equal(ways(inputs.static.cameras), ways(closed(7)))


def test_another_number_of_static_frames_is_refused_in_one_line() -> None:
    with pytest.raises(
        InputError, match=r"6 frames of a static orbit .* video of 9 .*--static-cameras"
    ) as caught:
        read(discs(9), discs(6), closed(9))
    assert "\n" not in str(caught.value)


def test_their_own_cameras_come_first(tmp_path: Path) -> None:
    own = closed(6, elevation=-20.0)
    inputs = read(discs(9), discs(6), closed(9), own)
    assert inputs.static is not None
    np.testing.assert_array_equal(ways(inputs.static.cameras), ways(own))
    for i, image in enumerate(discs(6)):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    record = cameras_record(own, [0.0] * 6)
    for i, frame in enumerate(record["frames"]):
        frame["file_path"] = f"{i}.png"
    (tmp_path / "transforms.json").write_text(json.dumps(record))
    inputs = read(discs(9), str(tmp_path), closed(9))
    assert inputs.static is not None
    np.testing.assert_allclose(ways(inputs.static.cameras), ways(own))
    assert not any("taken" in note for note in inputs.notes)


def test_a_video_without_cameras_is_on_those_of_its_static_orbit() -> None:
    own = closed(8)
    inputs = read(discs(8), discs(8), None, own)
    np.testing.assert_array_equal(ways(inputs.dynamic.cameras), ways(own))
    # An orbit that was asked for stays; so does the default one for another number, with a note.
    asked = OrbitSpec(elevation_deg=40.0)
    inputs = read(discs(8), discs(8), None, own, asked)
    np.testing.assert_allclose(ways(inputs.dynamic.cameras), ways(asked.cameras(8, 24, 24)))
    inputs = read(discs(11), discs(8), None, own)
    np.testing.assert_allclose(ways(inputs.dynamic.cameras), ways(OrbitSpec().cameras(11, 24, 24)))
    assert any("--cameras" in note for note in inputs.notes)


def test_without_any_cameras_both_are_on_the_orbit_of_the_options() -> None:
    spec = OrbitSpec(closed=True, elevation_deg=10.0)
    inputs = read(discs(9), discs(6), spec=spec)
    assert inputs.static is not None
    np.testing.assert_allclose(ways(inputs.dynamic.cameras), ways(spec.cameras(9, 24, 24)))
    np.testing.assert_allclose(ways(inputs.static.cameras), ways(spec.cameras(6, 24, 24)))


def test_long_clips_are_counted_before_they_are_thinned() -> None:
    cameras = closed(250, 16)
    inputs = read(discs(250, 16), discs(250, 16), cameras)
    assert inputs.static is not None
    np.testing.assert_array_equal(ways(inputs.static.cameras), ways(inputs.dynamic.cameras))
    with pytest.raises(InputError, match="260 frames"):
        read(discs(250, 16), discs(260, 16), cameras)


def test_a_dataset_brings_its_cameras_to_a_static_orbit_of_others(tiny_dataset: Path) -> None:
    source = f"{tiny_dataset}:asset-000:Run"
    inputs = read(source, discs(12, 48))
    assert inputs.static is not None
    np.testing.assert_array_equal(ways(inputs.static.cameras), ways(inputs.dynamic.cameras))
    with pytest.raises(InputError, match="13 frames"):
        read(source, discs(13, 48))


def test_options_of_a_static_orbit_that_is_not_there_are_refused(tiny_dataset: Path) -> None:
    for source in (discs(9), f"{tiny_dataset}:asset-000:Run"):
        with pytest.raises(InputError, match="--static"):
            read_inputs(source, None, closed(9), closed(9), 0.0, None, None)
        with pytest.raises(InputError, match="--static"):
            read_inputs(source, None, None, None, 0.5, None, None)


def test_the_command_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, n in (("video", 9), ("still", 5)):
        (tmp_path / name).mkdir()
        for i, image in enumerate(discs(n)):
            Image.fromarray(image).save(tmp_path / name / f"{i}.png")
    (tmp_path / "cameras.json").write_text(
        json.dumps(cameras_record(closed(9), np.linspace(0, 1, 9).tolist()))
    )
    words = [str(tmp_path / "video"), "--static", str(tmp_path / "still"), "--out", str(tmp_path / "scene")]
    assert run(recon4d, [*words, "--cameras", str(tmp_path / "cameras.json")]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error and "--static-cameras" in error
    assert not (tmp_path / "scene").exists()


@pytest.mark.parametrize(
    ("option", "given"),
    [("--cameras", {"cameras": closed(8)}), ("--mask", {"mask": "masks"}), ("--orbit", {"spec": True})],
)
def test_what_a_dataset_brings_itself_is_not_passed_over(
    tiny_dataset: Path, option: str, given: dict[str, object]
) -> None:
    if "spec" in given:
        given = {"spec": OrbitSpec(elevation_deg=25.0)}
    chosen = {"cameras": None, "spec": None, "mask": None, **given}
    source = f"{tiny_dataset}:asset-000"
    with pytest.raises(InputError, match=option) as refused:
        read_inputs(source, None, chosen["cameras"], None, 0.0, chosen["spec"], chosen["mask"])
    assert source in str(refused.value)


def swinging(places: list[float], cameras: list[Camera]) -> Frames:
    """A square that stands elsewhere in each image, as if it moved across the view."""
    rgba = np.zeros((len(places), 24, 24, 4), np.float32)
    for image, place in zip(rgba, places):
        image[8:16, 2 + round(place) : 10 + round(place)] = (0.8, 0.3, 0.1, 1.0)
    return Frames(rgba, tuple(cameras), tuple(i / (len(places) - 1) for i in range(len(places))), "a.mp4")


def test_times_of_rest_are_where_the_video_shows_what_the_static_orbit_shows() -> None:
    cameras = closed(9)
    static = swinging([0] * 9, cameras).at_time(0.0)
    assert rest_times(swinging([0, 4, 8, 12, 8, 4, 8, 4, 0], cameras), static) == [0.0, 1.0]
    assert rest_times(swinging([0, 4, 8, 0, 8, 4, 8, 4, 8], cameras), static) == [0.0, 0.375]
    assert rest_times(swinging([0, 4, 8, 4, 8, 4, 8, 4, 8], cameras), static) == [0.0]


def test_small_motion_is_not_taken_for_rest() -> None:
    """Every frame equals the static one to 40 dB; the last still moves as much as the others do."""
    cameras = closed(9)
    still = swinging([0] * 9, cameras)
    faint = still.rgba + np.linspace(0, 0.02, 9, dtype=np.float32)[:, None, None, None] * still.rgba[..., 3:]
    video = replace(still, rgba=faint.clip(0, 1).astype(np.float32))
    assert rest_times(video, still.at_time(0.0)) == [0.0]


def test_other_cameras_are_not_compared() -> None:
    video = swinging([0, 4, 8, 12, 8, 4, 8, 4, 0], closed(9))
    static = swinging([0] * 9, closed(9, elevation=20.0)).at_time(0.5)
    assert rest_times(video, static) == [0.5]


def test_cameras_that_were_searched_for_are_near_enough() -> None:
    """Two degrees off, as a search may leave them; five are another place."""
    moves = [0.0, 4, 8, 12, 8, 4, 8, 4, 0]
    static = swinging([0] * 9, closed(9)).at_time(0.0)
    assert rest_times(swinging(moves, closed(9, elevation=17.0)), static) == [0.0, 1.0]
    assert not stays(swinging([0, 6, 12, 9, 12, 9, 12, 6, 0], closed(9, elevation=17.0)), static)
    assert rest_times(swinging(moves, closed(9, elevation=20.0)), static) == [0.0]
    turned = [replace(c, c2w=c.c2w @ np.diag([-1.0, 1.0, -1.0, 1.0])) for c in closed(9)]
    assert rest_times(swinging(moves, turned), static) == [0.0], "it looks the other way"


def test_a_video_that_was_filmed_from_the_static_orbit_is_put_there() -> None:
    """Where a search brought it near, its own images say so; not where none equals the static one's."""
    moves = [0.0, 4, 8, 12, 8, 4, 8, 4, 0]
    static = replace(swinging([0] * 9, closed(9)), posed=True)
    off = orbit(9, radius=1.7, elevation_deg=16.0, azimuth0_deg=1.0, size=(24, 24), closed=True)
    bare = replace(swinging(moves, off), posed=False)
    found = on_static_orbit(bare, static)
    assert found.posed and found.cameras == static.cameras
    assert any("cameras of the static orbit" in note for note in found.notes)
    for other in (
        swinging([4, *moves[1:8], 4], off),
        swinging(moves, off[::-1]),
        swinging(moves, closed(9, elevation=20.0)),
        swinging(moves, [replace(camera, fl_x=1.1 * camera.fl_x) for camera in off]),
        swinging(moves[:8], off[:8]),
    ):
        other = replace(other, posed=False)
        assert on_static_orbit(other, static) is other
    assert on_static_orbit(bare, replace(static, posed=False)) is bare
    given = replace(bare, posed=True)
    assert on_static_orbit(given, static) is given


def test_an_object_that_leaves_its_place_is_told_from_one_that_moves_in_it() -> None:
    cameras = closed(9)
    static = swinging([0] * 9, cameras).at_time(0.0)
    assert stays(swinging([0, 1, 2, 3, 2, 1, 2, 1, 0], cameras), static)
    assert not stays(swinging([0, 6, 12, 9, 12, 9, 12, 6, 0], cameras), static)
    assert stays(swinging([9] * 9, closed(9, elevation=20.0)), static), "no camera is shared"
