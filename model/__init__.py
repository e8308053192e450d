"""The orbit-video diffusion model: network, VideoMV checkpoints, losses, guidance, training, sampling.

Names are loaded on first use, so that `import orbit4d.model` does not import torch.
"""

from orbit4d.datasets.core.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
