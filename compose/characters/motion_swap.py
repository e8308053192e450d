"""An action of one skeleton moved to another that has the same joints, in joint-local frames."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.deformation.rigs.rig import PATHS, Channel, Motion, Rig, decomposed

Floats = npt.NDArray[np.float64]

#: Share of the moved joints with a partner from which a motion is taken, and from which without a word.
LEAST, PLAIN = 0.6, 0.9
_SIDES = (
    (re.compile(r"(?i)[._ -](l|left)(?=$|[._ -])|(?<=[a-z])Left|^left"), ".l"),
    (re.compile(r"(?i)[._ -](r|right)(?=$|[._ -])|(?<=[a-z])Right|^right"), ".r"),
)


def clean_name(name: str) -> str:
    """A joint's name without namespace, exporter's prefix and number, its side in one form."""
    name = name.rpartition(":")[2]
    name = re.sub(r"(?i)^mixamorig[_:]?", "", name)
    name = re.sub(r"\.\d+$", "", name)
    for pattern, side in _SIDES:
        name, times = pattern.subn("", name, count=1)
        if times:
            name += side
    return re.sub(r"[\s_-]+", "_", name.lower()).strip("_")


@dataclass(frozen=True)
class Match:
    """Which joints of a source move which of a target."""

    pairs: tuple[tuple[int, int], ...]
    """(target joint, source joint), numbers in their rigs' `joints`."""
    coverage: float
    """Share of the source's moved joints that have a partner."""
    missing: tuple[str, ...]
    """Moved joints of the source without one."""


def joint_parents(rig: Rig) -> npt.NDArray[np.int64]:
    """[J] the nearest joint above each joint, -1 where there is none."""
    number: dict[int, int] = {}
    for j, node in enumerate(rig.joints.tolist()):
        number.setdefault(node, j)
    found = np.full(len(rig.joints), -1, np.int64)
    for j, node in enumerate(rig.joints.tolist()):
        above = int(rig.parents[node])
        while above >= 0 and above not in number:
            above = int(rig.parents[above])
        found[j] = number.get(above, -1) if above >= 0 else -1
    return found


def match(source: Rig, motion: Motion, target: Rig) -> Match:
    """Joints of equal clean name under joints of equal clean name."""

    def keys(rig: Rig) -> list[tuple[str, str]]:
        names = [clean_name(rig.names[node]) for node in rig.joints.tolist()]
        return [(names[j], names[p] if p >= 0 else "") for j, p in enumerate(joint_parents(rig).tolist())]

    theirs: dict[tuple[str, str], int] = {}
    for j, key in enumerate(keys(source)):
        theirs.setdefault(key, j)
    pairs = tuple((j, theirs[key]) for j, key in enumerate(keys(target)) if key in theirs)
    moved = moved_joints(source, motion)
    partnered = {s for _, s in pairs}
    missing = tuple(source.names[source.joints[j]] for j in moved if j not in partnered)
    coverage = 1.0 - len(missing) / len(moved) if moved else 0.0
    return Match(pairs, coverage, missing)


def moved_joints(rig: Rig, motion: Motion) -> list[int]:
    """Joints that a motion turns or shifts."""
    moving = {c.node for c in motion.channels if len(c.times) > 1 and np.ptp(c.values, axis=0).max() > 1e-6}
    return [j for j, node in enumerate(rig.joints.tolist()) if node in moving]


