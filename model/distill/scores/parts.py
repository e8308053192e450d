"""Parts of a published pipeline, read one by one: no custom pipeline class, no remote code.

`model_index.json` of some repositories names a class that only their own code has; the parts are plain
diffusers and transformers networks all the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.distill.score_model import Kind
from orbit4d.model.weights.hub import hub_file, load_pretrained

#: A folder of our own making says in its index what its weights are; published ones do not.
KIND_KEY = "_weights"
INDEX = "model_index.json"


def check_folder(spec: str, parts: tuple[str, ...]) -> None:
    """InputError for a local folder that is no pipeline or lacks one of `parts` (names of subfolders)."""
    folder = Path(spec).expanduser()
    if not folder.is_dir():
        return
    if not (folder / INDEX).is_file():
        raise InputError(f"{spec}: holds no {INDEX}: give the folder of a diffusers pipeline")
    missing = [name for name in parts if not (folder / name).is_dir()]
    if missing:
        raise InputError(f"{spec}: a pipeline without {', '.join(missing)}: download the whole repository")


def kind_of(spec: str) -> Kind:
    """Where the weights of a pipeline come from: "pretrained" unless its index says otherwise."""
    index = Path(spec).expanduser() / INDEX
    if not index.is_file():
        return "pretrained"
    try:
        said = json.loads(index.read_text(encoding="utf-8")).get(KIND_KEY, "pretrained")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{index}: not readable as JSON ({error})") from error
    if said not in ("pretrained", "trained-here", "random"):
        raise InputError(f"{index}: {KIND_KEY} {said!r} is none of pretrained, trained-here, random")
    return said  # type: ignore[no-any-return]


def part_file(spec: str, name: str, what: str) -> Path:
    """Local path of one file of a pipeline folder or hub repository.

    Raises:
        InputError: the repository has no such file, or the hub is out of reach.
    """
    folder = Path(spec).expanduser()
    if folder.is_dir():
        if not (folder / name).is_file():
            raise InputError(f"{spec}: holds no {what} ({name})")
        return folder / name
    found = hub_file(spec, name, what)
    if found is None:
        raise InputError(f"{spec}: the hub has it, but it holds no {what} ({name})")
    return Path(found)


def load_part(cls: Any, spec: str, subfolder: str, what: str) -> Any:
    """One network of a pipeline, frozen and in evaluation mode, in the precision of its file.

    A repository that holds 16-bit files alone names them `*.fp16.*`: they are taken where the plain ones are
    missing.

    Raises:
        InputError: no such part, tensors missing or of another shape, or the hub is out of reach.
    """
    try:
        module = load_pretrained(cls, _inside(spec, subfolder), (), what)
    except InputError:
        if not _half_only(spec, subfolder):
            raise
        module = load_pretrained(cls, _inside(spec, subfolder), (), what, variant="fp16")
    return module.eval().requires_grad_(False)


def _inside(spec: str, subfolder: str) -> str:
    folder = Path(spec).expanduser()
    return str(folder / subfolder) if folder.is_dir() else f"{spec}/{subfolder}".rstrip("/")


def _half_only(spec: str, subfolder: str) -> bool:
    folder = Path(spec).expanduser() / subfolder
    if folder.is_dir():
        weights = [path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".bin")]
        return bool(weights) and all(".fp16." in name for name in weights)
    names = ("diffusion_pytorch_model.fp16.safetensors", "model.fp16.safetensors")
    return any(hub_file(spec, f"{subfolder}/{name}", "half-precision weights") for name in names)
