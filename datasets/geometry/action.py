"""The surfaces of one action: constant triangles whose vertices move, shared by all its clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import WorkError
from orbit4d.datasets.geometry import container
from orbit4d.datasets.geometry.kernels import GONE, SINGLE_SIDED, TWO_SIDED, AlphaCells
from orbit4d.datasets.geometry.skinned import fit_skin, skin_blocks, steps_of
from orbit4d.datasets.geometry.vertices import Quantised, bits_for, quantise, residual, restored

MAGIC = b"O4DGEOM1"

#: How a texture continues beyond its edges, by the number that kernels know it under.
WRAPS = ("repeat", "extend", "clip")


@dataclass(frozen=True)
class AlphaMap:
    """A texture that says where a material's surface is."""

    texels: npt.NDArray[np.uint8]
    """[h, w] alpha, bottom row first."""
    threshold: float
    """The surface is there where alpha, between texels mixed, is at least this."""
    wrap: str = "repeat"
    """Of WRAPS."""
    linear: bool = True
    """Mixed between texels; else the nearest one's."""


@dataclass(frozen=True)
class Material:
    """What of a material decides where a surface is seen."""

    name: str
    single_sided: bool = False
    """Drawn from its front alone."""
    see_through: bool = False
    """Its alpha is below one half everywhere: rays pass it, and no pixel counts as its."""
    alpha: int = -1
    """Number of its alpha map, -1 without one."""


@dataclass(frozen=True)
class ActionMesh:
    """Triangles of one action, and where their vertices are at each rendered time.

    `M` triangles, `V` vertices, `U` of them different, `T` times, `O` objects.
    """

    seconds: npt.NDArray[np.float64]
    """[T] distinct times of all clips, ascending, on the asset's clock."""
    welded: npt.NDArray[np.float32]
    """[T, U, 3] places of the different vertices in the clip's world."""
    weld: npt.NDArray[np.int32]
    """[V] which of them a vertex is."""
    faces: npt.NDArray[np.int32]
    """[M, 3] vertices of each triangle, counter-clockwise from its front."""
    material: npt.NDArray[np.uint16]
    """[M] number in `materials`."""
    object: npt.NDArray[np.uint16]
    """[M] number in `objects`."""
    materials: tuple[Material, ...]
    objects: tuple[str, ...]
    """Names, in the order of the `mask` pass; instances of one object each stand for themselves."""
    shown: npt.NDArray[np.bool_]
    """[T, O] whether an object is drawn at a time."""
    uv: npt.NDArray[np.float32] | None = None
    """[M, 3, 2] texture places of the corners, None where the asset has none."""
    alpha_maps: tuple[AlphaMap, ...] = ()
    alpha_uv: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 3, 2), np.float32))
    """[A, 3, 2] texture places in the alpha maps, of the triangles whose material has one, in their order."""
    bits: int = 0
    """Bits a coordinate is stored with."""
    bound: float = 0.0
    """Largest error of a stored coordinate, units of the clip's world."""

    @cached_property
    def vertices(self) -> npt.NDArray[np.float32]:
        """[T, V, 3]"""
        return self.welded[:, self.weld]

    @cached_property
    def welded_faces(self) -> npt.NDArray[np.int32]:
        """[M, 3] into `welded`."""
        return np.ascontiguousarray(self.weld[self.faces])

    @cached_property
    def _kind(self) -> npt.NDArray[np.uint8]:
        kinds = np.array(
            [GONE if m.see_through else SINGLE_SIDED if m.single_sided else TWO_SIDED for m in self.materials]
            or [TWO_SIDED],
            np.uint8,
        )
        return kinds[self.material]

    def kind(self, t: int) -> npt.NDArray[np.uint8]:
        """[M] kind of each triangle at time `t`, as `kernels` takes it."""
        shown = self.shown[t]
        return self._kind if shown.all() else np.where(shown[self.object], self._kind, np.uint8(GONE))

    @cached_property
    def alpha(self) -> AlphaCells:
        """Alpha maps as kernels take them."""
        of_material = np.array([m.alpha for m in self.materials] or [-1], np.int32)[self.material]
        has = of_material >= 0
        row = np.where(has, np.cumsum(has) - 1, -1).astype(np.int32)
        ends = np.cumsum([0, *(m.texels.size for m in self.alpha_maps)])
        maps = [
            (start, m.texels.shape[1], m.texels.shape[0], m.threshold, WRAPS.index(m.wrap), float(m.linear))
            for start, m in zip(ends, self.alpha_maps)
        ]
        texels = [np.ascontiguousarray(m.texels).reshape(-1) for m in self.alpha_maps]
        return AlphaCells(
            row,
            np.ascontiguousarray(self.alpha_uv, np.float32),
            np.ascontiguousarray(of_material[has]),
            np.array(maps, np.float64).reshape(-1, 6),
            np.concatenate(texels) if texels else np.zeros(0, np.uint8),
        )

    @property
    def nbytes(self) -> int:
        """Memory that the arrays take, derived ones included."""
        return int(self.welded.nbytes + self.faces.nbytes * 2 + self.seconds.size * self.weld.size * 12)


