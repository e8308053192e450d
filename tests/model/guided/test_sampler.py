"""Guided sampling: identity at weight 0, the warp at weight 1, reference chains, and a Gaussian in closed
form.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from orbit4d.model import guided_sample
from orbit4d.model.guided.modes import Settings, chosen, kept
from orbit4d.model.guided.sampler import RULES, _problem
from orbit4d.model.guided.schedules import DDIM, DiffusersSchedule, EulerVE, FlowEuler, ScaledSchedule


class Gaussian:
    """The exact denoiser of a Gaussian over frames and values: [B, 1, F, 1, V] flattened frame by frame."""

    def __init__(self, covariance: torch.Tensor, mean: torch.Tensor | None = None) -> None:
        self.covariance = covariance
        self.mean = torch.zeros(len(covariance), dtype=covariance.dtype) if mean is None else mean.flatten()
        self.calls = 0

    def __call__(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        self.calls += 1
        shape = x.permute(0, 2, 1, 3, 4).shape
        flat = x.permute(0, 2, 1, 3, 4).reshape(len(x), -1)
        c = self.covariance.to(x.dtype)
        gain = c @ torch.linalg.inv(c + sigma**2 * torch.eye(len(c), dtype=x.dtype))
        out = self.mean.to(x.dtype) + (flat - self.mean.to(x.dtype)) @ gain.T
        return out.reshape(shape).permute(0, 2, 1, 3, 4)


def correlated(frames: int = 4, values: int = 2) -> torch.Tensor:
    """0.8 ^ |difference of frames| times 0.5 ^ |difference of values|, [F V, F V]."""
    f, v = torch.arange(frames).double(), torch.arange(values).double()
    a = 0.8 ** (f[:, None] - f[None]).abs()
    b = 0.5 ** (v[:, None] - v[None]).abs()
    return torch.kron(a, b)


def karras(steps: int = 100, low: float = 0.002, high: float = 700.0) -> np.ndarray:
    """Levels of Karras et al. 2022, rho 7, and 0: [N + 1]."""
    ramp = np.linspace(0, 1, steps)
    return np.append((high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7, 0.0)


@pytest.fixture
def gaussian() -> Gaussian:
    return Gaussian(correlated())


def start(count: int, sigma: float, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return sigma * torch.randn(count, 1, 4, 1, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def diffusers_schedules() -> dict[str, object]:
    ddim = DDIMScheduler(
        prediction_type="v_prediction",
        timestep_spacing="leading",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    euler = EulerDiscreteScheduler(
        prediction_type="v_prediction", timestep_type="continuous", use_karras_sigmas=True,
        sigma_min=0.002, sigma_max=700.0, timestep_spacing="leading",
    )  # fmt: skip
    flow = FlowMatchEulerDiscreteScheduler(shift=3.0)
    unipc = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    for scheduler in (ddim, euler, flow, unipc):
        scheduler.set_timesteps(12)
    return {"ddim": ddim, "euler": euler, "flow": flow, "unipc": unipc}


class Still(ScaledSchedule):
    """Conversions alone."""

    def step(self, output: torch.Tensor, i: int, x: torch.Tensor) -> torch.Tensor:
        return x


class Network:
    """A network that is no clean estimate: some smooth function of the schedule's own state."""

    def __init__(self) -> None:
        self.calls = 0

    def output(self, x: torch.Tensor, i: int) -> torch.Tensor:
        self.calls += 1
        return torch.tanh(x.roll(1, 2) * 0.3) * 0.5 + 0.01 * i


