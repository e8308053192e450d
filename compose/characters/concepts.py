"""An asset as a concept: rendered in static orbits, fitted once, kept under the hash of its making."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from orbit4d.compose.characters.gaits import gait, own_slides, posed_clip
from orbit4d.compose.characters.gltf_rig import Character
from orbit4d.compose.characters.motion_swap import swapped
from orbit4d.compose.characters.reading import read_character
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.core.scratch import scratch_folder
from orbit4d.recon4d.deformation.building import StillField
from orbit4d.recon4d.deformation.rigs.rig import Motion
from orbit4d.recon4d.deformation.rigs.self_contact import self_contact
from orbit4d.recon4d.fitting.inputs import Inputs
from orbit4d.recon4d.fitting.rigging.fit import bound_at, fit_static, refuse_moment, static_settings
from orbit4d.recon4d.fitting.scores import compared, renders
from orbit4d.recon4d.fitting.settings import PRESETS
from orbit4d.recon4d.inputs.loading import Frames, from_clip
from orbit4d.recon4d.raster.threads import alone
from orbit4d.recon4d.scene import Scene, load_scene
from orbit4d.render.dataset.asset_job import clips_of_action
from orbit4d.render.fleet.child import BlenderChild, ChildError, TaskRefused
from orbit4d.render.planning.settings import RenderSettings

#: Elevations, degrees, and views of the orbits that a concept is fitted to: the second sees backs and tops.
ORBITS = ((0.0, 24), (40.0, 12))
#: Width and height of its images, pixels.
SIZE = 256
#: Time that Blender may take for one orbit.
TIMEOUT = 900.0
_MADE = 2
#: Poses in which an asset may be fitted: `auto` is its rest pose where no limbs touch in it, else `first`,
#: the first moment of its action.
RIG_MOMENTS = ("auto", "rest", "first")
#: Share of the surface that may touch itself in a rest pose that is taken.
MOST_CONTACT = 0.01
#: How far the box of the rest pose as read may be off the one that was rendered, its longest edge being 1.
_SAME_BOX = 0.005

#: Names of what is done in water or air, and on the ground.
_AFLOAT = re.compile(r"(?i)swim|fly|flies|flight|hover|glid|float")
_ON_FOOT = re.compile(r"(?i)walk|run|idle|gallop|jump|crawl")


@dataclass(frozen=True)
class Clip:
    """What placement needs to know of one action of a concept."""

    action: str
    seconds: float
    height: float
    """Extent of z where the action starts, concept units."""
    ground: float
    """Height of the concept that stands on the ground: 2nd percentile of its lowest vertex over the clip."""
    radius: float
    """Half the horizontal diagonal, concept units."""
    half: tuple[float, float]
    """Half extents in x and y."""
    top: float
    """Largest z above `ground` over the clip."""
    gait: dict[str, Any]
    closes: bool
    """Whether its first and last pose are one, to 1 % of the diagonal."""
    lowest: tuple[float, ...] = ()
    """z of the lowest vertex at `SAMPLES` times of the clip."""
    slides: tuple[float, ...] = ()
    """What its feet slide by themselves at times evenly over the clip, as a share of its speed."""
    floats: bool = False
    """Whether it swims or flies: its name says so, or the asset does nothing on the ground."""


#: Times at which a clip is inspected.
SAMPLES = 33


@dataclass(frozen=True)
class Concept:
    """A fitted asset in its folder."""

    key: str
    folder: Path
    scene: Scene
    fresh: bool
    """Whether it was fitted now, not taken from the cache."""


def concept_key(path: str, action: int, moment: str | None, motion_of: str = "") -> str:
    """32 hex digits of the asset's bytes, the time of the fit (None: `auto`) and the settings."""
    digest = hashlib.sha256(Path(path).read_bytes())
    settings = static_settings(PRESETS["default"]).as_config()
    made = [_MADE, version("orbit4d"), ORBITS, settings, action, moment, motion_of]
    digest.update(json.dumps(made, sort_keys=True).encode())
    return digest.hexdigest()[:32]


