"""`orbit4d recon4d DATASET:uid --rig ASSET`: a static orbit fitted, moved by the asset's own skeleton."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orbit4d.compose.characters.gltf_rig import read_gltf
from orbit4d.compose.characters.reading import read_character
from orbit4d.datasets import Clip, DatasetWriter, InputError, encode_webp, orbit
from orbit4d.datasets.commands.command import run
from orbit4d.datasets.index.reader import read_clip
from orbit4d.recon4d import load_scene
from orbit4d.recon4d.cli import recon4d
from orbit4d.recon4d.composition import placed
from orbit4d.recon4d.deformation.building import StillField
from orbit4d.recon4d.fitting.rigging import slot
from orbit4d.recon4d.fitting.rigging.fit import reconstruct_rigged
from orbit4d.recon4d.fitting.rigging.moment import fitted_clip
from orbit4d.recon4d.fitting.settings import ReconstructionSettings
from orbit4d.recon4d.scene import Scene
from tests.compose.toy_assets import ACTIONS, fitted, walker

N, SIZE = 8, 48
#: How the Idle of the dataset is shown.
SCALE, CENTRE = 0.7, (0.1, -0.05, 0.1)
Floats = Any


@pytest.fixture(autouse=True)
def _reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slot, "_readers", [read_character])


@pytest.fixture(scope="module")
def asset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("asset") / "walker.glb"
    path.write_bytes(walker(0.8))
    return path


@pytest.fixture(scope="module")
def dataset(asset: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its Gallop as a dataset: a static orbit and a front view, drawn from Gaussians on its surface; and a
    static orbit of its Idle, which is shown in another scale."""
    folder = tmp_path_factory.mktemp("dataset")
    key = fitted(asset, "walker", folder / "truth", n=3000)
    truth = load_scene(folder / "truth" / key)
    truth.field = truth.field.with_action("Gallop")  # type: ignore[attr-defined]
    turning = orbit(N, 2.0, 0.0, size=(SIZE, SIZE))
    times = tuple(np.linspace(0, 1, N).tolist())
    clips = []
    idle = truth.with_action("Idle").at(0.0)
    small = Scene(placed(idle, SCALE, np.eye(3), -SCALE * np.array(CENTRE)), StillField())
    for scene, action, rig, cameras, clock in (
        (truth, 2, "static_orbit", turning, (0.0,) * N), (truth, 2, "front_view", [turning[0]] * N, times),
        (small, 0, "static_orbit", turning, (0.0,) * N),
    ):  # fmt: skip
        images = [
            np.rint(255 * scene.render(c, t)).astype(np.uint8) for c, t in zip(cameras, clock, strict=True)
        ]
        clips.append(
            Clip(
                uid="walker", action=ACTIONS[action], action_index=action, rig=rig, orbit=0,
                frames=tuple(encode_webp(image) for image in images), cameras=tuple(cameras), time=clock,
                seconds=clock, window=(0.0, 1.0), scale=SCALE if action == 0 else 1.0,
                centre=CENTRE if action == 0 else (0.0, 0.0, 0.0), azimuth0_deg=0.0,
                elevation_deg=0.0, radius=2.0, measures={"motion_magnitude": 0.1, "coverage": 0.2},
                license="CC0-1.0", author="", caption="a walker",
                asset_sha256=hashlib.sha256(asset.read_bytes()).hexdigest(),
                renderer={"engine": "numpy", "samples": 4},
            )
        )  # fmt: skip
    out = folder / "dataset"
    writer = DatasetWriter(out, {"frames": N})
    writer.stage("walker", clips)
    writer.roll(final=True)
    return f"{out}:walker:Gallop"


