"""Names of Wan's tensors: as released (and in SynCamMaster's checkpoint), in diffusers, and in `OrbitWan`.

Section by section of the released key list; the names of the norms cross (released `norm3` is diffusers'
`norm2`, whose `norm3` has no weights).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from orbit4d.model.network.wan import OrbitWan

_BOTH = (".weight", ".bias")
#: Released name, name in diffusers, endings.
_OUTSIDE = (
    ("patch_embedding", "patch_embedding", _BOTH),
    ("text_embedding.0", "condition_embedder.text_embedder.linear_1", _BOTH),
    ("text_embedding.2", "condition_embedder.text_embedder.linear_2", _BOTH),
    ("time_embedding.0", "condition_embedder.time_embedder.linear_1", _BOTH),
    ("time_embedding.2", "condition_embedder.time_embedder.linear_2", _BOTH),
    ("time_projection.1", "condition_embedder.time_proj", _BOTH),
    ("head.head", "proj_out", _BOTH),
    ("head.modulation", "scale_shift_table", ("",)),
)
_OUTSIDE_IMAGE = (
    ("img_emb.proj.0", "condition_embedder.image_embedder.norm1", _BOTH),
    ("img_emb.proj.1", "condition_embedder.image_embedder.ff.net.0.proj", _BOTH),
    ("img_emb.proj.3", "condition_embedder.image_embedder.ff.net.2", _BOTH),
    ("img_emb.proj.4", "condition_embedder.image_embedder.norm2", _BOTH),
)
_ATTENTION = (
    ("q", "to_q", _BOTH),
    ("k", "to_k", _BOTH),
    ("v", "to_v", _BOTH),
    ("o", "to_out.0", _BOTH),
    ("norm_q", "norm_q", (".weight",)),
    ("norm_k", "norm_k", (".weight",)),
)
_ATTENTION_IMAGE = (
    ("k_img", "add_k_proj", _BOTH),
    ("v_img", "add_v_proj", _BOTH),
    ("norm_k_img", "norm_added_k", (".weight",)),
)
_IN_BLOCK = (
    ("modulation", "scale_shift_table", ("",)),
    ("norm3", "norm2", _BOTH),
    ("ffn.0", "ffn.net.0.proj", _BOTH),
    ("ffn.2", "ffn.net.2", _BOTH),
)
_IN_VIEWS = (
    ("modulation_mvs", "scale_shift_table", ("",)),
    ("cam_encoder", "cam_encoder", _BOTH),
    ("projector", "projector", _BOTH),
)
_BLOCK = re.compile(r"(?:wan\.)?(?:blocks|view_sync)\.(\d+)\.")


def base_table(blocks: int, image: bool = False) -> dict[str, str]:
    """Released key -> key of `OrbitWan`, of a Wan network of so many blocks (825 of 30)."""
    table = _expand("", "wan.", _OUTSIDE + (_OUTSIDE_IMAGE if image else ()))
    for i in range(blocks):
        here, there = f"blocks.{i}.", f"wan.blocks.{i}."
        table |= _expand(here, there, _IN_BLOCK)
        table |= _expand(f"{here}self_attn.", f"{there}attn1.", _ATTENTION)
        table |= _expand(
            f"{here}cross_attn.", f"{there}attn2.", _ATTENTION + (_ATTENTION_IMAGE if image else ())
        )
    return table


def view_table(blocks: Iterable[int]) -> dict[str, str]:
    """Released key -> key of `OrbitWan`, of the view modules in these blocks (15 tensors each)."""
    table: dict[str, str] = {}
    for i in blocks:
        table |= _expand(f"blocks.{i}.", f"view_sync.{i}.", _IN_VIEWS)
        table |= _expand(f"blocks.{i}.mvs_attn.", f"view_sync.{i}.attn.", _ATTENTION)
    return table


def _expand(here: str, there: str, rules: Iterable[tuple[str, str, tuple[str, ...]]]) -> dict[str, str]:
    return {f"{here}{source}{end}": f"{there}{target}{end}" for source, target, ends in rules for end in ends}


def blocks_of(keys: Iterable[str]) -> int:
    """Number of blocks: from 0 on, as long as each has at least half as many keys as most have."""
    found = Counter(int(match[1]) for key in keys if (match := _BLOCK.match(key)))
    usual = Counter(found.values()).most_common(1)
    most = usual[0][0] if usual else 0
    count = 0
    while 2 * found.get(count, 0) >= max(most, 1):
        count += 1
    return count


@dataclass(frozen=True)
class Layout:
    """How the keys of one file are spelt."""

    name: str
    """"released", "diffusers" or "own" (`OrbitWan`)."""
    spell: Callable[[str, str], str]
    """(released key, key of `OrbitWan`) -> key of the file."""

    @staticmethod
    def of(tensors: Mapping[str, Tensor]) -> Layout:
        """The layout most of whose base or view names a file has."""
        blocks = blocks_of(tensors)
        table = base_table(blocks) | view_table(range(blocks))
        return max(_LAYOUTS, key=lambda layout: sum(layout.spell(*pair) in tensors for pair in table.items()))

    def base(self, tensors: Mapping[str, Tensor]) -> set[str]:
        """Keys that a base of this many blocks has."""
        return {self.spell(*pair) for pair in base_table(blocks_of(tensors)).items()}

    def view_blocks(self, tensors: Mapping[str, Tensor]) -> list[int]:
        """Blocks that have at least half of a view module."""
        found: Counter[int] = Counter()
        numbers = {int(match[1]) for key in tensors if (match := _BLOCK.match(key))}
        for number in numbers:
            found[number] = sum(self.spell(*pair) in tensors for pair in view_table([number]).items())
        most = max(found.values(), default=0)
        return sorted(number for number, count in found.items() if count and 2 * count >= most)

    def views(self, tensors: Mapping[str, Tensor]) -> set[str]:
        """Keys of the view modules of these blocks."""
        return {self.spell(*pair) for pair in view_table(self.view_blocks(tensors)).items()}

    def view_names(self, blocks: Iterable[int]) -> dict[str, str]:
        """Key of the file -> key of `OrbitWan`, of view modules."""
        return {self.spell(*pair): pair[1] for pair in view_table(blocks).items()}

    def table(self, net: OrbitWan) -> dict[str, str]:
        """Key of the file -> key of `OrbitWan`, for the whole of a network."""
        if self.name == "own":
            return {name: name for name in net.state_dict()}
        table = base_table(len(net.wan.blocks), net.config.image_dim is not None)
        table |= view_table(int(name) for name in net.view_sync)
        return {self.spell(*pair): pair[1] for pair in table.items()}

    def tells(self, size: str) -> str:
        """The key whose shape tells a size."""
        key = {"text_dim": "text_embedding.0", "freq_dim": "time_embedding.0"}.get(size, "patch_embedding")
        return self.spell(f"{key}.weight", base_table(0)[f"{key}.weight"])

    def sizes(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """What the shapes tell of the network's arguments, each by most of the tensors that tell it."""
        blocks = blocks_of(tensors)
        shapes = {
            pair[0]: tuple(tensors[key].shape)
            for pair in base_table(blocks, image=True).items()
            if (key := self.spell(*pair)) in tensors
        }
        width = _most(s[-1] for s in shapes.values() if len(s) in (1, 2, 3))
        ffn = [s[0] for k, s in shapes.items() if ".ffn.0." in k] + [
            s[1] for k, s in shapes.items() if k.endswith(".ffn.2.weight") and len(s) == 2
        ]
        found: dict[str, Any] = {"width": width, "num_layers": blocks, "ffn_dim": _most(ffn)}
        for name, key in (("text_dim", "text_embedding.0.weight"), ("freq_dim", "time_embedding.0.weight")):
            if len(shapes.get(key, ())) == 2:
                found[name] = shapes[key][1]
        patch = shapes.get("patch_embedding.weight", ())
        if len(patch) == 5:
            found |= {"in_channels": patch[1], "patch_size": patch[2:]}
        each = math.prod(found.get("patch_size", (1, 2, 2)))
        rows = [shapes[k][0] for k in ("head.head.weight", "head.head.bias") if shapes.get(k)]
        rows = [row for row in rows if row % each == 0]
        if rows:
            # Where the two differ, the one that gives as many channels as go in.
            same = [row for row in rows if row // each == found.get("in_channels")]
            found["out_channels"] = (same or rows)[0] // each
        if "img_emb.proj.1.weight" in shapes:
            found["image_dim"] = shapes["img_emb.proj.1.weight"][1]
            found["added_kv_proj_dim"] = width
        return found


def _most(values: Iterable[int]) -> int:
    counted = Counter(values).most_common(1)
    return counted[0][0] if counted else 0


_LAYOUTS = (
    Layout("released", lambda released, own: released),
    Layout("diffusers", lambda released, own: own.removeprefix("wan.")),
    Layout("own", lambda released, own: own),
)
