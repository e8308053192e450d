"""Fixtures that several rooms share."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import random
import socket
import subprocess
import sys
import urllib.request
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import numpy as np
import pytest

from orbit4d.datasets import Camera, Clip, DatasetWriter, encode_webp, orbit

ROOT = Path(__file__).resolve().parent.parent


def _beside(name: str) -> ModuleType:
    """A module of this folder, which is on no path."""
    spec = importlib.util.spec_from_file_location(f"orbit4d_tests_{name}", ROOT / "tests" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


markers, devices, tiny_models = _beside("markers"), _beside("devices"), _beside("tiny_models")

# Chance in tests ------------------------------------------------------------------------------------------

#: `make test` draws the same every time, so that it is red only for what changed. `make test-random` sets a
#: fresh seed for the tests that draw, and says which; SEED=N draws the same again.
SEED = int(os.environ.get("ORBIT4D_TEST_SEED") or 0)
hypothesis.settings.register_profile("fixed", derandomize=True, database=None)
hypothesis.settings.register_profile("fresh", derandomize=False, database=None, print_blob=True)
hypothesis.settings.load_profile("fresh" if SEED else "fixed")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(markers.Watch())
    config.pluginmanager.register(devices.Hidden())
    _seed_all(SEED)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        drawn = hypothesis.is_hypothesis_test(getattr(item, "obj", None))
        if drawn or "seed" in getattr(item, "fixturenames", ()):
            item.add_marker("random")
    markers.mark(items)
    # Whole chains first, so that of two processes none waits long for the other at the end.
    items.sort(key=lambda item: item.path.parent != ROOT / "tests")


def _seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % (1 << 32))
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest) -> None:
    """What a test draws from the global generators does not depend on the tests before it."""
    _seed_all(SEED + zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A seed of the test's own: the same in every `make test`, another one in `make test-random`."""
    return SEED + zlib.crc32(request.node.nodeid.encode())


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real assets and reference tensors that lie beside a development checkout; never part of the project."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the folder ../shared with real assets and reference tensors is not beside this checkout")
    return folder


# A small 4D scene drawn without Blender ------------------------------------------------------------------

# Lights as (direction towards the light, strength); the ambient part keeps every surface visible.
_LIGHTS = ((np.array([0.5, -0.7, 0.5]), 0.55), (np.array([-0.6, 0.4, 0.3]), 0.3))


def draw_scene(uid: str, action_index: int, cameras: Sequence[Camera], times: Sequence[float]) -> Any:
    """Straight RGBA uint8 [N, H, W, 4] of a striped ellipsoid with a ball running around it, seen by true
    cameras.

    Shape, colours and motion follow from (uid, action_index); both bodies move with time in [0, 1].
    Everything lies within 0.6 of the origin. Four rays a pixel give soft alpha at the silhouette.
    """
    rng = np.random.default_rng(list(f"{uid}/{action_index}".encode()))
    radii, colours = rng.uniform(0.18, 0.34, 3), rng.uniform(0.25, 1.0, (3, 3))
    bob, turn, phase = rng.uniform(0.05, 0.15), rng.uniform(0.3, 1.5), rng.uniform(0, 2 * np.pi)
    out = []
    for camera, t in zip(cameras, times):
        column, row = np.meshgrid(np.arange(2 * camera.w) / 2 + 0.25, np.arange(2 * camera.h) / 2 + 0.25)
        local = np.stack(
            [(column - camera.cx) / camera.fl_x, -(row - camera.cy) / camera.fl_y, -np.ones_like(row)], -1
        )
        rays = local @ camera.c2w[:3, :3].T
        angle = turn * t + phase
        bodies = (
            (np.array([0.0, 0.0, bob * np.sin(2 * np.pi * t)]), radii, angle, colours[0], colours[1]),
            (
                0.42 * np.array([np.cos(angle), np.sin(angle), 0.2]),
                np.full(3, 0.13),
                0.0,
                colours[2],
                colours[2],
            ),
        )
        depth, colour = np.full(row.shape, np.inf), np.zeros((*row.shape, 3))
        for centre, size, spin, odd, even in bodies:
            c, s = np.cos(spin), np.sin(spin)
            to_body = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) / size[:, None]
            origin, way = to_body @ (camera.position - centre), rays @ to_body.T
            a, b, k = (way**2).sum(-1), way @ origin, origin @ origin - 1.0
            root = b**2 - a * k
            hit = root > 0
            distance = np.where(hit, (-b - np.sqrt(np.where(hit, root, 0.0))) / a, np.inf)
            nearer = distance < depth
            point = origin + np.where(nearer, distance, 0.0)[..., None] * way
            normal = point @ to_body
            normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
            light = 0.25 + sum(w * np.clip(normal @ (d / np.linalg.norm(d)), 0, 1) for d, w in _LIGHTS)
            waves = np.sin(8 * point[..., 2]) * np.sin(3 * np.arctan2(point[..., 1], point[..., 0]))
            paint = np.where(waves[..., None] > 0, odd, even) * light[..., None]
            depth = np.where(nearer, distance, depth)
            colour = np.where(nearer[..., None], paint, colour)
        seen = np.isfinite(depth).astype(float).reshape(camera.h, 2, camera.w, 2)
        alpha = seen.mean((1, 3))
        total = np.clip(colour, 0, 1).reshape(camera.h, 2, camera.w, 2, 3).sum((1, 3))
        rgb = total / np.maximum(seen.sum((1, 3)), 1)[..., None]
        out.append((np.concatenate([rgb, alpha[..., None]], -1) * 255).round().astype(np.uint8))
    return np.stack(out)


