# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Lamps, worlds and the ground's shadow in Blender's scene."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import bpy
import numpy as np

from orbit4d.render.planning.light_settings import MEAN_LUMINANCE, LightSettings
from orbit4d.render.planning.lights import Lamp, Lighting
from orbit4d.render.protocol.wire import RefusedInput

#: Edge of the ground in units of the scene: beyond what a camera near the object sees of it.
GROUND_SIZE = 60.0
#: Radius of a point lamp, units.
POINT_RADIUS = 0.1
#: Columns of the map by which panoramas of a set are sampled.
IMPORTANCE_MAP = 512
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)


class Lights:
    """All lightings of an asset in a scene, one of them on."""

    def __init__(
        self, scene: bpy.types.Scene, settings: LightSettings, lightings: Sequence[Lighting]
    ) -> None:
        self.scene = scene
        shadows = settings.shadows or settings.shadow_catcher
        # The same lamps serve all lightings: with lamps that come and go the renderer's random numbers depend
        # on where they lie in memory.
        self.lightings = list(lightings)
        n_lamps = max(len(lighting.lamps) for lighting in lightings)
        self.lamps = [_add_lamp(scene, i, shadows) for i in range(n_lamps)]
        self.worlds: list[bpy.types.World] = []
        self.facts: list[dict[str, Any]] = []
        self.flags: list[str] = []
        """What a user should know of the panoramas."""
        images: dict[str, tuple[bpy.types.Image, float]] = {}
        for lighting in lightings:
            world, facts = self._world(settings, lighting, images)
            self.worlds.append(world)
            self.facts.append({**dict(lighting.facts), **facts} if lighting.facts else {})
        self.now = -1
        self.turn_on(0)

    def turn_on(self, number: int) -> None:
        """Light the scene by lighting `number` alone."""
        if number == self.now:
            return
        lamps = self.lightings[number].lamps
        for i, found in enumerate(self.lamps):
            if i < len(lamps):
                _set_lamp(found, lamps[i])
            else:
                found.data.energy = 0.0
        self.scene.world = self.worlds[number]
        self.now = number

    def _world(
        self, settings: LightSettings, lighting: Lighting, images: dict[str, tuple[bpy.types.Image, float]]
    ) -> tuple[bpy.types.World, dict[str, Any]]:
        """A uniform grey world, or a panorama; and what is recorded of it."""
        world = bpy.data.worlds.new("orbit4d_world")
        world.use_nodes = True
        tree = world.node_tree
        background = next(node for node in tree.nodes if node.type == "BACKGROUND")
        if lighting.environment is None:
            background.inputs["Color"].default_value = (*[settings.world_grey] * 3, 1.0)
            background.inputs["Strength"].default_value = 1.0
            return world, {}
        name = os.path.basename(lighting.environment).removeprefix("builtin:")
        if lighting.environment not in images:
            images[lighting.environment] = self._panorama(lighting, name)
        image, level = images[lighting.environment]
        texture = tree.nodes.new("ShaderNodeTexEnvironment")
        texture.image = image
        tree.links.new(texture.outputs["Color"], background.inputs["Color"])
        background.inputs["Strength"].default_value = level * lighting.strength
        if lighting.turn_deg:
            _turn(tree, texture, lighting.turn_deg)
        facts: dict[str, Any] = {"environment": name}
        if lighting.is_levelled:
            # Left to itself Cycles builds a map so fine that it takes seconds, once for each light.
            world.cycles.sampling_method, world.cycles.sample_map_resolution = "MANUAL", IMPORTANCE_MAP
            facts |= {"level": level, "clamp_indirect": self.scene.cycles.sample_clamp_indirect}
        return world, facts

    def _panorama(self, lighting: Lighting, name: str) -> tuple[bpy.types.Image, float]:
        """(image, factor that brings it to the mean luminance of its set; 1 for one that stands alone)."""
        path = _file(lighting.environment or "")
        if not os.path.isfile(path):
            raise RefusedInput("environment", f"no environment file at {path} on this worker")
        try:
            image = bpy.data.images.load(path)
        except RuntimeError:
            raise RefusedInput("environment", f"{path}: Blender cannot read it as an image") from None
        # Blender shows what it cannot read in magenta; asking for the size makes it look.
        width, height = image.size
        if min(width, height) < 1:
            raise RefusedInput("environment", f"{path}: Blender cannot read it as an image")
        if abs(width - 2 * height) > 2:
            self.flags.append(f"environment_not_2_to_1:{name}")
        if not lighting.is_levelled:
            return image, 1.0
        mean = mean_luminance(image)
        if not math.isfinite(mean) or mean <= 0.0:
            what = "is black throughout" if mean == 0.0 else "holds values that are not finite"
            raise RefusedInput("environment", f"{path}: {what}, so it lights nothing; leave it out")
        return image, MEAN_LUMINANCE / mean


