"""The kernels' arguments by role: named tuples of arrays and numbers, built once per call.

Numba takes a named tuple apart where a kernel begins, and from there on its fields are what loose arguments
would be: the machine code is the same, and a call from Python costs some 0.5 µs more per tuple. Arrays are
float32 unless another type is said; a kernel writes into those that its docstring calls outputs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Whole = npt.NDArray[np.int32]
Long = npt.NDArray[np.int64]


class Shapes(NamedTuple):
    """N Gaussians in the world, or gradients by them."""

    means: Float
    """[N, 3]"""
    quats: Float
    """[N, 4]"""
    scales: Float
    """[N, 3]"""


class View(NamedTuple):
    """One camera, and which of its Gaussians are drawn."""

    matrix: Float
    """[4, 4] world-to-camera, OpenCV axes"""
    intrinsics: Float
    """[3, 3] in pixels"""
    width: int
    height: int
    near: np.float32
    far: np.float32
    eps2d: np.float32
    """Added to the variances on the screen, px²."""


class Projected(NamedTuple):
    """N Gaussians on the screen."""

    means2d: Float
    """[N, 2]"""
    conics: Float
    """[N, 3]"""
    depths: Float
    """[N]"""
    radii: Whole
    """int32 [N, 2], 0 where a Gaussian is not drawn"""
    packed: Float
    """[N, RECORD], see `binning`"""
    boxes: Whole
    """int32 [N, 4], see `binning.plan`"""
    tiles: Whole
    """int32 [N]"""


class ScreenGradients(NamedTuple):
    """Gradients by what the projection returns."""

    means2d: Float
    """[N, 2]"""
    conics: Float
    """[N, 3]"""
    depths: Float
    """[N], or empty without `with_depths`"""
    with_depths: bool


class Lobes(NamedTuple):
    """Spherical harmonics of N Gaussians, seen from one place."""

    means: Float
    """[N, 3]"""
    coefficients: Float
    """[N, K, 3]"""
    origin: Float
    """[3]"""
    degree: int
    visible: Whole
    """int32 [N, 2], 0 where a Gaussian is not drawn"""


class LobeGradients(NamedTuple):
    """Gradients by `Lobes`."""

    coefficients: Float
    """[N, K, 3]"""
    means: Float
    """[N, 3], or [0, 3] where neither means nor camera need one"""
    origin: npt.NDArray[np.float64]
    """float64 [blocks, 3]"""


class Bands(NamedTuple):
    """The bands that an image is cut into, see `binning`."""

    order: Long
    """int64 [bands], in which threads take them"""
    rows: int
    """of tiles in a band"""
    tiles_x: int
    tiles_y: int
    start: Long
    """int64 [bands + 1], first slot of each"""


class Band(NamedTuple):
    """One band: its slots and its rows of tiles, the second of each pair exclusive."""

    first_slot: int
    last_slot: int
    top: int
    bottom: int


class Splats(NamedTuple):
    """What is drawn, by slots."""

    slot: Whole
    """int32 [slots], the splat of each, -1 for none"""
    packed: Float
    """[N, RECORD]"""
    colors: Float
    """[N, 3], or [0, 3] without colour"""


class Records(NamedTuple):
    """What the forward pass leaves for the backward pass."""

    values: Float
    """[slots · RECORD]"""
    span_first: Whole
    """int32 [slots · rows], see `binning.open_band`"""
    span_width: Whole
    """int32 [slots · rows]"""
    transmittance: Float
    """[tiles · PIXELS], tile after tile"""
    lasts: Float
    """[tiles · PIXELS], one past the last splat blended"""


class Target(NamedTuple):
    """Where an image goes; flat, rows padded to whole tiles."""

    image: Float
    alphas: Float
    background: Float
    """[3]"""
    expected: bool
    """Whether depth is divided by its weight."""


class TargetGradients(NamedTuple):
    """Gradients by an image; flat, rows padded to whole tiles."""

    image: Float
    alphas: Float
    background: Float
    """[3], as it was drawn"""
    expected: Float
    """The image whose last channel is the expected depth, or empty if it is no such image."""


class Drawn(NamedTuple):
    """The splats that are drawn and their slots, see `binning.plan`."""

    order: Whole
    """int32 [visible], front to back"""
    start: Whole
    """int32 [N + 1]"""
    slots: Whole
    """int32 [slots]"""


class SplatGradients(NamedTuple):
    """Gradients by what is drawn."""

    means2d: Float
    """[N, 2]"""
    conics: Float
    """[N, 3]"""
    opacities: Float
    """[N]"""
    colors: Float
    """[N, 3], or [0, 3] without colour"""
    depths: Float
    """[N], or empty without depth"""
    absolute: Float
    """[N, 2] absolute gradients of the means, or [0, 2]"""
