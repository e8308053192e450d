"""A view's gradient three ways: autograd, kernels in kept buffers, and CUDA graphs (recorded by a fake)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from orbit4d.recon4d.deformation.building import build_field
from orbit4d.recon4d.deformation.field import NodeField
from orbit4d.recon4d.deformation.paths.path_field import PathField
from orbit4d.recon4d.deformation.placing import Placing
from orbit4d.recon4d.fitting import optimize, reconstruction
from orbit4d.recon4d.fitting.density import Density
from orbit4d.recon4d.fitting.exposure import exposure_of
from orbit4d.recon4d.fitting.fused_view import Activated, FusedView, is_fused
from orbit4d.recon4d.fitting.inputs import Inputs
from orbit4d.recon4d.fitting.losses import Task, _compared, by_autograd, by_graphs
from orbit4d.recon4d.fitting.settings import DensitySettings, LossWeights
from orbit4d.recon4d.fitting.state import Fit, new_fit
from orbit4d.recon4d.graphs import Graphs
from orbit4d.recon4d.inputs.loading import Frames, load_frames
from orbit4d.recon4d.raster import threads


def replayed(function: Any, samples: tuple[Tensor, ...]) -> Callable[..., Any]:
    """As a CUDA graph behaves: arguments are copied into the recorded ones, whose shapes they must have."""
    static = [t.detach().clone() for t in samples]

    def replay(*args: Tensor) -> Any:
        for held, given in zip(static, args, strict=True):
            assert held.shape == given.shape and held.dtype == given.dtype
            held.copy_(given.detach())
        # The values are the copies', the gradient goes to the arguments.
        own = [
            held + (given - given.detach()) if given.requires_grad else held
            for held, given in zip(static, args)
        ]
        return function(*own)

    return replay


@pytest.fixture(scope="module")
def frames(moving_ball: dict[str, np.ndarray]) -> Frames:
    return load_frames(moving_ball["dynamic_orbit"])


def started(frames: Frames, settings: Any) -> Fit:
    inputs = Inputs(frames, None, {}, [])
    fit = new_fit(reconstruction.first_gaussians(inputs, settings, 0), settings, 0, exposure_of(frames, None))
    fit.field.bind(fit.gaussians.means)
    fit.exposure.logs[:] = np.linspace(-0.2, 0.2, len(frames))
    torch.manual_seed(0)
    last = fit.field.table if isinstance(fit.field, PathField) else fit.field.head.weight
    nn.init.normal_(last, std=0.2 if isinstance(fit.field, PathField) else 0.05)
    with torch.no_grad():
        # No longer round, of all colours, some of them clamped.
        fit.gaussians.log_scales.add_(0.3 * torch.randn(fit.gaussians.log_scales.shape))
        fit.gaussians.colors.add_(0.4 * torch.randn(fit.gaussians.colors.shape))
    return fit


PATHS = {"kind": "paths", "keys": [0.0, 0.2, 0.4, 0.6, 0.8, 1.0], "rests": [1.0], "n_nodes": 40}


@pytest.mark.parametrize("field", [{}, PATHS], ids=["nodes", "paths"])
@pytest.mark.parametrize("way", ["kernels", "graphs"])
@pytest.mark.parametrize(("moving", "step"), [(False, None), (True, None), (True, 1 / 11)])
def test_three_ways_to_one_gradient(
    frames: Frames, tiny_settings: Any, way: str, moving: bool, step: float | None, field: dict[str, Any]
) -> None:
    tiny_settings = replace(tiny_settings, deformation=field or tiny_settings.deformation)
    fit = started(frames, tiny_settings)
    pool = optimize.views(frames)
    slow, quick = torch.zeros_like(fit.adam.values), torch.full_like(fit.adam.values, np.nan)
    graphs, fused = Graphs(replayed), FusedView(fit, 48, 48, tiny_settings.eps2d)
    for view in (pool[4], pool[0], pool[7]):
        task = Task(view, torch.tensor([0.2, 0.9, 0.4]), moving, step)
        assert is_fused(fit, tiny_settings, task)
        told = by_autograd(fit, tiny_settings, task, slow)
        if way == "kernels":
            found = fused(fit, tiny_settings, task, quick, Activated(fit.gaussians))
            loss, judged = found.loss, found.judged
        else:
            found = by_graphs(fit, tiny_settings, task, quick, graphs)
            loss, judged = float(found.numbers[0]), optimize.judged_from(found.numbers[1:].tolist())
        assert loss == pytest.approx(told.loss, rel=1e-5)
        assert judged == pytest.approx(told.judged, rel=1e-4)
        assert torch.equal(found.radii, told.radii)
        for name in fit.adam.groups:
            if name == "field" and not moving:
                continue
            mine, theirs = fit.adam.part(quick, name), fit.adam.part(slow, name)
            # Sums over pixels, Gaussians and nodes in another order; SSIM by convolution in torch.
            assert float((mine - theirs).norm()) < 2e-4 * float(theirs.norm()), name
        off = (found.grad_means2d - told.grad_means2d).norm() / told.grad_means2d.norm()
        assert float(off) < 2e-4
    assert graphs.recorded == (0 if way == "kernels" else 1 + moving)


def test_what_kernels_do_not_know_goes_the_slow_way(frames: Frames, tiny_settings: Any) -> None:
    fit = started(frames, tiny_settings)
    task = Task(optimize.views(frames)[0], torch.zeros(3), True)
    assert is_fused(fit, tiny_settings, task)
    assert not is_fused(fit, replace(tiny_settings, weights=LossWeights(depth_smoothness=1.0)), task)
    assert not is_fused(fit, tiny_settings, replace(task, perceptual=lambda *_: torch.zeros(())))
    narrow = replace(task.view, truth=task.view.truth[:8])
    assert not is_fused(fit, tiny_settings, replace(task, view=narrow)), "SSIM needs eleven rows"


def test_a_fit_is_the_same_on_any_number_of_threads(frames: Frames, tiny_settings: Any) -> None:
    settings = replace(tiny_settings, coarse_steps=11, fine_steps=21, n_gaussians=300)
    found = []
    for count in (1, 2, 4):
        with threads.alone(count):
            fit = started(frames, settings)
            optimize.optimise(fit, frames, None, settings)
        assert fit.step == 21
        found.append(fit.adam.values.numpy().tobytes())
    assert found[0] == found[1] == found[2]


def test_graphs_survive_density_control_and_another_size(frames: Frames, tiny_settings: Any) -> None:
    growing = DensitySettings(every=12, start=0.0, stop=1.0, grow_gradient=1e-6, max_gaussians=500)
    settings = replace(
        tiny_settings, n_gaussians=200, coarse_steps=0, fine_steps=60, warmup_share=0.4, density=growing
    )
    plain, recorded = started(frames, settings), started(frames, settings)
    recorded.capture = replayed
    for fit in (plain, recorded):
        with threads.alone(1):
            optimize.optimise(fit, frames, None, settings)
    assert len(recorded.gaussians) == 500 and not recorded.pending
    assert len(plain.gaussians) == len(recorded.gaussians)
    assert recorded.passes.loss == pytest.approx(plain.passes.loss, rel=0.05)
    assert [row["step"] for row in recorded.history] == [row["step"] for row in plain.history]


@pytest.mark.parametrize("paths", [False, True])
def test_what_is_recorded_reads_nothing_from_the_device(tiny_settings: Any, paths: bool) -> None:
    # On `meta` there are no values: `.item()`, a mask as an index or a copy from the CPU would raise.
    options = {k: v for k, v in tiny_settings.deformation.items() if k != "kind"}
    field = build_field(PATHS) if paths else NodeField(**options, anchor=0.5)
    field.bind(torch.randn(60, 3))
    field.to("meta")
    field._index, field._weights, field._pairs = (
        t.to("meta") for t in (field._index, field._weights, field._pairs)
    )
    raw = [
        torch.zeros(60, *shape, device="meta", requires_grad=True) for shape in ((3,), (4,), (3,), (), (3,))
    ]
    drawn = Placing(field)(*raw, torch.zeros(3, device="meta"))
    sum(value.sum() for value in drawn).backward()
    assert all(t.grad.device.type == "meta" for t in (*raw, *field.parameters()))
    images = [torch.zeros(24, 24, c, device="meta", requires_grad=c < 4) for c in (3, 1, 4)]
    small = [torch.zeros(3, device="meta"), torch.zeros((), device="meta")]
    told = _compared(*images, *small)
    sum(value for value in told[:3]).backward()
    assert told[3].shape == (5,) and images[0].grad.device.type == "meta"


def test_parameters_that_are_no_numbers_end_a_fit(frames: Frames, tiny_settings: Any) -> None:
    fit = started(frames, tiny_settings)
    with torch.no_grad():
        fit.gaussians.means[5] = np.nan
    with pytest.raises(Exception, match="the loss is nan"):
        optimize.optimise(fit, frames, None, tiny_settings)


def test_an_update_counts_each_of_its_views(frames: Frames, tiny_settings: Any) -> None:
    fit = started(frames, tiny_settings)
    fit.stage = "fine"
    pools, density = (optimize.views(frames), []), Density(tiny_settings.density)
    for steps in (2, 4, 5):
        optimize.take_step(fit, pools, tiny_settings, density, 5, len(frames))
        assert fit.step == steps
    assert fit.adam.groups["means"].updates == 3
    one = replace(tiny_settings, views_per_step=1)
    optimize._set_rates(fit, one, 0.0)
    rate = fit.adam.groups["means"].rate
    optimize._set_rates(fit, tiny_settings, 0.0)
    assert fit.adam.groups["means"].rate == pytest.approx(2**0.5 * rate)
