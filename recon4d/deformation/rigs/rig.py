"""A skeleton that moves by key frames, as glTF says it (Khronos glTF 2.0, 3.7.3 skins and 3.11 animations).

Nodes form a tree; joints are nodes with an inverse bind matrix; motions are channels of keys. Joint maps
W B take a vertex as it was modelled to where it stands, in the world of the scene: `placing` is the
similarity from the file's world to it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.atomic import replacing_file, write_json
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.nearest import or_known

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PATHS = ("translation", "rotation", "scale")


@dataclass(frozen=True)
class Channel:
    """Keys of one property of one node."""

    node: int
    path: str
    """translation, rotation (quaternions x y z w) or scale."""
    times: Floats
    """[T] seconds, ascending."""
    values: Floats
    """[T, 3 or 4]; of CUBICSPLINE [3 T, …]: in-tangent, value, out-tangent of each key."""
    mode: str = "LINEAR"
    """LINEAR, STEP or CUBICSPLINE."""

    def at(self, seconds: float, slerp: bool = False) -> Floats:
        """The value; before the first and after the last key it holds theirs."""
        times = self.times
        own = self.values.reshape(len(times), 3, -1)[:, 1] if self.mode == "CUBICSPLINE" else self.values
        k = int(np.searchsorted(times, seconds, side="right")) - 1
        if k < 0 or k >= len(times) - 1:
            return self._unit(own[max(k, 0) if k < 0 else len(times) - 1])
        span = times[k + 1] - times[k]
        u = float((seconds - times[k]) / span)
        if self.mode == "STEP":
            return self._unit(own[k])
        if self.mode == "CUBICSPLINE":
            tangents = self.values.reshape(len(times), 3, -1)
            out, into = span * tangents[k, 2], span * tangents[k + 1, 0]
            a, b = 2 * u**3 - 3 * u**2 + 1, u**3 - 2 * u**2 + u
            c, d = -2 * u**3 + 3 * u**2, u**3 - u**2
            return self._unit(a * own[k] + b * out + c * own[k + 1] + d * into)
        if self.path == "rotation":
            return blended(own[k], own[k + 1], u, slerp)
        return (1.0 - u) * own[k] + u * own[k + 1]

    def _unit(self, value: Floats) -> Floats:
        return value / np.linalg.norm(value) if self.path == "rotation" else value


def blended(a: Floats, b: Floats, u: float, slerp: bool = False) -> Floats:
    """Quaternion between two, the short way: normalised linear as Blender does, or spherical as glTF asks."""
    if float(a @ b) < 0.0:
        b = -b
    if slerp:
        a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
        angle = 2.0 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b))
        if angle > 1e-9:
            mixed = (np.sin((1 - u) * angle) * a + np.sin(u * angle) * b) / np.sin(angle)
            return mixed / np.linalg.norm(mixed)
    mixed = (1.0 - u) * a + u * b
    return mixed / np.linalg.norm(mixed)


@dataclass(frozen=True)
class Motion:
    """One action."""

    name: str
    start: float
    """Seconds of its first key on the file's clock."""
    end: float
    """Seconds of its last key."""
    channels: tuple[Channel, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    """Gait and origin, JSON-able."""

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return self.end - self.start


@dataclass(frozen=True)
class Rig:
    """M nodes, J joints, and the actions that move them."""

    names: tuple[str, ...]
    """[M]"""
    parents: Ints
    """[M] node above, -1 for none; any order without a cycle."""
    local: Floats
    """[M, 4, 4] node to parent where no channel says otherwise."""
    trs: Floats
    """[M, 10] the same as translation, rotation (x y z w) and scale."""
    joints: Ints
    """[J] node of each joint."""
    bind: Floats
    """[J, 4, 4] inverse bind matrices."""
    motions: tuple[Motion, ...]
    placing: Floats = field(default_factory=lambda: np.eye(4))
    """[4, 4] similarity from the file's world to the scene's."""

    def motion(self, name: str | int) -> Motion:
        """An action by name or index; the part after the last `|` will do. InputError for an unknown one."""
        if isinstance(name, int):
            if 0 <= name < len(self.motions):
                return self.motions[name]
            raise InputError(f"action {name}: the rig has {len(self.motions)}, counted from 0")
        known = [motion.name.rpartition("|")[2] for motion in self.motions]
        for motion in self.motions:
            if name in (motion.name, motion.name.rpartition("|")[2]):
                return motion
        raise InputError(f"action {name[:80]!r}: unknown; {or_known(name, known)}"[:300])

    def locals_at(self, motion: Motion | None, seconds: float, slerp: bool = False) -> Floats:
        """[M, 4, 4] node to parent."""
        found = self.local.copy()
        if motion is None or not motion.channels:
            return found
        trs = self.trs.copy()
        moved = set()
        for channel in motion.channels:
            first = {"translation": 0, "rotation": 3, "scale": 7}[channel.path]
            value = channel.at(seconds, slerp)
            trs[channel.node, first : first + len(value)] = value
            moved.add(channel.node)
        nodes = sorted(moved)
        found[nodes] = composed(trs[nodes])
        return found

    def worlds(self, local: Floats) -> Floats:
        """[M, 4, 4] node to the file's world, from node to parent."""
        found = local.copy()
        for node in self.order():
            if self.parents[node] >= 0:
                found[node] = found[self.parents[node]] @ local[node]
        return found

    def order(self) -> list[int]:
        """Nodes, parents before children."""
        depth = np.zeros(len(self.parents), np.int64)
        above = self.parents.copy()
        while (above >= 0).any():
            depth[above >= 0] += 1
            above = np.where(above >= 0, self.parents[above], -1)
            if depth.max(initial=0) > len(self.parents):
                raise InputError("the nodes of this rig form a cycle")
        return np.argsort(depth, kind="stable").tolist()

    def maps(self, motion: Motion | str | int | None, seconds: float, slerp: bool = False) -> Floats:
        """[J, 4, 4] from a vertex as modelled, in the scene's world, to where it stands then."""
        chosen = self.motion(motion) if isinstance(motion, str | int) else motion
        worlds = self.worlds(self.locals_at(chosen, seconds, slerp))
        return self.placing @ worlds[self.joints] @ self.bind @ np.linalg.inv(self.placing)

    def placed(self, placing: Floats) -> Rig:
        """The same in another scene."""
        return replace(self, placing=np.asarray(placing, np.float64))


def composed(trs: Floats) -> Floats:
    """[N, 4, 4] of translations, rotations (x y z w) and scales [N, 10]."""
    x, y, z, w = (trs[:, 3:7] / np.linalg.norm(trs[:, 3:7], axis=1, keepdims=True)).T
    found = np.zeros((len(trs), 4, 4))
    found[:, 0, :3] = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], 1)
    found[:, 1, :3] = np.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], 1)
    found[:, 2, :3] = np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], 1)
    found[:, :3, :3] *= trs[:, None, 7:10]
    found[:, :3, 3] = trs[:, :3]
    found[:, 3, 3] = 1.0
    return found


