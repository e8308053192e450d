"""The rasteriser's promises: one image formation in every back end, exact gradients, safe edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from orbit4d.datasets.cameras.camera import orbit
from orbit4d.recon4d.raster.api import rasterize
from tests.recon4d.raster.random_scenes import (
    GRADIENT_LIMIT,
    IMAGE_LIMIT,
    NAMES,
    assert_agrees,
    cameras,
    relative,
    run,
    scene,
    to64,
    weights_like,
)
from tests.recon4d.raster.random_scenes import one_thread as one_thread


@pytest.fixture(scope="module")
def fixture_2k(shared):
    return dict(np.load(shared / "fixtures" / "rasteriser" / "scene_2k.npz"))


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("with_alpha", [False, True])
def test_image_and_gradients_equal_the_float64_fixture(fixture_2k, backend, with_alpha):
    z = fixture_2k
    tensors = {k: torch.tensor(z[k]) for k in z}
    leaves = {k: tensors[k].clone().requires_grad_() for k in NAMES}
    image, alphas, meta = rasterize(
        **leaves, viewmats=tensors["viewmat"][None], Ks=tensors["K"][None], width=int(z["width"]),
        height=int(z["height"]), backgrounds=tensors["background"], backend=backend,
    )  # fmt: skip
    loss = (image[0] * tensors["w_color"]).sum()
    if with_alpha:
        loss = loss + (alphas[0, ..., 0] * tensors["w_alpha"]).sum()
    loss.backward()
    steady = ~tensors["fragile"]
    image, alphas = image.detach(), alphas.detach()
    assert float((image[0] - tensors["image"]).abs().amax(-1)[steady].max()) <= IMAGE_LIMIT
    assert float((alphas[0, ..., 0] - tensors["alpha"]).abs()[steady].max()) <= IMAGE_LIMIT
    prefix = "grad_with_alpha_" if with_alpha else "grad_"
    for name in NAMES:
        assert relative(leaves[name].grad, tensors[prefix + name]) <= GRADIENT_LIMIT, name
    assert relative(meta["means2d"].grad[0], tensors[prefix + "means2d"]) <= GRADIENT_LIMIT
    for name in ("means2d", "conics", "depths"):
        assert relative(meta[name][0].detach(), tensors[name]) <= 1e-6, name


@pytest.mark.parametrize("render_mode", ["RGB", "D", "ED", "RGB+D", "RGB+ED"])
@pytest.mark.parametrize("sh_degree", [None, 0, 1, 2, 3])
def test_every_mode_equals_the_twin(render_mode, sh_degree):
    values = scene(n=120, seed=3, sh_degree=sh_degree)
    background = torch.tensor([0.2, 0.5, 0.9]) if render_mode.startswith("RGB") else None
    # The expected depth divides by weights down to 1/255, which magnifies rounding.
    limit = 4 * GRADIENT_LIMIT if "ED" in render_mode else GRADIENT_LIMIT
    image, _, _ = assert_agrees(
        values, cameras(size=(40, 24)), gradient_limit=limit, render_mode=render_mode, sh_degree=sh_degree,
        backgrounds=background,
    )  # fmt: skip
    assert image.shape[-1] == {"RGB": 3, "D": 1, "ED": 1, "RGB+D": 4, "RGB+ED": 4}[render_mode]


def test_gradients_of_the_twin_match_finite_differences():
    # In float64 and away from thresholds: opacities and sizes such that every alpha stays above 1/255 nearby.
    values = to64(scene(n=6, seed=5, spread=0.2, scale=0.3, sh_degree=2))
    values["opacities"] = values["opacities"] * 0.5 + 0.2
    view = to64(cameras(size=(10, 8)))

    def value(means, quats, scales, opacities, colors, viewmats):
        image, alphas, _ = rasterize(
            means, quats, scales, opacities, colors, viewmats, view["Ks"], 10, 8, sh_degree=2,
            render_mode="RGB+ED", backend="torch",
        )  # fmt: skip
        return (image * weights_like(image, 1)).sum() + (alphas * weights_like(alphas, 2)).sum()

    leaves = [values[k].clone().requires_grad_() for k in NAMES] + [view["viewmats"].clone().requires_grad_()]
    analytic = torch.autograd.grad(value(*leaves), leaves)
    generator = torch.Generator().manual_seed(0)
    for which, gradient in enumerate(analytic):
        for _ in range(3):
            direction = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
            if which == 5:
                direction[:, 3] = 0.0  # the last row of a view matrix is fixed
            step = 1e-6
            moved = []
            for sign in (1, -1):
                arguments = [leaf.detach() for leaf in leaves]
                arguments[which] = arguments[which] + sign * step * direction
                moved.append(value(*arguments))
            numeric = float(moved[0] - moved[1]) / (2 * step)
            assert numeric == pytest.approx(float((gradient * direction).sum()), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (7, 13), (65, 8), (33, 31), (100, 20)])
def test_any_image_size_equals_the_twin(size):
    assert_agrees(scene(n=80, seed=1), cameras(size=size))


def test_several_cameras_share_the_gradient():
    values = scene(n=150, seed=2)
    view = cameras(count=3, size=(40, 40))
    assert_agrees(values, view)
    image, _, meta = rasterize(**values, **view)
    assert image.shape == (3, 40, 40, 3)
    assert meta["means2d"].shape == (3, 150, 2)
    for c in range(3):
        single, _, _ = rasterize(
            **values, **{**view, "viewmats": view["viewmats"][c : c + 1], "Ks": view["Ks"][:1]}
        )
        assert torch.equal(single[0], image[c])


def test_colours_may_differ_between_cameras_and_backgrounds_get_gradients():
    values = scene(n=60, seed=4)
    view = cameras(count=2, size=(24, 24))
    results = []
    for backend in ("numba", "torch"):
        colors = torch.stack([values["colors"], 1 - values["colors"]]).requires_grad_()
        backgrounds = torch.tensor([[0.1, 0.2, 0.3], [0.9, 0.8, 0.7]], requires_grad=True)
        image, _, _ = rasterize(
            **{**values, "colors": colors}, **view, backgrounds=backgrounds, backend=backend
        )
        (image * weights_like(image, 1)).sum().backward()
        results.append((image.detach(), colors.grad, backgrounds.grad))
    for ours, twin in zip(*results, strict=True):
        assert relative(ours, twin) < 1e-5


def test_absolute_gradients_equal_the_twin_and_bound_the_signed_ones():
    values, view = scene(n=100, seed=6), cameras(size=(36, 28))
    for mode in ("RGB", "D", "RGB+D"):
        _, _, meta, grads = run(values, view, "numba", absgrad=True, render_mode=mode)
        _, _, truth, _ = run(to64(values), to64(view), "torch", absgrad=True, render_mode=mode)
        assert relative(meta["means2d"].absgrad, truth["means2d"].absgrad) < GRADIENT_LIMIT
        slack = 1e-4 * meta["means2d"].absgrad.max()
        assert (meta["means2d"].absgrad + slack >= grads["means2d"].abs()).all()


def test_meta_speaks_gsplat():
    values, view = scene(n=40), cameras(count=2, size=(40, 24))
    for backend in ("numba", "torch"):
        _, _, meta = rasterize(**values, **view, backend=backend)
        assert meta["means2d"].shape == (2, 40, 2)
        assert meta["conics"].shape == (2, 40, 3)
        assert meta["depths"].shape == meta["opacities"].shape == meta["tiles_per_gauss"].shape == (2, 40)
        assert meta["radii"].shape == (2, 40, 2)
        assert meta["radii"].dtype == torch.int32
        assert (meta["width"], meta["height"], meta["n_cameras"]) == (40, 24, 2)
        assert meta["tile_width"] * meta["tile_size"] >= 40
        drawn = (meta["radii"] > 0).all(-1)
        assert torch.equal(drawn, meta["tiles_per_gauss"] > 0)


def test_the_camera_is_the_one_of_the_conventions_page():
    # One tiny opaque splat lands on the pixel that Camera.project names.
    camera = orbit(1, size=(64, 48), azimuth0_deg=70.0, elevation_deg=10.0)[0]
    point = np.array([0.21, -0.13, 0.17])
    (column, row), depth = camera.project(point)
    image, alphas, meta = rasterize(
        torch.tensor(point[None]), torch.tensor([[1.0, 0, 0, 0]]).double(), torch.full((1, 3), 1e-4).double(),
        torch.tensor([0.9]).double(), torch.ones(1, 3).double(), torch.tensor(camera.w2c_opencv[None]),
        torch.tensor(camera.K[None]), 64, 48, render_mode="RGB+ED",
    )  # fmt: skip
    np.testing.assert_allclose(meta["means2d"][0, 0], [column, row], atol=1e-4)
    peak = int(alphas[0, ..., 0].argmax())
    assert (peak % 64, peak // 64) == (int(column), int(row))
    assert float(image[0, int(row), int(column), 3]) == pytest.approx(depth, rel=1e-5)


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_bits_do_not_depend_on_threads(threads):
    values, view = scene(n=3000, seed=7, sh_degree=1), cameras(count=2, size=(200, 120))
    options = {"render_mode": "RGB+D", "sh_degree": 1, "absgrad": True}
    image, alphas, meta, grads = run(values, view, "numba", **options)
    torch.set_num_threads(threads)
    image2, alphas2, meta2, grads2 = run(values, view, "numba", **options)
    assert torch.equal(image, image2)
    assert torch.equal(alphas, alphas2)
    assert torch.equal(meta["means2d"].absgrad, meta2["means2d"].absgrad)
    for name in grads:
        assert torch.equal(grads[name], grads2[name]), name


def test_python_threads_may_render_at_once():
    from concurrent.futures import ThreadPoolExecutor

    torch.set_num_threads(2)
    values, view = scene(n=500, seed=8), cameras(size=(64, 64))
    expected = rasterize(**values, **view)[0]
    with ThreadPoolExecutor(6) as pool:
        images = list(pool.map(lambda _: rasterize(**values, **view)[0], range(24)))
    assert all(torch.equal(image, expected) for image in images)


def test_memory_of_the_backward_pass_does_not_alias_between_calls():
    # Two graphs alive at once, differentiated in the other order.
    view = cameras(size=(32, 32))
    first, second = scene(n=50, seed=1), scene(n=70, seed=2)
    _, _, _, one = run(first, view, "numba")
    _, _, _, two = run(second, view, "numba")
    a = {k: v.clone().requires_grad_() for k, v in first.items()}
    b = {k: v.clone().requires_grad_() for k, v in second.items()}
    image_a, alphas_a, _ = rasterize(**a, **view)
    image_b, alphas_b, _ = rasterize(**b, **view)
    for image, alphas in ((image_b, alphas_b), (image_a, alphas_a)):
        loss = (image * weights_like(image, 1)).sum() + (alphas * weights_like(alphas, 2)).sum()
        loss.backward(retain_graph=True)
    for name in NAMES:
        assert torch.equal(a[name].grad, one[name]), name
        assert torch.equal(b[name].grad, two[name]), name
    # A kept graph can be walked again and gives the same once more.
    loss = (image_a * weights_like(image_a, 1)).sum() + (alphas_a * weights_like(alphas_a, 2)).sum()
    loss.backward()
    assert torch.equal(a["means"].grad, 2 * one["means"])
