"""Networks from settings."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from orbit4d.datasets.core.atomic import replacing_folder
from orbit4d.datasets.core.errors import InputError
from orbit4d.model.config.settings import TrainConfig
from orbit4d.model.network.unet import OrbitUNet
from orbit4d.model.network.view_places import add_view_sync
from orbit4d.model.network.wan import OrbitWan

#: What LoRA adapts: every attention projection of the diffusers blocks.
_LORA_TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
#: Beside the adapters, what is new in a network is trained whole: of an OrbitUNet two, of a Wan base three.
TRAINED_WHOLE = ("camera_embedding", "motion_embedding", "orbit_cameras", "condition_embedding")

#: What a network may be and become: the static3d variant starts from the weights of an image network.
_GROWS = ("image", "static3d")


def build_unet(config: TrainConfig, latent_channels: int, allow_missing: bool = False) -> OrbitUNet:
    """The network to train, in float32: from `model.init`, or with random weights drawn from the seed.

    `model.init` is a VideoMV file (.pth, .pt, .ckpt, .bin), a RUN or pipeline folder, or a folder that
    `OrbitUNet.save_pretrained` wrote. An image network that is to become a static3d one is still as it was
    loaded: so it is the frozen base, until `make_trainable`.
    """
    torch.manual_seed(config.seed)
    if config.model.residual and config.model.prediction != "sample":
        raise InputError("model.residual is for model.prediction=sample: set one of them otherwise")
    model, init = config.model, config.model.init
    if not init:
        channels = {"in_channels": latent_channels, "out_channels": latent_channels}
        unet = OrbitUNet(variant=model.variant, **(channels | dict(model.unet)))
    elif Path(init).is_dir():
        unet = OrbitUNet.from_pretrained(_unet_folder(Path(init)), torch_dtype=torch.float32)
    elif Path(init).is_file():
        from orbit4d.model.network.videomv import load_videomv

        base = "text" if model.variant == "text" else "image"
        unet = load_videomv(init, variant=base, allow_missing=allow_missing, **model.unet)
    else:
        raise InputError(f"--init {init}: no such file or folder")
    if model.residual and not init:
        # The first estimate is then exactly what is seen.
        torch.nn.init.zeros_(unet.unet.conv_out.weight)
        torch.nn.init.zeros_(unet.unet.conv_out.bias)
    if unet.config.variant != model.variant and (unet.config.variant, model.variant) != _GROWS:
        raise InputError(
            f"--init {init}: holds a {unet.config.variant} network, the preset trains {model.variant}"
        )
    if unet.config.in_channels != latent_channels:
        raise InputError(
            f"the network takes {unet.config.in_channels} latent channels, the autoencoder "
            f"{config.model.autoencoder} gives {latent_channels}: change model.autoencoder or model.unet"
        )
    return unet


def build_views(
    config: TrainConfig, latent_channels: int, allow_missing: bool = False
) -> OrbitUNet | OrbitWan:
    """The network of a run on synchronised views, in float32, with a view module.

    On a Wan base `model.init` is a Wan folder, hub name or file, SynCamMaster's checkpoint, or a RUN; empty:
    random weights. On an OrbitUNet as in `build_unet`. InputError where it does not fit.
    """
    torch.manual_seed(config.seed)
    names = {stage.name for stage in config.stages}
    if config.model.base == "unet":
        unet = build_unet(config, latent_channels, allow_missing)
        if not config.model.init:
            raise InputError("sync-orbit: its base is trained; give --init, a VideoMV .pth or a RUN")
        return unet if unet.view_places is not None else cast(OrbitUNet, add_view_sync(unet))
    given = dict(config.model.wan)
    blocks = given.pop("view_blocks", "all")
    if not config.model.init:
        if "single" not in names:
            raise InputError(
                "model.init: the base of a view module is trained; give --init, or a stage single"
            )
        channels = {"in_channels": latent_channels, "out_channels": latent_channels}
        net = OrbitWan(**(channels | given), view_blocks=tuple(blocks) if blocks != "all" else "all")
        return net.add_motion() if config.views.motion else net
    from orbit4d.model.network.syncammaster import load_syncammaster

    net = load_syncammaster(run_network(config.model.init), view_blocks=())
    if not len(net.view_sync):
        net.add_views(blocks)
    if net.config.in_channels != latent_channels:
        raise InputError(
            f"the network takes {net.config.in_channels} latent channels, the autoencoder "
            f"{config.model.autoencoder} gives {latent_channels}: change model.autoencoder"
        )
    return net.add_motion() if config.views.motion else net


def run_network(init: str) -> str:
    """The folder of a finished run's network; any other place as it is."""
    inside = Path(init) / "model" / "network"
    return str(inside) if inside.is_dir() else init