def mean_luminance(image: bpy.types.Image) -> float:
    """Mean luminance of a panorama over the sphere."""
    width, height = image.size
    pixels = np.empty(width * height * image.channels, np.float32)
    image.pixels.foreach_get(pixels)
    rgb = pixels.reshape(height, width, image.channels)[..., :3]
    if rgb.shape[-1] < 3:
        rgb = np.repeat(rgb[..., :1], 3, axis=-1)
    rows = (rgb @ _LUMINANCE).mean(axis=1, dtype=np.float64)
    weights = np.sin(np.pi * (np.arange(height) + 0.5) / height)
    return float((rows * weights).sum() / weights.sum())


def place_ground(scene: bpy.types.Scene, ground: bpy.types.Object | None, height: float) -> bpy.types.Object:
    """A plane at `height` that shows nothing but the shadows on it; `ground` is that of an earlier action."""
    if ground is None:
        ground = _add_ground(scene)
    ground.location = (0.0, 0.0, height)
    return ground


def _add_ground(scene: bpy.types.Scene) -> bpy.types.Object:
    half = GROUND_SIZE / 2
    mesh = bpy.data.meshes.new("orbit4d_ground")
    corners = ((-half, -half), (half, -half), (half, half), (-half, half))
    mesh.from_pydata([(x, y, 0.0) for x, y in corners], [], [(0, 1, 2, 3)])
    ground = bpy.data.objects.new("orbit4d_ground", mesh)
    ground.is_shadow_catcher = True
    scene.collection.objects.link(ground)
    return ground


def _file(name: str) -> str:
    """Path of a panorama; `builtin:` names one that Blender brings."""
    if not name.startswith("builtin:"):
        return name
    folder = bpy.utils.system_resource("DATAFILES", path="studiolights/world")
    return os.path.join(folder, name.removeprefix("builtin:"))


def _turn(tree: bpy.types.NodeTree, texture: bpy.types.Node, turn_deg: float) -> None:
    """Look the panorama up in directions that are turned back, so that it appears turned."""
    place, mapping = tree.nodes.new("ShaderNodeTexCoord"), tree.nodes.new("ShaderNodeMapping")
    mapping.vector_type = "POINT"
    mapping.inputs["Rotation"].default_value = (0.0, 0.0, -math.radians(turn_deg))
    tree.links.new(place.outputs["Generated"], mapping.inputs["Vector"])
    tree.links.new(mapping.outputs["Vector"], texture.inputs["Vector"])


def _add_lamp(scene: bpy.types.Scene, number: int, shadows: bool) -> bpy.types.Object:
    data = bpy.data.lights.new(f"orbit4d_sun{number}", "SUN")
    data.use_shadow = shadows
    found = bpy.data.objects.new(data.name, data)
    scene.collection.objects.link(found)
    return found


def _set_lamp(found: bpy.types.Object, lamp: Lamp) -> None:
    kind = "SUN" if lamp.place is None else "POINT"
    if found.data.type != kind:
        found.data.type = kind
    data = found.data
    data.energy, data.color = lamp.energy, lamp.colour
    if lamp.place is not None:
        data.shadow_soft_size = POINT_RADIUS
    found.location = lamp.place or (0.0, 0.0, 0.0)
    found.rotation_euler = np.radians(lamp.rotation_deg or (0.0, 0.0, 0.0)).tolist()
