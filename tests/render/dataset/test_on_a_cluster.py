"""Two nodes with caches of their own, a made-up S3 and a made-up Hugging Face hub: Objaverse and curation."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from orbit4d.curate.cli import command as curate_command
from orbit4d.curate.measuring import measure_sources
from orbit4d.datasets import InputError, OrbitError
from orbit4d.datasets.commands import ray_token
from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.index.index import Index
from orbit4d.datasets.operations import run_progress
from orbit4d.datasets.operations.status import Status, StatusReader
from orbit4d.datasets.store.digest import dataset_digest
from orbit4d.render.dataset.render_assets import render_assets
from orbit4d.render.fleet.settings import FleetSettings
from orbit4d.render.planning.settings import preset

pytestmark = [pytest.mark.blender, pytest.mark.ray]

SETTINGS = preset("draft", frames=3, resolution=16, samples=2, rigs=("dynamic_orbit",))
IDS = {name: name * 32 for name in "abcde"}
FOLDER = "glbs/000-000"


@dataclass
class Hub:
    """Files by the path of their request, and how often each was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    busy_first: bool = False
    """The first request for each object is answered 503."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, path: str) -> tuple[int, bytes]:
        with self.lock:
            self.asked[path] += 1
            if self.busy_first and path.endswith(".glb") and self.asked[path] == 1:
                return 503, b""
        return (200, self.files[path]) if path in self.files else (404, b"")


@pytest.fixture(scope="module")
def hub(toy: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """Objaverse with five objects: a does not move, d is b again; c's published hash is another one's."""
    made = Hub(busy_first=True)
    folder = tmp_path_factory.mktemp("objects")
    data = {name: toy(folder / f"{name}.glb", seed).read_bytes() for seed, name in enumerate("abce")}
    data["d"] = data["b"]
    paths = {uid: f"{FOLDER}/{uid}.glb" for uid in IDS.values()}
    notes = {
        uid: {"animationCount": int(name != "a"), "license": "by", "user": {"displayName": "Somebody"},
              "viewerUrl": f"https://example.org/{uid}", "name": f"Toy {name}"}
        for name, uid in IDS.items()
    }  # fmt: skip
    resolve = "/datasets/allenai/objaverse/resolve/main/"
    made.files[f"{resolve}object-paths.json.gz"] = gzip.compress(json.dumps(paths).encode())
    made.files[f"{resolve}metadata/000-000.json.gz"] = gzip.compress(json.dumps(notes).encode())
    listing = []
    for name, uid in IDS.items():
        made.files[resolve + paths[uid]] = data[name]
        oid = hashlib.sha256(data[name] if name != "e" else b"another").hexdigest()
        listing.append({"type": "file", "path": paths[uid], "size": len(data[name]), "lfs": {"oid": oid}})
    made.files[f"/api/datasets/allenai/objaverse/tree/main/{FOLDER}?limit=1000"] = json.dumps(
        listing
    ).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = made.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            """Quietly."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield made
    server.shutdown()


@dataclass
class Nodes:
    """A cluster, and the home folders of its nodes."""

    address: str
    homes: list[Path]

    def cached(self) -> list[str]:
        """Names of the objects in the nodes' caches."""
        return [path.name for home in self.homes for path in home.rglob("*.glb")]

    @property
    def fleet(self) -> FleetSettings:
        return FleetSettings(address=self.address, workers=2)


@pytest.fixture(scope="module")
def no_token() -> Iterator[None]:
    """A Ray that another test started leaves the mode, and its token in the user's home: nodes with homes of
    their own would look for it in vain.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.delenv("RAY_AUTH_TOKEN", raising=False)
        ray_token._read_again()
        yield
    ray_token._read_again()


@pytest.fixture(scope="module")
def nodes(no_token: None, hub: Hub, bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Head without cores and two nodes with one each."""
    from ray.cluster_utils import Cluster

    store = {"object_store_memory": 100 << 20}
    head = {"num_cpus": 0, "include_dashboard": False, **store}
    cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
    homes = [tmp_path_factory.mktemp("home") for _ in range(2)]
    for home in homes:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOME", str(home))
            cluster.add_node(num_cpus=1, **store)
    yield Nodes(cluster.address, homes)
    cluster.shutdown()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The driver's own cache, empty."""
    import objaverse

    monkeypatch.setattr(objaverse, "BASE_PATH", str(tmp_path / "cache"))
    monkeypatch.setattr(objaverse, "_VERSIONED_PATH", str(tmp_path / "cache" / "hf-objaverse-v1"))
    return tmp_path / "cache"


