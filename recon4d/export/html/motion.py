"""How a scene moves, in numbers that a shader reads: nodes' maps at some times, or each Gaussian at each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d import rotations
from orbit4d.recon4d.deformation.field import NodeSkin
from orbit4d.recon4d.deformation.rigs.rigged import RigField
from orbit4d.recon4d.deformation.windows import WindowField
from orbit4d.recon4d.gaussians import Gaussians
from orbit4d.recon4d.mesh.bones import MOST, moves_by_nodes, node_poses
from orbit4d.recon4d.scene import Scene

Array = npt.NDArray[Any]
#: No centre may be off by more than this between stored times, in units of the fit (the object is about 1).
NEAR = 0.002
#: Numbers of times that are tried, until no centre is further off than `NEAR`.
TIMES = (12, 24, 48, 96)
#: Bytes of nodes' maps in a file: more times than fit into these are not taken.
MOST_BYTES = 450_000
#: Parts of a clip at whose ends the Gaussians of windows are counted.
_LOOKED_AT = 96
#: Node maps must give the field's centres and rotations to this, or the field is no blend of nodes.
_SAME = 1e-4


@dataclass(frozen=True)
class Motion:
    """T values of time; between two of them numbers are mixed linearly."""

    kind: str
    """still; nodes: 16 numbers a node (skinning.py); bones: the first 12 of them a joint, which carry whole
    covariances; each: 16 numbers a Gaussian."""
    values: Array
    """[T, K, 16] float32. Of `each`: centre 3, opacity, rotation 4, log scales 3, 0, colour 3, 0."""
    index: Array
    """[N, 4] nodes or joints that a Gaussian follows; of `nodes` and `bones` alone."""
    weights: Array
    """[N, 4]"""
    error: float
    """Furthest that a centre is off between two stored times."""
    gaussians: Gaussians | None = None
    """Of `bones`: the set as the skeleton was bound; of windows: that of time 0; None: the scene's own."""

    @property
    def times(self) -> int:
        """Number of stored times."""
        return len(self.values)


def motion_of(scene: Scene, times: int | None = None) -> Motion:
    """The motion of a scene at `times` values of time, evenly over [0, 1]; None takes as many as it needs.

    Nodes where the field is a blend of at most 4 a Gaussian, joints where a skeleton moves it, the numbers of
    each Gaussian otherwise.
    """
    if scene.field.config["kind"] == "still":
        nothing = np.zeros((len(scene.gaussians), 4))
        return Motion("still", np.zeros((1, 0, 16), np.float32), nothing, nothing, 0.0)
    if isinstance(scene.field, WindowField):
        _check_same(scene)
    tries = TIMES if times is None else (times,)
    chosen: Motion | None = None
    for count in tries:
        found = _sampled(scene, count)
        size = found.values.size * 2
        if chosen is not None and size > MOST_BYTES:
            break
        chosen = found
        if found.error <= NEAR:
            break
    assert chosen is not None
    if chosen.kind == "bones" and chosen.error > 2 * NEAR:
        print(
            f"the player's Gaussians follow {MOST} joints each, between {chosen.times} stored times: "
            f"centres are up to {chosen.error * scene.world.scale:.2g} off"
        )
    return chosen


def _sampled(scene: Scene, times: int) -> Motion:
    moments = [i / max(times - 1, 1) for i in range(times)]
    if isinstance(scene.field, RigField):
        return _of_joints(scene, scene.field, moments)
    skin = _node_skin(scene)
    if skin is not None:
        index, weights = skin
        maps = np.stack([node_maps(scene.field, t) for t in moments])
        motion = Motion("nodes", maps, index, weights, 0.0)
    else:
        nothing = np.zeros((len(scene.gaussians), 4))
        first = _at(scene, 0.0) if isinstance(scene.field, WindowField) else None
        nothing = nothing if first is None else nothing[: len(first)]
        motion = Motion("each", np.stack([_each(scene, t) for t in moments]), nothing, nothing, 0.0, first)
    return replace(motion, error=_error_between(scene, motion))


