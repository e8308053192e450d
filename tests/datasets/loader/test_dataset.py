"""OrbitDataset and OrbitLoader: what a sample holds, and in which order samples come."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from orbit4d.datasets import InputError, OrbitDataset, OrbitLoader, read_clip
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.images.codec import decode, encode_webp
from orbit4d.datasets.loader.order import n_batches, permutation, rank_batches
from orbit4d.datasets.store.schema import SPLITS, split_of


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, make_clips):
    """Two orbits each; asset b has no static orbits, c only static ones, d only a front view at orbit 0."""
    from orbit4d.datasets import DatasetWriter

    folder = tmp_path_factory.mktemp("mixed") / "d"
    writer = DatasetWriter(folder, {})
    writer.stage("a", make_clips("a", ("Run", "Jump"), n_frames=3, size=16, orbits=2))
    writer.stage("b", make_clips("b", n_frames=3, size=16, orbits=2, rigs=("dynamic_orbit",)))
    writer.stage("c", make_clips("c", n_frames=3, size=16, orbits=2, rigs=("static_orbit",)))
    writer.stage("d", make_clips("d", n_frames=3, size=16, rigs=("front_view",)))
    front0 = [
        c for c in make_clips("e", n_frames=3, size=16, orbits=2) if c.rig != "front_view" or c.orbit == 0
    ]
    writer.stage("e", front0)
    writer.roll(final=True)
    return folder


def keys(data):
    return [
        (item["uid"], item["action_index"], item["orbit"]) for item in (data[i] for i in range(len(data)))
    ]


def test_a_sample_is_what_was_stored(mixed):
    data = OrbitDataset(mixed)
    item = data[2]
    assert (item["uid"], item["action"], item["orbit"]) == ("a", "Jump", 0)
    for name, rig in (("dynamic", "dynamic_orbit"), ("static", "static_orbit"), ("front", "front_view")):
        clip = read_clip(mixed, "a", "Jump", rig, 0)
        rgba = clip.pixels().astype(np.float64) / 255
        want = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
        # float32 of one product and one sum: a few units in the last place.
        np.testing.assert_allclose(item[name].permute(0, 2, 3, 1).numpy(), want, atol=3e-7)
        np.testing.assert_allclose(item[f"alpha_{name}"][:, 0].numpy(), rgba[..., 3], atol=1e-7)
    clip = read_clip(mixed, "a", "Jump", "dynamic_orbit", 0)
    np.testing.assert_allclose(item["c2w"].numpy(), np.stack([c.c2w for c in clip.cameras]), atol=1e-6)
    np.testing.assert_allclose(item["K"].numpy(), np.stack([c.K for c in clip.cameras]), rtol=1e-6)
    np.testing.assert_allclose(item["time"].numpy(), clip.time, atol=1e-7)
    front = read_clip(mixed, "a", "Jump", "front_view", 0)
    np.testing.assert_allclose(item["front_c2w"].numpy(), np.stack([c.c2w for c in front.cameras]), atol=1e-6)
    assert item["motion_magnitude"].item() == pytest.approx(clip.measures["motion_magnitude"], rel=1e-6)
    # Stored motion agrees with what the loader shows (eq. 1 of the paper, on white).
    assert (item["dynamic"] - item["static"]).square().mean().item() == pytest.approx(
        item["motion_magnitude"].item(), rel=1e-4
    )
    np.testing.assert_array_equal(data.rgba(2), clip.pixels())


def test_absent_clips_are_absent_unless_required(mixed):
    every = OrbitDataset(mixed, require=())
    assert len(every) == 4 + 2 + 2 + 1 + 2
    data = OrbitDataset(mixed)
    have = {item["uid"]: set(item) for item in (data[i] for i in range(len(data)))}
    assert set(have) == {"a", "b", "e"}
    assert {"static", "alpha_static", "front", "front_c2w", "front_K"} <= have["a"]
    assert not {"static", "alpha_static", "front", "front_c2w"} & have["b"]
    assert {k[0] for k in keys(OrbitDataset(mixed, require=("dynamic", "static")))} == {"a", "e"}
    assert {k[0] for k in keys(OrbitDataset(mixed, require=("static",)))} == {"a", "c", "e"}
    assert {k[0] for k in keys(OrbitDataset(mixed, require=("front",)))} == {"a", "d", "e"}
    with pytest.raises(InputError, match="require='depth'"):
        OrbitDataset(mixed, require=("depth",))


def test_an_orbit_without_its_front_view_gets_that_of_orbit_0(mixed):
    data = OrbitDataset(mixed, where="uid = 'e'")
    assert keys(data) == [("e", 0, 0), ("e", 0, 1)]
    torch.testing.assert_close(data[1]["front"], data[0]["front"])
    own = OrbitDataset(mixed, where="uid = 'a' and action = 'Run'")
    assert not torch.equal(own[0]["front_c2w"], own[1]["front_c2w"])


@pytest.mark.parametrize(
    ("background", "rgb"),
    [
        ("white", (255,) * 3),
        ("grey", (128,) * 3),
        ("black", (0,) * 3),
        ("#102030", (16, 32, 48)),
        ((9, 8, 7), (9, 8, 7)),
    ],
)
def test_backgrounds(mixed, background, rgb):
    item = OrbitDataset(mixed, background=background)[0]
    empty = item["alpha_dynamic"][:, 0] == 0
    for channel, value in enumerate(rgb):
        seen = item["dynamic"][:, channel][empty]
        assert len(seen) and torch.allclose(seen, torch.tensor(value / 255))
    full = item["alpha_dynamic"][:, 0] == 1
    white = OrbitDataset(mixed)[0]["dynamic"]
    assert torch.equal(item["dynamic"].permute(1, 0, 2, 3)[:, full], white.permute(1, 0, 2, 3)[:, full])


def test_random_backgrounds_hang_on_seed_epoch_and_sample(mixed):
    def corner(data, i):
        return tuple(data[i]["dynamic"][0, :, 0, 0].tolist())

    data = OrbitDataset(mixed, background="random", seed=1)
    assert corner(data, 0) == corner(OrbitDataset(mixed, background="random", seed=1), 0)
    assert corner(data, 0) != corner(OrbitDataset(mixed, background="random", seed=2), 0)
    assert len({corner(data, i) for i in range(len(data))}) == len(data)
    before = corner(data, 0)
    data.set_epoch(1)
    assert corner(data, 0) != before
    item = data[0]
    assert torch.equal(item["dynamic"][0, :, 0, 0], item["static"][0, :, 0, 0])
    with pytest.raises(InputError, match="background='purple'"):
        OrbitDataset(mixed, background="purple")


def test_resized_images_agree_with_resized_cameras(mixed, make_clips):
    big, small = OrbitDataset(mixed), OrbitDataset(mixed, size=8)
    wide = OrbitDataset(mixed, size=(8, 4))[0]
    assert small[0]["dynamic"].shape == (3, 3, 8, 8)
    assert wide["dynamic"].shape == (3, 3, 4, 8) and wide["alpha_dynamic"].shape == (3, 1, 4, 8)
    torch.testing.assert_close(small[0]["K"][:, :2], big[0]["K"][:, :2] / 2)
    assert wide["K"][0, 0, 2].item() == 4.0 and wide["K"][0, 1, 2].item() == 2.0
    # The silhouette's centre of mass, in pixels of either size, is the same point of the image plane.
    for name in ("alpha_dynamic", "alpha_front"):
        masses = []
        for item, size in ((big[0], 16), (small[0], 8)):
            alpha = item[name][:, 0]
            grid = (torch.arange(size) + 0.5) / size
            masses.append((alpha * grid).sum((1, 2)) / alpha.sum((1, 2)))
        torch.testing.assert_close(masses[0], masses[1], atol=0.01, rtol=0)


def test_filters(mixed):
    assert {k[0] for k in keys(OrbitDataset(mixed, where="uid in ('b', 'e')"))} == {"b", "e"}
    values = [item["motion_magnitude"].item() for item in (OrbitDataset(mixed)[i] for i in range(8))]
    middle = float(np.median(values))
    above = OrbitDataset(mixed, where=f"motion_magnitude > {middle}")
    assert len(above) == sum(value > middle for value in values)
    assert len(
        OrbitDataset(mixed, where=f"measures.motion_magnitude > {middle} and license = 'CC0-1.0'")
    ) == len(above)
    assert len(OrbitDataset(mixed, where="ssim_half < 2")) == 0  # NULL is no
    for broken in ("nonsense > 1", "uid = ", "1=1; DROP TABLE part", "uid = 'a' or (select 1", "uid)--"):
        with pytest.raises(InputError, match="where"):
            OrbitDataset(mixed, where=broken)
    with pytest.raises(InputError, match="where"):
        OrbitDataset(mixed, where="uid in (select content from read_text('/etc/hostname'))")


def test_splits_are_disjoint_whole_and_follow_the_uid(mixed, tmp_path, make_clips):
    from orbit4d.datasets import DatasetWriter

    writer = DatasetWriter(tmp_path / "d", {})
    clip = make_clips("x", n_frames=1, size=8, rigs=("dynamic_orbit",))[0]
    import dataclasses

    uids = [f"u{i}" for i in range(60)]
    for uid in uids:
        writer.stage(uid, [dataclasses.replace(clip, uid=uid)])
    writer.roll(final=True)
    found = {split: set(OrbitDataset(tmp_path / "d", split=split).uids) for split in SPLITS}
    assert set.union(*found.values()) == set(uids)
    assert sum(map(len, found.values())) == len(uids)
    assert all(split_of(uid) == split for split, some in found.items() for uid in some)
    with pytest.raises(InputError, match="split='val'"):
        OrbitDataset(tmp_path / "d", split="val")


def test_split_shares_and_stability():
    drawn = [split_of(f"asset-{i}") for i in range(20000)]
    shares = [drawn.count(split) / len(drawn) for split in SPLITS]
    # Three standard deviations of a binomial of 20000 draws.
    np.testing.assert_allclose(shares, (0.9, 0.05, 0.05), atol=3 * (0.9 * 0.1 / 20000) ** 0.5)
    assert [split_of(u) for u in ("fox", "asset-16", "asset-17")] == ["train", "train", "train"]


def test_one_ranged_read_per_clip(mixed, monkeypatch):
    data = OrbitDataset(mixed)
    data[0]
    reads = []
    original = Store.read_range
    monkeypatch.setattr(Store, "read_range", lambda self, *a: reads.append(a) or original(self, *a))
    monkeypatch.setattr(Store, "read", lambda self, name: pytest.fail(f"read all of {name}"))
    data[1]
    assert len(reads) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_threads_and_workers_change_nothing(mixed, workers):
    plain = OrbitDataset(mixed, require=("dynamic", "static"))
    threaded = OrbitDataset(mixed, require=("dynamic", "static"), threads=3)
    for a, b in zip(DataLoader(plain, batch_size=2), DataLoader(threaded, batch_size=2, num_workers=workers)):
        assert a.keys() == b.keys()
        assert torch.equal(a["dynamic"], b["dynamic"]) and torch.equal(a["front"], b["front"])
        assert a["uid"] == b["uid"]


def test_the_decoder_lets_go_of_the_interpreter():
    rng = np.random.default_rng(0)
    data = encode_webp(rng.integers(0, 255, (1536, 1536, 4), dtype=np.uint8))
    running, counts = threading.Event(), []

    def work():
        running.set()
        decode(data)
        running.clear()

    decode(data)
    for _ in range(5):
        thread, count = threading.Thread(target=work), 0
        thread.start()
        while not running.is_set() and thread.is_alive():
            pass
        while running.is_set():
            count += 1
        thread.join()
        counts.append(count)
    # Were the lock held, the loop could only turn before or after the decoder, a few thousand times at most
    # (one switch interval); letting go lets it run all the while.
    assert max(counts) > 20_000, counts


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 200),
    batch=st.integers(1, 9),
    world=st.integers(1, 5),
    stop=st.integers(0, 40),
    seed=st.integers(0, 5),
)
def test_ranks_share_one_order_and_resume_neither_repeats_nor_skips(n, batch, world, stop, seed):
    order = permutation(n, seed, 0)
    assert sorted(order) == list(range(n))
    start = min(stop * batch * world, n)
    plans = [rank_batches(order, start, batch, rank, world, drop_last=False) for rank in range(world)]
    assert len({len(plan) for plan in plans}) == 1
    assert len(plans[0]) == n_batches(n, start, batch, world, drop_last=False)
    seen = [x for step in zip(*plans) for x in _interleaved(step)]
    assert seen == list(order[start : start + len(seen)])
    assert n - start - len(seen) < world
    # Another number of ranks continues in the same order.
    other = [x for part in rank_batches(order, start, batch * world, 0, 1, False) for x in part]
    assert other[: len(seen)] == seen


def _interleaved(parts):
    out = []
    for i in range(max(map(len, parts))):
        out += [int(part[i]) for part in parts if i < len(part)]
    return out


def test_epochs_and_seeds_shuffle_differently():
    orders = {tuple(permutation(50, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    # Pinned: a run that is resumed under a later release must see the same order.
    assert permutation(8, 0, 0).tolist() == [2, 4, 3, 6, 5, 0, 1, 7]


def test_loader_is_the_same_for_any_number_of_workers(mixed):
    def ids(**how):
        loader = OrbitLoader(OrbitDataset(mixed, size=8, where="uid <> 'b'"), batch_size=2, seed=3, **how)
        return [list(zip(b["uid"], b["action"], b["orbit"].tolist())) for _ in range(2) for b in loader]

    assert ids() == ids(num_workers=2)
    assert ids() != ids(shuffle=False)


def test_state_of_another_run_is_refused(mixed):
    loader = OrbitLoader(OrbitDataset(mixed), seed=1)
    state = loader.state_dict()
    with pytest.raises(InputError, match="seed was 1, here it is 2"):
        OrbitLoader(OrbitDataset(mixed), seed=2).load_state_dict(state)
    with pytest.raises(InputError, match="samples was 8"):
        OrbitLoader(OrbitDataset(mixed, where="uid = 'a'"), seed=1).load_state_dict(state)


KILLED = """
import json, os, signal, sys
from orbit4d.datasets import OrbitDataset, OrbitLoader
folder, state_file, kill_after, workers = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
data = OrbitDataset(folder, size=8, background="random")
loader = OrbitLoader(data, batch_size=1, seed=5, num_workers=workers)
if os.path.exists(state_file):
    loader.load_state_dict(json.load(open(state_file)))
