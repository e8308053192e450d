"""Sampling with half-precision weights in recorded passes, on a stand-in for a device."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from orbit4d.model import OrbitPipeline
from orbit4d.model.sampling import branches as module
from orbit4d.model.sampling import working
from orbit4d.model.training.train import train

path = Path(__file__).parents[1] / "compute" / "recorded.py"
spec = importlib.util.spec_from_file_location("orbit4d_recorded_passes", path)
assert spec is not None and spec.loader is not None
recorded = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(recorded)


@pytest.fixture(scope="module")
def run(tmp_path_factory, synthetic_dataset, micro_config):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("working") / "run"
    train(micro_config("optim.lr=0.01", "sample.w2=0.5"), str(synthetic_dataset), folder)
    return folder


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)


def draw(pipeline, picture, **kwargs):
    how = {"num_inference_steps": 5, "output_type": "latent", "motion": 0.01, "w1": 1.0, "w2": 0.5}
    return pipeline(image=picture, generator=torch.Generator().manual_seed(0), **(how | kwargs)).frames


def test_fp16_is_the_default_of_a_gpu_and_float32_of_a_cpu():
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    kinds = {"auto": torch.float16, "fp16": torch.float16, "bf16": torch.bfloat16, "no": None}
    assert {name: working.sampling_dtype(name, cuda) for name in kinds} == kinds
    assert all(working.sampling_dtype(name, cpu) is None for name in kinds)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.01), (torch.bfloat16, 0.06)])
def test_copies_sample_near_the_pipelines_own_weights_which_stay(run, picture, monkeypatch, dtype, tolerance):
    """Plain and recorded passes: the same bits; both networks are copied once."""
    pipeline = OrbitPipeline.of_folder(run)
    exact, before = draw(pipeline, picture), pipeline.unet.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    monkeypatch.setattr(module, "sampling_dtype", lambda *_: dtype)
    plain = draw(pipeline, picture)
    copy = pipeline._working.of("unet", pipeline.unet, dtype)
    assert draw(pipeline, picture) is not None and pipeline._working.of("unet", pipeline.unet, dtype) is copy
    assert plain.dtype == torch.float32 and not torch.equal(plain, exact)
    assert (plain - exact).norm() < tolerance * exact.norm()
    assert all(torch.equal(value, before[name]) for name, value in pipeline.unet.state_dict().items())
    pipeline._working = working.WorkingNetworks()
    recorders = []

    def recorder_of(device):
        recorders.append(recorded.TapeRecorder())
        return recorders[-1]

    monkeypatch.setattr(working, "recorder_of", recorder_of)
    assert torch.equal(draw(pipeline, picture), plain)
    assert [(r.warmed, r.recorded, r.replayed) for r in recorders] == [(1, 1, 4)] * 2, "unet and base"


def test_weights_that_change_are_copied_anew(run, picture, monkeypatch):
    pipeline = OrbitPipeline.of_folder(run)
    monkeypatch.setattr(module, "sampling_dtype", lambda *_: torch.bfloat16)
    first = draw(pipeline, picture)
    with torch.no_grad():
        pipeline.unet.unet.conv_out.bias.add_(1.0)
    assert not torch.allclose(draw(pipeline, picture), first, atol=0.1)


def test_what_overflows_is_told_once_and_sampled_otherwise(run, picture, monkeypatch, capsys):
    pipeline = OrbitPipeline.of_folder(run)
    exact = draw(pipeline, picture)
    monkeypatch.setattr(module, "sampling_dtype", lambda *_: torch.float16)
    real = working.Working.forward

    def overflowing(self, sample, **conditions):
        out = real(self, sample, **conditions)
        out.sample = out.sample * float("inf")
        return out

    monkeypatch.setattr(working.Working, "forward", overflowing)
    found = draw(pipeline, picture)
    assert torch.allclose(found, exact, atol=1e-5), "a CPU continues in float32, without autocast"
    assert capsys.readouterr().out.count("note: fp16 overflows") == 1


def test_a_network_that_is_only_sampled_from_gives_up_its_float32_weights(run):
    pipeline = OrbitPipeline.of_folder(run)
    mean = pipeline.unet.motion_mean.clone()
    working.cast(pipeline.unet, torch.float16)
    assert {p.dtype for p in pipeline.unet.parameters()} == {torch.float16}
    assert torch.equal(pipeline.unet.motion_mean, mean) and mean.dtype == torch.float32
    assert working.Working(pipeline.unet, torch.float16).network is pipeline.unet, "no second copy"
