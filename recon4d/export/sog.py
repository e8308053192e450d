"""PlayCanvas' SOG, version 2: a ZIP of meta.json and lossless WebP images, a texel a Gaussian."""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.export.packing import (
    f_dc,
    from_arrays,
    from_largest,
    largest_and_rest,
    morton_order,
    picked,
    unit_quats,
)
from orbit4d.recon4d.gaussians import Gaussians

Array = npt.NDArray[Any]
_CODES = 256
_LLOYD_STEPS = 8
#: Entries of the palette of harmonics: one a Gaussian up to here, so the palette itself loses nothing.
_PALETTE = 1 << 16
_PALETTE_WIDTH = 64
_BANDS = {3: 1, 8: 2, 15: 3}
#: Images larger than this are refused: 64 million Gaussians.
_MOST_TEXELS = 1 << 26
#: And members of the ZIP that unpack to more than this.
_MOST_BYTES = 1 << 30


def sog_bytes(gaussians: Gaussians) -> bytes:
    """The .sog file; Gaussians in Morton order.

    InputError for more than 65,536 Gaussians with harmonics, whose palette would have to be learned.
    """
    g = picked(gaussians, morton_order(gaussians.means.detach().cpu().numpy()))
    n = len(g)
    width = 4 * math.ceil(math.sqrt(n) / 4)
    height = 4 * math.ceil(n / width / 4)
    files: dict[str, bytes] = {}

    def image(name: str, rgba: Array) -> None:
        texels = np.zeros((width * height, 4), np.uint8)
        texels[:n] = rgba
        files[name] = _webp(texels.reshape(height, width, 4))

    means = g.means.double().numpy()
    logs = np.sign(means) * np.log1p(np.abs(means))
    low, high = logs.min(0), logs.max(0)
    steps = np.round((logs - low) / np.where(high > low, high - low, 1.0) * 65535).astype(np.uint32)
    image("means_l.webp", _opaque(steps & 255))
    image("means_u.webp", _opaque(steps >> 8))
    scales, scale_codes = _coded(g.log_scales.double().numpy())
    image("scales.webp", _opaque(scales))
    largest, rest = largest_and_rest(unit_quats(g))
    turned = np.clip(np.round((rest * math.sqrt(2) + 1) / 2 * 255), 0, 255)
    image("quats.webp", np.concatenate([turned, 252 + largest[:, None]], 1))
    colors, color_codes = _coded(f_dc(g))
    alpha = np.round(g.opacities.double().numpy() * 255)
    image("sh0.webp", np.concatenate([colors, alpha[:, None]], 1))
    meta: dict[str, Any] = {
        "version": 2,
        "asset": {"generator": "orbit4d"},
        "count": n,
        "means": {"mins": low.tolist(), "maxs": high.tolist(), "files": ["means_l.webp", "means_u.webp"]},
        "scales": {"codebook": scale_codes, "files": ["scales.webp"]},
        "quats": {"files": ["quats.webp"]},
        "sh0": {"codebook": color_codes, "files": ["sh0.webp"]},
    }
    if g.sh_degree:
        meta["shN"] = _write_harmonics(g.harmonics.double().numpy(), files, image)
    return _zipped({"meta.json": json.dumps(meta).encode(), **files})


def _write_harmonics(
    harmonics: Array, files: dict[str, bytes], image: Callable[[str, Array], None]
) -> dict[str, Any]:
    n, k, _ = harmonics.shape
    if n > _PALETTE:
        raise InputError(
            f"sog holds harmonics of at most {_PALETTE} Gaussians here, this set has {n}; "
            "give compressed-ply or spz, or leave the harmonics out"
        )
    coded, codebook = _coded(harmonics)
    rows = math.ceil(n / _PALETTE_WIDTH)
    texels = np.zeros((rows * _PALETTE_WIDTH, k, 4), np.uint8)
    texels[:n, :, :3], texels[..., 3] = coded, 255
    files["shN_centroids.webp"] = _webp(texels.reshape(rows, _PALETTE_WIDTH * k, 4))
    labels = np.arange(n)
    image("shN_labels.webp", _opaque(np.stack([labels & 255, labels >> 8, np.zeros(n, int)], 1)))
    held = ["shN_centroids.webp", "shN_labels.webp"]
    return {"count": n, "bands": _BANDS[k], "codebook": codebook, "files": held}


