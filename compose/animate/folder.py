"""A run's folder: whether it may be written, what it holds, and the scene at its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orbit4d.compose.animate.request import Plan
from orbit4d.compose.animate.sampling import View
from orbit4d.compose.animate.stages.state import State
from orbit4d.datasets.core.atomic import write_json
from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.deformation.field import Deformation
from orbit4d.recon4d.gaussians import save_ply
from orbit4d.recon4d.scene import Scene

RECORD, CHECKPOINT = "animate.json", "checkpoint.pt"
#: Cameras that a scene is filmed by where nobody says otherwise.
ORBIT_FRAMES = 24


def open_folder(plan: Plan) -> dict[str, Any]:
    """What the folder says of earlier work, {} where it is new. InputError where it is not ours to fill."""
    out = plan.request.out
    if out.is_file():
        raise InputError(f"--out {out}: is a file; give a folder")
    record = out / RECORD
    if not record.is_file():
        if (out / "scene.json").exists():
            raise InputError(f"--out {out}: is a scene that animate did not make; give another --out")
        if out.is_dir() and any(out.iterdir()):
            raise InputError(f"--out {out}: holds other files; give an empty or new folder")
        return {}
    try:
        held: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        before = held["run"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{record}: damaged ({error}); give another --out") from None
    if (different := first_difference(before, _plain(plan.record()))) is not None:
        raise InputError(f"--out {out}: holds a run with another {different}; give another --out")
    return held


def first_difference(before: Any, now: Any, name: str = "") -> str | None:
    """Name of the first value that differs, with both; None for equal ones."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*now, *(k for k in before if k not in now)]:
            found = first_difference(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
            if found is not None:
                return found
        return None
    if before == now:
        return None
    return f"{name.removeprefix('settings.')} ({_short(before)}, asked {_short(now)})"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _plain(values: Any) -> Any:
    return json.loads(json.dumps(values))


def write_record(plan: Plan, held: dict[str, Any], **more: Any) -> dict[str, Any]:
    """animate.json: settings, prompts, priors, and what is done."""
    out = plan.request.out
    held = {"format": 1, **held, "run": _plain(plan.record()), **more}
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / RECORD, held)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror}); give another") from None
    return held


def save_stage(out: Path, state: State) -> None:
    """stages/static.ply, or stages/motion.safetensors and the Gaussians it moves."""
    from safetensors.torch import save_file

    folder = out / "stages"
    folder.mkdir(exist_ok=True)
    save_ply(state.gaussians, folder / f"{state.stage}.ply")
    if state.stage != "static":
        tensors = {name: t.detach().cpu().clone() for name, t in state.field.state_dict().items()}
        config = {"config": json.dumps(state.field.config)}
        save_file(tensors, folder / f"{state.stage}.safetensors", metadata=config)


def scene_of(plan: Plan, state: State) -> Scene:
    """The scene as it stands, on the CPU, with an orbit to film it by."""
    settings = plan.settings
    views = [
        View(settings.elevation, 360.0 * i / ORBIT_FRAMES, settings.rig.radius) for i in range(ORBIT_FRAMES)
    ]
    cameras = tuple(view.camera(max(settings.resolution, 64), settings.rig.fov) for view in views)
    times = tuple(i / (ORBIT_FRAMES - 1) for i in range(ORBIT_FRAMES))
    return Scene(state.gaussians.to("cpu"), copied(state.field), cameras, times, eps2d=settings.eps2d)


def copied(deformation: Deformation) -> Deformation:
    """A field of the same tensors, on the CPU, that nothing trains."""
    from orbit4d.recon4d.deformation.building import build_field

    copy = build_field(deformation.config)
    copy.load_state_dict({name: t.detach().cpu().clone() for name, t in deformation.state_dict().items()})
    if deformation.bound_means is not None:
        copy.bind(deformation.bound_means.cpu())
    return copy.eval().requires_grad_(False)
