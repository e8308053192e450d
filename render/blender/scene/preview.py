# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""A few tiny images of an action from the front, and what they say about how much is seen to move."""

from __future__ import annotations

import base64
import io
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt
from mathutils import Matrix

from orbit4d.datasets.cameras.camera import DEFAULT_RADIUS, Camera, orbit, orbit_c2w
from orbit4d.datasets.images import measures as image_measures
from orbit4d.render.blender.geometry.surfaces import points_now
from orbit4d.render.blender.importers.load import Loaded
from orbit4d.render.blender.materials.see_through import clear_glass, cull_backfaces, scene_refracts
from orbit4d.render.blender.scene.studio import projected_box
from orbit4d.render.blender.scene.views import hides_geometry
from orbit4d.render.planning import vertex_measures as geometry

#: Frames of the published preview rule: 0, T/4 and T/2 of T = 24 raw scene frames.
RAW_FRAMES = (0, 6, 12)
#: Sides that are inspected where the front shows no difference at all; the front is the first.
N_SIDES = 4
#: Two images of one time may differ by this many levels of 255: the tree of triangles rounds in its way.
SAME_LEVELS = 1
#: Pixels around the object within which the SSIM of the object is taken.
OBJECT_MARGIN = 4

Images = npt.NDArray[np.uint8]


