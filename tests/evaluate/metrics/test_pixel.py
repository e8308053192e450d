"""Pixel metrics: laws, and agreement with scikit-image frame by frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from orbit4d.evaluate.metrics.pixel import (
    flicker,
    motion_magnitude,
    psnr,
    psnr_reference,
    silhouette_iou,
    ssim,
    ssim_reference,
)

G = torch.Generator().manual_seed(0)


def smooth(n: int, h: int = 40, w: int = 48) -> torch.Tensor:
    """Low-frequency pictures in [0, 1], [n, 3, h, w]."""
    small = torch.rand(n, 3, 6, 6, generator=G)
    return torch.nn.functional.interpolate(small, (h, w), mode="bicubic").clamp(0, 1)


def test_ssim_agrees_with_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    a = smooth(4)
    b = (a + 0.1 * torch.randn(a.shape, generator=G)).clamp(0, 1)
    ours = ssim(a, b)
    for i in range(4):
        theirs = metrics.structural_similarity(
            a[i].permute(1, 2, 0).double().numpy(),
            b[i].permute(1, 2, 0).double().numpy(),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
            channel_axis=2,
        )
        assert ours[i].item() == pytest.approx(theirs, abs=1e-5)


def test_kernels_agree_with_their_twins() -> None:
    """Also on white, where a variance is a small difference of large squares."""
    noisy = smooth(3, 37, 52)
    bright = 1 - 0.02 * smooth(3, 37, 52)
    for a in (noisy, bright, smooth(1, 11, 11)):
        b = (a + 0.1 * torch.randn(a.shape, generator=G)).clamp(0, 1)
        # float32 against float64: sums over some 30 x 40 pixels of terms near 1.
        reference = ssim_reference(a.double(), b.double())
        torch.testing.assert_close(ssim(a, b).double(), reference, atol=3e-6, rtol=0)
        torch.testing.assert_close(psnr(a, b).double(), psnr_reference(a.double(), b.double()))
        torch.testing.assert_close(ssim(a, a), torch.ones(len(a)), atol=2e-7, rtol=0)


def test_psnr_of_a_known_error() -> None:
    a = torch.full((2, 3, 16, 16), 0.5)
    torch.testing.assert_close(psnr(a, a + 0.1), torch.full((2,), 20.0))
    assert (psnr(a, a) == 100).all()


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_worse_under_growing_noise_and_blur(metric) -> None:
    a = smooth(1) * 0.5 + 0.5 * torch.rand(1, 3, 40, 48, generator=G)
    noise = torch.randn(a.shape, generator=G)
    noisy = [metric(a, a + s * noise).item() for s in (0.01, 0.05, 0.2)]
    assert noisy == sorted(noisy, reverse=True)
    blurred = [metric(a, torch.nn.functional.avg_pool2d(a, k, 1, k // 2)).item() for k in (3, 5, 9)]
    assert blurred == sorted(blurred, reverse=True)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_symmetric_and_blind_to_batch_order_and_size(metric) -> None:
    a, b = smooth(5), smooth(5)
    together = metric(a, b)
    torch.testing.assert_close(together, metric(b, a))
    torch.testing.assert_close(together, torch.cat([metric(a[i : i + 1], b[i : i + 1]) for i in range(5)]))
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(together[order], metric(a[order], b[order]))


def test_iou_of_rectangles() -> None:
    a, b = torch.zeros(1, 1, 20, 20), torch.zeros(1, 1, 20, 20)
    a[..., :10, :] = 1
    b[..., 5:15, :] = 1
    assert silhouette_iou(a, b).item() == pytest.approx(1 / 3)
    assert silhouette_iou(a, a).item() == 1 and silhouette_iou(a * 0, b * 0).item() == 1


def test_flicker_ignores_steady_change_and_sees_a_jump() -> None:
    ramp = torch.linspace(0, 1, 10).view(10, 1, 1, 1).expand(10, 3, 8, 8)
    assert flicker(ramp).item() == pytest.approx(0, abs=1e-6)
    jumped = ramp.clone()
    jumped[5] = 0
    assert flicker(jumped).item() > 0.05
    assert flicker(ramp[:2]).item() == 0


def test_motion_magnitude_is_the_mean_square() -> None:
    still = torch.rand(6, 3, 8, 8, generator=G)
    assert motion_magnitude(still, still).item() == 0
    assert motion_magnitude(still + 0.2, still).item() == pytest.approx(0.04, rel=1e-5)
    numbers = np.random.default_rng(0).random((2, 3, 4, 4))
    assert motion_magnitude(torch.from_numpy(numbers), torch.zeros(2, 3, 4, 4)).item() == pytest.approx(
        (numbers**2).mean()
    )