def _on_white(rgba: Any) -> Any:
    alpha = rgba[..., 3:] / 255.0
    return rgba[..., :3] / 255.0 * alpha + 1.0 - alpha


def scene_clips(
    uid: str,
    actions: Sequence[str] = ("Run",),
    n_frames: int = 8,
    size: int = 32,
    rigs: Sequence[str] = ("static_orbit", "dynamic_orbit", "front_view"),
    orbits: int = 1,
    caption: str = "",
    license: str = "CC0-1.0",
) -> list[Clip]:
    """Clips of one drawn asset; orbit k starts at azimuth 90 k."""
    clips = []
    times = tuple(np.linspace(0.0, 1.0, n_frames).tolist())
    still = (0.0,) * n_frames
    for action_index, action in enumerate(actions):
        for k in range(orbits):
            turning = orbit(n_frames, azimuth0_deg=90.0 * k, size=(size, size))
            fixed = [turning[0]] * n_frames
            plans = {
                "static_orbit": (turning, still),
                "dynamic_orbit": (turning, times),
                "front_view": (fixed, times),
            }
            images = {rig: draw_scene(uid, action_index, *plan) for rig, plan in plans.items()}
            moving, still_ones = (_on_white(images[rig]) for rig in ("dynamic_orbit", "static_orbit"))
            motion = float(((moving - still_ones) ** 2).mean())
            for rig in rigs:
                cameras, time = plans[rig]
                clips.append(
                    Clip(
                        uid=uid,
                        action=action,
                        action_index=action_index,
                        rig=rig,
                        orbit=k,
                        frames=tuple(encode_webp(image) for image in images[rig]),
                        cameras=tuple(cameras),
                        time=time,
                        seconds=tuple(2.0 * t for t in time),
                        window=(0.0, 2.0),
                        scale=1.0,
                        centre=(0.0, 0.0, 0.0),
                        azimuth0_deg=90.0 * k,
                        elevation_deg=0.0,
                        radius=2.0,
                        measures={
                            "motion_magnitude": motion,
                            "coverage": float(images[rig][..., 3].mean() / 255),
                        },
                        license=license,
                        author="",
                        caption=caption,
                        asset_sha256=hashlib.sha256(uid.encode()).hexdigest(),
                        renderer={"engine": "numpy", "samples": 4},
                    )
                )
    return clips


@pytest.fixture(scope="session")
def draw_views() -> Callable[..., Any]:
    """`draw_views(uid, action_index, cameras, times)`: see draw_scene."""
    return draw_scene


