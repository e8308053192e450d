"""How canonical Gaussians move: one small interface, two fields behind it.

`NodeField` moves a few hundred control nodes by an MLP of (node, time) and skins the Gaussians to them (Huang
et al. 2024, SC-GS, arXiv 2312.14937). `HexPlaneField` looks a feature up in six planes over x, y, z and t for
every Gaussian (Wu et al. 2024, 4DGS, arXiv 2310.08528; Cao and Johnson 2023, HexPlane). Both start as the
identity: their last layers are zero.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d import rotations
from orbit4d.recon4d.deformation.skinning import skin
from orbit4d.recon4d.gaussians import Gaussians

#: Term name -> value; `losses.Weights` has a weight of the same name.
Terms = dict[str, Tensor]


class Deformation(nn.Module):
    """A field over time. Subclasses say how they are built (`config`) and bound to Gaussians."""

    config: dict[str, Any]
    bound_means: Tensor | None = None
    """Centres that the field was last bound to, [N, 3]; a resumed run binds to them again."""

    def bind(self, means: Tensor) -> None:
        """Meet canonical centres [N, 3]; called again whenever Gaussians are added, removed or settled."""

    def forward(self, means: Tensor, quats: Tensor, log_scales: Tensor, time: float) -> tuple[Tensor, ...]:
        """Means [N, 3], quats [N, 4] and log_scales [N, 3] at `time` in [0, 1]."""
        raise TypeError(f"{type(self).__name__} does not say how it moves Gaussians")

    def move(self, gaussians: Gaussians, time: float) -> Gaussians:
        """The Gaussians as they stand at `time` in [0, 1]."""
        g = gaussians
        means, quats, log_scales = self(g.means, g.quats, g.log_scales, time)
        return replace(g, means=means, quats=quats, log_scales=log_scales)

    def regularisers(self, time: float, step: float) -> Terms:
        """Penalties on the field around `time`; `step` is the time between two frames."""
        return {}


class StillField(Deformation):
    """Gaussians that do not move: a set of static splats as a scene."""

    def __init__(self) -> None:
        super().__init__()
        self.config = {"kind": "still"}

    def forward(self, means: Tensor, quats: Tensor, log_scales: Tensor, time: float) -> tuple[Tensor, ...]:
        return means, quats, log_scales


def encode(x: Tensor, octaves: int) -> Tensor:
    """[..., D] to [..., D (1 + 2 octaves)]: x, and sin and cos of pi 2^k x."""
    angles = x.unsqueeze(-1) * (math.pi * 2.0 ** torch.arange(octaves, dtype=x.dtype, device=x.device))
    return torch.cat([x, angles.sin().flatten(-2), angles.cos().flatten(-2)], dim=-1)


def _kept(old: Tensor, new: Tensor) -> Tensor:
    """`new` in the memory of `old` where it fits: a CUDA graph reads what lies where it was captured."""
    return old.copy_(new) if old.shape == new.shape and old.device == new.device else new


def _zero_linear(inputs: int, outputs: int) -> nn.Linear:
    """A last layer that says 0 until it is trained."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class NodeSkin(Deformation):
    """Control nodes that Gaussians follow, each a blend of the nodes around it; how they move is a
    subclass's.

    K nodes are picked from the Gaussians by farthest-point sampling on the first `bind`.
    """

    nodes: Tensor
    """[K, 3]"""
    placed: Tensor
    """[] whether the nodes have been picked."""

    def __init__(self, n_nodes: int, neighbours: int) -> None:
        super().__init__()
        self.register_buffer("nodes", torch.zeros(n_nodes, 3))
        self.register_buffer("placed", torch.zeros((), dtype=torch.bool))
        self._index = torch.zeros(0, neighbours, dtype=torch.long)
        self._weights = torch.zeros(0, neighbours)
        self._pairs = torch.zeros(0, 2, dtype=torch.long)

    @torch.no_grad()
    def bind(self, means: Tensor) -> None:
        self.bound_means = means = means.detach().clone()
        if not self.placed:
            self.nodes.copy_(farthest_points(means, self.nodes.shape[0]))
            self.placed.fill_(True)
        k = min(self.config["neighbours"], len(self.nodes))
        distance, index = torch.cdist(means, self.nodes).topk(k, largest=False)
        # A Gaussian kernel as wide as the nodes lie apart, so that neighbours share each point.
        spacing = torch.cdist(self.nodes, self.nodes).topk(2, largest=False)[0][:, 1].mean().clamp(min=1e-4)
        weights = torch.exp(-0.5 * (distance / (1.2 * spacing)).square()) + 1e-8
        weights = weights / weights.sum(1, keepdim=True)
        near = torch.cdist(self.nodes, self.nodes).topk(min(7, len(self.nodes)), largest=False)[1][:, 1:]
        own = torch.arange(len(self.nodes), device=near.device).unsqueeze(1).expand_as(near)
        self._index, self._weights = _kept(self._index, index), _kept(self._weights, weights)
        self._pairs = _kept(self._pairs, torch.stack([own, near], dim=-1).reshape(-1, 2))

    def skinning(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Nodes [N, k] that each Gaussian follows and their weights, of a field on the CPU."""
        return self._index.numpy(), self._weights.numpy()

    def pairs(self) -> npt.NDArray[np.int64]:
        """[P, 2] neighbouring nodes, which rigidity keeps together; of a field on the CPU."""
        return self._pairs.numpy()

    def skinned(
        self, means: Tensor, quats: Tensor, node_quats: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Means [N, 3] and quats [N, 4] that follow nodes with quaternions [K, 4] and translations [K, 3]."""
        # x -> R (x - n) + n + t, written as x + (R - 1) x + (t - (R - 1) n) so that a zero head is exactly x.
        linear = rotations.to_matrix(node_quats) - torch.eye(3, device=shift.device)
        offsets = shift - (linear @ self.nodes.unsqueeze(-1)).squeeze(-1)
        turns = torch.cat([node_quats[:, :1] - 1.0, node_quats[:, 1:]], dim=1)
        maps = torch.cat([linear.flatten(1), offsets, turns], dim=1)
        return skin(means, quats, maps, self._index, self._weights)

    def rigidity(self, quats: Tensor, shift: Tensor) -> Tensor:
        """Mean squared change of the offsets between paired nodes, beyond the turn of the first []."""
        here, there = self._pairs.unbind(-1)
        rest = self.nodes[there] - self.nodes[here]
        now = rest + shift[there] - shift[here]
        turned = (rotations.to_matrix(quats)[here] @ rest.unsqueeze(-1)).squeeze(-1)
        return (now - turned).square().sum(-1).mean()


class MovingNodes(NodeSkin):
    """Control nodes that move rigidly at any time; a Gaussian follows a blend of the nodes around it.

    Subclasses say how (`motions_at`).
    """

    def __init__(self, n_nodes: int, neighbours: int) -> None:
        super().__init__(n_nodes, neighbours)
        self._last: tuple[float, Tensor, Tensor] | None = None

    def motions_at(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """`motions` at times [T] on the field's device; nothing is read from it."""
        raise TypeError(f"{type(self).__name__} does not say how its nodes move")

    def motions(self, *times: float) -> tuple[Tensor, Tensor]:
        """Unit quaternions [T, K, 4] and translations [T, K, 3] of the nodes at T times."""
        return self.motions_at(torch.tensor(times, device=self.nodes.device))

    def forward(self, means: Tensor, quats: Tensor, log_scales: Tensor, time: float) -> tuple[Tensor, ...]:
        node_quats, shift = (part[0] for part in self.motions(time))
        self._last = (time, node_quats, shift) if torch.is_grad_enabled() else None
        return *self.skinned(means, quats, node_quats, shift), log_scales

    def regularisers(self, time: float, step: float) -> Terms:
        """rigidity: neighbouring nodes keep their offsets up to a rotation (ARAP, Sorkine and Alexa 2007).

        smoothness: second difference of the nodes' paths over three consecutive frames.
        """
        if self._last is not None and self._last[0] == time:
            _, quats, shift = self._last
        else:
            quats, shift = (part[0] for part in self.motions(time))
        terms = {"rigidity": self.rigidity(quats, shift)}
        if 0.0 < time < 1.0:
            before, after = self.motions(max(time - step, 0.0), min(time + step, 1.0))[1].unbind(0)
            terms["smoothness"] = (before - 2 * shift + after).square().sum(-1).mean()
        return terms


class NodeField(MovingNodes):
    """Control nodes that move rigidly; a Gaussian follows a blend of the nodes around it.

    K nodes are picked from the Gaussians by farthest-point sampling on the first `bind`. `anchor` is the time
    at which the field is the identity whatever it learns: the time that a static orbit shows.
    """

    def __init__(
        self,
        n_nodes: int = 200,
        width: int = 128,
        depth: int = 3,
        octaves: int = 4,
        time_octaves: int = 4,
        neighbours: int = 4,
        extent: float = 0.6,
        anchor: float | None = None,
    ) -> None:
        super().__init__(n_nodes, neighbours)
        self.config = {
            "anchor": anchor,
            "kind": "nodes",
            "n_nodes": n_nodes,
            "width": width,
            "depth": depth,
            "octaves": octaves,
            "time_octaves": time_octaves,
            "neighbours": neighbours,
            "extent": extent,
        }
        # The first layer in two parts, since places repeat over times and times over places.
        self.place = nn.Linear(3 * (1 + 2 * octaves), width)
        self.moment = nn.Linear(1 + 2 * time_octaves, width)
        layers: list[nn.Module] = [nn.SiLU()]
        for _ in range(depth - 1):
            layers += [nn.Linear(width, width), nn.SiLU()]
        self.trunk = nn.Sequential(*layers)
        self.head = _zero_linear(width, 6)

    def motions_at(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """`motions` at times [T] on the field's device; nothing is read from it."""
        places = self.place(encode(self.nodes / self.config["extent"], self.config["octaves"]))
        anchor = self.config["anchor"]
        if anchor is not None:
            times = F.pad(times, (0, 1), value=anchor)
        t = 2.0 * times.unsqueeze(1) - 1.0
        moments = self.moment(encode(t, self.config["time_octaves"]))
        out = self.head(self.trunk(places + moments.unsqueeze(1)))
        if anchor is not None:
            out = out[:-1] - out[-1:]
        quats = F.normalize(F.pad(out[..., 3:], (1, 0), value=1.0), dim=-1)
        return quats, out[..., :3]


#: Numbers that each head of the HexPlane field adds to a Gaussian.
_HEADS = {"means": 3, "quats": 4, "log_scales": 3, "colors": 3, "logits": 1}


class HexPlaneField(Deformation):
    """Six feature planes per scale; features multiply over planes and stand side by side over scales.

    `heads` are the parameters that change over time: of position, rotation and scale each may be left out,
    colour ("colors") and opacity ("logits") may be added.
    """

    PLANES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))

    def __init__(
        self,
        resolution: int = 24,
        time_resolution: int = 12,
        channels: int = 16,
        scales: tuple[int, ...] = (1, 2),
        width: int = 64,
        extent: float = 0.6,
        heads: tuple[str, ...] = ("means", "quats", "log_scales"),
    ) -> None:
        super().__init__()
        if unknown := set(heads) - set(_HEADS):
            raise InputError(f"hexplane heads {sorted(unknown)}: choose from {', '.join(_HEADS)}")
        self.config = {
            "kind": "hexplane",
            "heads": list(heads),
            "resolution": resolution,
            "time_resolution": time_resolution,
            "channels": channels,
            "scales": list(scales),
            "width": width,
            "extent": extent,
        }
        self.planes = nn.ParameterList()
        for scale in scales:
            sizes = (resolution * scale,) * 3 + (time_resolution,)
            for a, b in self.PLANES:
                plane = torch.empty(1, channels, sizes[b], sizes[a])
                # Space starts random, time starts at one: the product starts as a static field.
                nn.init.ones_(plane) if b == 3 else nn.init.uniform_(plane, 0.1, 0.5)
                self.planes.append(nn.Parameter(plane))
        self.trunk = nn.Sequential(nn.Linear(channels * len(scales), width), nn.ReLU())
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(width, width), nn.ReLU(), _zero_linear(width, _HEADS[name]))
                for name in heads
            }
        )

    def forward(self, means: Tensor, quats: Tensor, log_scales: Tensor, time: float) -> tuple[Tensor, ...]:
        hidden = self._hidden(means, time)
        given = {"means": means, "quats": F.normalize(quats, dim=-1), "log_scales": log_scales}
        return tuple(self._changed(name, value, hidden) for name, value in given.items())

    def move(self, gaussians: Gaussians, time: float) -> Gaussians:
        hidden = self._hidden(gaussians.means, time)
        given = {**gaussians.tensors(), "quats": F.normalize(gaussians.quats, dim=-1)}
        return Gaussians(**{name: self._changed(name, value, hidden) for name, value in given.items()})

    def _changed(self, name: str, value: Tensor, hidden: Tensor) -> Tensor:
        return value + self.heads[name](hidden).reshape(value.shape) if name in self.heads else value

    def _hidden(self, means: Tensor, time: float) -> Tensor:
        """[N, width] features of the centres at `time`, after the trunk."""
        # Time is mapped to the whole [-1, 1] that grid_sample knows, as space is.
        t = means.new_full((len(means), 1), 2.0 * time - 1.0)
        position = torch.cat([means.detach() / self.config["extent"], t], dim=1)
        features = []
        for first in range(0, len(self.planes), 6):
            grids = (position[:, axes].view(1, -1, 1, 2) for axes in self.PLANES)
            sampled = (
                F.grid_sample(plane, grid, align_corners=True, padding_mode="border")[0, :, :, 0].T
                for plane, grid in zip(self.planes[first : first + 6], grids)
            )
            features.append(reduce(torch.mul, sampled))
        return self.trunk(torch.cat(features, dim=1))

    def regularisers(self, time: float, step: float) -> Terms:
        """plane_tv: second differences over space; time_smoothness: over time; time_l1: distance from one.

        After hustvl/4DGaussians (scene/regulation.py), but over both axes of the spatial planes.
        """
        tv, smooth, ones = [], [], []
        for plane, (_, b) in zip(self.planes, self.PLANES * (len(self.planes) // 6)):
            along_b = (plane[:, :, 2:] - 2 * plane[:, :, 1:-1] + plane[:, :, :-2]).square().mean()
            if b == 3:
                smooth.append(along_b)
                ones.append((1 - plane).abs().mean())
            else:
                along_a = plane[..., 2:] - 2 * plane[..., 1:-1] + plane[..., :-2]
                tv.append(along_b + along_a.square().mean())
        return {
            "plane_tv": torch.stack(tv).mean(),
            "time_smoothness": torch.stack(smooth).mean(),
            "time_l1": torch.stack(ones).mean(),
        }


def hidden_matrices(field: Deformation) -> list[int]:
    """Which parameters of a field are matrices between hidden layers, by their numbers; of a node field."""
    if not isinstance(field, NodeField):
        return []
    named = enumerate(field.named_parameters())
    return [i for i, (name, parameter) in named if name.startswith("trunk.") and parameter.ndim == 2]


def farthest_points(points: Tensor, k: int) -> Tensor:
    """k of the points [N, 3], each the farthest from those before it; the first is nearest the centroid.

    With fewer points than k, some repeat.
    """
    centre = points.mean(0)
    first = (points - centre).square().sum(-1).argmin()
    chosen = [first]
    distance = (points - points[first]).square().sum(-1)
    for _ in range(k - 1):
        index = distance.argmax()
        chosen.append(index)
        distance = torch.minimum(distance, (points - points[index]).square().sum(-1))
    return points[torch.stack(chosen)].clone()
