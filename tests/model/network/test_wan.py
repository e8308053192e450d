"""OrbitWan: what is added starts at exactly 0, views stay apart where they must, learning reaches it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from orbit4d.datasets.cameras.camera import orbit_c2w
from orbit4d.model import OrbitWan, view_cameras


def off(given: dict[str, Any]) -> dict[str, Any]:
    return {**given, "camera": None}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_fresh_module_adds_exactly_nothing(
    dtype: torch.dtype,
    checkpointing: bool,
    network: Callable[..., OrbitWan],
    inputs: Callable[..., dict[str, Any]],
) -> None:
    net, given = network().to(dtype), inputs(2)
    if checkpointing:
        net.enable_gradient_checkpointing()
        net.train()
    assert torch.equal(net(**given).sample, net(**off(given)).sample)


def test_walk_is_diffusers_forward_and_views_are_independent_runs(
    network: Callable[..., OrbitWan], inputs: Callable[..., dict[str, Any]]
) -> None:
    net, given = network(), inputs(1)
    plain = WanTransformer3DModel(**{k: v for k, v in net.wan.config.items() if not k.startswith("_")})
    plain.load_state_dict(net.wan.state_dict())
    alone = [
        plain.eval()(
            given["hidden_states"][i : i + 1],
            given["timestep"][i : i + 1],
            given["encoder_hidden_states"][i : i + 1],
        ).sample
        for i in range(2)
    ]
    # diffusers makes the sinusoid in float32: up to 6e-5 in phase.
    torch.testing.assert_close(net(**given).sample, torch.cat(alone), atol=1e-4, rtol=0)


@torch.no_grad()
def test_scenes_do_not_mix(network: Callable[..., OrbitWan], inputs: Callable[..., dict[str, Any]]) -> None:
    net, given = network(loud=True), inputs(2)
    halves = [{k: v[i : i + 2] if torch.is_tensor(v) else v for k, v in given.items()} for i in (0, 2)]
    both = torch.cat([net(**half).sample for half in halves])
    torch.testing.assert_close(net(**given).sample, both, atol=1e-5, rtol=0)
    assert (net(**given).sample - net(**off(given)).sample).abs().max() > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("view_index", [False, True])
def test_views_permuted_with_their_cameras(
    view_index: bool, network: Callable[..., OrbitWan], inputs: Callable[..., dict[str, Any]]
) -> None:
    net, given = network(loud=True, view_index=view_index), inputs(1, 3)
    order = torch.tensor([2, 0, 1])
    moved = {k: v[order] if torch.is_tensor(v) else v for k, v in given.items()}
    difference = (net(**moved).sample - net(**given).sample[order]).abs().max()
    # The released form tells views by their index too.
    assert (difference > 1e-3) if view_index else (difference < 1e-5)


@torch.no_grad()
def test_module_looks_at_the_same_frame_of_the_other_views_alone(
    network: Callable[..., OrbitWan], inputs: Callable[..., dict[str, Any]]
) -> None:
    net, given = network(loud=True), inputs(1, 3, 3)
    sync, (tokens,) = net.view_sync["0"], (torch.randn(3, 18, 24),)
    rotary = tuple(torch.randn(1, 18, 1, 12) for _ in range(2))
    t = torch.randn(1, 6, 24)

    def added(hidden: torch.Tensor) -> torch.Tensor:
        return sync(hidden, t, given["camera"], 3, rotary) - hidden

    changed = tokens.clone()
    changed[1, 6:12] += torch.randn(6, 24)  # view 1, frame 1
    difference = (added(changed) - added(tokens)).abs().unflatten(1, (3, 6)).amax((2, 3))
    assert (difference[:, 1] > 1e-4).all()
    assert float(difference[:, [0, 2]].max()) < 1e-6


def test_cameras_do_not_depend_on_the_world() -> None:
    c2w = np.array([[orbit_c2w(a, 20.0, 2.5)] * 3 for a in (0.0, 40.0, 200.0)])
    turn = orbit_c2w(77.0, 33.0, 1.7)
    np.testing.assert_allclose(view_cameras(turn @ c2w), view_cameras(c2w), atol=1e-6)
    identity = np.tile(np.eye(3, 4).reshape(12), (3, 1))
    np.testing.assert_allclose(view_cameras(c2w)[0], identity, atol=1e-15)


def test_only_the_projector_learns_first_and_then_all(
    network: Callable[..., OrbitWan], inputs: Callable[..., dict[str, Any]]
) -> None:
    net, given = network(), inputs(1)
    net.requires_grad_(False)
    net.view_sync.requires_grad_(True)
    base = digest(net)
    before = {name: value.clone() for name, value in net.view_sync.named_parameters()}
    optimizer = torch.optim.AdamW(net.view_parameters(), lr=1e-2)
    for step in range(4):
        optimizer.zero_grad()
        net(**given).sample.square().mean().backward()
        moving = {n for n, p in net.view_sync.named_parameters() if p.grad is not None and p.grad.any()}
        if step == 0:
            assert moving == {n for n in before if "projector" in n}
        if step == 1:
            # The key's bias shifts all scores of a query alike, which a softmax does not see.
            assert {n for n in before if not n.endswith("to_k.bias")} <= moving
        optimizer.step()
    assert digest(net) == base
    assert all(not torch.equal(p, before[n]) for n, p in net.view_sync.named_parameters())


def digest(net: OrbitWan) -> str:
    sha = hashlib.sha256()
    for name, value in sorted(net.wan.state_dict().items()):
        sha.update(name.encode() + value.numpy().tobytes())
    return sha.hexdigest()


@torch.no_grad()
@pytest.mark.parametrize("part", ["orbit_camera", "motion", "condition"])
def test_conditions_start_at_exactly_nothing_and_can_learn(
    part: str, network: Callable[..., OrbitWan], inputs: Callable[..., dict[str, Any]]
) -> None:
    net, given = network(view_blocks=(), **{part: True}), off(inputs(2, 1))
    more = {
        "orbit_camera": inputs(2, 1)["camera"] + 0.1,
        "motion": [0.01, None],
        "condition": torch.randn(2, 20, 2, 4, 6),
    }[part]
    plain = net(**given).sample
    assert torch.equal(net(**given, **{part: more}).sample, plain)
    for name, parameter in net.named_parameters():
        if not name.startswith(("wan.", "view_sync.")):
            torch.nn.init.normal_(parameter, std=0.2)
    told = net(**given, **{part: more}).sample
    assert (told[0] - plain[0]).abs().max() > 1e-3
    if part == "motion":  # a row that is not told its motion is the base's
        assert torch.equal(told[1], plain[1])


def test_saved_and_loaded(
    tmp_path: Any, network: Callable[..., OrbitWan], inputs: Callable[..., dict[str, Any]]
) -> None:
    net, given = network(loud=True, view_blocks=(0, 2), motion=True), inputs(1)
    net.save_pretrained(tmp_path)
    again = OrbitWan.from_pretrained(tmp_path).eval()
    assert list(again.view_sync) == ["0", "2"]
    assert torch.equal(again(**given).sample, net(**given).sample)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"views": 3}, "views=3 does not divide the batch of 2"),
        ({"camera": torch.zeros(2, 3, 12)}, "camera must be (2, 2, 12)"),
        ({"timestep": torch.zeros(3)}, "timestep holds 3 values"),
        ({"orbit_camera": torch.zeros(2, 2, 12)}, "takes no orbit camera"),
        ({"hidden_states": torch.zeros(2, 16, 2, 5, 6)}, "no multiple of"),
        ({"hidden_states": torch.zeros(2, 12, 2, 4, 6)}, "takes 16 input channels"),
    ],
)
def test_what_does_not_fit_is_refused(
    change: dict[str, Any], said: str, network: Callable[..., OrbitWan], inputs: Callable[..., dict[str, Any]]
) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(").replace(")", r"\)")):
        network()(**{**inputs(1), **change})


def test_full_size() -> None:
    with torch.device("meta"):
        net = OrbitWan(view_blocks="all")
        rows, camera = torch.empty(2, 16, 21, 60, 104), torch.empty(2, 21, 12)
        out = net(rows, torch.empty(1), torch.empty(2, 512, 4096), camera=camera, views=2).sample
    assert out.shape == rows.shape
    assert len(net.state_dict()) == 1275
    assert sum(p.numel() for p in net.parameters()) == 1_773_951_040
    assert sum(p.numel() for p in net.view_parameters()) == 354_954_240


@torch.no_grad()
def test_half_weights_keep_norms_and_tables(
    tmp_path: Any, network: Callable[..., OrbitWan], inputs: Callable[..., dict[str, Any]]
) -> None:
    net, given = network(loud=True), inputs(1)
    net.save_pretrained(tmp_path)
    half = OrbitWan.from_pretrained(tmp_path, torch_dtype=torch.bfloat16).eval()
    kept = {name for name, p in half.named_parameters() if p.dtype == torch.float32}
    assert {"wan.blocks.0.norm2.weight", "wan.scale_shift_table", "view_sync.0.scale_shift_table"} <= kept
    assert half.view_sync["0"].projector.weight.dtype == torch.bfloat16
    difference = (half(**given).sample.float() - net(**given).sample).abs().max()
    # 8 bits of mantissa; an exact pass of a network in bf16 does not exist.
    assert 0 < float(difference) < 0.3


def test_lora_on_the_base(network: Callable[..., OrbitWan], inputs: Callable[..., dict[str, Any]]) -> None:
    peft = pytest.importorskip("peft")
    net, given = network(loud=True), inputs(1)
    before = net(**given).sample
    net.add_adapter(peft.LoraConfig(r=2, target_modules=r"wan\.blocks\..*\.(to_q|to_k|to_v|to_out\.0)"))
    assert torch.equal(net(**given).sample, before)
    net(**given).sample.square().mean().backward()
    moving = {n for n, p in net.named_parameters() if p.requires_grad and p.grad is not None and p.grad.any()}
    assert any("lora_B" in name for name in moving)
    assert all("lora" in name for name in moving)
