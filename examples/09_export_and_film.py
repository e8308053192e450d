"""Take a scene into other tools: a PLY per time, a .splat, and a film. Takes a few seconds.

python examples/09_export_and_film.py demo/scene out
"""

import sys
from pathlib import Path

from orbit4d.recon4d import export_scene, film, load_scene

scene = load_scene(sys.argv[1] if len(sys.argv) > 1 else "demo/scene")
out = Path(sys.argv[2] if len(sys.argv) > 2 else "out")
out.mkdir(parents=True, exist_ok=True)

# Each file appears only when it is complete.
written = export_scene(scene, out / "ply", format="ply-sequence", frames=3)
written += export_scene(scene, out / "half.splat", format="splat", time=0.5)
for path in written:
    print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")

frames = film(scene, out / "bullet_time.mp4", rig="bullet_time", frames=8, size=64)
print(f"{out / 'bullet_time.mp4'}: {len(frames)} frames of {frames.shape[2]} x {frames.shape[1]}")