def _coded(values: Array) -> tuple[Array, list[float]]:
    """Indices uint8 of the nearest of 256 codes, and the codes: Lloyd's algorithm in one dimension.

    Starts a quarter from quantiles and the rest spread over the range, or the tails lose.
    """
    flat = np.sort(values.reshape(-1).astype(np.float64))
    spread = np.linspace(flat[0], flat[-1], _CODES * 3 // 4)
    codes = np.sort(np.concatenate([spread, np.quantile(flat, np.linspace(0, 1, _CODES // 4))]))
    sums = np.concatenate([[0.0], np.cumsum(flat)])
    for _ in range(_LLOYD_STEPS):
        edges = np.searchsorted(flat, (codes[1:] + codes[:-1]) / 2)
        ends = np.concatenate([[0], edges, [len(flat)]])
        count, total = np.diff(ends), np.diff(sums[ends])
        codes = np.where(count > 0, total / np.maximum(count, 1), codes)
    codes = np.sort(codes).astype(np.float32).astype(np.float64)
    nearest = np.searchsorted((codes[1:] + codes[:-1]) / 2, values.reshape(-1)).reshape(values.shape)
    return nearest.astype(np.uint8), codes.tolist()


def _opaque(rgb: Array) -> Array:
    return np.concatenate([rgb, np.full((len(rgb), 1), 255)], 1).astype(np.uint8)


def _webp(texels: Array) -> bytes:
    held = io.BytesIO()
    Image.fromarray(texels).save(held, "WEBP", lossless=True, exact=True, quality=100, method=4)
    return held.getvalue()


def _zipped(files: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return held.getvalue()


def read_sog(source: bytes | Path, name: str, notes: list[str] | None = None) -> Gaussians:
    """From a .sog file's bytes, or a folder with meta.json. `notes` receives what was left out.

    InputError for another version, a streamed SOG, and files that do not fit together.
    """
    get = _folder_reader(source, name) if isinstance(source, Path) else _zip_reader(source, name)
    try:
        meta = json.loads(get("meta.json"))
        if meta.get("version") != 2:
            raise InputError(f"{name}: SOG version {meta.get('version', 1)}; 2 is known")
        if notes is not None and meta.get("model"):
            notes.append(f"{name}: model {meta['model']!r} is drawn as ordinary Gaussians")
        return _decoded(meta, get, name)
    except (KeyError, ValueError, TypeError, IndexError, OSError, Image.DecompressionBombError) as error:
        raise InputError(f"{name}: a damaged SOG ({type(error).__name__}: {error})") from None


def _decoded(meta: dict[str, Any], get: Callable[[str], bytes], name: str) -> Gaussians:
    n = int(meta["count"])
    if n < 1:
        raise ValueError(f"{n} Gaussians")

    def texels(part: str, index: int = 0) -> Array:
        with Image.open(io.BytesIO(get(meta[part]["files"][index]))) as image:
            if image.width * image.height > _MOST_TEXELS:
                raise ValueError(f"an image of {image.width}x{image.height}")
            return np.array(image.convert("RGBA"))

    def rows(part: str, index: int = 0) -> Array:
        found = texels(part, index).reshape(-1, 4)
        if len(found) < n:
            raise ValueError(f"{part} has {len(found)} texels for {n} Gaussians")
        return found[:n]

    low, high = (np.array(meta["means"][key], np.float64) for key in ("mins", "maxs"))
    steps = rows("means", 0)[:, :3].astype(np.float64) + 256.0 * rows("means", 1)[:, :3]
    logs = low + (high - low) * steps / 65535
    quats = rows("quats")
    rest = (quats[:, :3] / 255.0 * 2 - 1) / math.sqrt(2)
    known = quats[:, 3] >= 252
    turned = from_largest(np.where(known, quats[:, 3].astype(np.int64) - 252, 0), rest)
    turned[~known] = (1.0, 0.0, 0.0, 0.0)
    sh0 = rows("sh0")
    harmonics = _read_harmonics(meta, texels, rows, name) if "shN" in meta else None
    return from_arrays(
        np.sign(logs) * np.expm1(np.abs(logs)), _codes(meta, "scales")[rows("scales")[:, :3]], turned,
        sh0[:, 3] / 255.0, _codes(meta, "sh0")[sh0[:, :3]], harmonics,
    )  # fmt: skip


def _codes(meta: dict[str, Any], part: str) -> Array:
    codes = np.array(meta[part]["codebook"], np.float64)
    if codes.shape != (_CODES,):
        raise ValueError(f"a codebook of {codes.size} entries")
    return codes


def _read_harmonics(
    meta: dict[str, Any], texels: Callable[..., Array], rows: Callable[..., Array], name: str
) -> Array:
    k = {bands: k for k, bands in _BANDS.items()}[int(meta["shN"]["bands"])]
    palette = texels("shN", 0)[..., :3]
    if palette.shape[1] != _PALETTE_WIDTH * k:
        raise ValueError(f"a palette {palette.shape[1]} texels wide for {k} harmonics")
    label = rows("shN", 1).astype(np.int64)
    entries = palette.reshape(-1, k, 3)
    return _codes(meta, "shN")[entries[label[:, 0] + 256 * label[:, 1]]]


def _folder_reader(folder: Path, name: str) -> Callable[[str], bytes]:
    if not (folder / "meta.json").is_file():
        streamed = (folder / "lod-meta.json").is_file()
        what = (
            "a streamed SOG, which is not read; give a single .sog" if streamed else "no SOG (no meta.json)"
        )
        raise InputError(f"{name}: {what}")

    def get(file: str) -> bytes:
        if Path(file).name != file:
            raise ValueError(f"a file name with a folder, {file}")
        return (folder / file).read_bytes()

    return get


def _zip_reader(data: bytes, name: str) -> Callable[[str], bytes]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except zipfile.BadZipFile:
        raise InputError(f"{name}: a damaged SOG (not a whole ZIP)") from None
    members = {Path(info.filename).name: info for info in archive.infolist() if info.filename.count("/") < 2}
    if "meta.json" not in members:
        streamed = "lod-meta.json" in members
        what = (
            "a streamed SOG, which is not read; give a single .sog" if streamed else "no SOG (no meta.json)"
        )
        raise InputError(f"{name}: {what}")

    def get(file: str) -> bytes:
        if members[file].file_size > _MOST_BYTES:
            raise ValueError(f"{file} of {members[file].file_size} bytes")
        try:
            return archive.read(members[file])
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise ValueError(f"{file} ({error})") from None

    return get
