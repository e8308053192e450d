"""mypy is clean on all packages, and a user's file sees the types of the public names, as an editor does.

Both runs read one configuration, so the second finds in the checkout's cache what the first has parsed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

HEAD = """
import torch

from orbit4d.curate import make_rules
from orbit4d.datasets import OrbitDataset, OrbitLoader, import_diffusion4d, orbit, read_clip
from orbit4d.model import OrbitPipeline, load_videomv, videomv_cameras
from orbit4d.recon4d import load_scene, rasterize
from orbit4d.render import FleetSettings, preset, render_assets

cameras, data, t = orbit(24), OrbitDataset("d"), torch.zeros(1)
clip = read_clip("d", "u", "", "dynamic_orbit", 0)
"""
#: Expression -> what mypy says of it. numpy 2 spells arrays otherwise than numpy 1, hence the substrings.
REVEALED = {
    "orbit(24)": "list[orbit4d.datasets.cameras.camera.Camera]",
    "cameras[0].c2w": "numpy.floating[numpy._typing._64Bit]",
    "data[0]": "orbit4d.datasets.loader.samples.OrbitSample",
    "len(OrbitLoader(data, 2))": "int",
    "clip": "orbit4d.datasets.store.clip.Clip",
    "clip.pixels()": "numpy.unsignedinteger[numpy._typing._8Bit]",
    'import_diffusion4d("a", "b")': "orbit4d.datasets.layouts.importing.Imported",
    'preset("default")': "orbit4d.render.planning.settings.RenderSettings",
    'render_assets(["a"], "d", preset("default"), FleetSettings())': (
        "orbit4d.render.dataset.summary.RenderSummary"
    ),
    "make_rules()": "orbit4d.curate.rule_settings.Rules",
    'load_videomv("x")': "orbit4d.model.network.unet.OrbitUNet",
    "videomv_cameras(cameras)": "torch._tensor.Tensor",
    'OrbitPipeline.from_pretrained("x")': "orbit4d.model.sampling.pipeline.OrbitPipeline",
    'load_scene("s").render(cameras[0], 0.5)': "numpy.floating[numpy._typing._32Bit]",
    "rasterize(t, t, t, t, t, t, t, 8, 8)": "tuple[torch._tensor.Tensor, torch._tensor.Tensor, ",
}


def mypy(*files: Path) -> subprocess.CompletedProcess[str]:
    """mypy on files, or on all packages, as pyproject.toml configures it."""
    pytest.importorskip("mypy", reason="mypy is not installed (pip install 'orbit4d[dev]')")
    words = [sys.executable, "-m", "mypy", *files]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


def test_mypy_is_clean_on_all_packages() -> None:
    done = mypy()
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_users_file_sees_the_types(tmp_path: Path) -> None:
    lines = HEAD + "\n".join(f"reveal_type({expression})" for expression in REVEALED) + "\n"
    (tmp_path / "user.py").write_text(lines + "from orbit4d.datasets import Typo\n")
    done = mypy(tmp_path / "user.py")
    said = done.stdout + done.stderr
    revealed = re.findall(r'Revealed type is "(.*)"', said)
    assert len(revealed) == len(REVEALED), said
    for (expression, wanted), got in zip(REVEALED.items(), revealed, strict=True):
        assert wanted in got, f"{expression} is {got}"
    assert 'has no attribute "Typo"' in said, said
    assert said.count("error:") == 1, said
