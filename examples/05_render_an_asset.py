"""Render one animated asset into a dataset: static orbit, dynamic orbit and front view. Takes half a minute.

python examples/05_render_an_asset.py demo/assets/slime.glb dataset
"""

import sys

from orbit4d.datasets import Index
from orbit4d.render import FleetSettings, preset, render_assets

# A file, a folder, a glob, a table of `orbit4d curate`, or objaverse:... ; `make demo` leaves assets here.
source = sys.argv[1] if len(sys.argv) > 1 else "demo/assets/slime.glb"
out = sys.argv[2] if len(sys.argv) > 2 else "dataset"

# Settings decide what the dataset looks like; the fleet decides who renders it, and leaves no trace in it.
settings = preset("draft", frames=8, resolution=64, seed=0)
summary = render_assets([source], out, settings, FleetSettings(workers=1))
print(summary.line)
for first, table in Index(out).read(["uid", "action", "rig", "n_frames"]):
    print(first, table.to_pydict())
