"""Files of a Wan network: one checkpoint, a folder of diffusers or of the Wan team, or a hub name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.weights.files import read_tensors
from orbit4d.model.weights.hub import HUB_NAME, hub_file

#: Where a pipeline's folder keeps its transformer; a finished run's keeps it below `model`.
_PLACES = ("", "transformer", "model/transformer")
_WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")
_WHAT = "Wan transformer"
#: What the Wan team's config.json calls the arguments of `WanTransformer3DModel`.
_RELEASED = {
    "num_heads": "num_attention_heads", "num_layers": "num_layers", "ffn_dim": "ffn_dim",
    "freq_dim": "freq_dim", "in_dim": "in_channels", "out_dim": "out_channels", "text_dim": "text_dim",
    "eps": "eps",
}  # fmt: skip
#: Arguments of `OrbitWan` that diffusers' class does not have.
_OWN = ("view_blocks", "view_index", "orbit_camera", "motion", "condition", "variant")


def read_weights(path: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors at a path or hub name, and what its config.json tells: arguments of the network, and
    under "own" those of `OrbitWan` or of a view module alone. InputError where there is none."""
    if Path(path).expanduser().is_file():
        return read_tensors(Path(path).expanduser())[0], {}
    folder = _folder(path)
    tensors: dict[str, Tensor] = {}
    for file in _weight_files(folder):
        tensors |= read_tensors(file)[0]
    return tensors, _told(folder / "config.json")


def read_settings(path: str) -> dict[str, Any]:
    """The second of `read_weights`, without reading weights."""
    return {} if Path(path).expanduser().is_file() else _told(_folder(path) / "config.json")


def _folder(path: str) -> Path:
    place = Path(path).expanduser()
    if not place.is_dir():
        if not HUB_NAME.fullmatch(path):
            raise InputError(f"{path}: no such file or folder, and no hub name (org/name) of a {_WHAT}")
        place = _download(path)
    for inside in _PLACES:
        folder = place / inside
        if (folder / "config.json").is_file() and _weight_files(folder):
            return folder
    raise InputError(
        f"{path}: holds no {_WHAT} (looked for config.json and .safetensors, here and below transformer/)"
    )


def _weight_files(folder: Path) -> list[Path]:
    index = next(iter(sorted(folder.glob("*.safetensors.index.json"))), None)
    if index is not None:
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{index}: is no index of weights ({error})") from error
        return [folder / name for name in names]
    return [folder / name for name in _WEIGHTS if (folder / name).is_file()][:1]


def _told(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: is no JSON ({error})") from error
    if not isinstance(record, Mapping):
        raise InputError(f"{file}: is no configuration of a {_WHAT}")
    if record.get("_class_name") == "WanModel":
        return {ours: record[name] for name, ours in _RELEASED.items() if name in record}
    if record.get("_class_name") == "ViewSync":
        return {"own": {name: record[name] for name in _OWN if name in record}}
    given = {name: value for name, value in record.items() if not name.startswith("_")}
    if record.get("_class_name") != "OrbitWan":
        return given
    own = {name: given.pop(name) for name in _OWN if name in given}
    return {**given, "own": own}


def _download(name: str) -> Path:
    """Folder of the hub's copy of a transformer: its configuration and its weights, nothing else."""
    repository, subfolder = "/".join(name.split("/")[:2]), "/".join(name.split("/")[2:])
    for inside in [subfolder] if subfolder else ["", "transformer"]:
        prefix = f"{inside}/" if inside else ""
        config = hub_file(repository, f"{prefix}config.json", _WHAT)
        if config is None:
            continue
        folder = Path(config).parent
        index = hub_file(repository, f"{prefix}{_WEIGHTS[0]}.index.json", _WHAT)
        wanted = [Path(file).name for file in _weight_files(folder)] if index else list(_WEIGHTS[:1])
        if all(hub_file(repository, f"{prefix}{file}", _WHAT) for file in wanted):
            return folder
    raise InputError(f"{name}: the hub has it, but it holds no {_WHAT}; name the subfolder")
