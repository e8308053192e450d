"""A node field's step on the CPU without autograd: motion, penalties and gradient, in kept buffers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from orbit4d.recon4d.deformation import network, node_maps, skinning
from orbit4d.recon4d.deformation.field import Deformation, MovingNodes, NodeField, encode
from orbit4d.recon4d.raster import threads

Float = npt.NDArray[np.float32]


def has_kernels(field: Deformation) -> bool:
    """Whether the kernels know this field: control nodes in float32 on the CPU, a width of whole vectors."""
    if not isinstance(field, NodeField) or field.config["width"] % network.LANES:
        return False
    weight = field.head.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32


class SkinnedMotion:
    """What a field of moving nodes and its `regularisers` do to N Gaussians, forward and back.

    Subclasses say how the nodes move: `outputs` and `pull_outputs`. Results stay in `means`, `quats` and
    `terms`; buffers are kept from one call to the next.
    """

    def __init__(self, field: MovingNodes, n: int) -> None:
        self.field = field
        self.nodes = field.nodes.numpy()
        k = len(self.nodes)
        self.node_quats, self.maps = np.empty((k, 4), np.float32), np.empty((k, skinning.MAP), np.float32)
        self.grad_maps = np.empty((skinning.PIECES + 1, k, skinning.MAP), np.float32)
        self.means, self.quats = np.empty((n, 3), np.float32), np.empty((n, 4), np.float32)
        self.terms: dict[str, float] = {}
        self._times: tuple[float, ...] = ()
        self._out, self._grad_out = (np.empty((0, k, network.OUTPUTS), np.float32) for _ in range(2))

    def outputs(self, times: tuple[float, ...]) -> tuple[Float, Float]:
        """[S, K, 6] at S times, 3 of a shift and 3 imaginary parts; and room for their gradient."""
        raise TypeError(f"{type(self).__name__} does not say how its nodes move")

    def pull_outputs(self, gradient: Float) -> None:
        """`gradient` by the field's parameters, overwritten, of the gradient by the last outputs."""
        raise TypeError(f"{type(self).__name__} does not say how its nodes move")

    def move(self, means: Float, quats: Float, time: float, step: float | None) -> None:
        """Means [N, 3] and quats [N, 4] at `time`; `step`: time between frames, None leaves penalties out."""
        times: tuple[float, ...] = (time,)
        if step is not None and 0.0 < time < 1.0:
            times = (time, max(time - step, 0.0), min(time + step, 1.0))
        self._times = times
        self._out, self._grad_out = self.outputs(times)
        node_maps.maps_of(self._out[0], self.nodes, self.node_quats, self.maps)
        index, weights = self.field.skinning()
        threads.run(
            skinning.forward, skinning.PIECES, means, quats, self.maps, index, weights, self.means, self.quats
        )

    def pull(
        self, means: Float, quats: Float, grad_moved: Float, grad_turned: Float, grad_means: Float,
        grad_quats: Float, gradient: Float, weights: tuple[float, float] | None,
    ) -> None:  # fmt: skip
        """Gradients of the last `move`; grad_means, grad_quats and `gradient` (by the field) are overwritten.

        `weights` of rigidity and smoothness add the penalties' gradients, and `terms` then has their values.
        """
        out, grad_out = self._out, self._grad_out
        index, shares = self.field.skinning()
        self.grad_maps[:] = 0.0
        threads.run(
            skinning.backward, skinning.PIECES, means, quats, self.maps, index, shares, grad_moved,
            grad_turned, grad_means, grad_quats, self.grad_maps,
        )  # fmt: skip
        grad_maps = self.grad_maps[-1]
        for piece in self.grad_maps[:-1]:
            grad_maps += piece
        grad_out[:] = 0.0
        self.terms = {}
        if weights is not None:
            self.terms["rigidity"] = node_maps.rigidity(
                out[0], self.nodes, self.maps, self.field.pairs(), np.float32(weights[0]), grad_out[0],
                grad_maps,
            )  # fmt: skip
            if len(self._times) == 3:
                self.terms["smoothness"] = node_maps.smoothness(out, np.float32(weights[1]), grad_out)
        node_maps.maps_backward(out[0], self.nodes, self.node_quats, grad_maps, grad_out[0])
        self.pull_outputs(gradient)


@dataclass
class _Pass:
    """Buffers of a pass through the network at T times."""

    hidden: Float
    slopes: Float
    pulled: Float
    other: Float
    out: Float
    grad_out: Float


class NodeMotion(SkinnedMotion):
    """Of a `NodeField`: its network. `values` are the field's parameters as one flat array, in the order of
    `field.parameters()`.
    """

    field: NodeField

    def __init__(self, field: NodeField, values: Float, n: int) -> None:
        super().__init__(field, n)
        self.values = values
        config = field.config
        self.width, self.depth, self.anchor = config["width"], config["depth"], config["anchor"]
        places = encode(field.nodes / config["extent"], config["octaves"]).numpy()
        k, self.n_places = places.shape
        padded, wide = (
            -(-k // network.ROWS) * network.ROWS,
            -(-self.n_places // network.LANES) * network.LANES,
        )
        self.places = np.zeros((padded, wide), np.float32)
        self.places[:k, : self.n_places] = places
        room = max(self.width, wide) * self.width + padded * self.width + self.width
        self.scratch = np.zeros(room, np.float32)
        self.passes: dict[int, _Pass] = {}
        self._encoded: dict[tuple[float, ...], Float] = {}
        self._asked: tuple[float, ...] = ()

    def outputs(self, times: tuple[float, ...]) -> tuple[Float, Float]:
        self._asked = asked = times if self.anchor is None else (*times, self.anchor)
        moments, run = self._moments(asked), self._pass(len(asked))
        network.forward(
            self.values, self.depth, self.width, self.places, len(self.nodes), self.n_places, moments,
            self.scratch, run.hidden, run.slopes, run.out,
        )  # fmt: skip
        if self.anchor is not None:
            run.out[:-1] -= run.out[-1]
        return run.out, run.grad_out

    def pull_outputs(self, gradient: Float) -> None:
        moments, run = self._moments(self._asked), self._pass(len(self._asked))
        if self.anchor is not None:
            run.grad_out[-1] = -run.grad_out[:-1].sum(axis=0)
        network.backward(
            self.values, self.depth, self.width, self.places, len(self.nodes), self.n_places, moments,
            self.scratch, run.hidden, run.slopes, run.grad_out, run.pulled, run.other, gradient,
        )  # fmt: skip

    def _moments(self, asked: tuple[float, ...]) -> Float:
        """Encoded times [T, M]; a fit asks for the same ones again and again."""
        if asked not in self._encoded:
            t = 2.0 * torch.tensor(asked).unsqueeze(1) - 1.0
            self._encoded[asked] = encode(t, self.field.config["time_octaves"]).numpy()
        return self._encoded[asked]

    def _pass(self, times: int) -> _Pass:
        if times not in self.passes:
            k = len(self.nodes)
            rows = -(-times * k // network.ROWS) * network.ROWS
            floats = (rows * self.width * self.depth,) * 2 + (rows * self.width,) * 2
            self.passes[times] = _Pass(
                *(np.zeros(size, np.float32) for size in floats),
                *(np.zeros((times, k, network.OUTPUTS), np.float32) for _ in range(2)),
            )
        return self.passes[times]
