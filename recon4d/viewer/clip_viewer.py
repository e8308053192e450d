"""The views of a dataset in the browser through viser: every camera of a clip, its image and its time."""

from __future__ import annotations

import contextlib
import os
import threading
import time as clock
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.core import paths
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.geometry.layers import makers
from orbit4d.datasets.geometry.reader import read_geometry
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.index.reader import read_clip
from orbit4d.datasets.index.reference import split_reference
from orbit4d.datasets.store.clip import Clip
from orbit4d.recon4d.filming import on_colour
from orbit4d.recon4d.viewer.scene_viewer import add_frustum, face_front, set_value

_WHITE = (1.0, 1.0, 1.0)
#: The layer of the clip's own images.
IMAGE = "image"
#: A picker with more entries than this is of no use: name the asset as DATASET:uid.
MAX_CLIPS = 400


def is_dataset(source: str) -> bool:
    """Whether `source` names a dataset (folder, URI or DATASET:uid) and not the folder of a scene."""
    if os.path.isdir(source):
        return paths.is_dataset(source)
    return split_reference(source)[1] is not None or ("://" in source and paths.is_dataset(source))


class ClipViewer:
    """A running page: a picker of clips, a slider of frames, a frustum with its image per camera."""

    def __init__(self, source: str, host: str = "127.0.0.1", port: int = 8080) -> None:
        import viser

        dataset, uid, action = split_reference(source)
        self._index = Index(dataset)
        self.left_out = 0
        """Clips beyond the first MAX_CLIPS, which the picker does not list."""
        self._clips = self._find(uid or "", action)
        self._lock = threading.RLock()
        self._frusta: list[Any] = []
        first = self._read(next(iter(self._clips)))
        self.server = viser.ViserServer(host=host, port=port, label="orbit4d", verbose=False)
        self.port = self.server.get_port()
        self.server.scene.set_up_direction("+z")
        gui = self.server.gui
        self.picker = gui.add_dropdown("clip", list(self._clips))
        self.layer = gui.add_dropdown("show", [IMAGE])
        self.slider = gui.add_slider("frame", 0, 1, 1, 0)
        self.playing = gui.add_checkbox("play", False)
        self.fps = gui.add_slider("frames per second", 1, 30, 1, 8)
        self.picture = gui.add_image(on_colour(first.pixels()[0] / 255.0, _WHITE))
        self._open(first)
        self.picker.on_update(lambda _: self._open(self._read(self.picker.value)))
        self.slider.on_update(lambda _: self.show(int(self.slider.value)))
        self.layer.on_update(lambda _: self._show_layer())
        self.server.on_client_connect(lambda client: face_front(client, 4.0))

    def _find(self, uid: str, action: str) -> dict[str, tuple[str, int, str, int, int]]:
        """Name -> (uid, action index, rig, orbit, light) of the clips asked for."""
        columns = ["uid", "action", "action_index", "rig", "orbit", "light"]
        found: dict[str, tuple[str, int, str, int, int]] = {}
        tables = [self._index.rows_of(uid, columns)] if uid else (
            table.to_pylist() for _, table in self._index.read(columns)
        )  # fmt: skip
        for row in (row for table in tables for row in table):
            if action and row["action"] != action:
                continue
            if len(found) == MAX_CLIPS:
                self.left_out += 1
                continue
            view = f"{row['rig']} {row['orbit']}" + (f" light {row['light']}" if row["light"] else "")
            name = f"{row['uid']} {row['action']} {view}"
            if name in found:  # two actions of one name
                name = f"{row['uid']} {row['action']} #{row['action_index']} {view}"
            found[name] = (row["uid"], row["action_index"], row["rig"], row["orbit"], row["light"])
        if not found:
            asked = f"no clip of {uid}{':' * bool(action)}{action}" if uid else "no clip in it"
            raise InputError(f"{self._index.store.uri}: {asked}; `orbit4d list` names what is there")
        return found

    def _read(self, name: str) -> Clip:
        return read_clip(self._index, *self._clips[name])

    def _open(self, clip: Clip) -> None:
        """Put the cameras of a clip on the page, each with its image, and show its first frame."""
        with self._lock:
            for frustum in self._frusta:
                frustum.remove()
            self._images = [on_colour(image / 255.0, _WHITE) for image in clip.pixels()]
            self._layers = self._layers_of(clip)
            self.layer.options = list(self._layers)
            set_value(self.layer, IMAGE)
            self._frusta = [
                add_frustum(self.server, f"/cameras/{i:03d}", camera, scale=0.25, image=image)
                for i, (camera, image) in enumerate(zip(clip.cameras, self._images))
            ]
            self.slider.max = max(len(self._images) - 1, 1)
            set_value(self.slider, 0)
            self.show(0)

    def _layers_of(self, clip: Clip) -> dict[str, Callable[[], npt.NDArray[np.uint8]]]:
        """What the clip can be shown as: its images, and what the geometry beside it gives."""
        images = np.stack(self._images)
        found: dict[str, Callable[[], npt.NDArray[np.uint8]]] = {IMAGE: lambda: images}
        skeleton = None
        try:
            geometry = read_geometry(self._index, clip.uid, clip.action_index)
            surfaces = geometry.clip(clip.rig, clip.orbit)
        except InputError:
            return found
        with contextlib.suppress(InputError):
            skeleton = geometry.skeleton
        return {**found, **makers(surfaces, images, skeleton)}

    def _show_layer(self) -> None:
        """Put the layer that was picked on the page, in the image and in the cameras."""
        with self._lock:
            make = self._layers.get(self.layer.value, self._layers[IMAGE])
            self._images = list(make())
            for frustum, image in zip(self._frusta, self._images):
                frustum.image = image
            self.show(self.shown)

    def show(self, frame: int) -> None:
        """Show one frame; its camera is drawn in red."""
        with self._lock:
            frame = min(max(frame, 0), len(self._images) - 1)
            self.shown = frame
            self.picture.image = self._images[frame]
            for i, frustum in enumerate(self._frusta):
                frustum.color = (200, 30, 30) if i == frame else (90, 90, 90)

    def serve(self) -> None:
        """Play when asked to, until interrupted."""
        try:
            while True:
                clock.sleep(1 / max(int(self.fps.value), 1))
                if self.playing.value:
                    set_value(self.slider, (int(self.slider.value) + 1) % len(self._images))
        finally:
            self.stop()

    def stop(self) -> None:
        """Close the page."""
        self.server.stop()
