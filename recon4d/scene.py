"""A reconstructed scene: canonical Gaussians and their field, drawn at any camera and time, kept in a folder.

scene/canonical.ply (INRIA layout, opens in any viewer of 3D Gaussians), scene/deformation.safetensors,
scene/cameras.json (training cameras), scene/scene.json (settings, versions, source, and `world`: scale and
centre of the object where the cameras are not in orbit4d's own unit; canonical.ply is), scene/metrics.json.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.cameras.transforms import cameras_record, parse_transforms
from orbit4d.datasets.core.atomic import replacing_file, write_json
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.core.remote import local_path
from orbit4d.recon4d.deformation.building import build_field
from orbit4d.recon4d.deformation.field import Deformation
from orbit4d.recon4d.deformation.rigs.rigged import RigField, load_rigged, save_rigged
from orbit4d.recon4d.gaussians import EPS2D, Gaussians, load_ply, save_ply
from orbit4d.recon4d.raster.api import rasterize, trusted
from orbit4d.recon4d.world import World, stored

FORMAT_VERSION = 1
#: Below this alpha there is no colour to speak of: it is 0 in the output.
_VISIBLE = 1 / 255
#: The file of a folder that holds a part.
_FILES = {"gaussians": "canonical.ply", "field": "deformation.safetensors", "world": "scene.json"}


@dataclass
class Scene:
    """What `reconstruct` returns and `load_scene` reads."""

    gaussians: Gaussians
    field: Deformation
    cameras: tuple[Camera, ...] = ()
    """Training cameras of the dynamic orbit."""
    time: tuple[float, ...] = ()
    """Their times."""
    info: dict[str, Any] = field(default_factory=dict)
    """What scene.json holds."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """What metrics.json holds."""
    world: World = field(default_factory=World)
    """Where the object stands in the world of the cameras; Gaussians and field are in that of the fit."""
    eps2d: float = EPS2D
    """Variance in px² added to every projected Gaussian: what the scene was fitted with."""

    def __post_init__(self) -> None:
        self.gaussians = self.gaussians.detached()
        self.field.bind(self.gaussians.means)

    def fault(self) -> tuple[str, str] | None:
        """What in it cannot be drawn: the part (gaussians, field or world) and why; None where all can."""
        why = self.gaussians.fault() if len(self.gaussians) else "none"
        if why is not None:
            return "gaussians", why
        for name, tensor in self.field.state_dict().items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                return "field", f"{name} holds numbers that are not finite"
        numbers = (self.world.scale, *self.world.centre, self.eps2d)
        if not (np.isfinite(numbers).all() and self.world.scale > 0 and self.eps2d >= 0):
            return "world", f"scale {self.world.scale:g}, centre {self.world.centre}, eps2d {self.eps2d:g}"
        return None

    def check(self) -> None:
        """InputError, one line, for a scene that cannot be drawn or written (`fault`)."""
        if (found := self.fault()) is not None:
            raise InputError(f"this scene cannot be drawn: {found[0]}: {found[1]}")

    @torch.no_grad()
    def at(self, time: float) -> Gaussians:
        """The Gaussians as they stand at `time` in [0, 1], in the world of the cameras, on the CPU."""
        return self.world.placed(self._fitted(time)).to("cpu")

    def to(self, device: torch.device | str) -> Scene:
        """The same scene, drawn on another device from now on; its own parts are moved."""
        self.gaussians = self.gaussians.to(device)
        self.field.to(device)
        self.field.bind(self.gaussians.means)
        return self

    def actions(self) -> tuple[str, ...]:
        """Names of what the scene can do: those of its rig, none where it has no rig."""
        rig = self.field.rig if isinstance(self.field, RigField) else None
        return () if rig is None else tuple(motion.name for motion in rig.motions)

    def with_action(self, name: str) -> Scene:
        """The same scene under another action of its rig. InputError where it has none of that name."""
        if not isinstance(self.field, RigField):
            raise InputError("this scene has no rig; make one with `orbit4d recon4d DATASET:uid --rig ASSET`")
        return replace(self, field=self.field.with_action(name))

    def _fitted(self, time: float) -> Gaussians:
        """The same in the world of the fit, in which distances have the size that the rasteriser expects."""
        return self.field.move(self.gaussians, float(time))

    def render(self, camera: Camera, time: float) -> npt.NDArray[np.float32]:
        """Straight RGBA, float32 [H, W, 4] in [0, 1]; colour is 0 where alpha is below 1/255."""
        with torch.no_grad():
            color, alpha = draw(self._fitted(time), self.world.camera(camera), eps2d=self.eps2d)[:2]
        rgb = torch.where(alpha > _VISIBLE, color / alpha.clamp(min=_VISIBLE), alpha.new_zeros(()))
        return torch.cat([rgb.clamp(0, 1), alpha.clamp(0, 1)], dim=-1).cpu().numpy()

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the folder; scene.json comes last, so a folder that has one is whole."""
        from safetensors.torch import save_file

        out = Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        save_ply(self.gaussians.to("cpu"), out / "canonical.ply", self.eps2d)
        # Copies, because the parameters of a fit are views of one array.
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in self.field.state_dict().items()}
        with replacing_file(out / "deformation.safetensors") as draft:
            save_file(tensors, draft, metadata={"config": json.dumps(self.field.config)})
        if isinstance(self.field, RigField):
            save_rigged(self.field, out)
        write_json(out / "cameras.json", cameras_record(self.cameras, self.time))
        write_json(out / "metrics.json", self.metrics)
        info = {"format": FORMAT_VERSION, "orbit4d": version("orbit4d"), **self.info, **stored(self.world)}
        info["eps2d"] = self.eps2d
        write_json(out / "scene.json", info)


