"""Frames that have cameras: what a transforms.json says of them, before and after their images are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Array, Camera
from orbit4d.datasets.cameras.lens import Lens
from orbit4d.datasets.core.errors import InputError

Size = tuple[int, int]
#: How far the axes of a pose may be from right angles and from one length, relative to that.
_SKEW = 0.05
#: Focal lengths, and distances of the principal point from the image's middle, in sizes of the image: outside
#: of these no lens is meant.
_FOCAL, _OFF = (1e-3, 1e5), 100.0


@dataclass(frozen=True)
class Transforms:
    """F frames of a transforms.json, in the order in which they are listed."""

    path: Path
    """The file, for messages; names in it are relative to its folder."""
    c2w: tuple[Array, ...]
    """F camera-to-world matrices [4, 4], OpenGL axes."""
    intrinsics: tuple[Mapping[str, float], ...]
    """F times what is given of w, h, fl_x, fl_y, cx, cy, camera_angle_x, camera_angle_y (radians)."""
    lenses: tuple[Lens, ...]
    files: tuple[str, ...]
    """Values of `file_path` of F frames as listed; () where none is given."""
    masks: tuple[str, ...] = ()
    """Values of `mask_path` of F frames as listed; () where none is given."""
    times: tuple[float, ...] | None = None
    """F times in [0, 1]."""
    seconds: tuple[float, ...] | None = None
    background: npt.NDArray[np.float32] | None = None
    """Colour [3] in [0, 1] on which the frames were generated."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What orbit4d notes: of a clip, or of how the frames were generated."""
    notes: tuple[str, ...] = ()
    """Keys that were not read."""
    labels: tuple[str, ...] = ()
    """Values of `camera_label` of F frames: which of several cameras each shows; () where none is given."""

    def __len__(self) -> int:
        return len(self.c2w)

    @property
    def cameras(self) -> tuple[Camera, ...]:
        """F cameras at the sizes that the file names. InputError where it names none."""
        return tuple(_camera(self, i, None) for i in range(len(self)))

    def cameras_for(self, size: Size, *also: Size) -> tuple[Camera, ...]:
        """F cameras for images of `size` (width, height).

        InputError with both sizes where those of the file do not have the shape of `size`, nor of one of
        `also`: sizes of the same images before their pixels were made square.
        """
        return tuple(self._resized(i, size, also) for i in range(len(self)))

    def _resized(self, i: int, size: Size, also: tuple[Size, ...]) -> Camera:
        given = self.intrinsics[i]
        own = (int(given.get("w", size[0])), int(given.get("h", size[1])))
        if not any(same_shape(own, other) for other in (size, *also)):
            raise InputError(
                f"{self.path}: {self.label(i)} is said to have {own[0]}x{own[1]} pixels, its image has "
                f"{size[0]}x{size[1]}: give w and h (and the intrinsics) of the images"
            )
        camera = _camera(self, i, size)
        return camera if (camera.w, camera.h) == size else camera.resized(*size)

    def label(self, i: int) -> str:
        """A frame's name for messages."""
        return self.files[i] if self.files else f"frame {i}"

    def taken(self, order: Sequence[int]) -> Transforms:
        """The frames of these places, in this order."""

        def of(values: Any) -> Any:
            return values if not values else tuple(values[i] for i in order)

        return replace(
            self, c2w=of(self.c2w), intrinsics=of(self.intrinsics), lenses=of(self.lenses),
            files=of(self.files), masks=of(self.masks), times=of(self.times), seconds=of(self.seconds),
            labels=of(self.labels),
        )  # fmt: skip


def pose_fault(matrix: npt.NDArray[np.float64], any_pose: bool = False) -> str | None:
    """Why a matrix is no camera-to-world pose, a phrase; None where it is one: axes at right angles, of one
    length, right-handed, and a last row of 0 0 0 1. `any_pose`: any 4x4 matrix with an inverse is one.
    """
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
        return "is no 4x4 camera-to-world matrix"
    if any_pose:
        return None
    if not np.allclose(matrix[3], (0, 0, 0, 1), atol=1e-3):
        return "has another last row than 0 0 0 1; is it transposed?"
    turn = matrix[:3, :3]
    size = float(np.cbrt(np.linalg.det(turn)))
    if size <= 0:
        return "is mirrored: its axes are left-handed"
    if np.abs(turn.T @ turn / size**2 - np.eye(3)).max() > _SKEW:
        return "has axes that are not at right angles, or of different lengths"
    return None


def lens_fault(lens: Mapping[str, float]) -> str | None:
    """Which of fl_x, fl_y, cx, cy cannot be that of an image of w x h, a phrase; None where all can."""
    for axis, side in (("x", "w"), ("y", "h")):
        pixels = lens.get(side)
        if pixels is None:
            continue
        focal, middle = lens.get(f"fl_{axis}"), lens.get(f"c{axis}")
        if focal is not None and not _FOCAL[0] <= focal / pixels <= _FOCAL[1]:
            return f"has fl_{axis} {focal:g} for {pixels:g} pixels"
        if middle is not None and not abs(middle / pixels - 0.5) <= _OFF:
            return f"has c{axis} {middle:g} for {pixels:g} pixels"
    return None


def same_shape(a: Size, b: Size) -> bool:
    """Whether two sizes (width, height) show the same, but for a scale and a pixel of rounding."""
    ratio = a[0] * b[1] / (a[1] * b[0])
    return abs(ratio - 1) <= max(0.01, 1.01 / min(*a, *b))


def _camera(self: Transforms, i: int, size: Size | None) -> Camera:
    """Camera of frame `i`; `size` stands in for a size that is not given."""
    given = self.intrinsics[i]
    if size is None and not {"w", "h"} <= set(given):
        raise InputError(f"{self.path}: {self.label(i)} has no w and h; give the size of its image")
    w, h = int(given.get("w", size[0] if size else 0)), int(given.get("h", size[1] if size else 0))
    fl_x, fl_y = given.get("fl_x"), given.get("fl_y")
    if fl_x is None and "camera_angle_x" in given:
        fl_x = w / (2 * np.tan(given["camera_angle_x"] / 2))
    if fl_y is None and "camera_angle_y" in given and "fl_x" not in given:
        fl_y = h / (2 * np.tan(given["camera_angle_y"] / 2))
    if fl_x is None and fl_y is None:
        raise InputError(f"{self.path}: {self.label(i)} has no focal length: give fl_x or camera_angle_x")
    focal_x, focal_y = (fl_y if fl_x is None else fl_x), (fl_x if fl_y is None else fl_y)
    assert focal_x is not None and focal_y is not None
    return Camera(
        self.c2w[i], float(focal_x), float(focal_y), given.get("cx", w / 2), given.get("cy", h / 2), w, h
    )
