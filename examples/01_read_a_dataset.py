"""Read a dataset: its index as a table, one clip as pixels and cameras. Takes a second.

python examples/01_read_a_dataset.py demo/dataset
"""

import sys

import pyarrow.parquet as pq

from orbit4d.datasets import Index, decode, read_clip

path = sys.argv[1] if len(sys.argv) > 1 else "demo/dataset"

# The index is plain Parquet: pandas, polars and DuckDB read it without orbit4d.
table = pq.read_table(f"{path}/index", columns=["uid", "action", "action_index", "rig", "n_frames"])
print(table.to_pandas().to_string(index=False))

# One clip is one ranged read. Frames are straight RGBA, sRGB; cameras are camera-to-world, OpenGL axes.
index = Index(path)
row = next(r for r in table.to_pylist() if r["rig"] == "dynamic_orbit")
clip = read_clip(path, row["uid"], row["action"], "dynamic_orbit")
first = decode(clip.frames[0])
print(f"{len(index)} clips; {clip.uid} {clip.action!r}: {len(clip.frames)} frames of {first.shape}")
for camera, time in list(zip(clip.cameras, clip.time))[:3]:
    print(f"time {time:.3f}: camera at {camera.position.round(3)}, fl_x {camera.fl_x:.1f} pixels")
print(f"motion magnitude {clip.measures['motion_magnitude']:.5f}")
