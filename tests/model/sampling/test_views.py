"""Guidance of synchronised views: closed forms on a linear field, trajectories of the released code."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from orbit4d.model import flow_levels, load_syncammaster
from orbit4d.model.guided.schedules import FlowEuler
from orbit4d.model.sampling.views import branches_of, sample_views

STEPS, VIEWS = 5, 3


def field(x: torch.Tensor, step: int, told: Sequence[bool]) -> torch.Tensor:
    """Linear in the state, in view 0 of the scene, and in the text."""
    rows = x.unflatten(0, (len(told), -1))
    text = torch.tensor(told, dtype=x.dtype).view(-1, 1, 1, 1, 1, 1)
    return (0.5 * rows + 0.3 * rows[:, :1] + text).flatten(0, 1)


def run(text: float, view: float, clean: torch.Tensor | None = None, together: int | None = None):
    noise = torch.randn(VIEWS, 2, 2, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    schedule = FlowEuler(flow_levels(STEPS))
    return sample_views(field, schedule, noise, branches_of(text, view, clean is not None), clean, together)


def closed_form(text: float, view: float, clean: torch.Tensor) -> torch.Tensor:
    x = torch.randn(VIEWS, 2, 2, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise, levels = x.clone(), flow_levels(STEPS)
    for here, there in pairwise(levels):
        absent = (1 - here) * clean + here * noise[:1]
        v00 = 0.5 * x + 0.3 * absent
        v_v0 = 0.5 * x + 0.3 * clean
        x = x + (there - here) * (v00 + view * (v_v0 - v00) + text * 1.0)
        x[:1] = clean
    return x


@pytest.fixture
def clean() -> torch.Tensor:
    return torch.full((1, 2, 2, 2, 2), 0.7, dtype=torch.float64)


@pytest.mark.parametrize("scales", [(7.5, 1.8), (1, 1), (0, 0), (2, 2), (0, 3)])
def test_dual_guidance_is_its_closed_form(clean: torch.Tensor, scales: tuple[float, float]) -> None:
    found, wanted = run(*scales, clean), closed_form(*scales, clean)
    torch.testing.assert_close(found[1:], wanted[1:], atol=1e-6, rtol=0)
    assert torch.equal(found[:1], clean)


def test_branches_that_count_nothing_are_left_out() -> None:
    assert [(b.weight, b.reference, b.text) for b in branches_of(1, 1, True)] == [(1, True, True)]
    assert [(b.weight, b.reference, b.text) for b in branches_of(0, 0, True)] == [(1, False, False)]
    assert [b.weight for b in branches_of(5, 1.8, False)] == [-4, 5]
    # (s, s): ordinary guidance between nothing and both
    assert [(b.weight, b.reference, b.text) for b in branches_of(3, 3, True)] == [
        (-2, False, False), (3, True, True),
    ]  # fmt: skip
    for reference in (False, True):
        for text in (False, True):
            assert sum(b.weight for b in branches_of(7.5, 1.8, reference, text)) == pytest.approx(1)
    assert len(branches_of(7.5, 1.8, True, text=False)) == 2


def test_branches_batched_or_one_by_one(clean: torch.Tensor) -> None:
    torch.testing.assert_close(run(7.5, 1.8, clean), run(7.5, 1.8, clean, 1), atol=1e-9, rtol=0)
    torch.testing.assert_close(run(7.5, 1.8, clean), run(7.5, 1.8, clean, 2), atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", ["cfg", "reference"])
def test_trajectory_of_the_released_code(shared: Path, kind: str) -> None:
    folder = shared / "fixtures/syncammaster"
    heads = json.loads((folder / "config.json").read_text())["heads"]
    net, stored = load_syncammaster(folder / "tiny.ckpt", heads=heads), np.load(folder / "trajectory.npz")

    def of(name: str) -> torch.Tensor:
        return torch.from_numpy(stored[name])

    positive, negative, camera = of("cfg/positive"), of("cfg/negative"), of("cfg/camera")
    schedule = FlowEuler(flow_levels(int(of("cfg/steps"))))

    def predict(x: torch.Tensor, step: int, told: Sequence[bool]) -> torch.Tensor:
        text = torch.cat([positive if given else negative for given in told])
        t = torch.tensor([1000 * float(schedule.s[step])])
        return net(x, t, text, camera.repeat(len(told), 1, 1), views=len(camera)).sample

    if kind == "cfg":
        branches, clean = branches_of(float(of("cfg/scale")), 1.0, False), None
    else:
        scales = float(of("reference/text_scale")), float(of("reference/view_scale"))
        branches, clean = branches_of(*scales, True), of("reference/clean")
    states: list[torch.Tensor] = []
    sample_views(predict, schedule, of("cfg/noise"), branches, clean, None, lambda i, x: states.append(x))
    # Errors of the network, 2e-6, grow with the guidance: a plain port reaches 2.4e-5.
    torch.testing.assert_close(torch.stack(states), of(f"{kind}/latents"), atol=1e-4, rtol=0)
