"""How the cameras of orbits and front views are chosen, where it is not as always."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from orbit4d.datasets.cameras.paths import PATHS, CameraPath, Pose, check_key_poses
from orbit4d.datasets.cameras.sampling import Distribution, parse_distribution, rng
from orbit4d.datasets.core.errors import InputError

DIRECTIONS = ("ccw", "cw", "random")
#: What may be drawn: option and limits of its values.
DRAWN: dict[str, tuple[str, tuple[float, float]]] = {
    "elevation": ("--elevation", (-89.0, 89.0)),
    "radius": ("--radius", (0.600001, 100.0)),
    "fov": ("--fov", (1.0, 150.0)),
    "azimuth": ("--azimuth", (-360.0, 360.0)),
    "roll": ("--roll", (-180.0, 180.0)),
    "turns": ("--turns", (-10.0, 10.0)),
    "rise": ("--rise", (-178.0, 178.0)),
    "easing": ("--easing", (-10.0, 10.0)),
    "aperture": ("--aperture", (0.05, 1000.0)),
}


@dataclass(frozen=True)
class CameraSettings:
    """What is drawn for each orbit of an asset; None: as the settings beside it say, or nothing of the kind.

    Every value has a stream of its own, so that further orbits, or further things that are drawn, never
    change what was drawn before.
    """

    elevation: Distribution | None = None
    radius: Distribution | None = None
    fov: Distribution | None = None
    """Horizontal field of view, degrees."""
    azimuth: Distribution | None = None
    """Azimuth at which an orbit starts; those that are listed come first."""
    roll: Distribution | None = None
    turns: Distribution | None = None
    """Full turns over a clip, so the speed; `direction` gives the sign."""
    rise: Distribution | None = None
    """Degrees that a spiral rises over a clip."""
    easing: Distribution | None = None
    aperture: Distribution | None = None
    """f-number of the lens; with it the depth of field is limited, and the centre is in focus."""
    rig_aperture: bool = False
    """Depth of field as the lens of a rig has it."""
    path: str = "circle"
    direction: str = "ccw"
    """Seen from above: `ccw`, `cw`, or `random` for each orbit."""
    key_poses: tuple[Pose, ...] = ()

    def __post_init__(self) -> None:
        if self.path not in PATHS:
            raise InputError(f"unknown path {self.path!r}; choose from {', '.join(PATHS)}")
        if self.direction not in DIRECTIONS:
            raise InputError(f"unknown direction {self.direction!r}; choose from {', '.join(DIRECTIONS)}")
        if self.path == "spline":
            check_key_poses(self.key_poses)
        elif self.key_poses:
            raise InputError("--key-poses belong to --path spline")
        if self.rise is not None and self.path != "spiral":
            raise InputError("--rise belongs to --path spiral")

    def value(self, name: str, seed: int, uid: str, orbit: int) -> float | None:
        """The value of one of `DRAWN` for an orbit of an asset; None where none is drawn."""
        distribution: Distribution | None = getattr(self, name)
        return None if distribution is None else distribution.draw(rng(seed, uid, f"camera/{orbit}/{name}"))

    def path_of(self, seed: int, uid: str, orbit: int) -> CameraPath:
        """The path of an orbit of an asset."""

        def drawn(name: str, otherwise: float) -> float:
            value = self.value(name, seed, uid, orbit)
            return otherwise if value is None else value

        turns = drawn("turns", 1.0)
        backwards = self.direction == "cw" or (
            self.direction == "random" and rng(seed, uid, f"camera/{orbit}/direction").random() < 0.5
        )
        return CameraPath(
            self.path,
            -turns if backwards else turns,
            drawn("rise", 30.0) if self.path == "spiral" else 0.0,
            drawn("roll", 0.0),
            drawn("easing", 0.0),
            self.key_poses,
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> CameraSettings:
        """Inverse of `dataclasses.asdict`, also after a trip through JSON."""
        data = dict(config)
        for name in DRAWN:
            data[name] = Distribution.from_config(data.get(name))
        data["key_poses"] = tuple(tuple(float(x) for x in pose) for pose in data.get("key_poses", ()))
        return cls(**data)

    def as_config(self) -> dict[str, Any]:
        """What differs from the default, as plain data."""
        given = asdict(self)
        return {f.name: given[f.name] for f in fields(self) if getattr(self, f.name) != f.default}


def asked(name: str, text: str) -> Distribution:
    """The distribution that an option's text names. InputError, one line."""
    option, limits = DRAWN[name]
    return parse_distribution(text, option, limits)
