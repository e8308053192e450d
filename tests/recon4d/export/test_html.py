"""The page that plays a scene draws what the CPU rasteriser draws, from disk and served, in a small file."""

from __future__ import annotations

import functools
import http.server
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from splat_kit import some

from orbit4d.datasets import Camera, orbit
from orbit4d.recon4d import Scene, load_scene
from orbit4d.recon4d.deformation.field import HexPlaneField
from orbit4d.recon4d.deformation.rigs.rig import Channel, Motion, Rig, composed
from orbit4d.recon4d.deformation.rigs.rigged import RigField
from orbit4d.recon4d.export.formats import export_scene
from orbit4d.recon4d.export.html.motion import NEAR, motion_of, node_maps, skinned
from orbit4d.recon4d.export.html.pages import page
from orbit4d.recon4d.export.readers import still_scene
from orbit4d.recon4d.scene import draw

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_WEBGL = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]


@pytest.fixture(scope="module")
def scene(tiny_scene: Path) -> Scene:
    return load_scene(tiny_scene)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as play:
        running = play.chromium.launch(executable_path=CHROMIUM, args=_WEBGL)
        yield running
        running.close()


def opened(browser: Any, address: str | Path, size: tuple[int, int] = (480, 360)) -> Any:
    """A page whose player has loaded and stands still."""
    shown = browser.new_page(viewport={"width": size[0], "height": size[1]})
    problems: list[str] = []
    shown.on("pageerror", lambda error: problems.append(str(error)))
    shown.problems = problems
    shown.goto(address if isinstance(address, str) else address.as_uri())
    shown.evaluate("orbit4dPlayer.ready")
    shown.evaluate("orbit4dPlayer.pause()")
    return shown


def captured(shown: Any, scene: Scene, camera: Camera, time: float) -> np.ndarray:
    """Premultiplied RGBA [H, W, 4] of the player."""
    c = scene.world.camera(camera)
    told = {
        "view": np.asarray(c.w2c_opencv).T.reshape(-1).tolist(), "fx": c.fl_x, "fy": c.fl_y, "cx": c.cx,
        "cy": c.cy, "width": c.w, "height": c.h, "eye": [float(v) for v in c.position],
    }  # fmt: skip
    script = "([c, t]) => Array.from(orbit4dPlayer.capture({ ...c, view: new Float32Array(c.view) }, t))"
    return np.array(shown.evaluate(script, [told, time])).reshape(c.h, c.w, 4)


def psnr(shown: Any, scene: Scene, camera: Camera, time: float) -> float:
    """Of the player's frame against the CPU rasteriser's, both on white."""
    got = captured(shown, scene, camera, time)
    with torch.no_grad():
        color, alpha = draw(scene._fitted(time), scene.world.camera(camera), eps2d=scene.eps2d)[:2]
    white = color.numpy().clip(0, 1) + 1 - alpha.numpy()
    assert np.ptp(white) > 0.3, "something is to be seen"
    return float(-10 * np.log10(np.square(got[..., :3].clip(0, 1) + 1 - got[..., 3:] - white).mean()))


def test_unquantised_frames_are_those_of_the_rasteriser(scene: Scene, browser: Any, tmp_path: Path) -> None:
    """50 dB: a low-pass left out, or half a pixel of shift, gives less (formats.md 4.15)."""
    (tmp_path / "a.html").write_text(page(scene, "a", times=12, quantised=False))
    shown = opened(browser, tmp_path / "a.html")
    assert shown.evaluate("orbit4dPlayer.info()") == {
        "count": len(scene.gaussians), "kind": "nodes", "times": 12, "worker": True,
    }  # fmt: skip
    camera = scene.cameras[3].resized(96, 96)
    assert min(psnr(shown, scene, c, t) for c in (scene.cameras[0], camera) for t in (0.0, 4 / 11, 1.0)) > 50
    shifted = replace(camera, cx=camera.cx + 0.5)
    got, right = captured(shown, scene, shifted, 0.0), captured(shown, scene, camera, 0.0)
    assert -10 * np.log10(np.square(got - right).mean()) < 50, "the measure tells half a pixel"
    assert not shown.problems
    shown.close()


def test_the_page_is_small_and_plays_from_disk(scene: Scene, browser: Any, tmp_path: Path) -> None:
    (out,) = export_scene(scene, tmp_path / "a.html", "html")
    assert out.stat().st_size < 1_000_000 and "://" not in out.read_text().split("<script id=")[0].lower()
    shown, motion = opened(browser, out), motion_of(scene)
    last = motion.times - 1
    assert min(psnr(shown, scene, scene.cameras[k], k / last) for k in (0, 5)) > 45
    assert min(psnr(shown, scene, scene.cameras[k], (k + 0.5) / last) for k in (1, 4)) > 35
    views = set()
    for time in (0.0, 0.5, 1.0):
        shown.evaluate(f"orbit4dPlayer.seek({time})")
        shown.wait_for_timeout(300)
        views.add(shown.screenshot())
    assert len(views) == 3, "it moves"
    shown.keyboard.press("Tab")
    shown.locator("canvas").focus()
    before = shown.evaluate("orbit4dPlayer.orbit.state.azimuth")
    shown.keyboard.press("ArrowLeft")
    shown.mouse.move(200, 100)
    shown.mouse.wheel(0, 300)
    shown.mouse.down()
    shown.mouse.move(260, 120)
    shown.mouse.up()
    assert shown.evaluate("orbit4dPlayer.orbit.state.azimuth") != before
    shown.keyboard.press(" ")
    assert shown.evaluate("orbit4dPlayer.playing")
    start = shown.evaluate("orbit4dPlayer.time")
    shown.wait_for_function(f"orbit4dPlayer.time !== {start} && orbit4dPlayer.frames > 3", timeout=20_000)
    shown.locator("input[type=color]").evaluate(
        "e => { e.value = '#102030'; e.dispatchEvent(new Event('input')); }"
    )
    assert not shown.problems
    shown.close()


