"""Joints, weights and morph targets of an action, which give its vertices at every time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.errors import WorkError
from orbit4d.datasets.geometry import container
from orbit4d.datasets.geometry.clip import ClipGeometry

MAGIC = b"O4DSKEL1"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Skeleton:
    """`J` joints, parents before children, of an action with `V` vertices (those of its `Geometry`) and `T`
    times. vertex(t) = sum over its joints of weight · pose[t] · rest⁻¹ · (basis + morphs), in the clip's
    world.
    """

    names: tuple[str, ...]
    """[J] of bones; `object:<name>` for what follows its object alone."""
    parents: npt.NDArray[np.int32]
    """[J] number of the parent, -1 for a root."""
    rest: Floats
    """[J, 4, 4] joint to world when the surface lies as it was modelled."""
    pose: Floats
    """[T, J, 4, 4] joint to world at the times of the geometry."""
    basis: npt.NDArray[np.float32]
    """[V, 3] vertices as they were modelled."""
    vertex: npt.NDArray[np.uint32]
    """[E] vertex of each weight."""
    joint: npt.NDArray[np.uint16]
    """[E] joint of each weight."""
    weight: npt.NDArray[np.float32]
    """[E]; those of a vertex sum to 1."""
    morphs: tuple[str, ...] = ()
    """[K] names of morph targets, `<object>/<target>`."""
    deltas: npt.NDArray[np.float32] | None = None
    """[K, V, 3] by what each moves the vertices at weight 1."""
    morph_weights: Floats | None = None
    """[T, K]"""

    def skinned(self, t: int) -> Floats:
        """[V, 3] vertices at time `t` by linear blend skinning."""
        place = self.basis.astype(np.float64)
        if self.deltas is not None and self.morph_weights is not None and len(self.morphs):
            place = place + np.tensordot(self.morph_weights[t], self.deltas.astype(np.float64), 1)
        turn = self.pose[t] @ np.linalg.inv(self.rest)
        moved = np.einsum("nij,nj->ni", turn[self.joint, :3, :3], place[self.vertex])
        moved += turn[self.joint, :3, 3]
        total = np.zeros_like(place)
        np.add.at(total, self.vertex, moved * self.weight[:, None])
        return total

    def top(self, n: int = 4) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], float]:
        """(joints [V, n], weights [V, n] that sum to 1, largest distance that leaving out the smaller ones
        makes at any time). Unused places have weight 0.
        """
        order = np.lexsort((-self.weight, self.vertex))
        vertex, joint, weight = self.vertex[order].astype(np.int64), self.joint[order], self.weight[order]
        starts = np.searchsorted(vertex, vertex)
        rank = np.arange(len(vertex)) - starts
        kept = rank < n
        joints = np.zeros((len(self.basis), n), np.int64)
        weights = np.zeros((len(self.basis), n), np.float32)
        joints[vertex[kept], rank[kept]] = joint[kept]
        weights[vertex[kept], rank[kept]] = weight[kept]
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
        rows, columns = np.nonzero(weights)
        fewer = Skeleton(
            self.names, self.parents, self.rest, self.pose, self.basis, rows.astype(np.uint32),
            joints[rows, columns].astype(np.uint16), weights[rows, columns], self.morphs, self.deltas,
            self.morph_weights,
        )  # fmt: skip
        error = max(
            float(np.linalg.norm(fewer.skinned(t) - self.skinned(t), axis=1).max())
            for t in range(len(self.pose))
        )
        return joints, weights, error

    def joints_2d(
        self, clip: ClipGeometry, frame: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """(pixels [J, 2], in_frame [J], in_front [J]) of the joints in a frame of a clip of the action.

        Joints lie inside; `in_front` says that what is seen at their pixel is the surface that they move
        most, or lies behind them. A joint outside the image, or behind the camera, is neither.
        """
        camera, seen = clip.cameras[frame], clip.triangles(frame)
        places = self.pose[clip.times[frame]][:, :3, 3]
        pixels, depth = camera.project(places)
        inside = (depth > 0) & (pixels >= 0).all(1) & (pixels < [camera.w, camera.h]).all(1)
        front = np.zeros(len(places), bool)
        leading = self._leading()
        depths = clip.depth(frame)
        for j in np.flatnonzero(inside):
            row, column = int(pixels[j, 1]), int(pixels[j, 0])
            triangle = seen[row, column]
            own = triangle >= 0 and j in leading[clip.mesh.faces[triangle]]
            front[j] = own or depths[row, column] >= depth[j]
        return pixels.astype(np.float32), inside, front

    def _leading(self) -> npt.NDArray[np.int64]:
        """[V] joint with the largest weight."""
        found = np.zeros(len(self.basis), np.int64)
        order = np.argsort(self.weight, kind="stable")
        found[self.vertex[order]] = self.joint[order]
        return found


def stored_skeleton(
    names: Sequence[str], morphs: Sequence[str], coo: npt.NDArray[np.float64], **arrays: Any
) -> Skeleton:
    """A `Skeleton` of `coo` [E, 3] (vertex, joint, weight) and its other arrays, in the types it keeps."""
    return Skeleton(
        names=tuple(names),
        parents=arrays["parents"].astype(np.int32),
        rest=arrays["rest"].astype(np.float64),
        pose=arrays["pose"].astype(np.float64),
        basis=arrays["basis"].astype(np.float32),
        vertex=coo[:, 0].astype(np.uint32),
        joint=coo[:, 1].astype(np.uint16),
        weight=coo[:, 2].astype(np.float32),
        morphs=tuple(morphs),
        deltas=arrays["deltas"].astype(np.float32),
        morph_weights=arrays["morph_weights"].astype(np.float64),
    )


_BLOCKS = {
    "parents": "zstd",
    "rest": "split+zstd",
    "pose": "split+zstd",
    "basis": "split+zstd",
    "vertex": "delta+split+zstd",
    "joint": "split+zstd",
    "weight": "split+zstd",
    "deltas": "split+zstd",
    "morph_weights": "split+zstd",
}


def encode_skeleton(skeleton: Skeleton) -> bytes:
    """The member of an action: see `container`."""
    header = {"names": list(skeleton.names), "morphs": list(skeleton.morphs)}
    return container.pack(
        MAGIC, header, {name: (getattr(skeleton, name), codec) for name, codec in _BLOCKS.items()}
    )


def decode_skeleton(data: bytes, name: str) -> Skeleton:
    """Inverse of `encode_skeleton`; damage raises WorkError naming `name`."""
    header, blocks = container.unpack(MAGIC, data, name)
    try:
        found = Skeleton(names=tuple(header["names"]), morphs=tuple(header["morphs"]), **blocks)
        n = len(found.names)
        if not (
            len(found.parents) == len(found.rest) == found.pose.shape[1] == n
            and (found.parents < np.arange(n)).all()
            and len(found.vertex) == len(found.joint) == len(found.weight)
            and (not len(found.joint) or found.joint.max() < n)
            and (not len(found.vertex) or found.vertex.max() < len(found.basis))
        ):
            raise ValueError("joints, weights or vertices that do not fit")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise WorkError(f"{name}: damaged ({type(error).__name__}: {error}); run `orbit4d verify`") from error
    return found
