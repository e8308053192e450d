"""Laws of score distillation on priors in closed form, and reference numbers of an independent
implementation.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.model.distill import (
    GaussianScore,
    MixtureScore,
    bounded,
    draw_timesteps,
    expected_gradient,
    gradient,
    guide,
    rescale_guidance,
    surrogate,
    weight,
)

TABLE = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)
WEIGHTS = ("sigma2", "uniform", "one_minus_alpha", "alpha_sigma2", "clean")
FORMS = ("from_cond", "from_uncond")


@pytest.fixture
def reference(shared: Path) -> Callable[[str], dict[str, Tensor]]:
    def read(name: str) -> dict[str, Tensor]:
        with np.load(shared / "fixtures" / "score_distillation" / f"{name}.npz") as z:
            return {k: torch.from_numpy(np.asarray(v)) for k, v in z.items()}

    return read


def doubled(z: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.double() if v.is_floating_point() else v for k, v in z.items()}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def alpha_sigma(t: Tensor) -> tuple[Tensor, Tensor]:
    return TABLE[t].sqrt().view(-1, 1), (1 - TABLE[t]).sqrt().view(-1, 1)


@pytest.fixture
def case() -> tuple[Tensor, Tensor, Tensor]:
    """z [5, 8], t [5], noise [5, 8]."""
    return drawn(5, 8), torch.tensor([20, 200, 500, 800, 980]), drawn(5, 8, seed=1)


def test_one_draw_on_a_gaussian(case) -> None:
    """noise estimate - noise = sigma alpha (z - m) / V - alpha^2 s^2 / V noise (G1, G3)."""
    z, t, noise = case
    m, s = drawn(8, seed=2), 0.3
    a, sig = alpha_sigma(t)
    v = a**2 * s**2 + sig**2
    g = gradient("sds", z, t, noise, GaussianScore(m, s, TABLE), weight="uniform")
    assert torch.allclose(g, sig * a * (z - m) / v - a**2 * s**2 / v * noise, rtol=0, atol=1e-10)
    single = gradient("sds", z.float(), t, noise.float(), GaussianScore(m, s, TABLE), weight="uniform")
    assert single.dtype == torch.float32 and torch.allclose(single.double(), g, rtol=2e-5, atol=2e-5)
    exact = gradient("sds", z, t, noise, GaussianScore(m, 0.0, TABLE))
    assert torch.allclose(exact, sig**2 * a / sig * (z - m), rtol=0, atol=1e-10)
    assert torch.equal(
        expected_gradient(m.expand(5, 8), t, GaussianScore(m, s, TABLE)), torch.zeros(5, 8).double()
    )


def test_the_mean_over_noise_is_the_closed_form() -> None:
    """n draws: within 4 standard errors in every component (G2)."""
    n, m, s = 20_000, drawn(4), 0.4
    z, t = drawn(1, 4, seed=3), torch.tensor([400])
    model = GaussianScore(m, s, TABLE)
    g = gradient("sds", z.expand(n, 4), t.expand(n), drawn(n, 4, seed=4), model)
    a, sig = (float(c) for c in alpha_sigma(t))
    spread = sig**2 * a**2 * s**2 / (a**2 * s**2 + sig**2)
    assert ((g.mean(0) - expected_gradient(z, t, model)[0]).abs() < 4 * spread / n**0.5).all()
    assert torch.allclose(g.std(0), torch.full((4,), spread).double(), rtol=0.03)


def test_a_mixture_of_one_is_a_gaussian(case) -> None:
    z, t, noise = case
    m = drawn(8, seed=2)
    one, many = GaussianScore(m, 0.3, TABLE), MixtureScore(m[None].expand(3, 8), 0.3, TABLE)
    a, sig = alpha_sigma(t)
    z_t = a * z + sig * noise
    assert torch.allclose(one.clean_estimate(z_t, t), many.clean_estimate(z_t, t), atol=1e-10)
    assert torch.allclose(one.noise(z_t, t), many.noise(z_t, t), atol=1e-10)
    assert one.calls == many.calls == 10


def test_the_range_of_t_decides_whether_a_start_is_kept() -> None:
    """From large t every start ends in the heaviest mode, from small t in its nearest (G6)."""
    model = MixtureScore(torch.tensor([[-1.0], [1.0]]).double(), 0.1, TABLE, torch.tensor([0.4, 0.6]))
    ends = []
    for first in (400, 40):
        x = torch.tensor([[-0.9], [0.8]]).double()
        for k in range(80):
            t = torch.full((2,), round(first + (20 - first) * k / 79))
            x = x - expected_gradient(x, t, model, "clean")
        ends.append(x.flatten())
    assert torch.allclose(ends[0], torch.ones(2).double(), atol=2e-2)
    assert torch.allclose(ends[1], torch.tensor([-1.0, 1.0]).double(), atol=2e-2)


def test_forms_of_guidance(case) -> None:
    c, u = drawn(3, 4, seed=5), drawn(3, 4, seed=6)
    assert torch.allclose(guide(c, u, 2.5, "from_cond"), guide(c, u, 3.5, "from_uncond"), atol=1e-12)
    assert torch.equal(guide(c, u, 0, "from_cond"), c) and torch.equal(guide(c, u, 1, "from_uncond"), c)
    z, t, noise = case
    model = GaussianScore(drawn(8), 0.3, TABLE, drawn(8, seed=1), 0.5)
    for scale, form, calls in ((0, "from_cond", 5), (1, "from_uncond", 5), (2, "from_cond", 10)):
        model.calls = 0
        gradient("sds", z, t, noise, model, scale=scale, form=form)
        assert model.calls == calls
    plain = GaussianScore(drawn(8), 0.3, TABLE)
    both = [gradient("sds", z, t, noise, plain, scale=s) for s in (0.0, 7.5)]
    assert torch.equal(*both)  # nothing to push away from


def test_rescale() -> None:
    g, c = drawn(3, 4, 5, seed=7), 0.3 * drawn(3, 4, 5, seed=8)
    assert torch.equal(rescale_guidance(g, c, 0.0), g)
    out = rescale_guidance(g, c, 1.0)
    assert torch.allclose(out.flatten(1).std(1), c.flatten(1).std(1), atol=1e-6)


def test_guided_sds_overshoots_in_closed_form(case) -> None:
    """Equal deviations: the fixed point is m_c + s (m_c - m_u) with `from_cond` (E3)."""
    _, t, _ = case
    c, u, s = drawn(8), drawn(8, seed=1), 7.5
    model = GaussianScore(c, 0.25, TABLE, u, 0.25)
    for form, point in (("from_cond", c + s * (c - u)), ("from_uncond", u + s * (c - u))):
        # At zero noise the estimate at the fixed point vanishes.
        g = gradient("sds", point.expand(5, 8), t, torch.zeros(5, 8).double(), model, scale=s, form=form)
        assert g.abs().max() < 2e-5


def test_csd_has_no_stationary_point(case) -> None:
    """Equal deviations: a constant, whatever z and the noise (E2)."""
    z, t, noise = case
    c, u = drawn(8), drawn(8, seed=1)
    model = GaussianScore(c, 0.25, TABLE, u, 0.25)
    a, sig = alpha_sigma(t)
    constant = sig**2 * 3 * sig * a * (u - c) / (a**2 * 0.25**2 + sig**2)
    for where, n in ((z, noise), (5 * z, -noise)):
        assert torch.allclose(gradient("csd", where, t, n, model, scale=3), constant, atol=2e-5)
    with pytest.raises(InputError, match="scale 0"):
        gradient("csd", z, t, noise, model)


def test_vsd_with_an_exact_phi_has_no_variance(case) -> None:
    """g = w sigma alpha (z - m) / V for every noise (E4); phi the prior itself gives 0 (E6)."""
    z, t, noise = case
    m, s = drawn(8, seed=2), 0.3
    prior = GaussianScore(m, s, TABLE)
    a, sig = alpha_sigma(t)
    exact = sig**2 * sig * a * (z - m) / (a**2 * s**2 + sig**2)
    for n in (noise, -3 * noise):
        g = torch.cat([
            gradient("vsd", z[b:b+1], t[b:b+1], n[b:b+1], prior, phi=GaussianScore(z[b], s, TABLE)) for b in
        range(5) ])  # fmt: skip
        assert torch.allclose(g, exact, rtol=0, atol=1e-10)
    assert not gradient("vsd", z, t, noise, prior, phi=prior).any()
    assert not gradient("vsd", z, t, noise, prior, phi=lambda x, when: prior.noise(x, when)).any()


def test_msd_cancels_what_both_models_share(case) -> None:
    """A bias of both priors falls out (E5); equal models and clips give 0 (E6)."""
    z, t, noise = case
    moving, still, bias = drawn(8), drawn(8, seed=1), drawn(8, seed=9)
    rest = drawn(5, 8, seed=10)
    a, sig = alpha_sigma(t)
    exact = sig**2 * sig * a * ((z - moving) - (rest - still)) / (a**2 * 0.3**2 + sig**2)
    for b in (0 * bias, bias):
        models = [GaussianScore(m + b, 0.3, TABLE) for m in (moving, still)]
        g = gradient("msd", z, t, noise, models[0], static=models[1], z_static=rest)
        assert torch.allclose(g, exact, rtol=0, atol=1e-10)
    one = GaussianScore(moving, 0.3, TABLE)
    assert not gradient("msd", z, t, noise, one, static=one, z_static=z).any()
    inverted = gradient("msd", z, t, noise, one, static=one, z_static=rest, static_noise="inverted")
    assert torch.isfinite(inverted).all() and not torch.equal(inverted, noise)
    with pytest.raises(InputError, match="z_static"):
        gradient("msd", z, t, noise, one, static=one)


def test_ism_at_the_mean_is_0_and_counts_its_calls() -> None:
    m = drawn(1, 8)
    model = GaussianScore(m[0], 0.3, TABLE, m[0], 0.3)
    for t, walks in ((60, 0), (280, 1), (281, 2), (480, 2), (980, 5)):
        model.calls = 0
        g = gradient(
            "ism", m, torch.tensor([t]), torch.zeros(1, 8).double(), model, scale=7.5, form="from_uncond"
        )
        assert g.abs().max() < 1e-10 and model.calls == walks + 1 + 2


def test_weight_clean_is_the_difference_to_the_clean_estimate(case) -> None:
    z, t, noise = case
    model = GaussianScore(drawn(8), 0.3, TABLE, drawn(8, seed=1), 0.5)
    g = gradient("sds", z, t, noise, model, weight="clean", scale=2.0)
    a, sig = alpha_sigma(t)
    z_t = a * z + sig * noise
    guided = guide(model.noise(z_t, t), model.noise(z_t, t, branch="uncond"), 2.0, "from_cond")
    assert torch.allclose(g, z - (z_t - sig * guided) / a, rtol=0, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", WEIGHTS)
def test_reference_sds(reference, name: str, form: str) -> None:
    z = doubled(reference("gaussian"))
    model = GaussianScore(z["mean"], z["std"], TABLE, z["uncond_mean"], z["uncond_std"])
    g = gradient(
        "sds", z["z"], z["t"].long(), z["noise"], model, weight=name, scale=float(z["scale"]), form=form
    )
    close(g, z[f"sds_{form}_{name}"])


def close(got: Tensor, stored: Tensor, tolerance: float = 2e-5) -> None:
    assert (got - stored).abs().max() <= tolerance * max(1.0, float(stored.abs().max()))


def test_reference_estimators(reference) -> None:
    z = doubled(reference("gaussian"))
    model = GaussianScore(z["mean"], z["std"], TABLE, z["uncond_mean"], z["uncond_std"])
    phi = GaussianScore(z["phi_mean"], z["phi_std"], TABLE)
    static = GaussianScore(z["static_mean"], z["static_std"], TABLE)
    s, given = float(z["scale"]), (z["z"], z["t"].long(), z["noise"], model)
    still = {"static": static, "z_static": z["z_static"]}
    guided = {"scale": s, "form": "from_uncond"}
    close(gradient("sds", *given), z["sds_plain_sigma2"])
    rescaled = gradient("sds", *given, rescale=float(z["rescale_phi"]), **guided)
    close(rescaled, z["sds_rescaled_from_uncond_sigma2"])
    close(gradient("sds", *given, scale=s, clamp=float(z["clamp"])), z["sds_from_cond_sigma2_clamped"])
    close(gradient("csd", *given, scale=s), z["csd_sigma2"])
    close(gradient("vsd", *given, phi=phi), z["vsd_plain_sigma2"])
    close(gradient("vsd", *given, phi=phi, **guided), z["vsd_from_uncond_sigma2"])
    close(gradient("msd", *given, **still), z["msd_plain_sigma2"])
    close(gradient("msd", *given, **still, **guided), z["msd_from_uncond_sigma2"])
    close(gradient("ism", *given, **guided), z["ism_from_uncond_clean"], 5e-5)


def test_reference_mixture(reference) -> None:
    x = doubled(reference("mixture"))
    model, t = MixtureScore(x["points"], x["std"], TABLE, x["weights"]), x["t"].long()
    a, sig = (c.view(-1, 1, 1) for c in alpha_sigma(t))
    z_t = a * x["z"] + sig * x["noise"]
    close(model.responsibilities(z_t, t), x["responsibilities"])
    close(model.clean_estimate(z_t, t), x["x0"], 5e-5)
    close(gradient("sds", x["z"], t, x["noise"], model), x["sds_sigma2"], 5e-5)
    line = MixtureScore(x["line_points"][:, None], x["line_std"], TABLE, x["line_weights"])
    for k, when in enumerate(x["line_t"].long()):
        got = expected_gradient(x["line_x"], when.expand(25), line)
        assert (got - x["line_expected_sds_sigma2"][k]).abs().max() < 1e-4


def test_the_surrogate_hands_over_the_gradient_to_the_bit(reference) -> None:
    z, g = drawn(6, 4, 5).requires_grad_(), drawn(6, 4, 5, seed=1)
    for reduction, value, given in (
        ("sum_per_batch", g.square().sum() / 12, g), ("mean", g.square().mean() / 2, g / g.numel())
    ):  # fmt: skip
        z.grad = None
        loss = surrogate(z, g, reduction)
        loss.backward()
        assert loss.item() == pytest.approx(value.item(), rel=1e-12) and torch.equal(z.grad, given)
    x = reference("gaussian")
    value = surrogate(x["z"], x["sds_plain_sigma2"])
    assert float(value) == pytest.approx(float(x["surrogate_sum_per_batch"]), rel=1e-5)
    assert float(surrogate(x["z"], x["sds_plain_sigma2"], "mean")) == pytest.approx(
        float(x["surrogate_mean"]), rel=1e-5
    )


def test_draws_cover_the_closed_range() -> None:
    """Chi squared of 100,000 draws over 21 values: 99.99 % lie below 54."""
    t = draw_timesteps(torch.Generator().manual_seed(0), 100_000, (0.02, 0.04))
    counts = torch.bincount(t)[20:].double()
    assert t.min() == 20 and t.max() == 40 and len(counts) == 21
    assert float(((counts - 1e5 / 21) ** 2 / (1e5 / 21)).sum()) < 54
    assert draw_timesteps(None, 3, (0.0, 1.0), total=1).tolist() == [0, 0, 0]
    assert draw_timesteps(None, 10_000, (0.0, 0.29), total=100).max() == 29


def test_annealing() -> None:
    def at(anneal: str, step: int) -> Tensor:
        g = torch.Generator().manual_seed(1)
        return draw_timesteps(g, 5000, (0.02, 0.98), step=step, steps=100, anneal=anneal, anneal_start=50)

    for anneal, step, top in (("none", 100, 980), ("linear", 0, 980), ("linear", 50, 740), ("linear", 200,
                              500), ("late", 49, 980), ("late", 50, 500)):  # fmt: skip
        t = at(anneal, step)
        assert t.max() <= top and t.max() > top - 5 and t.min() >= 20
    assert at("sqrt", 0).unique().tolist() == [980] and at("sqrt", 100).unique().tolist() == [20]
    assert at("sqrt", 25).unique().tolist() == [500]


def test_bounded() -> None:
    hat = torch.tensor([0.0, 1e6, -1e6, float("inf"), -float("inf"), 0.3])
    change = bounded(hat, 0.1)
    assert (change.abs() <= 0.05).all() and change[0] == 0
    zero = torch.zeros((), requires_grad=True)
    bounded(zero, 0.1).backward()
    assert zero.grad == pytest.approx(0.025)
    with pytest.raises(ValueError, match="tau"):
        bounded(hat, 0.0)


def test_bad_input(case) -> None:
    z, t, noise = case
    model = GaussianScore(drawn(8), 0.3, TABLE)
    for arguments, words in (
        ({"scale": float("nan")}, "guidance scale"), ({"scale": -1.0}, "guidance scale"),
        ({"form": "cond"}, "guidance form"), ({"weight": "sigma"}, "weight 'sigma'"), ({"rescale": 2.0},
    "rescale"), ):  # fmt: skip
        guided = {"scale": 2.0} | arguments
        prior = GaussianScore(drawn(8), 0.3, TABLE, drawn(8, seed=1), 0.5)
        with pytest.raises(InputError, match=words):
            gradient("sds", z, t, noise, prior, **guided)
    for name, words in (("ssd", "estimator 'ssd'"), ("vsd", "phi"), ("msd", "still clips")):
        with pytest.raises(InputError, match=words):
            gradient(name, z, t, noise, model)
    with pytest.raises(InputError, match="noise must be"):
        gradient("sds", z, t, noise[:, :4], model)
    broken = GaussianScore(drawn(8) * float("inf"), 0.3, TABLE, name="broken")
    with pytest.raises(WorkError, match=r"broken: the gradient is not finite at t = \[20"):
        gradient("sds", z, t, noise, broken)
    with pytest.raises(InputError, match="t range"):
        draw_timesteps(None, 1, (0.5, 0.2))
    with pytest.raises(NotImplementedError):
        expected_gradient(z, t, MixtureScore(drawn(2, 8), 0.1, TABLE))
    assert weight("uniform", TABLE).eq(1).all()
