"""Gains that bring an actor's colours to those of its ground."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from orbit4d.compose.characters.relighting import HUE, LUMA, MOST, mean_colour, relighting_gain
from orbit4d.datasets import orbit
from orbit4d.recon4d.composition import Part, Track, gain_of, lit, union
from orbit4d.recon4d.deformation.building import StillField
from orbit4d.recon4d.gaussians import Gaussians, from_points
from orbit4d.recon4d.scene import Scene, draw

WAY = np.column_stack([np.linspace(-1, 1, 20), np.zeros(20), np.zeros(20)])


def actor(seed: int, colour: tuple[float, float, float]) -> Gaussians:
    rng = np.random.default_rng(seed)
    tint = np.clip(np.array(colour) + 0.1 * rng.standard_normal((300, 3)), 0, 1)
    found = from_points(rng.normal(size=(300, 3)) * 0.1, tint, opacity=0.8)
    found.log_scales += 0.4 * torch.tensor(rng.standard_normal((300, 3)), dtype=torch.float32)
    return found


def ground(colour: tuple[float, float, float], z: float = 0.0) -> Gaussians:
    x, y = (a.ravel() for a in np.meshgrid(np.arange(-3, 3, 0.2), np.arange(-3, 3, 0.2)))
    return from_points(np.column_stack([x, y, np.full(len(x), z)]), np.tile(colour, (len(x), 1)))


def test_what_agrees_has_a_gain_of_one(seed: int) -> None:
    g = actor(seed, (0.5, 0.4, 0.3))
    found = relighting_gain(g, ground(tuple(mean_colour(g))), WAY, 0.8)
    assert found is not None and not found[1]
    assert np.abs(found[0] - 1).max() < 1e-6


def test_after_it_brightness_agrees_and_light_on_both_cancels(seed: int) -> None:
    g, floor = actor(seed, (0.5, 0.4, 0.3)), ground((0.3, 0.5, 0.35))
    found = relighting_gain(g, floor, WAY, 0.8)
    assert found is not None and not found[1]
    before, after = mean_colour(g), mean_colour(lit(g, found[0].tolist()))
    assert abs(LUMA @ after - LUMA @ [0.3, 0.5, 0.35]) < 1e-6
    # Hue goes a quarter of the way, as logarithms of ratios of channels.
    whole, gone = (np.log(x[1:] / x[:1]) for x in ([0.3, 0.5, 0.35] / before, after / before))
    assert np.abs(gone - HUE * whole).max() < 1e-5
    # Half of the light on the ground takes half of the gain; half of it on both leaves it.
    half = [0.7, 0.7, 0.7]
    less = relighting_gain(g, lit(floor, half), WAY, 0.8)
    assert less is not None and np.abs(less[0] - 0.7 * found[0]).max() < 1e-5
    both = relighting_gain(lit(g, half), lit(floor, half), WAY, 0.8)
    assert both is not None and np.abs(both[0] - found[0]).max() < 1e-5
    # Neither its pose, its place nor its size matters.
    moved = replace(g, means=3 * g.means + 7, log_scales=g.log_scales + float(np.log(3)))
    again = relighting_gain(moved, floor, WAY, 0.8)
    assert again is not None and np.abs(again[0] - found[0]).max() < 1e-6


def test_only_the_ground_near_the_way_counts() -> None:
    g = actor(0, (0.5, 0.5, 0.5))
    near, far, high = ground((0.4, 0.4, 0.4)), ground((0.9, 0.0, 0.0)), ground((0.0, 0.9, 0.0), z=2.0)
    far.means[:, 0] += 20
    alone, all_of_it = (relighting_gain(g, s, WAY, 0.8) for s in (near, union([near, far, high])))
    assert alone is not None and all_of_it is not None and np.allclose(alone[0], all_of_it[0])
    assert relighting_gain(g, far, WAY, 0.8) is None
    held = relighting_gain(actor(0, (0.1, 0.1, 0.1)), ground((0.9, 0.9, 0.9)), WAY, 0.8)
    assert held is not None and held[1] and held[0].tolist() == [MOST] * 3


def test_a_gain_multiplies_what_is_drawn_and_none_leaves_every_bit() -> None:
    g = actor(1, (0.5, 0.4, 0.3))
    g.harmonics = 0.02 * torch.randn(len(g), 3, 3, generator=torch.Generator().manual_seed(0))
    camera = orbit(8, 2.0, 10.0)[1].resized(48, 48)
    track = Track(WAY, np.tile(np.eye(3), (20, 1, 1)), 1.0)
    gain = (0.8, 1.1, 0.6)
    plain, bright = (Part("k", Scene(g, StillField()), track, "", x) for x in (None, gain))
    ones = plain.at(0.3).tensors(), Part("k", plain.scene, track).at(0.3).tensors()
    assert all(torch.equal(ones[0][name], ones[1][name]) for name in ones[0])
    (before, alpha, _), (after, same, _) = (draw(p.at(0.3), camera) for p in (plain, bright))
    assert torch.equal(alpha, same)
    # The rasteriser sums colours by weights in float32.
    assert (after - before * torch.tensor(gain)).abs().max() < 1e-5
    for bad in ([1.0, 2.0], [1.0, float("nan"), 1.0], [1.0, -1.0, 1.0]):
        with pytest.raises(ValueError):
            gain_of(bad)
