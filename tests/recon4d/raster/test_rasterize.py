"""The rasteriser's promises: one image formation in every back end, exact gradients, safe edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orbit4d.datasets.cameras.camera import orbit
from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.raster.api import rasterize

#: Float32 against float64: the largest differences seen on the fixture (6e-6 and 5e-6), with room.
IMAGE_LIMIT = 2e-5
GRADIENT_LIMIT = 5e-5
NAMES = ("means", "quats", "scales", "opacities", "colors")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def scene(n=300, seed=0, spread=0.5, scale=0.03, sh_degree=None, dtype=torch.float32):
    """Random Gaussians around the origin."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    colors = torch.rand(n, 3, generator=g, dtype=torch.float64)
    if sh_degree is not None:
        colors = 0.4 * normal(n, (sh_degree + 1) ** 2, 3)
    values = {
        "means": spread * normal(n, 3) * 0.5,
        "quats": normal(n, 4),
        "scales": scale * torch.exp(0.5 * normal(n, 3)),
        "opacities": torch.sigmoid(normal(n)),
        "colors": colors,
    }
    return {name: value.to(dtype) for name, value in values.items()}


def cameras(count=1, size=(72, 56), dtype=torch.float32, **options):
    views = orbit(count, size=size, elevation_deg=20.0, azimuth0_deg=30.0, **options)
    return {
        "viewmats": torch.tensor(np.stack([v.w2c_opencv for v in views]), dtype=dtype),
        "Ks": torch.tensor(np.stack([v.K for v in views]), dtype=dtype),
        "width": size[0],
        "height": size[1],
    }


def weights_like(tensor, seed):
    return torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def run(values, view, backend, alpha_loss=True, keep=None, **options):
    """Image, alphas, meta and all gradients of a random linear functional of image and alphas.

    `keep` [C, H, W] limits the functional to some pixels. An input that took no part has gradient 0.
    """
    leaves = {k: v.detach().clone().requires_grad_() for k, v in values.items()}
    viewmats = view["viewmats"].detach().clone().requires_grad_()
    rest = {k: v for k, v in view.items() if k != "viewmats"}
    image, alphas, meta = rasterize(**leaves, viewmats=viewmats, **rest, backend=backend, **options)
    mask = torch.ones(image.shape[:-1]) if keep is None else keep
    loss = (image.double() * weights_like(image, 1) * mask[..., None]).sum()
    if alpha_loss:
        loss = loss + (alphas.double() * weights_like(alphas, 2) * mask[..., None]).sum()
    loss.backward()
    gradients = {k: v.grad for k, v in leaves.items()} | {"viewmats": viewmats.grad}
    gradients = {k: torch.zeros(()) if v is None else v for k, v in gradients.items()}
    gradients["means2d"] = meta["means2d"].grad
    return image.detach(), alphas.detach(), meta, gradients


def relative(a, b):
    """Relative L2 distance; the floor is for gradients that are zero by symmetry (a ball's rotation)."""
    a, b = a.double(), b.double()
    return float((a - b).norm() / b.norm().clamp(min=0.1))


def on_a_threshold(values, view, **options):
    """Pixels [C, H, W] that jump when opacities move by 1e-5: there float32 may fall on the other side."""
    moved = []
    for factor in (1 - 1e-5, 1.0, 1 + 1e-5):
        nudged = {**values, "opacities": values["opacities"] * factor}
        moved.append(rasterize(**to64(nudged), **to64(view), backend="torch", **options)[1])
    return ((moved[0] - moved[1]).abs() + (moved[2] - moved[1]).abs())[..., 0] > 4e-5


def to64(values):
    return {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in values.items()}


def assert_agrees(values, view, image_limit=IMAGE_LIMIT, gradient_limit=GRADIENT_LIMIT, **options):
    """The numba back end against the twin in float64: image, alphas, culling, all gradients."""
    steady = ~on_a_threshold(values, view, **options)
    assert steady.float().mean() > 0.9
    image, alphas, meta, grads = run(values, view, "numba", keep=steady, **options)
    truth, truth_alphas, truth_meta, truth_grads = run(
        to64(values), to64(view), "torch", keep=steady, **options
    )
    scale = max(1.0, float(truth.abs().max()))
    assert float(((image - truth).abs().amax(-1) * steady).max()) <= image_limit * scale
    assert float(((alphas - truth_alphas).abs().amax(-1) * steady).max()) <= image_limit
    assert torch.equal(meta["radii"] > 0, truth_meta["radii"] > 0)
    for name, gradient in grads.items():
        assert torch.isfinite(gradient).all(), name
        assert relative(gradient, truth_grads[name]) <= gradient_limit, name
    return image, alphas, meta


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
    values, view = scene(n=150, seed=6), cameras(size=(48, 40))
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


# --- edges --------------------------------------------------------------------------------------------------


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
    truth, truth_alphas, _, _ = run(to64(values), to64(view), "torch", render_mode=mode)
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
