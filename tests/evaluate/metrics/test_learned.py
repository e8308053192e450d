"""LPIPS, I3D and FVD by their laws; weights by what is refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.lpips import _LAYOUT, LPIPS
from orbit4d.datasets.images.metric_weights import LPIPS_ALEX, NotMeasured, locate, read_arrays
from orbit4d.evaluate.metrics.frechet import Moments, frechet_distance, fvd_forms
from orbit4d.evaluate.metrics.i3d import I3D, pad_same
from orbit4d.evaluate.metrics.lpips import FastLPIPS
from orbit4d.evaluate.metrics.winograd import WinogradConv, suits


def test_frechet_distance_of_two_known_gaussians() -> None:
    """For commuting covariances it is |mu1 - mu2|^2 + sum (s1 - s2)^2 over common axes."""
    rng = np.random.default_rng(1)
    axes = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    s1, s2 = rng.random(6) + 0.2, rng.random(6) + 0.2
    s1[0] = 0  # singular, as with fewer videos than features
    mean = rng.normal(size=6)
    cov1, cov2 = (axes * s1**2) @ axes.T, (axes * s2**2) @ axes.T
    expected = mean @ mean + ((s1 - s2) ** 2).sum()
    # The root of a singular direction's rounding error is about 1e-8, hence the tolerance.
    assert frechet_distance(mean, cov1, np.zeros(6), cov2) == pytest.approx(expected, rel=1e-7)
    assert frechet_distance(mean, cov1, mean, cov1) == pytest.approx(0, abs=1e-7)
    assert frechet_distance(mean, cov1, mean * 2, cov2) == pytest.approx(
        frechet_distance(mean * 2, cov2, mean, cov1)
    )


def test_moments_do_not_depend_on_how_features_arrive() -> None:
    features = np.random.default_rng(2).normal(1e3, 1.0, size=(50, 4))
    whole, pieces = Moments(4), Moments(4)
    whole.update(features)
    for part in (features[:7], features[7:8], features[8:]):
        pieces.update(part)
    for moments in (whole, pieces):
        np.testing.assert_allclose(moments.mean, features.mean(0))
        np.testing.assert_allclose(moments.covariance, np.cov(features.T), rtol=1e-9)


def test_fvd_forms_cut_the_matrix_as_named() -> None:
    views, frames = 3, 4
    matrix = torch.arange(views * frames).view(views, frames, 1, 1, 1).expand(-1, -1, 3, 2, 2).float()
    forms = {name: video[:, :, 0, 0, 0].tolist() for name, video in fvd_forms(matrix).items()}
    assert forms["FVD-F"] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert forms["FVD-V"] == [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]
    assert forms["FV4D"] == [[0, 1, 2, 3, 7, 6, 5, 4, 8, 9, 10, 11]]
    square = matrix[:, :3]
    assert fvd_forms(square)["FVD-Diag"][0, :, 0, 0, 0].tolist() == [0, 5, 10]


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_laws_hold_for_any_weights(net: str) -> None:
    torch.manual_seed(0)
    metric = LPIPS(net)
    a = torch.rand(3, 3, 64, 64)
    assert metric(a, a).abs().max() == 0
    b = (a + 0.2 * torch.randn_like(a)).clamp(0, 1)
    together = metric(a, b)
    assert (together > 0).all()
    torch.testing.assert_close(together, metric(b, a))
    alone = torch.cat([metric(a[i : i + 1], b[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)  # convolutions sum in another order
    with pytest.raises(ValueError, match="32 pixels"):
        metric(a[..., :16, :16], b[..., :16, :16])


@pytest.mark.parametrize(("net", "size"), [("alex", (64, 64)), ("alex", (75, 41)), ("vgg", (48, 33))])
def test_fast_lpips_is_lpips(net: str, size: tuple[int, int], monkeypatch) -> None:
    """Winograd convolutions and the fused distance against the direct ones, on sizes that no tile divides."""
    torch.manual_seed(1)
    narrow = [(s[0] // 8, *s[1:]) if isinstance(s, tuple) else s for s in _LAYOUT["vgg"]]
    monkeypatch.setitem(_LAYOUT, "vgg", tuple(narrow))  # VGG's depth at an eighth of its width
    slow = LPIPS(net)
    fast = FastLPIPS(slow)
    if not fast.convs:
        pytest.skip("torch has no oneDNN on this machine, where the slow twin measures")
    a, b = torch.rand(3, 3, *size), torch.rand(3, 3, *size)
    # Fourteen layers of float32 rounding.
    torch.testing.assert_close(fast(a, b), slow(a, b), rtol=2e-4, atol=1e-6)
    assert fast(a, a).abs().max() == 0
    torch.testing.assert_close(fast(a, b), torch.cat([fast(x[None], y[None]) for x, y in zip(a, b)]))


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [(3, 1, 1, (13, 18)), (5, 1, 2, (31, 7)), (11, 4, 2, (50, 67)), (3, 1, 0, (9, 9)), (6, 1, 0, (20, 11))],
)
def test_winograd_is_convolution(kernel: int, stride: int, padding: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(7, 10, kernel, stride, padding).requires_grad_(False)
    if not suits(conv):
        pytest.skip("torch has no oneDNN on this machine")
    x = torch.randn(3, 7, *size)
    exact = torch.nn.functional.conv2d(x.double(), conv.weight.double(), conv.bias.double(), stride, padding)
    torch.testing.assert_close(WinogradConv(conv)(x).double(), exact, rtol=0, atol=2e-5)
    torch.testing.assert_close(WinogradConv(conv, relu=True)(x).double(), exact.relu(), rtol=0, atol=2e-5)
    assert not suits(torch.nn.Conv2d(4, 4, 3, groups=2)) and not suits(torch.nn.Conv2d(4, 4, 7))


def test_same_padding_is_tensorflows() -> None:
    """ceil(n / stride) outputs; with an odd surplus the extra zero stands at the end."""
    x = torch.ones(1, 1, 4, 5, 6)
    padded = pad_same(x, (3, 3, 3), (2, 2, 2))
    assert padded.shape[2:] == (5, 7, 7)
    assert padded[0, 0, 0, 1, 0] == 1 and padded[0, 0, -1, 1, 0] == 0  # n = 4: none before, one after
    for n in range(3, 12):
        for k, s in ((7, 2), (3, 2), (3, 1), (2, 2), (1, 1)):
            got = pad_same(torch.zeros(1, 1, n, n, n), (k,) * 3, (s,) * 3).shape[-1]
            assert (got - k) // s + 1 == -(-n // s)


def test_i3d_features_are_finite_and_per_video() -> None:
    torch.manual_seed(0)
    net = I3D()
    net.size = 64  # type: ignore[misc]  # the layout, at a size that a test can afford
    with pytest.raises(ValueError, match="I3D needs"):
        net(torch.rand(1, 5, 3, 64, 64))
    assert len(net.units()) == 3 + 9 * 6
    assert sum(p.numel() for p in net.parameters()) > 12_000_000


def test_locate_checks_the_hash_and_says_what_is_missing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ORBIT4D_WEIGHTS", str(tmp_path / "cache"))
    with pytest.raises(NotMeasured, match="--fetch-weights"):
        locate(LPIPS_ALEX)
    (tmp_path / LPIPS_ALEX.name).write_bytes(b"something else")
    with pytest.raises(InputError, match="not the pinned"):
        locate(LPIPS_ALEX, tmp_path)


def test_unpickler_admits_arrays_alone(tmp_path: Path) -> None:
    good = tmp_path / "good.pkl"
    good.write_bytes(pickle.dumps({"a": {"b": np.arange(3.0)}}))
    np.testing.assert_array_equal(read_arrays(good)["a/b"], [0, 1, 2])

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'owned'}",)

    for payload in (pickle.dumps(Evil()), pickle.dumps({"a": Evil()}), b"junk", pickle.dumps({"a": "text"})):
        bad = tmp_path / "bad.pkl"
        bad.write_bytes(payload)
        with pytest.raises(InputError):
            read_arrays(bad)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_published_lpips_weights_order_distortions(net: str) -> None:
    try:
        metric = LPIPS.from_weights(net)
    except NotMeasured as why:
        pytest.skip(str(why))
    torch.manual_seed(0)
    base = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8), (64, 64), mode="bicubic").clamp(0, 1)
    noise = torch.randn_like(base)
    scores = [metric(base, (base + s * noise).clamp(0, 1)).item() for s in (0.02, 0.1, 0.3)]
    assert 0 < scores[0] < scores[1] < scores[2] < 2
