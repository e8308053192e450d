"""The default rules against clips labelled by eye, and against the published rule on the same clips."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from orbit4d.curate.rule_settings import PRESETS
from orbit4d.curate.rules import reject_masks


@pytest.fixture(scope="module")
def labels(repo_root):
    spec = importlib.util.spec_from_file_location("curate_labels", repo_root / "bench" / "curate_labels.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_default_beats_the_published_rule_on_precision_and_recall(labels):
    table, keep = labels.load_labels()
    first = labels.label_sets() == 1
    assert len(keep) >= 120 and first.sum() >= 60 and 20 < (~keep).sum() < len(keep) / 2
    for some in (np.ones(len(keep), bool), first, ~first):
        scores = {
            name: labels.score(labels.verdicts(table, rules)[some], keep[some])
            for name, rules in labels.candidates().items()
        }
        default = scores["default"]
        assert default["recall"] > 0.95
        for name in ("published, raw frames", "published, window", "published with boundary"):
            assert default["precision"] > scores[name]["precision"] + 0.03, name
            assert default["recall"] > scores[name]["recall"] + 0.1, name


def test_it_does_so_on_assets_that_the_thresholds_were_not_chosen_on(labels):
    table, keep = labels.load_labels()
    left_out = labels.score(labels.leave_one_out(table, keep), keep)
    published = labels.score(labels.verdicts(table, labels.candidates()["published, window"]), keep)
    assert left_out["precision"] > published["precision"] and left_out["recall"] > published["recall"] + 0.1


def test_every_labelled_clip_has_its_measures(labels):
    table, _ = labels.load_labels()
    for name in ("motion_geometry", "motion_shape", "coverage_fit", "ssim_object_peak", "ssim_half_raw"):
        assert table[name].null_count == 0, name


def test_a_slow_swim_is_kept_and_a_sway_of_less_than_a_degree_is_not(labels):
    table, _ = labels.load_labels()
    accepted = labels.verdicts(table, PRESETS["default"])
    found = dict(zip(zip(table["uid"].to_pylist(), table["action"].to_pylist()), accepted))
    assert found["fish_pack_fish1", "Armature|Swim"]
    assert not found["dev_nearstill", "tiny_sway"]
    assert not found["dev_flyaway", "fly_away"]


def test_wheels_and_tracks_on_the_spot_are_unseen_and_a_globe_that_turns_is_not(labels):
    table, _ = labels.load_labels()
    unseen = reject_masks(table, PRESETS["default"])["unseen"]
    found = dict(zip(zip(table["uid"].to_pylist(), table["action"].to_pylist()), unseen))
    assert found["dev_milktruck", "Anim_0"] and found["tank_pack_tank2", "TankArmature|Tank_TurningRight"]
    assert not found["dev_planet", "Animation"] and not found["dev_morphstress", "Individuals"]
    assert not found["cute_fish_pack_coralgrouper", "Fish_Armature|Death"]
