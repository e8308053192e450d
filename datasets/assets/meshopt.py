"""Buffer views of a glTF that meshoptimizer packed (EXT_meshopt_compression, KHR_meshopt_compression).

Unpacked by the package `meshopt` (extra of the same name); without it such a file is refused with the name of
the package, and of a tool that rewrites the file.
"""

from __future__ import annotations

from typing import Any

from orbit4d.datasets.assets.inspection import LIMITS, BadFile

EXTENSIONS = ("EXT_meshopt_compression", "KHR_meshopt_compression")
MODES = ("ATTRIBUTES", "TRIANGLES", "INDICES")
FILTERS = ("NONE", "OCTAHEDRAL", "QUATERNION", "EXPONENTIAL", "COLOR")


def packed_view(view: dict[str, Any]) -> dict[str, Any] | None:
    """The extension's part of a buffer view, None where the view is plain."""
    extensions = view.get("extensions")
    if not isinstance(extensions, dict):
        return None
    return next((extensions[name] for name in EXTENSIONS if isinstance(extensions.get(name), dict)), None)


def check_available(extension: str) -> None:
    """Raise BadFile, with what to do, where no decoder is installed."""
    try:
        import meshopt  # noqa: F401
    except ImportError:
        raise BadFile(
            "extension",
            f'requires {extension}: pip install "orbit4d[meshopt]", or unpack the file first '
            "(gltfpack -i IN.glb -o OUT.glb; gltf-transform)",
        ) from None


def unpacked_size(packed: dict[str, Any], what: str = "a packed bufferView") -> int:
    """Bytes that `packed` unpacks to. Raises BadFile for values outside the specification."""
    count, stride = packed.get("count"), packed.get("byteStride")
    mode, filter_name = packed.get("mode"), packed.get("filter", "NONE")
    if not isinstance(count, int) or not 0 < count <= LIMITS.vertices * 3:
        raise BadFile("absurd", f"{what} counts {str(count)[:20]}")
    sizes = range(4, 257, 4) if mode == "ATTRIBUTES" else (2, 4)
    if mode not in MODES or filter_name not in FILTERS or not isinstance(stride, int) or stride not in sizes:
        raise BadFile("header", f"{what}: mode {mode}, filter {filter_name}, byteStride {stride}")
    return count * stride


def unpack(packed: dict[str, Any], source: memoryview, what: str = "a packed bufferView") -> bytes:
    """The plain bytes of a buffer view; `source` is the buffer that the extension names.

    Raises BadFile where the data cannot be unpacked.
    """
    size = unpacked_size(packed, what)
    start, length = packed.get("byteOffset", 0), packed.get("byteLength")
    if not isinstance(start, int) or not isinstance(length, int) or min(start, length) < 0:
        raise BadFile("header", f"{what}: byteOffset {start}, byteLength {length}")
    if start + length > len(source):
        raise BadFile("header", f"{what} ends at {start + length} of {len(source)} bytes")
    check_available(EXTENSIONS[0])
    from meshopt import decode_gltf_buffer

    try:
        plain = decode_gltf_buffer(
            bytes(source[start : start + length]),
            packed["count"],
            packed["byteStride"],
            packed["mode"],
            packed.get("filter"),
        )
    except (ValueError, RuntimeError) as error:
        raise BadFile("corrupt", f"{what}: {error}") from None
    data = plain.tobytes()
    if len(data) != size:
        raise BadFile("corrupt", f"{what} unpacks to {len(data)} of {size} bytes")
    return data
