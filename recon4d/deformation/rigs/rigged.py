"""Gaussians moved by an asset's own skeleton: fitted once at one time, driven by any action.

The field keeps for every Gaussian the joints it follows; a scene of it holds rig.npz and rig.json beside
canonical.ply. A Gaussian with blended joint map M(t) stands at M(t) M(t₀)⁻¹ of where it was fitted, and its
whole covariance with it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from orbit4d.datasets.core.atomic import replacing_file
from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d import rotations
from orbit4d.recon4d.deformation.field import Deformation
from orbit4d.recon4d.deformation.rigs.harmonics_turn import turned_harmonics
from orbit4d.recon4d.deformation.rigs.linear_skin import drawn, skin, spread
from orbit4d.recon4d.deformation.rigs.rig import Rig, load_rig, save_rig
from orbit4d.recon4d.deformation.surface import Binding
from orbit4d.recon4d.gaussians import Gaussians

#: Least standard deviation of what is drawn, units of the scene.
FLOOR = 1e-7
#: Size of a blended map's determinant, relative to its largest entry cubed, below which it has no inverse.
_SINGULAR = 1e-12


class RigField(Deformation):
    """A rig, what of it each Gaussian follows, and the action that plays over time 0 to 1.

    `window` are the seconds of the action at times 0 and 1; `moment` is (action or None, seconds) at which
    the Gaussians were fitted.
    """

    def __init__(
        self,
        action: str = "",
        window: tuple[float, float] = (0.0, 1.0),
        moment: tuple[str | None, float] = (None, 0.0),
    ) -> None:
        super().__init__()
        self.config = {
            "kind": "rigged", "action": action, "window": list(window), "moment": list(moment),
        }  # fmt: skip
        self.rig: Rig | None = None
        self.index = np.zeros((0, 1), np.int64)
        self.weights = np.zeros((0, 1))
        self._bound: tuple[npt.NDArray[Any], ...] | None = None
        self._count = -1

    def attach(self, rig: Rig, index: npt.NDArray[np.int64], weights: npt.NDArray[Any]) -> RigField:
        """Take a rig and the joints [N, K] and weights [N, K] of N Gaussians."""
        self.rig = rig
        self.index, self.weights = np.ascontiguousarray(index), np.ascontiguousarray(weights, np.float64)
        self._bound = None
        return self

    @property
    def action(self) -> str:
        """Name of the action that plays."""
        return self.config["action"]

    def with_action(self, name: str, window: tuple[float, float] | None = None) -> RigField:
        """The same Gaussians under another action, over all of it unless `window` (seconds) is given."""
        rig = self._rig()
        motion = rig.motion(name)
        field = RigField(motion.name, window or (motion.start, motion.end), tuple(self.config["moment"]))
        return field.attach(rig, self.index, self.weights)

    def _rig(self) -> Rig:
        if self.rig is None:
            raise InputError("a rigged field without its rig; load the scene's folder")
        return self.rig

    def seconds(self, time: float) -> float:
        """The action's clock at `time` in [0, 1]."""
        start, end = self.config["window"]
        return start + time * (end - start)

    def bound(self, gaussians: Gaussians) -> tuple[npt.NDArray[Any], ...]:
        """(means [N, 3], covs [N, 3, 3], axes [N, 3, 3], rotations [N, 3, 3]) in bind space.

        The last are the polar parts of the maps at the time of the fit. InputError naming the joint where
        the skeleton was flat then.
        """
        if self._bound is not None and self._count == len(gaussians):
            return self._bound
        rig = self._rig()
        if len(gaussians) != len(self.index):
            raise InputError(f"a rig bound to {len(self.index)} Gaussians, the scene holds {len(gaussians)}")
        action, seconds = self.config["moment"]
        maps = rig.maps(action or None, float(seconds))
        refuse_flat(rig, (action, float(seconds)), maps, self.index, self.weights)
        blended = np.einsum("nk,nkij->nij", self.weights, maps[self.index])
        back = np.linalg.inv(blended)
        axes = (
            rotations.to_matrix(torch.nn.functional.normalize(gaussians.quats.double(), dim=1)).cpu().numpy()
        )
        spread = np.exp(2.0 * gaussians.log_scales.double().cpu().numpy())
        covs = (axes * spread[:, None, :]) @ axes.transpose(0, 2, 1)
        linear = back[:, :3, :3]
        means = np.einsum("nij,nj->ni", linear, gaussians.means.double().cpu().numpy()) + back[:, :3, 3]
        ones = np.ones((len(means), 1))
        own = np.arange(len(means))[:, None]
        turns = skin(means, covs, blended, own, ones)[2]
        covs = linear @ covs @ linear.transpose(0, 2, 1)
        frames = turns.transpose(0, 2, 1) @ axes
        self._bound = tuple(np.ascontiguousarray(a) for a in (means, covs, frames, turns))
        self._count = len(gaussians)
        return self._bound

    def bind(self, means: Tensor) -> None:
        self.bound_means = means
        self._bound = None

    def joint_maps(self, time: float) -> npt.NDArray[np.float64]:
        """[J, 4, 4] maps of the joints at `time` in [0, 1], from where the Gaussians were bound."""
        return self._rig().maps(self.action or None, self.seconds(time))

    @torch.no_grad()
    def as_bound(self, gaussians: Gaussians) -> Gaussians:
        """The Gaussians in bind space, which `joint_maps` carry to where they stand."""
        from scipy.spatial.transform import Rotation

        means, covs, _, turns = self.bound(gaussians)
        deviations, axes = spread(covs, FLOOR)
        quats = Rotation.from_matrix(axes).as_quat()[:, [3, 0, 1, 2]]
        back = torch.from_numpy(np.ascontiguousarray(turns.transpose(0, 2, 1)))
        return replace(
            gaussians,
            means=torch.from_numpy(means).float(),
            quats=torch.from_numpy(quats).float(),
            log_scales=torch.from_numpy(np.log(deviations)).float(),
            harmonics=turned_harmonics(gaussians.harmonics, back),
        )

    @torch.no_grad()
    def move(self, gaussians: Gaussians, time: float) -> Gaussians:
        return self.posed(gaussians, self.joint_maps(time))

    @torch.no_grad()
    def posed(self, gaussians: Gaussians, maps: npt.NDArray[Any]) -> Gaussians:
        """The Gaussians under joint maps [J, 4, 4]."""
        means, covs, frames, turns = self.bound(gaussians)
        moved, quats, logs = drawn(means, covs, maps, self.index, self.weights, frames, FLOOR)
        device = gaussians.means.device
        found = replace(
            gaussians,
            means=torch.from_numpy(moved).to(device),
            quats=torch.from_numpy(quats).to(device),
            log_scales=torch.from_numpy(logs).to(device),
        )
        if gaussians.sh_degree:
            now = skin(means, covs, maps, self.index, self.weights)[2] @ turns.transpose(0, 2, 1)
            found.harmonics = turned_harmonics(gaussians.harmonics, torch.from_numpy(now))
        return found

    def forward(self, means: Tensor, quats: Tensor, log_scales: Tensor, time: float) -> tuple[Tensor, ...]:
        none = means.new_zeros(len(means))
        moved = self.move(Gaussians(means, log_scales, quats, none, means), time)
        return moved.means, moved.quats, moved.log_scales


