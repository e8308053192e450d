"""What shines on an asset, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from orbit4d.datasets.cameras.sampling import Distribution, parse_distribution
from orbit4d.datasets.core.errors import InputError

#: World colour of Blender's start-up file, linear.
START_UP_GREY = 0.05087609
#: Panoramas that come with Blender, under datafiles/studiolights/world (CC0, Poly Haven).
BUILTIN = tuple(
    f"builtin:{name}.exr"
    for name in ("city", "courtyard", "forest", "interior", "night", "studio", "sunrise", "sunset")
)
KINDS = ("preset", "suns", "points", "any")
MOST_LIGHTS = 256
#: Mean luminance that panoramas of a set are brought to before their drawn strength.
MEAN_LUMINANCE = 0.75
ROTATION = Distribution("uniform", (0.0, 360.0))


@dataclass(frozen=True)
class Sun:
    """A lamp at infinity."""

    energies: tuple[float, ...]
    """Strengths in W/m² that one is drawn from, once per asset."""
    rotation_deg: tuple[float, float, float]
    """Euler angles XYZ; without rotation a sun shines along -Z."""


#: Key, fill, rim and bottom lamp of the published script (VITA-Group/Diffusion4D, rendering/blender.py).
PUBLISHED_SUNS = (
    Sun((3.0, 4.0, 5.0), (45.0, 0.0, -45.0)),
    Sun((2.0, 3.0, 4.0), (45.0, 0.0, 135.0)),
    Sun((3.0, 4.0, 5.0), (-45.0, 0.0, -225.0)),
    Sun((1.0, 2.0, 3.0), (180.0, 0.0, 0.0)),
)
#: The same at half their strength. The published ones are set for Filmic, which compresses highlights; with
#: the Standard transform they burn a third of a white truck into a white background. (Lowering the exposure
#: instead would darken unlit materials too.)
HALF_SUNS = tuple(Sun(tuple(e / 2 for e in sun.energies), sun.rotation_deg) for sun in PUBLISHED_SUNS)


@dataclass(frozen=True)
class LightSettings:
    """What shines on the asset."""

    suns: tuple[Sun, ...] = HALF_SUNS
    shadows: bool = False
    """Whether the suns cast shadows. The published script switches them off on the lamp; Blender 3.2's Cycles
    may have read another property, so the published images may hold shadows."""
    world_grey: float = START_UP_GREY
    """Uniform background radiance, linear; used when there is no environment."""
    environment: str | None = None
    """EXR or HDR panorama that lights the scene beside the suns; seen only with `environment_visible`."""
    environment_strength: float = 1.0
    n_lights: int = 1
    """Lightings of each clip. The first is that of the preset, unless `light_kind` or `environments` say
    otherwise; further ones are drawn."""
    light_kind: str = "preset"
    """`suns`: the preset's suns turned about the vertical, with strengths of their own. `points`: three point
    lamps around the object. `any`: one of the two for each light. `preset`: as it is, and suns for further
    lights."""
    environments: tuple[str, ...] = ()
    """Panoramas that one is drawn from for each light, instead of suns: paths, or names of `BUILTIN`."""
    light_rotation: Distribution | None = None
    """Degrees about the vertical, counter-clockwise from above; None: evenly over the turn where drawn."""
    light_strength: Distribution | None = None
    """Factor on the strength."""
    environment_visible: bool = False
    """Whether cameras see the environment; the images then have no transparent background."""
    shadow_catcher: bool = False
    """A ground under the object that shows nothing but its shadow."""

    def __post_init__(self) -> None:
        if not 1 <= self.n_lights <= MOST_LIGHTS:
            raise InputError(f"lights is {self.n_lights}; choose 1 to {MOST_LIGHTS}")
        if self.light_kind not in KINDS:
            raise InputError(f"unknown light kind {self.light_kind!r}; choose from {', '.join(KINDS)}")
        if self.environments and (self.environment is not None or self.light_kind != "preset"):
            raise InputError("lights come from panoramas or from lamps: leave out --light-kind")

    @property
    def files(self) -> tuple[str, ...]:
        """Panoramas that must be there on every machine; what Blender brings is not among them."""
        alone = () if self.environment is None else (self.environment,)
        return (*alone, *(name for name in self.environments if not name.startswith("builtin:")))

    def as_config(self) -> dict[str, Any]:
        """As plain data, without what came later and nobody asked for."""
        config = asdict(self)
        for name in _LATER:
            if getattr(self, name) == getattr(LightSettings, name):
                del config[name]
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> LightSettings:
        """Inverse of `as_config`, also after a trip through JSON."""
        data = dict(config)
        suns = tuple(
            Sun(tuple(sun["energies"]), (*map(float, sun["rotation_deg"]),))  # type: ignore[arg-type]
            for sun in data.pop("suns")
        )
        for name in ("light_rotation", "light_strength"):
            data[name] = Distribution.from_config(data.get(name))
        data["environments"] = tuple(data.get("environments", ()))
        return cls(suns=suns, **data)


_LATER = (
    "n_lights", "light_kind", "environments", "light_rotation", "light_strength", "environment_visible",
    "shadow_catcher",
)  # fmt: skip


def asked_light(name: str, text: str) -> Distribution:
    """The distribution of --light-rotation or --light-strength. InputError, one line."""
    limits = (-3600.0, 3600.0) if name == "light_rotation" else (0.0, 1000.0)
    return parse_distribution(text, "--" + name.replace("_", "-"), limits)
