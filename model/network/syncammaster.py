"""SynCamMaster's checkpoint and plain Wan weights as an `OrbitWan`.

    net = load_syncammaster("step20000.ckpt")                       # 825 base + 450 added tensors
    net = load_syncammaster("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")     # a fresh view module
    net = load_syncammaster("views.ckpt", base="Wan2.1-T2V-1.3B")   # the added tensors alone

Every key of a file and every tensor of the network is accounted for: one that no rule takes, one that is
missing and one of another shape are each an error that names it. Sizes are read off the shapes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed
from torch import Tensor

from orbit4d.datasets.core.atomic import write_json
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.nearest import or_known
from orbit4d.model.network.wan import OrbitWan
from orbit4d.model.network.wan_files import read_settings, read_weights
from orbit4d.model.network.wan_keys import Layout, base_table, view_table
from orbit4d.model.weights.files import describe_keys, listed

#: Width of a head in every published Wan network.
HEAD_DIM = 128
#: Arguments of `WanTransformer3DModel`.
ARGUMENTS = (
    "patch_size", "num_attention_heads", "attention_head_dim", "in_channels", "out_channels", "text_dim",
    "freq_dim", "ffn_dim", "num_layers", "cross_attn_norm", "qk_norm", "eps", "image_dim",
    "added_kv_proj_dim", "rope_max_seq_len", "pos_embed_seq_len",
)  # fmt: skip


def load_syncammaster(
    path: str | Path,
    heads: int | None = None,
    *,
    base: OrbitWan | str | Path | None = None,
    view_blocks: Iterable[int] | str | None = None,
    **kwargs: Any,
) -> OrbitWan:
    """An `OrbitWan` (float32, CPU, eval mode) from SynCamMaster's checkpoint or plain Wan weights.

    Args:
        path: the checkpoint file (`step20000.ckpt`; .pth, .pt, .bin or .safetensors), a folder of Wan in
            diffusers' layout or as the Wan team publishes it, a hub name, a folder of `OrbitWan` or of
            `save_views`.
        heads: number of heads, where the width is no multiple of 128.
        base: for a file with the added tensors alone: the network they go onto, or where it is.
        view_blocks: for weights without a view module: blocks that get a fresh one (default: all).
        kwargs: arguments of `WanTransformer3DModel`; what the shapes tell must agree with them.

    Call it as `(hidden_states [B V, 16, F, H, W], timestep [B V] or [1], encoder_hidden_states [B V, L, C],
    camera [B V, F, 12], views=V).sample`; with `views=1, camera=None` it is the base.

    Raises InputError: no such file, unknown, missing or misshapen tensors, heads that do not fit.
    """
    for name in kwargs:
        if name not in ARGUMENTS:
            raise InputError(f"load_syncammaster takes no {name}=; {or_known(name, ARGUMENTS)}")
    tensors, known = read_weights(str(path))
    settings = {**known, **kwargs}
    given = settings.get("num_attention_heads", heads)
    if heads is not None and given != heads:
        raise InputError(f"{path}: heads={heads}, but num_attention_heads={given}: give one")
    if given is not None:
        settings["num_attention_heads"] = given
    own = settings.pop("own", None)
    kind = _kind(str(path), tensors)
    if kind == "views":
        return _onto_base(str(path), tensors, own, base, heads, kwargs)
    if base is not None:
        raise InputError(f"{path}: holds a whole network, base= is for the added tensors alone")
    if view_blocks and (kind == "both" or own is not None):
        raise InputError(f"{path}: holds a view module of its own; leave view_blocks out")
    net = _network(str(path), tensors, settings, own, kind == "both")
    if own is None and kind == "base":
        net.add_views("all" if view_blocks is None else view_blocks)
    return net.eval()


def load_onto(base: str | Path, checkpoint: str | Path) -> OrbitWan:
    """The network of a Wan folder (or hub name) with the view module of `checkpoint`: SynCamMaster's whole
    file, whose base tensors then count, or one with the added tensors alone. InputError where they do not
    fit."""
    tensors, _ = read_weights(str(checkpoint))
    kind = _kind(str(checkpoint), tensors)
    if kind == "views":
        return load_syncammaster(checkpoint, base=base)
    if kind == "base":
        raise InputError(f"{checkpoint}: holds no view tensors: give SynCamMaster's checkpoint, or train one")
    known = read_settings(str(base))
    heads, blocks = known.get("num_attention_heads"), known.get("num_layers")
    found = Layout.of(tensors).sizes(tensors)
    width = None if heads is None else heads * known.get("attention_head_dim", HEAD_DIM)
    if heads is not None and (width, blocks) != (found["width"], found["num_layers"]):
        raise InputError(
            f"{checkpoint}: holds {found['num_layers']} blocks of width {found['width']}, the base has "
            f"{blocks} of {width}"
        )
    return load_syncammaster(checkpoint, heads)


def _kind(path: str, tensors: Mapping[str, Tensor]) -> str:
    """ "base", "views" or "both", by what most blocks have; InputError for neither."""
    layout = Layout.of(tensors)
    expected_base, expected_views = layout.base(tensors), layout.views(tensors)
    base = 2 * len(expected_base & tensors.keys()) >= len(expected_base)
    views = bool(expected_views) and 2 * len(expected_views & tensors.keys()) >= len(expected_views)
    if not base and not views:
        raise InputError(
            f"{path}: holds neither Wan nor view tensors, but {describe_keys(tensors)}: give SynCamMaster's "
            "checkpoint or a Wan folder"
        )
    return "both" if base and views else "base" if base else "views"


def _network(
    path: str, tensors: Mapping[str, Tensor], settings: dict[str, Any], own: Any, with_views: bool
) -> OrbitWan:
    layout = Layout.of(tensors)
    config = _sizes(path, layout, tensors, settings)
    extra = dict(own or {})
    if with_views and own is None:
        extra["view_blocks"] = "all"
    with torch.device("meta"):
        net = OrbitWan(**config, **extra)
    table = layout.table(net)
    _fill(path, net, tensors, table)
    # Its tables are no weights, and are made of numbers.
    net.wan.rope = WanRotaryPosEmbed(
        net.config.attention_head_dim, tuple(net.config.patch_size), net.config.rope_max_seq_len
    )
    return net


def _fill(path: str, net: OrbitWan, tensors: Mapping[str, Tensor], table: Mapping[str, str]) -> None:
    """Put tensors into a network on the meta device; every key and every tensor is accounted for."""
    targets = net.state_dict()
    table = {key: name for key, name in table.items() if name in targets}
    account(path, tensors, {key: tuple(targets[name].shape) for key, name in table.items()})
    # Copies: a mapped file's tensors start anywhere, and kernels then take other paths.
    state = {name: tensors[key].detach().to(torch.float32, copy=True) for key, name in table.items()}
    net.load_state_dict(state, strict=True, assign=True)
    net.requires_grad_(True)


def account(path: str, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """InputError that names the keys of `tensors` that are unknown, missing, or of another shape."""
    unknown = [key for key in tensors if key not in shapes]
    missing = [key for key in shapes if key not in tensors]
    misfit = [
        f"{key} {tuple(tensors[key].shape)} for {shape}"
        for key, shape in shapes.items()
        if key in tensors and tuple(tensors[key].shape) != shape
    ]
    found = (("unknown keys", unknown), ("missing tensors", missing), ("of another shape", misfit))
    said = "; ".join(f"{len(names)} {what}: {listed(names)}" for what, names in found if names)
    if said:
        raise InputError(f"{path}: does not fit the network ({len(shapes)} tensors): {said}")


def _onto_base(
    path: str,
    tensors: Mapping[str, Tensor],
    own: Any,
    base: OrbitWan | str | Path | None,
    heads: int | None,
    kwargs: Mapping[str, Any],
) -> OrbitWan:
    if base is None:
        raise InputError(f"{path}: holds the view module alone; give base=, the Wan weights it goes onto")
    if isinstance(base, str | Path):
        base = load_syncammaster(base, heads, view_blocks=(), **kwargs)
    layout = Layout.of(tensors)
    blocks = layout.view_blocks(tensors)
    width = Counter(value.shape[-1] for value in tensors.values() if value.ndim == 3).most_common(1)
    d = width[0][0] if width else 0
    own_d = base.config.num_attention_heads * base.config.attention_head_dim
    count = len(base.wan.blocks)
    released = own is None
    if d != own_d or (released and len(blocks) != count) or any(block >= count for block in blocks):
        raise InputError(f"{path}: holds {len(blocks)} blocks of width {d}, the base has {count} of {own_d}")
    base.view_sync.clear()
    if own and own.get("view_index") is not None:
        base.register_to_config(view_index=own["view_index"])
    base.add_views(blocks)
    table = layout.view_names(blocks)
    targets = base.state_dict()
    account(path, tensors, {key: tuple(targets[name].shape) for key, name in table.items()})
    state = {name: tensors[key].float() for key, name in table.items()}
    base.load_state_dict(state, strict=False)
    return base.eval()


def _sizes(
    path: str, layout: Layout, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments of the network: what the shapes tell, joined with what is given."""
    known = layout.sizes(tensors)
    lacking = [name for name in ("text_dim", "freq_dim", "in_channels") if name not in {**known, **settings}]
    if lacking:
        raise InputError(f"{path}: missing tensors: {listed(layout.tells(name) for name in lacking)}")
    width = known.pop("width")
    heads = settings.get("num_attention_heads")
    if heads is None and width % HEAD_DIM == 0:
        heads = width // HEAD_DIM
    if heads is None:
        raise InputError(f"{path}: the width {width} does not tell the number of heads: give heads=")
    heads = int(heads)
    if heads < 1 or width % heads or (width // heads) % 2:
        raise InputError(f"{path}: a width of {width} has no {heads} heads of an even width")
    if settings.get("attention_head_dim", width // heads) != width // heads:
        raise InputError(
            f"{path}: {heads} heads of {settings['attention_head_dim']} do not make its width {width}"
        )
    shape = {"num_attention_heads": heads, "attention_head_dim": width // heads}
    # What is given counts: tensors that are of another size are then named by `account`.
    config = {name: value for name, value in {**known, **settings, **shape}.items() if name in ARGUMENTS}
    config["patch_size"] = tuple(config["patch_size"])
    return config


def save_views(net: OrbitWan, folder: str | Path) -> None:
    """Write the view module alone (config.json, model.safetensors); `load_syncammaster(folder, base=...)`
    puts it onto a base. InputError for a network that has none."""

    from safetensors.torch import save_file

    from orbit4d.datasets.core.atomic import replacing_folder

    state = {k: v.detach().float().contiguous().cpu() for k, v in net.state_dict().items()}
    state = {k: v for k, v in state.items() if k.startswith("view_sync.")}
    if not state:
        raise InputError("this network has no view module to save")
    config = {
        "_class_name": "ViewSync",
        "view_blocks": list(net.config.view_blocks),
        "view_index": net.config.view_index,
        "width": net.config.num_attention_heads * net.config.attention_head_dim,
        "blocks": len(net.wan.blocks),
    }
    with replacing_folder(Path(folder)) as draft:
        save_file(state, draft / "model.safetensors")
        write_json(draft / "config.json", config)


def export_syncammaster(net: OrbitWan, path: str | Path) -> None:
    """Write the network in the layout of `step20000.ckpt`: what the released code reads.

    InputError for parts that the layout has no place for: a view module in some blocks only, orbit cameras,
    motion, a convolution for conditions.
    """
    table = base_table(len(net.wan.blocks), net.config.image_dim is not None)
    table |= view_table(range(len(net.wan.blocks)))
    state = net.state_dict()
    if set(table.values()) != set(state):
        lacking = sorted(set(table.values()) ^ set(state))
        raise InputError(f"{path}: SynCamMaster's layout has no place for this network: {listed(lacking)}")
    torch.save({key: state[name].detach().float().cpu().clone() for key, name in table.items()}, path)
