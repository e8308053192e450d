"""Which static orbit of a dataset a rigged scene is fitted to, and how it comes into its action's world."""

from __future__ import annotations

import numpy as np

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.nearest import or_known
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.index.reader import read_clip
from orbit4d.datasets.store.clip import Clip
from orbit4d.recon4d.composition import placed
from orbit4d.recon4d.deformation.rigs.self_contact import self_contact
from orbit4d.recon4d.fitting.rigging.slot import Read
from orbit4d.recon4d.gaussians import Gaussians

#: Share of the surface by which another action's first moment has to touch itself less.
_LESS = 0.002


def fitted_clip(dataset: str, driven: Clip, moment: str, read: Read) -> Clip:
    """The static orbit that `--rig-moment` says, for an action that is to be driven.

    `first` is the action's own, `auto` that of all the asset's actions in whose first moment the least of its
    surface touches another part of it, else an action's name. InputError for one that has no static orbit.
    """
    if moment == "first":
        return driven
    rows = Index(dataset).rows_of(driven.uid)
    there = {
        row["action_index"]: str(row["action"])
        for row in rows
        if (row["rig"], row["orbit"]) == ("static_orbit", 0)
    }
    if moment == "auto":
        chosen = _least(there, driven, read)
    else:
        found = [i for i, name in there.items() if moment in (name, name.rpartition("|")[2])]
        if not found:
            names = [name.rpartition("|")[2] for name in there.values()]
            known = or_known(moment, ["first", "auto", *names])
            raise InputError(
                f"--rig-moment {moment[:60]}: {driven.uid} has no static orbit of such an action; {known}"[
                    :300
                ]
            )
        chosen = found[0]
    return driven if chosen == driven.action_index else read_clip(dataset, driven.uid, chosen, "static_orbit")


def _least(there: dict[int, str], driven: Clip, read: Read) -> int:
    """Index of the action whose first moment touches itself least; the driven one where it hardly matters."""

    def touching(index: int) -> float:
        motion = read.rig.motions[index]
        return self_contact(read.surface, read.surface.posed(read.rig.maps(motion, motion.start)))

    shares = {i: touching(i) for i in there if 0 <= i < len(read.rig.motions)}
    best = min(shares, key=lambda i: (shares[i], i))
    own = shares.get(driven.action_index, np.inf)
    return best if shares[best] < own - _LESS else driven.action_index


def into_world(gaussians: Gaussians, static: Clip, driven: Clip) -> Gaussians:
    """Gaussians fitted to one action's clip, in the world of another's: each has a scale of its own."""
    if (static.scale, tuple(static.centre)) == (driven.scale, tuple(driven.centre)):
        return gaussians
    shift = driven.scale * (np.asarray(static.centre, np.float64) - np.asarray(driven.centre, np.float64))
    return placed(gaussians, driven.scale / static.scale, np.eye(3), shift)
