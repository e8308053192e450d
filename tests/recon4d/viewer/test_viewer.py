"""The page: splats that change with the slider, play and pause, training cameras; in a real browser."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from orbit4d.datasets import read_clip
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.geometry.action import Material, stored_mesh
from orbit4d.datasets.geometry.clip import clip_geometry
from orbit4d.datasets.geometry.layers import layers
from orbit4d.datasets.store.clip import Clip
from orbit4d.recon4d.filming import on_colour
from orbit4d.recon4d.scene import load_scene
from orbit4d.recon4d.viewer import clip_viewer
from orbit4d.recon4d.viewer.clip_viewer import ClipViewer, is_dataset
from orbit4d.recon4d.viewer.scene_viewer import Viewer, covariances

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def viewer(tiny_scene: Path) -> Iterator[Viewer]:
    page = Viewer(load_scene(tiny_scene), port=0, frames=4)
    yield page
    page.stop()


def test_covariances_are_those_of_the_gaussians(tiny_scene: Path) -> None:
    g = load_scene(tiny_scene).at(0.4)
    found = covariances(g)
    np.testing.assert_allclose(found, found.transpose(0, 2, 1), atol=1e-7)
    values = np.linalg.eigvalsh(found.astype(np.float64))
    wanted = np.sort(g.scales.double().square().numpy(), axis=1)
    np.testing.assert_allclose(values, wanted, rtol=1e-2, atol=1e-8)
    assert torch.isfinite(torch.from_numpy(found)).all()


def test_one_moment_is_shown_at_a_time(viewer: Viewer) -> None:
    for moment in (2, 0, 3, 3, 99, -5):
        viewer.show(moment)
        shown = [i for i, splats in enumerate(viewer._splats) if splats.visible]
        assert shown == [min(max(moment, 0), 3)]


def test_the_views_of_a_dataset_hang_in_their_cameras(tiny_dataset: Path) -> None:
    assert is_dataset(str(tiny_dataset)) and is_dataset(f"{tiny_dataset}:asset-000")
    page = ClipViewer(f"{tiny_dataset}:asset-000:Run", port=0)
    try:
        rigs = [name.split()[-2:] for name in page._clips]
        assert ["front_view", "0"] in rigs and ["dynamic_orbit", "1"] in rigs
        clip = read_clip(tiny_dataset, "asset-000", "Run", *_rig(page.picker.value))
        assert len(page._frusta) == len(clip.cameras) == page.slider.max + 1
        for frustum, camera in zip(page._frusta, clip.cameras):
            np.testing.assert_allclose(frustum.position, camera.position, atol=1e-6)
        page.slider.value = 5
        assert page.shown == 5
        np.testing.assert_array_equal(
            page.picture.image, on_colour(clip.pixels()[5] / 255.0, (1.0, 1.0, 1.0))
        )
        page.picker.value = next(name for name in page._clips if "front_view" in name)
        assert page.shown == 0 and np.allclose(page._frusta[0].position, page._frusta[-1].position)
    finally:
        page.stop()


def _rig(name: str) -> tuple[str, int]:
    rig, orbit = name.split()[-2:]
    return rig, int(orbit)


def test_what_is_neither_scene_nor_dataset_is_refused(tiny_dataset: Path, tmp_path: Path) -> None:
    assert not is_dataset(str(tmp_path))
    for asked in (f"{tiny_dataset}:nobody", f"{tiny_dataset}:asset-000:Fly"):
        with pytest.raises(InputError, match="no clip of"):
            ClipViewer(asked, port=0)


def test_the_page_in_a_browser(viewer: Viewer) -> None:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    viewer.show(0)
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--use-gl=swiftshader", "--enable-unsafe-swiftshader"],
        )
        page = browser.new_page(viewport={"width": 900, "height": 600})
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"http://127.0.0.1:{viewer.port}")
        for label in ("time", "play", "training cameras"):
            page.get_by_text(label, exact=True).first.wait_for(timeout=60_000)
        page.wait_for_selector("canvas", timeout=60_000)
        pictures = set()
        deadline = time.monotonic() + 60
        while len(pictures) < 2 and time.monotonic() < deadline:
            viewer.show(1 if len(pictures) == 0 else 3)
            time.sleep(1)
            pictures.add(page.locator("canvas").first.screenshot())
        browser.close()
    assert len(pictures) >= 2, "another moment is another picture"
    assert not problems


def _triangle_beside(clip: Clip) -> SimpleNamespace:
    """What `read_geometry` gives: one triangle that stands still, seen by the clip's cameras."""
    seconds = sorted(set(clip.seconds))
    mesh = stored_mesh(
        np.tile([(-0.4, 0.0, -0.4), (0.4, 0.0, -0.4), (0.0, 0.1, 0.4)], (len(seconds), 1, 1)), clip.cameras,
        seconds=np.array(seconds), faces=np.array([(0, 1, 2)], np.int32), material=np.zeros(1, np.uint16),
        object=np.zeros(1, np.uint16), materials=(Material("m"),), objects=("o",),
        shown=np.ones((len(seconds), 1), bool),
    )  # fmt: skip
    return SimpleNamespace(clip=lambda rig, orbit: clip_geometry(mesh, clip.cameras, clip.seconds))


def test_layers_of_the_geometry_are_offered_where_there_is_any(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = read_clip(tiny_dataset, "asset-000", "Run")
    beside = _triangle_beside(clip)

    class Beside(SimpleNamespace):
        @property
        def skeleton(self) -> None:
            raise InputError("no skeleton")

    page = ClipViewer(f"{tiny_dataset}:asset-000:Run", port=0)
    try:
        assert list(page.layer.options) == ["image"]
        name = next(n for n in page._clips if "dynamic_orbit 0" in n)
        monkeypatch.setattr(clip_viewer, "read_geometry", lambda *_: Beside(clip=beside.clip))
        page._open(page._read(name))
        assert list(page.layer.options) == ["image", "depth", "flow", "tracks"]
        page.slider.value = 3
        for layer in ("depth", "flow", "tracks", "image"):
            page.layer.value = layer
            assert page.shown == 3
            wanted = layers(
                beside.clip("", 0), np.stack([on_colour(i / 255.0, (1, 1, 1)) for i in clip.pixels()])
            )
            own = on_colour(clip.pixels()[3] / 255.0, (1.0, 1.0, 1.0))
            np.testing.assert_array_equal(page.picture.image, wanted[layer][3] if layer in wanted else own)
    finally:
        page.stop()
