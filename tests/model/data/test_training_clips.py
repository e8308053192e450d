"""Laws of the sample stream: what comes when, and what an augmentation may do to geometry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from orbit4d.datasets import orbit
from orbit4d.datasets.cameras.camera import stack_c2w
from orbit4d.model.config.settings import DataSettings, LossSettings, Stage
from orbit4d.model.data.training_clips import (
    Draw,
    StepBatches,
    TrainingClips,
    choose_frames,
    cut,
    even_frames,
    noise_like,
)


def batches(n, steps, start=0, batch=2, accumulate=2, rank=0, world=1):
    stream = iter(StepBatches(n, 7, 0, batch, accumulate, rank, world, start))
    return [[next(stream) for _ in range(accumulate)] for _ in range(steps)]


def test_every_clip_comes_once_per_epoch():
    numbers = [draw.index for step in batches(n=8, steps=4) for micro in step for draw in micro]
    assert sorted(numbers[:8]) == list(range(8))
    assert sorted(numbers[8:]) == list(range(8))
    assert numbers[:8] != numbers[8:], "another epoch, another order"


def test_resuming_at_a_step_repeats_and_skips_nothing():
    assert batches(n=5, steps=9)[4:] == batches(n=5, steps=5, start=4)


@pytest.mark.parametrize("world", [2, 4])
def test_the_union_over_processes_does_not_depend_on_their_number(world):
    alone = [
        sorted(d.number for micro in step for d in micro) for step in batches(11, 6, batch=4, accumulate=2)
    ]
    shared = [
        [batches(11, 6, batch=8 // (2 * world), accumulate=2, rank=r, world=world)[s] for r in range(world)]
        for s in range(6)
    ]
    together = [sorted(d.number for rank in step for micro in rank for d in micro) for step in shared]
    assert alone == together


def test_even_frames_keep_an_open_orbit_open():
    assert even_frames(24, 8).tolist() == list(range(0, 24, 3))
    assert even_frames(24, 24).tolist() == list(range(24))
    with pytest.raises(ValueError, match="5 frames asked of a clip of 4"):
        even_frames(4, 5)


@pytest.fixture
def clip():
    n = 12
    generator = torch.Generator().manual_seed(0)
    return {
        "dynamic": torch.rand(n, 3, 8, 8, generator=generator),
        "static": torch.rand(n, 3, 8, 8, generator=generator),
        "c2w": torch.from_numpy(stack_c2w(orbit(n))),
        "motion_frames": torch.arange(n, dtype=torch.float32),
    }


class Clips(list):
    is_latent = False


def samples_of(clip, stage, data=None, loss=None):
    data = data or DataSettings(frames=4, augment=("roll", "reverse", "mirror", "arc"))
    return TrainingClips(Clips([clip]), data, loss or LossSettings(), stage, seed=3, key=0)


def test_a_sample_is_a_function_of_its_number(clip):
    stage = Stage("dynamic", 1, static_share=0.5)
    first, second = samples_of(clip, stage), samples_of(clip, stage)
    for number in range(20):
        a, b = first[Draw(0, number)], second[Draw(0, number)]
        assert a.keys() == b.keys()
        assert all(torch.equal(a[k], b[k]) or (a[k].isnan().all() and b[k].isnan().all()) for k in a)


def test_dynamic_clips_keep_their_clock(clip):
    data = DataSettings(frames=4, augment=("roll", "reverse", "mirror", "arc"))
    for number in range(200):
        frames, _ = choose_frames(12, data, still=False, rng=np.random.default_rng(number))
        assert frames[0] == 0
        assert (np.diff(frames) > 0).all()


def test_static_orbits_start_and_turn_anywhere(clip):
    data = DataSettings(frames=4, augment=("roll", "reverse"))
    draws = [choose_frames(12, data, True, np.random.default_rng(k))[0] for k in range(300)]
    assert {int(frames[0]) for frames in draws} == set(range(12))
    turns = {int((frames[1] - frames[0]) % 12) for frames in draws}
    assert turns == {3, 9}, "both ways, always a quarter turn between frames"


def test_frames_carry_their_own_cameras(clip):
    rng = np.random.default_rng(0)
    data = DataSettings(frames=4, augment=("roll", "reverse"))
    from orbit4d.model.network.cameras import videomv_cameras

    rows = videomv_cameras(clip["c2w"])
    for _ in range(50):
        frames, _ = choose_frames(12, data, True, rng)
        sample = cut(clip, frames, still=True)
        for k, i in enumerate(frames):
            assert torch.equal(sample["target"][k], clip["static"][int(i)])
            assert torch.equal(sample["camera"][k], rows[int(i)])


def test_mirror_is_a_true_view_of_the_mirrored_world():
    """A point at x seen by a camera is seen at the mirrored pixel as the point at -x by the mirrored
    camera."""
    camera = orbit(12, elevation_deg=10.0, size=(64, 64))[2]
    points = np.random.default_rng(0).uniform(-0.4, 0.4, (20, 3))
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    seen, depth = camera.project(points)
    mirrored = replace(camera, c2w=mirror @ camera.c2w @ mirror)
    seen_mirrored, depth_mirrored = mirrored.project(points * [-1, 1, 1])
    np.testing.assert_allclose(depth, depth_mirrored, atol=1e-12)
    np.testing.assert_allclose(seen_mirrored, np.stack([64 - seen[:, 0], seen[:, 1]], 1), atol=1e-9)
    assert np.isclose(np.linalg.det(mirrored.c2w[:3, :3]), 1.0), "still a rotation"


def test_mirrored_sample_swaps_pixels_and_cameras(clip):
    frames = np.arange(4)
    plain, mirrored = cut(clip, frames, False), cut(clip, frames, False, mirror=True)
    assert torch.equal(plain["target"].flip(-1), mirrored["target"])
    assert torch.equal(plain["true_motion"], mirrored["true_motion"])
    assert not torch.allclose(plain["camera"][1:], mirrored["camera"][1:])


def test_motion_is_told_as_the_settings_say(clip):
    static = samples_of(clip, Stage("static", 1))[Draw(0, 0)]
    assert static["motion"].isnan() and static["true_motion"] == 0
    never = LossSettings(drop_motion=0.0)
    mixed = samples_of(clip, Stage("dynamic", 1, static_share=0.5), loss=never)
    told = torch.stack([mixed[Draw(0, k)]["motion"] for k in range(400)])
    assert not told.isnan().any()
    assert 0.4 < (told == 0).float().mean() < 0.6, "still orbits are conditioned on m = 0"
    dropped = samples_of(clip, Stage("dynamic", 1), loss=LossSettings(drop_motion=0.25))
    share = torch.stack([dropped[Draw(0, k)]["motion"] for k in range(400)]).isnan().float().mean()
    assert 0.18 < share < 0.32


def test_motion_is_measured_over_the_chosen_frames(clip):
    assert cut(clip, np.array([1, 2, 6]), still=False)["true_motion"] == 3.0


def test_a_static_stage_may_see_fewer_whole_orbits(clip):
    """The share is that of the settings times the stage's factor."""
    data = DataSettings(frames=4, static_condition=0.6)
    seen = {}
    for scale in (0.0, 0.5, 1.0):
        samples = samples_of(clip, Stage("static", 1, condition_scale=scale), data=data)
        seen[scale] = sum(bool(samples[Draw(0, k)]["see_static"]) for k in range(400)) / 400
    assert seen[0.0] == 0
    assert seen[0.5] == pytest.approx(0.3, abs=0.06)
    assert seen[1.0] == pytest.approx(0.6, abs=0.06)


def test_settings_do_not_shift_the_noise(clip):
    """The same sample has the same noise and time step whether or not something is dropped."""
    stage = Stage("dynamic", 1)
    a = samples_of(clip, stage, loss=LossSettings(drop_motion=0.0))
    b = samples_of(clip, stage, loss=LossSettings(drop_motion=1.0, drop_caption=1.0))
    for number in range(10):
        x, y = a[Draw(0, number)], b[Draw(0, number)]
        assert torch.equal(x["seed"], y["seed"]) and torch.equal(x["timestep_u"], y["timestep_u"])


def test_noise_follows_its_seed_and_not_its_place():
    latents = torch.zeros(3, 2, 4, 5, 5)
    noise = noise_like(latents, torch.tensor([5, 6, 5]))
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])
    shifted = noise_like(latents, torch.tensor([5, 6, 5]), offset=0.5) - noise
    assert shifted.std(dim=(-1, -2)).max() < 1e-6, "offset noise is constant over a frame"
    assert shifted.abs().max() > 0.1