@pytest.mark.parametrize("mode", [*RULES, None])
@pytest.mark.parametrize("kind", ["ddim", "euler", "flow", "unipc"])
def test_weight_0_is_the_schedulers_own_loop_to_the_bit(kind: str, mode: str | None, known) -> None:
    x = start(2, 1.0, dtype=torch.float32)
    warp, seen = known
    scheduler = diffusers_schedules()[kind]
    network, expected = Network(), x
    if kind in ("euler", "flow", "unipc"):
        scheduler.set_begin_index(0)
    for i, t in enumerate(scheduler.timesteps):
        expected = scheduler.step(network.output(expected, i), t, expected, return_dict=False)[0]
    for lam in (0, None, np.zeros((12, 4))):
        schedule = DiffusersSchedule(diffusers_schedules()[kind])
        network = Network()
        got = guided_sample(network, schedule, x, warp.float(), seen, lam, mode)
        assert torch.equal(got, expected) and network.calls == 12


@pytest.mark.parametrize("mode", RULES)
def test_frames_of_weight_0_are_left_alone_in_the_first_step(mode: str, gaussian, known) -> None:
    warp, seen = known
    levels = karras(10)
    x, lam = start(3, levels[0]), np.ones((10, 4))
    lam[:, 2:] = 0
    first: list[torch.Tensor] = []

    def note(i: int, state: torch.Tensor) -> torch.Tensor:
        first.append(state)
        return state

    generator = torch.Generator().manual_seed(0)
    guided_sample(gaussian, levels, x, warp, seen, lam, mode, generator, callback=note)
    schedule = EulerVE(levels)
    plain = schedule.step(gaussian(x, levels[0]), 0, x)
    assert torch.equal(first[0][:, :, 2:], plain[:, :, 2:])
    assert not torch.equal(first[0][:, :, :2], plain[:, :, :2])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_weight_1_ends_on_the_warp(gaussian, known, dtype: torch.dtype) -> None:
    warp, seen = known
    x = start(4, 700, dtype=dtype)
    out = guided_sample(gaussian, karras(20), x, warp, seen, 1.0)
    off = (out - warp)[seen.expand_as(out)].abs().max()
    assert out.dtype == dtype and off < (1e-9 if dtype == torch.float64 else 1e-6 * 700)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0", "flow", "edm"])
def test_conversions_round_trip(prediction: str) -> None:
    a, s = np.cos(np.linspace(1.5, 0.1, 6)), np.sin(np.linspace(1.5, 0.1, 6))
    if prediction == "edm":
        schedule = Still(np.ones(6), s / a, "v", "edm")
    elif prediction == "flow":
        schedule = FlowEuler(np.linspace(0.99, 0, 6))
    else:
        schedule = Still(a, s, prediction)
    x, o = start(2, 1.0), start(2, 1.0, seed=1)
    for i in range(5):
        again = schedule.from_x0(schedule.to_x0(o, i, x), i, x)
        assert torch.allclose(again, o, rtol=0, atol=1e-12)
        assert torch.allclose(schedule.from_ve(schedule.to_ve(x, i), i), x, rtol=0, atol=1e-12)


def test_one_ode_three_schedules(gaussian, known) -> None:
    """Euler on VE, DDIM and flow Euler make the same step where their levels agree; guided too."""
    warp, seen = known
    t = np.linspace(0.98, 0.02, 15)
    levels = t / (1 - t)
    alphas = 1 / (1 + levels**2)
    x = start(3, 1.0)
    results = []
    for schedule, scale in ((EulerVE(levels), levels[0]), (DDIM(alphas), None), (FlowEuler(t), None)):
        begin = levels[0] * x if scale else schedule.from_ve(levels[0] * x, 0)
        out = guided_sample(gaussian, schedule, begin, warp, seen, 0.6)
        results.append(schedule.to_ve(out, len(levels) - 1) if scale is None else out)
    assert torch.allclose(results[0], results[1], rtol=0, atol=1e-9)
    assert torch.allclose(results[0], results[2], rtol=0, atol=1e-9)


