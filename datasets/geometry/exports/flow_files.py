"""Optical flow as Middlebury's .flo and as KITTI's 16-bit PNG, with the images it runs between."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.geometry.exports.job import ExportAction, ExportClip, Files, Refused, each_clip, png

#: Middlebury's mark of a flow that nobody knows.
UNKNOWN = np.float32(1e10)


def known_flow(
    clip: ExportClip, a: int, b: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(flow [H, W, 2], known [H, W]: a surface that lies before both cameras, visible [H, W] in both)."""
    geometry = clip.geometry
    flow, visible = geometry.flow(a, b)
    covered = geometry.triangles(a) >= 0
    later = geometry.points(a).astype(np.float64) + geometry.scene_flow(a, b)
    ahead = geometry.cameras[b].project(later)[1] > 0.0
    return flow, covered & ahead, visible


def _pairs(action: ExportAction, clip: ExportClip) -> list[tuple[int, int]]:
    gap, frames = action.settings.gap, len(clip.geometry)
    if frames <= gap:
        raise Refused("flow:frames", f"{frames} frames, none of which is {gap} after another; lower --gap")
    return [(a, a + gap) for a in range(frames - gap)]


def flo(action: ExportAction, clip: ExportClip) -> Files:
    """`<clip>/frame_XXXX.png`, `frame_XXXX.flo` `--gap` frames on, `visible_XXXX.png` (255: seen)."""
    pairs = _pairs(action, clip)
    for i in range(len(clip.geometry)):
        yield f"{clip.name}/frame_{i:04d}.png", png(clip.rgb(i))
    for a, b in pairs:
        flow, known, visible = known_flow(clip, a, b)
        yield f"{clip.name}/frame_{a:04d}.flo", encode_flo(flow, known)
        yield f"{clip.name}/visible_{a:04d}.png", png(np.where(visible, 255, 0).astype(np.uint8))


def encode_flo(flow: npt.NDArray[np.float32], known: npt.NDArray[np.bool_]) -> bytes:
    """A .flo file."""
    height, width = known.shape
    values = np.where(known[..., None], flow, UNKNOWN).astype("<f4")
    return b"PIEH" + struct.pack("<ii", width, height) + values.tobytes()


def kitti_flow(action: ExportAction, clip: ExportClip) -> Files:
    """`<clip>/image_2/<a>_10.png` and `_11.png`, `flow_occ/<a>_10.png`, `flow_noc` with what both show."""
    for a, b in _pairs(action, clip):
        flow, known, visible = known_flow(clip, a, b)
        name = f"{a:06d}_10.png"
        yield f"{clip.name}/image_2/{name}", png(clip.rgb(a))
        yield f"{clip.name}/image_2/{a:06d}_11.png", png(clip.rgb(b))
        yield f"{clip.name}/flow_occ/{name}", encode_kitti(flow, known)
        yield f"{clip.name}/flow_noc/{name}", encode_kitti(flow, known & visible)


def encode_kitti(flow: npt.NDArray[np.float32], known: npt.NDArray[np.bool_]) -> bytes:
    """A 16-bit RGB PNG, which Pillow cannot write: u and v in steps of 1/64 px from -512, and 1 where known.

    What lies beyond the range counts as unknown.
    """
    steps = np.rint(64.0 * flow.astype(np.float64) + 32768.0)
    valid = known & ((steps >= 0) & (steps <= 65535)).all(axis=-1)
    pixels = np.zeros((*known.shape, 3), ">u2")
    pixels[valid, :2] = steps[valid]
    pixels[..., 2] = valid
    height, width = known.shape
    rows = np.zeros((height, 1 + 6 * width), np.uint8)  # each row starts with its filter, 0: none
    rows[:, 1:] = pixels.reshape(height, -1).view(np.uint8)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


FORMATS = {"flo": each_clip(flo), "kitti-flow": each_clip(kitti_flow)}
