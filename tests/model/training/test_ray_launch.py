"""`orbit4d train --ray 2`: the same loop under Ray Train, on two gloo workers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orbit4d.datasets.core.errors import InputError, OrbitError
from orbit4d.model.run.log import read
from orbit4d.model.training.ray_launch import on_gpus, train_on_ray
from orbit4d.model.training.train import train

PLAIN = (
    "steps=3",
    "model.unet.temporal_dropout=0.0",
    "optim.effective_batch=2",
    "optim.batch=1",
    "checkpoint_every=1",
)


def test_two_workers_go_through_the_losses_of_one(tmp_path, synthetic_dataset, micro_config, monkeypatch):
    """Samples, noise and effective batch do not depend on the number of processes, so neither do the
    losses. Paths are relative: the workers' current folders are others."""
    config = micro_config(*PLAIN)
    monkeypatch.chdir(tmp_path)
    model = train_on_ray(config, os.path.relpath(synthetic_dataset), Path("two"), workers=2)
    assert (model / "model_index.json").is_file()
    train(config, str(synthetic_dataset), tmp_path / "one")
    one, two = ([row["loss"] for row in read(tmp_path / name / "log.jsonl")] for name in ("one", "two"))
    assert len(two) == 3
    assert two == pytest.approx(one, rel=2e-3)


def test_wrong_numbers_are_refused_before_ray_starts(tmp_path, synthetic_dataset, micro_config):
    with pytest.raises(InputError, match="at least 1"):
        train_on_ray(micro_config(*PLAIN), str(synthetic_dataset), tmp_path / "run", workers=0)
    with pytest.raises(InputError, match="no multiple"):
        train_on_ray(micro_config(*PLAIN), str(synthetic_dataset), tmp_path / "run", workers=3)
    assert not (tmp_path / "run").exists()


def test_a_dataset_that_is_not_there_leaves_no_folder(tmp_path, micro_config):
    with pytest.raises(OrbitError, match="nowhere"):
        train_on_ray(micro_config(*PLAIN), str(tmp_path / "nowhere"), tmp_path / "run", workers=2)
    assert not (tmp_path / "run").exists()


def test_too_few_gpus_are_refused_and_not_left_idle(tmp_path, synthetic_dataset, micro_config, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 16.0, "GPU": 1.0})
    with pytest.raises(InputError, match="--ray 2: the cluster has 1 GPUs"):
        train_on_ray(micro_config(*PLAIN), str(synthetic_dataset), tmp_path / "run", workers=2)
    assert [on_gpus(workers=4, gpus=gpus) for gpus in (0, 4, 8)] == [False, True, True]
