"""Control nodes as the bones of a mesh: poses over time, and at most four weights a vertex.

A node moves a point rigidly about itself and the scene blends the nodes' maps linearly, which is linear blend
skinning: a skinned mesh of glTF or USD moves as the Gaussians' centres do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.deformation.field import Deformation, MovingNodes, NodeField, NodeSkin
from orbit4d.recon4d.deformation.keyframes import KeyframeField
from orbit4d.recon4d.deformation.paths.path_field import PathField
from orbit4d.recon4d.deformation.residual import ResidualField
from orbit4d.recon4d.scene import Scene

Array = npt.NDArray[Any]
#: Weights of a vertex.
MOST = 4


@dataclass(frozen=True)
class Bones:
    """K nodes at T times, in the world of the fit."""

    rest: Array
    """[K, 3] places of the nodes in the canonical scene."""
    places: Array
    """[T, K, 3] places over time."""
    quats: Array
    """[T, K, 4] rotations w x y z, of one hemisphere over time."""
    joints: Array
    """[V, 4] nodes of a vertex; 0 where the weight is 0."""
    weights: Array
    """[V, 4] rows sum to 1."""

    def moved(self, vertices: Array, time: int) -> Array:
        """Vertices [V, 3] at the time of this number: what a player of the skin shows."""
        from scipy.spatial.transform import Rotation

        turns = Rotation.from_quat(self.quats[time][:, [1, 2, 3, 0]]).as_matrix()
        local = vertices[:, None] - self.rest[self.joints]
        each = np.einsum("vkij,vkj->vki", turns[self.joints], local) + self.places[time][self.joints]
        return np.asarray((each * self.weights[..., None]).sum(1))


def moves_by_nodes(field: Deformation) -> bool:
    """Whether a field is a blend of rigid nodes and nothing else."""
    if isinstance(field, KeyframeField):
        return bool(field.config["over"] == "nodes")
    return type(field) in (NodeField, PathField)


@torch.no_grad()
def node_poses(field: Any, time: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit quaternions [K, 4] and translations [K, 3] of the nodes of such a field at `time`."""
    if isinstance(field, MovingNodes):
        quats, shift = field.motions(time)
        return quats[0], shift[0]
    row = field.blend(field.table, time)
    return F.normalize(F.pad(row[:, 3:], (1, 0), value=1.0), dim=-1), row[:, :3]


def bones_of(scene: Scene, vertices: Array, times: int) -> Bones:
    """The scene's nodes at `times` values of time, and the weights that they have at `vertices` [V, 3].

    A scene that stands still has one bone. InputError for a field that is no blend of nodes.
    """
    field = scene.field
    if field.config["kind"] == "still":
        joints, weights = np.zeros((len(vertices), MOST), np.int64), np.zeros((len(vertices), MOST))
        weights[:, 0] = 1.0
        quats = np.tile((1.0, 0, 0, 0), (times, 1, 1))
        return Bones(np.zeros((1, 3)), np.zeros((times, 1, 3)), quats, joints, weights)
    if isinstance(field, ResidualField):
        off = max(float(field.differences(t)["means"].norm(dim=1).mean()) for t in field.keys)
        print(
            "the mesh follows the control nodes alone: what each Gaussian adds to them is left out, "
            f"{off * scene.world.scale:.2g} in the mean at the time when it is most"
        )
    elif field.config["kind"] == "rigged":
        raise InputError(
            "a mesh is moved by control nodes; this scene is moved by its asset's own skeleton, "
            "so take the asset's own mesh"
        )
    elif field.config["kind"] == "windows":
        raise InputError(
            "a mesh is moved by control nodes, and the Gaussians of a .4dgs move each by itself; give a "
            "format of splats or frames"
        )
    elif not moves_by_nodes(field) or not isinstance(field, NodeSkin):
        raise InputError(
            f"a mesh is moved by control nodes; this scene's field is {field.config['kind']}, so fit it again"
        )
    rest = field.nodes.numpy().astype(np.float64)
    poses = [node_poses(field, i / max(times - 1, 1)) for i in range(times)]
    quats = np.stack([q.double().numpy() for q, _ in poses])
    flips = np.sign((quats[1:] * quats[:-1]).sum(-1))
    quats[1:] *= np.cumprod(np.where(flips == 0, 1.0, flips), axis=0)[..., None]
    places = np.stack([rest + shift.double().numpy() for _, shift in poses])
    joints, weights = _weights(field, vertices)
    return Bones(rest, places, quats, joints, weights)


def _weights(field: NodeSkin, vertices: Array) -> tuple[Array, Array]:
    """As `NodeSkin.bind` gives them to Gaussians, for other points; the field stays bound as it is."""
    import copy

    asked = copy.deepcopy(field)
    NodeSkin.bind(asked, torch.from_numpy(np.asarray(vertices, np.float32)))
    joints, weights = asked.skinning()
    order = np.argsort(-weights, axis=1, kind="stable")[:, :MOST]
    joints, weights = np.take_along_axis(joints, order, 1), np.take_along_axis(weights, order, 1)
    room = ((0, 0), (0, MOST - joints.shape[1]))
    joints, weights = np.pad(joints, room), np.pad(weights.astype(np.float64), room)
    weights = np.where(weights < 1e-4, 0.0, weights)
    weights /= weights.sum(1, keepdims=True)
    return np.where(weights > 0, joints, 0), weights
