"""A `WanOrbit` from settings."""

from __future__ import annotations

from pathlib import Path

import torch

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.config.settings import TrainConfig
from orbit4d.model.network.syncammaster import load_syncammaster
from orbit4d.model.network.wan import MASK_CHANNELS
from orbit4d.model.orbits.network import WanOrbit


def build_orbit(config: TrainConfig, latent_channels: int) -> WanOrbit:
    """The network to train, in float32: from `model.init` (a Wan folder, hub name or file, or a RUN of
    wan-orbit), or with random weights drawn from the seed. InputError where it does not fit."""
    torch.manual_seed(config.seed)
    model = config.model
    own = {"orbit_camera": True, "motion": True, "variant": model.variant}
    if not model.init:
        channels = {"in_channels": latent_channels, "out_channels": latent_channels}
        return WanOrbit(**(channels | dict(model.wan)), condition=model.variant != "text", **own)
    if model.wan:
        raise InputError("model.wan: the weights of --init tell their size; leave one of them out")
    folder = orbit_folder(model.init)
    net = _grown(config, own) if folder is None else WanOrbit.from_pretrained(folder)
    known = "text" if not _conditioned(net, latent_channels) else "image"
    if (known == "text") != (model.variant == "text"):
        raise InputError(f"--init {model.init}: holds a {known} network, the preset trains {model.variant}")
    if net.config.out_channels != latent_channels:
        raise InputError(
            f"the network makes {net.config.out_channels} latent channels, the autoencoder "
            f"{model.autoencoder} gives {latent_channels}: change model.autoencoder"
        )
    net.register_to_config(variant=model.variant)
    return net


def orbit_folder(place: str) -> Path | None:
    """The folder of a `WanOrbit` at a RUN, a model folder or a folder of its own; None: there is none."""
    for inside in ("model/unet", "unet", "."):
        file = Path(place) / inside / "config.json"
        if file.is_file() and is_orbit(file):
            return file.parent
    return None


def is_orbit(file: Path) -> bool:
    """Whether a config.json is that of a `WanOrbit`."""
    return '"WanOrbit"' in file.read_text(encoding="utf-8")


def _grown(config: TrainConfig, own: dict[str, object]) -> WanOrbit:
    """Plain Wan weights with parts for camera, motion and conditions, which add 0."""
    model = config.model
    plain = load_syncammaster(model.init, view_blocks=())
    if len(plain.view_sync):
        raise InputError(f"--init {model.init}: has a view module; give the Wan weights it stands on")
    if plain.config.image_dim:
        raise InputError(
            f"--init {model.init}: needs tokens of an image encoder, which an orbit has none of: give a text "
            "to video network, or an image to video one without them (Wan 2.2)"
        )
    grows = model.variant != "text" and plain.config.in_channels == plain.config.out_channels
    settings = {k: v for k, v in plain.config.items() if not k.startswith("_")}
    net = WanOrbit(**{**settings, "condition": grows, **own})
    state = {**net.state_dict(), **plain.state_dict()}
    net.load_state_dict(state, assign=True)
    return net.requires_grad_(True)


def _conditioned(net: WanOrbit, latent_channels: int) -> bool:
    """Whether it takes mask and latents of a condition, by a convolution of their own or in its first."""
    return (
        net.condition_embedding is not None or net.config.in_channels == 2 * latent_channels + MASK_CHANNELS
    )
