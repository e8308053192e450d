"""Pretrained parts by Hugging Face name or local folder, with one clear line when there is neither."""

from __future__ import annotations

import hashlib
import json
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.weights.files import listed

#: What may be given in place of a hub name that cannot be reached: the option of `encode` and `train`, and
#: the file of VideoMV's download that holds the same weights.
_INSTEAD = {
    "autoencoder": ("--vae", "VQGAN_autoencoder.pth"),
    "text encoder": ("--text-encoder", "open_clip_pytorch_model.bin"),
    "image encoder": ("--image-encoder", "open_clip_pytorch_model.bin"),
}
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(/[\w.-]+)*")


def load_pretrained(cls: Any, spec: str, subfolders: Iterable[str], what: str, **kwargs: Any) -> Any:
    """`cls.from_pretrained` on a local folder or a hub name.

    spec: a folder, `org/name`, or `org/name/subfolder`. Its own `config.json` is taken, else that of the
    first of `subfolders` which has one, as in diffusers' pipeline folders.
    what: what is looked for, for the error ("autoencoder").
    Raises InputError: no such thing here or on the hub, hub out of reach, files damaged.
    """
    folder = Path(spec).expanduser()
    if folder.is_dir():
        for candidate in (folder, *(folder / name for name in subfolders)):
            if (candidate / "config.json").is_file():
                return _guarded(cls, str(candidate), what, **kwargs)
        places = ", ".join(f"{name}/config.json" for name in ("", *subfolders)).replace(
            "/config", "config", 1
        )
        raise InputError(f"{spec}: holds no {what} (looked for {places})")
    if not HUB_NAME.fullmatch(spec):
        raise InputError(f"{spec}: no such file or folder, and no hub name (org/name) of the {what}")
    name, subfolder = "/".join(spec.split("/")[:2]), "/".join(spec.split("/")[2:])
    for inside in [subfolder] if subfolder else ["", *subfolders]:
        if _on_hub(name, f"{inside}/config.json".lstrip("/"), what):
            return _guarded(cls, name, what, subfolder=inside, **kwargs)
    raise InputError(f"{spec}: the hub has it, but it holds no {what}; name the subfolder, as in {name}/vae")


def hub_file(name: str, filename: str, what: str) -> str | None:
    """Local path of one file of a hub repository (downloaded or cached), None when it has no such file."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return hf_hub_download(name, filename, local_files_only=_offline())
    except LocalEntryNotFoundError as error:
        raise _unreachable(name, what, error) from error
    except EntryNotFoundError:
        return None
    except Exception as error:
        # The client's own errors, its HTTP library's and the socket's all mean the same to the reader.
        raise _unreachable(name, what, error) from error


def _on_hub(name: str, filename: str, what: str) -> bool:
    return hub_file(name, filename, what) is not None


def _offline() -> bool:
    """Whether the hub's name does not even resolve: its client would retry for 20 s and log each try."""
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).hostname or ""
    if constants.HF_HUB_OFFLINE or getproxies().get("https"):
        return bool(constants.HF_HUB_OFFLINE)
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return True
    return False


def _guarded(cls: Any, source: str, what: str, **kwargs: Any) -> Any:
    from transformers.utils import logging

    local = Path(source).is_dir() or _offline()
    # transformers prints a bar and a table of keys for every load; what matters of it is said below.
    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity(logging.CRITICAL)
    try:
        # Gaps and misfits are let through here and refused below: the libraries warn, and go on with random
        # weights, or point to a table that is not shown.
        how = {"local_files_only": local, "output_loading_info": True, "ignore_mismatched_sizes": True}
        module, info = cls.from_pretrained(source, **how, **kwargs)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{source}: cannot be read as the {what}: {reason}") from error
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()
    missing = [str(key) for key in info["missing_keys"]]
    misfit = [str(key if isinstance(key, str) else key[0]) for key in info["mismatched_keys"]]
    if missing or misfit:
        raise InputError(
            f"{source}: is no {what}: {len(missing)} of its tensors are missing and {len(misfit)} of another "
            f"shape: {listed(missing + misfit, 2)}"
        )
    return module


def _unreachable(name: str, what: str, error: Exception) -> InputError:
    option, file = _INSTEAD.get(what, ("", ""))
    instead = f"{option} FOLDER of a download, or {option} {file}" if option else "the folder of a download"
    return InputError(
        f"{name}: no such folder here, and the Hugging Face hub gave no {what} of that name "
        f"({type(error).__name__}); check the name and the network, or give {instead}"
    )


def content_hash(kind: str, config: Mapping[str, Any], module: torch.nn.Module | None = None) -> str:
    """16 hex digits that change with the kind, the settings and any weight: the key of cached encodings."""
    digest = hashlib.sha256(json.dumps([kind, dict(config)], sort_keys=True, default=str).encode())
    for name, value in sorted(module.state_dict().items()) if module is not None else ():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