def stored_mesh(
    vertices: npt.NDArray[np.floating],
    cameras: Sequence[Camera],
    rig: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None = None,
    **rest: Any,
) -> ActionMesh:
    """An `ActionMesh` with `vertices` [T, V, 3] as they are stored: quantised for the images of `cameras`.

    `rest` are its other fields. What is drawn from it is what a reader will draw. `rig`, a basis [V, 3] and
    weights [E, 3] (vertex, joint, weight), makes the stored bytes fewer and changes nothing else.
    """
    found = quantise(vertices, bits_for(vertices, cameras))
    mesh = _of(found, rest)
    if rig is not None:
        object.__setattr__(mesh, "skin", fit_skin(found, *rig))
    return mesh


def _of(found: Quantised, rest: dict[str, Any]) -> ActionMesh:
    mesh = ActionMesh(welded=found.positions(), weld=found.weld, bits=found.bits, bound=found.bound, **rest)
    object.__setattr__(mesh, "quantised", found)
    return mesh


def encode_mesh(mesh: ActionMesh, **facts: Any) -> bytes:
    """The member of an action: see `container`. `facts` are kept in its header."""
    found: Quantised = mesh.__dict__["quantised"]
    packed: dict[str, tuple[npt.NDArray[Any], str]] = {
        "seconds": (mesh.seconds, "zstd"),
        "faces": (mesh.faces, "delta+zigzag+split+zstd"),
        "material": (mesh.material, "delta+split+zstd"),
        "object": (mesh.object, "delta+split+zstd"),
        "shown": (np.packbits(mesh.shown), "zstd"),
        "weld": (found.weld, "delta+zigzag+split+zstd"),
    }
    packed |= _vertex_blocks(mesh, found)
    if mesh.uv is not None:
        pairs, corner = _distinct_pairs(mesh.uv)
        packed["uv"] = (pairs, "split+zstd")
        packed["uv_of_corner"] = (corner, "delta+zigzag+split+zstd")
    if len(mesh.alpha_uv):
        pairs, corner = _distinct_pairs(mesh.alpha_uv)
        packed["alpha_uv"] = (pairs, "split+zstd")
        packed["alpha_uv_of_corner"] = (corner, "delta+zigzag+split+zstd")
    for k, alpha in enumerate(mesh.alpha_maps):
        packed[f"alpha_{k}"] = (alpha.texels, "delta+zstd")
    header = {
        **facts,
        "bits": found.bits,
        "bound": found.bound,
        "origin": list(found.origin),
        "step": found.step,
        "objects": list(mesh.objects),
        "materials": [asdict(material) for material in mesh.materials],
        "alpha": [{"threshold": a.threshold, "wrap": a.wrap, "linear": a.linear} for a in mesh.alpha_maps],
    }
    return container.pack(MAGIC, header, packed)