def decomposed(matrices: Floats) -> Floats:
    """[N, 10] translations, rotations (x y z w) and scales of matrices [N, 4, 4]; a shear is lost."""
    found = np.zeros((len(matrices), 10))
    found[:, :3] = matrices[:, :3, 3]
    linear = matrices[:, :3, :3]
    scales = np.linalg.norm(linear, axis=1)
    flipped = np.linalg.det(linear) < 0
    scales[flipped] *= -1.0
    found[:, 7:] = scales
    found[:, 3:7] = quaternions(linear / np.where(scales == 0, 1.0, scales)[:, None, :])
    return found


def quaternions(rotations: Floats) -> Floats:
    """[N, 4] unit quaternions x y z w of rotations [N, 3, 3], by the largest of their four parts."""
    m = rotations
    trace = m[:, 0, 0] + m[:, 1, 1] + m[:, 2, 2]
    squares = np.stack(
        [*(1 + 2 * m[:, i, i] - trace for i in range(3)), 1 + trace], axis=1
    )  # four times x², y², z², w²
    rows = np.empty((len(m), 4, 4))
    off = {(0, 1): m[:, 0, 1] + m[:, 1, 0], (0, 2): m[:, 0, 2] + m[:, 2, 0], (1, 2): m[:, 1, 2] + m[:, 2, 1]}
    own = (m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1])
    for i in range(3):
        for j in range(3):
            rows[:, i, j] = squares[:, i] if i == j else off[min(i, j), max(i, j)]
        rows[:, i, 3] = rows[:, 3, i] = own[i]
    rows[:, 3, 3] = squares[:, 3]
    best = rows[np.arange(len(m)), squares.argmax(axis=1)]
    return best / np.maximum(np.linalg.norm(best, axis=1, keepdims=True), 1e-300)