def refuse_flat(
    rig: Rig, moment: tuple[str | None, float], maps: npt.NDArray[Any], index: npt.NDArray[np.int64],
    weights: npt.NDArray[Any],
) -> None:  # fmt: skip
    """InputError, naming the joint, where maps [J, 4, 4] at a moment flatten what follows them [N, K]."""
    blended = np.einsum("nk,nkij->nij", weights, maps[index])[:, :3, :3]
    size = np.abs(blended).max(axis=(1, 2))
    flat = np.abs(np.linalg.det(blended)) <= _SINGULAR * np.maximum(size, 1e-300) ** 3
    if flat.any():
        first = int(np.flatnonzero(flat)[0])
        joint = rig.joints[index[first, weights[first].argmax()]]
        raise InputError(
            f"joint {rig.names[joint][:80]!r} is scaled to nothing at {moment[1]:g} s of "
            f"{(moment[0] or 'the rest pose')[:80]}: fit the scene at another moment (--rig-moment)"
        )


def rig_field(
    rig: Rig, binding: Binding, action: str, window: tuple[float, float], moment: tuple[str | None, float]
) -> RigField:
    """A field of a rig and a binding; see `RigField`."""
    return RigField(action, window, moment).attach(rig, binding.index, binding.weights)


def save_rigged(field: RigField, folder: Path) -> None:
    """rig.npz, rig.json and binding.npz (joints and weights of the Gaussians) of a scene."""
    save_rig(field._rig(), folder)
    with replacing_file(folder / "binding.npz") as draft, open(draft, "wb") as file:
        np.savez_compressed(file, index=field.index.astype(np.uint16), weights=field.weights)


def load_rigged(field: RigField, folder: Path) -> RigField:
    """Inverse of `save_rigged`: give the field its rig. OSError, KeyError or ValueError for damage."""
    rig = load_rig(folder)
    with np.load(folder / "binding.npz", allow_pickle=False) as stored:
        index, weights = stored["index"].astype(np.int64), stored["weights"]
    if index.shape != weights.shape or (index.size and index.max() >= len(rig.joints)):
        raise ValueError("joints and weights that do not fit the rig")
    return field.attach(rig, index, weights)