def test_diffusers_levels_are_the_schedules(known) -> None:
    """DDIM with `leading` spacing ends above 0, as its own step does; Euler's levels are Karras'."""
    found = diffusers_schedules()
    ddim = DiffusersSchedule(found["ddim"])
    assert len(ddim.sigmas) == 13 and ddim.sigmas[-1] > 0
    euler = DiffusersSchedule(found["euler"])
    assert np.allclose(euler.sigmas, karras(12), rtol=1e-5, atol=0)
    x, o = start(1, 1.0), start(1, 1.0, 1)
    for i in (0, 5, 11):
        mine = ddim.from_ve(ddim.to_x0(o, i, x), i + 1) if i < 11 else None
        a, s = ddim.a[i], ddim.s[i]
        noise = (x - a * ddim.to_x0(o, i, x)) / s
        expected = ddim.a[i + 1] * ddim.to_x0(o, i, x) + ddim.s[i + 1] * noise
        assert mine is None or mine.shape == expected.shape
        assert torch.allclose(ddim.step(o, i, x), expected, rtol=0, atol=1e-6)


NAMES = {
    "unguided": (0.0, None, {}),
    "dgs_infinite": (1.0, "dgs", {}),
    "dgs_half": (0.5, "dgs", {}),
    "dgs_closed": ("lam_closed", "dgs", {}),
    "posterior_infinite": (1.0, "posterior", {}),
    "posterior_closed": ("lam_closed", "posterior", {}),
    "worldforge": (1.0, "worldforge", {}),
    **{f"exact_infinite_{k}": (1.0, "exact-likelihood", {"iterations": k}) for k in (0, 1, 2, 5)},
    **{f"exact_closed_{k}": ("lam_closed", "exact-likelihood", {"iterations": k}) for k in (0, 5)},
}


@pytest.mark.parametrize("name", NAMES)
def test_every_mode_on_a_gaussian(reference, name: str) -> None:
    z = {k: torch.from_numpy(np.asarray(v)) for k, v in reference("analytic").items()}
    lam, mode, rest = NAMES[name]
    generator = torch.Generator().manual_seed(int(z["worldforge_seed"]))
    out = guided_sample(
        Gaussian(z["covariance"], z["mean"]), z["sigmas"], z["x"], z["warp"], z["seen"].bool(),
        z[lam] if isinstance(lam, str) else lam, mode, generator, **rest,
    )  # fmt: skip
    # One formula in two orders of operations; gradients add a division by a small deviation.
    tolerance = 1e-6 if "exact" in name or "posterior" in name else 1e-8
    assert torch.allclose(out, z[name], rtol=0, atol=tolerance)


@pytest.mark.parametrize("lam", ["repo", "random"])
@pytest.mark.parametrize(("mode", "name"), [("repo-dgs", "dgs"), ("repo-posterior", "posterior")])
def test_released_chains(reference, mode: str, name: str, lam: str) -> None:
    """At most 0.1 % of values: a tie at the cut may fall the other way."""
    z = {k: torch.from_numpy(np.asarray(v)) for k, v in reference("steps").items()}
    c = z["frame_covariance"]

    def denoiser(x: torch.Tensor, sigma: float) -> torch.Tensor:
        gain = c @ torch.linalg.inv(c + sigma**2 * torch.eye(len(c), dtype=c.dtype))
        return torch.einsum("fg,bcghw->bcfhw", gain, x)

    out = guided_sample(denoiser, z["sigmas"], z["x"], z["warp"], z["seen"].bool(), z[f"lam_{lam}"], mode)
    assert ((out - z[f"{name}_{lam}"]).abs() > 1e-6).double().mean() <= 1e-3


