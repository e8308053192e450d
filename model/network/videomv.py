"""VideoMV / VGen checkpoints in and out of `OrbitUNet`.

    unet = load_videomv("t2v_00333000.pth", variant="text")

A table of rules pairs module names of both layouts; every key of the file and every tensor of the network
must be accounted for. Two things are more than renaming: 1x1 temporal projections lose their last axis, and
`conv_in` of the image network takes in upstream's habit of adding the encoded image branch twice.
Source of the layout: alibaba/VideoMV, tools/modules/unet/unet_t2v.py and unet_i2vgen.py.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.nearest import or_known
from orbit4d.model.config.checks import UNET
from orbit4d.model.network.unet import OrbitUNet
from orbit4d.model.weights.files import describe_keys, listed, read_tensors
from orbit4d.model.weights.keymap import Rule, longest_match, rename

log = logging.getLogger(__name__)

#: Left out of every file: the reconstruction net that VideoMV saves along with some of its UNets.
DROPPED_PREFIX = "lgm_big."
#: Ours alone: no VideoMV file has them, and an export leaves them out.
OWN_PREFIXES = ("motion_embedding.", "frame_embedding.")

#: Temporal attention projects with 1x1 convolutions [out, in, 1] upstream, with linear layers in diffusers.
TEMPORAL = (".proj_in.weight", ".proj_out.weight")
#: Order of the three matrices in upstream's `to_qkv`.
QKV = ("to_q", "to_k", "to_v")


@dataclass(frozen=True)
class LoadReport:
    """What became of the keys of one file."""

    path: str
    """The file."""
    step: int
    """Training step it says it was saved at; 0 when it does not."""
    used: int
    """Keys whose tensors are now in the network."""
    dropped: tuple[str, ...]
    """`lgm_big.*` keys, left out on purpose."""
    unknown: tuple[str, ...]
    """Keys that no rule takes (only with allow_missing)."""
    missing: tuple[str, ...]
    """Network tensors the file did not set (only with allow_missing); they keep their fresh values."""

    def __str__(self) -> str:
        parts = [f"{self.path}: {self.used} tensors loaded (step {self.step})"]
        if self.dropped:
            parts.append(f"{len(self.dropped)} {DROPPED_PREFIX}* left out")
        if self.unknown:
            parts.append(f"{len(self.unknown)} unknown keys ignored: {listed(self.unknown)}")
        if self.missing:
            parts.append(f"{len(self.missing)} tensors keep their fresh values: {listed(self.missing)}")
        return "; ".join(parts)


def load_videomv(
    path: str | Path, variant: str = "text", allow_missing: bool = False, **unet_kwargs: Any
) -> OrbitUNet:
    """An `OrbitUNet` (float32, CPU, eval mode) with the weights of a VideoMV or VGen `.pth` file.

    variant: "text" (`t2v_*.pth`, `non_ema_*.pth`) or "image" (`i2v_*.pth`); "static3d" loads an image file.
    unet_kwargs: diffusers' names, such as `block_out_channels`; default the published size.
    allow_missing: warn about unknown keys and unset tensors instead of refusing the file. Shapes must fit.
    Raises InputError: not such a file, another variant or size, unknown keys or arguments, unset tensors.
    """
    unet, report = load_videomv_report(path, variant, allow_missing, **unet_kwargs)
    unusual = report.dropped or report.unknown or report.missing
    log.log(logging.WARNING if unusual else logging.INFO, "%s", report)
    return unet


def load_videomv_report(
    path: str | Path, variant: str = "text", allow_missing: bool = False, **unet_kwargs: Any
) -> tuple[OrbitUNet, LoadReport]:
    """`load_videomv`, with the account of every key."""
    for name in unet_kwargs:
        if name not in UNET:
            raise InputError(f"load_videomv takes no {name}=; {or_known(name, UNET)}")
    source, step = read_tensors(path)
    _check_kind(path, source, variant)
    unet = OrbitUNet(variant=variant, double_add_folded=True, **unet_kwargs)
    targets = unet.state_dict()
    converted, unknown = from_videomv_keys(source, unet.config)
    unknown += [key for key in converted if key not in targets]
    missing = [key for key in targets if key not in converted and not key.startswith(OWN_PREFIXES)]
    if (unknown or missing) and not allow_missing:
        raise InputError(
            f"{path}: does not fit the {variant} network: "
            + "; ".join(
                f"{len(names)} {what}: {listed(names)}"
                for what, names in (("unknown keys", unknown), ("tensors not in the file", missing))
                if names
            )
            + " (--allow-missing loads the rest)"
        )
    converted = {key: value for key, value in converted.items() if key in targets}
    for key, value in converted.items():
        if value.shape != targets[key].shape:
            raise InputError(
                f"{path}: {key} has shape {tuple(value.shape)}, the network {tuple(targets[key].shape)}: "
                "another size; set block_out_channels, layers_per_block, attention_head_dim to the file's"
            )
    if unet.is_image and "unet.conv_in.weight" in converted:
        converted["unet.conv_in.weight"] = fold_double_add(converted["unet.conv_in.weight"], 2.0)
    unet.load_state_dict(converted, strict=False)
    dropped = tuple(key for key in source if key.startswith(DROPPED_PREFIX))
    report = LoadReport(
        str(path), step, len(source) - len(dropped) - len(unknown), dropped, tuple(unknown), tuple(missing)
    )
    return unet.eval(), report


def export_videomv(unet: OrbitUNet, path: str | Path, step: int = 0) -> tuple[str, ...]:
    """Write the network as a VideoMV `.pth` ({'state_dict', 'step'}); the inverse of `load_videomv`.

    Returns the names of what the layout has no place for and the file therefore lacks: the motion MLP, its
    statistics, the frame-index MLP. Raises InputError for a network that the layout cannot hold.
    """
    state = to_videomv_keys(unet)
    torch.save({"state_dict": state, "step": step}, path)
    return tuple(key for key in unet.state_dict() if key.startswith(OWN_PREFIXES))


def fold_double_add(conv_in: Tensor, factor: float) -> Tensor:
    """Scale the image branch's input channels of `conv_in.weight` [out, 2C, 3, 3] (factor 2 in, 1/2 out).

    Upstream adds the encoded image branch to itself before joining it to the noise channels
    (unet_i2vgen.py, lines 294-295); diffusers joins it once. The convolution is linear in its input, so
    doubling these weights, and neither the bias nor the noise channels, is exact.
    """
    scaled = conv_in.float().clone()
    scaled[:, conv_in.shape[1] // 2 :] *= factor
    return scaled


def from_videomv_keys(
    source: Mapping[str, Tensor], config: Mapping[str, Any]
) -> tuple[dict[str, Tensor], list[str]]:
    """Rename to OrbitUNet's keys, with no change of values -> (tensors, keys that no rule takes).

    `lgm_big.*` is passed over. The doubled image branch is not handled here.
    """
    kept = {key: value for key, value in source.items() if not key.startswith(DROPPED_PREFIX)}
    return rename(kept, layout_rules(config))


def to_videomv_keys(unet: OrbitUNet) -> dict[str, Tensor]:
    """The network's tensors under VideoMV's keys, values as upstream would hold them (float32 copies)."""
    config = unet.config
    if config.camera_harmonics or config.camera_dim != 16:
        raise InputError("this network's camera MLP takes more than the 16 numbers VideoMV has room for")
    table = {rule.target: rule for rule in layout_rules(config)}
    state: dict[str, Tensor] = {}
    split: dict[str, dict[str, Tensor]] = {}
    for key, value in unet.state_dict().items():
        if key.startswith(OWN_PREFIXES):
            continue
        rule = longest_match(key, table)
        if rule is None:
            raise InputError(f"VideoMV's layout has no place for {key}")
        suffix, value = key[len(rule.target) :], value.detach().float().cpu().clone()
        if rule.parts:
            _, part, name = suffix.split(".")
            split.setdefault(f"{rule.source}.{name}", {})[part] = value
            continue
        if suffix in rule.squeeze:
            value = value.unsqueeze(2)
        elif key == "unet.conv_in.weight" and unet.is_image and config.double_add_folded:
            value = fold_double_add(value, 0.5)
        state[rule.source + suffix] = value
    for key, parts in split.items():
        state[key] = torch.cat([parts[name] for name in QKV])
    return state


def layout_rules(config: Mapping[str, Any]) -> list[Rule]:
    """All pairs of module names for a network of this configuration.

    Upstream numbers the layers of all levels in one list: with L layers a level and n = L + 1, layer l of
    level b is input_blocks.{1 + n b + l}, layer l of up level b (0 is the lowest) output_blocks.{n b + l}.
    """
    levels, layers = len(config["block_out_channels"]), config["layers_per_block"]
    n = layers + 1
    rules = [
        Rule("time_embed.0", "unet.time_embedding.linear_1"),
        Rule("time_embed.2", "unet.time_embedding.linear_2"),
        Rule("camera_embedding", "camera_embedding"),
        Rule("input_blocks.0.0", "unet.conv_in"),
        Rule("input_blocks.0.1", "unet.transformer_in", TEMPORAL),
        Rule("out.0", "unet.conv_norm_out"),
        Rule("out.2", "unet.conv_out"),
    ]
    for b, kind in enumerate(config["down_block_types"]):
        for i in range(layers):
            rules += _layer_rules(
                f"input_blocks.{1 + n * b + i}", f"unet.down_blocks.{b}", i, "CrossAttn" in kind
            )
        if b < levels - 1:
            rules.append(Rule(f"input_blocks.{n * (b + 1)}.op", f"unet.down_blocks.{b}.downsamplers.0.conv"))
    for position, index in ((0, 0), (3, 1)):
        rules += _residual_rules(f"middle_block.{position}", "unet.mid_block", index)
    rules.append(Rule("middle_block.1", "unet.mid_block.attentions.0"))
    rules.append(Rule("middle_block.2", "unet.mid_block.temp_attentions.0", TEMPORAL))
    for b, kind in enumerate(config["up_block_types"]):
        attention = "CrossAttn" in kind
        for i in range(n):
            rules += _layer_rules(f"output_blocks.{n * b + i}", f"unet.up_blocks.{b}", i, attention)
        if b < levels - 1:
            # The upsampler stands behind what its block has: one residual, or residual and two attentions.
            source = f"output_blocks.{n * b + layers}.{3 if attention else 1}.conv"
            rules.append(Rule(source, f"unet.up_blocks.{b}.upsamplers.0.conv"))
    if config["variant"] != "text":
        encoder = "local_temporal_encoder.layers.0"
        rules += [
            Rule("fps_embedding", "unet.fps_embedding"),
            Rule("context_embedding", "unet.context_embedding"),
            Rule("local_image_concat", "unet.image_latents_proj_in"),
            Rule("local_image_embedding", "unet.image_latents_context_embedding"),
            Rule(f"{encoder}.0.norm", "unet.image_latents_temporal_encoder.norm1"),
            Rule(f"{encoder}.0.fn.to_qkv", "unet.image_latents_temporal_encoder.attn1", parts=QKV),
            Rule(f"{encoder}.0.fn.to_out.0", "unet.image_latents_temporal_encoder.attn1.to_out.0"),
            Rule(f"{encoder}.1.net.0.0", "unet.image_latents_temporal_encoder.ff.net.0.proj"),
            Rule(f"{encoder}.1.net.2", "unet.image_latents_temporal_encoder.ff.net.2"),
        ]
    return rules


def _layer_rules(source: str, block: str, i: int, attention: bool) -> list[Rule]:
    rules = _residual_rules(f"{source}.0", block, i)
    if attention:
        rules.append(Rule(f"{source}.1", f"{block}.attentions.{i}"))
        rules.append(Rule(f"{source}.2", f"{block}.temp_attentions.{i}", TEMPORAL))
    return rules


def _residual_rules(source: str, block: str, i: int) -> list[Rule]:
    residual = f"{block}.resnets.{i}"
    return [
        Rule(f"{source}.in_layers.0", f"{residual}.norm1"),
        Rule(f"{source}.in_layers.2", f"{residual}.conv1"),
        Rule(f"{source}.emb_layers.1", f"{residual}.time_emb_proj"),
        Rule(f"{source}.out_layers.0", f"{residual}.norm2"),
        Rule(f"{source}.out_layers.3", f"{residual}.conv2"),
        Rule(f"{source}.skip_connection", f"{residual}.conv_shortcut"),
        Rule(f"{source}.temopral_conv", f"{block}.temp_convs.{i}"),  # spelt so upstream
    ]


def _check_kind(path: str | Path, source: Mapping[str, Tensor], variant: str) -> None:
    """Refuse files of another kind in one line, before thousands of their keys are called unknown."""
    if not any(key.startswith("input_blocks.") for key in source):
        raise InputError(f"{path}: holds {describe_keys(source)}, not a VideoMV UNet (input_blocks.*)")
    is_image = any(key.startswith("local_image_concat.") for key in source)
    if is_image != (variant != "text"):
        kind, right = ("an image", "image") if is_image else ("a text", "text")
        raise InputError(f"{path}: is {kind} network; load it with variant {right!r}, not {variant!r}")
