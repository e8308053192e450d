"""Part of `make bench-data`: lossless WebP against PNG and AVIF on the same frames."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, features

from orbit4d.datasets import decode, encode_webp


def codecs(frames: list[np.ndarray]) -> list[dict[str, Any]]:
    """Bytes, encode and decode milliseconds per frame (one thread), and the largest error where alpha > 0."""

    def pillow(kind: str, **options: Any) -> Callable[[np.ndarray], bytes]:
        def encode(pixels: np.ndarray) -> bytes:
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, kind, **options)
            return buffer.getvalue()

        return encode

    webp = [
        (f"webp lossless m{m} q{q}", pillow("WEBP", lossless=True, exact=True, method=m, quality=q))
        for m, q in ((0, 25), (1, 25), (2, 25), (4, 25), (4, 75), (6, 75))
    ]
    others = [
        ("webp lossless m2 q25 (ours)", encode_webp),
        ("png level 6", pillow("PNG", compress_level=6)),
        ("png optimize", pillow("PNG", optimize=True)),
    ]
    if features.check("avif"):
        others += [
            ("avif q100 4:4:4 s8", pillow("AVIF", quality=100, subsampling="4:4:4", speed=8)),
            ("avif q90 4:4:4 s8", pillow("AVIF", quality=90, subsampling="4:4:4", speed=8)),
        ]
    table = []
    for name, encode in [*webp, *others]:
        start = time.process_time()
        encoded = [encode(frame) for frame in frames]
        middle = time.process_time()
        decoded = [decode(data) for data in encoded]
        end = time.process_time()
        error = max(
            int(np.abs(a.astype(int) - b)[a[..., 3] > 0].max(initial=0)) for a, b in zip(frames, decoded)
        )
        table.append(
            {
                "codec": name,
                "bytes": round(sum(map(len, encoded)) / len(frames)),
                "encode_ms": round(1000 * (middle - start) / len(frames), 2),
                "decode_ms": round(1000 * (end - middle) / len(frames), 2),
                "max_error": error,
            }
        )
    return table
