"""CLIP similarity of frames with an image or a text (Radford et al. 2021, arXiv 2103.00020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orbit4d.datasets.images.metric_weights import NotMeasured

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTokenizer

DEFAULT_MODEL = "openai/clip-vit-large-patch14"
#: CLIP's own normalisation of RGB in [0, 1].
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


class ClipScore(nn.Module):
    """Cosine similarities in CLIP's joint space (Radford et al. 2021, arXiv 2103.00020), in [-1, 1].

    `model` is transformers' CLIPModel, `tokenizer` its CLIPTokenizer (needed for texts). Images are
    [N, 3, H, W] in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: CLIPModel, tokenizer: CLIPTokenizer | None = None) -> None:
        super().__init__()
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def from_pretrained(cls, name: str = DEFAULT_MODEL, fetch: bool = False) -> ClipScore:
        """From a folder or the hub's cache, with `fetch` from the hub. Raises NotMeasured where it is not."""
        from transformers import CLIPModel, CLIPTokenizer

        try:
            return cls(
                CLIPModel.from_pretrained(name, local_files_only=not fetch),
                CLIPTokenizer.from_pretrained(name, local_files_only=not fetch),
            )
        except (OSError, ValueError) as error:
            if fetch:
                first = str(error).strip().splitlines()[0]
                raise NotMeasured(f"no CLIP weights {name!r} ({first}); give --clip FOLDER") from None
            raise NotMeasured(
                f"no CLIP weights {name!r} here; give --clip FOLDER or --fetch-weights"
            ) from None

    def images(self, images: Tensor) -> Tensor:
        """Unit vectors [N, D] of images [N, 3, H, W] in [0, 1], resized with antialiasing."""
        size = self.model.config.vision_config.image_size
        images = F.interpolate(images, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
        pixels = (images.to(self.mean) - self.mean) / self.std
        features = self.model.get_image_features(pixel_values=pixels)
        return F.normalize(_tensor(features), dim=-1)

    def text(self, text: str) -> Tensor:
        """Unit vector [1, D] of a prompt; ValueError without a tokenizer."""
        if self.tokenizer is None:
            raise ValueError("a prompt needs CLIP's tokenizer")
        ids = self.tokenizer([text], padding=True, truncation=True, return_tensors="pt")
        tokens = {name: values.to(self.mean.device) for name, values in ids.items()}
        return F.normalize(_tensor(self.model.get_text_features(**tokens)), dim=-1)

    def scores(self, images: Tensor, condition: Tensor | str) -> Tensor:
        """Similarity [N] of unit vectors [N, D] of images with an image [3, H, W] or a text."""
        target = self.text(condition) if isinstance(condition, str) else self.images(condition[None])
        return (images * target.to(images)).sum(-1)

    def forward(self, frames: Tensor, condition: Tensor | str) -> Tensor:
        """Similarity [N] of frames [N, 3, H, W] with an image [3, H, W] or a text."""
        return self.scores(self.images(frames), condition)

    def digest(self) -> str:
        """SHA-256 over the model's weights."""
        import hashlib

        digest = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def _tensor(output: object) -> Tensor:
    """transformers 5 wraps the projected features in an output object, 4 returned them bare."""
    return output if isinstance(output, Tensor) else output.pooler_output  # type: ignore[attr-defined]
