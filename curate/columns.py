"""The table that `curate` writes: every column with its type, unit and meaning, kept in one place.

The descriptions travel in the Parquet file as field metadata; the rules, presets and versions that made a
table stand in its schema metadata under the key `orbit4d.curate` (JSON).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.sources.read_table import cast

TABLE_VERSION = 1
METADATA_KEY = b"orbit4d.curate"

_S, _F, _I, _B = pa.string(), pa.float64(), pa.int64(), pa.bool_()
_VIEWS = pa.list_(pa.float64())

#: name -> (type, description). Order is the table's.
COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "uid": (_S, "asset id; the rows of an asset are adjacent"),
    "path": (_S, "file of the asset, or URI; for a rendered dataset, the dataset"),
    "action": (_S, "name of the action as read; '' for a still asset, or one that could not be measured"),
    "action_index": (_I, "order of the action in the file, from 0"),
    "format": (_S, "file format of the asset"),
    "asset_sha256": (_S, "SHA-256 of the asset file (a .gltf with its companions)"),
    "bytes": (_I, "size of the asset file (a .gltf with its companions)"),
    "asset_version": (_S, "version of the asset file in object storage (ETag); '' on a disk"),
    "license": (_S, "licence as the file, the source or the captions name it; '' if nobody does"),
    "author": (_S, "author as named"),
    "source_url": (_S, "where the asset comes from"),
    "caption": (_S, "text that describes the asset"),
    "status": (_S, "measured, refused (a file check) or failed (could not be measured)"),
    "verdict": (_S, "accepted, rejected or failed"),
    "reasons": (pa.list_(_S), "every reason code that applies; empty when accepted"),
    "failure": (_S, "reason code of a refused or failed asset, else null"),
    "detail": (_S, "one line about the failure"),
    "attempts": (_I, "times measuring was tried"),
    "seconds": (_F, "length of the action, seconds"),
    "window_start": (_F, "start of what moves, seconds on the file's clock; null when nothing moves"),
    "window_end": (_F, "end of what moves, seconds on the file's clock"),
    "n_samples": (_I, "moments at which the action was evaluated"),
    "motion_geometry": (_F, "largest RMS vertex displacement from the window's start, in diameters there"),
    "motion_rigid": (_F, "the part that one rotation and translation of the whole explain (Procrustes)"),
    "motion_nonrigid": (_F, "largest RMS residual of that rotation and translation of the whole:"
                            " deforming, or several moving parts"),
    "motion_shape": (_F, "largest RMS distance of the surface from that at the window's start, in diameters:"
                         " what slides along itself hardly changes it"),
    "turn_deg": (_F, "largest rotation of the whole (Procrustes), degrees"),
    "speed_mean": (_F, "mean RMS speed, diameters per second"),
    "speed_max": (_F, "largest RMS speed, diameters per second"),
    "jerk_rms": (_F, "RMS third derivative, diameters per second cubed"),
    "periodicity": (_F, "1 - lowest over highest mean distance of poses a lag apart; 1 repeats exactly"),
    "period_seconds": (_F, "lag of that lowest distance, seconds; 0 without one"),
    "loop_gap": (_F, "distance of last and first pose over the largest one from the first; 0 loops"),
    "union_growth": (_F, "longest edge of the union box over longest edge of the window's first box"),
    "drift": (_F, "how far the box's centre leaves its first place, in longest edges of the first box"),
    "out_of_frame": (_F, "largest share of vertices outside the frame in any view of the orbit"),
    "out_of_frame_views": (_VIEWS, "per view of the default orbit: largest share of vertices outside the"
                                   " frame at any time, with the first box scaled to 1"),
    "coverage_min": (_F, "smallest of coverage_views"),
    "coverage_mean": (_F, "mean over views of the share of the frame that the silhouette covers"),
    "coverage_views": (_VIEWS, "per view of the default orbit: share of the frame that the silhouette covers"
                               " at the window's start, with the first box scaled to 1 (32 x 32 cells)"),
    "coverage_fit": (_F, "coverage_mean over union_growth squared: about what is covered at the scale at"
                         " which the whole action fits the frame"),
    "torn_edges": (_F, "largest share of edges stretched beyond reason against the rest pose"),
    "size": (_F, "longest edge of the first box, in the file's units"),
    "n_actions": (_I, "actions in the file"),
    "n_vertices": (_I, "vertices of the asset after modifiers"),
    "n_triangles": (_I, "triangles of the asset after modifiers"),
    "n_objects": (_I, "objects with a surface"),
    "n_textures": (_I, "images the asset uses"),
    "n_missing_textures": (_I, "images it names that are not there"),
    "flags": (pa.list_(_S), "what had to be repaired on loading; long_window: the action has more frames than"
                            " motion was looked for at"),
    "ssim_quarter": (_F, "SSIM of the front preview at the window's start and at a quarter of it, on white"),
    "ssim_half": (_F, "SSIM of the front preview at the window's start and at half of it, on white"),
    "ssim_object_quarter": (_F, "as ssim_quarter, within the box that the object covers in the two previews"),
    "ssim_object_half": (_F, "as ssim_half, within the box that the object covers in the two previews"),
    "ssim_object_peak": (_F, "SSIM within the object's box of the previews at the window's start and at"
                             " the time of the largest displacement; where all previews are one and the"
                             " same image, the least over the left, the back and the right"),
    "alpha_coverage": (_F, "largest share of the preview that is covered"),
    "alpha_touch": (_F, "largest share of the preview's border that is covered"),
    "flat": (_B, "whether all previews are blank or of one single colour, the same in all"),
    "ssim_quarter_raw": (_F, "as ssim_quarter, at raw scene frames 0 and 6 (the published reading)"),
    "ssim_half_raw": (_F, "as ssim_half, at raw scene frames 0 and 12 (the published reading)"),
    "ssim_object_quarter_raw": (_F, "as ssim_object_quarter, at raw scene frames"),
    "ssim_object_half_raw": (_F, "as ssim_object_half, at raw scene frames"),
    "alpha_coverage_raw": (_F, "as alpha_coverage, at raw scene frames"),
    "alpha_touch_raw": (_F, "as alpha_touch, at raw scene frames"),
    "flat_raw": (_B, "as flat, at raw scene frames"),
    "boundary_touch": (_F, "rendered dataset: largest share of a frame's border that is covered"),
    "boundary_frames": (_F, "rendered dataset: share of the frames that touch the border"),
    "coverage": (_F, "rendered dataset: mean share of the frame that is covered"),
    "blank_frames": (_F, "rendered dataset: share of the frames in which nothing is seen"),
    "flat_frames": (_F, "rendered dataset: share of the frames in one single colour"),
    "motion_magnitude": (_F, "rendered dataset: raw m between dynamic and static orbit, on white"),
    "phash": (_S, "look of the asset's first action: perceptual hash (16 hex digits), mean colour (6)"),
    "duplicate_of": (_S, "uid of an earlier asset that looks the same, else null"),
    "benchmarks": (pa.list_(_S), "published benchmarks that hold this object, known by uid, address or"
                                 " contents"),
    "split": (_S, "test for objects of benchmarks that are kept for testing; null: drawn from the uid"),
    "import_seconds": (_F, "time to load the asset, seconds"),
    "measure_seconds": (_F, "time to measure the action, previews included, seconds"),
    "preview": (pa.binary(), "WebP, three images side by side: the window's start, a quarter, half"),
}  # fmt: skip

SCHEMA = pa.schema(
    [pa.field(name, kind, metadata={"description": text}) for name, (kind, text) in COLUMNS.items()]
)


#: What may be missing where a table is known by its columns: text about the asset, and what is made again.
SPARE = frozenset(
    {"format", "bytes", "author", "source_url", "caption", "verdict", "reasons", "detail", "attempts",
     "asset_version", "flags", "import_seconds", "measure_seconds", "duplicate_of", "preview", "benchmarks",
     "split"}
)  # fmt: skip


def lacking(names: Iterable[str]) -> list[str]:
    """Columns without which rules cannot decide as they did, of a table that has those of `names`."""
    present = set(names)
    return [name for name in COLUMNS if name not in present and name not in SPARE]


def conformed(table: pa.Table, where: str) -> pa.Table:
    """The table with every column of its type, in the table's order, missing ones null, others behind them.

    pandas, polars and DuckDB write other string and list types, floats for whole numbers with gaps, and
    indices of their own. Raises InputError, which begins with `where`, for what is of no such type.
    """
    arrays = []
    for name, (kind, _) in COLUMNS.items():
        if name in table.column_names:
            arrays.append(cast(table.column(name), kind, f"{where}: column {name}"))
        else:
            arrays.append(pa.chunked_array([pa.nulls(table.num_rows, kind)]))
    more = [n for n in table.column_names if n not in COLUMNS and not n.startswith("__index_level")]
    for name in COLUMNS:
        # A measure under another name would be null without a word, and null rejects nothing.
        alike = [] if name in table.column_names else difflib.get_close_matches(name, more, 1, 0.75)
        if alike:
            raise InputError(
                f"{where}: has no column {name} but {alike[0]}: give it its name back, or drop it"
            )
    schema = SCHEMA
    for name in more:
        schema = schema.append(table.schema.field(name))
    metadata = {k: v for k, v in (table.schema.metadata or {}).items() if k == METADATA_KEY}
    arrays += [table.column(name) for name in more]
    return pa.Table.from_arrays(arrays, schema=schema.with_metadata(metadata))


def build(rows: Iterable[Mapping[str, Any]], info: Mapping[str, Any]) -> pa.Table:
    """A table of the full schema from dicts; absent values are null. `info` goes into the metadata."""
    rows = list(rows)
    arrays = [pa.array([row.get(name) for row in rows], kind) for name, (kind, _) in COLUMNS.items()]
    return with_info(pa.Table.from_arrays(arrays, schema=SCHEMA), {"table_version": TABLE_VERSION, **info})


def info_of(table: pa.Table) -> dict[str, Any]:
    """What `with_info` stored, or {}."""
    stored = (table.schema.metadata or {}).get(METADATA_KEY)
    return json.loads(stored) if stored else {}


def with_info(table: pa.Table, info: Mapping[str, Any]) -> pa.Table:
    """The table with `info` merged into its stored information."""
    merged = json.dumps({**info_of(table), **info}, sort_keys=True)
    return table.replace_schema_metadata({**(table.schema.metadata or {}), METADATA_KEY: merged.encode()})
