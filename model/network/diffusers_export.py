"""The diffusers network inside an `OrbitUNet`, as a folder for programs that know diffusers alone.

    export_diffusers(OrbitUNet.from_pretrained("RUN/model/unet"), "plain")
    I2VGenXLUNet.from_pretrained("plain")

It draws what ours draws when it is given neither cameras nor motion, which plain diffusers has no input for.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from orbit4d.datasets.core.atomic import replacing_folder
from orbit4d.datasets.core.errors import InputError
from orbit4d.model.network.unet import OrbitUNet

#: What stands beside the diffusers network.
OWN_PREFIXES = ("camera_embedding.", "motion_embedding.", "frame_embedding.")


def export_diffusers(unet: OrbitUNet, folder: str | os.PathLike[str]) -> tuple[str, ...]:
    """Write the UNet3DConditionModel (text) or I2VGenXLUNet (image, static3d) of a network by diffusers'
    `save_pretrained`; the folder appears when it is whole.

    Returns the names of what the folder therefore lacks: camera, motion and frame-index MLPs. InputError for
    a network that diffusers' class cannot hold or would read otherwise, as the small presets' are.
    """
    inner = unet.unet
    kind = type(inner).__name__
    if unet.is_image and unet.config.first_view != "ramp":
        raise InputError(
            f"model.unet.first_view={unet.config.first_view}: diffusers' {kind} shows a first view as ramp "
            "alone; train with first_view=ramp for plain diffusers"
        )
    with torch.device("meta"):
        plain = type(inner).from_config(inner.config)
    ours, theirs = ({k: tuple(v.shape) for k, v in net.state_dict().items()} for net in (inner, plain))
    if ours != theirs:
        key = sorted(k for k in {*ours, *theirs} if ours.get(k) != theirs.get(k))[0]
        raise InputError(
            f"diffusers' {kind} has no place for this network ({key} is {ours.get(key)}, there "
            f"{theirs.get(key)}): it needs 4 latent channels, transformer_in_heads=8 and latent_token_grid=8"
        )
    target = Path(folder)
    try:
        with replacing_folder(target) as draft:
            inner.save_pretrained(draft)
    except OSError as error:
        raise InputError(f"{folder}: cannot write there ({error.strerror}): give another folder") from error
    return tuple(key for key in unet.state_dict() if key.startswith(OWN_PREFIXES))
