"""OrbitLoader over what users make of a dataset: wrappers, mixed samples, options, workers without room."""

from __future__ import annotations

import dataclasses
import os
import pickle
import shutil
import subprocess
import sys
import threading

import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, get_worker_info

from orbit4d.datasets import DatasetWriter, InputError, OrbitDataset, OrbitLoader, WorkError, collate
from orbit4d.datasets.loader.collation import Batch, MissingKey
from orbit4d.datasets.loader.worker_faults import worker_faults


def colour(item):
    return tuple((item["dynamic"][0, :, 0, 0] * 255).round().int().tolist())


class Doubled(Dataset):
    """A wrapper of a user's: another name for the dataset, other indices, and no `set_epoch`."""

    def __init__(self, inner):
        self.source_of_clips = inner

    def __len__(self):
        return 2 * len(self.source_of_clips)

    def __getitem__(self, i):
        item = self.source_of_clips[i // 2]
        return {"dynamic": item["dynamic"], "uid": f"{item['uid']}-{i % 2}", "number": i // 2}


def hidden(data):
    """Held by a closure alone, where no attribute leads to it."""

    class Hidden(Dataset):
        def __len__(self):
            return len(data)

        def __getitem__(self, i):
            return {"dynamic": data[i]["dynamic"], "number": i}

    return Hidden()


class Threaded(Dataset):
    """Loads its samples in a thread of its own."""

    def __init__(self, inner):
        self.inner = inner

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, i):
        got = []
        thread = threading.Thread(target=lambda: got.append(self.inner[i]))
        thread.start()
        thread.join()
        return {"dynamic": got[0]["dynamic"], "number": i}


def expected(path, epochs):
    data, found = OrbitDataset(path, background="random", seed=4), []
    for epoch in range(epochs):
        data.set_epoch(epoch)
        found.append([colour(data[i]) for i in range(len(data))])
    return found


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, True), (1, False)])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda data: data,
        lambda data: Subset(data, range(len(data))),
        lambda data: Subset(Subset(data, list(range(len(data)))), range(len(data))),
        lambda data: ConcatDataset([Subset(data, range(2)), Subset(data, range(2, len(data)))]),
        lambda data: Subset(Doubled(data), range(0, 2 * len(data), 2)),
        hidden,
    ],
)
def test_random_backgrounds_follow_the_epoch_behind_any_wrapper(synthetic_dataset, wrap, workers, persistent):
    data = OrbitDataset(synthetic_dataset, background="random", seed=4, size=8)
    options = {"persistent_workers": persistent} if workers else {}
    loader = OrbitLoader(wrap(data), batch_size=2, shuffle=False, num_workers=workers, **options)
    want = expected(synthetic_dataset, 3)
    assert len({epoch[0] for epoch in want}) == 3
    for epoch in range(3):
        seen = [colour({"dynamic": clip}) for batch in loader for clip in batch["dynamic"]]
        assert seen == want[epoch], epoch


def test_threads_of_a_wrapper_in_a_worker_follow_too(synthetic_dataset):
    data = OrbitDataset(synthetic_dataset, background="random", seed=4, size=8)
    loader = OrbitLoader(Threaded(data), batch_size=3, shuffle=False, num_workers=1)
    want = expected(synthetic_dataset, 2)
    for epoch in range(2):
        assert [colour({"dynamic": clip}) for batch in loader for clip in batch["dynamic"]] == want[epoch]


def test_two_loaders_in_turn_keep_their_own_epochs(synthetic_dataset):
    data = OrbitDataset(synthetic_dataset, background="random", seed=4, size=8)
    first, second = (OrbitLoader(Subset(data, [0, 1]), shuffle=False) for _ in range(2))
    second.load_state_dict({**second.state_dict(), "epoch": 7})
    data.set_epoch(3)
    pairs = [(colour({"dynamic": a["dynamic"][0]}), colour({"dynamic": b["dynamic"][0]}))
             for a, b in zip(first, second)]  # fmt: skip
    want = expected(synthetic_dataset, 8)
    assert pairs == [(want[0][i], want[7][i]) for i in range(2)]


