"""make bench-data: clips a second from our shards against the published layout, webdataset and litdata;
opening and filtering a long index; lossless WebP against PNG and AVIF.

All loaders deliver the same thing (float planes on white, and alpha), composited by the same code, in the
same number of threads, in turn, in one run. Clips come from `--renders DATASET` (default: demo/dataset, which
`make demo` leaves), repeated under new uids; without one they are drawn, which the output says.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from orbit4d.datasets import (
    Clip,
    DatasetWriter,
    Index,
    OrbitDataset,
    decode,
    encode_webp,
    manifest,
    orbit,
    sealed,
)
from orbit4d.datasets.codec import decode_clip
from orbit4d.datasets.compose import compose
from orbit4d.datasets.reader import read_members
from orbit4d.datasets.schema import INDEX_SCHEMA
from orbit4d.datasets.select import clips as clips_of
from orbit4d.datasets.storage import Store

WHITE = (1.0, 1.0, 1.0)


# Clips ------------------------------------------------------------------------------------------------------


def drawn_clip(seed: int, frames: int, size: int) -> Clip:
    """A lit, textured ellipsoid with the grain of few samples, for want of renders."""
    rng = np.random.default_rng(seed)
    y, x = (np.mgrid[:size, :size] + 0.5 - size / 2) / (size / 2)
    images = []
    for i in range(frames):
        depth = 1 - (x / 0.6) ** 2 - (y / (0.4 + 0.1 * np.sin(i / 4))) ** 2
        shade = np.sqrt(np.clip(depth, 0, 1))
        texture = 0.6 + 0.4 * np.sin(30 * x + i) * np.cos(26 * y + seed)
        rgb = shade[..., None] * texture[..., None] * rng.uniform(0.4, 1, 3) + rng.normal(
            0, 0.01, (size, size, 3)
        )
        alpha = np.clip(depth * size / 8, 0, 1)
        rgba = np.concatenate([np.clip(rgb, 0, 1), alpha[..., None]], -1)
        rgba[alpha == 0] = 0
        images.append(encode_webp((rgba * 255).round().astype(np.uint8)))
    times = tuple(np.linspace(0, 1, frames).tolist())
    cameras = tuple(orbit(frames, size=(size, size)))
    return Clip(
        f"d{seed}",
        "",
        0,
        "dynamic_orbit",
        0,
        tuple(images),
        cameras,
        times,
        times,
        (0, 1),
        1.0,
        (0, 0, 0),
        0,
        0,
        2,
    )


def source_clips(renders: str | None, frames: int, size: int) -> tuple[list[Clip], str]:
    """(distinct clips, where they come from)."""
    if renders is None and Path("demo/dataset/dataset.json").exists():
        renders = "demo/dataset"
    if renders is None:
        return [drawn_clip(seed, frames, size) for seed in range(4)], "drawn frames (no --renders given)"
    index = Index(renders)
    found = []
    for _, some in clips_of(index):
        found += [clip for clip in some if clip.rig == "dynamic_orbit"]
        if len(found) >= 16:
            break
    return found, f"{len(found)} clips of {renders}"


def build(folder: Path, clips: list[Clip], n: int) -> None:
    """The same n clips as shards (at least 8, so that webdataset can share them among workers) and as
    PNGs.
    """
    each = sum(len(member) + 1024 for member in clips[0].frames)
    writer = DatasetWriter(folder / "shards", {}, shard_bytes=max(each * n // 8, 1))
    for i in range(n):
        clip = clips[i % len(clips)]
        writer.stage(f"c{i:05d}", [replace(clip, uid=f"c{i:05d}", action="", action_index=0, passes={})])
        target = folder / "png" / f"c{i:05d}"
        target.mkdir(parents=True)
        for k, pixels in enumerate(clip.pixels()):
            Image.fromarray(pixels).save(target / f"multi_frame{k}.png")
    writer.roll(final=True)


# Loaders ----------------------------------------------------------------------------------------------------


#: share(k, n) -> the clips of the k-th of n threads, as (rgb [F,3,H,W], alpha [F,1,H,W]).
Share = Callable[[int, int], Iterator[Any]]


def published_folders(folder: Path) -> Share:
    """One PNG per frame, read with Pillow: what users of the published data do."""
    folders = sorted(folder.iterdir())

    def share(k: int, n: int) -> Iterator[Any]:
        for clip in folders[k::n]:
            count = len(os.listdir(clip))
            frames = [np.array(Image.open(clip / f"multi_frame{i}.png")) for i in range(count)]
            yield compose(np.stack(frames), WHITE)

    return share


def our_clips(path: Path, order: list[int]) -> Share:
    """OrbitDataset itself, cameras and captions included."""
    data = OrbitDataset(path)

    def share(k: int, n: int) -> Iterator[Any]:
        for i in order[k * len(order) // n : (k + 1) * len(order) // n]:
            item = data[i]
            yield item["dynamic"], item["alpha_dynamic"]

    return share


def webdataset_clips(path: Path, decoder: Callable[[bytes], Any]) -> Share:
    """webdataset's own pipeline over the thread's share of the shards."""
    import webdataset

    shards = sorted(str(shard) for shard in (path / "shards").iterdir())

    def share(k: int, n: int) -> Iterator[Any]:
        if not shards[k::n]:
            return
        for sample in webdataset.WebDataset(shards[k::n], shardshuffle=False):
            names = sorted(name for name in sample if name.endswith(".webp"))
            yield compose(np.stack([decoder(sample[name]) for name in names]), WHITE)

    return share


def _pillow(data: bytes) -> Any:
    return np.array(Image.open(io.BytesIO(data)))


def litdata_clips(folder: Path, clips: Path) -> Share | None:
    """The same frames in litdata's chunks; None where litdata is not installed."""
    try:
        import litdata
    except ImportError:
        return None
    data = OrbitDataset(clips)
    rows = [data.index.row(int(row)) for row in data.samples.dynamic]
    # One field per frame: litdata writes bytes as they are, but a list as JSON.
    clip_frames = [read_members(data.index.shard_store, row, passes=False) for row in rows]
    items = [{f"{i:03d}": frame for i, frame in enumerate(frames)} for frames in clip_frames]
    litdata.optimize(_same, items, output_dir=str(folder / "litdata"), chunk_bytes="64MB", num_workers=1)
    stored = litdata.StreamingDataset(str(folder / "litdata"))

    def share(k: int, n: int) -> Iterator[Any]:
        for i in range(k, len(stored), n):
            yield compose(np.stack([decode(frame) for _, frame in sorted(stored[i].items())]), WHITE)

    return share