def train_only(network: OrbitUNet | OrbitWan, stage: str, keep: bool) -> None:
    """Set what a stage trains: "single" the base, "views" the view module (on a Wan base with the part for
    motion; an OrbitUNet's is its base's). `keep`: checkpoints hold the base too, which an earlier stage of
    the run has trained."""
    views = network.view_sync if isinstance(network, OrbitWan) else network.view_places
    network.requires_grad_(stage == "single")
    if views is not None:
        views.requires_grad_(stage == "views")
    if isinstance(network, OrbitWan) and network.motion_embedding is not None:
        network.motion_embedding.requires_grad_(stage == "views")
    network.kept_names = {name for name, _ in network.named_parameters()} if keep else set()  # type: ignore[assignment]


def make_trainable(unet: Any, config: TrainConfig) -> Any:
    """Switch on the variant, gradient checkpointing and LoRA adapters as the settings say, in place."""
    if (unet.config.variant, config.model.variant) == _GROWS:
        unet.to_static3d()
    if config.optim.checkpointing:
        unet.enable_gradient_checkpointing()
        if isinstance(unet, OrbitUNet):
            unet.recompute = config.optim.recompute
    if config.optim.lora:
        _add_lora(unet, config.optim.lora)
    if config.optim.compile:
        unet.compile_blocks()
    return unet.train()


def _unet_folder(folder: Path) -> Path:
    for candidate in (folder / "model" / "unet", folder / "unet", folder):
        if (candidate / "config.json").is_file() and "OrbitUNet" in (candidate / "config.json").read_text(
            encoding="utf-8"
        ):
            return candidate
    raise InputError(
        f"--init {folder}: holds no OrbitUNet; give a RUN that has finished, or its model folder"
    )


def _add_lora(unet: Any, rank: int) -> None:
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise InputError("optim.lora needs peft: pip install 'orbit4d[lora]'") from error
    unet.requires_grad_(False)
    unet.add_adapter(
        LoraConfig(r=rank, lora_alpha=rank, init_lora_weights=True, target_modules=_LORA_TARGETS)
    )
    # The new parts have no weights worth freezing.
    for name in TRAINED_WHOLE:
        part = getattr(unet, name, None)
        if part is not None:
            part.requires_grad_(True)


def merge_lora(unet: OrbitUNet) -> OrbitUNet:
    """Fold adapters, if there are any, into the weights they adapt."""
    if getattr(unet, "peft_config", None):
        from peft.tuners.tuners_utils import BaseTunerLayer

        for module in unet.modules():
            if isinstance(module, BaseTunerLayer):
                module.merge()
        unet.unload_lora()
    return unet


def trainable_state(unet: torch.nn.Module) -> dict[str, Tensor]:
    """What training changes: parameters with a gradient, and buffers."""
    changing = {name for name, p in unet.named_parameters() if p.requires_grad}
    changing |= {name for name, _ in unet.named_buffers()}
    # What an earlier stage trained is frozen now and still this run's own.
    changing |= set(getattr(unet, "kept_names", ()))
    return {name: value.detach() for name, value in unet.state_dict().items() if name in changing}


def save_folder(unet: OrbitUNet, folder: Path) -> None:
    """`save_pretrained` into a folder that appears only when it is whole; adapters are folded in a copy."""
    if getattr(unet, "peft_config", None):
        unet = merge_lora(copy.deepcopy(unet))
    with replacing_folder(folder) as draft:
        unet.save_pretrained(draft)
