"""Curating a rendered dataset on its images, and telling which assets look alike."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from orbit4d.curate.cli import command
from orbit4d.curate.duplicates import find_duplicates, look_hash
from orbit4d.datasets.cameras.camera import orbit
from orbit4d.datasets.cli import select
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.images.measures import motion_magnitude
from orbit4d.datasets.loader.dataset import OrbitDataset
from orbit4d.datasets.operations.select import select_view
from orbit4d.datasets.store.clip import Clip, encode_webp
from orbit4d.datasets.store.writer import DatasetWriter

N, SIZE = 8, 32


def run(what, *arguments: str) -> list[str]:
    """Lines of a command; its own errors are raised."""
    result = CliRunner().invoke(what, arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.output.splitlines()


def frames(places, colours=None, size=8) -> np.ndarray:
    """[N, SIZE, SIZE, 4]: a shaded square at each column of `places`; None leaves a frame blank."""
    found = np.zeros((N, SIZE, SIZE, 4), np.uint8)
    ramp = np.linspace(60, 220, size).astype(np.uint8)
    for frame, place in zip(found, places):
        if place is not None:
            frame[12 : 12 + size, place : place + size, :3] = ramp[None, :, None]
            frame[12 : 12 + size, place : place + size, 3] = 255
            if colours is not None:
                frame[12 : 12 + size, place : place + size, :3] = colours
    return found


def clip(uid: str, rig: str, pixels: np.ndarray, **more) -> Clip:
    cameras = orbit(N, size=(SIZE, SIZE))
    return Clip(
        uid, "walk", 0, rig, 0, tuple(encode_webp(f) for f in pixels), tuple(cameras),
        tuple(np.linspace(0, 1, N)), tuple(np.linspace(0, 2, N)), (0.0, 2.0), 1.0, (0.0, 0.0, 0.0), 0.0, 0.0,
        2.0, **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("rendered") / "dataset")
    writer = DatasetWriter(uri, {"test": 1})
    still, moving = [12] * N, list(range(8, 8 + N))
    assets = {
        "good": frames(moving),
        "border": frames([24] * 7 + [16]),
        "blank": frames([12] * 7 + [None]),
        "flat": frames(moving, colours=(9, 9, 9)),
    }
    for uid, dynamic in assets.items():
        measures = {"motion_geometry": 0.2}
        static = frames(still, colours=(9, 9, 9) if uid == "flat" else None)
        rigs = [("dynamic_orbit", dynamic), ("front_view", dynamic)]
        if uid == "good":
            rigs.append(("static_orbit", static))
        writer.stage(
            uid, [clip(uid, rig, pixels, measures=measures, license="CC0-1.0") for rig, pixels in rigs]
        )
    writer.roll(final=True)
    return uri, assets, frames(still)


def test_a_rendered_dataset_is_measured_on_its_images(dataset, tmp_path):
    uri, assets, static = dataset
    arguments = [uri, "--out", tmp_path / "t.parquet", "--flat", "drop", "--report", tmp_path / "r"]
    result = CliRunner().invoke(command, [str(a) for a in arguments], standalone_mode=False)
    assert result.exception is None, result.exception
    rows = {row["uid"]: row for row in pq.read_table(tmp_path / "t.parquet").to_pylist()}
    assert set(rows) == set(assets)
    assert {uid: row["reasons"] for uid, row in rows.items()} == {
        "good": [], "border": ["boundary"], "blank": ["empty"], "flat": ["flat"],
    }  # fmt: skip
    good = rows["good"]
    assert good["motion_magnitude"] == pytest.approx(motion_magnitude(assets["good"], static))
    assert good["coverage"] == pytest.approx(64 / SIZE**2) and good["boundary_touch"] == 0.0
    assert good["ssim_half"] < 0.9 and good["motion_geometry"] == 0.2 and good["license"] == "CC0-1.0"
    assert rows["border"]["boundary_touch"] == pytest.approx(8 / (4 * SIZE - 4))
    assert rows["border"]["boundary_frames"] == pytest.approx(7 / 8)
    assert rows["blank"]["blank_frames"] == pytest.approx(1 / 8)
    assert rows["flat"]["motion_magnitude"] is None
    assert (tmp_path / "r" / "index.html").exists()


@pytest.mark.parametrize("copy", [(), ("--copy",)], ids=["view", "copy"])
def test_what_curation_accepts_of_a_dataset_is_selected_from_it(dataset, tmp_path, copy):
    uri, table = dataset[0], str(tmp_path / "t.parquet")
    run(command, uri, "--out", table)
    lines = run(select, uri, "--table", table, "--out", str(tmp_path / "good"), *copy)
    # "flat" is kept by default.
    assert lines[-1].startswith("5 clips:")
    kept = OrbitDataset(str(tmp_path / "good"), require=("dynamic",))
    assert [kept[i]["uid"] for i in range(len(kept))] == ["flat", "good"]
    with pytest.raises(InputError, match="no clip matches"):
        run(select, uri, "--table", table, "--where", "uid = 'blank'", "--out", str(tmp_path / "none"))


def test_an_action_that_the_table_does_not_name_or_a_table_without_verdicts_selects_nothing(
    dataset, tmp_path
):
    uri = dataset[0]
    rows = {"uid": ["good", "flat", "border"], "action_index": [0, 1, 0]}
    rows["verdict"] = ["accepted", "accepted", "rejected"]
    pq.write_table(pa.table(rows), tmp_path / "few.parquet")
    assert select_view(uri, str(tmp_path / "few"), table=str(tmp_path / "few.parquet")) == 3
    del rows["verdict"]
    pq.write_table(pa.table(rows), tmp_path / "bare.parquet")
    with pytest.raises(InputError, match=r"no column verdict; name a table that `orbit4d curate` wrote"):
        select_view(uri, str(tmp_path / "bare"), table=str(tmp_path / "bare.parquet"))


def test_a_dataset_is_taken_alone_and_must_hold_clips(dataset, tmp_path):
    out = ("--out", str(tmp_path / "t.parquet"))
    with pytest.raises(InputError, match="one rendered dataset"):
        run(command, dataset[0], dataset[0], *out)
    DatasetWriter(str(tmp_path / "empty"), {"test": 1})
    with pytest.raises(InputError, match="no clip"):
        run(command, str(tmp_path / "empty"), *out)


def test_the_same_look_is_found_and_another_colour_is_another_asset():
    rng = np.random.default_rng(0)
    picture = np.zeros((64, 64, 4), np.uint8)
    from scipy.ndimage import gaussian_filter

    surface = gaussian_filter(rng.standard_normal((40, 24)), 3)
    surface = 130 + 70 * surface / np.abs(surface).max()
    picture[10:50, 20:44, :3] = surface[..., None]
    picture[10:50, 20:44, 3] = 255
    noisy = picture.copy()
    noisy[10:50, 20:44, :3] += rng.integers(0, 4, (40, 24, 3), dtype=np.uint8)
    red = picture.copy()
    red[10:50, 20:44, 0] += 50
    other = picture[:, ::-1].copy()
    other[10:50, 20:44, :3] = other[10:50, 20:44, :3][::-1]
    looks = [
        ("a", look_hash(picture)),
        ("b", look_hash(noisy)),
        ("c", look_hash(red)),
        ("d", look_hash(other)),
    ]
    assert find_duplicates(looks) == {"b": "a"}
    assert look_hash(np.zeros((16, 16, 4), np.uint8)) is None


@settings(max_examples=100, deadline=None)
@given(bits=st.integers(0, 2**64 - 1), flips=st.sets(st.integers(0, 63), max_size=6))
def test_all_hashes_within_three_bits_are_found_and_none_beyond(bits, flips):
    other = bits
    for flip in flips:
        other ^= 1 << flip
    found = find_duplicates([("a", f"{bits:016x}-808080"), ("b", f"{other:016x}-808080")])
    assert found == ({"b": "a"} if len(flips) <= 3 else {})


def test_duplicates_never_link_to_a_duplicate():
    rng = np.random.default_rng(0)
    base = [int(b) for b in rng.integers(0, 2**63, 5)]
    looks = [(f"u{i}", f"{base[i % 5] ^ (1 << int(rng.integers(64))):016x}-404040") for i in range(60)]
    found = find_duplicates(looks)
    assert found and not set(found.values()) & set(found)
