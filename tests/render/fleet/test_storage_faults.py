"""Storage that fails under a run on two nodes: it is waited for, costs no attempt, and changes no byte."""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orbit4d.datasets.core.errors import InputError, StorageFailed, StorageFault
from orbit4d.datasets.core.paths import localize
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.operations.verify import verify
from orbit4d.datasets.sources.asset import Asset, Resolved
from orbit4d.datasets.store import rejections
from orbit4d.datasets.store.digest import dataset_digest
from orbit4d.datasets.store.rejections import Rejection
from orbit4d.datasets.store.writer import DatasetWriter
from orbit4d.render.fleet.settings import FleetSettings
from orbit4d.render.planning.settings import preset

pytestmark = pytest.mark.ray

module = importlib.import_module("orbit4d.render.dataset.render_assets")
N = 8
_number = itertools.count()


@pytest.fixture(scope="module")
def inputs(nodes: Any) -> list[str]:
    """Files of N assets in the bucket; what is rendered of them follows from their names."""
    store = Store("s3://orbit/in")
    for i in range(N):
        store.put(f"u{i:02d}.glb", f"asset {i}".encode())
    return ["s3://orbit/in"]


@pytest.fixture(scope="module")
def calm(nodes: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the same assets, staged and rolled on this machine."""
    import fleet_jobs

    writer = DatasetWriter(tmp_path_factory.mktemp("calm") / "d", preset("draft").as_config())
    for i in range(N):
        uid = f"u{i:02d}"
        writer.stage(uid, fleet_jobs.drawn(uid), fleet_jobs.told(uid))
    writer.roll(final=True)
    return writer.digest()


@pytest.fixture
def render(nodes: Any, inputs: list[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., threading.Thread]:
    """`render(out, nap=0.0, **fleet)`: a run in a thread, whose `summary` or `error` is there in the end."""
    import fleet_jobs

    def start(out: str, nap: float = 0.0, **fleet: Any) -> threading.Thread:
        settings = FleetSettings(**{"workers": 2, "threads_per_worker": 1, "storage_patience": 60.0, **fleet})
        monkeypatch.setattr(module, "asset_job", functools.partial(fleet_jobs.job_of, nap=nap))

        def run() -> None:
            try:
                thread.summary = module.render_assets(  # type: ignore[attr-defined]
                    inputs, out, preset("draft"), settings, shard_bytes=20_000, quiet=True
                )
            except BaseException as error:
                thread.error = error  # type: ignore[attr-defined]

        thread = threading.Thread(target=run)
        thread.error = thread.summary = None  # type: ignore[attr-defined]
        thread.start()
        return thread

    return start


@pytest.fixture
def out() -> str:
    return f"s3://orbit/out{next(_number)}"


def ended(thread: Any) -> Any:
    thread.join(240)
    assert not thread.is_alive()
    if thread.error is not None:
        raise thread.error
    return thread.summary


def check_whole(summary: Any, out: str, calm: str) -> None:
    """Every asset done at one attempt each, none rejected, the bytes of a calm run, nothing left over."""
    assert (summary.input, summary.done, summary.quarantined, summary.left) == (N, N, 0, 0)
    assert dataset_digest(Store(out)) == calm
    assert verify(out).findings == []
    assert {row.action for row in rejections.read(Store(out))} == {"Rest"}
    assert [name for name in Store(out).tree() if name.startswith(("staging/", ".lease", ".tmp"))] == []


def wait_for(what: Callable[[], Any], seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "what was waited for did not come"
        time.sleep(0.05)


def staged(weather: Any) -> int:
    """Assets whose rows were put into staging."""
    return sum(method == "PUT" and "/staging/" in path and ".parquet" in path for method, path in weather.log)


@pytest.mark.parametrize(("latency", "fail_every"), [(0.03, 10), (0.3, 0)], ids=["tenth", "slow"])
def test_slow_and_failing_requests_change_nothing(
    latency: float, fail_every: int, weather: Any, render: Any, out: str, calm: str
) -> None:
    weather.latency, weather.fail_every = latency, fail_every
    summary = ended(render(out))
    weather.clear()
    check_whole(summary, out, calm)
    assert summary.attempts == N


def test_a_bucket_that_is_gone_is_waited_for(weather: Any, render: Any, out: str, calm: str) -> None:
    run = render(out, nap=0.3)
    wait_for(lambda: staged(weather) >= 3)
    weather.always = "NoSuchBucket"
    time.sleep(2.5)
    weather.always = ""
    summary = ended(run)
    check_whole(summary, out, calm)
    assert summary.attempts == N


def test_a_bucket_that_comes_and_goes_loses_no_file(weather: Any, inputs: list[str], tmp_path: Path) -> None:
    """Whichever requests of a fetch one outage meets: a file, or a fault of storage, never "missing"."""
    for number, (before, length) in enumerate(itertools.product(range(6), range(1, 8))):
        script = [""] * before + ["NoSuchBucket"] * length
        weather.clear()
        weather.script = script.copy()
        (folder := tmp_path / str(number)).mkdir()
        try:
            path = localize("s3://orbit/in/u00.glb", folder)
        except StorageFault:
            assert len(weather.script) < length
        else:
            assert Path(path).read_bytes() == b"asset 0" and Path(path).parent == folder
    weather.clear()
    with pytest.raises(FileNotFoundError):
        localize("s3://orbit/in/none.glb", tmp_path)


def test_credentials_lost_beyond_patience_end_the_run_which_is_resumed(
    weather: Any, render: Any, out: str, calm: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run = render(out, nap=0.3, storage_patience=2.0)
    wait_for(lambda: staged(weather) >= 2)
    weather.always = "AccessDenied"
    with pytest.raises(StorageFailed, match=r"storage has failed for .*run the same command again") as caught:
        ended(run)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 1
    assert "storage: " in (said := capfd.readouterr().err) and "the run ends in" in said
    weather.clear()
    assert all(row.action for row in rejections.read(Store(out))), "no asset is to blame"
    done = len(DatasetWriter(out, preset("draft").as_config()).finished())
    assert 2 <= done < N
    # The lease could not be given back, and its holder is this very process, which lives.
    Store(out).delete([name for name in Store(out).list("") if name.startswith(".lease-")])
    summary = ended(render(out))
    check_whole(summary, out, calm)
    assert summary.attempts == N - done


def test_workers_without_credentials_end_the_run_in_one_line(
    weather: Any, nodes: Any, render: Any, out: str
) -> None:
    lacking = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    poor = nodes.add_node(num_cpus=1, object_store_memory=100 << 20, env_vars=lacking)
    try:
        with pytest.raises(StorageFailed, match=r"worker on .*: cannot .*credentials") as caught:
            ended(render(out, workers=3, nap=0.5))
    finally:
        nodes.remove_node(poor)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 1
    assert "every worker must be able to read the input and write the output" in str(caught.value)
    assert [row for row in rejections.read(Store(out)) if not row.action] == []


def test_one_input_that_is_denied_is_given_up_alone(weather: Any, render: Any, out: str) -> None:
    weather.denied = "/in/u05.glb"
    summary = ended(render(out))
    assert (summary.input, summary.done, summary.quarantined) == (N, N - 1, 0)
    assert summary.reasons == {"bad_file:unreadable": 1}


def test_a_second_driver_is_refused_while_the_first_works(
    weather: Any, render: Any, out: str, calm: str
) -> None:
    first = render(out, nap=0.3)
    wait_for(lambda: staged(weather) >= 1)
    with pytest.raises(InputError, match=rf"{out}: is being written by render of .*process {os.getpid()}"):
        ended(render(out, nap=0.3))
    check_whole(ended(first), out, calm)


def test_assets_that_storage_had_quarantined_are_tried_again(tmp_path: Path) -> None:
    details = {
        "u0": "OSError: [Errno 28] No space left on device",
        "u1": "cannot write s3://b/staging/u1.tar: Unable to locate credentials; check the address and the "
        "credentials",
        "u2": "cannot write s3://b/staging/u2.tar: [Errno 16] Please reduce your request rate. (file 00ab)",
        "u3": "cannot read the armature: it has no bones",
        "u4": "the child ended with SIGSEGV",
    }
    writer = DatasetWriter(tmp_path / "d", {})
    writer.reject(
        [Rejection(uid, "", "render", "quarantined:error", text, 2) for uid, text in details.items()]
    )
    run = module._Run(writer, module.RenderSummary(), FleetSettings(), True, module.RemoteHashes())
    resolved = Resolved([Asset(uid, f"{uid}.glb", "00ab" * 16, "glb", 1) for uid in (*details, "u5")])
    try:
        assert [a.uid for a in run.left_over(resolved, False)] == ["u0", "u1", "u2", "u5"]
        assert len(run.left_over(resolved, True)) == 6
    finally:
        run.roller.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """`small_disk("4m")`: a file system of that size, or the same one of another size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def size(text: str) -> Path:
        nonlocal mounted
        if os.geteuid() != 0 or shutil.which("mount") is None:
            pytest.skip("only root may mount a small disk")
        options = f"{'remount,' if mounted else ''}size={text}"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        mounted = True
        return folder

    yield size
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def test_a_disk_that_fills_is_waited_for_until_it_is_enlarged(
    small_disk: Callable[[str], Path], render: Any, calm: str, capfd: pytest.CaptureFixture[str]
) -> None:
    disk = small_disk("1m")
    ballast = disk / "ballast"
    out = disk / "dataset"
    run = render(str(out), nap=0.2)
    wait_for(lambda: len(list(out.glob("staging/*.parquet")) + list(out.glob("index/*.parquet"))) >= 2)
    with open(ballast, "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    said = ""

    def complained() -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return "the disk is full" in said

    wait_for(complained)
    assert run.is_alive()
    small_disk("16m")
    summary = ended(run)
    ballast.unlink()
    check_whole(summary, str(out), calm)
    assert summary.attempts == N
