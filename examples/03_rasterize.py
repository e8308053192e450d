"""Rasterise 3D Gaussians with gradients, on the CPU or on CUDA. Takes 2 s, the first time 15 (compilation).

python examples/03_rasterize.py gaussians.png
"""

import sys

import numpy as np
import torch
from PIL import Image

from orbit4d.datasets import orbit
from orbit4d.recon4d import rasterize

out = sys.argv[1] if len(sys.argv) > 1 else "gaussians.png"
torch.manual_seed(0)

n = 2000
means = torch.nn.functional.normalize(torch.randn(n, 3), dim=-1) * 0.4  # on a sphere
means.requires_grad_()
quats = torch.nn.functional.normalize(torch.randn(n, 4), dim=-1)  # wxyz
scales = torch.full((n, 3), 0.02)
opacities = torch.full((n,), 0.9)
colors = means.detach() / 0.8 + 0.5

cameras = orbit(4, size=(128, 128))  # gsplat's conventions: world-to-camera, OpenCV axes
viewmats = torch.tensor(np.stack([c.w2c_opencv for c in cameras]), dtype=torch.float32)
Ks = torch.tensor(np.stack([c.K for c in cameras]), dtype=torch.float32)
image, alpha, _ = rasterize(means, quats, scales, opacities, colors, viewmats, Ks, 128, 128)

alpha.mean().backward()
print(f"images {tuple(image.shape)}, gradient of the mean coverage {means.grad.norm().item():.3g}")
white = image + (1 - alpha)  # colours are premultiplied
strip = torch.cat(list(white.detach()), dim=1).clamp(0, 1)
Image.fromarray((strip.numpy() * 255).round().astype("uint8")).save(out)
print(out)
