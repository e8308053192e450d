"""`--sample-every`: clips sampled while a run trains, which change nothing about the training."""

from __future__ import annotations

import io
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from orbit4d.datasets import OrbitDataset
from orbit4d.datasets.core.errors import WorkError
from orbit4d.datasets.videos.video import read_video
from orbit4d.model.run.log import RunLog, read
from orbit4d.model.training import sample_clips
from orbit4d.model.training.sample_clips import SampleClips
from orbit4d.model.training.train import train

STAGES = 'stages=[{"name": "static", "steps": 2}, {"name": "dynamic", "steps": 4, "static_share": 0.3}]'


def losses(run):
    return [row["loss"] for row in read(run / "log.jsonl")]


def test_clips_are_kept_at_intervals_and_the_losses_stay(tmp_path, synthetic_dataset, micro_config):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    plain, run = tmp_path / "plain", tmp_path / "run"
    train(micro_config(STAGES), str(synthetic_dataset), plain)
    config = micro_config(STAGES, "sample_every=5", "sample_clips=3")
    train(config, str(synthetic_dataset), run, trackers=("tensorboard",))
    assert losses(run) == losses(plain), "to the bit"
    # Every fifth step, and the end of each stage.
    names = sorted(path.name for path in (run / "samples").iterdir())
    assert names == ["step-000002.mp4", "step-000005.mp4", "step-000006.mp4"]
    frames = np.asarray(read_video(run / "samples" / "step-000006.mp4").frames)
    assert frames.shape[:3] == (4, 3 * 16, 2 * 16)
    assert not (plain / "samples").exists()
    events = event_accumulator.EventAccumulator(
        str(run / "tensorboard"), size_guidance={event_accumulator.IMAGES: 0}
    )
    events.Reload()
    shown = events.Images("samples/train")
    assert [event.step for event in shown] == [2, 5, 6]
    image = Image.open(io.BytesIO(shown[-1].encoded_image_string))
    assert (image.format, image.n_frames, image.size) == ("GIF", 4, (32, 48))


def test_what_is_stored_stands_beside_what_is_sampled(synthetic_dataset, micro_config, monkeypatch):
    config = micro_config("sample_clips=2", "data.caption_prefix=a toy, ", "data.caption_suffix=!")
    clips = SampleClips(str(synthetic_dataset), config)
    data = OrbitDataset(synthetic_dataset, split="train", size=16)
    assert clips.split == "train" and len(clips.clips) == 2
    for clip, number in zip(clips.clips, (0, len(data) - 1)):
        item = data[number]
        want = (item["dynamic"][::2] * 255).round().permute(0, 2, 3, 1).numpy()
        np.testing.assert_array_equal(clip.dynamic, want)
        np.testing.assert_allclose(np.stack([c.c2w for c in clip.cameras]), item["c2w"][::2], atol=1e-6)
        assert clip.caption == item["caption"] and clip.motion > 0
    asked = []

    class Pipeline:
        takes_text = True

        @classmethod
        def of_run(cls, *_):
            return cls()

        def __call__(self, **given):
            asked.append(given)
            return types.SimpleNamespace(frames=np.full((1, 4, 16, 16, 3), 7, np.uint8))

    monkeypatch.setattr(sample_clips, "OrbitPipeline", Pipeline)
    network = torch.nn.Linear(1, 1).train()
    for stage in ("static", "dynamic"):
        pairs = clips.draw(network, None, None, stage)
        assert pairs.shape == (2, 4, 16, 32, 3) and (pairs[:, :, :, 16:] == 7).all()
        np.testing.assert_array_equal(pairs[1, :, :, :16], getattr(clips.clips[1], stage))
    assert network.training
    assert [given["motion"] for given in asked] == [None, None, *(clip.motion for clip in clips.clips)]
    assert asked[0]["prompt"] == clips.clips[0].caption
    seeds = [given["generator"].initial_seed() for given in asked]
    assert seeds == [config.seed, config.seed + 1] * 2


def test_without_memory_the_training_goes_on(tmp_path, synthetic_dataset, micro_config, monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise WorkError("out of memory while sampling: end other programs")

    monkeypatch.setattr(SampleClips, "_pair", refuse)
    config = micro_config('stages=[{"name": "dynamic", "steps": 2}]', "sample_every=1")
    train(config, str(synthetic_dataset), tmp_path / "run")
    assert len(losses(tmp_path / "run")) == 2 and not (tmp_path / "run" / "samples").exists()
    assert "note: no sample clips, training continues: out of memory" in capsys.readouterr().out


def test_wandb_gets_the_video(tmp_path, monkeypatch):
    logged = []
    module = types.ModuleType("wandb")
    module.init = lambda **_: types.SimpleNamespace(
        log=lambda values, step: logged.append((step, values)), finish=lambda: None
    )
    module.Video = lambda path, format: (path, format)
    monkeypatch.setitem(sys.modules, "wandb", module)
    log = RunLog(tmp_path, 0, ("wandb",))
    log.write_clips(30, np.zeros((2, 3, 8, 16, 3), np.uint8), 8.0, "validation")
    log.close()
    path = tmp_path / "samples" / "step-000030.mp4"
    assert logged == [(30, {"samples/validation": (str(path), "mp4")})] and path.stat().st_size