def conditional(
    covariance: torch.Tensor, warp: torch.Tensor, seen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of the hidden values given the seen ones."""
    x, m = warp.permute(0, 2, 1, 3, 4).flatten(), seen.permute(0, 2, 1, 3, 4).flatten()
    gain = covariance[~m][:, m] @ torch.linalg.inv(covariance[m][:, m])
    return gain @ x[m], torch.diag(covariance[~m][:, ~m] - gain @ covariance[m][:, ~m])


def hidden(out: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    return out.permute(0, 2, 1, 3, 4).flatten(1)[:, ~seen.permute(0, 2, 1, 3, 4).flatten()]


def test_exact_likelihood_samples_the_conditional(gaussian, known) -> None:
    """4,000 samples of 100 steps: means within 0.04 (3.5 standard errors), variance as Euler's bias leaves
    it.
    """
    warp, seen = known
    mean, variance = conditional(gaussian.covariance, warp, seen)
    x = start(4000, 700, seed=3)
    errors = {}
    for name, mode, rest in (
        ("exact", "exact-likelihood", {"iterations": 3}), ("one", "exact-likelihood", {"iterations": 1}),
        ("pigdm", "exact-likelihood", {"iterations": 0}), ("dgs", "dgs", {}), ("posterior", "posterior", {}),
    ):  # fmt: skip
        out = hidden(guided_sample(gaussian, karras(100), x, warp, seen, 1.0, mode, **rest), seen)
        errors[name] = float((out.mean(0) - mean).abs().max())
        if name == "exact":
            ratio = out.var(0) / variance
            assert (ratio > 0.85).all() and (ratio < 1.1).all()
    assert errors["exact"] < 0.04 and errors["exact"] < errors["one"] < errors["dgs"] < errors["posterior"]
    assert abs(errors["dgs"] - errors["pigdm"]) < 0.1


def test_enough_iterations_solve_exactly_and_none_is_pigdm(gaussian, known) -> None:
    """One step in closed form: mean plus gain, for R of the weight."""
    warp, seen = known
    sigma, w = 1.7, 0.6
    levels = np.array([sigma, 0.0])
    x = start(5, sigma)
    c = gaussian.covariance
    j = c @ torch.linalg.inv(c + sigma**2 * torch.eye(8, dtype=c.dtype))
    m = seen.flatten()
    mu = gaussian(x, sigma).flatten(1)
    spread = sigma**2 / (1 + sigma**2)
    r = spread * (1 - w) / w
    covariance = sigma**2 * j
    gap = warp.flatten()[m] - mu[:, m]
    direct = torch.linalg.solve(covariance[m][:, m] + r * torch.eye(3, dtype=c.dtype), gap.T).T
    for iterations, u, off in ((3, direct, 1e-8), (0, gap / (spread + r), 1e-12)):
        expected = mu + u @ covariance[m]
        out = guided_sample(gaussian, levels, x, warp, seen, w, "exact-likelihood", iterations=iterations)
        # Euler's step to 0 is the clean estimate up to rounding.
        assert torch.allclose(out.flatten(1), expected, rtol=0, atol=off)
    both = [
        guided_sample(gaussian, levels, x, warp, seen, w, "exact-likelihood", products=p)
        for p in ("transpose", "symmetric")
    ]
    assert torch.allclose(*both, atol=1e-10)  # a Gaussian's Jacobian is symmetric


def test_one_value_gets_exactly_the_weight() -> None:
    one = Gaussian(torch.ones(1, 1, dtype=torch.float64))
    x = torch.full((1, 1, 1, 1, 1), 0.3, dtype=torch.float64)
    seen = torch.ones(1, 1, 1, 1, 1, dtype=torch.bool)
    for sigma, w in ((0.5, 0.25), (20.0, 0.9)):
        out = guided_sample(one, [sigma, 0.0], x, 2.0 * torch.ones_like(x), seen, w, "exact-likelihood")
        mu = one(x, sigma)
        assert torch.allclose(out, mu + w * (2.0 - mu), rtol=0, atol=1e-12)


def test_full_weight_of_the_released_rule_replaces_what_is_seen_and_no_more(gaussian, known) -> None:
    """A weight of 1 in the last frame makes no given view of it: its hidden values stay the model's."""
    warp, seen = known
    x, levels = start(6, 700), karras(30)
    direct, replaced = (
        guided_sample(gaussian, levels, x, warp, seen, 1.0, mode) for mode in ("dgs", "repo-dgs")
    )
    # A blend of full weight and a replacement differ by rounding.
    assert torch.allclose(direct, replaced, rtol=0, atol=1e-9)
    assert replaced[:, :, 3].abs().max() > 0.1


def test_two_views_floor_the_weights_of_the_released_rule(gaussian, known) -> None:
    """With a last frame that is given, weights below `clamp` count as `clamp`; else they stand."""
    warp, seen = (part.clone() for part in known)
    seen[:, :, 1:] = True
    x, levels = start(3, 10.0), karras(6, 0.01, 10.0)
    outs = {}
    for last in (1.0, 0.9):
        for low in (0.05, 0.6):
            lam = np.full((6, 4), low)
            lam[:, 0], lam[:, 3] = 1.0, last
            outs[last, low] = guided_sample(gaussian, levels, x, warp, seen, lam, "repo-dgs", clamp=0.6)
    assert torch.equal(outs[1.0, 0.05], outs[1.0, 0.6])
    assert not torch.equal(outs[0.9, 0.05], outs[0.9, 0.6])


def test_float32_counts_as_float64_does(gaussian) -> None:
    """0.7 of ten values are seven: in float32 0.7 is less, and one would be lost."""
    warp = torch.arange(10.0).view(1, 1, 1, 1, 10)
    seen = torch.ones(1, 1, 1, 1, 10, dtype=torch.bool)
    lam = np.array([[0.7]])
    problem = _problem(None, EulerVE([1.0, 0.0]), warp, warp, seen, lam, Settings(), None, "dgs")
    picked = chosen(problem, torch.zeros_like(warp), problem.shares(0))
    assert picked.flatten().tolist() == [True] * 7 + [False] * 3


class Bare:
    """A schedule with what the interface names, and nothing else."""

    def __init__(self, t: np.ndarray) -> None:
        inner = FlowEuler(t)
        self.sigmas, self.step = torch.from_numpy(inner.sigmas), inner.step
        self.to_ve, self.from_ve, self.to_x0, self.from_x0 = (
            inner.to_ve, inner.from_ve, inner.to_x0, inner.from_x0,
        )  # fmt: skip


@pytest.mark.parametrize("mode", RULES)
def test_a_schedule_needs_no_more_than_the_interface(mode: str, gaussian, known) -> None:
    """The space of outputs may be the denoiser's to say: then "worldforge" corrects in it."""
    warp, seen = known
    t = np.linspace(0.98, 0.02, 8)
    x = start(2, 1.0)

    class Flow(Gaussian):
        prediction = "flow"

    outs = [
        guided_sample(
            Flow(gaussian.covariance), schedule, x, warp, seen, 0.6, mode, torch.Generator().manual_seed(2)
        )
        for schedule in (Bare(t), FlowEuler(t))
    ]
    assert torch.equal(*outs)
    falling = Bare(t)
    falling.sigmas = falling.sigmas.flip(0)
    with pytest.raises(ValueError, match="decrease"):
        guided_sample(gaussian, falling, x, warp, seen, 0.6, mode)


@pytest.mark.parametrize("prediction", ["eps", "v", "flow", "x0"])
def test_plain_levels_take_any_prediction(prediction: str, gaussian, known) -> None:
    """A network that carries its raw output is sampled as one that says clean estimates."""
    warp, seen = known
    levels = karras(12, 0.01, 20.0)
    space = EulerVE(levels, prediction)

    class Raw:
        def __init__(self) -> None:
            self.prediction = prediction

        def output(self, x: torch.Tensor, i: int) -> torch.Tensor:
            return space.from_x0(gaussian(x, float(levels[i])), i, x)

    x = start(3, 20.0)
    for lam in (0.0, 0.6):
        raw, clean = (guided_sample(d, levels, x, warp, seen, lam) for d in (Raw(), gaussian))
        assert torch.allclose(raw, clean, rtol=0, atol=1e-10)


@pytest.mark.parametrize("mode", RULES)
def test_one_frame_all_seen_or_none(mode: str) -> None:
    one = Gaussian(correlated(1))
    levels, x = karras(6, 0.01, 20.0), 20 * torch.randn(2, 1, 1, 1, 2, dtype=torch.float64)
    warp = torch.tensor([0.5, -0.4], dtype=torch.float64).view(1, 1, 1, 1, 2)
    every = torch.ones(1, 1, 1, 1, 2, dtype=torch.bool)
    plain = guided_sample(one, levels, x, None, None, None)
    for seen in (every, ~every):
        g = torch.Generator().manual_seed(0)
        out = guided_sample(one, levels, x, warp, seen, 1.0, mode, g)
        assert torch.isfinite(out).all() and out.shape == x.shape
        if seen.any() and mode in ("dgs", "exact-likelihood", "repo-dgs"):
            assert torch.allclose(out, warp.expand_as(out), rtol=0, atol=1e-9)
        if not seen.any() and mode in ("dgs", "posterior", "exact-likelihood"):
            assert torch.allclose(out, plain, rtol=0, atol=1e-12)


def test_the_released_posterior_needs_no_gradient(known) -> None:
    class NoGradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 0.5 * x

        @staticmethod
        def backward(ctx, gradient):
            raise AssertionError("the network's gradient was asked for")

    warp, seen = known
    x = start(2, 10)
    out = guided_sample(
        lambda x, s: NoGradient.apply(x), karras(5, 0.01, 10), x, warp, seen, 0.7, "repo-posterior"
    )
    assert torch.isfinite(out).all()
    with pytest.raises(ValueError, match="autograd does not follow"):
        guided_sample(lambda x, s: 0.5 * x.detach(), [10.0, 1.0, 0.0], x, warp, seen, 0.7, "posterior")
    with pytest.raises(AssertionError, match="was asked for"):
        guided_sample(lambda x, s: NoGradient.apply(x), karras(5, 0.01, 10), x, warp, seen, 0.7, "posterior")


def test_worldforge_draws_once_a_guided_step_in_order(gaussian, known) -> None:
    warp, seen = known
    levels = karras(20)
    guided = int((levels[:-1] >= 5.5).sum())
    g, h = (torch.Generator().manual_seed(7) for _ in range(2))
    guided_sample(gaussian, levels, start(2, 700), warp, seen, 1.0, "worldforge", g)
    for _ in range(guided):
        torch.randn(2, 1, 4, 1, 2, generator=h, dtype=torch.float64)
    assert torch.equal(torch.randn(3, generator=g), torch.randn(3, generator=h))
    assert 0 < guided < 20


def test_only_worldforge_draws(gaussian, known) -> None:
    warp, seen = known
    before = torch.random.get_rng_state()
    for mode in set(RULES) - {"worldforge"}:
        guided_sample(gaussian, karras(4), start(1, 700), warp, seen, 0.5, mode)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_bad_input(gaussian, known) -> None:
    warp, seen = known
    x, levels = start(2, 700), karras(4)
    cases = [
        ((levels[::-1], x, warp, seen, 0.5, None), "decrease"),
        ((levels, x, warp, seen, np.full((4, 4), np.nan), None), "NaN"),
        ((levels, x, warp, seen, 1.5, None), r"in \[0, 1\]"),
        ((levels, x, warp, seen, np.ones((3, 4)), None), r"\[4, 4\]"),
        ((levels, x, warp[:, :, :2], seen, 0.5, None), "warp: needs"),
        ((levels, x, warp, seen.double(), 0.5, None), "seen: needs bool"),
        ((levels, x, None, None, 0.5, None), "need a warp"),
        ((levels, x[0], warp, seen, 0.5, None), "x: needs"),
        ((levels, x, warp / 0, seen, 0.5, None), "not finite"),
        ((levels, x, warp, seen, 0.5, "best"), "mode: dgs"),
    ]
    for arguments, words in cases:
        with pytest.raises(ValueError, match=words):
            guided_sample(gaussian, *arguments)
    assert torch.equal(kept(x, -x, torch.ones(1, 1, 4, 1, 1)), -x)
