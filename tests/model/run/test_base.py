"""RUN/base, the frozen third branch of guidance: what it is, and that going on with a run leaves it alone."""

from __future__ import annotations

import pytest
import torch

from orbit4d.model import OrbitPipeline
from orbit4d.model.network.build import build_unet
from orbit4d.model.network.unet import OrbitUNet
from orbit4d.model.training.train import train


@pytest.fixture
def image_init(tmp_path, micro_config):
    """Folder of an image network to start from."""
    build_unet(micro_config(), 48).save_pretrained(tmp_path / "init")
    return tmp_path / "init"


def weights(folder):
    return OrbitUNet.from_pretrained(folder).state_dict()


def same(a, b):
    """Whether two networks have the same weights; the statistics of motion are each run's own."""
    assert a.keys() == b.keys()
    return all(torch.equal(value, b[key]) for key, value in a.items() if "motion" not in key)


def stopped_in_step(monkeypatch, step):
    from orbit4d.model.training import steps as module

    real, calls = module.training_loss, []

    def stop(*args, **kwargs):
        calls.append(1)
        if len(calls) == step:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "training_loss", stop)


def test_the_base_of_a_static3d_run_is_the_image_network_it_started_from(
    tmp_path, synthetic_dataset, micro_config, image_init
):
    """As published: frozen, and shown the first view alone."""
    stages = 'stages=[{"name": "dynamic", "steps": 2}]'
    as_published = ("model.variant=static3d", "model.residual=0", "data.static_condition=0", "sample.w2=0.5")
    config = micro_config(stages, *as_published, f"model.init={image_init}")
    train(config, str(synthetic_dataset), tmp_path / "run")
    pipeline = OrbitPipeline.of_folder(tmp_path / "run")
    assert pipeline.unet.config.variant == "static3d"
    assert pipeline.base_unet.config.variant == "image"
    assert same(pipeline.base_unet.state_dict(), weights(image_init))
    static = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    later = static.clone()
    later[1:] = 0

    def sample(orbit, w2):
        generator = torch.Generator().manual_seed(0)
        return pipeline(
            static=orbit, w1=0.0, w_motion=0.0, w2=w2, num_inference_steps=1, generator=generator,
            output_type="latent",
        ).frames  # fmt: skip

    full = [sample(orbit, 0.0) for orbit in (static, later)]
    # A step of DDIM is affine, so what the branches were goes over to what they come to.
    base = [2 * still - sample(orbit, 1.0) for still, orbit in zip(full, (static, later))]
    assert not torch.allclose(full[0], full[1], atol=1e-3), "the network itself sees the whole orbit"
    assert torch.allclose(base[0], base[1], atol=1e-4), "its base does not (float32, one step)"


def test_the_base_a_static_stage_trained_survives_a_resumption(
    tmp_path, synthetic_dataset, micro_config, image_init, monkeypatch
):
    stages = 'stages=[{"name": "static", "steps": 2}, {"name": "dynamic", "steps": 3}]'
    config = micro_config(stages, "sample.w2=0.5", "checkpoint_every=1", f"model.init={image_init}")
    with monkeypatch.context() as patch:
        stopped_in_step(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train(config, str(synthetic_dataset), tmp_path / "run")
    trained = weights(tmp_path / "run" / "base")
    assert not same(trained, weights(image_init)), "a test that cannot fail: the static stage changed nothing"
    train(config, str(synthetic_dataset), tmp_path / "run", resume=True)
    assert same(weights(tmp_path / "run" / "base"), trained)
    assert same(weights(tmp_path / "run" / "model" / "base_unet"), trained)


def test_a_resumption_does_not_write_the_base_again(
    tmp_path, synthetic_dataset, micro_config, image_init, monkeypatch
):
    stages = 'stages=[{"name": "dynamic", "steps": 3}]'
    config = micro_config(stages, "sample.w2=0.5", "checkpoint_every=1", f"model.init={image_init}")
    with monkeypatch.context() as patch:
        stopped_in_step(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            train(config, str(synthetic_dataset), tmp_path / "run")
    before = (tmp_path / "run" / "base").stat().st_ino
    train(config, str(synthetic_dataset), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "base").stat().st_ino == before
