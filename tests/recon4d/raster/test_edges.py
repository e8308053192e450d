"""Scenes at the edge of what can be drawn, random ones against the twin, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.raster.api import rasterize
from tests.recon4d.raster.random_scenes import (
    NAMES,
    assert_agrees,
    cameras,
    relative,
    run,
    scene,
    to64,
)
from tests.recon4d.raster.random_scenes import one_thread as one_thread


def single(means=((0.0, 0.0, 0.0),), scales=0.05, opacities=0.8, n=None):
    means = torch.tensor(means, dtype=torch.float32)
    n = n or len(means)
    return {
        "means": means.expand(n, 3).contiguous(),
        "quats": torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(n, 4).contiguous(),
        "scales": torch.as_tensor(scales, dtype=torch.float32).expand(n, 3).contiguous(),
        "opacities": torch.as_tensor(opacities, dtype=torch.float32).expand(n).contiguous(),
        "colors": torch.linspace(0.1, 0.9, 3 * n).reshape(n, 3),
    }


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_nothing_to_draw_is_the_background(backend):
    view = cameras(size=(20, 12))
    eye = torch.linalg.inv(view["viewmats"])[0, :3, 3]
    behind = single(means=[(2 * eye).tolist(), eye.tolist()])
    aside = single(means=[(0.0, 0.0, 50.0), (30.0, -30.0, 0.0)], scales=0.01)
    faint = single(opacities=0.0)
    almost = single(opacities=0.9999 / 255)
    negative = single(opacities=-1.0)
    empty = {k: v[:0] for k, v in single().items()}
    for values in (behind, aside, faint, almost, negative, empty):
        image, alphas, meta, grads = run(values, view, backend, backgrounds=torch.tensor([0.3, 0.6, 0.9]))
        assert torch.allclose(image, torch.tensor([0.3, 0.6, 0.9]), atol=1e-7)
        assert not alphas.any()
        assert not meta["radii"].any()
        assert all(not g.any() for g in grads.values())


def test_a_cloud_around_the_camera_equals_the_twin():
    # Behind, beside, in front and on the near plane; the affine map is clamped far outside the frame.
    values = scene(n=200, seed=9, spread=6.0, scale=0.2)
    assert_agrees(values, cameras(size=(48, 32)), near_plane=0.2)


def test_degenerate_scales_equal_the_twin():
    needle = single(scales=[0.5, 1e-9, 1e-9])
    disc = single(scales=[0.3, 0.3, 0.0])
    point = single(scales=[0.0, 0.0, 0.0])
    giant = single(scales=[30.0, 40.0, 50.0])
    flipped = single(scales=[-0.05, 0.1, 0.02])
    for values in (needle, disc, point, giant, flipped):
        values["quats"] = torch.tensor([[0.3, -0.5, 0.7, 0.2]])
        image, alphas, _, grads = run(values, cameras(size=(48, 40)), "numba")
        truth, truth_alphas, _, truth_grads = run(to64(values), to64(cameras(size=(48, 40))), "torch")
        assert float((image - truth).abs().max()) < 2e-4
        assert float((alphas - truth_alphas).abs().max()) < 2e-4
        assert float(alphas.max()) > 0.05
        for name in ("means", "opacities", "colors"):
            assert relative(grads[name], truth_grads[name]) < 1e-2, name
        assert all(torch.isfinite(g).all() for g in grads.values())


def test_a_quaternion_of_any_length_and_of_none():
    base = scene(n=50, seed=10)
    view = cameras(size=(32, 32))
    expected = rasterize(**base, **view)[0]
    for factor in (1e-15, 1e15, -1.0):
        stretched = {**base, "quats": base["quats"] * factor}
        assert torch.allclose(rasterize(**stretched, **view)[0], expected, atol=1e-5)
    for backend in ("numba", "torch"):
        zero = {**base, "quats": torch.zeros(50, 4)}
        upright = {**base, "quats": torch.tensor([[1.0, 0, 0, 0]]).expand(50, 4)}
        image, _, _, grads = run(zero, view, backend)
        assert torch.allclose(image, rasterize(**upright, **view, backend=backend)[0])
        assert not grads["quats"].any()
        assert torch.isfinite(grads["means"]).all()


def test_thousands_on_one_pixel_stop_at_the_limit():
    values = single(opacities=0.02, scales=0.01, n=6000)
    image, alphas, _ = assert_agrees(values, cameras(size=(24, 24)), image_limit=1e-4, gradient_limit=1e-3)
    # Blending ends before the transmittance reaches 1e-4, never after.
    assert 1 - 3e-4 < float(alphas.max()) < 1 - 1e-4 + 1e-6
    _, _, _, grads = run(values, cameras(size=(24, 24)), "numba")
    _, _, _, truth = run(to64(values), to64(cameras(size=(24, 24))), "torch")
    assert relative(grads["colors"], truth["colors"]) < 1e-3
    # What lies behind the stop has no effect.
    assert not grads["colors"][-1000:].any()
    assert image.isfinite().all()


def test_alpha_above_the_clamp_passes_no_gradient_but_to_colours():
    values = single(opacities=1.0, scales=5.0)
    _, alphas, _, grads = run(values, cameras(size=(8, 8), fov_x_deg=2.0), "numba", alpha_loss=False)
    assert float(alphas.max()) == pytest.approx(0.999, abs=1e-6)
    assert float(alphas.min()) == pytest.approx(0.999, abs=1e-6)
    for name in ("means", "quats", "scales", "opacities"):
        assert not grads[name].any(), name
    assert grads["colors"].any()
    assert_agrees(single(opacities=1.0), cameras(size=(32, 32)))
    assert_agrees(single(opacities=5.0), cameras(size=(32, 32)))


def test_equal_depths_keep_the_order_given():
    front = single(means=[(0.0, 0.0, 0.0)] * 3, opacities=0.7)
    view = cameras(size=(16, 16))
    assert_agrees(front, view)
    swapped = {k: v.flip(0) for k, v in front.items()}
    assert not torch.allclose(rasterize(**front, **view)[0], rasterize(**swapped, **view)[0], atol=1e-2)
    assert_agrees(swapped, view)


def test_order_of_the_input_does_not_matter_otherwise():
    values, view = scene(n=400, seed=11), cameras(size=(48, 48))
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    shuffled = {k: v[order] for k, v in values.items()}
    assert torch.equal(rasterize(**values, **view)[0], rasterize(**shuffled, **view)[0])


def test_rigid_motion_of_scene_and_camera_changes_nothing():
    values, view = to64(scene(n=100, seed=12)), to64(cameras(size=(32, 32)))
    half = np.radians(50.0) / 2
    turn = torch.tensor([np.cos(half), 0.0, np.sin(half), 0.0], dtype=torch.float64)
    from orbit4d.recon4d.raster.reference import quats_to_rotations

    motion = torch.eye(4, dtype=torch.float64)
    motion[:3, :3], motion[:3, 3] = quats_to_rotations(turn), torch.tensor([0.3, -1.0, 2.0])
    w, x, y, z = values["quats"].unbind(-1)
    a, c = turn[0], turn[2]
    moved = {
        **values,
        "means": values["means"] @ motion[:3, :3].T + motion[:3, 3],
        # The Hamilton product of (a, 0, c, 0) and each quaternion.
        "quats": torch.stack([a * w - c * y, a * x + c * z, a * y + c * w, a * z - c * x], dim=-1),
    }
    moved_view = {**view, "viewmats": view["viewmats"] @ torch.linalg.inv(motion)}
    for backend, limit in (("torch", 1e-9), ("numba", 5e-5)):
        expected, _, _ = rasterize(**values, **view, backend=backend)
        image, _, _ = rasterize(**moved, **moved_view, backend=backend)
        assert float((image - expected).abs().max()) < limit


def test_premultiplied_light_is_conserved():
    # White splats before a white background are white, whatever their alphas.
    values = {**scene(n=300, seed=13), "colors": torch.ones(300, 3)}
    view = cameras(size=(40, 40))
    image, alphas, _ = rasterize(**values, **view, backgrounds=torch.ones(3))
    assert float((image - 1).abs().max()) < 2e-6
    bare, _, _ = rasterize(**values, **view)
    assert torch.allclose(bare, alphas.expand_as(bare), atol=2e-6)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    n=st.integers(0, 60),
    seed=st.integers(0, 10**6),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    scale=st.sampled_from([1e-4, 0.01, 0.05, 0.3, 2.0]),
    spread=st.sampled_from([0.1, 1.0, 5.0]),
    mode=st.sampled_from(["RGB", "ED", "RGB+D"]),
)
def test_random_scenes_equal_the_twin(n, seed, width, height, scale, spread, mode):
    values = scene(n=n, seed=seed, scale=scale, spread=spread)
    view = cameras(size=(width, height))
    image, alphas, _, grads = run(values, view, "numba", render_mode=mode)
    with torch.no_grad():  # gradients are compared elsewhere; here ours must be finite
        truth, truth_alphas, _ = rasterize(**to64(values), **to64(view), backend="torch", render_mode=mode)
    # A pixel on a threshold may differ by one faint sample; all others agree.
    far = ((alphas - truth_alphas).abs() > 5e-5).float()
    assert float((alphas - truth_alphas).abs().max()) < 6e-3
    assert float(far.mean()) < 0.02
    scale_of = max(1.0, float(truth.abs().max()))
    assert float(((image - truth).abs().amax(-1, keepdim=True) * (1 - far)).max()) < 2e-3 * scale_of
    assert all(torch.isfinite(g).all() for g in grads.values())


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NAMES, "viewmats", "Ks", "backgrounds"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_in_one_line(name, bad):
    arguments = {**scene(n=5), **cameras(), "backgrounds": torch.zeros(1, 3)}
    arguments[name] = arguments[name].clone()
    arguments[name].view(-1)[2] = bad
    with pytest.raises(InputError) as caught:
        rasterize(**arguments)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"means": torch.zeros(5, 2)}, "means"),
        ({"quats": torch.zeros(4, 4)}, "quats"),
        ({"scales": torch.zeros(5)}, "scales"),
        ({"opacities": torch.zeros(5, 1)}, "opacities"),
        ({"colors": torch.zeros(5, 4)}, "colors"),
        ({"colors": torch.zeros(5, 8, 3), "sh_degree": 2}, "colors"),
        ({"sh_degree": 4}, "sh_degree"),
        ({"viewmats": torch.eye(4)}, "viewmats"),
        ({"viewmats": torch.zeros(0, 4, 4), "Ks": torch.zeros(0, 3, 3)}, "viewmats"),
        ({"Ks": torch.eye(3)[None].expand(2, 3, 3)}, "Ks"),
        ({"backgrounds": torch.zeros(2, 3)}, "backgrounds"),
        ({"width": 0}, "size"),
        ({"height": 10**6}, "size"),
        ({"near_plane": 0.0}, "near_plane"),
        ({"near_plane": 3.0, "far_plane": 2.0}, "near_plane"),
        ({"eps2d": -1.0}, "eps2d"),
        ({"render_mode": "rgb"}, "render_mode"),
        ({"backend": "opengl"}, "backend"),
        ({"backend": "gsplat"}, "cuda"),
        ({"scales": torch.zeros(5, 3).double()}, "scales"),
        ({"means": torch.zeros(5, 3, dtype=torch.int64)}, "means"),
        ({"means": np.zeros((5, 3))}, "means"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(change, word):
    arguments = {**scene(n=5), **cameras(), **change}
    with pytest.raises(InputError) as caught:
        rasterize(**arguments)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_float64_in_gives_float64_out_and_strides_do_not_matter():
    values, view = scene(n=60, seed=14), cameras(size=(24, 24))
    image, alphas, _ = rasterize(**values, **view)
    wide = rasterize(**to64(values), **to64(view), backend="numba")
    assert wide[0].dtype == wide[1].dtype == torch.float64
    assert torch.equal(wide[0].float(), image)
    strided = {
        k: torch.stack([v, v], dim=-1)[..., 0] if v.dim() == 1 else v.t().contiguous().t()
        for k, v in values.items()
    }
    assert all(not v.is_contiguous() for v in strided.values())
    assert torch.equal(rasterize(**strided, **view)[0], image)
    assert torch.equal(rasterize(**values, **view)[1], alphas)
