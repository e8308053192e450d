"""Straight RGBA bytes to float planes on a background, in one pass over the pixels that holds no lock."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.jit import jit

#: Pixels handled at a time: 16 KiB of words.
STRETCH = 4096


# Without fastmath: a fused 1 - alpha would let a trace of the background into opaque pixels.
@jit
def compose_words(words, background, rgb, alpha):  # type: ignore[no-untyped-def]
    """words uint32 [F, P], one pixel each; rgb float32 [F, 3, P], alpha float32 [F, P].

    Whole words, and one output at a time over a stretch that stays in the first cache: so LLVM sees two
    arrays that cannot overlap and works on sixteen pixels at a time, which it does not on bytes side by side.
    """
    byte, unit, one = np.uint32(255), np.float32(1.0 / 255.0), np.float32(1.0)
    for f in range(words.shape[0]):
        for start in range(0, words.shape[1], STRETCH):
            source = words[f, start : start + STRETCH]
            out = alpha[f, start : start + STRETCH]
            for i in range(source.shape[0]):
                out[i] = np.float32(np.int32(source[i] >> np.uint32(24))) * unit
            for c in range(3):
                shift, behind = np.uint32(8 * c), background[c]
                out = rgb[f, c, start : start + STRETCH]
                for i in range(source.shape[0]):
                    a = np.float32(np.int32(source[i] >> np.uint32(24))) * unit
                    value = np.float32(np.int32((source[i] >> shift) & byte))
                    out[i] = value * (a * unit) + (one - a) * behind


def compose(
    rgba: npt.NDArray[np.uint8], background: tuple[float, float, float]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """uint8 [F, H, W, 4] on a colour in [0, 1] to float32 (rgb [F, 3, H, W], alpha [F, 1, H, W]), in sRGB
    values.
    """
    f, h, w, _ = rgba.shape
    rgb, alpha = np.empty((f, 3, h, w), np.float32), np.empty((f, 1, h, w), np.float32)
    # Little-endian words: red is the lowest byte on every machine.
    words = np.ascontiguousarray(rgba).view("<u4").reshape(f, h * w)
    if not words.dtype.isnative:
        words = words.astype(np.uint32)
    compose_words(
        words, np.asarray(background, np.float32), rgb.reshape(f, 3, h * w), alpha.reshape(f, h * w)
    )
    return rgb, alpha
