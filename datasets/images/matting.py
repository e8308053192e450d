"""Mattes of footage before any background, by the network of `rembg`: an extra, asked for by name."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.progress import track

MATTES = ("flat", "rembg")


def cut_out(
    pixels: npt.NDArray[np.uint8], name: str, instead: str = "give --mask FOLDER instead"
) -> npt.NDArray[np.uint8]:
    """Mattes uint8 [F, H, W] of frames [F, H, W, 3 or 4]: 255 inside the object.

    The network sees each frame alone. rembg fetches its weights once. Raises InputError, which ends in
    `instead`, where rembg is not installed or cannot work.
    """
    rembg = _load()
    try:
        session = rembg.new_session()
        mattes = [
            np.asarray(rembg.remove(frame[..., :3], session=session, only_mask=True))
            for frame in track(pixels, "matte", unit="frame")
        ]
    except Exception as error:  # Whatever it raises comes from its runtime or its download.
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{name}: rembg made no matte ({why}); {instead}") from None
    return np.stack(mattes).reshape(pixels.shape[:3]).astype(np.uint8)


def _load() -> ModuleType:
    try:
        import rembg  # type: ignore[import-not-found]
    except ImportError:
        raise InputError("--matte rembg needs an extra: pip install 'orbit4d[rembg]'") from None
    except SystemExit:
        # rembg ends the process when it finds no onnxruntime.
        raise InputError("rembg finds no onnxruntime: pip install 'rembg[cpu]'") from None
    return rembg
