"""From an orbit of frames to 4D Gaussians, and a view that was never seen. `fast` takes a minute.

python examples/04_reconstruct.py demo/dataset:dino scene
"""

import sys
from dataclasses import replace

from PIL import Image

from orbit4d.datasets import orbit
from orbit4d.recon4d import PRESETS, load_scene, reconstruct

source = sys.argv[1] if len(sys.argv) > 1 else "demo/dataset:dino"
out = sys.argv[2] if len(sys.argv) > 2 else "scene"
steps = int(sys.argv[3]) if len(sys.argv) > 3 else None  # fewer steps: a sketch

settings = PRESETS["fast"]
if steps is not None:
    settings = replace(settings, coarse_steps=steps // 2, fine_steps=steps // 2)

# A video, a folder of frames, or DATASET:uid[:action], which brings its own cameras and static orbit.
reconstruct(source, out, settings=settings)

# Straight RGBA, float32 [H, W, 4], from any camera at any time in [0, 1].
scene = load_scene(out)
camera = orbit(1, elevation_deg=20.0, azimuth0_deg=45.0, size=(256, 256))[0]
image = scene.render(camera, 0.5)
Image.fromarray((image.clip(0, 1) * 255).round().astype("uint8")).save(f"{out}/unseen.png")
print(f"{out}/unseen.png")