def fit_concept(
    path: str, uid: str, action: int, cache: Path, seed: int = 0, moment: str = "auto"
) -> Concept:
    """The asset fitted in one pose, see `RIG_MOMENTS`; from the cache where it is there and whole.

    Raises InputError for a file without a rig or without the pose, WorkError where Blender fails.
    """
    key = concept_key(path, action, None if moment == "auto" else moment)
    folder = cache / key
    if (folder / "scene.json").is_file():
        try:
            return Concept(key, folder, load_scene(folder), fresh=False)
        except (WorkError, InputError):
            print(f"concept {key[:8]} is damaged: made again")
            shutil.rmtree(folder)
    seen = _seen(path, uid, action, moment)
    settings = static_settings(PRESETS["default"])
    with alone():
        fit = fit_static(Inputs(seen.frames, None, {}, []), settings, seed, folder, {"concept": key})
        motion = seen.character.rig.motions[action]
        field, binding = bound_at(
            fit.gaussians, seen.character, motion.name, seen.seconds, (motion.start, motion.end),
            (None, 0.0) if seen.rest else None,
        )  # fmt: skip
        still = Scene(
            fit.gaussians, StillField(), seen.frames.cameras, seen.frames.time, eps2d=settings.eps2d
        )
        scene = replace(still, field=field)
        scene.metrics["psnr_train"], scene.metrics["ssim_train"] = compared(
            renders(still, seen.frames), seen.frames
        )
    scene.metrics |= {"loose": binding.loose, "repaired_weights": seen.character.surface.repaired}
    scene.metrics |= {"n_gaussians": len(fit.gaussians), "seconds": round(fit.seconds, 2)}
    scene.info |= {"uid": uid, "scale": seen.scale, "centre": list(seen.centre)}
    pose = "rest" if seen.rest else f"first moment of {motion.name}"
    scene.info |= {"notes": list(seen.character.notes), "pose": pose}
    scene.save(folder)
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    return Concept(key, folder, scene, fresh=True)


@dataclass(frozen=True)
class _Seen:
    """An asset in one pose: what was rendered of it, and its rig in that world."""

    frames: Frames
    character: Character
    scale: float
    centre: tuple[float, ...]
    seconds: float
    rest: bool


def _seen(path: str, uid: str, action: int, moment: str) -> _Seen:
    """Render an asset in the pose that `moment` asks for, which `auto` chooses."""
    asset = read_character(path)
    if moment != "first" and (moment == "rest" or rest_is_free(asset)):
        refuse_moment(asset, (None, 0.0))
        frames, scale, centre, seconds = static_orbit(path, uid, None)
        character = read_character(path, scale, centre)
        posed = character.surface.posed(character.rig.maps(None, 0.0))
        low, high = posed.min(axis=0), posed.max(axis=0)
        # Framed so that the middle of its box is the origin, and the box 1 long.
        if np.abs((low + high) / 2).max() <= _SAME_BOX and abs((high - low).max() - 1) <= _SAME_BOX:
            return _Seen(frames, character, scale, centre, seconds, rest=True)
        if moment == "rest":
            raise InputError(
                f"{path}: its rest pose as Blender shows it is not that of its nodes; take --rig-moment first"
            )
    motion = asset.rig.motions[action]
    refuse_moment(asset, (motion.name, motion.start))
    frames, scale, centre, seconds = static_orbit(path, uid, action)
    return _Seen(frames, read_character(path, scale, centre), scale, centre, seconds, rest=False)


def rest_is_free(character: Character) -> bool:
    """Whether an asset has a rest pose in which hardly any of its surface touches another part of it."""
    maps = character.rig.maps(None, 0.0)
    posed = character.surface.posed(maps)
    if not np.isfinite(posed).all() or not np.ptp(posed, axis=0).min() > 0:
        return False
    try:
        refuse_moment(character, (None, 0.0))
    except InputError:
        return False
    return self_contact(character.surface, posed) <= MOST_CONTACT


