"""What a player makes of a video's stored pixels: upright, of square pixels, without fields, in sRGB.

High dynamic range (PQ, HLG) and wide gamuts (BT.2020, P3) become sRGB: 203 cd/m², the white of graphics in
ITU-R BT.2408, is white, and what is brighter is clipped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import av

Float = npt.NDArray[np.float32]
#: FFmpeg's numbers of transfer characteristics and primaries (ITU-T H.273).
_PQ, _HLG = 16, 18
_TRANSFERS = {_PQ: "PQ", _HLG: "HLG"}
#: Linear BT.2020 and P3 (DCI and D65 white alike) to linear BT.709 (ITU-R BT.2087; SMPTE EG 432-1).
_BT2020 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
_P3 = np.array(
    [[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]], np.float32
)  # fmt: skip
_GAMUTS = {9: ("BT.2020", _BT2020), 11: ("P3", _P3), 12: ("P3", _P3)}
#: cd/m² that become white.
WHITE_NITS = 203.0


def orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool] | None:
    """(transpose, mirror columns, mirror rows), applied in this order, that the display matrix of a frame
    asks for; None where it turns by something else than quarter turns.
    """
    # Column x and row y of the stored image are shown at (a x + c y, b x + d y).
    a, b, c, d = _display_matrix(frame)
    turned = abs(b) > abs(a)
    x, y = (c, b) if turned else (a, d)
    if x == 0 or y == 0 or min(abs(a), abs(b)) > 0.01 * max(abs(a), abs(b)):
        return None
    return turned, x < 0, y < 0


def pixel_aspect(frame: av.VideoFrame, stream: av.VideoStream) -> Fraction | None:
    """How many times as wide as high the stored pixels are; None where nothing says so.

    The container's word counts before the codec's, but not where its display matrix shears: the aspect that
    FFmpeg works out of such a matrix is none.
    """
    a, b, c, d = _display_matrix(frame)
    whole = (b, c) if abs(a) >= abs(b) else (a, d)
    return stream.codec_context.sample_aspect_ratio if any(whole) else stream.sample_aspect_ratio


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """(a, b, c, d) of the display matrix, 16.16 fixed point; without one that of an upright image."""
    from av.sidedata.sidedata import Type

    found = next((data for data in frame.side_data if data.type == Type.DISPLAYMATRIX), None)  # type: ignore[attr-defined]
    if found is None:
        return 1 << 16, 0, 0, 1 << 16
    a, b, _, c, d, *_ = np.frombuffer(bytes(cast(Any, found)), np.int32).tolist()
    return a, b, c, d


def oriented(picture: npt.NDArray[np.uint8], how: tuple[bool, bool, bool]) -> npt.NDArray[np.uint8]:
    """An image [H, W, C] as `orientation` says."""
    transpose, mirror_x, mirror_y = how
    if transpose:
        picture = picture.transpose(1, 0, 2)
    return np.ascontiguousarray(picture[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1])


def square_size(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """Size in square pixels of an image whose pixels are `aspect` times as wide as high; nothing shrinks."""
    if not aspect or aspect == 1 or not 0.1 <= aspect <= 10:
        return width, height
    if aspect > 1:
        return max(1, round(width * aspect)), height
    return width, max(1, round(height / aspect))


def deinterlaced(frames: Iterable[av.VideoFrame], stream: av.VideoStream) -> Iterator[tuple[Any, bool]]:
    """(frame, whether it was interlaced), one for each; from the first interlaced one on through bwdif, which
    leaves those alone that are not.
    """
    graph: av.filter.Graph | None = None
    flags: list[bool] = []
    for frame in frames:
        if graph is None and not frame.interlaced_frame:
            yield frame, False
            continue
        if graph is None:
            graph = _bwdif(stream)
        flags.append(bool(frame.interlaced_frame))
        graph.push(frame)
        for made in _pulled(graph):
            yield made, flags.pop(0)
    if graph is not None:
        graph.push(None)
        for made in _pulled(graph):
            yield made, flags.pop(0)


def _bwdif(stream: av.VideoStream) -> av.filter.Graph:
    import av

    graph = av.filter.Graph()
    nodes = [
        graph.add_buffer(template=stream),
        graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced"),
        graph.add("buffersink"),
    ]
    for above, below in pairwise(nodes):
        above.link_to(below)
    graph.configure()
    return graph


def _pulled(graph: av.filter.Graph) -> Iterator[Any]:
    import av

    while True:
        try:
            yield graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return


def unlike_srgb(frame: av.VideoFrame) -> str:
    """How a frame's colours differ from sRGB, "" where they do not."""
    transfer = _TRANSFERS.get(int(frame.color_trc))
    gamut = _GAMUTS.get(int(frame.color_primaries))
    if transfer:
        return f"HDR ({transfer}) reduced to sRGB: {WHITE_NITS:.0f} cd/m² is white, brighter light is clipped"
    return f"wide gamut ({gamut[0]}) converted to sRGB" if gamut else ""


def to_srgb(coded: Float, transfer: int, primaries: int) -> Float:
    """R'G'B' [H, W, 3] in [0, 1], as `transfer` and `primaries` (ITU-T H.273) code it, as sRGB in [0, 1]."""
    if transfer == _PQ:
        light = _pq_nits(coded) / WHITE_NITS
    elif transfer == _HLG:
        light = _hlg_nits(coded, primaries) / WHITE_NITS
    else:
        light = _decode(coded)
    if primaries in _GAMUTS:
        light = light @ _GAMUTS[primaries][1].T
    return _encode(light.clip(0, 1))


def _pq_nits(coded: Float) -> Float:
    """SMPTE ST 2084: cd/m² of PQ values."""
    root = coded.astype(np.float64) ** (32 / 2523)
    over = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
    return (10_000 * over ** (16384 / 2610)).astype(np.float32)


def _hlg_nits(coded: Float, primaries: int) -> Float:
    """ITU-R BT.2100: cd/m² that a display of 1,000 cd/m² shows of HLG values."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(coded <= 0.5, coded**2 / 3, (np.exp((coded - c) / a) + b) / 12)
    weights = np.array([0.2627, 0.6780, 0.0593] if primaries == 9 else [0.2126, 0.7152, 0.0722], np.float32)
    luminance = np.maximum(scene @ weights, 1e-6)[..., None]
    return (1000 * luminance**0.2 * scene).astype(np.float32)


def _decode(coded: Float) -> Float:
    """sRGB to linear light."""
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _encode(light: Float) -> Float:
    """Linear light to sRGB."""
    curve = 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055
    return np.where(light <= 0.0031308, 12.92 * light, curve).astype(np.float32)