def _same(item: Any) -> Any:
    return item


def rate(share: Share, threads: int, n: int, repeats: int) -> float:
    """Clips a second, median of repeats, after one pass that warms the page cache."""

    def run(k: int) -> int:
        return sum(1 for _ in share(k, threads))

    seconds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(repeats + 1):
            start = time.perf_counter()
            seen = sum(pool.map(run, range(threads)))
            seconds.append(time.perf_counter() - start)
            assert seen == n, f"{seen} clips of {n}"
    return n / statistics.median(seconds[1:])


def shares(path: Path, n: int) -> dict[str, float]:
    """CPU milliseconds of one clip in one thread: index row, read, decode, composite."""
    data = OrbitDataset(path)
    spent = dict.fromkeys(("row", "read", "decode", "composite"), 0.0)
    compose(data.rgba(0), WHITE)  # compiled before the clock runs
    for i in range(min(n, len(data))):
        marks = [time.thread_time()]
        row = data.index.row(int(data.samples.dynamic[i]))
        marks.append(time.thread_time())
        members = read_members(data.index.shard_store, row, passes=False)
        marks.append(time.thread_time())
        frames = decode_clip(members, (row["width"], row["height"]))
        marks.append(time.thread_time())
        compose(frames, WHITE)
        marks.append(time.thread_time())
        for name, a, b in zip(spent, marks, marks[1:]):
            spent[name] += 1000 * (b - a) / min(n, len(data))
    return {name: round(value, 2) for name, value in spent.items()}


# Index ------------------------------------------------------------------------------------------------------

OPEN = """
import json, sys, time
import duckdb, numpy, pyarrow.compute, pyarrow.parquet
from orbit4d.datasets.index import Index
from orbit4d.datasets.where import matching
def peak_kib():  # VmHWM, since ru_maxrss keeps the peak of the process that started this one
    return int(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])
base = peak_kib()
cpu, start = time.process_time(), time.perf_counter()
index = Index(sys.argv[1]); index.keys
opened, opened_cpu = time.perf_counter() - start, time.process_time() - cpu
peak = peak_kib()
cpu, start = time.process_time(), time.perf_counter()
hits = int(matching(index, "motion_magnitude > 0.5 and license = 'CC0-1.0'").sum())
filtered, filtered_cpu = time.perf_counter() - start, time.process_time() - cpu
print(json.dumps({"rows": len(index), "open_s": opened, "open_cpu_s": opened_cpu, "peak_mib": peak / 1024,
    "base_mib": base / 1024, "filter_s": filtered, "filter_cpu_s": filtered_cpu, "hits": hits}))
"""