class PreviewStudio:
    """Cycles on the CPU, two shadowless suns, no bounces, one seed: what little noise is left is the same in
    all images of an action. The suns leave a white surface grey, so that it shows on the white background
    that SSIM is taken on. The first time's box is scaled to 1, seen from the front at distance 2.
    """

    def __init__(self, loaded: Loaded, size: int, samples: int) -> None:
        self.loaded = loaded
        scene = bpy.context.scene
        render = scene.render
        render.engine = "CYCLES"
        render.resolution_x = render.resolution_y = size
        render.resolution_percentage = 100
        render.film_transparent = True
        render.image_settings.file_format = "PNG"
        render.image_settings.color_mode = "RGBA"
        render.image_settings.compression = 0
        render.use_compositing = render.use_sequencer = False
        render.threads_mode = "FIXED"
        render.threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
        scene.view_settings.view_transform = "Standard"
        cycles = scene.cycles
        cycles.device = "CPU"
        cycles.samples, cycles.seed = samples, 0
        cycles.use_adaptive_sampling = cycles.use_denoising = False
        cycles.max_bounces = cycles.diffuse_bounces = cycles.glossy_bounces = 0
        cycles.transparent_max_bounces = 64
        render.use_persistent_data = True
        for material in bpy.data.materials:
            # Without bounces the two suns are the only light. Listing every glowing triangle as a lamp took
            # four fifths of the time of an unlit globe, for the same pixels.
            material.cycles.emission_sampling = "NONE"
        clear_glass(scene)
        if scene_refracts():
            cycles.max_bounces = cycles.transmission_bounces = 12
        cull_backfaces()
        self.sides = orbit(N_SIDES, radius=DEFAULT_RADIUS, size=(size, size))
        camera = bpy.data.objects.new("orbit4d_preview", bpy.data.cameras.new("orbit4d_preview"))
        camera.data.lens, camera.data.sensor_width = 50.0, 36.0
        camera.data.clip_start, camera.data.clip_end = 0.01, 100.0
        self.camera = camera
        scene.collection.objects.link(camera)
        scene.camera = camera
        for name, energy, azimuth, elevation in (("key", 2.2, -40.0, 35.0), ("fill", 0.7, 50.0, 10.0)):
            sun = bpy.data.objects.new(f"orbit4d_{name}", bpy.data.lights.new(f"orbit4d_{name}", "SUN"))
            sun.data.energy, sun.data.use_shadow = energy, False
            sun.matrix_world = orbit_c2w(azimuth, elevation, 10.0).T.tolist()
            scene.collection.objects.link(sun)
        self.can_crop = not hides_geometry(loaded)

    def preview(self, row: dict[str, Any], which: str) -> dict[str, Any]:
        """Image measures of the active action, measured in `row`; `which` is window, raw or both."""
        scale, centre, start, end, peak = row["_scale"]
        found: dict[str, Any] = {}
        if which in ("window", "both"):
            times = [start + part * (end - start) for part in (0.0, 0.25, 0.5)]
            nearest = min(times[1:], key=lambda t: abs(t - peak))
            # An image that is there already shows a peak less than a frame away.
            shown = nearest if abs(nearest - peak) * self.loaded.fps < 1.0 else peak
            images = self._render_at([*times, shown], scale, centre)
            found |= _measures(images, "")
            if int(np.abs(images.astype(np.int16) - images[0]).max()) <= SAME_LEVELS:
                found["ssim_object_peak"] = self._from_other_sides(start, shown, scale, centre)
            found["preview"] = _strip(images[:3])
        if which in ("raw", "both"):
            raw = [self.loaded.raw_frame_seconds(frame) for frame in RAW_FRAMES]
            self.loaded.set_seconds(raw[0])
            every = points_now(self.loaded)
            every = every if len(every) else np.zeros((1, 3), np.float32)
            raw_scale, raw_centre = geometry.first_frame_scale(geometry.boxes(every[None]))
            found |= _measures(self._render_at(raw, raw_scale, raw_centre.tolist()), "_raw")
        self.loaded.normalise(1.0, (0.0, 0.0, 0.0))
        return found

    def _from_other_sides(self, start: float, peak: float, scale: float, centre: Sequence[float]) -> float:
        """The least SSIM of the object between two times over the sides that the front does not show."""
        found = []
        for side in self.sides[1:]:
            images = self._render_at((start, peak), scale, centre, side)
            found.append(image_measures.ssim_on_white(images, margin=OBJECT_MARGIN)[1][0])
        return float(min(found))

    def _render_at(
        self, seconds: Sequence[float], scale: float, centre: Sequence[float], view: Camera | None = None
    ) -> Images:
        """[n, H, W, 4]: the scene at each of `seconds` from `view` (None: the front); equal times are
        rendered once.
        """
        self.view = self.sides[0] if view is None else view
        self.camera.matrix_world = Matrix(self.view.c2w.tolist())
        self.loaded.normalise(scale, centre)
        rendered: dict[float, Images] = {}
        with tempfile.TemporaryDirectory(prefix="orbit4d-preview-") as folder:
            for t in seconds:
                if t not in rendered:
                    self.loaded.set_seconds(t)
                    rendered[t] = self._render(os.path.join(folder, "image.png"))
        return np.stack([rendered[t] for t in seconds])

    def _render(self, path: str) -> Images:
        """The scene as straight RGBA, uint8 [H, W, 4]."""
        from PIL import Image

        render = bpy.context.scene.render
        box = None
        if self.can_crop:
            # Only what the vertices project to is traced; the pixels are those of the whole frame.
            points = points_now(self.loaded)
            box = projected_box(self.view, points) if len(points) else (0, 0, 0, 0)
        render.use_border = box is not None
        render.use_crop_to_border = False
        if box is not None:
            size = self.view.w
            left, top, right, bottom = box
            if left >= right or top >= bottom:
                return np.zeros((size, size, 4), np.uint8)
            # The border counts from the bottom; a quarter of a pixel guards its rounding.
            render.border_min_x, render.border_max_x = (left + 0.25) / size, (right + 0.25) / size
            render.border_min_y, render.border_max_y = (
                (size - bottom + 0.25) / size,
                (size - top + 0.25) / size,
            )
        render.filepath = path
        bpy.ops.render.render(write_still=True)
        with Image.open(path) as image:
            return np.asarray(image.convert("RGBA"))


def _measures(images: Images, suffix: str) -> dict[str, Any]:
    """Measures of images [n, H, W, 4] at the start, a quarter, half, and (window alone) the peak."""
    alpha = images[..., 3]
    whole, within = image_measures.ssim_on_white(images, margin=OBJECT_MARGIN)
    found: dict[str, Any] = {
        f"ssim_quarter{suffix}": whole[0],
        f"ssim_half{suffix}": whole[1],
        f"ssim_object_quarter{suffix}": within[0],
        f"ssim_object_half{suffix}": within[1],
        f"alpha_coverage{suffix}": float(image_measures.coverage(alpha[:3]).max()),
        f"alpha_touch{suffix}": float(image_measures.boundary_touch(alpha[:3]).max()),
        f"flat{suffix}": image_measures.is_flat(images[:3]),
    }
    if len(images) > 3:
        found["ssim_object_peak"] = within[2]
    return found


def _strip(images: Images) -> str:
    """Images [n, H, W, 4] side by side as one small WebP, base64."""
    from PIL import Image

    memory = io.BytesIO()
    Image.fromarray(np.concatenate(list(images), axis=1)).save(memory, "WEBP", quality=80, method=2)
    return base64.b64encode(memory.getvalue()).decode("ascii")