def test_a_wrapper_that_passes_the_epoch_on_is_told_it(synthetic_dataset):
    told = []

    class Told(Doubled):
        def set_epoch(self, epoch):
            told.append(epoch)

    loader = OrbitLoader(Told(OrbitDataset(synthetic_dataset, size=8)), batch_size=8)
    for _ in range(3):
        list(loader)
    assert told == [0, 1, 2]


def test_the_workers_dataset_is_still_the_users(synthetic_dataset):
    """`worker_init_fn` sets what it always set, by names of the user's."""

    def init(number):
        assert get_worker_info().dataset.source_of_clips.seed == 9

    data = Doubled(OrbitDataset(synthetic_dataset, size=8, seed=9))
    assert len(list(OrbitLoader(data, batch_size=4, num_workers=1, worker_init_fn=init))) == 4
    batched = []

    class Batched(Doubled):
        def __getitems__(self, indices):
            batched.append(list(indices))
            return [self[i] for i in indices]

    list(OrbitLoader(Batched(data.source_of_clips), batch_size=5, shuffle=False))
    assert [len(batch) for batch in batched] == [5, 5, 5, 1]


# Samples that lack different things ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def uneven(tmp_path_factory, make_clips):
    """owl has all, elk no static orbit, jay no front view and no measure, hen another number of frames."""
    folder = tmp_path_factory.mktemp("uneven") / "d"
    writer = DatasetWriter(folder, {})
    rigs = ("dynamic_orbit", "static_orbit", "front_view")
    writer.stage("elk", make_clips("elk", n_frames=3, size=16, rigs=(rigs[0], rigs[2])))
    bare = make_clips("jay", n_frames=3, size=16, rigs=rigs[:2])
    writer.stage("jay", [dataclasses.replace(clip, measures={}) for clip in bare])
    writer.stage("owl", make_clips("owl", n_frames=3, size=16, rigs=rigs))
    writer.stage("hen", make_clips("hen", n_frames=5, size=16, rigs=rigs))
    writer.roll(final=True)
    return folder


@pytest.mark.parametrize("order", [("elk", "jay", "owl"), ("owl", "jay", "elk"), ("jay", "owl", "elk")])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_holds_what_all_its_samples_have(uneven, order, workers):
    data = OrbitDataset(uneven, where="n_frames = 3")
    places = [data.uids.index(uid) for uid in order]
    batch = next(iter(OrbitLoader(Subset(data, places), batch_size=3, shuffle=False, num_workers=workers)))
    assert list(batch["uid"]) == list(order) and batch["dynamic"].shape == (3, 3, 3, 16, 16)
    items = [set(data[i]) for i in places]
    assert set(batch) == set.intersection(*items)
    assert not {"static", "alpha_static", "front", "front_c2w", "motion_magnitude"} & set(batch)
    for key, uid, fix in (
        ("static", "elk", "require=('dynamic', 'static')"),
        ("alpha_static", "elk", "require=('dynamic', 'static')"),
        ("front_K", "jay", "require=('dynamic', 'front')"),
        ("motion_magnitude", "jay", "where="),
    ):
        with pytest.raises(InputError) as caught:
            batch[key]
        assert uid in str(caught.value) and fix in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(KeyError, match="statik"):
        batch["statik"]
    assert batch.get("static") is None and "static" not in batch


def test_clips_of_different_lengths_or_sizes_are_refused_by_name(uneven):
    data = OrbitDataset(uneven)
    pair = Subset(data, [data.uids.index("owl"), data.uids.index("hen")])
    for workers in (0, 1):
        with pytest.raises(InputError, match=r"owl Run has \[3, .* hen Run has \[5, .*n_frames") as caught:
            list(OrbitLoader(pair, batch_size=2, shuffle=False, num_workers=workers))
        assert "\n" not in str(caught.value)


def test_whole_samples_are_batched_as_torch_does(synthetic_dataset):
    data = OrbitDataset(synthetic_dataset, size=8)
    items = [data[i] for i in (3, 1)]
    ours, theirs = collate(items), torch.utils.data.default_collate(items)
    assert list(ours) == list(theirs)
    assert all(
        torch.equal(ours[k], theirs[k]) if isinstance(ours[k], torch.Tensor) else ours[k] == theirs[k]
        for k in theirs
    )
    assert torch.equal(collate([(1, 2.0), (3, 4.0)])[0], torch.tensor([1, 3]))
    batch = pickle.loads(pickle.dumps(Batch({"a": 1}, {"b": "owl"})))
    with pytest.raises(MissingKey, match="owl has none"):
        batch["b"]


