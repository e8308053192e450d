"""Latents and embeddings kept beside a dataset, so that training need not make them again.

    DATASET/latents/<key>.json               what they were made with
    DATASET/latents/<key>/<n>.bin            clips, each one safetensors blob
    DATASET/latents/<key>/<n>.parquet        where each clip lies, and the hash of the frames it was made from

`encode --out FOLDER` writes FOLDER/<key>.json and so on, for a dataset that is read-only (or shared).

<key> is a hash over everything that changes a latent: the weights of autoencoder and encoders, size,
background, captions. A part's .parquet is written after its .bin, so an encoding that is killed resumes
where it was. A clip that was rendered again, or added, since it was encoded does not match: the cache is then
refused as stale.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from orbit4d.datasets.core.damage import reading
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.store.sealed import read_bytes
from orbit4d.model.config.settings import TrainConfig
from orbit4d.model.encoders.frozen import FrozenParts

SCHEMA = 1
_FOLDER = "latents"
#: Key in a part's metadata: CRC-32 of each clip's bytes, as a JSON list.
_SUMS = b"orbit4d.crc32"
_ROWS = pa.schema(
    [
        pa.field("uid", pa.string()),
        pa.field("action_index", pa.int32()),
        pa.field("orbit", pa.int32()),
        pa.field("source", pa.string(), metadata={"description": "hash of the frames it was made from"}),
        pa.field("offset", pa.int64()),
        pa.field("length", pa.int64()),
        pa.field("motion_frames", pa.list_(pa.float32())),
    ]
)

#: (uid, action_index, orbit): what makes a training clip unique.
Identity = tuple[str, int, int]

#: (identity, hash of its frames, tensors, motion per frame).
EncodedClip = tuple[Identity, str, Mapping[str, Tensor], Sequence[float]]


@dataclass(frozen=True)
class CachedRow:
    """Where one clip's latents lie."""

    part: str
    offset: int
    length: int
    source: str
    motion_frames: tuple[float, ...]
    crc32: int | None = None
    """Of the clip's bytes."""


def cache_settings(config: TrainConfig, frozen: FrozenParts) -> dict[str, Any]:
    """Everything that changes a latent or an embedding."""
    data = config.data
    settings: dict[str, Any] = {
        "schema": SCHEMA,
        **frozen.identity(),
        "resolution": data.resolution,
        "background": data.background,
        "dtype": "float32" if config.model.autoencoder.startswith("unshuffle") else "float16",
    }
    if config.synchronised:
        # A clip's latents hang on its frames in time; rig and camera are in the identity of each clip.
        views = config.views
        settings["views"] = {
            "frames": data.frames,
            "width": views.width,
            "time": frozen.autoencoder.time_factor,
        }
    elif config.model.base == "wan":
        settings["orbit"] = {"first": config.model.variant == "image", "time": frozen.autoencoder.time_factor}
        if frozen.autoencoder.time_factor > 1:
            settings["orbit"]["frames"] = data.frames
    if frozen.text is not None:
        affixes = [data.caption_prefix, data.caption_suffix]
        settings["caption_affixes"] = affixes if data.captions else "no captions"
    return settings


class LatentCache:
    """One set of latents of one dataset: beside it, or in a folder of its own."""

    def __init__(self, dataset: str, settings: Mapping[str, Any], folder: str = "") -> None:
        self.dataset, self.settings, self.folder = dataset, dict(settings), folder
        text = json.dumps(self.settings, sort_keys=True)
        self.key = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.store = Store(folder or dataset)
        self._root = "" if folder else f"{_FOLDER}/"

    @property
    def place(self) -> str:
        """Where the files are, for messages."""
        return self.folder or f"{self.dataset}/{_FOLDER}"

    def check_writable(self) -> None:
        """InputError, naming --out, where the cache cannot be written: before an hour of encoding."""
        probe = f"{self._root}.writable"
        try:
            self.store.put(probe, b"")
            self.store.delete([probe])
        except InputError as error:
            raise InputError(
                f"{self.place}: cannot be written ({error}): give encode another --out FOLDER, and train "
                "--latents FOLDER"
            ) from error

    @classmethod
    def find(cls, dataset: str, config: TrainConfig, frozen: FrozenParts) -> LatentCache | None:
        """The cache made with these settings, or None, with a note when there is one made with others."""
        cache = cls(dataset, cache_settings(config, frozen), config.data.latents_folder)
        if cache.store.exists(f"{cache._root}{cache.key}.json"):
            return cache
        for path in cache.store.list(cache._root.rstrip("/"), ".json"):
            with reading(cache.store.path(path), fix=f"delete it, or all of {cache.place}"):
                made_with = dict(json.loads(cache.store.read(path)))
            differs = [k for k, v in cache.settings.items() if made_with.get(k) != v] or ["nothing"]
            print(
                f"note: {cache.folder or dataset} has latents made with "
                f"{differs[0]}={made_with.get(differs[0])}, this run has "
                f"{cache.settings.get(differs[0])}: they are not used"
            )
        return None

    def rows(self) -> dict[Identity, CachedRow]:
        """What is there; a clip encoded again counts once, as it was last."""
        found: dict[Identity, CachedRow] = {}
        for path in self.store.list(f"{self._root}{self.key}", ".parquet"):
            with reading(self.store.path(path), fix="delete it and encode again"):
                found |= _rows_of(read_bytes(self.store.read(path)), path)
        return found

    def write_part(self, clips: Sequence[EncodedClip]) -> None:
        """Append clips as (identity, source hash, tensors, motion per frame)."""
        present = self.store.list(f"{self._root}{self.key}", ".bin")
        number = 1 + max((int(name.rsplit("/", 1)[-1].removesuffix(".bin")) for name in present), default=-1)
        blobs, rows, offset = [], [], 0
        for (uid, action_index, orbit), source, tensors, motion in clips:
            blob = save_tensors({k: v.contiguous() for k, v in tensors.items()})
            rows.append((uid, action_index, orbit, source, offset, len(blob), list(motion)))
            blobs.append(blob)
            offset += len(blob)
        table = pa.table(dict(zip(_ROWS.names, map(list, zip(*rows)))), schema=_ROWS)
        sums = json.dumps([zlib.crc32(blob) for blob in blobs])
        buffer = io.BytesIO()
        pq.write_table(table.replace_schema_metadata({_SUMS: sums}), buffer, write_page_checksum=True)
        settings = json.dumps(self.settings, indent=1).encode()
        self.store.put(f"{self._root}{self.key}.json", settings)
        self.store.put(f"{self._root}{self.key}/{number:06d}.bin", b"".join(blobs))
        self.store.put(f"{self._root}{self.key}/{number:06d}.parquet", buffer.getvalue())

    def read(self, row: CachedRow) -> dict[str, Tensor]:
        """Tensors of one clip, by one ranged read."""
        try:
            with reading(self.store.path(row.part), fix="delete it with its .parquet and encode again"):
                blob = self.store.read_range(row.part, row.offset, row.length)
                if row.crc32 is not None and zlib.crc32(blob) != row.crc32:
                    raise ValueError("its checksum does not fit")
                return load_tensors(blob)
        except FileNotFoundError as error:
            raise WorkError(f"{self.store.path(row.part)}: missing: run `orbit4d encode` again") from error


