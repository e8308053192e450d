"""Assets that look alike: a perceptual hash of the first image, compared within a small distance.

The hash is `imagehash.phash` (DCT, 64 bits) of the object's box on white, in grey; the box's mean colour is
kept beside it, so that the same shape in another colour counts as another asset.
"""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from PIL import Image

from orbit4d.datasets.images.measures import composite, object_box, solid

#: Hashes that differ in at most this many of 64 bits, and mean colours by at most this much a channel (of
#: 255), are one look. Four bands of 16 bits find every pair within three bits: one band at least must agree.
MAX_BITS = 3
MAX_COLOUR = 10
_BANDS = 4


def look_hash(rgba: np.ndarray) -> str | None:
    """`<16 hex digits of hash>-<6 hex digits of mean colour>` of straight RGBA [H, W, 4]; None if blank."""
    import imagehash

    alpha = rgba[..., 3]
    covered = solid(alpha)
    if not covered.any():
        return None
    rows, columns = object_box(alpha)
    image = (composite(rgba)[rows, columns] * 255.0).round().astype(np.uint8)
    colour = rgba[..., :3][covered].mean(axis=0).round().astype(int)
    return f"{imagehash.phash(Image.fromarray(image))}-{''.join(f'{c:02x}' for c in colour)}"


def strip_hash(preview: bytes) -> str | None:
    """`look_hash` of the first of the three images in a preview."""
    with Image.open(io.BytesIO(preview)) as strip:
        pixels = np.asarray(strip.convert("RGBA"))
    return look_hash(pixels[:, : pixels.shape[1] // 3])


def find_duplicates(looks: Iterable[tuple[str, str]]) -> dict[str, str]:
    """uid -> earlier uid that looks the same, from (uid, look) in order; the first of a kind stays out.

    Never links to an asset that is a duplicate itself, so dropping duplicates keeps one of each kind.
    """
    kept: list[tuple[str, int, np.ndarray]] = []
    bands: list[dict[int, list[int]]] = [{} for _ in range(_BANDS)]
    found: dict[str, str] = {}
    for uid, look in looks:
        bits = int(look[:16], 16)
        colour = np.array([int(look[i : i + 2], 16) for i in (17, 19, 21)])
        keys = [(bits >> (16 * k)) & 0xFFFF for k in range(_BANDS)]
        near = sorted({i for k, key in enumerate(keys) for i in bands[k].get(key, ())})
        for i in near:
            other, other_bits, other_colour = kept[i]
            alike = (bits ^ other_bits).bit_count() <= MAX_BITS
            if alike and np.abs(colour - other_colour).max() <= MAX_COLOUR:
                found[uid] = other
                break
        else:
            for k, key in enumerate(keys):
                bands[k].setdefault(key, []).append(len(kept))
            kept.append((uid, bits, colour))
    return found


def mark_duplicates(table: pa.Table) -> pa.Table:
    """Fill `phash` and `duplicate_of` of every asset from its first preview (or the hash it has already)."""
    uids = table["uid"].to_pylist()
    looks: dict[str, str] = {}
    for uid, preview, known in zip(uids, table["preview"], table["phash"].to_pylist()):
        if uid not in looks:
            value = known or (strip_hash(preview.as_py()) if preview.is_valid else None)
            if value is not None:
                looks[uid] = value
    found = find_duplicates(looks.items())
    for name, values in (("phash", looks), ("duplicate_of", found)):
        at = table.column_names.index(name)
        column = pa.array([values.get(uid) for uid in uids], pa.string())
        table = table.set_column(at, table.schema.field(name), column)
    return table