def save_rig(rig: Rig, folder: Path) -> None:
    """rig.npz (arrays) and rig.json (names, actions with seconds and gait) in a scene's folder."""
    arrays: dict[str, Any] = {
        "parents": rig.parents, "local": rig.local, "trs": rig.trs, "joints": rig.joints, "bind": rig.bind,
        "placing": rig.placing,
    }  # fmt: skip
    record: dict[str, Any] = {"nodes": list(rig.names), "actions": []}
    for a, motion in enumerate(rig.motions):
        channels = []
        for c, channel in enumerate(motion.channels):
            arrays[f"t{a}_{c}"], arrays[f"v{a}_{c}"] = channel.times, channel.values
            channels.append([channel.node, channel.path, channel.mode])
        facts = {"name": motion.name, "start": motion.start, "end": motion.end, **motion.facts}
        record["actions"].append({**facts, "channels": channels})
    with replacing_file(folder / "rig.npz") as draft, open(draft, "wb") as file:
        np.savez_compressed(file, **arrays)
    write_json(folder / "rig.json", record)


def load_rig(folder: Path) -> Rig:
    """Inverse of `save_rig`. KeyError, ValueError or OSError for what is damaged."""
    record = json.loads((folder / "rig.json").read_text(encoding="utf-8"))
    with np.load(folder / "rig.npz", allow_pickle=False) as stored:
        motions = []
        for a, row in enumerate(record["actions"]):
            channels = tuple(
                Channel(int(node), path, stored[f"t{a}_{c}"], stored[f"v{a}_{c}"], mode)
                for c, (node, path, mode) in enumerate(row["channels"])
            )
            facts = {k: v for k, v in row.items() if k not in ("name", "start", "end", "channels")}
            motions.append(Motion(row["name"], row["start"], row["end"], channels, facts))
        plain = {name: stored[name] for name in ("parents", "local", "trs", "joints", "bind", "placing")}
    return Rig(names=tuple(record["nodes"]), motions=tuple(motions), **plain)


def finite_rig(rig: Rig, what: str) -> Rig:
    """The rig, checked. InputError naming the joint or node at fault."""
    for j in np.flatnonzero(~np.isfinite(rig.bind).all(axis=(1, 2))):
        raise InputError(f"{what}: joint {int(j)}: its bind matrix is not finite")
    for motion in rig.motions:
        for channel in motion.channels:
            if not (np.isfinite(channel.times).all() and np.isfinite(channel.values).all()):
                raise InputError(
                    f"{what}: {motion.name}: a key of node {rig.names[channel.node]!r} is not finite"
                )
    rig.order()
    return rig


def names_of(motions: Sequence[Motion]) -> list[str]:
    """Names in order."""
    return [motion.name for motion in motions]
