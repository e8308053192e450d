"""Settings of a run from a YAML (or JSON) file: `--config FILE`.

    preset: videomv-image
    steps: 8000
    optim:
      lr: 1e-4
    data.where: motion_magnitude > 0.001

Keys are those of `--set`, nested or dotted, besides `preset` and `steps`; RUN/config.json is such a file.
What is not named keeps the preset's value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Mapping
from typing import Any

import yaml

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.storage import Store


class _Loader(yaml.SafeLoader):
    """YAML 1.2's scalars, where 1e-4 is a number and `no` is a word; and a key given twice is an error."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"{twice} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|false|True|False)$"), list("tfTF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:null", re.compile(r"^(~|null|Null|NULL|)$"), ["~", "n", "N", ""]
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?\d+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?$|^[-+]?\.(inf|nan)$"),
    list("-+.0123456789"),
)
# YAML 1.1 would read 010 as eight.
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))


def read_settings(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Dotted key to value; `model.unet` is taken apart as well. `path` may be a URI.

    InputError for a file that is not there, is no YAML, or is no mapping of names.
    """
    if os.path.isdir(path):
        raise InputError(f"--config {path}: no such file; it is a folder")
    folder, _, name = os.fspath(path).rpartition("/")
    try:
        text = (
            Store(folder or ("/" if os.fspath(path).startswith("/") else ".")).read(name).decode("utf-8-sig")
        )
        values = yaml.load(text, _Loader)
    except FileNotFoundError as error:
        raise InputError(f"--config {path}: no such file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark is not None else ""
        what = getattr(error, "problem", None) or "no text"
        raise InputError(f"--config {path}:{where} is no YAML ({what})") from error
    if not isinstance(values, Mapping):
        raise InputError(f"--config {path}: holds no settings; write them as `optim: {{lr: 1e-4}}`")
    flat: dict[str, Any] = {}
    _flatten(values, "", flat, f"--config {path}")
    return flat


def _flatten(values: Mapping[Any, Any], prefix: str, flat: dict[str, Any], where: str) -> None:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            _flatten(value, f"{name}.", flat, where)
        elif name in flat:
            raise InputError(f"{where}: {name} is given twice")
        else:
            flat[name] = value