def test_other_fields_and_still_sets_play_too(scene: Scene, browser: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    field = HexPlaneField()
    for parameter in field.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    moving = Scene(scene.gaussians, field.eval().requires_grad_(False), scene.cameras, scene.time)
    assert motion_of(moving, 3).kind == "each"
    (tmp_path / "a.html").write_text(page(moving, "a", times=3))
    shown = opened(browser, tmp_path / "a.html")
    assert psnr(shown, moving, scene.cameras[2], 0.5) > 45
    shown.close()
    still = still_scene(some(3, 300))
    (tmp_path / "b.html").write_text(page(still, "b"))
    shown = opened(browser, tmp_path / "b.html")
    assert psnr(shown, still, still.cameras[0].resized(96, 96), 0.3) > 45
    assert shown.locator("input[type=range]").is_hidden()
    shown.close()


def test_a_skeleton_moves_the_page_as_it_moves_the_scene(browser: Any, tmp_path: Path) -> None:
    """Joints bend and stretch whole covariances, and colours turn with them; fitted while half bent."""
    scene = of_joints(degree=2)
    motion = motion_of(scene)
    assert motion.kind == "bones" and motion.error <= 2 * NEAR and motion.gaussians is not None
    means = skinned(
        motion.gaussians.means.numpy(), motion.gaussians.quats.numpy(), motion.values[-1], motion.index,
        motion.weights,
    )[0]  # fmt: skip
    np.testing.assert_allclose(means, scene._fitted(1.0).means.numpy(), atol=1e-5)
    (out,) = export_scene(scene, tmp_path / "a.html", "html")
    shown, last = opened(browser, out, (120, 90)), motion.times - 1
    assert shown.evaluate("orbit4dPlayer.info().kind") == "bones"
    assert min(psnr(shown, scene, scene.cameras[0], k / last) for k in (0, last)) > 45
    assert psnr(shown, scene, scene.cameras[1], (last // 2 + 0.5) / last) > 35
    assert not shown.problems
    shown.close()


def of_joints(degree: int) -> Scene:
    """A bar along x whose outer half bends by 90 degrees and grows by a half; fitted in the middle of it."""
    trs = np.tile([0, 0, 0, 0, 0, 0, 1.0, 1, 1, 1], (2, 1)).astype(float)
    trs[1, 0] = 0.1
    half, ends = np.sqrt(0.5), np.array([0.0, 1.0])
    keys = (
        Channel(1, "rotation", ends, np.array([[0, 0, 0, 1.0], [0, 0, half, half]])),
        Channel(1, "scale", ends, np.array([[1.0, 1, 1], [1.5, 1, 1]])),
    )
    bind = np.tile(np.eye(4), (2, 1, 1))
    bind[1, 0, 3] = -0.1
    rig = Rig(
        ("root", "elbow"), np.array([-1, 0]), composed(trs), trs, np.array([0, 1]), bind,
        (Motion("Bend", 0.0, 1.0, keys),),
    )  # fmt: skip
    g = some(degree, 160)
    g.means = g.means * torch.tensor([1.0, 0.4, 0.4])
    far = ((g.means[:, :1] + 0.1) / 0.4).clamp(0, 1).double().numpy()
    index, weights = np.tile([0, 1], (len(g), 1)), np.concatenate([1 - far, far], 1)
    field = RigField("Bend", (0.0, 1.0), ("Bend", 0.4)).attach(rig, index, weights)
    cameras = tuple(c.resized(48, 48) for c in orbit(2, elevation_deg=30.0))
    return Scene(g, field, cameras, (0.0, 1.0))


def test_the_embeddable_pair_is_served_and_says_why_it_is_not(
    scene: Scene, browser: Any, tmp_path: Path
) -> None:
    written = export_scene(scene, tmp_path / "viewer", "viewer")
    assert [p.name for p in written] == ["index.html", "scene.bin", "viewer.js"]
    shown = browser.new_page()
    shown.goto((tmp_path / "viewer" / "index.html").as_uri())
    shown.get_by_text("pages opened from disk may not fetch").wait_for(timeout=20_000)
    shown.close()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "viewer"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        shown = opened(browser, f"http://127.0.0.1:{server.server_address[1]}/index.html")
        assert shown.evaluate("orbit4dPlayer.info().count") == len(scene.gaussians)
        shown.close()
        server.shutdown()


def test_without_webgl_the_page_says_so(scene: Scene, browser: Any, tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(page(scene, "a", times=2))
    shown = browser.new_page()
    shown.add_init_script("HTMLCanvasElement.prototype.getContext = () => null;")
    shown.goto((tmp_path / "a.html").as_uri())
    shown.get_by_text("this browser shows no WebGL2").wait_for(timeout=20_000)
    shown.close()


def test_stored_nodes_move_gaussians_as_the_field_does(scene: Scene) -> None:
    motion, g = motion_of(scene), scene.gaussians
    assert motion.error <= NEAR
    for time in (0.0, 0.37):
        maps = node_maps(scene.field, time)
        means, quats = skinned(g.means.numpy(), g.quats.numpy(), maps, motion.index, motion.weights)
        moved = scene._fitted(time)
        np.testing.assert_allclose(means, moved.means.numpy(), atol=1e-5)
        np.testing.assert_allclose(quats, moved.quats.numpy(), atol=1e-5)
