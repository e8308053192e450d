"""Options of the command as fields of the settings: files are looked up, draws and numbers read."""

from __future__ import annotations

import os
from typing import Any

from orbit4d.datasets.cameras.paths import parse_key_poses
from orbit4d.datasets.cameras.rig_files import read_rig
from orbit4d.datasets.core.errors import InputError
from orbit4d.render.planning.camera_settings import DRAWN, CameraSettings, asked
from orbit4d.render.planning.light_settings import BUILTIN, asked_light

#: Draws that are a field of the settings where they are one number.
_PLAIN = {"elevation": "elevation_deg", "radius": "radius", "fov": "fov_x_deg"}
_PANORAMAS = (".exr", ".hdr")


def fields_of(options: dict[str, Any]) -> dict[str, Any]:
    """Fields of RenderSettings, or of its lights and engine, for `options`: names as in the command, with
    underscores. InputError, one line, for what cannot be."""
    changes = dict(options)
    _add_rigs(changes)
    _add_cameras(changes)
    for name in ("light_rotation", "light_strength"):
        if name in changes:
            changes[name] = asked_light(name, changes[name])
    if "environment" in changes:
        changes |= _panoramas(str(changes.pop("environment")))
    return changes


def _add_rigs(changes: dict[str, Any]) -> None:
    """Rigs from files: those of --cameras, and those that --rigs names by a path."""
    named = [str(path) for path in changes.pop("camera_files", ())]
    rigs = list(changes.get("rigs", ()))
    files = [name for name in dict.fromkeys([*rigs, *named]) if name in named or name.endswith(".json")]
    if not files:
        return
    own = {name: read_rig(name) for name in files}
    rigs += [name for name in files if name not in rigs]
    changes["rigs"] = tuple(own[name].column if name in own else name for name in rigs)
    changes["own_rigs"] = tuple(own.values())


def _add_cameras(changes: dict[str, Any]) -> None:
    drawn: dict[str, Any] = {}
    for name in [name for name in DRAWN if name in changes]:
        text = str(changes.pop(name))
        if name == "aperture" and text == "lens":
            drawn["rig_aperture"] = True
            continue
        found = asked(name, text) if name not in _PLAIN or ":" in text else None
        if found is not None:
            drawn[name] = found
            continue
        try:
            changes[_PLAIN[name]] = float(text)
        except ValueError:
            asked(name, text)  # says what is wrong with it
    for name in ("path", "direction"):
        if name in changes:
            drawn[name] = changes.pop(name)
    if "key_poses" in changes:
        drawn["key_poses"] = parse_key_poses(changes.pop("key_poses"))
    if "elevation" in drawn and "elevation_range_deg" in changes:
        raise InputError("--elevation and --elevation-range both draw the elevation; give one of them")
    if drawn:
        changes["cameras"] = CameraSettings(**drawn)


def _panoramas(given: str) -> dict[str, Any]:
    """`environment` for one file, `environments` for a folder or what Blender brings."""
    if given == "builtin":
        return {"environments": BUILTIN}
    if "://" in given or not os.path.isdir(given):
        return {"environment": given if "://" in given else os.path.abspath(given)}
    names = sorted(name for name in os.listdir(given) if name.lower().endswith(_PANORAMAS))
    if not names:
        raise InputError(f"--environment {given}: no EXR or HDR panorama in this folder")
    return {"environments": tuple(os.path.join(os.path.abspath(given), name) for name in names)}