def test_frames_never_seen_are_those_that_the_skeleton_moves(
    asset: Path, dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ReconstructionSettings(n_gaussians=1000, coarse_steps=90, resolution=SIZE)
    scene: Any = reconstruct_rigged(dataset, asset, tmp_path / "scene", settings, device="cpu")
    driven = scene.metrics["heldout"]["front"]["psnr"]
    loaded: Any = load_scene(tmp_path / "scene")
    assert {"rig.npz", "rig.json", "canonical.ply"} <= {path.name for path in (tmp_path / "scene").iterdir()}
    camera = loaded.cameras[0]
    # Colours pass through the harmonics of a PLY in float32.
    assert np.abs(loaded.render(camera, 0.4) - scene.render(camera, 0.4)).max() <= 1e-3
    assert list(loaded.actions()) == ["Idle", "Walk", "Gallop"]
    # Held still it misses what moves: legs that swing by 0.8 radians.
    idle = loaded.with_action("Idle")
    apart = np.abs(loaded.render(camera, 0.5) - idle.render(camera, 0.5)).mean()
    assert driven > 20 and apart > 0.003
    reconstruct_rigged(dataset, asset, tmp_path / "scene", settings, device="cpu")
    assert "already finished" in capsys.readouterr().out


def test_another_action_s_orbit_is_fitted_and_brought_into_its_world(
    asset: Path, dataset: str, tmp_path: Path
) -> None:
    settings = ReconstructionSettings(n_gaussians=1000, coarse_steps=90, resolution=SIZE)
    scene: Any = reconstruct_rigged(dataset, asset, tmp_path / "scene", settings, device="cpu", moment="Idle")
    assert scene.field.config["moment"] == ["Idle", 0.0] and scene.field.action == "Gallop"
    # Frames that are none of its own: all of them, the first too. Legs swing by 0.8 radians from where they
    # hung in the orbit that was fitted, which is 0.7 as large.
    assert scene.metrics["heldout"]["front"]["psnr"] > 20 and scene.metrics["psnr_train"] > 20
    idle = scene.with_action("Idle").at(0.0).means.numpy()
    wide = np.percentile(idle, 98, axis=0) - np.percentile(idle, 2, axis=0)
    assert np.allclose(wide, [0.32, 0.8, 0.7], atol=0.12)


def test_which_orbit_is_fitted(asset: Path, dataset: str) -> None:
    where, read = dataset.rpartition(":walker")[0], read_character(str(asset))
    own = read_clip(where, "walker", "Gallop", "static_orbit")
    assert fitted_clip(where, own, "first", read) is own
    assert fitted_clip(where, own, "Idle", read).action == "Idle"
    # No limb of the toy touches another one, whatever it does.
    assert fitted_clip(where, own, "auto", read) is own
    with pytest.raises(InputError, match=r"no static orbit of such an action; .*Gallop") as refused:
        fitted_clip(where, own, "Galop", read)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("rig", "more", "says"),
    [
        ("none.glb", [], "no such file"),
        ("other.glb", [], "give that file, or --force"),
        ("still.glb", ["--force"], "no skeleton and no animated nodes (a still mesh)"),
        ("fewer.glb", ["--force"], "it has 1 actions, none of index 2"),
        ("walker.glb", ["--static", "x.mp4"], "--static has no use beside --rig"),
        ("walker.glb", ["--rig-moment", "Walk"], "no static orbit of such an action"),
    ],
)
def test_bad_rigs_are_refused_in_one_line(
    asset: Path, dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], rig: str, more: list[str],
    says: str,
) -> None:  # fmt: skip
    (tmp_path / "walker.glb").write_bytes(asset.read_bytes())
    (tmp_path / "other.glb").write_bytes(walker(0.5))
    (tmp_path / "still.glb").write_bytes(walker(0.5, lambda d, _: d.update(animations=[])))
    (tmp_path / "fewer.glb").write_bytes(walker(0.5, lambda d, _: d.update(animations=d["animations"][:1])))
    (tmp_path / "x.mp4").write_bytes(b"x")
    more = [str(tmp_path / word) if word == "x.mp4" else word for word in more]
    words = [dataset, "--rig", str(tmp_path / rig), "--out", str(tmp_path / "scene"), *more]
    assert run(recon4d, words) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1 and len(err) <= 310 and "Traceback" not in err
    assert not (tmp_path / "scene").exists()
    if rig == "other.glb":
        shas = [
            hashlib.sha256((tmp_path / n).read_bytes()).hexdigest()[:8] for n in ("other.glb", "walker.glb")
        ]
        assert all(sha in err for sha in shas)


