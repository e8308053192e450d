"""The digest of a dataset: one SHA-256 that depends on its clips alone.

SHA-256 of the sorted lines (uid, action, rig, orbit, sha256, canonical bytes of cameras and time); under
light n > 0 the orbit is written `<orbit>__l<n>`. How the clips lie in shards and index parts, how many
workers made them and how long they took does not enter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.store.parts import completed, live_parts, read_part

_COLUMNS = ["uid", "action_index", "action", "rig", "orbit", "sha256", "c2w", "fl_x", "fl_y", "cx", "cy"]
_COLUMNS += ["width", "height", "time", "light"]


def digest_lines(table: pa.Table) -> list[bytes]:
    """One line per row. Cameras and time enter as the SHA-256 of their little-endian float64 bytes:
    c2w row-major per frame, then fl_x fl_y cx cy width height, then time.
    """
    lines = []
    table = completed(table, _COLUMNS)
    scalars = {name: table.column(name).to_pylist() for name in _COLUMNS if name not in ("c2w", "time")}
    c2w, time = table.column("c2w").combine_chunks(), table.column("time").combine_chunks()
    for i in range(table.num_rows):
        numbers = [scalars[name][i] for name in ("fl_x", "fl_y", "cx", "cy", "width", "height")]
        content = hashlib.sha256()
        for values in (_flat(c2w[i].values.flatten()), np.array(numbers), _flat(time[i].values)):
            content.update(values.astype("<f8").tobytes())
        key = [scalars[name][i] for name in ("uid", "action_index", "action", "rig", "orbit", "sha256")]
        if scalars["light"][i]:
            key[4] = f"{key[4]}__l{scalars['light'][i]}"
        # Inserting the index before the name keeps two actions of one name apart.
        lines.append(json.dumps([*key, content.hexdigest()], ensure_ascii=False).encode())
    return lines


def _flat(values: pa.Array) -> np.ndarray:
    return values.to_numpy(zero_copy_only=False)


def digest_of(lines: Iterable[bytes]) -> str:
    """Digest of lines in any order."""
    digest = hashlib.sha256()
    for line in sorted(lines):
        digest.update(line + b"\n")
    return digest.hexdigest()


def dataset_digest(store: Store) -> str:
    """Digest of all committed clips; staged ones do not count."""
    lines: list[bytes] = []
    for name in live_parts(store)[0]:
        lines += digest_lines(read_part(store, name, _COLUMNS))
    return digest_of(lines)
