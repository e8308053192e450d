"""Published layouts at full size on the meta device, and what a step needs of a card."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from orbit4d.model.compute.live import peak_of
from orbit4d.model.distill.memory import GIB, encoder_graph, prior_memory, stage_plan
from orbit4d.model.distill.scores import layouts

#: Published numbers of parameters.
PARAMETERS = {"sd15": 859_520_964, "zero123": 859_532_484, "modelscope": 1_411_233_860}


@pytest.mark.parametrize("name", PARAMETERS)
def test_networks_have_their_published_size(name: str) -> None:
    assert sum(p.numel() for p in layouts.network(name).parameters()) == PARAMETERS[name]


def test_control_and_autoencoder_have_their_published_size() -> None:
    assert sum(p.numel() for p in layouts.control().parameters()) == 361_279_120
    assert sum(p.numel() for p in layouts.autoencoder().parameters()) == 83_653_863


@pytest.mark.shared
def test_names_and_shapes_are_the_published_ones(shared: Path) -> None:
    facts = json.loads((shared / "fixtures" / "score_distillation" / "layouts.json").read_text())
    for key, module in (
        ("sd15/unet", layouts.network("sd15")),
        ("zero123/unet", layouts.network("zero123-xl")),
        ("modelscope/unet", layouts.network("zeroscope")),
        ("controlnet-tile", layouts.control()),
        ("vae", layouts.autoencoder()),
    ):
        assert digest(module) == facts[key]["full"]["digest"], key


def digest(module: nn.Module) -> str:
    lines = [f"{k} {'x'.join(map(str, v.shape))}" for k, v in module.state_dict().items()]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def test_a_peak_counts_what_lives_at_one_time_and_no_views() -> None:
    """Three layers of 1 MiB each way hold two activations at a time; the weights' views add nothing."""
    network = nn.Sequential(*(nn.Linear(512, 512, device="meta") for _ in range(3)))
    x = torch.empty(512, 512, device="meta")
    assert peak_of(lambda: network(x)) == 2 * 512 * 512 * 4
    assert peak_of(lambda: [layer(x) for layer in network]) == 3 * 512 * 512 * 4


def test_encoder_graphs_are_those_derived_for_the_plan() -> None:
    """GiB a frame in bfloat16, score-distillation's table, within 5 %."""
    for size, gib in (((256, 256), 0.372), ((512, 512), 1.481)):
        assert encoder_graph(size) / GIB == pytest.approx(gib, rel=0.05)


def test_weights_and_passes_of_the_priors() -> None:
    sd = prior_memory("sd15", 1)
    assert sd.weights / GIB == pytest.approx(1.60 + 0.16, rel=0.01)
    # 2 x 4 x 64^2: the published 0.63 less the 0.503 of linear weights, which it counts a second time.
    assert sd.peak / GIB == pytest.approx(0.63 - 0.503, rel=0.15)
    assert prior_memory("zero123", 1).peak < sd.peak


def test_two_passes_and_offload_each_need_less_and_say_so() -> None:
    priors = [prior_memory("sd15", 1), prior_memory("zero123-xl", 8)]
    plan = stage_plan("motion", priors, 20_000)
    totals = [plan.total(False), plan.total(True), plan.total(True, "idle"), plan.total(True, "sequential")]
    assert totals == sorted(totals, reverse=True) and len(set(totals)) == 4
    assert plan.mode(totals[3] / GIB) == "two-pass, offload sequential"
    assert all(f"{total / GIB:.1f}" in plan.row() for total in totals)
    # What is left out of the card is what the networks have, less the one that is in its turn.
    networks = [prior.weights - prior.staying for prior in priors]
    assert totals[1] - totals[2] == pytest.approx(1.1 * min(networks), abs=2)
    assert totals[2] - totals[3] == pytest.approx(1.1 * (max(networks) - priors[0].block), abs=2)
    assert priors[0].block < networks[0] / 3 and plan.moved == 2 * sum(networks)
    assert plan.mode(1000) == "one graph" and plan.mode(1) == "does not fit"
    assert plan.mode(plan.total(True) / GIB) == "two-pass"
    assert "24 GiB" in plan.row() and "sd15" in plan.row()
    two = stage_plan("motion", priors, 40_000)
    # Only the Gaussians grew: 14 numbers of 16 bytes, x 1.1.
    assert two.total(True) - plan.total(True) == pytest.approx(20_000 * 14 * 16 * 1.1, abs=2)
