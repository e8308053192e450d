"""Canonical 3D Gaussians: unconstrained parameters, their activations, and the PLY layout of INRIA's 3DGS."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from orbit4d.datasets.core.atomic import write_bytes
from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.ply import read_elements

#: Constant of the degree-0 spherical harmonic: colour = 0.5 + SH_C0 * f_dc.
SH_C0 = 0.28209479177387814
#: Low-pass in px² of INRIA's rasteriser, gsplat and the viewers: that of a scene that does not say its own.
EPS2D = 0.3
#: Logarithm of the largest size of a Gaussian: beyond it squares leave float32.
LARGEST_LOG = 40.0
#: Standard deviation of a third axis that a file does not have.
FLAT = 1e-6


@dataclass
class Gaussians:
    """N Gaussians as the optimiser sees them. All tensors are float32."""

    means: Tensor
    """[N, 3] centres, world units."""
    log_scales: Tensor
    """[N, 3] logarithms of the standard deviations along the own axes."""
    quats: Tensor
    """[N, 4] rotations w x y z, of any length."""
    logits: Tensor
    """[N] opacity before the sigmoid."""
    colors: Tensor
    """[N, 3] RGB; values outside [0, 1] are clamped when drawn."""
    harmonics: Tensor = field(default_factory=lambda: torch.zeros(0))
    """[N, K, 3] coefficients of the real harmonics of degree 1 and up, K = 0, 3, 8 or 15."""

    def __post_init__(self) -> None:
        if self.harmonics.dim() != 3:
            self.harmonics = self.means.new_zeros(len(self.means), 0, 3)

    @property
    def sh_degree(self) -> int:
        """Degree of the colours' dependence on the direction they are seen from; 0 is none."""
        return math.isqrt(self.harmonics.shape[1] + 1) - 1

    def __len__(self) -> int:
        return len(self.means)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Field names in order."""
        return tuple(field.name for field in fields(cls))

    def tensors(self) -> dict[str, Tensor]:
        """Fields by name: means [N, 3], quats [N, 4] and so on, as the class lists them."""
        return {name: getattr(self, name) for name in self.names()}

    @property
    def opacities(self) -> Tensor:
        """[N] in (0, 1)."""
        return torch.sigmoid(self.logits)

    @property
    def scales(self) -> Tensor:
        """[N, 3] standard deviations, world units."""
        return self.log_scales.exp()

    def coefficients(self) -> Tensor:
        """[N, K + 1, 3] harmonics of all degrees, the constant one first: what `rasterize` takes."""
        return torch.cat([((self.colors - 0.5) / SH_C0).unsqueeze(1), self.harmonics], dim=1)

    def fault(self) -> str | None:
        """Why the set cannot be drawn, a phrase that names the numbers; None where it can.

        Numbers that are not finite, rotations of length 0, and sizes beyond float32.
        """
        for name, tensor in self.tensors().items():
            bad = ~torch.isfinite(tensor.detach()).reshape(len(tensor), -1).all(dim=1)
            if bad.any():
                what = name.replace("_", " ")
                return f"{what} that are no finite numbers ({int(bad.sum())} of {len(self)} Gaussians)"
        still = self.quats.detach().abs().amax(dim=1) == 0
        if len(self) and still.any():
            return f"rotations of length 0 ({int(still.sum())} of {len(self)} Gaussians)"
        huge = self.log_scales.detach().amax(dim=1) > LARGEST_LOG
        if len(self) and huge.any():
            return (
                f"sizes of more than {math.exp(LARGEST_LOG):.0g} ({int(huge.sum())} of {len(self)} Gaussians)"
            )
        return None

    def to(self, device: torch.device | str) -> Gaussians:
        """The same on a device."""
        return Gaussians(**{name: t.to(device) for name, t in self.tensors().items()})

    def detached(self) -> Gaussians:
        """Copies without gradient."""
        return Gaussians(**{name: t.detach().clone() for name, t in self.tensors().items()})


def from_points(
    points: np.ndarray, colors: np.ndarray, opacity: float = 0.3, sh_degree: int = 0
) -> Gaussians:
    """Isotropic Gaussians at points [N, 3] with colours [N, 3]; each as wide as its neighbours are far.

    The width is the mean distance to the three nearest neighbours (Kerbl et al. 2023, section 5.1).
    """
    from scipy.spatial import cKDTree

    if len(points) < 4:
        raise InputError(f"only {len(points)} points to start from; the silhouettes leave no common volume")
    near = cKDTree(points).query(points, k=4)[0][:, 1:].mean(1)
    width = np.clip(near, 1e-4, None)
    n = len(points)
    return Gaussians(
        means=torch.tensor(points, dtype=torch.float32),
        log_scales=torch.tensor(np.log(width)[:, None].repeat(3, 1), dtype=torch.float32),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(n, 1),
        logits=torch.full((n,), float(np.log(opacity / (1 - opacity)))),
        colors=torch.tensor(colors, dtype=torch.float32),
        harmonics=torch.zeros(n, (sh_degree + 1) ** 2 - 1, 3),
    )


_HEAD = ("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2")
_TAIL = ("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3")


def _rest(count: int) -> tuple[str, ...]:
    """Names of the columns of `count` harmonics above the constant: all of red, then green, then blue."""
    return tuple(f"f_rest_{i}" for i in range(3 * count))


def save_ply(gaussians: Gaussians, path: str | Path, eps2d: float = EPS2D) -> None:
    """Binary little-endian PLY in the layout of INRIA's 3DGS: viewers and editors read it.

    `eps2d`, the low-pass in px² that the Gaussians were fitted with, becomes a comment of the header where it
    is not the one that viewers have.
    """
    g = gaussians.detached()
    rows = torch.cat(
        [
            g.means,
            torch.zeros_like(g.means),
            (g.colors - 0.5) / SH_C0,
            g.harmonics.transpose(1, 2).flatten(1),
            g.logits[:, None],
            g.log_scales,
            torch.nn.functional.normalize(g.quats, dim=-1),
        ],
        dim=1,
    )
    header = ["ply", "format binary_little_endian 1.0"]
    header += [f"comment eps2d {eps2d:g}"] if eps2d != EPS2D else []
    header += [f"element vertex {len(g)}"]
    names = (*_HEAD, *_rest(g.harmonics.shape[1]), *_TAIL)
    header += [f"property float {name}" for name in names] + ["end_header", ""]
    write_bytes(path, "\n".join(header).encode() + rows.numpy().astype("<f4").tobytes())


def load_ply(path: str | Path) -> Gaussians:
    """Inverse of `save_ply`; reads any PLY whose vertices have the properties of that layout.

    ASCII and big-endian too, in any order of columns and with others in between; without scale_2 (2DGS) the
    third axis is flat, and filter_3D (mip-splatting) widens the axes. Harmonics that are 0 from a degree on
    stay. Raises InputError for anything else.
    """
    elements = read_elements(Path(path).read_bytes(), str(path))
    columns = elements.get("vertex", {})
    names = set(columns)
    if "packed_position" in names:
        raise InputError(f"{path}: a compressed PLY; `orbit4d.recon4d.read_splats` reads it")
    wanted = {name for name in (*_HEAD, *_TAIL) if name not in ("nx", "ny", "nz", "scale_2")}
    rest = _rest(sum(name.startswith("f_rest_") for name in names) // 3)
    known = len(rest) // 3 in (0, 3, 8, 15) and set(rest) <= names
    if not wanted <= names or not known:
        raise InputError(
            f"{path}: not a PLY of 3D Gaussians (INRIA layout: x, f_dc_0, opacity, scale_0, ...)"
        )
    count = len(columns["x"])

    def column(*wanted: str) -> Tensor:
        table = [np.asarray(columns[name], np.float32) for name in wanted]
        return torch.from_numpy(np.stack(table, axis=1) if table else np.zeros((count, 0), np.float32))

    flat = np.full(count, math.log(FLAT), np.float32)
    columns.setdefault("scale_2", flat)
    log_scales = column("scale_0", "scale_1", "scale_2")
    if "filter_3D" in names:
        log_scales = 0.5 * torch.log((2 * log_scales).exp() + column("filter_3D").square())
    return Gaussians(
        means=column("x", "y", "z"),
        log_scales=log_scales,
        quats=column("rot_0", "rot_1", "rot_2", "rot_3"),
        logits=column("opacity")[:, 0],
        colors=column("f_dc_0", "f_dc_1", "f_dc_2") * SH_C0 + 0.5,
        harmonics=column(*rest).reshape(count, 3, len(rest) // 3).transpose(1, 2).contiguous(),
    )
