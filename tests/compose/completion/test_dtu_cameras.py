"""Cameras of DTU's text files."""

import numpy as np
import pytest
from PIL import Image

from orbit4d.compose.completion.dtu_cameras import read_dtu_camera
from orbit4d.compose.completion.inputs import read_inputs
from orbit4d.datasets import orbit
from orbit4d.datasets.core.errors import InputError


def written(folder, name: str, camera):
    """A camera as MVSNet's files hold it: K for a quarter of 640 x 512."""
    quarter = camera.K.copy()
    quarter[0] *= 160 / camera.w
    quarter[1] *= 128 / camera.h
    rows = [" ".join(f"{x:.9f}" for x in row) for row in (*camera.w2c_opencv, *quarter)]
    file = folder / f"{name}_cam.txt"
    file.write_text("\n".join(["extrinsic", *rows[:4], "", "intrinsic", *rows[4:], "", "425.0 2.5"]) + "\n")
    return file


def test_cameras_come_back_at_any_size(tmp_path) -> None:
    (tmp_path / "cams").mkdir()
    for name, camera in zip(("00000000", "00000001"), orbit(5, size=(64, 36))):
        file = written(tmp_path / "cams", name, camera)
        found = read_dtu_camera(file, (64, 36))
        # Nine digits are written.
        np.testing.assert_allclose(found.w2c_opencv, camera.w2c_opencv, atol=1e-8)
        np.testing.assert_allclose(found.K, camera.K, atol=1e-6)
        twice = read_dtu_camera(file, (128, 36))
        np.testing.assert_allclose(twice.K[0], 2 * camera.K[0], atol=1e-6)
        np.testing.assert_allclose(twice.K[1], camera.K[1], atol=1e-6)
    images = []
    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 36)).save(tmp_path / name)
        images.append(str(tmp_path / name))
    views = read_inputs(images, tmp_path / "cams", "between").views
    assert [round(float(v.camera.position[0]), 6) for v in views] == [
        round(float(c.position[0]), 6) for c in orbit(5, size=(64, 36))[:2]
    ]
    with pytest.raises(InputError, match="2 cameras for 1 images"):
        read_inputs(images[:1], tmp_path / "cams", "orbit")


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        (lambda lines: lines[:6], "no camera of DTU"),
        (lambda lines: [lines[0], "1 0 nan 0", *lines[2:]], "no camera of DTU"),
        (lambda lines: [lines[0], "2 0 0 0", *lines[2:]], "hold no rotation"),
        (lambda lines: [*lines[:7], "-1 0 80", *lines[8:]], "no focal lengths"),
    ],
)
def test_what_is_none_is_refused(tmp_path, spoilt, said) -> None:
    file = written(tmp_path, "0", orbit(4, size=(64, 36))[0])
    file.write_text("\n".join(spoilt(file.read_text().splitlines())))
    with pytest.raises(InputError, match=said):
        read_dtu_camera(file, (64, 36))