def _rows_of(table: pa.Table, path: str) -> dict[Identity, CachedRow]:
    """The rows of one part; raises on anything that `write_part` does not write."""
    if not table.schema.equals(_ROWS):
        raise ValueError("columns that are not those of a latent cache")
    # Caches made before there were sums have none.
    stored = (table.schema.metadata or {}).get(_SUMS)
    sums = json.loads(stored) if stored is not None else [None] * table.num_rows
    return {
        (row["uid"], row["action_index"], row["orbit"]): CachedRow(
            path.removesuffix(".parquet") + ".bin",
            row["offset"],
            row["length"],
            row["source"],
            tuple(row["motion_frames"]),
            crc32,
        )
        for row, crc32 in zip(table.to_pylist(), sums, strict=True)
    }


def missing_or_stale(rows: Mapping[Identity, CachedRow], sources: Mapping[Identity, str]) -> list[Identity]:
    """The clips of `sources` that the cache lacks, or holds as they were before they changed."""
    return [key for key, source in sources.items() if key not in rows or rows[key].source != source]


class CachedClips:
    """Clips of one split from a latent cache (a `ClipSource`)."""

    is_latent = True

    def __init__(self, cache: LatentCache, sources: Mapping[Identity, str]) -> None:
        rows = cache.rows()
        stale = missing_or_stale(rows, sources)
        if stale:
            raise InputError(
                f"{cache.dataset}: the latents of {len(stale)} of {len(sources)} clips are missing or stale "
                f"(first: {stale[0][0]}): run `orbit4d encode` again with the same settings"
                + (f" and --out {cache.folder}" if cache.folder else "")
                + ", or set data.latents=fly"
            )
        self.cache = cache
        self._identities = list(sources)
        self._rows = [rows[identity] for identity in self._identities]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        tensors = self.cache.read(self._rows[index])
        clip: dict[str, Any] = {k: v if k in ("c2w", "focal") else v.float() for k, v in tensors.items()}
        clip["motion_frames"] = self.motion_frames(index)
        return clip

    def motion_frames(self, index: int) -> Tensor:
        """[N] mean squared difference per frame of dynamic and static orbit; NaN where unknown."""
        return torch.tensor(self._rows[index].motion_frames, dtype=torch.float32)

    def require(self, static: bool) -> None:
        """InputError when a stage needs static orbits and there are none."""
        if static and len(self) and "static" not in self.cache.read(self._rows[0]):
            raise InputError(
                f"{self.cache.dataset}: a static stage needs static orbits, and the cache has none of them: "
                "render with --rigs static_orbit,dynamic_orbit"
            )

    def keys(self) -> list[str]:
        """uid of every clip, in order."""
        return [identity[0] for identity in self._identities]


def source_hash(shas: Iterable[str]) -> str:
    """One hash for the frames of a clip's rigs."""
    return hashlib.sha256("\n".join(shas).encode()).hexdigest()[:32]


def as_stored(tensor: Tensor, dtype: str) -> Tensor:
    """To the cache's dtype, on the CPU."""
    return tensor.to("cpu", torch.float16 if dtype == "float16" else torch.float32)


def motion_list(values: Tensor) -> list[float]:
    """[N] tensor to plain numbers."""
    return [float(v) for v in np.asarray(values, dtype=np.float32)]