@dataclass(frozen=True)
class Placed:
    """A camera as the rasteriser takes it."""

    viewmats: Tensor
    """[1, 4, 4] world-to-camera, OpenCV axes."""
    Ks: Tensor
    """[1, 3, 3]"""
    width: int
    height: int


def place(camera: Camera, device: torch.device | str = "cpu") -> Placed:
    """Convert once; a run draws the same cameras thousands of times."""
    viewmat = torch.tensor(camera.w2c_opencv, dtype=torch.float32, device=device)[None]
    intrinsics = torch.tensor(camera.K, dtype=torch.float32, device=device)[None]
    return Placed(viewmat, intrinsics, camera.w, camera.h)


def draw(
    gaussians: Gaussians, camera: Camera | Placed, check: bool = True, **options: Any
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Premultiplied colour [H, W, 3 or 4], alpha [H, W, 1] and the rasteriser's meta, of one view.

    Without `check` the Gaussians are not looked through for NaN.
    """
    placed = camera if isinstance(camera, Placed) else place(camera)
    if gaussians.sh_degree:
        options["sh_degree"] = gaussians.sh_degree
        colors = gaussians.coefficients()
    else:
        colors = gaussians.colors.clamp(0, 1)
    color, alpha, meta = (rasterize if check else trusted)(
        gaussians.means,
        gaussians.quats,
        gaussians.scales,
        gaussians.opacities,
        colors,
        placed.viewmats,
        placed.Ks,
        placed.width,
        placed.height,
        **options,
    )
    return color[0], alpha[0], meta


def load_scene(folder: str | os.PathLike[str], device: torch.device | str = "cpu") -> Scene:
    """Read a scene folder, to be drawn on `device` whatever device it was fitted on.

    Raises InputError when it is none, WorkError when a part of it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    root = local_path(folder)
    if not (root / "scene.json").is_file():
        if (root / "run.json").is_file():
            raise InputError(f"{root}: a scene that is not finished; run the same recon4d command to resume")
        raise InputError(
            f"{root}: not a scene (no scene.json); make one with `orbit4d recon4d VIDEO --out {root}`"
        )
    try:
        info = _record(root / "scene.json")
        if info.get("format") != FORMAT_VERSION:
            raise InputError(
                f"{root}: scene format {info.get('format')!r}, this orbit4d reads {FORMAT_VERSION}; make it "
                "again, or use the orbit4d that wrote it"
            )
        with safe_open(root / "deformation.safetensors", framework="pt") as file:
            built = build_field(json.loads(file.metadata()["config"]))
            built.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        if isinstance(built, RigField):
            load_rigged(built, root)
        record, metrics = _record(root / "cameras.json"), _record(root / "metrics.json")
        scene = Scene(
            load_ply(root / "canonical.ply"), built.eval().requires_grad_(False), info=info, metrics=metrics,
            world=World.of(info.get("world")), eps2d=float(info.get("eps2d", EPS2D)),
        )  # fmt: skip
        if record["frames"]:
            posed = parse_transforms(record, root / "cameras.json", any_pose=True)
            scene.cameras, scene.time = posed.cameras, posed.times or ()
        if (found := scene.fault()) is not None:
            raise ValueError(f"{_FILES[found[0]]}: {found[1]}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise _damaged(root, f"{type(error).__name__}: {error}") from None
    except SafetensorError as error:
        raise _damaged(root, f"deformation.safetensors: {error}") from None
    return scene.to(device) if torch.device(device).type != "cpu" else scene


def _record(path: Path) -> dict[str, Any]:
    """A JSON object. ValueError that names the file for anything else."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    if not isinstance(record, dict):
        raise ValueError(f"{path.name}: a {type(record).__name__} where an object is expected")
    return record


def _damaged(root: Path, why: str) -> WorkError:
    return WorkError(f"{root}: damaged scene ({' '.join(why.split())[:240]}); make it again")