@pytest.fixture(scope="session")
def make_clips() -> Callable[..., list[Clip]]:
    """`make_clips(uid, actions=("Run",), n_frames=8, size=32, rigs=..., orbits=1, caption="")`, see
    scene_clips.
    """
    return scene_clips


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., Path]:
    """`make_dataset(out, assets=6, n_frames=8, size=32, rigs=..., orbits=1, shard_bytes=...)`: a committed
    dataset.

    Assets are asset-000, asset-001, ...; every third has two actions (Run, Jump), the others Run alone. Odd
    ones are CC-BY-4.0, even ones CC0-1.0. Returns `out`, which may also be a URI.
    """

    def make(
        out: Any,
        assets: int = 6,
        actions: Sequence[str] | None = None,
        shard_bytes: int = 256 << 20,
        **how: Any,
    ) -> Any:
        writer = DatasetWriter(out, {"frames": how.get("n_frames", 8)}, shard_bytes=shard_bytes)
        for i in range(assets):
            uid = f"asset-{i:03d}"
            names = actions or (("Run", "Jump") if i % 3 == 2 else ("Run",))
            license = "CC-BY-4.0" if i % 2 else "CC0-1.0"
            caption = f"a striped ball number {i}"
            writer.stage(uid, scene_clips(uid, names, caption=caption, license=license, **how))
        writer.roll(final=True)
        return out

    return make


@pytest.fixture(scope="session")
def synthetic_dataset(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Path]) -> Path:
    """A dataset of 6 drawn assets, 8 frames of 32x32, three rigs.

    Shared by all tests, so do not write to it.
    """
    return make_dataset(tmp_path_factory.mktemp("synthetic") / "dataset")


@pytest.fixture(scope="session")
def tiny_svd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of Stable Video Diffusion's classes with tiny random weights: 4 frames, 64 px."""
    return tiny_models.svd_folder(tmp_path_factory.mktemp("svd") / "svd")


@pytest.fixture(scope="session")
def tiny_wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of Wan 2.1's classes with tiny random weights."""
    return tiny_models.wan_folder(tmp_path_factory.mktemp("wan") / "wan")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """An S3 server in this process: `s3://orbit/...`; worker processes reach it too."""
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        patch.setenv(name, value)
    patch.delenv("AWS_PROFILE", raising=False)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    # Servers of one process share what they hold: that of an earlier module is forgotten first.
    reset = urllib.request.Request(f"http://127.0.0.1:{port}/moto-api/reset", method="POST")
    with urllib.request.urlopen(reset, timeout=30):
        pass
    s3fs.S3FileSystem().mkdir("orbit")
    yield "s3://orbit"
    s3fs.S3FileSystem.clear_instance_cache()
    patch.undo()
    server.stop()


# One Ray for all tests whose subject is not its start, its end or its environment ---------------------------

_HEAD = """
import sys
import ray
ray.init(
    address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
    object_store_memory=100 << 20,
)
print("address", ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()  # until the tests end, however they do
"""


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """Address of a Ray of 2 cores in a process of its own: tests that fork are not disturbed by its threads.

    Its workers have the environment of the first test that asks for it, and not of each.
    """
    pytest.importorskip("ray")
    from ray._raylet import Config

    # As `ray.init(address="local")` sets it for the rest of a process: the user's own token is asked for.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    Config.initialize("")
    with subprocess.Popen(
        [sys.executable, "-P", "-c", _HEAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as head:
        assert head.stdin is not None and head.stdout is not None
        words = head.stdout.readline().split()
        assert words[:1] == ["address"], "Ray did not start"
        yield words[1]
        head.stdin.close()
        head.wait(timeout=60)


@pytest.fixture(scope="module")
def shared_ray(ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The tests' own Ray, connected: what starts a fleet in this process uses it. Yields `ray`."""
    import ray

    # Without a working_dir the root of the checkout would be on the workers' path.
    empty = {"working_dir": str(tmp_path_factory.mktemp("ray"))}
    name = f"orbit4d-tests-{uuid.uuid4().hex[:12]}"
    ray.init(ray_address, namespace=name, log_to_driver=False, logging_level="ERROR", runtime_env=empty)
    yield ray
    ray.shutdown()
