"""make bench-data: clips a second from our shards against the published layout, webdataset and litdata;
opening and filtering a long index; lossless WebP against PNG and AVIF.

All loaders deliver the same thing (float32 planes on white, and alpha, as tensors), in the same number of
threads, in turn, in one run. The published layout and webdataset are read twice: once as a script does that
knows nothing of orbit4d (Pillow decodes, numpy composites), and once with our fastest parts lent to them (our
composite; for webdataset and litdata our decoder too), which leaves only what the layout and loader cost.
Clips come from `--renders DATASET` (default: demo/dataset, which `make demo` leaves), repeated under new
uids; without one they are drawn, which the output says.
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
from parts.data_codecs import codecs
from PIL import Image

from orbit4d.datasets import Clip, DatasetWriter, Index, OrbitDataset, decode, encode_webp, orbit
from orbit4d.datasets.core.cores import usable_cores
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.images.codec import _decode_webp
from orbit4d.datasets.images.composite import compose
from orbit4d.datasets.index.reader import read_members
from orbit4d.datasets.loader.planes import clip_planes
from orbit4d.datasets.operations.select import clips as clips_of
from orbit4d.datasets.store import manifest, sealed
from orbit4d.datasets.store.schema import INDEX_SCHEMA

WHITE = (1.0, 1.0, 1.0)
PNG = "published PNG folders: Pillow, numpy composite"
PNG_LENT = "published PNG folders: Pillow, our composite"
WEBDATASET = "same shards, webdataset: Pillow, numpy composite"
WEBDATASET_LENT = "same shards, webdataset: our decoder and composite"
LITDATA_LENT = "same frames, litdata: our decoder and composite"


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


#: uint8 [F, H, W, 4] to (rgb, alpha) on white.
Composite = Callable[[np.ndarray], Any]


def our_composite(rgba: np.ndarray) -> Any:
    """Ours, lent to the others."""
    return compose(rgba, WHITE)


def usual_composite(rgba: np.ndarray) -> Any:
    """What a script does with numpy, in float32."""
    planes = rgba.astype(np.float32) / 255
    alpha = planes[..., 3:]
    rgb = planes[..., :3] * alpha + (1 - alpha)
    return tuple(torch.from_numpy(plane).permute(0, 3, 1, 2).contiguous() for plane in (rgb, alpha))


def published_folders(folder: Path, composite: Composite) -> Share:
    """One PNG per frame, read with Pillow: what users of the published data do."""
    folders = sorted(folder.iterdir())

    def share(k: int, n: int) -> Iterator[Any]:
        for clip in folders[k::n]:
            count = len(os.listdir(clip))
            frames = [np.array(Image.open(clip / f"multi_frame{i}.png")) for i in range(count)]
            yield composite(np.stack(frames))

    return share


def our_clips(path: Path, order: list[int]) -> Share:
    """OrbitDataset itself, cameras and captions included."""
    data = OrbitDataset(path)

    def share(k: int, n: int) -> Iterator[Any]:
        for i in order[k * len(order) // n : (k + 1) * len(order) // n]:
            item = data[i]
            yield item["dynamic"], item["alpha_dynamic"]

    return share


def webdataset_clips(path: Path, decoder: Callable[[bytes], Any], composite: Composite) -> Share:
    """webdataset's own pipeline over the thread's share of the shards."""
    import webdataset

    shards = sorted(str(shard) for shard in (path / "shards").iterdir())

    def share(k: int, n: int) -> Iterator[Any]:
        if not shards[k::n]:
            return
        for sample in webdataset.WebDataset(shards[k::n], shardshuffle=False):
            names = sorted(name for name in sample if name.endswith(".webp"))
            yield composite(np.stack([decoder(sample[name]) for name in names]))

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
            yield our_composite(np.stack([decode(frame) for _, frame in sorted(stored[i].items())]))

    return share


def _same(item: Any) -> Any:
    return item


def rate(share: Share, threads: int, n: int, repeats: int) -> tuple[float, float]:
    """(clips a second, ms of CPU a clip), medians of repeats, after one pass that warms the page cache."""

    def run(k: int) -> int:
        return sum(1 for _ in share(k, threads))

    seconds, cpu = [], []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(repeats + 1):
            start, cpu_start = time.perf_counter(), time.process_time()
            seen = sum(pool.map(run, range(threads)))
            seconds.append(time.perf_counter() - start)
            cpu.append(1000 * (time.process_time() - cpu_start) / n)
            assert seen == n, f"{seen} clips of {n}"
    return n / statistics.median(seconds[1:]), statistics.median(cpu[1:])


def shares(path: Path, n: int) -> dict[str, float]:
    """CPU milliseconds of one clip in one thread: what a sample needs of the index, its ranged read, decoding
    alone, and what compositing frame by frame adds to decoding.
    """
    data = OrbitDataset(path)
    size = data.details[0].size
    spent = dict.fromkeys(("row", "read", "decode", "both"), 0.0)
    data[0]  # compiled, and below all row groups decoded, before the clock runs
    for i in range(len(data)):
        data.details[int(data.samples.dynamic[i])]
    scratch = np.empty((size[1], size[0], 4), np.uint8)
    for i in range(min(n, len(data))):
        marks = [time.thread_time()]
        row = data.details[int(data.samples.dynamic[i])]
        data._geometry(row)
        marks.append(time.thread_time())
        content, starts = data._read(row)
        marks.append(time.thread_time())
        for start, length in zip(starts.tolist(), row.lengths.tolist()):
            _decode_webp(content[start : start + length], scratch)
        marks.append(time.thread_time())
        clip_planes(content, starts, row.lengths, size, WHITE)
        marks.append(time.thread_time())
        for name, a, b in zip(spent, marks, marks[1:]):
            spent[name] += 1000 * (b - a) / min(n, len(data))
    spent["composite"] = spent["both"] - spent["decode"]
    return {name: round(value, 2) for name, value in spent.items() if name != "both"}


# Index ------------------------------------------------------------------------------------------------------

OPEN = """
import json, sys, time
import duckdb, numpy, pyarrow.compute, pyarrow.parquet
from orbit4d.datasets.index.details import DetailsCache
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.index.where import matching
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
details, rows = DetailsCache(index), numpy.random.default_rng(0).integers(0, len(index), 100).tolist()
visits = []
for _ in range(2):
    cpu = time.process_time()
    for row in rows: details[row]
    visits.append(10 * (time.process_time() - cpu))