# Options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": 2, "persistent_workers": False},
        {"num_workers": 1, "persistent_workers": True, "prefetch_factor": 3},
        {"persistent_workers": False, "pin_memory": False},
        {"timeout": 0, "generator": torch.Generator()},
    ],
)
def test_options_of_a_dataloader_are_heeded(synthetic_dataset, options):
    loader = OrbitLoader(OrbitDataset(synthetic_dataset, size=8), batch_size=3, **options)
    assert sum(len(batch["uid"]) for batch in loader) == 8
    for name, value in options.items():
        assert getattr(loader._loader, name) == value


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sampler": [0, 1]}, "sampler=.*shuffle, seed"),
        ({"batch_sampler": [[0]]}, "batch_sampler="),
        ({"collate_fn": list}, "collate_fn=.*collate="),
        ({"in_order": False}, "in_order="),
        ({"num_worker": 2}, "num_worker=.*nearest is num_workers"),
        ({"colour": "red"}, "colour=.*known are"),
        ({"persistent_workers": True}, "num_workers"),
        ({"prefetch_factor": 2}, "prefetch_factor"),
        ({"num_workers": -1}, "num_workers"),
        ({"batch_size": None}, "batch_size=None"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_options_that_cannot_be_heeded_are_one_line(synthetic_dataset, options, says):
    with pytest.raises(InputError, match=says) as caught:
        OrbitLoader(OrbitDataset(synthetic_dataset, size=8), **options)
    assert "\n" not in str(caught.value)


# Workers -------------------------------------------------------------------------------------------------

SMALL = """
import sys
from orbit4d.datasets import OrbitDataset, OrbitLoader, WorkError
data = OrbitDataset(sys.argv[1], size=64)
print(len(list(OrbitLoader(data, batch_size=2, shuffle=False))))
try:
    list(OrbitLoader(data, batch_size=2, num_workers=1))
except WorkError as error:
    print(error)
"""


@pytest.mark.parametrize("room", ["4k", "300k", "1m"])
def test_a_small_dev_shm_is_one_line_with_the_mend(synthetic_dataset, room):
    mount = f"mount -t tmpfs -o size={room} tmpfs /dev/shm"
    if not shutil.which("unshare") or subprocess.run(["unshare", "-m", "sh", "-c", mount]).returncode:
        pytest.skip("no right to mount a small /dev/shm")
    # With 4k nothing is left, not even for the semaphores of a queue.
    fill = "head -c 4096 /dev/zero > /dev/shm/full;" if room == "4k" else ""
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} && {fill} exec "$@"', "sh", sys.executable, "-c", SMALL,
         str(synthetic_dataset)],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr[-2000:]
    assert lines[0] == "4", "without workers there is nothing to share"
    assert len(lines) == 2 and "num_workers=0" in lines[1] and "--shm-size" in lines[1], lines


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (RuntimeError("unable to write to file </torch_7_1>: No space left on device (28)"), "shm-size"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that "
                         "dataloader's workers are out of shared memory."),
            "shm-size",
        ),
        (OSError(28, "No space left on device"), "shm-size"),
        (RuntimeError("received 0 items of ancdata"), "file_system"),
        (OSError(24, "Too many open files"), "file_system"),
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), "fewer workers"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "fewer workers"),
    ],
)  # fmt: skip
def test_what_befalls_workers_names_its_mend(error, says):
    with pytest.raises(WorkError, match=says) as caught, worker_faults(3, "--set data.workers"):
        raise error
    assert "--set data.workers" in str(caught.value) and "\n" not in str(caught.value)
    for other, workers in ((RuntimeError("shapes differ"), 3), (error, 0)):
        with pytest.raises(type(other)) as caught, worker_faults(workers):
            raise other
        assert caught.value is other


def test_the_error_of_a_worker_is_one_line(synthetic_dataset):
    class Broken(Doubled):
        def __getitem__(self, i):
            raise InputError("clip 5: is too short; give where=")

    with pytest.raises(InputError) as caught:
        list(OrbitLoader(Broken(OrbitDataset(synthetic_dataset)), num_workers=1))
    assert str(caught.value) == "clip 5: is too short; give where="