def long_index(folder: Path, source: Path, rows: int) -> dict[str, float]:
    """Open and filter an index of `rows` clips in a fresh process. Six clips to an asset, as three rigs of
    two orbits give. Parts are hard links to one part of 131,072 rows: the reader cannot tell."""
    from orbit4d.datasets.parts import ROWS_PER_PART

    rng = np.random.default_rng(0)
    index = Index(source)
    table = pa.concat_tables([part for _, part in index.read(INDEX_SCHEMA.names)])
    n = min(ROWS_PER_PART, rows)
    table = table.take(pa.array(np.arange(n) % table.num_rows))
    asset = np.arange(n) // 6
    motion = pa.array(rng.random(n))
    measures = table["measures"].type
    licences = pa.array(np.where(asset % 2 == 0, "CC0-1.0", "CC-BY-4.0"))
    columns = {
        "uid": pa.array([f"{(i * 2654435761) % 2**64:016x}{i:016x}" for i in asset.tolist()]),
        "rig": pa.array(np.array(["dynamic_orbit", "front_view", "static_orbit"])[np.arange(n) // 2 % 3]),
        "orbit": pa.array((np.arange(n) % 2).astype(np.int32)),
        "license": licences,
        "measures": pa.StructArray.from_arrays([motion] * measures.num_fields, fields=list(measures)),
        "sha256": pa.array([f"{i:064x}" for i in range(n)]),
    }
    for name, column in columns.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), column.cast(table.schema.field(at).type))
    store = Store(folder)
    store.put(manifest.NAME, manifest.dump(manifest.Manifest(config={})))
    store.put("index/000000-x.parquet", sealed.dump(table))
    for k in range(1, -(-rows // n)):
        os.link(folder / "index/000000-x.parquet", folder / f"index/{k:06d}-x.parquet")
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(folder)], capture_output=True, text=True, check=True
    )
    return {key: round(value, 3) for key, value in json.loads(done.stdout).items()}


# Codecs -----------------------------------------------------------------------------------------------------


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
    from PIL import features

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--renders", help="dataset to take clips from")
    parser.add_argument("--clips", type=int, default=96)
    parser.add_argument("--frames", type=int, default=24, help="of drawn clips")
    parser.add_argument("--size", type=int, default=256, help="of drawn clips")
    parser.add_argument("--threads", type=int, default=min(os.cpu_count() or 1, 8))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--index-rows", type=int, default=10_000_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    clips, origin = source_clips(args.renders, args.frames, args.size)
    first = clips[0].cameras[0]
    shape = f"{len(clips[0].frames)} x {first.w}x{first.h}"
    print(f"{args.clips} clips of {shape}, {origin}; {args.threads} threads")
    folder = Path(tempfile.mkdtemp(prefix="orbit4d-bench-"))
    try:
        build(folder, clips, args.clips)
        order = np.random.default_rng(0).permutation(args.clips).tolist()
        shards = folder / "shards"
        loaders = {
            "ours sequential": our_clips(shards, list(range(args.clips))),
            "ours random": our_clips(shards, order),
            "published PNG folders, Pillow": published_folders(folder / "png"),
            "same shards, webdataset, Pillow": webdataset_clips(shards, _pillow),
            "same shards, webdataset, our decoder": webdataset_clips(shards, decode),
        }
        litdata = litdata_clips(folder, shards)
        if litdata is None:
            print("litdata: not installed, left out (pip install litdata to compare)")
        else:
            loaders["same frames, litdata"] = litdata
        rates = {name: rate(share, args.threads, args.clips, args.repeats) for name, share in loaders.items()}
        ours = rates["ours sequential"]
        for name, value in rates.items():
            print(f"{name:<38} {value:8.1f} clips/s   ours is {ours / value:5.2f}x")
        parts = shares(folder / "shards", args.clips)
        print("one clip in one thread, ms of CPU: " + ", ".join(f"{k} {v}" for k, v in parts.items()))
        index = long_index(folder / "long", folder / "shards", args.index_rows)
        print(
            f"index of {index['rows']:,.0f} rows: open {index['open_s']} s ({index['open_cpu_s']} s CPU), "
            f"peak {index['peak_mib']:.0f} MiB; filter {index['filter_s']} s ({index['filter_cpu_s']} s CPU)"
        )
        table = codecs([clip.pixels()[k] for clip in clips[:8] for k in (0, len(clip.frames) // 2)])
        for row in table:
            print(
                f"{row['codec']:<28} {row['bytes']:>9,} bytes   encode {row['encode_ms']:8.2f} ms   "
                f"decode {row['decode_ms']:6.2f} ms   largest error {row['max_error']}"
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result = {
        "bench": "data",
        "origin": origin,
        "threads": args.threads,
        "clips": args.clips,
        "clips_per_s": {name: round(value, 2) for name, value in rates.items()},
        "over_png": round(ours / rates["published PNG folders, Pillow"], 3),
        "over_webdataset_pillow": round(ours / rates["same shards, webdataset, Pillow"], 3),
        "over_webdataset": round(ours / rates["same shards, webdataset, our decoder"], 3),
        "random_over_sequential": round(rates["ours random"] / ours, 3),
        "litdata": "same frames, litdata" in rates,
        "ms_per_clip": parts,
        "index": index,
        "codecs": table,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
