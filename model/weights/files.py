"""Reading untrusted weight files: tensors only, never code, and one line when a file is something else."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from orbit4d.datasets.core.errors import InputError

#: How the files that lie beside a VideoMV UNet are recognised: the start of one of their keys, and the kind.
KNOWN_KINDS = (
    ("input_blocks.", "a VideoMV / VGen UNet"),
    ("down_blocks.", "a diffusers UNet"),
    ("unet.down_blocks.", "an OrbitUNet"),
    ("text_model.", "a transformers CLIP"),
    ("vision_model.", "a transformers CLIP"),
    ("visual.", "an OpenCLIP model"),
    ("transformer.resblocks.", "an OpenCLIP model"),
    ("encoder.", "an autoencoder (VAE)"),
    ("decoder.", "an autoencoder (VAE)"),
    ("lgm_big.", "a reconstruction net (LGM)"),
)


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], int]:
    """All tensors of a `.pth`, `.bin`, `.ckpt` or `.safetensors` file, on the CPU, and its training step.

    Takes a bare dict of tensors, or one under "state_dict" as VideoMV saves it (with "step"; 0 when unknown).
    Nothing but tensors and plain containers is unpickled, so a file cannot run code. Raises InputError.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file; give the path of the downloaded checkpoint")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the checkpoint file in it")
    content = _load(path)
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected a dict of tensors")
    step = content.get("step", 0)
    tensors = content["state_dict"] if isinstance(content.get("state_dict"), Mapping) else content
    others = [key for key, value in tensors.items() if not isinstance(value, Tensor)]
    if tensors is content:
        # A bare dict may carry its counters beside the weights.
        others = [key for key in others if not isinstance(tensors[key], int | float)]
    if others or not tensors:
        what = f"{others[0]!r} is no tensor" if others else "it is empty"
        raise InputError(f"{path}: expected a dict of tensors, bare or under 'state_dict', but {what}")
    found = {str(key): value for key, value in tensors.items() if isinstance(value, Tensor)}
    return found, int(step) if isinstance(step, int | float) else 0


def _load(path: Path) -> object:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: is not a readable safetensors file ({error})") from error
    try:
        with path.open("rb") as file:
            # Only PyTorch's zip format can be mapped; mapping keeps a 5 GiB file out of memory.
            mappable = file.read(4) == b"PK\x03\x04"
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mappable or None)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):  # the file names a class or function to call
            raise InputError(
                f"{path}: holds Python objects beside tensors and is not loaded, since that would run their "
                "code; save its state_dict alone"
            ) from error
        raise InputError(f"{path}: is not a PyTorch checkpoint, or cut short; download it again") from error
    except (RuntimeError, EOFError, KeyError, ValueError, OSError, AttributeError) as error:
        raise InputError(f"{path}: is not a PyTorch checkpoint, or cut short; download it again") from error


def describe_keys(keys: Iterable[str]) -> str:
    """What kind of file these keys come from, in words: "an OpenCLIP model"."""
    keys = list(keys)
    for prefix, kind in KNOWN_KINDS:
        if any(key.startswith(prefix) for key in keys):
            return kind
    return f"something unknown (first key {keys[0]!r})" if keys else "nothing"


def listed(names: Iterable[str], most: int = 8) -> str:
    """The first few names, and how many there are besides."""
    names = sorted(names)
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
