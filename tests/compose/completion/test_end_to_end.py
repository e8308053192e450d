"""A run trained here, guided by a warp of the first view: nearer to the rendered orbit than unguided."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from orbit4d.compose.cli.novel_view import command
from orbit4d.datasets import psnr, read_clip
from orbit4d.datasets.images.folders import read_images
from orbit4d.model import preset
from orbit4d.model.config.settings import override
from orbit4d.model.training.train import train

UNET = {
    "block_out_channels": [8, 16],
    "down_block_types": ["CrossAttnDownBlock3D", "DownBlock3D"],
    "up_block_types": ["UpBlock3D", "CrossAttnUpBlock3D"],
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "attention_head_dim": 4,
    "norm_num_groups": 4,
    "camera_harmonics": 1,
    "camera_zero_init": False,
    "latent_token_grid": 1,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory, depth_dataset):
    """A few steps of a small network: it knows the shape of frames and little more."""
    folder = tmp_path_factory.mktemp("run") / "run"
    stages = [{"name": "static", "steps": 2}]
    settings = [
        f"model.unet={json.dumps(UNET)}",
        f"stages={json.dumps(stages)}",
        "model.autoencoder=unshuffle:4",
        "data.resolution=32",
        "data.frames=4",
        "optim.effective_batch=2",
        "optim.batch=2",
        "sample.steps=3",
    ]
    train(override(preset("tiny"), settings), str(depth_dataset), folder)
    return folder


def test_guided_by_a_warp_it_is_nearer_to_the_rendered_orbit(run, depth_dataset, tmp_path):
    clip = read_clip(depth_dataset, "ball", rig="static_orbit")
    rgba = clip.pixels().astype(np.float32) / 255
    truth = (rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]).reshape(4, 32, 2, 32, 2, 3).mean((2, 4))
    found = {}
    for name, how in {
        "none": ("--mode", "none"),
        "infinite": ("--schedule", "infinite"),
        "default": (),
    }.items():
        out = tmp_path / f"{name}.mp4"
        arguments = (f"{depth_dataset}:ball", "--model", str(run), "--out", str(out), *how)
        result = CliRunner().invoke(command, arguments)
        assert result.exit_code == 0, (result.output, result.exception)
        frames = read_images(tmp_path / name / "frames")[..., :3].astype(np.float32) / 255
        report = json.loads((tmp_path / f"{name}.json").read_text())
        assert report["prior"] == "trained here" and report["kind"] == "orbit4d"
        found[name] = (psnr(frames[0], truth[0]), float(np.mean([psnr(a, b) for a, b in zip(frames, truth)])))
    # The given view is kept, but for the noise that VideoMV's last level leaves; so all frames gain by it.
    assert found["infinite"][0] > found["none"][0] + 3
    assert found["infinite"][1] > found["none"][1]
    # The default rule of a run searches v for the run's own levels, and helps too.
    report = json.loads((tmp_path / "default.json").read_text())
    assert (report["schedule"], report["v_from"]) == ("closed", "searched")
    assert found["default"][1] > found["none"][1]