steps = 0
while loader.epoch < 2:
    for batch in loader:
        colour = [round(x, 4) for x in batch["dynamic"][0, 0, :, 0, 0].tolist()]
        print(json.dumps([batch["uid"][0], batch["action"][0], batch["orbit"].item(), colour]), flush=True)
        json.dump(loader.state_dict(), open(state_file + ".new", "w"))
        os.replace(state_file + ".new", state_file)
        steps += 1
        if steps == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_resumes_without_repeating_or_skipping(mixed, tmp_path):
    def go(state, kill_after, workers):
        return subprocess.run(
            [sys.executable, "-c", KILLED, str(mixed), str(tmp_path / state), str(kill_after), str(workers)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    loader = OrbitLoader(OrbitDataset(mixed, size=8, background="random"), batch_size=1, seed=5)
    whole = []
    while loader.epoch < 2:
        for batch in loader:
            colour = [round(x, 4) for x in batch["dynamic"][0, 0, :, 0, 0].tolist()]
            whole.append([batch["uid"][0], batch["action"][0], batch["orbit"].item(), colour])
    assert len(whole) == 16
    lines = []
    for kill_after, workers in ((5, 2), (0, 1)):
        part = go("killed", kill_after, workers)
        assert part.returncode == (-signal.SIGKILL if kill_after else 0), part.stderr
        lines += [json.loads(line) for line in part.stdout.splitlines()]
    assert lines == whole
