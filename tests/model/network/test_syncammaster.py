"""SynCamMaster's checkpoint: outputs of the released code, and an account of every key."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from orbit4d.datasets.core.errors import InputError
from orbit4d.model import OrbitWan, export_syncammaster, load_syncammaster, save_views
from orbit4d.model.network.wan_keys import base_table, view_table

SIZE = {"text_dim": 10, "freq_dim": 16, "ffn_dim": 32}


@pytest.fixture(scope="module")
def loud(network: Callable[..., OrbitWan]) -> OrbitWan:
    return network(loud=True)


@pytest.fixture
def released(tmp_path: Path, loud: OrbitWan) -> Path:
    export_syncammaster(loud, tmp_path / "step.ckpt")
    return tmp_path / "step.ckpt"


@torch.no_grad()
def test_round_trip(released: Path, loud: OrbitWan, inputs: Callable[..., dict[str, Any]]) -> None:
    net = load_syncammaster(released, heads=2)
    assert torch.equal(net(**inputs()).sample, loud(**inputs()).sample)
    assert not net.training
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in net.parameters())


def test_half_precision_files_come_out_in_float32(released: Path) -> None:
    halves = {k: v.bfloat16() for k, v in torch.load(released, weights_only=True).items()}
    torch.save(halves, released)
    assert {p.dtype for p in load_syncammaster(released, heads=2).parameters()} == {torch.float32}


def drop(tensors: dict[str, Any], key: str) -> None:
    del tensors[key]


def add(tensors: dict[str, Any], key: str) -> None:
    tensors[key + ".extra"] = torch.zeros(2)


def cut(tensors: dict[str, Any], key: str) -> None:
    tensors[key] = tensors[key][:-1]


def widen(tensors: dict[str, Any], key: str) -> None:
    tensors[key] = torch.cat([tensors[key], tensors[key][..., :1]], dim=-1)


@pytest.mark.parametrize("damage", [drop, add, cut])
def test_every_damage_of_one_key_is_named(released: Path, damage: Callable[..., None]) -> None:
    whole = torch.load(released, weights_only=True)
    # One block stands for all of them.
    for key in (key for key in whole if not key.startswith(("blocks.0.", "blocks.2."))):
        tensors = dict(whole)
        if damage is cut and whole[key].shape[0] == 1:
            widen(tensors, key)
        else:
            damage(tensors, key)
        torch.save(tensors, released)
        with pytest.raises(InputError) as error:
            load_syncammaster(released, heads=2)
        assert key in str(error.value) and "\n" not in str(error.value), key


def test_stray_block_is_unknown_not_a_deeper_network(released: Path) -> None:
    tensors = torch.load(released, weights_only=True)
    tensors["blocks.7.self_attn.q.weight"] = torch.zeros(24, 24)
    torch.save(tensors, released)
    with pytest.raises(InputError, match=r"1 unknown keys: blocks\.7\.self_attn\.q\.weight$"):
        load_syncammaster(released, heads=2)


def plain(net: OrbitWan) -> dict[str, torch.Tensor]:
    state = net.state_dict()
    return {key: state[name].clone() for key, name in base_table(3).items()}


def test_plain_wan_in_every_layout_gets_a_fresh_module(
    tmp_path: Path, loud: OrbitWan, inputs: Callable[..., dict[str, Any]]
) -> None:
    original, folder, pipeline = tmp_path / "original", tmp_path / "diffusers", tmp_path / "pipeline"
    original.mkdir()
    config = {"_class_name": "WanModel", "dim": 24, "num_heads": 2, "ffn_dim": 32, "eps": 1e-6, "text_len": 9}
    (original / "config.json").write_text(json.dumps(config))
    save_file(plain(loud), original / "diffusion_pytorch_model.safetensors")
    loud.wan.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    loud.wan.save_pretrained(pipeline / "transformer")
    save_file(plain(loud), tmp_path / "file.safetensors")
    given = inputs()
    base = loud(**{**given, "camera": None}).sample
    for place in (original, folder, pipeline, tmp_path / "file.safetensors"):
        net = load_syncammaster(place, heads=2)
        assert len(net.view_sync) == 3
        assert torch.equal(net(**given).sample, base), place
        assert torch.equal(net.view_sync["1"].attn.to_q.weight, net.wan.blocks[1].attn1.to_q.weight)
    # heads come from the configuration where there is one
    assert torch.equal(load_syncammaster(folder)(**given).sample, base)
    assert list(load_syncammaster(folder, view_blocks=(0, 2)).view_sync) == ["0", "2"]
    shutil.rmtree(pipeline)


def test_view_module_alone_goes_onto_a_base(
    tmp_path: Path,
    released: Path,
    loud: OrbitWan,
    network: Callable[..., OrbitWan],
    inputs: Callable[..., dict[str, Any]],
) -> None:
    loud.wan.save_pretrained(tmp_path / "wan")
    views = {k: v for k, v in torch.load(released, weights_only=True).items() if k in view_table(range(3))}
    torch.save(views, tmp_path / "views.ckpt")
    save_views(loud, tmp_path / "views")
    given = inputs()
    for path in (tmp_path / "views.ckpt", tmp_path / "views"):
        net = load_syncammaster(path, base=tmp_path / "wan")
        assert torch.equal(net(**given).sample, loud(**given).sample)
    with pytest.raises(InputError, match="view module alone; give base="):
        load_syncammaster(tmp_path / "views.ckpt", heads=2)
    other = network(num_layers=2)
    with pytest.raises(InputError, match="holds 3 blocks of width 24, the base has 2 of 24"):
        load_syncammaster(tmp_path / "views.ckpt", base=other)
    key = "blocks.1.mvs_attn.norm_k.weight"
    torch.save({k: v for k, v in views.items() if k != key}, tmp_path / "views.ckpt")
    with pytest.raises(InputError, match=key):
        load_syncammaster(tmp_path / "views.ckpt", base=tmp_path / "wan")


def test_folder_of_ours_comes_back_whole(
    tmp_path: Path, network: Callable[..., OrbitWan], inputs: Callable[..., dict[str, Any]]
) -> None:
    net = network(loud=True, view_blocks=(0, 2), view_index=False, motion=True)
    net.save_pretrained(tmp_path / "own")
    again = load_syncammaster(tmp_path / "own")
    assert torch.equal(again(**inputs(), motion=[0.1, 0.2]).sample, net(**inputs(), motion=[0.1, 0.2]).sample)


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({}, "width 24 does not tell the number of heads: give heads="),
        ({"heads": 5}, "no 5 heads"),
        ({"heads": 2, "num_attention_heads": 4}, "give one"),
        ({"heads": 2, "ffn_dim": 48}, "of another shape"),
        ({"heads": 2, "fnn_dim": 32}, "takes no fnn_dim="),
        ({"heads": 2, "attention_head_dim": 24}, "2 heads of 24 do not make its width 24"),
        ({"heads": 2, "view_blocks": (0,)}, "holds a view module of its own"),
    ],
)
def test_what_does_not_fit_is_one_line(released: Path, kwargs: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        load_syncammaster(released, **kwargs)
    assert "\n" not in str(error.value)


def test_what_is_no_wan_file_is_said(tmp_path: Path) -> None:
    torch.save({"input_blocks.0.weight": torch.zeros(2)}, tmp_path / "unet.pth")
    with pytest.raises(InputError, match="neither Wan nor view tensors, but a VideoMV"):
        load_syncammaster(tmp_path / "unet.pth")
    with pytest.raises(InputError, match="no such file or folder"):
        load_syncammaster(tmp_path / "nowhere.ckpt")
    with pytest.raises(InputError, match="holds no Wan transformer"):
        load_syncammaster(tmp_path)


def test_table_is_the_published_list(shared: Path) -> None:
    with gzip.open(shared / "fixtures/syncammaster/full_keys.json.gz") as file:
        listed = json.load(file)
    table = base_table(30) | view_table(range(30))
    assert set(table) == set(listed["shapes"])
    with torch.device("meta"):
        state = OrbitWan(**listed["config"], view_blocks="all").state_dict()
    assert {key: list(state[name].shape) for key, name in table.items()} == listed["shapes"]


@torch.no_grad()
def test_outputs_of_the_released_code(shared: Path) -> None:
    folder = shared / "fixtures/syncammaster"
    heads = json.loads((folder / "config.json").read_text())["heads"]
    net, stored = load_syncammaster(folder / "tiny.ckpt", heads=heads), np.load(folder / "network.npz")
    for case in json.loads((folder / "cases.json").read_text()):
        names = ("hidden_states", "timestep", "encoder_hidden_states", "camera", "sample")
        given = {n: torch.from_numpy(stored[key]) for n in names if (key := f"{case['name']}/{n}") in stored}
        expected = given.pop("sample")
        out = net(**given, views=case["views"]).sample
        torch.testing.assert_close(out, expected, atol=1e-4, rtol=0, msg=lambda m: f"{case['name']}: {m}")  # noqa: B023