def static_orbit(path: str, uid: str, action: int | None) -> tuple[Frames, float, tuple[float, ...], float]:
    """(frames, scale, centre, seconds) of an asset rendered around its action's first moment.

    Without an action it is rendered as its file has it before any is played.
    """
    found = []
    with scratch_folder() as scratch, BlenderChild() as child:
        for elevation, views in ORBITS:
            settings = RenderSettings(
                frames=views,
                resolution=SIZE,
                rigs=("static_orbit",),
                elevation_deg=elevation,
                normalise="union_box",
            )
            payload: dict[str, Any] = {
                "path": str(Path(path).resolve()), "uid": uid, "settings": settings.as_config(), "threads": 2,
                "scratch": scratch, "actions": None if action is None else [action], "rest": action is None,
                "sha256": "", "notes": [],
                "provenance": dict.fromkeys(("license", "author", "source_url", "caption", "split"), ""),
            }  # fmt: skip
            try:
                result = child.call("render_clips", payload, TIMEOUT)
            except TaskRefused as error:
                raise InputError(f"{path}: {error.reason} ({error.detail})"[:300]) from None
            except ChildError as error:
                raise WorkError(
                    f"{path}: Blender rendered no orbit ({error.reason}: {error})"[:300]
                ) from None
            if not result["actions"]:
                why = result["rejected"][0]
                raise InputError(f"{path}: {why['reason']} ({why['detail']})"[:300])
            found += clips_of_action(payload, settings, result["actions"][0], result)
    first = found[0]
    if any((c.scale, c.centre, c.seconds[0]) != (first.scale, first.centre, first.seconds[0]) for c in found):
        raise WorkError(f"{path}: its two orbits are framed differently")
    frames = [from_clip(clip) for clip in found]
    merged = replace(
        frames[0],
        rgba=np.concatenate([f.rgba for f in frames]),
        cameras=tuple(c for f in frames for c in f.cameras),
        time=(0.0,) * sum(len(f) for f in frames),
    )
    return merged, first.scale, first.centre, float(first.seconds[0])


def clip_of(character: Character, action: str) -> Clip:
    """Measure an action of a character placed as its concept is."""
    motion = character.rig.motion(action)
    seconds = np.linspace(motion.start, motion.end, SAMPLES)
    posed = np.stack([character.surface.posed(character.rig.maps(motion, float(t))) for t in seconds])
    lowest = posed[..., 2].min(axis=1)
    first = posed[0]
    size = np.ptp(posed.reshape(-1, 3), axis=0)
    diagonal = float(np.linalg.norm(np.ptp(first, axis=0)))
    ground = float(np.percentile(lowest, 2))
    half = np.abs(posed[..., :2]).max(axis=(0, 1))
    closes = float(np.linalg.norm(posed[-1] - first, axis=1).max()) <= 0.01 * diagonal
    times, vertices = posed_clip(character, action)
    walked = gait(times, vertices)
    return Clip(
        motion.name, motion.seconds, float(np.ptp(first[:, 2])), ground, float(np.linalg.norm(size[:2]) / 2),
        (float(half[0]), float(half[1])), float(posed[..., 2].max() - ground), walked,
        closes, tuple(float(z) for z in lowest), own_slides(times, vertices, walked),
        floating([m.name for m in character.rig.motions], motion.name),
    )  # fmt: skip


def floating(names: Sequence[str], action: str) -> bool:
    """Whether an action of an asset with actions `names` is one over the ground."""

    def says(words: re.Pattern[str], name: str) -> bool:
        return words.search(name.rpartition("|")[2]) is not None

    if says(_AFLOAT, action):
        return True
    grounded = any(says(_ON_FOOT, name) and not says(_AFLOAT, name) for name in names)
    return any(says(_AFLOAT, name) for name in names) and not grounded


def with_motion(concept: Concept, source: Character, motion: Motion, cache: Path, of: str) -> Concept:
    """The concept with another skeleton's motion as one of its own, under a key of its own."""
    field: Any = concept.scene.field
    moved, _ = swapped(source.rig, motion, field.rig)
    rig = replace(field.rig, motions=(*field.rig.motions, moved))
    key = hashlib.sha256(f"{concept.key} {of} {motion.name}".encode()).hexdigest()[:32]
    scene = replace(
        concept.scene, field=field.with_action(field.action).attach(rig, field.index, field.weights)
    )
    scene.save(cache / key)
    return Concept(key, cache / key, scene, concept.fresh)


def rest_action(names: tuple[str, ...] | list[str]) -> int:
    """Index of the action at whose start an asset is fitted: an idle one, else its first."""
    plain = [name.rpartition("|")[2].lower().replace("_", "").replace(".", "") for name in names]
    idle = [i for i, name in enumerate(plain) if "idle" in name]
    return min(idle, key=lambda i: (len(plain[i]), i)) if idle else 0
