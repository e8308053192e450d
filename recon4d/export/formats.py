"""A scene in the formats of others: which there are, what each can say, and the files written whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from orbit4d.datasets.cameras.transforms import cameras_record
from orbit4d.datasets.core.atomic import replacing_file, replacing_folder, write_json
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.paths import naturally
from orbit4d.datasets.core.progress import track
from orbit4d.datasets.core.remote import local_path
from orbit4d.recon4d.export.compressed_ply import compressed_ply_bytes
from orbit4d.recon4d.export.fourdgs import fourdgs_bytes
from orbit4d.recon4d.export.html.pages import page, write_viewer
from orbit4d.recon4d.export.mesh_files import (
    mesh_glb_bytes,
    moving_mesh,
    needs_blender,
    write_mesh_alembic,
    write_mesh_obj,
    write_mesh_usd,
)
from orbit4d.recon4d.export.sog import sog_bytes
from orbit4d.recon4d.export.splat_file import splat_bytes as splat_bytes
from orbit4d.recon4d.export.splat_glb import splat_glb_bytes
from orbit4d.recon4d.export.spz import spz_bytes
from orbit4d.recon4d.export.turntable import write_turntable
from orbit4d.recon4d.export.upright import AXES, check_up, to_axes, turn_camera, turn_gaussians
from orbit4d.recon4d.export.usd import write_usd
from orbit4d.recon4d.filming import MOST_FRAMES, PATHS, camera_path
from orbit4d.recon4d.gaussians import EPS2D, Gaussians, save_ply
from orbit4d.recon4d.scene import Scene


@dataclass(frozen=True)
class Options:
    """What `export_scene` was asked for."""

    frames: int
    time: float
    rig: str
    size: int | None
    up: str
    axes: str
    fps: float
    background: tuple[float, float, float]

    def turned(self, scene: Scene, time: float) -> Gaussians:
        """The Gaussians at `time` in the axes asked for."""
        moment = scene.at(time)
        why = moment.fault() if len(moment) else "no Gaussians"
        if why is not None:
            raise InputError(f"the scene at time {time:g} cannot be written: {why}")
        return turn_gaussians(moment, self.up) if self.axes == "file" else to_axes(moment, self.axes)

    def moments(self, scene: Scene) -> list[Gaussians]:
        """The scene at `frames` times, evenly over [0, 1]."""
        return [self.turned(scene, i / max(self.frames - 1, 1)) for i in range(self.frames)]


def _ply(scene: Scene, out: Path, how: Options) -> None:
    save_ply(how.turned(scene, how.time), out, scene.eps2d)


def _ply_sequence(scene: Scene, out: Path, how: Options) -> None:
    for i in track(range(how.frames), "export", unit="file"):
        save_ply(how.turned(scene, i / max(how.frames - 1, 1)), out / f"{i:03d}.ply", scene.eps2d)


def _compressed_ply(scene: Scene, out: Path, how: Options) -> None:
    out.write_bytes(compressed_ply_bytes(how.turned(scene, how.time), scene.eps2d))


def _packed(pack: Callable[[Gaussians], bytes]) -> Callable[[Scene, Path, Options], None]:
    def write(scene: Scene, out: Path, how: Options) -> None:
        out.write_bytes(pack(how.turned(scene, how.time)))

    return write


def _usd(scene: Scene, out: Path, how: Options) -> None:
    write_usd(how.moments(scene), out, how.up, how.fps, scene.eps2d)


def _fourdgs(scene: Scene, out: Path, how: Options) -> None:
    seconds = max(how.frames - 1, 1) / how.fps
    out.write_bytes(fourdgs_bytes(how.moments(scene), seconds, f"{how.up}-up-right-handed"))


def _frames(scene: Scene, folder: Path, how: Options) -> None:
    views = camera_path(scene, how.rig, how.frames, how.size)
    record = cameras_record([turn_camera(c, how.up) for c, _ in views], [t for _, t in views])
    for i, (camera, t) in enumerate(track(views, "export", unit="frame")):
        rgba = (scene.render(camera, t) * 255 + 0.5).astype(np.uint8)
        Image.fromarray(rgba).save(folder / f"{i:03d}.png")
        record["frames"][i]["file_path"] = f"{i:03d}.png"
    write_json(folder / "transforms.json", record)


def _turntable(kind: str) -> Callable[[Scene, Path, Options], None]:
    def write(scene: Scene, out: Path, how: Options) -> None:
        write_turntable(scene, out, kind, how.rig, how.frames, how.size, how.fps, how.background)

    return write


def _html(scene: Scene, out: Path, how: Options) -> None:
    out.write_text(page(scene, "orbit4d scene", how.frames / how.fps), encoding="utf-8")


def _viewer(scene: Scene, out: Path, how: Options) -> None:
    write_viewer(scene, out, "orbit4d scene", how.frames / how.fps)


def _mesh_glb(scene: Scene, out: Path, how: Options) -> None:
    out.write_bytes(mesh_glb_bytes(moving_mesh(scene, how.frames, how.fps)))


def _mesh_usd(scene: Scene, out: Path, how: Options) -> None:
    write_mesh_usd(moving_mesh(scene, how.frames, how.fps), out, how.up, how.fps)


def _mesh_alembic(scene: Scene, out: Path, how: Options) -> None:
    needs_blender()  # a surface takes seconds
    write_mesh_alembic(moving_mesh(scene, how.frames, how.fps), out)


def _mesh_obj(scene: Scene, out: Path, how: Options) -> None:
    write_mesh_obj(moving_mesh(scene, how.frames, how.fps), out, how.up)


@dataclass(frozen=True)
class _Format:
    write: Callable[[Scene, Path, Options], None]
    suffixes: tuple[str, ...] = ()
    """Of a file; a folder has none. The first is named in messages."""
    up: str = "z"
    """Axis that points up where nothing is asked for."""
    says: str = ""
    """Letters of what it can say beyond centres and colours at one time: e eps2d, h harmonics."""
    picture: bool = False
    """Drawn frames rather than Gaussians."""
    mesh: bool = False
    """A mesh, moved by the nodes."""


_TABLE = {
    "ply-sequence": _Format(_ply_sequence, says="eh"),
    "splat": _Format(_packed(splat_bytes), (".splat",)),
    "spz": _Format(_packed(spz_bytes), (".spz",), says="h"),
    "frames": _Format(_frames, picture=True),
    "ply": _Format(_ply, (".ply",), says="eh"),
    "compressed-ply": _Format(_compressed_ply, (".ply",), says="eh"),
    "sog": _Format(_packed(sog_bytes), (".sog",), says="h"),
    "glb": _Format(_packed(splat_glb_bytes), (".glb",), "y", says="h"),
    "usd": _Format(_usd, (".usdc", ".usd", ".usda"), says="h"),
    "4dgs": _Format(_fourdgs, (".4dgs",), says="h"),
    "mp4": _Format(_turntable("mp4"), (".mp4",), picture=True),
    "webm": _Format(_turntable("webm"), (".webm",), picture=True),
    "mov": _Format(_turntable("mov"), (".mov",), picture=True),
    "html": _Format(_html, (".html",), says="eh", picture=True),
    "viewer": _Format(_viewer, says="eh", picture=True),
    "mesh-glb": _Format(_mesh_glb, (".glb",), "y", mesh=True),
    "mesh-usd": _Format(_mesh_usd, (".usdc", ".usd", ".usda", ".usdz"), mesh=True),
    "mesh-alembic": _Format(_mesh_alembic, (".abc",), "y", mesh=True),
    "mesh-obj": _Format(_mesh_obj, mesh=True),
}
FORMATS = tuple(_TABLE)
#: Those that have axes of their own to choose from.
PLY_FAMILY = ("ply", "ply-sequence", "compressed-ply", "splat", "sog")
#: Times a second that containers can say.
LEAST_FPS, MOST_FPS = 0.001, 1000.0
#: Suffixes of files that no format here writes, but a folder is not called so either.
_OTHERS = (".zip", ".tar", ".gz", ".json", ".png", ".gltf", ".ksplat", ".splatv")


def export_scene(
    scene: Scene,
    out: str | Path,
    format: str = "ply-sequence",
    frames: int = 24,
    time: float = 0.0,
    rig: str = "dynamic_orbit",
    size: int | None = None,
    up: str | None = None,
    axes: str = "file",
    fps: float = 16.0,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> list[Path]:
    """Write the scene; returns the files, which appear only when all of them are complete.

    ply-sequence: out/000.ply ... at `frames` times. splat, spz, ply, compressed-ply, sog, glb: one file, the
    time `time`. usd, 4dgs: one file of `frames` times, `fps` a second. frames: straight RGBA PNGs along the
    path `rig` with transforms.json, which `recon4d` reads back. mp4, webm, mov: a video of that path, the
    first on `background` (RGB in [0, 1]), the others with alpha. html: one page that plays the scene, opened
    from disk; viewer: the same as viewer.js and scene.bin, to be served. Both last `frames` / `fps` seconds.
    mesh-glb, mesh-usd, mesh-alembic: a file with the textured surface, moved by the nodes at `frames` times;
    mesh-obj: out/mesh_0000.obj ... with mesh.mtl and texture.png. Of mesh-usd a .usdz holds the texture, the
    others colours at the vertices.
    `up` is the axis of the written world that points up: z as in ours, or y, (x, y, z) becoming (x, z, -y),
    as most viewers take it; None is z, and y for
    glb, mesh-glb and mesh-alembic, which report it. `axes` of the PLY family instead:
    y-up, z-up, rdf or y-down-180 (SuperSplat); "file" leaves them to `up`.
    Raises InputError for an unknown format, a suffix of another one, a folder that already holds something,
    where `out` cannot be written, and for a scene of numbers that are not finite.

    A scene's low-pass stays with it in PLY (a comment of each header); see `unsaid` for the others.
    """
    how = _checked(format, frames, time, rig, size, up, axes, fps, background)
    scene.check()
    target = local_path(out)
    check_suffix(target, format)
    folder = not _TABLE[format].suffixes
    if target.is_dir() and (not folder or any(target.iterdir())):
        raise InputError(f"{target}: a folder that holds something; give a new name as --out")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (replacing_folder if folder else replacing_file)(target) as draft:
            try:
                _TABLE[format].write(scene, draft, how)
            except InputError as error:  # of a writer, which knows the draft's name alone
                raise InputError(str(error).replace(str(draft), str(target))) from None
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}); give another --out") from None
    return naturally(target.iterdir()) if folder else [target]


def _checked(
    format: str, frames: int, time: float, rig: str, size: int | None, up: str | None, axes: str, fps: float,
    background: tuple[float, float, float],
) -> Options:  # fmt: skip
    if format not in FORMATS:
        raise InputError(f"--format {format}: choose from {', '.join(FORMATS)}")
    if not 1 <= frames <= MOST_FRAMES:
        raise InputError(f"--frames {frames}: give 1 to {MOST_FRAMES}")
    if not 0.0 <= time <= 1.0:
        raise InputError(f"--time {time}: give a time in [0, 1]")
    if not LEAST_FPS <= fps <= MOST_FPS:
        raise InputError(f"--fps {fps}: give a rate from {LEAST_FPS} to {MOST_FPS:g}")
    if rig not in PATHS:
        raise InputError(f"--rig {rig}: choose from {', '.join(PATHS)}")
    if size is not None and not 8 <= size <= 4096:
        raise InputError(f"--size {size}: give 8 to 4096 pixels")
    if up is not None:
        check_up(up)
    if axes != "file":
        if axes not in AXES:
            raise InputError(f"--axes {axes}: choose from file, {', '.join(AXES)}")
        if format not in PLY_FAMILY:
            raise InputError(f"--axes {axes}: --format {format} has axes of its own; use --up")
        if up is not None:
            raise InputError(f"--axes {axes}: says where up is already; leave --up out")
    if format in ("glb", "mesh-glb", "mesh-alembic") and up == "z":
        raise InputError(f"--up z: --format {format} means +Y up; leave --up out")
    return Options(frames, time, rig, size, up or _TABLE[format].up, axes, fps, background)


def default_up(format: str) -> str:
    """The axis that points up where none is asked for."""
    return _TABLE[format].up


def shows_splats(format: str) -> bool:
    """Whether a format holds Gaussians, rather than drawn frames."""
    return not _TABLE[format].picture


def check_suffix(out: Path, format: str) -> None:
    """Refuse a name that promises another format than the one asked for."""
    suffix = out.suffix.lower()
    meant: dict[str, str] = {}
    for name, given in _TABLE.items():
        for each in given.suffixes:
            meant.setdefault(each, name)
    own = _TABLE[format].suffixes
    wrong = suffix not in own and suffix in (*meant, *_OTHERS)
    if ".usdc" in own and suffix not in own:
        wrong = True
    if not wrong:
        return
    kind = f"a file *{own[0]}" if own else "a folder"
    fix = f", or give --format {meant[suffix]}" if suffix in meant else ""
    raise InputError(f"{out}: --format {format} writes {kind}; give another --out{fix}")


def unsaid(scene: Scene, format: str) -> str | None:
    """What a format cannot say of the scene, one line; None when nothing is lost."""
    given = _TABLE[format]
    if given.picture or given.mesh:
        return None
    lost = []
    if "e" not in given.says and scene.eps2d != EPS2D:
        lost.append(f"the scene's eps2d of {scene.eps2d:g} px²: viewers draw it with {EPS2D:g}")
    if "h" not in given.says and scene.gaussians.sh_degree:
        lost.append("colours that change with the direction of view: viewers draw the mean")
    return f"--format {format} has no place for {'; and for '.join(lost)}" if lost else None
