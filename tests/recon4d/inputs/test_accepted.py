"""What `reconstruct` takes from Python: paths, arrays, PIL images, lists of them; all else is told what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d import reconstruct
from orbit4d.recon4d.inputs.loading import load_frames


def test_images_files_and_arrays_are_the_same_frames(
    moving_ball: dict[str, np.ndarray], tmp_path: Path
) -> None:
    rgba = moving_ball["dynamic_orbit"]
    images = [Image.fromarray(frame) for frame in rgba]
    files = [tmp_path / f"{i}.png" for i in range(len(images))]
    for image, file in zip(images, files):
        image.save(file)
    wanted = load_frames(rgba).rgba
    mixed: list[Any] = [images[0], files[1], rgba[2], *images[3:]]
    for source in (images, tuple(images), files, [str(file) for file in files], list(rgba), mixed):
        assert np.array_equal(load_frames(source).rgba, wanted)
    grey = [Image.fromarray(frame[..., :3]) for frame in rgba]
    assert load_frames(grey[:4], mask=None, matte="flat").rgba.shape == (4, 48, 48, 4)


@pytest.mark.parametrize(
    "source",
    [3, None, {"a": 1}, b"bytes", Image.new("RGB", (8, 8)), np.zeros((8, 8, 3), np.uint8), [object()] * 2,
     np.zeros((2, 8, 8, 3), np.float32)],
    ids=["number", "none", "dict", "bytes", "one image", "one frame", "objects", "floats"],
)  # fmt: skip
def test_other_things_are_refused_with_what_is_accepted(source: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give a video or folder") as error:
        reconstruct(source, tmp_path / "scene")
    assert "PIL images" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "scene").exists()
