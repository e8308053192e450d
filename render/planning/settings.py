"""What is rendered, as plain data: rigs, framing, lights, engine. No Blender in sight.

A `RenderSettings` is the configuration of a dataset: two datasets with equal settings and equal inputs
have the same digest. How many workers render it, and where, is not part of it (`fleet.FleetSettings`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from orbit4d.datasets.cameras.camera import DEFAULT_FOV_X_DEG, DEFAULT_RADIUS, published_elevation_deg
from orbit4d.datasets.cameras.rig_files import FileRig
from orbit4d.datasets.cameras.rigs import KNOWN, METRES_PER_UNIT, RIGS, parse_rig
from orbit4d.datasets.cameras.sampling import rng
from orbit4d.datasets.core.errors import InputError
from orbit4d.render.planning.camera_settings import CameraSettings
from orbit4d.render.planning.light_settings import PUBLISHED_SUNS, LightSettings

NORMALISATIONS = ("fit", "union_box", "first_frame")
WINDOWS = ("moving", "raw_frames")
#: Rendered with the images, and stored with them.
IMAGE_PASSES = ("depth", "normal", "mask")
#: Stored beside the clips, whose bytes do not depend on them.
MATERIAL_PASSES = ("albedo", "roughness", "metallic", "emission", "position")
BESIDE_PASSES = ("geometry", "skeleton", *MATERIAL_PASSES)
PASSES = (*IMAGE_PASSES, *BESIDE_PASSES)
DEVICES = ("cpu", "cuda", "optix", "hip", "metal", "oneapi")
#: View transforms of Blender's own colour configuration.
VIEW_TRANSFORMS = ("Standard", "Khronos PBR Neutral", "AgX", "Filmic", "Filmic Log", "False Color", "Raw")


#: Settings that came later, as they are where nobody asked for them: then no configuration holds them.
LATER: dict[str, Any] = {"draws": 1, "metres_per_unit": METRES_PER_UNIT, "own_rigs": (), "cameras": {}}


def _check(good: bool, message: str) -> None:
    if not good:
        raise InputError(message)


@dataclass(frozen=True)
class EngineSettings:
    """How Cycles samples."""

    device: str = "cpu"
    samples: int = 56
    """Samples per pixel; with `target_psnr_db` the most an asset may get."""
    target_psnr_db: float | None = None
    """Choose each asset's samples from its own noise, so that its images are predicted to be this near to
    the truth inside the box around the object, on white; None takes `samples` for all."""
    target_ssim: float = 0.993
    """Structural similarity to the truth that the choice must reach as well."""
    least_samples: int = 8
    """Fewest samples that the choice may take."""
    adaptive_threshold: float | None = None
    """Noise threshold of adaptive sampling; None takes the same samples everywhere."""
    denoise: bool = False
    """OpenImageDenoise with albedo and normal, accurate prefilter."""
    filter_width: float = 1.5
    """Width of the Blackman-Harris pixel filter in pixels; 0.01 samples the pixel's centre only."""
    diffuse_bounces: int = 1
    glossy_bounces: int = 1
    transparent_bounces: int = 64
    """Layers that a ray passes straight through (alpha, masks, single-sided surfaces from behind) before it
    ends in black; only rays that meet so many take the time."""
    transmission_bounces: int = 12
    """Surfaces of glass that a ray passes, two for each solid."""
    backface_culling: bool = True
    """Draw single-sided surfaces (glTF without `doubleSided`, materials with backface culling) from their
    front alone."""
    transparent_glass: bool = True
    """Let the background show through glass; without it glass hides the background, in near black."""
    light_tree: bool = True
    skip_unlit_lights: bool = True
    """Keep triangles of unlit materials, which only the camera sees glow, from being listed as lamps. The
    image is the same; building the tree of lights again for every image took 85 % of the time of an
    unlit globe."""
    crop: bool = True
    """Trace only the box that the projected vertices lie in; the pixels are the same."""
    view_transform: str = "Standard"
    dither: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class RenderSettings:
    """Everything that decides what a dataset looks like."""

    frames: int = 24
    """Views of an orbit, and time steps of a window."""
    resolution: int = 256
    """Width and height of an image in pixels."""
    rigs: tuple[str, ...] = RIGS
    """Of `static_orbit`, `dynamic_orbit`, `front_view`, the rigs of synchronised cameras that
    `datasets.cameras.rigs` knows, and names of `own_rigs`."""
    orbits: int = 1
    """Orbits per action. Orbit 0 starts at the front, further ones at given or drawn azimuths."""
    azimuths_deg: tuple[float, ...] = ()
    """Azimuth of view 0 of orbit 0, 1, …; orbits beyond the list draw theirs (orbit 0: the front)."""
    closed: bool = False
    """Last view repeats the first, as in the published renders."""
    elevation_deg: float = 0.0
    """Elevation of every orbit, unless `elevation_range_deg` is given."""
    elevation_range_deg: tuple[int, int] | None = None
    """Both ends of the whole degrees that an asset's elevation is drawn from."""
    elevation_as_published: bool = False
    """Read the elevations as the published script does: 30 becomes atan(30/180) = 9.46 degrees."""
    radius: float = DEFAULT_RADIUS
    """Distance of the cameras from the origin, in units of the normalised scene."""
    fov_x_deg: float = DEFAULT_FOV_X_DEG
    normalise: str = "fit"
    """`fit`: every vertex at every rendered time inside every view; `union_box`: the longest edge of the
    box over the rendered times is 1; `first_frame`: that of the first rendered frame's box (published)."""
    margin: float = 0.02
    """Share of the half-frame that `fit` leaves free."""
    window: str = "moving"
    """`moving`: from the first to the last time that moves; `raw_frames`: frames 0, 1, … of the scene's own
    rate (published)."""
    window_shares: tuple[float, ...] = ()
    """Share of the window that orbit 0, 1, … plays from its start; orbits beyond the list play all of it.
    With several shares from one azimuth a first view does not tell how much moves."""
    static_raw_frame: int = 0
    """Frame that a static orbit shows under `raw_frames`. Published static orbits agree with front frame 1 to
    38–45 dB and with frame 0 to 30 dB: the script leaves Blender at its start frame."""
    merge_vertices: bool = False
    """Join glTF vertices that differ in normal or texture place alone (published)."""
    passes: tuple[str, ...] = ()
    """Of `depth` (float, normalised units along the view axis), `normal` (world), `mask` (object index),
    `geometry` (tracked surfaces, and what each pixel sees of them), `skeleton`
    (joints, weights and morph targets that move these), `albedo`, `roughness`, `metallic`,
    `emission` (one sample through each pixel's centre)."""
    lights: LightSettings = field(default_factory=LightSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    seed: int = 0
    preset: str = "default"
    draws: int = 1
    """Draws of each rig whose cameras are drawn (`sync`, `sync_moving`)."""
    metres_per_unit: float = METRES_PER_UNIT
    """Metres that a unit of the normalised scene stands for, in rigs that are given in metres."""
    own_rigs: tuple[FileRig, ...] = ()
    """Rigs of the user's own, from files."""
    cameras: CameraSettings = field(default_factory=CameraSettings)
    """What is drawn of the cameras of orbits and fronts."""

    def __post_init__(self) -> None:
        _check(self.frames >= 1, f"frames is {self.frames}; at least 1 is needed")
        _check(8 <= self.resolution <= 8192, f"resolution is {self.resolution}; choose 8 to 8192 pixels")
        _check(self.orbits >= 1, f"orbits is {self.orbits}; at least 1 is needed")
        self._check_rigs()
        for what, given, known in (
            ("pass", self.passes, PASSES),
            ("normalise", (self.normalise,), NORMALISATIONS),
            ("window", (self.window,), WINDOWS),
            ("device", (self.engine.device,), DEVICES),
            ("view transform", (self.engine.view_transform,), VIEW_TRANSFORMS),
        ):
            for name in given:
                _check(name in known, f"unknown {what} {name!r}; choose from {', '.join(known)}")
            _check(len(set(given)) == len(given), f"{what} is named twice in {', '.join(given)}")
        _check(
            "skeleton" not in self.passes or "geometry" in self.passes,
            "the pass skeleton moves the vertices of the pass geometry; name both",
        )
        _check(1.0 < self.fov_x_deg < 150.0, f"fov is {self.fov_x_deg}; choose 1 to 150 degrees")
        _check(self.radius > 0.6, f"radius is {self.radius}; nearer than 0.6 the cameras stand in the asset")
        _check(1 <= self.engine.samples <= 65536, f"samples is {self.engine.samples}; at least 1 is needed")
        _check(not (self.closed and self.frames < 2), "a closed orbit needs at least two frames")
        for option, is_on in (
            ("shadow-catcher", self.lights.shadow_catcher),
            ("environment-visible", self.lights.environment_visible),
        ):
            _check(
                not is_on or not set(self.passes) & {"depth", "normal"},
                f"--{option}: depth and normal passes tell the object by its alpha; render them without it",
            )
        for share in self.window_shares:
            _check(0.0 < share <= 1.0, f"window share is {share}; choose above 0, up to 1")
        for elevation in (self.elevation_deg, *(self.elevation_range_deg or ())):
            _check(abs(elevation) < 90.0, f"elevation is {elevation}; choose −89 to 89 degrees")

    def _check_rigs(self) -> None:
        known = ", ".join((*RIGS, *KNOWN))
        _check(bool(self.rigs), f"no rig is given; choose from {known}")
        own = {rig.column: rig for rig in self.own_rigs}
        columns = []
        for name in self.rigs:
            rig = None if name in own else parse_rig(name)
            _check(
                name in RIGS or name in own or rig is not None,
                f"unknown rig {name!r}; choose from {known}, or a transforms.json",
            )
            columns.append(rig.column if rig else name)
        for name in columns:
            _check(columns.count(name) == 1, f"rig {name} is named twice in {', '.join(self.rigs)}")
        for of_file in self.own_rigs:
            of_file.check_frames(self.frames)
        _check(1 <= self.draws <= 30, f"draws is {self.draws}; choose 1 to 30")
        _check(
            0.01 <= self.metres_per_unit <= 1000.0,
            f"metres per unit is {self.metres_per_unit:g}; choose 0.01 to 1000",
        )

    def as_config(self) -> dict[str, Any]:
        """The resolved configuration as JSON-able data, for dataset.json and for the child."""
        config = asdict(self)
        config["cameras"], config["lights"] = self.cameras.as_config(), self.lights.as_config()
        for name, plain in LATER.items():
            if config[name] == plain:
                del config[name]  # datasets rendered before there were any are resumed
        if all(share == 1.0 for share in self.window_shares):
            del config["window_shares"]  # datasets rendered before there were any are resumed
        for later in ("backface_culling", "transparent_glass"):
            if not config["engine"][later]:
                del config["engine"][later]  # as it was before there was a choice
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> RenderSettings:
        """Inverse of `as_config`, also after a trip through JSON."""
        data = {key: _tuples(value) for key, value in config.items()}
        lights = LightSettings.from_config(data.pop("lights"))
        data["cameras"] = CameraSettings.from_config(data.pop("cameras", {}))
        data["own_rigs"] = tuple(FileRig.from_config(rig) for rig in data.pop("own_rigs", ()))
        engine = {"backface_culling": False, "transparent_glass": False, **data.pop("engine")}
        return cls(lights=lights, engine=EngineSettings(**engine), **data)

    @property
    def image_passes(self) -> tuple[str, ...]:
        """Passes that are rendered with the images."""
        return tuple(name for name in self.passes if name in IMAGE_PASSES)

    def elevation_of(self, uid: str, orbit: int = 0) -> float:
        """Real elevation in degrees of an asset's orbits, or of one where each draws its own."""
        drawn = self.cameras.value("elevation", self.seed, uid, orbit)
        if drawn is not None:
            return drawn
        asked = self.elevation_deg
        if self.elevation_range_deg is not None:
            low, high = self.elevation_range_deg
            asked = float(rng(self.seed, uid, "elevation").integers(low, high + 1))
        return published_elevation_deg(asked) if self.elevation_as_published else asked

    def radius_of(self, uid: str, orbit: int) -> float:
        """Distance of the camera of an asset's orbit at its start, units."""
        drawn = self.cameras.value("radius", self.seed, uid, orbit)
        return self.radius if drawn is None else drawn

    def fov_of(self, uid: str, orbit: int) -> float:
        """Horizontal field of view of an asset's orbit, degrees."""
        drawn = self.cameras.value("fov", self.seed, uid, orbit)
        return self.fov_x_deg if drawn is None else drawn

    def azimuth0_of(self, uid: str, orbit: int) -> float:
        """Azimuth in degrees at which an asset's orbit starts; drawn ones are whole hundredths of a turn."""
        if orbit < len(self.azimuths_deg):
            return float(self.azimuths_deg[orbit])
        drawn = self.cameras.value("azimuth", self.seed, uid, orbit)
        if drawn is not None:
            return drawn
        if orbit == 0:
            return 0.0
        draws = rng(self.seed, uid, "azimuth").random(orbit)
        return float(360.0 * round(draws[-1], 2))

    def window_share_of(self, orbit: int) -> float:
        """Share of the window that an orbit plays."""
        return self.window_shares[orbit] if orbit < len(self.window_shares) else 1.0

    def sun_energies_of(self, uid: str) -> tuple[float, ...]:
        """Strength of each sun for an asset, in W/m²; the same for all its clips."""
        generator = rng(self.seed, uid, "suns")
        return tuple(float(generator.choice(sun.energies)) for sun in self.lights.suns)


#: Every preset, resolved. `diffusion4d` is the published script (VITA-Group/Diffusion4D,
#: rendering/blender.py, commit 41ce66e, Blender 3.2.2); `default` and `draft` are ours, see `make
#: bench-render` for what they cost.
PRESETS: dict[str, RenderSettings] = {
    "default": RenderSettings(engine=EngineSettings(target_psnr_db=37.0)),
    "draft": RenderSettings(engine=EngineSettings(samples=8), preset="draft"),
    "diffusion4d": RenderSettings(
        closed=True,
        elevation_as_published=True,
        normalise="first_frame",
        window="raw_frames",
        static_raw_frame=1,
        merge_vertices=True,
        lights=LightSettings(suns=PUBLISHED_SUNS),
        engine=EngineSettings(
            samples=128,
            adaptive_threshold=0.01,
            denoise=True,
            filter_width=0.01,
            transparent_bounces=3,
            transmission_bounces=3,
            backface_culling=False,
            transparent_glass=False,
            light_tree=False,
            skip_unlit_lights=False,
            crop=False,
            view_transform="Filmic",
            dither=1.0,
        ),
        preset="diffusion4d",
    ),
}


def preset(name: str, **changes: Any) -> RenderSettings:
    """A preset with some fields replaced; engine and light fields may be named directly. Naming `samples`
    fixes them for every asset.

    Raises InputError for an unknown preset, or values that make no sense.
    """
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r}; choose from {', '.join(PRESETS)}")
    settings = PRESETS[name]
    if "samples" in changes:
        changes.setdefault("target_psnr_db", None)
    engine = {
        k: changes.pop(k) for k in list(changes) if k in EngineSettings.__dataclass_fields__ and k != "seed"
    }
    lights = {k: changes.pop(k) for k in list(changes) if k in LightSettings.__dataclass_fields__}
    return replace(
        settings,
        engine=replace(settings.engine, **engine),
        lights=replace(settings.lights, **lights),
        **changes,
    )


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return value
