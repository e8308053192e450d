"""An image in, orbit videos with little and much motion out. Takes half a minute with the tiny preset.

python examples/08_generate.py run image.png
"""

import sys

import torch

from orbit4d.datasets import write_video
from orbit4d.model import OrbitPipeline, prepare_photo

run = sys.argv[1] if len(sys.argv) > 1 else "run"
image = sys.argv[2] if len(sys.argv) > 2 else "demo/generated/input.png"
out = sys.argv[3] if len(sys.argv) > 3 else "orbit"

pipeline = OrbitPipeline.of_folder(run)
photo = prepare_photo(image, size=pipeline.config.resolution, background=pipeline.background)
cameras = pipeline.orbit()  # as in training, from the front; any others of ours do as well

for quantile in ("q0.1", "q0.9"):  # of the motion magnitudes that it was trained on
    motion = pipeline.motion_statistics.parse(quantile)
    frames = pipeline(
        image=photo.rgb,
        motion=motion,
        cameras=cameras,
        generator=torch.Generator().manual_seed(0),
        num_inference_steps=int(sys.argv[4]) if len(sys.argv) > 4 else None,
    ).frames[0]
    write_video(f"{out}-{quantile}.mp4", (frames * 255).round().astype("uint8"), 8.0)
    print(f"{out}-{quantile}.mp4: m = {motion:.5f}")
