"""Render one animated asset into a dataset: static orbit, dynamic orbit and front view. Takes half a minute.

python examples/05_render_an_asset.py walking.glb dataset
"""

import sys

from orbit4d.datasets import Index
from orbit4d.render import FleetSettings, preset, render_assets

source = sys.argv[1] if len(sys.argv) > 1 else "demo:slime"
out = sys.argv[2] if len(sys.argv) > 2 else "dataset"

if source.startswith("demo:"):
    from orbit4d.app.demo.source import register  # the built-in assets are known to the command line

    register()

settings = preset("draft", frames=8, resolution=64, seed=0)
summary = render_assets([source], out, settings, FleetSettings(workers=1))
print(summary.line)
for first, table in Index(out).read(["uid", "action", "rig", "n_frames"]):
    print(first, table.to_pydict())