def nan_in_a_key(document: dict[str, Any], arrays: list[Floats]) -> None:
    arrays[3][4, 0] = np.nan


def nan_in_a_bind(document: dict[str, Any], arrays: list[Floats]) -> None:
    skinned(document, arrays, np.full(16, np.nan))


def skinned(document: dict[str, Any], arrays: list[Floats], bind: Floats) -> None:
    """The body on a skin of one joint, the left leg's node."""
    n = len(arrays[0])
    arrays += [np.zeros((n, 4)), np.tile([1.0, 0, 0, 0], (n, 1)), bind.reshape(1, 16)]
    document["meshes"][0]["primitives"][0]["attributes"] |= {
        "JOINTS_0": len(arrays) - 3, "WEIGHTS_0": len(arrays) - 2,
    }  # fmt: skip
    document["skins"] = [{"joints": [2], "inverseBindMatrices": len(arrays) - 1}]
    document["nodes"][1]["skin"] = 0


def cycle(document: dict[str, Any], arrays: list[Floats]) -> None:
    document["nodes"][3]["children"] = [0]


def no_meshes(document: dict[str, Any], arrays: list[Floats]) -> None:
    document["meshes"] = []
    for node in document["nodes"]:
        node.pop("mesh", None)


def joint_out_of_range(document: dict[str, Any], arrays: list[Floats]) -> None:
    document["animations"][0]["channels"][0]["target"]["node"] = 9


CASES: list[tuple[Callable[[dict[str, Any], list[Floats]], None], str]] = [
    (nan_in_a_key, "non_finite (animation 0 sampler 0 key values)"),
    (nan_in_a_bind, "non_finite (skin 0 inverseBindMatrices)"),
    (cycle, "cycle"),
    (no_meshes, "no triangles that a skeleton could move"),
    (joint_out_of_range, "animation 0 points at nodes[9] of 4"),
]


@pytest.mark.parametrize(("change", "says"), CASES)
def test_damaged_rigs_name_what_is_wrong(
    tmp_path: Path, change: Callable[[dict[str, Any], list[Floats]], None], says: str
) -> None:
    path = tmp_path / "bad.glb"
    path.write_bytes(walker(0.5, change))
    with pytest.raises(InputError) as refused:
        read_gltf(str(path))
    line = str(refused.value)
    assert says in line and len(line) <= 300 and "\n" not in line


def test_a_joint_scaled_to_nothing_is_named(tmp_path: Path) -> None:
    def flat(document: dict[str, Any], arrays: list[Floats]) -> None:
        document["nodes"][2]["scale"] = [0, 0, 0]

    path = tmp_path / "flat.glb"
    path.write_bytes(walker(0.5, flat))
    key = fitted(path, "flat", tmp_path / "cache")
    scene: Any = load_scene(tmp_path / "cache" / key)
    leg = list(scene.field.rig.names).index("leg.L")
    joint = list(scene.field.rig.joints).index(leg)
    scene.field.attach(scene.field.rig, np.full_like(scene.field.index, joint), scene.field.weights)
    with pytest.raises(InputError, match=r"joint 'leg\.L' is scaled to nothing"):
        scene.at(0.3)


def test_an_unknown_action_names_the_asset_s_own(asset: Path) -> None:
    with pytest.raises(InputError, match=r"unknown; .*Gallop"):
        read_gltf(str(asset)).rig.motion("Galop")


def test_the_toy_is_read_as_it_was_written(asset: Path) -> None:
    """The toy is a glTF like any other: three actions of four nodes, vertices within its size."""
    found = read_gltf(str(asset))
    assert [m.name for m in found.rig.motions] == ["Idle", "Walk", "Gallop"] and len(found.rig.names) == 4
    posed = found.surface.posed(found.rig.maps("Idle", 0.3))
    assert np.allclose(np.ptp(posed, axis=0), [0.32, 0.8, 0.7], atol=1e-6)
