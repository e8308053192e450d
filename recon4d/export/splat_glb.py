"""GLB with KHR_gaussian_splatting (release candidate of January 2026): one time as points."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.geometry.exports.glb import VERTEX_DATA, GlbBuffer, pack_glb
from orbit4d.recon4d.export.packing import f_dc, from_arrays, positive_scales, shares, unit_quats
from orbit4d.recon4d.gaussians import SH_C0, Gaussians

EXTENSION = "KHR_gaussian_splatting"
_POINTS = 0
_TYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


def splat_glb_bytes(gaussians: Gaussians, extras: dict[str, Any] | None = None) -> bytes:
    """The file, with numbers as given: glTF means +Y up, so turn them first."""
    g = gaussians.detached().to("cpu")
    buffer = GlbBuffer()

    def put(array: npt.NDArray[Any], kind: str, bounds: bool = False) -> int:
        return buffer.accessor(np.ascontiguousarray(array, np.float32), kind, bounds, VERTEX_DATA)

    srgb = (f_dc(g) * SH_C0 + 0.5).clip(0, 1)
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    opacities = g.opacities.numpy()
    attributes = {
        "POSITION": put(g.means.numpy(), "VEC3", True),
        "COLOR_0": put(np.concatenate([linear, opacities[:, None]], 1), "VEC4"),
        f"{EXTENSION}:ROTATION": put(unit_quats(g)[:, [1, 2, 3, 0]], "VEC4"),
        f"{EXTENSION}:SCALE": put(g.scales.numpy(), "VEC3"),
        f"{EXTENSION}:OPACITY": put(opacities, "SCALAR"),
    }
    coefficients = g.coefficients().numpy()
    for degree in range(g.sh_degree + 1):
        for n in range(2 * degree + 1):
            key = f"{EXTENSION}:SH_DEGREE_{degree}_COEF_{n}"
            attributes[key] = put(coefficients[:, degree**2 + n], "VEC3")
    given = {
        "kernel": "ellipse", "colorSpace": "srgb_rec709_display", "projection": "perspective",
        "sortingMethod": "cameraDistance",
    }  # fmt: skip
    primitive = {"attributes": attributes, "mode": _POINTS, "extensions": {EXTENSION: given}}
    asset = {"version": "2.0", "generator": "orbit4d"} | ({"extras": extras} if extras else {})
    document = {
        "asset": asset,
        "extensionsUsed": [EXTENSION],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "splats"}],
        "meshes": [{"name": "splats", "primitives": [primitive]}],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": buffer.length}],
    }
    return pack_glb(document, b"".join(buffer.chunks))


def read_splat_glb(data: bytes, name: str) -> Gaussians:
    """All splats of a GLB, joined, numbers as stored: nodes that turn or scale them are refused.

    InputError for a GLB without splats, with splats elsewhere than in its own buffer, or damaged.
    """
    try:
        document, binary = _chunks(data)
        meshes = {
            node["mesh"]
            for node in document.get("nodes", [{"mesh": i} for i in range(10**3)])
            if "mesh" in node
        }
        moved = [
            n for n in document.get("nodes", []) if {"matrix", "rotation", "scale", "translation"} & set(n)
        ]
        parts = [
            _primitive(primitive, document, binary, name)
            for i, mesh in enumerate(document.get("meshes", []))
            for primitive in mesh["primitives"]
            if i in meshes and EXTENSION in primitive.get("extensions", {})
        ]
    except (
        KeyError, ValueError, TypeError, IndexError, AttributeError, RecursionError, struct.error,
    ) as error:  # fmt: skip
        raise InputError(f"{name}: a damaged GLB ({type(error).__name__}: {error})") from None
    if not parts:
        raise InputError(f"{name}: a GLB without Gaussian splats ({EXTENSION}); render takes meshes")
    if moved:
        raise InputError(f"{name}: its nodes move the splats, which is not read; apply the transforms first")
    if len({part.sh_degree for part in parts}) > 1:
        raise InputError(f"{name}: splats with harmonics of different degrees; give one mesh")
    joined = {key: [part.tensors()[key] for part in parts] for key in Gaussians.names()}
    import torch

    return Gaussians(**{key: torch.cat(values) for key, values in joined.items()})


def _chunks(data: bytes) -> tuple[dict[str, Any], bytes]:
    magic, version, length = struct.unpack_from("<4sII", data)
    if magic != b"glTF" or version != 2 or length > len(data):
        raise ValueError("not a whole GLB of version 2")
    size, _ = struct.unpack_from("<I4s", data, 12)
    document = json.loads(data[20 : 20 + size])
    start = 20 + size
    if start + 8 > length:
        return document, b""
    (binary,) = struct.unpack_from("<I", data, start)
    return document, data[start + 8 : start + 8 + binary]


def _primitive(primitive: dict[str, Any], document: dict[str, Any], binary: bytes, name: str) -> Gaussians:
    attributes = primitive["attributes"]

    def get(key: str) -> npt.NDArray[np.float64]:
        return _accessor(document["accessors"][attributes[key]], document, binary)

    def harmonic(degree: int, n: int) -> npt.NDArray[np.float64]:
        return get(f"{EXTENSION}:SH_DEGREE_{degree}_COEF_{n}")

    degree = 0
    while degree < 3 and f"{EXTENSION}:SH_DEGREE_{degree + 1}_COEF_0" in attributes:
        degree += 1
    rest = [harmonic(d, n) for d in range(1, degree + 1) for n in range(2 * d + 1)]
    means = get("POSITION")
    harmonics = np.stack(rest, 1) if rest else np.zeros((len(means), 0, 3))
    quats = get(f"{EXTENSION}:ROTATION")[:, [3, 0, 1, 2]]
    scales, opacities = positive_scales(get(f"{EXTENSION}:SCALE"), name), get(f"{EXTENSION}:OPACITY")[:, 0]
    if len({len(means), len(quats), len(scales), len(opacities), len(harmonic(0, 0))}) > 1:
        raise ValueError("attributes of different numbers of splats")
    return from_arrays(means, np.log(scales), quats, shares(opacities, name), harmonic(0, 0), harmonics)


def _accessor(given: dict[str, Any], document: dict[str, Any], binary: bytes) -> npt.NDArray[np.float64]:
    if "sparse" in given or "bufferView" not in given:
        raise ValueError("a sparse accessor")
    view = document["bufferViews"][given["bufferView"]]
    if view.get("buffer", 0) != 0 or "uri" in document["buffers"][0]:
        raise ValueError("splats outside the file's own buffer")
    kind, width, count = np.dtype(_TYPES[given["componentType"]]), _WIDTHS[given["type"]], given["count"]
    start = view.get("byteOffset", 0) + given.get("byteOffset", 0)
    stride = view.get("byteStride") or width * kind.itemsize
    if start < 0 or count < 1 or start + stride * (count - 1) + width * kind.itemsize > len(binary):
        raise ValueError("an accessor that leaves the buffer")
    rows: npt.NDArray[Any] = np.ndarray((count, width), kind, binary, start, (stride, kind.itemsize))
    values = rows.astype(np.float64)
    if given.get("normalized") and kind.kind in "iu":
        values = np.maximum(values / np.iinfo(kind).max, -1.0)
    return values