@contextlib.contextmanager
def watched(out: str) -> Iterator[list[Status]]:
    """Looks at a dataset again and again for the time of the body, as from another terminal."""
    seen: list[Status] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.3):
            with contextlib.suppress(OrbitError):  # there is no dataset yet
                seen.append(StatusReader(out).look())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def test_objaverse_is_rendered_as_on_one_machine(
    nodes: Nodes,
    hub: Hub,
    cache: Path,
    bucket: str,
    calm_digest: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = f"{bucket}/objaverse"
    monkeypatch.setattr(run_progress, "EVERY_REMOTE_S", 0.3)
    with watched(out) as seen:
        summary = render_assets(["objaverse:animated"], out, SETTINGS, nodes.fleet, quiet=True)
    working = [status for status in seen if status.alive and status.run is not None and status.run.workers]
    assert working and working[0].run is not None
    assert (working[0].run.input, working[0].run.todo) == (4, 3)
    last = StatusReader(out).look()
    assert last.run is not None and last.run.state == "finished" and last.run.left == 0
    assert (last.committed, last.staged, last.reasons) == (2, 0, {"bad_file:changed": 1})
    # What does not move is not asked for, d is b again, and e is not what was published.
    assert summary.line == "input 4 = done 2 + rejected 1 + quarantined 0 + duplicate 1"
    assert summary.reasons == {"bad_file:changed": 1} and summary.preemptions == 0
    # Workers have downloaded, each into its node's cache, and have tried again where the hub was busy.
    assert not list(cache.rglob("*.glb"))
    assert set(nodes.cached()) == {f"{IDS[name]}.glb" for name in "bce"}
    resolve = "/datasets/allenai/objaverse/resolve/main/"
    assert (
        hub.asked[f"{resolve}{FOLDER}/{IDS['b']}.glb"] == 2
        and not hub.asked[f"{resolve}{FOLDER}/{IDS['d']}.glb"]
    )
    [(_, table)] = Index(out).read(["uid", "license", "author", "source_url", "caption", "asset_sha256"])
    row = next(row for row in table.to_pylist() if row["uid"] == IDS["b"])
    assert (row["license"], row["author"], row["caption"]) == ("CC-BY-4.0", "Somebody", "Toy b")
    assert row["source_url"].endswith(IDS["b"]) and len(row["asset_sha256"]) == 64
    # On one machine the first sound file counts: the hub's list is not asked there. So e is left out by name.
    (tmp_path / "ids.txt").write_text(f"{IDS['b']}\n{IDS['c']}\n{IDS['d']}\n")
    assert dataset_digest(Store(out)) == calm_digest(tmp_path / "ids.txt", tmp_path / "calm", SETTINGS)


def test_objaverse_is_curated_as_on_one_machine(nodes: Nodes, hub: Hub, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text(f"{IDS['b']}\n{IDS['c']}\n{IDS['d']}\n{'f' * 32}\n")
    found = measure_sources([str(tmp_path / "ids.txt")], fleet=nodes.fleet)
    assert [asset.uid for asset in found.resolved.assets] == [IDS["b"], IDS["c"]]
    assert len(found.resolved.duplicates) == 1 and [r[2] for r in found.resolved.rejected] == ["unknown_id"]
    # The same files from a disk that every node sees.
    (tmp_path / "plain").mkdir()
    for name in "bc":
        data = hub.files[f"/datasets/allenai/objaverse/resolve/main/{FOLDER}/{IDS[name]}.glb"]
        (tmp_path / "plain" / f"{IDS[name]}.glb").write_bytes(data)
    shared = FleetSettings(address=nodes.address, workers=2, shared_paths=True)
    plain = measure_sources([str(tmp_path / "plain")], fleet=shared)
    same = ["uid", "action", "status", "asset_sha256", "bytes", "motion_geometry", "n_triangles", "phash"]
    measured = found.table.filter([status == "measured" for status in found.table["status"].to_pylist()])
    assert measured.select(same).equals(plain.table.select(same)) and measured.num_rows == 6
    assert set(measured["path"].to_pylist()) == {f"objaverse://{FOLDER}/{IDS[name]}.glb" for name in "bc"}
    assert set(measured["caption"].to_pylist()) == {"Toy b", "Toy c"}


def curate(*arguments: object) -> str:
    """What the command says; its own errors are raised."""
    result = CliRunner().invoke(curate_command, [str(a) for a in arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.output


def test_local_paths_are_refused_before_ray_is_looked_for(tmp_path: Path, toy: Callable[..., Path]) -> None:
    path = toy(tmp_path / "toy.glb")
    with pytest.raises(InputError, match="--shared-paths") as caught:
        curate(path, "--out", tmp_path / "t.parquet", "--address", "10.0.0.1:1")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not list(tmp_path.glob("t.parquet*"))


def test_a_killed_curation_of_a_bucket_is_resumed(
    nodes: Nodes, bucket: str, toy: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 8
    store = Store(f"{bucket}/assets")
    for seed in range(n):
        store.put(f"toy{seed:02d}.glb", toy(tmp_path / f"{seed}.glb", seed).read_bytes())
    store.put("zzz.glb", (tmp_path / "0.glb").read_bytes()[:700])
    out = f"{bucket}/tables/table.parquet"
    words = [store.uri, "--out", out, "--address", nodes.address, "--workers", "1", "--preview-size", "32"]
    journal = Store(f"{out}.journal")
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "orbit4d.app", "curate", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "RAY_ADDRESS": nodes.address},
    )
    try:
        deadline = time.monotonic() + 240
        while not any(not name.startswith("000000-") for name in journal.list("", ".jsonl")):
            assert time.monotonic() < deadline and process.poll() is None, process.communicate()[0]
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.communicate(timeout=60)
    assert not Store(f"{bucket}/tables").exists("table.parquet")
    said = curate(*words)
    [line] = [line for line in said.splitlines() if line.startswith("input ")]
    known = int(line.partition("(")[2].partition(" ")[0])
    assert line.startswith(f"input {n + 1} = measured {n} (") and "rejected 1 + failed 0" in line
    assert known >= 1
    assert not journal.list("", ".jsonl")
    rows = pq.read_table(Store(f"{bucket}/tables").open("table.parquet")).to_pylist()
    data = {f"toy{seed:02d}": (tmp_path / f"{seed}.glb").read_bytes() for seed in range(n)}
    data["zzz"] = data["toy00"][:700]
    assert {row["uid"] for row in rows} == set(data)
    for row in rows:
        assert row["asset_sha256"] == hashlib.sha256(data[row["uid"]]).hexdigest()
        assert row["bytes"] == len(data[row["uid"]]) and row["asset_version"]

    def forbidden(*args: object, **how: object) -> None:
        raise AssertionError("a fleet was started")

    # By its version in the store an asset is known without a download: nobody is there to do it.
    monkeypatch.setattr("orbit4d.render.fleet.driver.run_fleet", forbidden)
    assert f"measured {n} ({n + 1} known already) + rejected 1" in curate(*words)
    # Other contents under the same name are measured again.
    store.put("toy00.glb", (tmp_path / "0.glb").read_bytes().ljust(40_000, b"\0"))
    with pytest.raises(AssertionError, match="a fleet was started"):
        curate(*words)


def test_what_is_missing_is_no_verdict(
    nodes: Nodes, bucket: str, toy: Callable[..., Path], tmp_path: Path
) -> None:
    """Neither where the driver looks for it, nor where only the worker does, since its hash is promised."""
    data = [toy(tmp_path / f"{i}.glb", i).read_bytes() for i in range(3)]
    store = Store(f"{bucket}/late")
    store.put("here.glb", data[0])
    sha256 = hashlib.sha256(data[2]).hexdigest()
    store.put("list.csv", f"path,sha256\nhere.glb,\nlooked_for.glb,\npromised.glb,{sha256}\n".encode())
    words = [f"{store.uri}/list.csv", "--out", f"{store.uri}/t.parquet", "--address", nodes.address]
    words += ["--previews", "none", "--workers", "1"]
    said = curate(*words)
    assert "input 3 = measured 1 + rejected 0 + failed 2 + duplicate 0" in said
    rows = {row["uid"]: row for row in pq.read_table(store.open("t.parquet")).to_pylist()}
    for name in ("looked_for", "promised"):
        assert (rows[name]["verdict"], rows[name]["failure"]) == ("failed", "bad_file:missing")
    store.put("looked_for.glb", data[1])
    store.put("promised.glb", data[2])
    assert "input 3 = measured 3 (1 known already) + rejected 0 + failed 0 + duplicate 0" in curate(*words)
