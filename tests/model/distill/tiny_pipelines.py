"""Published pipelines with random weights, written by diffusers' and transformers' own `save_pretrained`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    PNDMScheduler,
    UNet2DConditionModel,
    UNet3DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

BLOCKS = {"block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 32}
TABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def unet_2d(channels: int = 4, **rest: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=channels,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
        **BLOCKS,
        **rest,
    )


def unet_3d() -> UNet3DConditionModel:
    return UNet3DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        attention_head_dim=8,
        **BLOCKS,
    )


def autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(32, 64),
        layers_per_block=1,
        sample_size=16,
        scaling_factor=0.18215,
    )


def text_tower(vocabulary: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            intermediate_size=37,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=77,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
        )
    )


def write_tokenizer(folder: Path) -> CLIPTokenizer:
    letters = [chr(97 + i) for i in range(26)]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(str(folder), model_max_length=77)
    tokenizer.save_pretrained(folder)
    # Published folders hold the two files of old, which the loader looks for.
    if not (folder / "vocab.json").is_file():
        raise AssertionError("the tokenizer lost its vocabulary")
    return tokenizer


def write_pipeline(folder: Path, kind: str, said: str = "random", variant: str | None = None) -> Path:
    """`kind`: sd15, zero123, modelscope or tile (sd15 with controlnet/)."""
    torch.manual_seed(0)
    network = {"zero123": lambda: unet_2d(8), "modelscope": unet_3d}.get(kind, unet_2d)()
    network.save_pretrained(folder / "unet", variant=variant)
    autoencoder().save_pretrained(folder / "vae", variant=variant)
    index: dict[str, Any] = {"_class_name": "SomePipelineOfTheirs", "_weights": said}
    if kind == "zero123":
        DDIMScheduler(**TABLE).save_pretrained(folder / "scheduler")
        vision = CLIPVisionConfig(
            hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4,
            image_size=28, patch_size=14, projection_dim=28,
        )  # fmt: skip
        CLIPVisionModelWithProjection(vision).save_pretrained(folder / "image_encoder")
        layer = torch.nn.Linear(32, 32)
        (folder / "cc_projection").mkdir()
        named = {f"cc_projection.{key}": value for key, value in layer.state_dict().items()}
        torch.save(named, folder / "cc_projection" / "diffusion_pytorch_model.bin")
    else:
        PNDMScheduler(**TABLE, skip_prk_steps=True, steps_offset=1).save_pretrained(folder / "scheduler")
        tokenizer = write_tokenizer(folder / "tokenizer")
        text_tower(len(tokenizer)).save_pretrained(folder / "text_encoder")
    if kind == "tile":
        ControlNetModel(
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            attention_head_dim=4,
            conditioning_embedding_out_channels=(8, 16),
            **BLOCKS,
        ).save_pretrained(folder / "controlnet")
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
