"""Clips as batches of tensors in a training loop of your own. Takes a few seconds.

python examples/02_train_loop_on_clips.py demo/dataset
"""

import sys

import torch

from orbit4d.datasets import OrbitDataset, OrbitLoader

path = sys.argv[1] if len(sys.argv) > 1 else "demo/dataset"

# Composited at load time: on white, grey, a colour, or another random colour for each clip and epoch.
clips = OrbitDataset(path, where="motion_magnitude > 0", background="white", size=32)
loader = OrbitLoader(clips, batch_size=2, seed=0)

# The smallest model there is: a colour per time, fitted to the mean of each frame.
torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Linear(1, 32), torch.nn.SiLU(), torch.nn.Linear(32, 3))
optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
for epoch in range(2):
    losses = []
    for batch in loader:
        frames, time = batch["dynamic"], batch["time"]  # [B, F, 3, H, W] in [0, 1], [B, F]
        loss = (network(time.float()[..., None]) - frames.mean((-1, -2))).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"epoch {epoch}: loss {sum(losses) / len(losses):.4f}, cameras {tuple(batch['c2w'].shape)}")
