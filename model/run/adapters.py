"""LoRA adapters of a finished run as adapters, beside the model that they are folded into.

    RUN/lora/adapter_config.json, adapter_model.safetensors    peft's layout: the adapters, and the camera and
                                                               motion MLPs that were trained with them
    RUN/lora/pytorch_lora_weights.safetensors                  diffusers' layout: the adapters alone

Both are meant for the network that `--init` named. Keys are those of `OrbitUNet`, whose diffusers network is
its `unet`: so diffusers' prefix "unet" leads to that network, and no prefix to the whole.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from orbit4d.datasets.core.atomic import replacing_folder
from orbit4d.model.network.build import TRAINED_WHOLE


def save_adapters(unet: Any, folder: Path, base: str) -> None:
    """Write a network's adapters, before they are folded in; the folder appears when it is whole.

    `base` is what they were trained on, as `--init` named it.
    """
    from peft.utils import get_peft_model_state_dict

    adapters = get_peft_model_state_dict(unet, adapter_name="default")
    adapters = {key: value.detach().cpu().contiguous() for key, value in adapters.items()}
    settings = _plain(unet.peft_config["default"].to_dict())
    names = [name for name in TRAINED_WHOLE if getattr(unet, name, None) is not None]
    whole = {
        key: value.detach().cpu().contiguous()
        for key, value in unet.state_dict().items()
        if key.startswith(tuple(f"{name}." for name in names))
    }
    given = {"lora_adapter_metadata": json.dumps(settings, indent=2, sort_keys=True), "format": "pt"}
    peft_keys: dict[str, Tensor] = {f"base_model.model.{k}": v for k, v in (adapters | whole).items()}
    settings |= {"base_model_name_or_path": base, "modules_to_save": names}
    settings |= {"inference_mode": True, "peft_type": "LORA"}
    config = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    with replacing_folder(folder) as draft:
        save_file(adapters, draft / "pytorch_lora_weights.safetensors", metadata=given)
        save_file(peft_keys, draft / "adapter_model.safetensors", metadata={"format": "pt"})
        (draft / "adapter_config.json").write_text(config, encoding="utf-8")


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """peft's settings as JSON takes them."""
    return {
        key: sorted(value) if isinstance(value, set) else getattr(value, "value", value)
        for key, value in settings.items()
    }
