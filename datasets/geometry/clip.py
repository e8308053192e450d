"""One clip over the surfaces of its action: what each pixel sees, and where that is at any other time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.geometry import kernels
from orbit4d.datasets.geometry.action import ActionMesh
from orbit4d.datasets.geometry.flow import flow_to
from orbit4d.datasets.geometry.surface_map import StoredMaps, draw, view_matrix, with_exceptions
from orbit4d.datasets.geometry.tracks import Tracks, follow, on_pixels, on_surface

Axes = Literal["world", "camera", "first"]
Motion = Literal["both", "camera", "object"]

#: Maps of a clip that are kept once drawn, bytes.
_KEEP_BYTES = 64 << 20


@dataclass(frozen=True)
class ClipGeometry:
    """A clip of `F` frames of H x W pixels. Frames count from 0, negative ones from the end."""

    mesh: ActionMesh
    cameras: tuple[Camera, ...]
    """[F]"""
    times: tuple[int, ...]
    """[F] which of the mesh's times each frame shows."""
    stored: StoredMaps | None = None
    """What the maps are compared with; None at another size than the stored one."""
    where: str = "clip"
    """Name for messages."""
    _drawn: dict[int, npt.NDArray[np.int32]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.cameras)

    def resized(self, width: int, height: int) -> ClipGeometry:
        """The same views on another grid of pixels: everything is drawn again for it."""
        first = self.cameras[0]
        if (width, height) == (first.w, first.h):
            return self
        cameras = tuple(camera.resized(width, height) for camera in self.cameras)
        return replace(self, cameras=cameras, stored=None, _drawn={})

    def triangles(self, frame: int) -> npt.NDArray[np.int32]:
        """[H, W] int32: triangle that each pixel's centre sees, -1 where nothing; not to be written to."""
        frame = self._frame(frame)
        seen = self._drawn.get(frame)
        if seen is None:
            seen = draw(self.mesh, self.times[frame], self.cameras[frame])[0]
            if self.stored is not None:
                seen = with_exceptions(seen, self.stored, frame, len(self.mesh.faces), self.where)
            seen.setflags(write=False)
            while self._drawn and (len(self._drawn) + 1) * seen.nbytes > _KEEP_BYTES:
                self._drawn.pop(next(iter(self._drawn)), None)
            self._drawn[frame] = seen
        return seen

    def surface_map(self, frame: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """(triangle [H, W] int64, -1 where nothing; barycentric [H, W, 3] float64 of the pixel's centre on
        it, which sum to 1, 0 where nothing).
        """
        frame = self._frame(frame)
        seen = self.triangles(frame)
        return seen.astype(np.int64), self._weights(frame, seen)

    def flow(
        self, frame_a: int, frame_b: int, other: ClipGeometry | None = None, motion: Motion = "both"
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Where what each pixel's centre sees in `frame_a` lies in `frame_b`, of this clip or of `other`.

        Returns (flow [H, W, 2] float32, pixels, u right and v down, so that the centre p of a pixel goes to
        p + flow; visible [H, W] bool, whether it is seen there). Visible is decided by the ray to the point:
        no triangle is in front of it. Where nothing is seen in `frame_a`, and behind the camera, the flow is
        0 and not visible. `motion`: "camera" holds the object still at frame_a's time, "object" the camera.
        """
        frame_a, b = self._frame(frame_a), self if other is None else other
        frame_b = b._frame(frame_b)
        if b.mesh is not self.mesh and not np.array_equal(b.mesh.faces, self.mesh.faces):
            raise InputError(f"{self.where}, {b.where}: flow runs between clips of one action")
        if motion not in ("both", "camera", "object"):
            raise InputError(f"motion={motion!r}: both, camera or object")
        t = self.times[frame_a] if motion == "camera" else b.times[frame_b]
        camera = self.cameras[frame_a] if motion == "object" else b.cameras[frame_b]
        seen = self.triangles(frame_a)
        return flow_to(b.mesh, seen, self._weights(frame_a, seen), t, camera)

    def scene_flow(
        self, frame_a: int, frame_b: int, other: ClipGeometry | None = None
    ) -> npt.NDArray[np.float32]:
        """[H, W, 3] float32: by how much what each pixel of `frame_a` sees moves in the world until
        `frame_b`; 0 where nothing is seen.
        """
        b = self if other is None else other
        start, end = self.times[self._frame(frame_a)], b.times[b._frame(frame_b)]
        return (self._places(frame_a, end) - self._places(frame_a, start)).astype(np.float32)

    def points(self, frame: int, axes: Axes = "world") -> npt.NDArray[np.float32]:
        """[H, W, 3] float32: where what each pixel's centre sees lies; 0 where nothing is seen.

        `axes`: of the clip's world (+Z up), of the frame's own camera, or of the clip's first camera; cameras
        in OpenCV's sense (x right, y down, z forward).
        """
        frame = self._frame(frame)
        places = self._places(frame, self.times[frame])
        if axes != "world":
            if axes not in ("camera", "first"):
                raise InputError(f"axes={axes!r}: world, camera or first")
            w2c = self.cameras[frame if axes == "camera" else 0].w2c_opencv
            places = places @ w2c[:3, :3].T + w2c[:3, 3]
            places[self.triangles(frame) < 0] = 0.0
        return places.astype(np.float32)

    def tracks(
        self, n: int, seed: int = 0, on: Literal["surface", "pixels"] = "surface", frame: int = 0
    ) -> Tracks:
        """`n` points of the surface followed through all frames.

        Returns (xyz [n, F, 3] float32 in the clip's world, pixels [n, F, 2] float32, column and row with
        centres at +0.5, visible [n, F] bool, decided as in `flow`). Points are drawn evenly over the surface
        as it lies in `frame`, or with `on="pixels"` among the pixels that see something there. The same seed
        draws the same points.
        """
        if n < 1:
            raise InputError(f"tracks: n={n}; at least 1 point is followed")
        frame = self._frame(frame)
        rng = np.random.default_rng(seed)
        if on == "pixels":
            seen = self.triangles(frame)
            chosen = on_pixels(seen, self._weights(frame, seen), n, rng, f"{self.where}, frame {frame}")
        elif on == "surface":
            chosen = on_surface(self.mesh, self.times[frame], n, rng, self.where)
        else:
            raise InputError(f"on={on!r}: surface or pixels")
        return self.follow(*chosen)

    def follow(self, triangles: npt.ArrayLike, barycentric: npt.ArrayLike) -> Tracks:
        """As `tracks`, of points given by `triangles` [N] and `barycentric` [N, 3] on them."""
        which = np.ascontiguousarray(triangles, np.int32)
        weights = np.ascontiguousarray(barycentric, np.float64)
        if which.ndim != 1 or weights.shape != (len(which), 3):
            raise InputError("points to follow: triangles [N] and barycentric [N, 3]")
        if len(which) and not (which.min() >= 0 and which.max() < len(self.mesh.faces)):
            raise InputError(f"points to follow: triangles run from 0 to {len(self.mesh.faces) - 1}")
        return follow(self.mesh, which, weights, self.times, self.cameras)

    def depth(self, frame: int) -> npt.NDArray[np.float32]:
        """[H, W] float32: distance along the view axis, inf where nothing is seen; as the `depth` pass."""
        frame = self._frame(frame)
        seen = self.triangles(frame)
        view = self.cameras[frame].w2c_opencv
        found = self._places(frame, self.times[frame]) @ view[2, :3] + view[2, 3]
        return np.where(seen >= 0, found, np.inf).astype(np.float32)

    def normals(self, frame: int, smooth: bool = False) -> npt.NDArray[np.float32]:
        """[H, W, 3] float32 unit vectors of the clip's world that face the camera; 0 where nothing is seen.

        Of the triangles themselves, or `smooth`: mixed from vertices, each the mean of its triangles by area.
        (The renderer's `normal` pass has the file's own normals.)
        """
        frame = self._frame(frame)
        seen, mesh = self.triangles(frame), self.mesh
        a, b, c = np.moveaxis(mesh.welded[self.times[frame]].astype(np.float64)[mesh.welded_faces], 1, 0)
        flat = np.cross(b - a, c - a)
        found = np.zeros((*seen.shape, 3))
        hit = seen >= 0
        if smooth:
            at_vertex = np.zeros((mesh.welded.shape[1], 3))
            for k in range(3):
                np.add.at(at_vertex, mesh.welded_faces[:, k], flat)
            corners = _unit(at_vertex)[mesh.welded_faces[seen[hit]]]
            found[hit] = (corners * self._weights(frame, seen)[hit][:, :, None]).sum(axis=1)
        else:
            found[hit] = flat[seen[hit]]
        away = self._places(frame, self.times[frame]) - self.cameras[frame].position
        # Seen from behind is what the flat normal says, also where a smooth one leans over the edge.
        behind = np.zeros(seen.shape, bool)
        behind[hit] = (flat[seen[hit]] * away[hit]).sum(axis=-1) > 0.0
        return np.where(behind[..., None], -_unit(found), _unit(found)).astype(np.float32)

    def nocs(self, frame: int) -> npt.NDArray[np.float32]:
        """[H, W, 3] float32: the place at the action's first time, scaled evenly and centred so that the box
        over all times fits in [0, 1]; 0 where nothing is seen. A point keeps its colour in every frame.
        """
        low, high = self.mesh.welded.min(axis=(0, 1)), self.mesh.welded.max(axis=(0, 1))
        places = (self._places(frame, 0) - 0.5 * (low + high)) / float((high - low).max() or 1.0) + 0.5
        places[self.triangles(frame) < 0] = 0.0
        return places.astype(np.float32)

    def objects(self, frame: int) -> npt.NDArray[np.int64]:
        """[H, W] int64: number in `mesh.objects` of what is seen, -1 where nothing."""
        return self._looked_up(frame, self.mesh.object)

    def materials(self, frame: int) -> npt.NDArray[np.int64]:
        """[H, W] int64: number in `mesh.materials` of what is seen, -1 where nothing."""
        return self._looked_up(frame, self.mesh.material)

    def _looked_up(self, frame: int, numbers: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
        seen = self.triangles(frame)
        return np.where(seen >= 0, numbers[seen], -1).astype(np.int64)

    def _frame(self, frame: int) -> int:
        if not -len(self) <= frame < len(self):
            raise InputError(f"{self.where}: frame {frame} of {len(self)}")
        return int(frame) % len(self)

    def _weights(self, frame: int, seen: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        h = kernels.homogeneous(self.mesh.welded[self.times[frame]], view_matrix(self.cameras[frame]))
        return kernels.weights(seen, h, self.mesh.welded_faces)

    def _places(self, frame: int, t: int) -> npt.NDArray[np.float64]:
        """[H, W, 3] at time `t` of what `frame` sees; 0 where nothing."""
        frame = self._frame(frame)
        seen = self.triangles(frame)
        weights = self._weights(frame, seen).reshape(-1, 3)
        found = kernels.carry(seen.reshape(-1), weights, self.mesh.welded[t], self.mesh.welded_faces)
        return found.reshape(*seen.shape, 3)


def clip_geometry(
    mesh: ActionMesh,
    cameras: Sequence[Camera],
    seconds: Sequence[float],
    stored: StoredMaps | None = None,
    where: str = "clip",
) -> ClipGeometry:
    """A clip whose frame i shows `mesh` at `seconds[i]`, one of its times, through `cameras[i]`.

    Raises InputError for a time that the mesh does not have.
    """
    known = {float(t): i for i, t in enumerate(mesh.seconds)}
    missing = [t for t in seconds if float(t) not in known]
    if missing:
        raise InputError(f"{where}: its geometry has no time {missing[0]} s; render it again")
    return ClipGeometry(mesh, tuple(cameras), tuple(known[float(t)] for t in seconds), stored, where)


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0.0)
