"""The fused image terms against their twin, scikit-image and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.measures import ssim
from orbit4d.recon4d.fitting.fused_loss import terms, terms_reference
from orbit4d.recon4d.fitting.scores import quick_ssim


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def views(h, w, seed=0):
    """A premultiplied picture and a truth that resembles it, float64; smooth, so that SSIM has meaning."""
    g = torch.Generator().manual_seed(seed)

    def smooth(channels):
        coarse = torch.rand(1, channels, 6, 6, generator=g, dtype=torch.float64)
        fine = torch.nn.functional.interpolate(coarse, size=(h, w), mode="bilinear", align_corners=True)
        return fine[0].permute(1, 2, 0) * 0.9 + 0.05 * torch.rand(
            h, w, channels, generator=g, dtype=torch.float64
        )

    alpha, truth_alpha = smooth(1), smooth(1)
    color, truth = smooth(3) * alpha, smooth(3) * truth_alpha
    return (
        color,
        alpha,
        torch.cat([truth, truth_alpha], dim=-1),
        torch.rand(3, generator=g, dtype=torch.float64),
    )


def run(function, given, dtype, weights=(0.7, -0.3, 0.5)):
    color, alpha, truth, background = (t.to(dtype) for t in given)
    color, alpha = color.clone().requires_grad_(), alpha.clone().requires_grad_()
    values = function(color, alpha, truth, background)
    sum(w * v for w, v in zip(weights, values, strict=True)).backward()
    return torch.stack(values).detach().double(), color.grad.double(), alpha.grad.double()


@pytest.mark.parametrize("size", [(11, 11), (12, 40), (33, 11), (64, 64), (71, 45), (43, 97)])
def test_values_and_gradients_equal_the_twin(size):
    given = views(*size)
    ours, twin = run(terms, given, torch.float32), run(terms_reference, given, torch.float64)
    assert torch.allclose(ours[0], twin[0], atol=2e-6)
    for mine, true in zip(ours[1:], twin[1:], strict=True):
        # Variances are differences of float32 moments; C2 = 9e-4 keeps what that costs near 1e-5.
        assert float((mine - true).norm() / true.norm()) < 5e-5


@pytest.mark.parametrize("which", [0, 1, 2])
def test_each_term_has_its_own_gradient(which):
    weights = tuple(float(i == which) for i in range(3))
    given = views(24, 30, seed=1)
    ours = run(terms, given, torch.float32, weights)
    twin = run(terms_reference, given, torch.float64, weights)
    for mine, true in zip(ours[1:], twin[1:], strict=True):
        assert float((mine - true).norm()) <= 5e-5 * float(true.norm()) + 1e-9


def test_the_twin_matches_finite_differences():
    color, alpha, truth, background = views(13, 14, seed=2)

    def value(c, a):
        return sum(
            w * v for w, v in zip((0.7, 0.3, 0.5), terms_reference(c, a, truth, background), strict=True)
        )

    _, grad_color, grad_alpha = run(
        terms_reference, (color, alpha, truth, background), torch.float64, (0.7, 0.3, 0.5)
    )
    g = torch.Generator().manual_seed(0)
    for _ in range(3):
        dc = torch.randn(color.shape, generator=g, dtype=torch.float64)
        da = torch.randn(alpha.shape, generator=g, dtype=torch.float64)
        step = 1e-7
        numeric = float(
            value(color + step * dc, alpha + step * da) - value(color - step * dc, alpha - step * da)
        )
        expected = float((grad_color * dc).sum() + (grad_alpha * da).sum())
        assert numeric / (2 * step) == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_ssim_is_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    color, alpha, truth, background = views(50, 61, seed=3)
    drawn = (color + (1 - alpha) * background).numpy()
    wanted = (truth[..., :3] + (1 - truth[..., 3:]) * background).numpy()
    # scikit-image averages over the area where the whole window fits: 5 pixels off each side.
    expected = metrics.structural_similarity(
        drawn,
        wanted,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=2,
    )
    for function, dtype in ((terms, torch.float32), (terms_reference, torch.float64)):
        values = function(*(t.to(dtype) for t in (color, alpha, truth, background)))
        assert float(values[2]) == pytest.approx(expected, abs=2e-6)
        assert float(values[0]) == pytest.approx(np.abs(drawn - wanted).mean(), abs=1e-6)


def test_equal_pictures_have_no_loss_and_no_gradient():
    _, _, truth, background = views(40, 30, seed=4)
    given = (truth[..., :3], truth[..., 3:], truth, background)
    values, grad_color, grad_alpha = run(terms, given, torch.float32)
    assert values.tolist() == pytest.approx([0.0, 0.0, 1.0], abs=1e-6)
    assert float(grad_color.abs().max()) < 1e-6
    assert float(grad_alpha.abs().max()) < 1e-6


def test_black_and_flat_pictures_are_finite():
    for shade in (0.0, 1.0):
        given = (torch.full((20, 20, 3), shade), torch.ones(20, 20, 1), torch.ones(20, 20, 4), torch.zeros(3))
        values, grad_color, _ = run(terms, given, torch.float32)
        assert torch.isfinite(values).all()
        assert torch.isfinite(grad_color).all()


@pytest.mark.parametrize("threads", [2, 3])
def test_bits_do_not_depend_on_threads(threads):
    given = views(150, 70, seed=5)
    one = run(terms, given, torch.float32)
    torch.set_num_threads(threads)
    more = run(terms, given, torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(one, more, strict=True))


def test_pictures_smaller_than_the_window_and_wrong_shapes_are_refused():
    with pytest.raises(InputError, match="11x11"):
        terms(*views(10, 30))
    color, alpha, truth, background = views(20, 20)
    with pytest.raises(InputError, match="shapes"):
        terms(color, alpha[..., 0], truth, background)


def test_scores_by_the_kernels_are_those_of_the_measure() -> None:
    rng = np.random.default_rng(4)
    a = rng.uniform(size=(40, 33, 3)).astype(np.float32)
    b = (a + 0.1 * rng.normal(size=a.shape)).clip(0, 1).astype(np.float32)
    # float32 against float64; windows whose variance is nearly nothing lose most.
    assert quick_ssim(a, b) == pytest.approx(ssim(a, b), abs=1e-5)
    assert quick_ssim(a, a) == pytest.approx(1.0, abs=1e-6)
