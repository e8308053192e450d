"""The lightings of an asset, drawn from its settings; the same in the child and wherever they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from orbit4d.datasets.cameras.sampling import Distribution, rng
from orbit4d.render.planning.light_settings import ROTATION
from orbit4d.render.planning.settings import RenderSettings

#: Azimuths in degrees from the key lamp's, and irradiance in W/m² at the centre, of the three point lamps.
_POINTS = ((-45.0, 2.2), (70.0, 1.0), (180.0, 1.4))


@dataclass(frozen=True)
class Lamp:
    """One lamp: a sun by its rotation, or a point lamp by its place."""

    energy: float
    """W/m² of a sun, W of a point lamp."""
    rotation_deg: tuple[float, float, float] | None = None
    place: tuple[float, float, float] | None = None
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Lighting:
    """Everything that lights a clip."""

    lamps: tuple[Lamp, ...]
    environment: str | None = None
    turn_deg: float = 0.0
    """By which the environment is turned about the vertical, counter-clockwise from above."""
    strength: float = 1.0
    is_levelled: bool = False
    """Whether the environment is brought to a mean luminance before `strength`."""
    facts: tuple[tuple[str, Any], ...] = ()
    """What a clip says of it; () for the lights of the preset."""


def lightings_of(settings: RenderSettings, uid: str) -> list[Lighting]:
    """The lightings of an asset, by their numbers."""
    return [_lighting(settings, uid, n) for n in range(settings.lights.n_lights)]


def _lighting(settings: RenderSettings, uid: str, n: int) -> Lighting:
    lights = settings.lights
    if lights.environments:
        order = rng(settings.seed, uid, "light/files").permutation(len(lights.environments))
        path = lights.environments[int(order[n % len(order)])]
        turn = _drawn(settings, uid, n, "rotation", ROTATION)
        strength = _drawn(settings, uid, n, "strength", None)
        return Lighting((), path, turn, strength, True, _facts("environment", turn, strength))
    kind = _kind(settings, uid, n)
    asked = lights.light_rotation is not None or lights.light_strength is not None
    turn = _drawn(settings, uid, n, "rotation", None if kind == "preset" else ROTATION)
    strength = _drawn(settings, uid, n, "strength", None)
    if kind == "preset":
        energies = settings.sun_energies_of(uid)
    else:
        generator = rng(settings.seed, uid, f"light/{n}/suns")
        energies = tuple(float(generator.choice(sun.energies)) for sun in lights.suns)
    if kind == "points":
        lamps = _points(settings, uid, n, turn, strength)
    else:
        lamps = tuple(
            Lamp(energy * strength, _turned(sun.rotation_deg, turn))
            for sun, energy in zip(lights.suns, energies, strict=True)
        )
    facts = _facts(kind, turn, strength) if kind != "preset" or asked else ()
    return Lighting(lamps, lights.environment, turn, lights.environment_strength * strength, False, facts)


def _kind(settings: RenderSettings, uid: str, n: int) -> str:
    kind = settings.lights.light_kind
    if kind == "any":
        return ("suns", "points")[int(rng(settings.seed, uid, f"light/{n}/kind").integers(2))]
    return "suns" if kind == "preset" and n > 0 else kind


def _drawn(settings: RenderSettings, uid: str, n: int, name: str, otherwise: Distribution | None) -> float:
    """The rotation (0 where none is drawn) or the strength (1 where none is drawn) of a light."""
    distribution = getattr(settings.lights, f"light_{name}") or otherwise
    if distribution is None:
        return 0.0 if name == "rotation" else 1.0
    return float(distribution.draw(rng(settings.seed, uid, f"light/{n}/{name}")))


def _turned(rotation_deg: tuple[float, float, float], turn_deg: float) -> tuple[float, float, float]:
    """Euler angles XYZ, with a turn about the world's vertical after them: it adds to the last."""
    x, y, z = rotation_deg
    return (x, y, z + turn_deg) if turn_deg else rotation_deg


def _points(settings: RenderSettings, uid: str, n: int, turn: float, strength: float) -> tuple[Lamp, ...]:
    """Key, fill and rim lamp around the object, each somewhat higher or lower, nearer, warmer than usual."""
    generator = rng(settings.seed, uid, f"light/{n}/points")
    lamps = []
    for azimuth, irradiance in _POINTS:
        a = np.radians(turn + azimuth + generator.uniform(-20.0, 20.0))
        e = np.radians(generator.uniform(10.0, 65.0))
        distance = generator.uniform(2.0, 4.0)
        place = distance * np.array([np.sin(a) * np.cos(e), -np.cos(a) * np.cos(e), np.sin(e)])
        watts = irradiance * generator.uniform(0.7, 1.3) * 4.0 * np.pi * distance**2 * strength
        warm = generator.uniform(-0.15, 0.15)
        x, y, z = place.tolist()
        lamps.append(Lamp(float(watts), None, (x, y, z), (1.0 + warm, 1.0, 1.0 - warm)))
    return tuple(lamps)


def _facts(kind: str, turn: float, strength: float) -> tuple[tuple[str, Any], ...]:
    return (("kind", kind), ("rotation_deg", turn), ("strength", strength))
