# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""Turn a scene description into Blender's scene: engine, lights, world, camera; and take single images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt
from mathutils import Matrix

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.store.clip import Pixels
from orbit4d.render.blender.materials.repair import is_unlit
from orbit4d.render.blender.materials.see_through import clear_glass, cull_backfaces
from orbit4d.render.blender.scene.lights import Lights
from orbit4d.render.blender.scene.passes import PassReader, take_exr
from orbit4d.render.planning.lights import lightings_of
from orbit4d.render.planning.orbit_cameras import Optics, focus_distance, largest_blur, opening
from orbit4d.render.planning.settings import EngineSettings, RenderSettings
from orbit4d.render.protocol.wire import RefusedInput

SENSOR_MM = 36.0
#: Pixels added around the projected vertices before tracing only that box: the pixel filter's reach and
#: rounding.
CROP_MARGIN = 3


class Studio:
    """A camera, lights and an engine in Blender's current scene, around whatever asset is loaded there."""

    def __init__(self, settings: RenderSettings, uid: str, threads: int, scratch: str) -> None:
        self.settings = settings
        self.scene = bpy.context.scene
        self.image_path = Path(scratch) / "image.png"
        set_engine(self.scene, settings.engine, settings.resolution, threads)
        self.lights = Lights(self.scene, settings.lights, lightings_of(settings, uid))
        self.scene.render.film_transparent = not settings.lights.environment_visible
        if settings.engine.skip_unlit_lights:
            for material in bpy.data.materials:
                if is_unlit(material):
                    material.cycles.emission_sampling = "NONE"
        if settings.engine.transparent_glass:
            clear_glass(self.scene)
        if settings.engine.backface_culling:
            cull_backfaces()
        self.passes = (
            PassReader(self.scene, settings.image_passes, scratch) if settings.image_passes else None
        )
        data = bpy.data.cameras.new("orbit4d_camera")
        data.sensor_fit = "HORIZONTAL"
        data.sensor_width = SENSOR_MM
        # Far plane as in Blender's start-up file; near plane well before the frame-filling object.
        data.clip_start, data.clip_end = 0.01, 100.0
        self.camera = bpy.data.objects.new("orbit4d_camera", data)
        self.scene.collection.objects.link(self.camera)
        self.scene.camera = self.camera
        self.scene.render.filepath = str(self.image_path)
        self._traced = False

    def set_samples(self, samples: int) -> None:
        """Samples per pixel of the images to come."""
        self.scene.cycles.samples = samples

    @property
    def shows_more(self) -> bool:
        """Whether an image shows more than the object: its surroundings, or its shadow."""
        return self.settings.lights.environment_visible or self.settings.lights.shadow_catcher

    def look_through(self, camera: Camera) -> None:
        """Stand Blender's camera where `camera` is, with its focal lengths, principal point and size."""
        data, render, aspect = self.camera.data, self.scene.render, camera.fl_x / camera.fl_y
        data.lens = SENSOR_MM * camera.fl_x / camera.w
        # Shifts are given in widths, of the plane and not of the image.
        data.shift_x = (camera.w / 2 - camera.cx) / camera.w
        data.shift_y = (camera.cy - camera.h / 2) * aspect / camera.w
        render.pixel_aspect_x, render.pixel_aspect_y = max(1.0, 1.0 / aspect), max(1.0, aspect)
        render.resolution_x, render.resolution_y = camera.w, camera.h
        self.camera.matrix_world = Matrix(camera.c2w.tolist())

    def focus(self, camera: Camera, optics: Optics | None) -> None:
        """Open the lens, focused on the centre of the scene; None makes everything sharp."""
        dof = self.camera.data.dof
        dof.use_dof = optics is not None
        if optics is not None:
            # Blender's opening is its own focal length in thousandths of a unit over the f-number.
            dof.aperture_fstop = self.camera.data.lens / 1000.0 / opening(camera, optics)
            dof.focus_distance = focus_distance(camera)

    def render(
        self,
        camera: Camera,
        vertices: npt.NDArray[np.floating] | None = None,
        seed: int | None = None,
        optics: Optics | None = None,
    ) -> Pixels:
        """Straight RGBA, uint8 [H, W, 4], RGB 0 where alpha is 0; its extra passes then stand in
        `last_passes`.

        With `vertices` [V, 3] (normalised scene, every one that may be seen), only the box that they
        project to is traced; the pixels are those of the whole frame.
        """
        from PIL import Image

        blur = 0.0 if optics is None or vertices is None else largest_blur(camera, optics, vertices)
        box = None if vertices is None else projected_box(camera, vertices, blur)
        self.last_passes: dict[str, npt.NDArray[Any]] = {}
        self._traced = False
        if box is not None and box[0] >= box[2]:
            if self.passes is not None:
                self.last_passes = self.passes.empty(camera.w, camera.h)
            return np.zeros((camera.h, camera.w, 4), np.uint8)
        self.scene.cycles.seed = self.settings.engine.seed if seed is None else seed
        self.look_through(camera)
        self.focus(camera, optics)
        _set_border(self.scene.render, box, camera.w, camera.h)
        bpy.ops.render.render(write_still=True)
        self._traced = True
        with Image.open(self.image_path) as image:
            pixels = np.array(image.convert("RGBA"))
        os.unlink(self.image_path)
        if self.passes is not None:
            self.last_passes = self.passes.read(pixels[..., 3] > 0)
        pixels[pixels[..., 3] == 0] = 0
        return pixels

    def is_finite(self) -> bool:
        """Whether every number that Cycles left of the last image is finite, before rounding to bytes."""
        return not self._traced or bool(np.isfinite(self.float_buffer()).all())

    def float_buffer(self) -> npt.NDArray[np.float32]:
        """The last traced image as Cycles left it: linear premultiplied RGBA [H, W, 4]."""
        path = self.image_path.with_suffix(".exr")
        _set_file(self.scene.render, "OPEN_EXR", "32")
        bpy.data.images["Render Result"].save_render(str(path), scene=self.scene)
        _set_file(self.scene.render, "PNG", "8")
        return take_exr(path)


