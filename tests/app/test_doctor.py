"""What `orbit4d doctor` says of gsplat's kernels and of their compiler."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from orbit4d.app import doctor


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A card with gsplat's package and nothing else; the folder that stands for the machine."""
    package = tmp_path / "site" / "gsplat"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    found = SimpleNamespace(origin=str(package / "__init__.py"))
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found if name == "gsplat" else real(name))
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    return tmp_path


def tool(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)


def test_a_package_without_kernels_and_compiler_does_not_draw(machine: Path) -> None:
    works, why = doctor.gsplat_kernels()
    assert not works and "not built, and no nvcc" in why
    assert doctor.compiler() is None


def test_a_compiler_alone_needs_ninja_and_then_builds_at_first_use(machine: Path) -> None:
    tool(machine / "cuda" / "bin" / "nvcc")
    assert doctor.compiler() == str(machine / "cuda" / "bin" / "nvcc")
    works, why = doctor.gsplat_kernels()
    assert not works and "pip install ninja" in why
    tool(machine / "bin" / "ninja")
    works, why = doctor.gsplat_kernels()
    assert works and "first use" in why


@pytest.mark.parametrize("place", ["site/gsplat/csrc.so", "extensions/gsplat_cuda/gsplat_cuda.so"])
def test_built_kernels_need_no_compiler(machine: Path, place: str) -> None:
    (machine / place).parent.mkdir(parents=True, exist_ok=True)
    (machine / place).touch()
    works, why = doctor.gsplat_kernels()
    assert works and why.startswith("built")


def test_without_a_gpu_or_the_package_nothing_is_promised(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["torch"].cuda, "is_available", lambda: False)
    assert doctor.gsplat_kernels() == (False, "need a CUDA GPU")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert doctor.gsplat_kernels() == (False, "gsplat is not installed")
