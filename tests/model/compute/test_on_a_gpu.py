"""What only a GPU shows: recorded steps, half weights of both kinds, determinism, sampling, memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from orbit4d.datasets.core.errors import WorkError
from orbit4d.model import OrbitPipeline
from orbit4d.model.config.settings import override
from orbit4d.model.run.log import read
from orbit4d.model.training.memory import GIB, estimate
from orbit4d.model.training.train import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
TWENTY = ["steps=20", "optim.batch=1", "checkpoint_every=10", "validate_every=1000"]


def losses(run: Any) -> list[float]:
    return [row["loss"] for row in read(run / "log.jsonl")]


@pytest.fixture(scope="module")
def plain(tmp_path_factory, synthetic_dataset, micro_config):
    """Twenty steps in float32, launched kernel by kernel."""
    run = tmp_path_factory.mktemp("gpu") / "plain"
    train(micro_config(*TWENTY, "optim.graphs=off"), str(synthetic_dataset), run)
    return run


@pytest.mark.parametrize(
    "how",
    [
        ["optim.graphs=on"],
        ["optim.graphs=on", "optim.checkpointing=true", "optim.recompute=attention"],
        ["optim.graphs=on", "optim.tf32=true"],
        ["optim.graphs=on", "optim.precision=bf16"],
        ["optim.graphs=on", "optim.precision=fp16"],
        ["optim.graphs=off", "optim.precision=bf16", "optim.weights=float32"],
        ["optim.graphs=off", "optim.precision=fp16", "optim.weights=float32"],
    ],
)
def test_every_way_to_run_a_step_goes_through_the_same_losses(
    how, plain, tmp_path, synthetic_dataset, micro_config
):
    """Recorded or not, to 1e-3 in float32. In half precision the network is trained at a hundred times the
    published rate, and drifts."""
    train(micro_config(*TWENTY, *how), str(synthetic_dataset), tmp_path / "run")
    tolerance = 1e-3 if not any("precision" in word or "tf32" in word for word in how) else 0.05
    assert losses(tmp_path / "run") == pytest.approx(losses(plain), rel=tolerance)


def test_deterministic_runs_are_equal_to_the_bit_also_resumed(
    tmp_path, synthetic_dataset, micro_config, monkeypatch
):
    from orbit4d.model.training import steps

    config = micro_config(*TWENTY, "optim.deterministic=true")
    for name in ("one", "two"):
        train(config, str(synthetic_dataset), tmp_path / name)
    assert losses(tmp_path / "one") == losses(tmp_path / "two")
    real = steps.maybe_checkpoint

    def stopped(state, parts, config, run, position, asked):
        real(state, parts, config, run, position, asked or position.step == 13)

    monkeypatch.setattr(steps, "maybe_checkpoint", stopped)
    monkeypatch.setattr("orbit4d.model.training.train.maybe_checkpoint", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(config, str(synthetic_dataset), tmp_path / "three")
    monkeypatch.undo()
    train(config, str(synthetic_dataset), tmp_path / "three", resume=True)
    assert losses(tmp_path / "three") == losses(tmp_path / "one")


def test_a_run_goes_on_from_a_checkpoint_read_to_the_cpu(plain, tmp_path, synthetic_dataset, micro_config):
    """Its tensors reach the device as they are put back."""
    import shutil

    run = shutil.copytree(plain, tmp_path / "run")
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "checkpoints" / "step-000020")
    train(micro_config(*TWENTY), str(synthetic_dataset), run, resume=True)
    assert losses(run)[10:] == pytest.approx(losses(plain)[10:], rel=0.02)


@pytest.mark.parametrize(("precision", "tolerance"), [("auto", 0.01), ("fp16", 0.01), ("bf16", 0.06)])
def test_half_precision_samples_come_near_float32(plain, precision, tolerance):
    picture = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)

    def draw(precision):
        pipeline = OrbitPipeline.of_folder(plain).to("cuda")
        pipeline.register_to_config(sample_precision=precision)
        how = {"num_inference_steps": 6, "output_type": "latent", "motion": 0.01, "w1": 1.0}
        return pipeline(image=picture, generator=torch.Generator().manual_seed(0), **how).frames.float()

    exact, half = draw("no"), draw(precision)
    assert not torch.equal(exact, half)
    assert (half - exact).norm() < tolerance * exact.norm()


@pytest.mark.parametrize("sets", [[], ["optim.weights=float32"], ["optim.checkpointing=true"]])
def test_the_estimate_is_what_torch_reserves(sets, tmp_path, synthetic_dataset, micro_config):
    """A network of some hundred million parameters, so that weights and activations are what counts. 10 %,
    since the allowance for workspaces, meant for the published size, is a part of so little; bench/gpu.py
    asks for 5 % at full size."""
    unet = {"block_out_channels": [320, 640], "attention_head_dim": 64, "norm_num_groups": 32}
    config = micro_config("steps=4", "optim.precision=bf16", "optim.batch=2", "data.resolution=16")
    config = override(config, [*(f"model.unet.{k}={v}" for k, v in unet.items()), *sets])
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    train(config, str(synthetic_dataset), tmp_path / "run")
    found, expected = torch.cuda.max_memory_reserved(), estimate(config, 48, 4).reserved
    assert found == pytest.approx(expected, rel=0.10, abs=0.3 * GIB), (found / GIB, expected / GIB)


def test_an_operation_without_a_deterministic_kernel_is_named(micro_config):
    from orbit4d.model.compute.device import device_settings

    with (
        pytest.raises(WorkError, match=r"optim\.deterministic: .*adaptive_avg_pool2d.*--deterministic out"),
        device_settings(micro_config("optim.deterministic=true").optim),
    ):
        x = torch.ones(1, 1, 5, 5, device="cuda", requires_grad=True)
        torch.nn.functional.adaptive_avg_pool2d(x, (3, 3)).sum().backward()