def swapped(source: Rig, motion: Motion, target: Rig, samples: int | None = None) -> tuple[Motion, Match]:
    """The motion as the target's own, sampled at `samples` times (default: 48 a second), and the match.

    Rotations R' = R_bind,target R_bind,sourceᵀ R(t); translations of every joint, in the ratio of the bind
    translations' lengths; scales stay the target's. InputError below a coverage of 0.6, naming three joints.
    """
    found = match(source, motion, target)
    if found.coverage < LEAST:
        names = ", ".join(found.missing[:3])
        raise InputError(
            f"{motion.name[:60]}: {found.coverage:.0%} of its joints have a partner ({names} have none); "
            "take a motion of a skeleton that matches"
        )
    count = samples or max(2, int(np.ceil(motion.seconds * 48)) + 1)
    times = np.linspace(motion.start, motion.end, count)
    theirs, ours = _bind_local(source), _bind_local(target)
    ratio = _extent(target) / max(_extent(source), 1e-12)
    above_s, above_t = joint_parents(source), joint_parents(target)
    posed = np.stack([_joint_locals(source, motion, float(t), above_s) for t in times])
    rest = target.worlds(target.local)
    channels = []
    for j, s in found.pairs:
        root = above_t[j] < 0 or above_s[s] < 0
        turn, shift = _transfer(posed[:, s], theirs[s], ours[j], ratio, root)
        channels += _channels(target, j, above_t, rest, turn, shift, ours[j], times)
    given = {"retargeted": True, "coverage": round(found.coverage, 3)}
    return replace(motion, channels=tuple(channels), facts={**motion.facts, **given}), found


def _bind_world(rig: Rig) -> Floats:
    return np.linalg.inv(rig.bind)


def _bind_local(rig: Rig) -> Floats:
    """[J, 4, 4] joint to the joint above in the bind pose; of a root, to the world of the bind pose."""
    world, above = _bind_world(rig), joint_parents(rig)
    found = world.copy()
    below = np.flatnonzero(above >= 0)
    found[below] = np.linalg.inv(world[above[below]]) @ world[below]
    return found


def _extent(rig: Rig) -> float:
    """Diagonal of the box of the bind positions."""
    return float(np.linalg.norm(np.ptp(_bind_world(rig)[:, :3, 3], axis=0)))


def _joint_locals(rig: Rig, motion: Motion, seconds: float, above: Any) -> Floats:
    """[J, 4, 4] joint to the joint above at a time; of a root, its world matrix."""
    world = rig.worlds(rig.locals_at(motion, seconds))[rig.joints]
    found = world.copy()
    below = np.flatnonzero(above >= 0)
    found[below] = np.linalg.inv(world[above[below]]) @ world[below]
    return found


def _turn(matrices: Floats) -> Floats:
    """Rotations of matrices [..., 4, 4] without their scale."""
    u, _, v = np.linalg.svd(matrices[..., :3, :3])
    return u @ v


def _transfer(posed: Floats, theirs: Floats, ours: Floats, ratio: float, root: bool) -> tuple[Floats, Floats]:
    """Rotations [T, 3, 3] and translations [T, 3] of a target's joint, in the frame of the joint above."""
    if root:
        return _turn(posed), posed[:, :3, 3] * ratio
    turn = _turn(ours) @ _turn(theirs).T @ _turn(posed)
    a, b = float(np.linalg.norm(theirs[:3, 3])), float(np.linalg.norm(ours[:3, 3]))
    scale = b / a if a > 1e-9 and b > 1e-9 else ratio
    return turn, ours[:3, 3] + (posed[:, :3, 3] - theirs[:3, 3]) * scale


def _channels(
    rig: Rig, j: int, above: Any, rest: Floats, turn: Floats, shift: Floats, ours: Floats, times: Floats
) -> list[Channel]:
    """Keys of a joint's node, whose parent may be a node between it and the joint above."""
    node = int(rig.joints[j])
    local = np.tile(np.eye(4), (len(times), 1, 1))
    parent, joint = int(rig.parents[node]), int(above[j])
    # A root is placed in the world, whose scale it then has.
    own = rest[node] if joint < 0 else rig.local[node]
    scale = np.linalg.norm(own[:3, :3], axis=0)
    local[:, :3, :3], local[:, :3, 3] = turn * scale, shift
    if joint < 0:
        if parent >= 0:
            local = np.linalg.inv(rest[parent]) @ local
    elif parent != rig.joints[joint]:
        local = np.linalg.inv(np.linalg.inv(rest[rig.joints[joint]]) @ rest[parent]) @ local
    trs = decomposed(local)
    columns = {"translation": slice(0, 3), "rotation": slice(3, 7), "scale": slice(7, 10)}
    return [Channel(node, path, times, trs[:, columns[path]]) for path in PATHS]