def _of_joints(scene: Scene, field: RigField, moments: list[float]) -> Motion:
    """The set as it was bound, and the joints' maps from there: linear blend skinning of covariances."""
    order = np.argsort(-field.weights, axis=1, kind="stable")[:, :MOST]
    index, weights = (np.take_along_axis(a, order, 1) for a in (field.index, field.weights))
    weights = weights / np.maximum(weights.sum(1, keepdims=True), 1e-9)
    index, weights = (np.pad(a, ((0, 0), (0, MOST - a.shape[1]))) for a in (index, weights))
    values = np.zeros((len(moments), len(field.joint_maps(0.0)), 16), np.float32)
    for t, moment in enumerate(moments):
        maps = field.joint_maps(moment)
        values[t, :, :9] = (maps[:, :3, :3] - np.eye(3)).reshape(-1, 9)
        values[t, :, 9:12] = maps[:, :3, 3]
    motion = Motion("bones", values, index, weights, 0.0, field.as_bound(scene.gaussians))
    return replace(motion, error=_error_between(scene, motion))


def node_maps(field: Any, time: float) -> Array:
    """[K, 16] maps of the nodes of a field of nodes at a time: matrix less identity 9, offset 3, turn 4."""
    with torch.no_grad():
        quats, shift = node_poses(field, time)
        linear = rotations.to_matrix(quats) - torch.eye(3)
        offsets = shift - (linear @ field.nodes.unsqueeze(-1)).squeeze(-1)
        turns = torch.cat([quats[:, :1] - 1.0, quats[:, 1:]], dim=1)
        return torch.cat([linear.flatten(1), offsets, turns], dim=1).numpy()


def _node_skin(scene: Scene) -> tuple[Array, Array] | None:
    """Nodes and weights [N, 4], where the field is nothing but a blend of nodes."""
    field = scene.field
    if not moves_by_nodes(field) or not isinstance(field, NodeSkin):
        return None
    found = field.skinning()
    if found[0].shape[1] > 4:
        return None
    index, weights = (np.pad(a, ((0, 0), (0, 4 - a.shape[1]))) for a in found)
    g = scene.gaussians
    for time in (0.3, 1.0):
        moved = scene.field.move(g, time)
        means, _ = skinned(g.means.numpy(), g.quats.numpy(), node_maps(field, time), index, weights)
        if np.abs(means - moved.means.numpy()).max(initial=0) > _SAME or not torch.equal(
            moved.log_scales, g.log_scales
        ):
            return None
    return index, weights


def skinned(means: Array, quats: Array, maps: Array, index: Array, weights: Array) -> tuple[Array, Array]:
    """Centres and rotations that follow the nodes: what the player's shader and its sorter do."""
    blend = (maps[index] * weights[..., None]).sum(1)
    moved = means + (blend[:, :9].reshape(-1, 3, 3) @ means[:, :, None])[:, :, 0] + blend[:, 9:12]
    turn = blend[:, 12:] + np.array([1.0, 0, 0, 0])
    turned = rotations.multiply(torch.from_numpy(turn), torch.from_numpy(quats.astype(np.float64)))
    return moved, turned.numpy()


def _check_same(scene: Scene) -> None:
    """InputError where windows hold different numbers of Gaussians: the player mixes two times."""
    counts = {len(_at(scene, i / _LOOKED_AT)) for i in range(_LOOKED_AT + 1)}
    if len(counts) > 1:
        raise InputError(
            f"a page plays the same Gaussians at all times, and these are {min(counts)} to {max(counts)}; "
            "give --format mp4, frames or ply-sequence"
        )


@torch.no_grad()
def _at(scene: Scene, time: float) -> Gaussians:
    return scene.field.move(scene.gaussians, time)


def _each(scene: Scene, time: float) -> Array:
    g = _at(scene, time)
    out = np.zeros((len(g), 16), np.float32)
    out[:, :3], out[:, 3] = g.means, g.opacities
    out[:, 4:8], out[:, 8:11] = F.normalize(g.quats, dim=-1), g.log_scales
    # As the rasteriser draws: without harmonics colours end at 0 and 1.
    out[:, 12:15] = g.colors if g.sh_degree else g.colors.clamp(0, 1)
    return out


def _error_between(scene: Scene, motion: Motion) -> float:
    """Furthest that a centre is off in the middle of two stored times; at most a dozen are inspected."""
    worst, steps = 0.0, motion.times - 1
    g = scene.gaussians
    for i in range(0, steps, max(1, steps // 12)):
        mixed = (motion.values[i] + motion.values[i + 1]) / 2
        if motion.kind in ("nodes", "bones"):
            own = motion.gaussians or g
            means = skinned(own.means.numpy(), own.quats.numpy(), mixed, motion.index, motion.weights)[0]
        else:
            means = mixed[:, :3]
        with torch.no_grad():
            wanted = scene.field.move(g, (i + 0.5) / steps).means.numpy()
        worst = max(worst, float(np.linalg.norm(means - wanted, axis=1).max(initial=0)))
    return worst