def _vertex_blocks(mesh: ActionMesh, found: Quantised) -> dict[str, tuple[npt.NDArray[Any], str]]:
    """The vertices, predicted from their own past or from joints: whichever is smaller."""
    plain = {"vertices": (residual(found.steps), "zigzag+split+zstd")}
    skin = mesh.__dict__.get("skin")
    if skin is None:
        return plain
    skinned = skin_blocks(skin, found)
    sizes = [len(container.pack(MAGIC, {}, blocks)) for blocks in (plain, skinned)]
    return plain if sizes[0] <= sizes[1] else skinned


def _distinct_pairs(places: npt.NDArray[np.float32]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """(different pairs [P, 2] in the order in which they come, pair of each corner)."""
    keys = np.ascontiguousarray(places, np.float32).reshape(-1, 2).view(np.uint64).reshape(-1)
    _, first, sorted_place = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return places.reshape(-1, 2)[first[order]], rank[sorted_place.reshape(-1)]


def decode_mesh(data: bytes, name: str) -> tuple[ActionMesh, dict[str, Any]]:
    """(mesh, header) of a member; damage raises WorkError naming `name`."""
    header, blocks = container.unpack(MAGIC, data, name)
    try:
        found = Quantised(
            restored(blocks["vertices"]) if "vertices" in blocks else steps_of(blocks),
            blocks["weld"],
            (header["origin"][0], header["origin"][1], header["origin"][2]),
            header["step"],
            header["bits"],
        )
        n_times, n_objects = len(blocks["seconds"]), len(header["objects"])
        bits = np.unpackbits(blocks["shown"], count=n_times * n_objects)
        uv = blocks["uv"][blocks["uv_of_corner"]].reshape(-1, 3, 2) if "uv" in blocks else None
        rest: dict[str, Any] = {}
        if "alpha_uv" in blocks:
            rest["alpha_uv"] = blocks["alpha_uv"][blocks["alpha_uv_of_corner"]].reshape(-1, 3, 2)
        maps = [AlphaMap(blocks[f"alpha_{k}"], **given) for k, given in enumerate(header["alpha"])]
        mesh = _of(
            found,
            {
                "seconds": blocks["seconds"],
                "faces": blocks["faces"],
                "material": blocks["material"],
                "object": blocks["object"],
                "materials": tuple(Material(**given) for given in header["materials"]),
                "objects": tuple(header["objects"]),
                "shown": bits.astype(bool).reshape(n_times, n_objects),
                "uv": uv,
                "alpha_maps": tuple(maps),
                **rest,
            },
        )
        _check(mesh)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise WorkError(f"{name}: damaged ({type(error).__name__}: {error}); run `orbit4d verify`") from error
    return mesh, header


def _check(mesh: ActionMesh) -> None:
    """Raise ValueError unless every number stays inside what it counts: kernels do not look."""
    bounds = (
        ("weld", mesh.weld, mesh.welded.shape[1]),
        ("faces", mesh.faces, len(mesh.weld)),
        ("material", mesh.material, len(mesh.materials)),
        ("object", mesh.object, len(mesh.objects)),
        ("alpha", np.array([m.alpha + 1 for m in mesh.materials]), len(mesh.alpha_maps) + 1),
    )
    for what, numbers, end in bounds:
        if len(numbers) and not (numbers.min() >= 0 and numbers.max() < end):
            raise ValueError(f"{what} beyond {end}")
    if mesh.faces.shape[1:] != (3,) or mesh.welded.shape[2:] != (3,):
        raise ValueError("triangles or vertices of another shape")
    if len(mesh.welded) != len(mesh.seconds) or mesh.shown.shape != (len(mesh.seconds), len(mesh.objects)):
        raise ValueError("times that do not fit")
    if not len(mesh.faces) == len(mesh.material) == len(mesh.object):
        raise ValueError("triangles without a material or an object")
    if mesh.uv is not None and len(mesh.uv) != len(mesh.faces):
        raise ValueError("texture places that do not fit")
    if int((mesh.alpha.row >= 0).sum()) != len(mesh.alpha_uv):
        raise ValueError("alpha maps without texture places")
