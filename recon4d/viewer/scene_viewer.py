"""A scene in the browser through viser: time slider, play and pause, free camera, training cameras.

viser draws Gaussian splats itself (WebGL); each step of the slider is one set of splats, sent once and
shown or hidden, so that playing costs the network nothing.
"""

from __future__ import annotations

import errno
import socket
import threading
import time as clock
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from orbit4d.datasets.cameras.camera import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d import rotations
from orbit4d.recon4d.gaussians import Gaussians
from orbit4d.recon4d.scene import Scene

if TYPE_CHECKING:
    from viser import GuiInputHandle

T = TypeVar("T")


def covariances(gaussians: Gaussians) -> np.ndarray:
    """[N, 3, 3] covariance matrices R S² Rᵀ."""
    turned = rotations.to_matrix(torch.nn.functional.normalize(gaussians.quats, dim=-1))
    axes = turned * gaussians.scales.unsqueeze(1)
    return (axes @ axes.transpose(1, 2)).detach().numpy()


def set_value(handle: GuiInputHandle[T], value: T) -> None:
    """Set a slider or a picker of a page, as its reader would."""
    # viser defines the setter apart from its getter, which mypy overlooks.
    handle.value = value  # type: ignore[misc]


def add_frustum(
    server: Any, name: str, camera: Camera, scale: float = 0.08, image: npt.NDArray[np.uint8] | None = None
) -> Any:
    """Put a camera on a viser page; its handle. `image` [H, W, 3] hangs in the frustum."""
    from scipy.spatial.transform import Rotation

    # viser's frusta look along +Z with Y down, as OpenCV has it.
    turned = camera.c2w[:3, :3] @ np.diag([1.0, -1.0, -1.0])
    x, y, z, w = Rotation.from_matrix(turned).as_quat()
    return server.scene.add_camera_frustum(
        name,
        fov=float(2 * np.arctan(camera.h / (2 * camera.fl_y))),
        aspect=camera.w / camera.h,
        scale=scale,
        thickness=0.03 * scale,
        wxyz=(w, x, y, z),
        position=camera.position,
        image=image,
    )


def face_front(client: Any, distance: float = 1.8, centre: tuple[float, float, float] = (0, 0, 0)) -> None:
    """Put a visitor's camera before the object, a little above the horizon; nearer than most orbits are."""
    x, y, z = centre
    client.camera.position = (x, y - distance, z + 0.3 * distance)
    client.camera.look_at = centre
    client.camera.up_direction = (0.0, 0.0, 1.0)


def check_address(host: str, port: int) -> None:
    """Raise InputError for an address that this machine cannot serve, on which viser would wait for ever.

    A port in use is none: viser takes the next free one.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise InputError(f"--host {host}: no such host; give 127.0.0.1, or 0.0.0.0 for all") from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except PermissionError:
            raise InputError(f"--port {port}: needs more rights; give one above 1023") from None
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise InputError(
                    f"--host {host}: is no address of this machine; give 127.0.0.1, or 0.0.0.0 for all"
                ) from None


class Viewer:
    """A running page. `show(i)` picks a step of the slider; `serve()` blocks until interrupted."""

    def __init__(self, scene: Scene, host: str = "127.0.0.1", port: int = 8080, frames: int = 24) -> None:
        import viser

        scene.check()
        self.frames = max(frames, 1)
        self.server = viser.ViserServer(host=host, port=port, label="orbit4d", verbose=False)
        self.port = self.server.get_port()
        self.server.scene.set_up_direction("+z")
        self._lock = threading.Lock()
        self._shown = 0
        self._splats = []
        for i in range(self.frames):
            g = scene.at(i / max(self.frames - 1, 1))
            self._splats.append(
                self.server.scene.add_gaussian_splats(
                    f"/moments/{i:03d}",
                    centers=g.means.numpy(),
                    covariances=covariances(g),
                    rgbs=g.colors.clamp(0, 1).numpy(),
                    opacities=g.opacities.numpy()[:, None],
                    visible=i == 0,
                )
            )
        self._add_cameras(scene)
        gui = self.server.gui
        self.slider = gui.add_slider("time", 0, max(self.frames - 1, 1), 1, 0)
        self.playing = gui.add_checkbox("play", False)
        self.fps = gui.add_slider("frames per second", 1, 30, 1, 8)
        cameras = gui.add_checkbox("training cameras", True)
        self.slider.on_update(lambda _: self.show(int(self.slider.value)))
        cameras.on_update(lambda _: self._show_cameras(cameras.value))
        world = scene.world
        self.server.on_client_connect(lambda visitor: face_front(visitor, 1.8 * world.scale, world.centre))

    def _add_cameras(self, scene: Scene) -> None:
        self._cameras = [
            add_frustum(self.server, f"/cameras/{i:03d}", camera, 0.08 * scene.world.scale)
            for i, camera in enumerate(scene.cameras)
        ]

    def _show_cameras(self, visible: bool) -> None:
        for frustum in self._cameras:
            frustum.visible = visible

    def show(self, moment: int) -> None:
        """Show one step, 0 .. frames - 1."""
        moment = min(max(moment, 0), self.frames - 1)
        with self._lock:
            if moment != self._shown:
                self._splats[moment].visible = True
                self._splats[self._shown].visible = False
                self._shown = moment

    def serve(self) -> None:
        """Play when asked to, until interrupted."""
        try:
            while True:
                clock.sleep(1 / max(int(self.fps.value), 1))
                if self.playing.value:
                    set_value(self.slider, (int(self.slider.value) + 1) % self.frames)
        finally:
            self.stop()

    def stop(self) -> None:
        """Close the page."""
        self.server.stop()