def projected_box(
    camera: Camera, vertices: npt.NDArray[np.floating], blur: float = 0.0
) -> tuple[int, int, int, int] | None:
    """(left, top, right, bottom) in pixels, right and bottom exclusive, of everything `vertices` [V, 3]
    can cover, blurred by up to `blur` pixels.

    None when a vertex is beside or behind the camera and the whole frame must be traced. Empty (left ≥
    right) when nothing is in view.
    """
    if len(vertices) == 0:
        return None
    pixels, depth = camera.project(vertices)
    if depth.min() <= 1e-3:
        return None
    if blur > max(camera.w, camera.h):
        return None
    low = np.floor(pixels.min(axis=0) - blur).astype(int) - CROP_MARGIN
    high = np.ceil(pixels.max(axis=0) + blur).astype(int) + CROP_MARGIN
    left, top = max(0, int(low[0])), max(0, int(low[1]))
    right, bottom = min(camera.w, int(high[0])), min(camera.h, int(high[1]))
    if left >= right or top >= bottom:
        return 0, 0, 0, 0
    return left, top, right, bottom


def _set_border(
    render: bpy.types.RenderSettings, box: tuple[int, int, int, int] | None, w: int, h: int
) -> None:
    render.use_border = box is not None
    render.use_crop_to_border = False
    if box is not None:
        left, top, right, bottom = box
        # Blender's border counts from the bottom, as a fraction, and is rounded to pixels: a quarter of a
        # pixel keeps a fraction that falls just short of its pixel from losing it.
        render.border_min_x, render.border_max_x = (left + 0.25) / w, (right + 0.25) / w
        render.border_min_y, render.border_max_y = (h - bottom + 0.25) / h, (h - top + 0.25) / h


def set_engine(scene: bpy.types.Scene, engine: EngineSettings, resolution: int, threads: int) -> None:
    """Cycles as described, to RGBA PNG files without compression."""
    scene.render.engine = "CYCLES"
    cycles = scene.cycles
    _choose_device(scene, engine.device)
    cycles.samples = engine.samples
    cycles.use_adaptive_sampling = engine.adaptive_threshold is not None
    cycles.adaptive_threshold = engine.adaptive_threshold or 0.01
    cycles.use_denoising = engine.denoise
    if engine.denoise:
        cycles.denoiser = "OPENIMAGEDENOISE"
        cycles.denoising_input_passes = "RGB_ALBEDO_NORMAL"
        cycles.denoising_prefilter = "ACCURATE"
    cycles.pixel_filter_type = "BLACKMAN_HARRIS"
    cycles.filter_width = engine.filter_width
    cycles.diffuse_bounces = engine.diffuse_bounces
    cycles.glossy_bounces = engine.glossy_bounces
    cycles.transparent_max_bounces = engine.transparent_bounces
    cycles.transmission_bounces = engine.transmission_bounces
    cycles.use_light_tree = engine.light_tree
    cycles.seed = engine.seed
    cycles.use_animated_seed = False
    render = scene.render
    render.film_transparent = True
    render.resolution_x = render.resolution_y = resolution
    render.resolution_percentage = 100
    render.pixel_aspect_x = render.pixel_aspect_y = 1.0
    render.dither_intensity = engine.dither
    render.threads_mode, render.threads = "FIXED", threads
    render.use_persistent_data = True
    render.use_compositing = render.use_sequencer = False
    render.use_motion_blur = False
    render.use_file_extension = render.use_overwrite = True
    _set_file(render, "PNG", "8")
    scene.display_settings.display_device = "sRGB"
    scene.view_settings.view_transform = engine.view_transform
    scene.view_settings.look = "None"
    scene.view_settings.exposure, scene.view_settings.gamma = 0.0, 1.0


def _set_file(render: bpy.types.RenderSettings, kind: str, depth: str) -> None:
    """RGBA files of `kind`, packed as little as it allows: they are read again at once."""
    settings = render.image_settings
    settings.file_format = kind
    settings.color_mode, settings.color_depth = "RGBA", depth
    if kind == "PNG":
        settings.compression = 0
    else:
        settings.exr_codec = "NONE"


def _choose_device(scene: bpy.types.Scene, device: str) -> None:
    if device == "cpu":
        scene.cycles.device = "CPU"
        return
    preferences = bpy.context.preferences.addons["cycles"].preferences
    try:
        preferences.compute_device_type = device.upper()
    except TypeError as error:
        raise RefusedInput("device", f"this Blender cannot render on {device}: {error}") from None
    preferences.refresh_devices()
    found = False
    for entry in preferences.devices:
        entry.use = entry.type == device.upper()
        found |= entry.use
    if not found:
        raise RefusedInput("device", f"no {device} device on {os.uname().nodename}; use --device cpu")
    scene.cycles.device = "GPU"