print(json.dumps({"rows": len(index), "open_s": opened, "open_cpu_s": opened_cpu, "peak_mib": peak / 1024,
    "base_mib": base / 1024, "filter_s": filtered, "filter_cpu_s": filtered_cpu, "hits": hits,
    "first_visit_ms": visits[0], "next_visit_ms": visits[1]}))
"""


def long_index(folder: Path, source: Path, rows: int) -> dict[str, float]:
    """Open and filter an index of `rows` clips in a fresh process. Six clips to an asset, as three rigs of
    two orbits give. Parts are hard links to one part of 131,072 rows: the reader cannot tell."""
    from orbit4d.datasets.store.parts import ROWS_PER_PART

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--renders", help="dataset to take clips from")
    parser.add_argument("--clips", type=int, default=96)
    parser.add_argument("--frames", type=int, default=24, help="of drawn clips")
    parser.add_argument("--size", type=int, default=256, help="of drawn clips")
    parser.add_argument("--threads", type=int, default=min(usable_cores(), 8))
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
            PNG: published_folders(folder / "png", usual_composite),
            PNG_LENT: published_folders(folder / "png", our_composite),
            WEBDATASET: webdataset_clips(shards, _pillow, usual_composite),
            WEBDATASET_LENT: webdataset_clips(shards, decode, our_composite),
        }
        litdata = litdata_clips(folder, shards)
        if litdata is None:
            print("litdata: not installed, left out (pip install litdata to compare)")
        else:
            loaders[LITDATA_LENT] = litdata
        timed = {name: rate(share, args.threads, args.clips, args.repeats) for name, share in loaders.items()}
        rates = {name: value for name, (value, _) in timed.items()}
        ours = rates["ours sequential"]
        for name, (value, cpu) in timed.items():
            print(f"{name:<52} {value:6.1f} clips/s   {cpu:6.2f} ms CPU each   ours is {ours / value:5.2f}x")
        parts = shares(folder / "shards", args.clips)
        print("one clip in one thread, ms of CPU: " + ", ".join(f"{k} {v}" for k, v in parts.items()))
        index = long_index(folder / "long", folder / "shards", args.index_rows)
        print(
            f"index of {index['rows']:,.0f} rows: open {index['open_s']} s ({index['open_cpu_s']} s CPU), "
            f"peak {index['peak_mib']:.0f} MiB; filter {index['filter_s']} s "
            f"({index['filter_cpu_s']} s CPU); "
            f"a random row {index['first_visit_ms']} ms, once more {index['next_visit_ms']} ms"
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
        "cpu_ms_per_clip": {name: round(cpu, 2) for name, (_, cpu) in timed.items()},
        "over_png": round(ours / rates[PNG], 3),
        "over_png_our_composite": round(ours / rates[PNG_LENT], 3),
        "over_webdataset": round(ours / rates[WEBDATASET], 3),
        "over_webdataset_our_decoder": round(ours / rates[WEBDATASET_LENT], 3),
        "random_over_sequential": round(rates["ours random"] / ours, 3),
        "over_litdata_our_decoder": round(ours / rates[LITDATA_LENT], 3) if LITDATA_LENT in rates else None,
        "ms_per_clip": parts,
        "index": index,
        "codecs": table,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
