"""What a glTF or USD file calls the textures that a reader may get no image for, to name them in a flag."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from orbit4d.datasets.assets.gltf import gltf_document
from orbit4d.datasets.assets.inspection import BadFile, map_file
from orbit4d.datasets.assets.usd import usd_names

#: Endings of files that hold images.
_IMAGES = tuple(
    f".{ending}"
    for ending in (
        *(
            "avif",
            "basis",
            "bmp",
            "dds",
            "exr",
            "gif",
            "hdr",
            "jp2",
            "jpeg",
            "jpg",
            "ktx",
            "ktx2",
            "pic",
            "png",
        ),
        *("psd", "tex", "tga", "tif", "tiff", "tx", "webp"),
    )
)
#: Extensions of glTF textures whose image Blender reads.
_READ = ("EXT_texture_webp",)


def unread_textures(path: str | os.PathLike[str]) -> list[str]:
    """Names of textures that no image stands behind: of a glTF those that come in a format of an extension
    alone (KTX2, DDS), of a USD those whose file is not there. [] for other formats, and where the file cannot
    be made out."""
    path = os.fspath(path)
    suffix = path.lower().rpartition(".")[2]
    try:
        if suffix in ("glb", "gltf", "vrm"):
            names = _gltf(gltf_document(path))
        elif suffix in ("usd", "usda", "usdc", "usdz"):
            names = _usd(path)
        else:
            return []
        return list(dict.fromkeys(names))
    except (BadFile, OSError, zipfile.BadZipFile, KeyError, TypeError, AttributeError):
        return []


def file_name(path: str) -> str:
    """Last part of a path of any system, or of a URI."""
    return path.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _gltf(doc: dict[str, Any]) -> Iterator[str]:
    images = doc.get("images", [])
    for number, texture in enumerate(doc.get("textures", [])):
        extensions = texture.get("extensions", {})
        if "source" in texture or any(name in extensions for name in _READ):
            continue
        sources = [entry["source"] for entry in extensions.values() if "source" in entry]
        image = images[sources[0]] if sources and sources[0] < len(images) else {}
        uri = str(image.get("uri", ""))
        there = "" if uri.startswith("data:") else file_name(unquote(uri))
        where = f"image {sources[0]}" if sources else f"texture {number}"
        yield image.get("name") or there or texture.get("name") or where


def _usd(path: str) -> Iterator[str]:
    packed: set[str] = set()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            packed = {file_name(name) for name in archive.namelist()}
    folder = os.path.dirname(os.path.abspath(path))
    for name in usd_names(path, map_file(path)):
        if not name.lower().endswith(_IMAGES) or file_name(name) in packed:
            continue
        if not os.path.isfile(os.path.join(folder, name.replace("\\", "/"))):
            yield file_name(name)
