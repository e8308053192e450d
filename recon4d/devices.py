"""Where a scene is fitted and drawn: `auto`, `cpu`, `cuda` or `cuda:1`."""

from __future__ import annotations

import re
from importlib.util import find_spec

import torch

from orbit4d.datasets.core.errors import InputError

_GSPLAT = 'the package gsplat is not installed (pip install "orbit4d[gpu]")'


def choose_device(wanted: str = "auto") -> torch.device:
    """The device that `wanted` names. `auto` is the GPU where there is one and gsplat can draw on it.

    Raises InputError, one line, for a name that is none, and for a GPU that is not there or cannot draw.
    """
    named = re.fullmatch(r"cuda(?::(\d+))?", wanted)
    if wanted not in ("auto", "cpu") and named is None:
        raise InputError(f"--device {wanted}: choose auto, cpu, cuda or cuda:INDEX")
    if wanted == "cpu" or (wanted == "auto" and _missing() is not None):
        return torch.device("cpu")
    if (missing := _missing()) is not None:
        raise InputError(f"--device {wanted}: {missing}; leave it out or give cpu")
    index = int(named[1] or torch.cuda.current_device()) if named else torch.cuda.current_device()
    if index >= torch.cuda.device_count():
        raise InputError(f"--device {wanted}: there are {torch.cuda.device_count()} GPUs, numbered from 0")
    return torch.device("cuda", index)


def _missing() -> str | None:
    """What keeps this machine from drawing on a GPU, None when nothing does."""
    if not torch.cuda.is_available():
        return "PyTorch sees no CUDA GPU"
    return None if find_spec("gsplat") else _GSPLAT


def describe_device(device: torch.device, threads: int | None = None) -> str:
    """A line for the user: the GPU's name, or the CPU with its threads; why not the GPU that is there."""
    if device.type == "cuda":
        return f"device {device} ({torch.cuda.get_device_name(device)})"
    line = "device cpu" + (f", {threads} thread{'s' if threads != 1 else ''}" if threads else "")
    unused = torch.cuda.is_available() and not find_spec("gsplat")
    return f"{line} (the GPU is not used: {_GSPLAT})" if unused else line
