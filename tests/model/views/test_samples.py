"""Samples of synchronised views: shares, curriculum, reference, one-frame groups, the same for any worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import chisquare

from orbit4d.datasets.cameras.camera import orbit_c2w
from orbit4d.datasets.core.errors import InputError
from orbit4d.model import TrainConfig, override, preset
from orbit4d.model.data.training_clips import Draw
from orbit4d.model.views.samples import (
    KINDS,
    TrainingScenes,
    angles_of,
    bounds,
    choose_views,
    collate_scenes,
    shares_of,
)
from orbit4d.model.views.scenes import SceneClips, fitted
from orbit4d.model.views.usable import shows_motion, usable_views


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Path]) -> Path:
    """Scenes of four fixed and of four moving cameras, and static orbits."""
    return make_dataset(tmp_path_factory.mktemp("views") / "d", assets=4, n_frames=4, size=16, orbits=4)


@pytest.fixture(scope="module")
def config() -> TrainConfig:
    return override(preset("sync-tiny"), ["data.resolution=16", "steps=40"])


@pytest.fixture(scope="module")
def scenes(dataset: Path, config: TrainConfig) -> SceneClips:
    return SceneClips(str(dataset), config, "train")


def test_kinds_of_a_dataset(scenes: SceneClips) -> None:
    assert {scenes.scenes[i].clips[0].rig for i in scenes.multi} == {"front_view", "dynamic_orbit"}
    assert {scenes.scenes[i].clips[0].rig for i in scenes.stills} == {"static_orbit"}
    assert {scenes.scenes[i].clips[0].rig for i, _ in scenes.singles} == {"front_view"}


@pytest.mark.parametrize("lacking", ["", "images", "single"])
def test_shares_over_20000_numbers(scenes: SceneClips, config: TrainConfig, lacking: str) -> None:
    views = replace(config.views, multi=0.6, images=0.2, single=0.2)
    samples = TrainingScenes(scenes, replace(config, views=views), 1, 1)
    counts = {kind: int(kind != lacking) for kind in KINDS}
    samples.shares = shares_of(views, counts)
    assert samples.shares.sum() == pytest.approx(1)
    kinds = np.bincount([samples.kind_of(n) for n in range(20_000)], minlength=3)
    wanted = samples.shares * 20_000
    assert not kinds[wanted == 0].any()
    assert chisquare(kinds[wanted > 0], wanted[wanted > 0]).pvalue > 1e-3


def test_samples_depend_on_their_number_alone(scenes: SceneClips, config: TrainConfig) -> None:
    views = replace(config.views, multi=0.4, images=0.3, single=0.3)
    config = replace(config, views=views)
    first = [TrainingScenes(scenes, config, 1, 1)[Draw(n % len(scenes), n)] for n in range(12)]
    again = TrainingScenes(scenes, config, 1, 1)
    for n in reversed(range(12)):
        other = again[Draw(n % len(scenes), n)]
        for k, v in first[n].items():
            # Motion that is not told is NaN.
            if torch.is_tensor(v):
                torch.testing.assert_close(other[k], v, rtol=0, atol=0, equal_nan=True)
    shapes = {KINDS[int(s["kind"])]: tuple(s["target"].shape) for s in first}
    assert shapes == {"multi": (2, 4, 3, 16, 16), "images": (2, 1, 3, 16, 16), "single": (2, 4, 3, 16, 16)}
    for sample in first:
        identity = torch.eye(3, 4).flatten()
        torch.testing.assert_close(
            sample["camera"][0], identity.expand_as(sample["camera"][0]), atol=1e-6, rtol=0
        )
        if KINDS[int(sample["kind"])] == "single":
            assert torch.equal(sample["target"][0], sample["target"][1])
            assert torch.equal(sample["camera"][0], sample["camera"][1])
        else:
            assert not torch.equal(sample["camera"][0], sample["camera"][1])
        assert not (sample["clean"] and KINDS[int(sample["kind"])] != "multi")
    lengths = [sample["target"].shape[1] for sample in first]
    groups = collate_scenes(first)["groups"]
    assert sorted(len(g["seed"]) for g in groups) == sorted([lengths.count(1), lengths.count(4)])
    assert all(len(g["caption"]) == len(g["seed"]) for g in groups)


def test_motion_is_the_index_own_and_dropped_now_and_then(scenes: SceneClips, config: TrainConfig) -> None:
    samples = TrainingScenes(scenes, config, 1, 1)
    told = np.array([float(samples[Draw(0, n)]["motion"]) for n in range(200)])
    dropped = int(np.isnan(told).sum())
    assert 20 - 17 < dropped < 20 + 17  # 4 standard deviations
    scene = scenes.multi[0]
    own = [scenes.motion(scene, v) for v in range(len(scenes.scenes[scene].clips))]
    known = told[~np.isnan(told)]
    assert own[0] > 0 and min(own) - 1e-7 <= known.min() and known.max() <= max(own) + 1e-7
    plain = TrainingScenes(scenes, config, 1, 1, plain=True)
    assert not any(torch.isnan(plain[Draw(0, n)]["motion"]) for n in range(20))


def test_usable_views_see_the_object_through_one_lens(scenes: SceneClips) -> None:
    clips = scenes.scenes[scenes.multi[0]].clips
    assert usable_views(clips) == list(range(len(clips)))
    hidden = replace(clips[1], measures=clips[1].measures | {"coverage": 0.009})
    other = replace(clips[2], cameras=[replace(c, fl_x=2 * c.fl_x) for c in clips[2].cameras])
    assert usable_views([clips[0], hidden, other, clips[3]]) == [0, 3]


def test_background_that_moves_is_no_still_camera() -> None:
    rng = np.random.default_rng(0)
    wall = ndimage.gaussian_filter(rng.uniform(0, 255, (48, 72)), 1.2)
    wall = np.clip((wall - wall.mean()) * 4 + 128, 0, 255).astype(np.uint8)

    def clip(step: int) -> np.ndarray:
        frames = np.stack([wall[:, i * step : i * step + 48] for i in range(5)])
        return np.concatenate(
            [np.repeat(frames[..., None], 3, -1), np.full((5, 48, 48, 1), 255, np.uint8)], -1
        )

    assert not shows_motion(clip(0), 8.0) and shows_motion(clip(2), 8.0)
    # Nothing to follow is no proof of motion.
    assert not shows_motion(np.full((5, 48, 48, 4), 255, np.uint8), 8.0)


def test_reference_is_clean_nine_times_of_ten(scenes: SceneClips, config: TrainConfig) -> None:
    samples = TrainingScenes(scenes, config, 1, 1)
    clean = sum(bool(samples[Draw(0, n)]["clean"]) for n in range(200))
    assert 200 * 0.9 - 17 < clean < 200 * 0.9 + 17  # 4 standard deviations
    base = TrainingScenes(scenes, config, 0, 0)
    assert not any(bool(base[Draw(0, n)]["clean"]) for n in range(20))


def test_curriculum_grows_and_is_kept_and_wraps(config: TrainConfig) -> None:
    limits = [bounds(config.views, step, 100) for step in range(101)]
    assert limits[0] == (30, 15) and limits[20] == (180, 45) == limits[-1]
    assert all(b[0] >= a[0] and b[1] >= a[1] for a, b in zip(limits, limits[1:]))  # noqa: RUF007
    angles = [(-175.0, 0.0), (175.0, 5.0), (90.0, 0.0), (-170.0, 40.0)]
    c2w = np.stack([orbit_c2w(a, e, 2.0) for a, e in angles])
    np.testing.assert_allclose(np.array(angles_of(c2w)).T, angles, atol=1e-9)
    seen = set()
    for seed in range(60):
        chosen, within = choose_views(c2w, 2, 30, 15, np.random.default_rng(seed))
        pair = frozenset(map(int, chosen))
        seen.add((int(chosen[0]), within))
        # Across +-180 they are neighbours; whoever has none takes the nearest and says so.
        assert within == (pair == {0, 1})
    assert seen == {(0, True), (1, True), (2, False), (3, False)}


def test_wider_images_cut_the_square(scenes: SceneClips) -> None:
    square = torch.arange(64.0).view(1, 1, 8, 8).expand(2, 3, 8, 8)
    assert torch.equal(fitted(square, 8, 4), square[..., 2:6, :])
    with pytest.raises(InputError, match="images of 8x8 hold no 8x9"):
        fitted(square, 8, 9)


def test_dataset_without_enough_views_is_refused(dataset: Path, config: TrainConfig) -> None:
    from orbit4d.model.views.scenes import open_scenes

    many = replace(config, views=replace(config.views, count=5), data=replace(config.data, latents="memory"))
    with pytest.raises(InputError, match=r"no scene of the train split has 5 views \(\d+ have fewer\)"):
        open_scenes(str(dataset), many, None, "train", training=True)
