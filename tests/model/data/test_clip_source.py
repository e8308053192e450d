"""Why a dataset holds nothing to train on: the reason is the right one, and names what it is about."""

from __future__ import annotations

import pytest

from orbit4d.datasets import DatasetWriter, InputError
from orbit4d.datasets.store.schema import split_of
from orbit4d.model.data.clip_source import TRAIN, open_clips, why_none
from orbit4d.model.data.encode import encode_dataset


def uid_in(split: str, start: int = 0) -> str:
    return next(f"solo{k}" for k in range(start, 10_000) if split_of(f"solo{k}") == split)


@pytest.fixture
def dataset_of(tmp_path, make_clips):
    """dataset_of(uid=rigs, ...): a dataset of these assets."""

    def make(**assets) -> str:
        writer = DatasetWriter(tmp_path / "dataset", {"frames": 8})
        for uid, rigs in assets.items():
            writer.stage(uid, make_clips(uid, n_frames=8, size=16, rigs=rigs))
        writer.roll(final=True)
        return str(tmp_path / "dataset")

    return make


BOTH = ("static_orbit", "dynamic_orbit")


@pytest.mark.parametrize("splits", [("test",), ("validation",), ("test", "validation")])
def test_assets_of_other_splits_are_named_with_them(dataset_of, micro_config, splits):
    """They have frames enough: it is the hash of their uids that put them elsewhere."""
    uids = {split: uid_in(split) for split in splits}
    dataset = dataset_of(**dict.fromkeys(uids.values(), BOTH))
    config = micro_config("data.latents=fly")
    for call in (lambda: open_clips(dataset, config, None, TRAIN), lambda: encode_dataset(dataset, config)):
        with pytest.raises(InputError, match="none of its assets is in the training split") as caught:
            call()
        assert all(f"{split} {uid}" in str(caught.value) for split, uid in uids.items())
        assert "frames" not in str(caught.value) and "\n" not in str(caught.value)


def test_other_reasons_are_told_apart(dataset_of, micro_config, tmp_path):
    dataset = dataset_of(**{uid_in("train"): BOTH, uid_in("test"): BOTH})
    where = micro_config("data.where=license = 'none such'")
    assert "no clip where license = 'none such'" in why_none(dataset, where)
    chosen = micro_config(f"data.where=uid = '{uid_in('test')}'")
    assert f"(test {uid_in('test')})" in why_none(dataset, chosen)
    assert uid_in("train") not in why_none(dataset, chosen)
    DatasetWriter(tmp_path / "empty", {})
    assert "holds no clip yet" in why_none(str(tmp_path / "empty"), where)


def test_clips_that_are_lacking_are_named(dataset_of, micro_config):
    dataset = dataset_of(**{uid_in("train"): ("static_orbit",)})
    assert "no asset has dynamic orbits" in why_none(dataset, micro_config())
