"""Skeleton, weights and surface of a glTF file, without Blender (Khronos glTF 2.0, 3.7.3 and 3.11)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.assets.gltf import open_gltf
from orbit4d.datasets.assets.inspection import BadFile
from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.deformation.rigs.rig import Channel, Motion, Rig, composed, decomposed, finite_rig
from orbit4d.recon4d.deformation.surface import SkinnedSurface

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_DRACO = "KHR_draco_mesh_compression"
_INSTANCES = "EXT_mesh_gpu_instancing"
#: (x, y, z) of glTF, +Y up, to (x, -z, y): +Z up, the front along -Y.
TO_Z_UP: Floats = np.array([[1.0, 0, 0, 0], [0, 0, -1.0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1.0]])


class NeedsBlender(Exception):
    """The file packs its meshes in a way that only Blender reads here."""


@dataclass(frozen=True)
class Character:
    """What moves, and what it moves."""

    rig: Rig
    surface: SkinnedSurface
    notes: tuple[str, ...] = ()


def placing_of(scale: float, centre: Any) -> Floats:
    """[4, 4] from a glTF file's world to that of a dataset's row: scale · (Z(p) - centre)."""
    found = np.eye(4)
    found[:3, :3] *= scale
    found[:3, 3] = -scale * np.asarray(centre, np.float64)
    return found @ TO_Z_UP


def read_gltf(path: str, placing: Floats | None = None) -> Character:
    """Rig and surface of a .glb or .gltf, placed in a scene's world by `placing` [4, 4].

    Raises InputError for a file that is damaged or holds no skeleton and no animated nodes, NeedsBlender for
    packed or instanced meshes.
    """
    try:
        file = open_gltf(path)
        return _Reader(path, file).character(TO_Z_UP if placing is None else placing)
    except BadFile as bad:
        raise InputError(f"{path}: {bad.code} ({bad.detail})"[:300]) from None


class _Reader:
    def __init__(self, path: str, file: Any) -> None:
        self.path, self.file = path, file
        self.nodes = file.lists["nodes"]
        self.joints: list[int] = []
        self.binds: list[Floats] = []
        self.first: dict[tuple[str, int], int] = {}
        """Number of the first joint of a skin, or of the joint of a mesh node."""
        self.frozen = 0
        self.repaired = 0

    def character(self, placing: Floats) -> Character:
        parts = [self._part(n) for n in self._mesh_nodes()]
        parts = [part for part in parts if part is not None]
        motions = tuple(self._motion(a, i) for i, a in enumerate(self.file.lists["animations"]))
        self._refuse_still(motions)
        if not parts:
            raise InputError(f"{self.path}: no triangles that a skeleton could move")
        parents = np.full(len(self.nodes), -1, np.int64)
        for n, node in enumerate(self.nodes):
            for child in node.get("children", []):
                parents[child] = n
        trs, local = self._rest()
        names = tuple(str(node.get("name", f"node_{n}")) for n, node in enumerate(self.nodes))
        rig = Rig(
            names,
            parents,
            local,
            trs,
            np.array(self.joints, np.int64),
            np.stack(self.binds),
            motions,
            placing,
        )
        surface = self._joined(parts, placing)
        notes = []
        if self.repaired:
            notes.append(
                f"repaired_weights: {self.repaired} vertices had none and take those of the nearest one"
            )
        if self.frozen:
            notes.append(f"{self.frozen} meshes have morph targets, which stay as the file sets them")
        return Character(finite_rig(rig, self.path), surface, tuple(notes))

    def _refuse_still(self, motions: tuple[Motion, ...]) -> None:
        channels = sum(len(motion.channels) for motion in motions)
        if self.file.lists["skins"] or channels:
            return
        has = "morph targets only" if any(
            "targets" in p for mesh in self.file.lists["meshes"] for p in mesh.get("primitives", [])
        ) else "a still mesh"  # fmt: skip
        raise InputError(
            f"{self.path}: no skeleton and no animated nodes ({has}); leave --rig out and fit its orbit video"
        )

    def _mesh_nodes(self) -> list[int]:
        scenes = self.file.lists["scenes"]
        roots = scenes[int(self.file.doc.get("scene", 0))].get("nodes", []) if scenes else None
        if roots is None:
            return [n for n, node in enumerate(self.nodes) if "mesh" in node]
        found, stack = [], list(roots)
        while stack:
            n = stack.pop()
            stack.extend(self.nodes[n].get("children", []))
            if "mesh" in self.nodes[n]:
                found.append(n)
        return sorted(found)

    def _part(self, n: int) -> tuple[Floats, Ints, Ints, Floats] | None:
        """(vertices, faces, joints, weights) of a mesh node."""
        node = self.nodes[n]
        if _INSTANCES in node.get("extensions", {}):
            raise NeedsBlender(_INSTANCES)
        skin = node.get("skin")
        first = self._joints_of("skin", skin) if skin is not None else self._joints_of("node", n)
        places, faces, index, weights = [], [], [], []
        start = 0
        mesh = self.file.lists["meshes"][node["mesh"]]
        for primitive in mesh.get("primitives", []):
            if _DRACO in primitive.get("extensions", {}):
                raise NeedsBlender(_DRACO)
            attributes = primitive["attributes"]
            if primitive.get("mode", 4) not in (4, 5, 6) or "POSITION" not in attributes:
                continue
            vertices = self.file.array(attributes["POSITION"]).astype(np.float64)
            vertices = self._morphed(primitive, mesh, node, vertices)
            corners = self._corners(primitive, len(vertices))
            joints, shares = self._weights(attributes, len(vertices), skin, first)
            places.append(vertices)
            faces.append(corners + start)
            index.append(joints)
            weights.append(shares)
            start += len(vertices)
        if not places:
            return None
        width = max(rows.shape[1] for rows in index)
        index = [np.pad(rows, ((0, 0), (0, width - rows.shape[1])), mode="edge") for rows in index]
        weights = [np.pad(rows, ((0, 0), (0, width - rows.shape[1]))) for rows in weights]
        return np.concatenate(places), np.concatenate(faces), np.concatenate(index), np.concatenate(weights)

    def _joints_of(self, kind: str, number: int) -> int:
        if (kind, number) in self.first:
            return self.first[kind, number]
        self.first[kind, number] = len(self.joints)
        if kind == "node":
            self.joints.append(number)
            self.binds.append(np.eye(4))
            return self.first[kind, number]
        skin = self.file.lists["skins"][number]
        nodes = [int(j) for j in skin["joints"]]
        binds = np.tile(np.eye(4), (len(nodes), 1, 1))
        if "inverseBindMatrices" in skin:
            stored = self.file.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
            if len(stored) < len(nodes):
                raise InputError(
                    f"{self.path}: skin {number}: {len(stored)} bind matrices, {len(nodes)} joints"
                )
            binds = stored[: len(nodes)]
        self.joints += nodes
        self.binds += list(binds)
        return self.first[kind, number]

    def _morphed(self, primitive: Any, mesh: Any, node: Any, vertices: Floats) -> Floats:
        targets = primitive.get("targets", [])
        shares = node.get("weights", mesh.get("weights", []))
        self.frozen += bool(targets)
        for share, target in zip(shares, targets):
            if share and "POSITION" in target:
                vertices = vertices + share * self.file.array(target["POSITION"])
        return vertices

    def _corners(self, primitive: Any, n: int) -> Ints:
        order = self.file.array(primitive["indices"])[:, 0] if "indices" in primitive else np.arange(n)
        order = order.astype(np.int64)
        mode = primitive.get("mode", 4)
        if mode == 4:
            return order[: len(order) // 3 * 3].reshape(-1, 3)
        if mode == 5:
            rows = np.stack([order[:-2], order[1:-1], order[2:]], axis=1)
            rows[1::2] = rows[1::2, [1, 0, 2]]
            return rows
        return np.stack([np.full(len(order) - 2, order[0]), order[1:-1], order[2:]], axis=1)

    def _weights(self, attributes: Any, n: int, skin: int | None, first: int) -> tuple[Ints, Floats]:
        if skin is None:
            return np.full((n, 1), first, np.int64), np.ones((n, 1))
        joints, shares = [], []
        for k in range(8):
            if f"JOINTS_{k}" not in attributes or f"WEIGHTS_{k}" not in attributes:
                break
            joints.append(self.file.array(attributes[f"JOINTS_{k}"]).astype(np.int64))
            shares.append(self.file.array(attributes[f"WEIGHTS_{k}"]).astype(np.float64))
        if not joints:
            raise InputError(f"{self.path}: a skinned mesh without weights")
        index, weights = np.concatenate(joints, axis=1), np.concatenate(shares, axis=1)
        count = len(self.file.lists["skins"][skin]["joints"])
        used = index[weights != 0]
        if used.size and (used.max() >= count or used.min() < 0):
            raise InputError(f"{self.path}: a vertex follows joint {int(used.max())} of {count}")
        return index.clip(0, count - 1) + first, weights

    def _rest(self) -> tuple[Floats, Floats]:
        trs = np.zeros((len(self.nodes), 10))
        local = np.zeros((len(self.nodes), 4, 4))
        for n, node in enumerate(self.nodes):
            if "matrix" in node:
                local[n] = np.array(node["matrix"], np.float64).reshape(4, 4).T
                trs[n] = decomposed(local[n : n + 1])[0]
                continue
            trs[n, :3] = node.get("translation", (0, 0, 0))
            trs[n, 3:7] = node.get("rotation", (0, 0, 0, 1))
            trs[n, 7:] = node.get("scale", (1, 1, 1))
            if not np.linalg.norm(trs[n, 3:7]) > 0:
                trs[n, 3:7] = (0, 0, 0, 1)
            local[n] = composed(trs[n : n + 1])[0]
        return trs, local

    def _motion(self, animation: Any, number: int) -> Motion:
        channels = []
        for channel in animation.get("channels", []):
            target = channel["target"]
            if "node" not in target or target.get("path") not in ("translation", "rotation", "scale"):
                continue
            sampler = animation["samplers"][channel["sampler"]]
            times = self.file.array(sampler["input"])[:, 0].astype(np.float64)
            if not len(times):
                continue
            values = self.file.array(sampler["output"]).astype(np.float64)
            mode = str(sampler.get("interpolation", "LINEAR"))
            rows = len(times) * (3 if mode == "CUBICSPLINE" else 1)
            if len(values) < rows:
                raise InputError(f"{self.path}: animation {number}: {len(values)} values for {rows}")
            channels.append(Channel(int(target["node"]), target["path"], times, values[:rows], mode))
        start = min((float(c.times[0]) for c in channels), default=0.0)
        end = max((float(c.times[-1]) for c in channels), default=0.0)
        name = str(animation.get("name", "")) or f"Anim_{number}"
        return Motion(name, start, end, tuple(channels))

    def _joined(self, parts: list[Any], placing: Floats) -> SkinnedSurface:
        width = max(index.shape[1] for _, _, index, _ in parts)
        places, faces, joints, shares = [], [], [], []
        start = 0
        for vertices, corners, index, weights in parts:
            extra = ((0, 0), (0, width - index.shape[1]))
            places.append(vertices)
            faces.append(corners + start)
            joints.append(np.pad(index, extra, mode="edge"))
            shares.append(np.pad(weights, extra))
            start += len(vertices)
        vertices, index, weights = np.concatenate(places), np.concatenate(joints), np.concatenate(shares)
        index, weights, self.repaired = usable(self.path, vertices, index, weights)
        world = vertices @ placing[:3, :3].T + placing[:3, 3]
        return SkinnedSurface(world, np.concatenate(faces), index, weights, self.repaired)


def usable(what: str, vertices: Floats, index: Ints, weights: Floats) -> tuple[Ints, Floats, int]:
    """Weights whose rows sum to 1; a vertex whose own are NaN or all 0 takes those of the nearest good one.

    Returns the number of such vertices too. InputError where no vertex has a usable weight.
    """
    from scipy.spatial import cKDTree

    total = weights.sum(axis=1)
    good = np.isfinite(weights).all(axis=1) & (total > 1e-9) & np.isfinite(vertices).all(axis=1)
    if not good.any():
        raise InputError(f"{what}: no vertex with a usable weight")
    index, weights = index.copy(), weights.copy()
    if not good.all():
        _, near = cKDTree(vertices[good]).query(np.nan_to_num(vertices[~good]))
        index[~good], weights[~good] = index[good][near], weights[good][near]
    return index, weights / weights.sum(axis=1, keepdims=True), int((~good).sum())
