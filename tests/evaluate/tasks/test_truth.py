"""Ground truth from asset files: rendered once, kept, and the same as a dataset would hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from orbit4d.datasets.cameras.camera import orbit
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.index.reference import split_reference
from orbit4d.evaluate.cli import command
from orbit4d.evaluate.tasks.cases import in_world_of
from orbit4d.evaluate.tasks.frames import clip_frames
from orbit4d.evaluate.tasks.truth import RenderChoice, Truth, read_ids
from orbit4d.evaluate.tasks.truth_cache import TruthCache
from orbit4d.render.dataset.render_assets import render_assets
from orbit4d.render.fleet.settings import FleetSettings
from orbit4d.render.planning.settings import preset

pytestmark = pytest.mark.usefixtures("shared_ray")

#: As small as Blender and the metrics allow.
CHOICE = RenderChoice("draft", frames=4, resolution=24, samples=2)
WORDS = ["--preset", "draft", "--frames", "4", "--resolution", "24", "--samples", "2", "--no-learned"]


@pytest.fixture(scope="module")
def toy_file(tmp_path_factory: pytest.TempPathFactory, toy) -> Path:
    return toy(tmp_path_factory.mktemp("assets") / "toy.glb")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def evaluate(*words: str) -> dict:
    result = CliRunner().invoke(command, [*words])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return json.loads((Path(words[words.index("--out") + 1]) / "results.json").read_text())


def test_real_renders_of_an_asset_rank_videos(
    toy_file: Path, cache: Path, tmp_path: Path, write, no_blender_twice
) -> None:
    """Itself, shifted, shuffled and frozen against an asset file: in the order expected, rendered once."""
    truth = Truth(str(toy_file), choice=CHOICE, cache=TruthCache(cache))
    subject = truth.subject("toy", "Go")
    clip = subject.ref("front_view").read()
    assert len(clip.frames) == 4 and truth.cache.rendered == 1
    real = clip_frames(clip).rgb
    versions = {
        "self": real,
        "near": real.roll(1, dims=-1),
        "shuffled": real[[2, 0, 3, 1]],
        "frozen": real[:1].expand_as(real),
    }
    got = {}
    for name, video in versions.items():
        made = write(tmp_path / name / "frames", video)
        words = ["video", made, "--truth", f"{toy_file}:toy:Go", "--rig", "front_view"]
        record = evaluate(*words, "--cache", str(cache), "--out", str(tmp_path / name / "out"), *WORDS)
        got[name] = record["summary"]["front_view"]
    assert got["self"]["PSNR"] > 50 and got["self"]["SSIM"] > 0.9999  # what rounding to PNG leaves
    assert got["self"]["PSNR"] > got["near"]["PSNR"]
    assert got["self"]["PSNR"] > max(got["shuffled"]["PSNR"], got["frozen"]["PSNR"])
    assert got["self"]["SSIM"] > max(got["shuffled"]["SSIM"], got["frozen"]["SSIM"])
    assert got["shuffled"]["flicker"] > got["self"]["flicker"] > got["frozen"]["flicker"] == 0
    assert no_blender_twice() == 0


@pytest.fixture
def no_blender_twice(monkeypatch: pytest.MonkeyPatch):
    """Counts renders after the first: the cache must make them needless."""
    renders = []
    real = TruthCache._render
    monkeypatch.setattr(TruthCache, "_render", lambda self, missing: renders.append(1) or real(self, missing))
    return lambda: len(renders) - 1


def test_a_matrix_holds_the_orbit_on_its_diagonal(toy_file: Path, cache: Path) -> None:
    """N views x N moments: row 0 is the front view, the diagonal is the dynamic orbit, to the last bit."""
    truth = Truth(str(toy_file), choice=CHOICE, cache=TruthCache(cache))
    subject = truth.subject("toy", "Go")
    (refs,) = truth.matrices([subject], 4, 4)
    assert refs is not None
    rows = [ref.read() for ref in refs]
    assert [row.azimuth0_deg for row in rows] == [0.0, 90.0, 180.0, 270.0]
    front, turning = subject.ref("front_view").read(), subject.ref("dynamic_orbit").read()
    np.testing.assert_array_equal(rows[0].pixels(), front.pixels())
    diagonal = np.stack([row.pixels()[i] for i, row in enumerate(rows)])
    np.testing.assert_array_equal(diagonal, turning.pixels())
    assert truth.matrices([subject], 4, 4) == [refs]
    # A dataset with the file beside it gives the very same truth: its own settings, the same place.
    beside = Truth(subject.dataset, [str(toy_file)], cache=TruthCache(cache))
    assert beside.matrices([beside.subject("toy", "Go")], 4, 4) == [refs]
    assert beside.cache.rendered == 0


def test_the_truth_plays_the_share_of_the_window_that_its_orbit_plays(
    toy_file: Path, cache: Path, tmp_path: Path
) -> None:
    """Of a dataset whose second orbit plays a quarter: lacking clips of either are rendered alike."""
    settings = preset(
        "draft", frames=4, resolution=24, rigs=("dynamic_orbit",), orbits=2,
        azimuths_deg=(0.0, 0.0), window_shares=(1.0, 0.25),
    )  # fmt: skip
    render_assets([str(toy_file)], str(tmp_path / "ds"), settings, FleetSettings(workers=1))
    truth = Truth(str(tmp_path / "ds"), [str(toy_file)], cache=TruthCache(cache))
    subject = truth.subject("toy", "Go")
    for number, end in ((0, 1.0), (1, 0.25)):
        (front,) = truth.clips([subject], "front_view", number)
        assert front is not None and front.read().time[-1] == end
    (refs,) = truth.matrices([subject], 3, 4)
    assert refs is not None and [ref.read().time[-1] for ref in refs] == [1.0] * 3


def test_a_file_that_cannot_be_rendered_is_named_and_not_tried_again(
    toy_file: Path, cache: Path, tmp_path: Path, synthetic_dataset: Path, no_blender_twice
) -> None:
    folder = tmp_path / "assets"
    folder.mkdir()
    (folder / "toy.glb").write_bytes(toy_file.read_bytes())
    (folder / "bad.glb").write_bytes(toy_file.read_bytes()[:900])
    for _ in range(2):
        truth = Truth(str(folder), choice=CHOICE, cache=TruthCache(cache))
        with pytest.raises(InputError, match="truncated"):
            truth.subjects(ids=["bad"])
        assert "bad" in truth.failures
    assert no_blender_twice() == 0
    with pytest.raises(InputError, match="no asset 'nobody'; it has bad, toy"):
        truth.subject("nobody")
    with pytest.raises(InputError, match="holds 2 assets; add :uid"):
        truth.only()
    with pytest.raises(InputError, match="holds 6 assets; add :uid"):
        Truth(str(synthetic_dataset)).only()


def test_what_a_dataset_lacks_is_asked_for_in_one_line(synthetic_dataset: Path, tmp_path: Path, toy) -> None:
    truth = Truth(str(synthetic_dataset))
    subject = truth.subject("asset-000")
    assert truth.clips([subject], "front_view")[0] == subject.ref("front_view")
    assert truth.clips([subject], "dynamic_orbit", 3) == [None] and truth.matrices([subject], 3, 3) == [None]
    # Another file than the one the dataset was rendered from is refused, whatever its name.
    other = toy(tmp_path / "asset-000.glb")
    truth = Truth(str(synthetic_dataset), [str(other)])
    with pytest.raises(InputError, match="not the file"):
        truth.clips([subject], "dynamic_orbit", 3)


def test_another_framing_of_the_same_asset_shows_the_same_picture() -> None:
    """A camera carried from one clip's world to another's sees every point of the asset at the same pixel."""

    class Framed:
        def __init__(self, scale, centre, window):
            self.scale, self.centre, self.window = scale, centre, window
            self.cameras = orbit(5, radius=2.0, elevation_deg=20.0, size=(64, 64))
            self.seconds = list(np.linspace(*window, 5))
            self.time = [0.0, 0.25, 0.5, 0.75, 1.0]

    base = Framed(0.5, (0.1, -0.2, 0.3), (0.0, 2.0))
    clip = Framed(0.8, (0.0, 0.4, -0.1), (1.0, 2.0))
    cameras, times = in_world_of(base, clip)  # type: ignore[arg-type]
    points = np.random.default_rng(0).normal(size=(20, 3))
    for carried, own in zip(cameras, clip.cameras):
        there = carried.project(base.scale * (points - base.centre))[0]
        here = own.project(clip.scale * (points - clip.centre))[0]
        np.testing.assert_allclose(there, here, atol=1e-9)
    assert times == pytest.approx([0.5, 0.625, 0.75, 0.875, 1.0])


def test_names_of_truths_and_lists(tmp_path: Path) -> None:
    assert split_reference("data/set:fox:Run") == ("data/set", "fox", "Run")
    assert split_reference(str(tmp_path)) == (str(tmp_path), None, "")
    listed = tmp_path / "ids.txt"
    listed.write_text("a\n# a comment\nb  # another\n\na\n")
    assert read_ids(listed) == ["a", "b"]
    with pytest.raises(InputError, match="no such file"):
        read_ids(tmp_path / "none.txt")


def test_renders_are_keyed_by_everything_that_decides_their_pixels(toy_file: Path, tmp_path: Path) -> None:
    from orbit4d.datasets.sources.resolve import resolve
    from orbit4d.evaluate.tasks.truth_cache import Wanted

    asset, settings = resolve([str(toy_file)]).assets[0], CHOICE.settings()
    one = Wanted(asset, settings)
    assert one.name == Wanted(replace(asset, path="elsewhere.glb"), settings).name
    others = [
        Wanted(replace(asset, sha256="0" * 64), settings),
        Wanted(replace(asset, uid="other"), settings),
        Wanted(replace(asset, actions=(1,)), settings),
        Wanted(asset, replace(settings, frames=5)),
        Wanted(asset, replace(settings, engine=replace(settings.engine, samples=3))),
    ]
    assert len({one.name, *(other.name for other in others)}) == 6
    # What a killed evaluation left is swept away, what a living one is rendering stays.
    dead, alive = tmp_path / ".x.999999999.partial", tmp_path / ".x.1.partial"
    dead.mkdir(), alive.mkdir()
    TruthCache(tmp_path)._sweep()
    assert not dead.exists() and alive.exists()
