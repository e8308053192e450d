"""WorldForge's rule: self-correction, soft masks, and channels that move wrongly."""

from __future__ import annotations

import numpy as np
import torch

from orbit4d.model import guided_sample
from orbit4d.model.guided.gating.channels import channel_scores, left_out
from orbit4d.model.guided.soft_mask import soft_mask
from orbit4d.model.guided.worldforge import self_corrected


def test_self_correction() -> None:
    generator = torch.Generator().manual_seed(0)
    good, worse = (torch.randn(3, 2, 4, 5, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    assert torch.equal(self_corrected(good, worse, 0.0), good)
    assert torch.allclose(self_corrected(2 * worse, worse, 4.0), 2 * worse, atol=1e-6)
    pushed = self_corrected(good, worse, 4.0) - good
    inner = (pushed * worse).sum((1, 2, 3, 4)).abs()
    assert (inner < 1e-6 * worse.square().sum((1, 2, 3, 4))).all() and pushed.abs().max() > 1


def test_self_correction_is_the_released_one(reference) -> None:
    z = {
        k: torch.from_numpy(np.asarray(v)) for k, v in reference("worldforge").items() if k.startswith("dsg")
    }
    for name, expected in z.items():
        if name.startswith("dsg_better_omega"):
            omega = float(name.removeprefix("dsg_better_omega"))
            got = self_corrected(z["dsg_good"], z["dsg_worse"], omega)
            assert torch.allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_soft_masks_are_the_released_ones(reference) -> None:
    """float32 there: 1e-6."""
    z = reference("worldforge")
    for name in (n for n in z if n.startswith("soft_") and n != "soft_mask"):
        _, form, width = name.split("_")
        assert np.abs(soft_mask(z["soft_mask"] > 0, float(width), form) - z[name]).max() < 1e-6, name


def test_worldforge_fades_what_is_seen_towards_its_border() -> None:
    """One step of an estimate of 0 at sigma 1 with omega 0: x' = w X + noise, by hand, w = sin(pi t / 2)."""
    seen = torch.zeros(1, 1, 2, 1, 6, dtype=torch.bool)
    seen[:, :, 1, :, 1:] = True
    warp = torch.ones(1, 1, 2, 1, 6, dtype=torch.float64)
    states = []

    def zero(x, sigma):
        states.append(x)
        return torch.zeros_like(x)

    def run(soften):
        g = torch.Generator().manual_seed(3)
        states.clear()
        guided_sample(
            zero, torch.tensor([1.0, 0.0]), torch.zeros_like(warp), warp, seen, 1.0, "worldforge", g,
            omega=0.0, until=0.0, soften=soften,
        )  # fmt: skip
        noise = torch.randn(warp.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        return (states[1] - noise)[0, 0, 1, 0]

    assert torch.allclose(run(0.0), torch.tensor([0.0, 1, 1, 1, 1, 1], dtype=torch.float64))
    ramp = np.sin(np.pi / 2 * np.minimum(np.arange(6) / 4, 1))
    assert torch.allclose(run(4.0), torch.from_numpy(ramp))


def test_channels_that_move_wrongly_are_the_released_ones(reference) -> None:
    """Scores within 0.01 of those that opencv's flow gives; the choice at all steps that look at scores."""
    z = reference("worldforge")
    found = channel_scores(z["flf_pred"][0], z["flf_ref"][0])
    assert np.abs(found - z["flf_scores_farneback"]).max() < 0.01
    for name, expected in z.items():
        if name.startswith("flf_channels_farneback_step"):
            step = int(name.rpartition("step")[2])
            assert left_out(z["flf_scores_farneback"], step) == expected.tolist()
            assert left_out(found, step) == expected.tolist()


def test_channels_left_out() -> None:
    rng = np.random.default_rng(0)
    still = np.repeat(rng.normal(size=(16, 1, 16, 16)), 3, 1)
    assert np.array_equal(channel_scores(still, still), np.ones(16))
    moved = still.copy()
    moved[5] = np.stack([np.roll(still[5, 0], 4 * t, 1) for t in range(3)])
    scores = channel_scores(still, moved)
    assert scores.argmin() == 5 and scores[5] < 0.9 and np.delete(scores, 5).min() > 0.99
    assert [left_out(scores, i) for i in (0, 5, 6, 10)] == [[], [], [5], [5]]
    assert len(left_out(scores, 11)) == 2 and 5 in left_out(scores, 11)
    # The bounds count in 50 steps.
    assert left_out(scores, 2, 20) == [] and left_out(scores, 4, 20) == [5]
    assert len(left_out(np.arange(16.0) // 8, 11)) == 6


def test_worldforge_gates_sixteen_channels_and_no_fewer() -> None:
    """A model that stands still, and a warp of which channel 3 alone runs: it keeps the model's estimate."""
    rng = torch.Generator().manual_seed(0)
    still = torch.randn(1, 16, 1, 12, 12, generator=rng, dtype=torch.float64).repeat(1, 1, 4, 1, 1)
    warp = still.clone()
    warp[0, 3] = torch.stack([torch.roll(still[0, 3, 0], 3 * t, 1) for t in range(4)])
    seen = torch.ones(1, 1, 4, 12, 12, dtype=torch.bool)

    def run(channels):
        told, states = [], []

        def still_model(x, sigma):
            states.append(x)
            return still[:, :channels]

        levels = np.linspace(9, 0, 10)
        guided_sample(
            still_model, torch.from_numpy(levels), 9 * still[:, :channels], warp[:, :channels],
            seen, 1.0, "worldforge", torch.Generator().manual_seed(1), omega=0.0, left_out=told,
        )  # fmt: skip
        noise = torch.Generator().manual_seed(1)
        draws = [torch.randn(states[0].shape, generator=noise, dtype=torch.float64) for _ in range(4)]
        return told, [states[2 * i + 1] - levels[i] * draws[i] for i in range(4)]

    told, fused = run(16)
    assert [i for i, _ in told] == [1, 2, 3] and told[0][1] == [3] and 3 in told[2][1]
    assert torch.allclose(fused[0], warp) and torch.allclose(fused[3][:, 3], still[:, 3])
    assert torch.allclose(fused[2][:, :3], warp[:, :3]) and torch.allclose(fused[2][:, 3], still[:, 3])
    told, fused = run(15)
    assert told == [] and torch.allclose(fused[3], warp[:, :15])
