"""Named training configurations: the published hyper-parameters, and a small network for a CPU.

The videomv presets follow Diffusion4D (arXiv 2405.16645, section 4.1): 6,000 iterations, learning rate 3e-5
held constant, effective batch 128, DDIM 50, guidance w1 = 7.0 and w2 = 0.5; and the habits of the VideoMV
base each starts from (alibaba/VideoMV, configs/*.yaml): background grey 128 or white, `, 3d asset` behind
captions, the condition dropped in one of ten samples (text) or never (image), empty captions (image), offset
noise 0.1 (image).
Captions describe still objects, so `a dynamic asset, ` goes before them (their issue 17).
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.config.settings import (
    DataSettings,
    LossSettings,
    ModelSettings,
    OptimSettings,
    SampleSettings,
    Stage,
    TrainConfig,
    ViewSettings,
)

#: The fixed negative prompt of VGen, on which VideoMV stands: it means "no caption" to its text model.
NEGATIVE_PROMPT = (
    "Distorted, discontinuous, Ugly, blurry, low resolution, motionless, static, disfigured, "
    "disconnected limbs, Ugly faces, incomplete arms"
)
_PUBLISHED_OPTIM = OptimSettings(
    lr=3e-5,
    schedule="constant",
    effective_batch=128,
    batch="auto",
    ema=0.9999,
    precision="bf16",
    checkpointing=True,
)
_CLIP = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
_VAE = "stabilityai/sd-vae-ft-mse"

VIDEOMV_TEXT = TrainConfig(
    preset="videomv-text",
    stages=(Stage("dynamic", 6000),),
    model=ModelSettings(variant="text", schedule="text", autoencoder=_VAE, text_encoder=_CLIP),
    data=DataSettings(
        background="grey128",
        caption_prefix="a dynamic asset, ",
        caption_suffix=", 3d asset",
        negative_prompt=NEGATIVE_PROMPT,
    ),
    loss=LossSettings(drop_caption=0.1, drop_motion=0.1),
    optim=_PUBLISHED_OPTIM,
)
VIDEOMV_IMAGE = TrainConfig(
    preset="videomv-image",
    stages=(Stage("dynamic", 6000),),
    model=ModelSettings(
        variant="image", schedule="image", autoencoder=_VAE, text_encoder=_CLIP, image_encoder=_CLIP
    ),
    data=DataSettings(background="white", captions=False),
    loss=LossSettings(drop_caption=0.0, drop_motion=0.1, drop_image=0.0, offset_noise=0.1),
    optim=_PUBLISHED_OPTIM,
)
VIDEOMV_STATIC3D = replace(
    VIDEOMV_IMAGE, preset="videomv-static3d", model=replace(VIDEOMV_IMAGE.model, variant="static3d")
)
TINY = TrainConfig(
    preset="tiny",
    stages=(Stage("static", 128, condition_scale=0.1), Stage("dynamic", 192, static_share=0.4)),
    model=ModelSettings(
        variant="image",
        unet={
            "block_out_channels": [64, 64],
            "down_block_types": ["DownBlock3D", "CrossAttnDownBlock3D"],
            "up_block_types": ["CrossAttnUpBlock3D", "UpBlock3D"],
            "layers_per_block": 1,
            "cross_attention_dim": 64,
            "attention_head_dim": 16,
            "norm_num_groups": 8,
            "camera_harmonics": 2,
            "camera_zero_init": False,
            "frame_index_embedding": True,
            "temporal_dropout": 0.0,
            "transformer_in_heads": 2,
            "latent_token_grid": 8,
            "first_view": "repeat",
        },
        autoencoder="unshuffle:4",
        schedule="image",
        prediction="sample",
        residual=0.25,
    ),
    data=DataSettings(
        resolution=32,
        frames=8,
        latents="memory",
        augment=("roll", "reverse"),
        static_condition=0.5,
        workers=0,
    ),
    loss=LossSettings(motion_weight=5.0, drop_caption=0.0, drop_motion=0.1, noise_bias=4.0),
    optim=OptimSettings(
        lr=3e-3, schedule="cosine", warmup=10, effective_batch=4, batch=4, ema=0.99, optimizer="muon"
    ),
    sample=SampleSettings(steps=2, spacing="trailing", w1=0.0, w2=0.0, w_motion=0.75),
    checkpoint_every=100,
    validate_every=50,
    validate_clips=4,
)
#: Wan's own negative prompt.
WAN_NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，"
    "丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，"
    "杂乱的背景，三条腿，背景人很多，倒着走"
)
#: Wan 2.1 T2V 1.3 B in diffusers' layout.
_WAN = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
SYNC_TINY = TrainConfig(
    preset="sync-tiny",
    stages=(Stage("single", 2500), Stage("views", 3000)),
    model=ModelSettings(
        base="wan",
        variant="text",
        wan={
            "patch_size": [1, 1, 1],
            "num_attention_heads": 4,
            "attention_head_dim": 16,
            "num_layers": 4,
            "ffn_dim": 192,
            "freq_dim": 64,
            "text_dim": 16,
            "view_blocks": [0, 2],
        },
        autoencoder="unshuffle:4",
    ),
    data=DataSettings(
        resolution=32, frames=4, latents="memory", augment=("channels", "reverse", "mirror"), workers=0
    ),
    views=ViewSettings(count=2, multi=1.0, images=0.0, single=0.0, curriculum=0.2, shift=3.0, motion=True),
    loss=LossSettings(motion_weight=0.0, drop_caption=0.0, drop_motion=0.1),
    optim=OptimSettings(
        lr=3e-3, schedule="cosine", warmup=50, weight_decay=0.01, effective_batch=12, batch=12, ema=0.0
    ),
    sample=SampleSettings(steps=12),
    checkpoint_every=500,
    validate_every=500,
    validate_clips=32,
)
SYNC_WAN = TrainConfig(
    preset="sync-wan",
    stages=(Stage("views", 20000),),
    model=ModelSettings(base="wan", variant="text", init=_WAN, autoencoder=_WAN, text_encoder=_WAN),
    data=DataSettings(resolution=480, frames=81, fps=15.0, background="white"),
    views=ViewSettings(count=2, width=832, motion=True),
    loss=LossSettings(motion_weight=0.0, drop_caption=0.0, drop_motion=0.1),
    optim=OptimSettings(
        lr=1e-4,
        weight_decay=0.01,
        effective_batch=8,
        batch=1,
        ema=0.9999,
        precision="bf16",
        checkpointing=True,
    ),
    validate_clips=4,
)
SYNC_ORBIT = replace(
    SYNC_WAN,
    preset="sync-orbit",
    model=replace(VIDEOMV_TEXT.model, base="unet"),
    data=replace(VIDEOMV_TEXT.data, resolution=256, frames=24),
    views=ViewSettings(count=4, motion=True),
    optim=replace(SYNC_WAN.optim, effective_batch=32),
)
WAN_ORBIT = TrainConfig(
    preset="wan-orbit",
    stages=(Stage("dynamic", 6000),),
    model=ModelSettings(base="wan", variant="image", init=_WAN, autoencoder=_WAN, text_encoder=_WAN),
    data=DataSettings(resolution=480, frames=24, static_condition=0.3, negative_prompt=WAN_NEGATIVE),
    loss=LossSettings(drop_caption=0.1, drop_motion=0.1, drop_image=0.1),
    optim=OptimSettings(
        lr=3e-5,
        weight_decay=0.01,
        effective_batch=64,
        batch=1,
        ema=0.9999,
        precision="bf16",
        checkpointing=True,
    ),
    sample=SampleSettings(steps=50, precision="bf16"),
)
TINY_TEXT = replace(
    TINY,
    preset="tiny-text",
    model=replace(
        TINY.model,
        variant="text",
        text_encoder="minilm",
        residual=0.0,
        unet={**TINY.model.unet, "cross_attention_dim": 384},
    ),
    data=replace(TINY.data, static_condition=0.0),
    loss=replace(TINY.loss, drop_caption=0.1),
)
PRESETS = MappingProxyType(
    {
        c.preset: c
        for c in (
            TINY,
            TINY_TEXT,
            VIDEOMV_TEXT,
            VIDEOMV_IMAGE,
            VIDEOMV_STATIC3D,
            SYNC_TINY,
            SYNC_ORBIT,
            SYNC_WAN,
            WAN_ORBIT,
        )
    }
)


def preset(name: str) -> TrainConfig:
    """The configuration of that name; an unknown name is an InputError that lists them."""
    if name not in PRESETS:
        raise InputError(f"--preset {name}: known presets are {', '.join(PRESETS)}")
    return PRESETS[name]
