"""Whether a file can light a scene: inspected before any worker starts. Blender has the last word."""

from __future__ import annotations

import os

from orbit4d.datasets.core.errors import InputError

#: First bytes of OpenEXR and Radiance HDR.
_PANORAMAS = (b"\x76\x2f\x31\x01", b"#?RADIANCE", b"#?RGBE")


def check_environment(path: str | None) -> None:
    """Raises InputError unless `path` is None or a local file that begins as EXR, HDR or another image
    does."""
    if path is None:
        return
    advice = "give an EXR or HDR panorama"
    if "://" in path:
        raise InputError(f"--environment {path}: must be a file; copy it to every machine and give its path")
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError as error:
        reason = "a folder" if os.path.isdir(path) else error.strerror
        raise InputError(f"--environment {path}: cannot be read ({reason}); {advice}") from None
    if head.startswith(_PANORAMAS):
        return
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.verify()
    except Exception:
        # Pillow's readers fail in every way there is on bytes that are no image.
        raise InputError(f"--environment {path}: not an image; {advice}") from None
