"""Each tutorial is followed word for word, on small data: every console block, then every Python block.

Blocks behind a comment `<!-- needs ... -->` are run where the test brings what they need: two nodes
of Ray and a bucket, on this machine. What needs a cloud account is not run; test_docs.py checks its options.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orbit4d.app.cli import command as umbrella
from orbit4d.datasets import Clip, DatasetWriter, write_video
from orbit4d.datasets.commands import command as command_of

ROOT = Path(__file__).resolve().parent.parent
TUTORIALS = ROOT / "docs" / "tutorials"

#: Behind the words of a page's command: the same work, smaller. Of an option given twice the last counts.
SMALLER = {
    "curate": ["--workers", "1", "--previews", "none"],
    "render": ["--frames", "4", "--resolution", "64", "--samples", "1", "--workers", "1"],
    # The model keeps its number of sampling steps; the Python block of the page takes it from there.
    "train": ["--steps", "2", "--batch", "1", "--set", "sample.steps=2"],
    "generate": ["--steps", "2"],
    "recon4d": ["--steps", "10", "--threads", "1"],
    "film": ["--frames", "3", "--size", "32"],
    "eval run": ["--steps", "1"],
}


#: What the test of the cluster's page brings.
HERE = ("a bucket", "machines", "a cluster")


def blocks(page: str, at_hand: Collection[str] = ()) -> list[tuple[str, str]]:
    """(language, text) of a page's blocks that can be run with what is `at_hand`, in order."""
    text = (TUTORIALS / page).read_text()
    found = re.findall(
        r"(?:<!-- needs ([^>]*) -->\n)?^```(console|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL
    )
    assert found
    return [(language, body) for mark, language, body in found if not mark or mark in at_hand]


def smaller(words: list[str]) -> list[str]:
    """The line of a page as it is run here."""
    name = " ".join(words[1:3]) if words[1] == "eval" else words[1]
    # A dry run has no steps; what is measured already is decided without workers and previews.
    if "--dry-run" in words or (name == "curate" and "assets" not in words[2]):
        return words
    return [*words, *SMALLER.get(name, [])]


def run(words: list[str], folder: Path) -> str:
    """What a line says; its exit code must be 0. `view`, which serves for ever, is stopped by Ctrl-C.

    What starts no Blender runs in this process, which has imported torch already.
    """
    command = [sys.executable, "-m", "orbit4d.app", *smaller(words)[1:]]
    if words[1] == "view":
        return view(command, folder)
    if words[1] not in ("curate", "render"):
        return run_here(words, folder)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def run_here(words: list[str], folder: Path) -> str:
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = command_of.run(umbrella, smaller(words)[1:], prog_name="orbit4d")
    said, why = out.getvalue(), errors.getvalue()
    assert code == 0, f"{shlex.join(words)}\n{said[-1000:]}\n{why[-2000:]}"
    return said


def view(command: list[str], folder: Path) -> str:
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    # A suite that a shell started in the background ignores Ctrl-C, and so would its children.
    ended = signal.signal(signal.SIGINT, signal.default_int_handler)
    child = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, env=env)
    signal.signal(signal.SIGINT, ended)
    with child:
        assert child.stdout is not None
        said, end = "", time.monotonic() + 200
        while "http://" not in said and child.poll() is None and time.monotonic() < end:
            if select.select([child.stdout], [], [], 1.0)[0]:
                said += child.stdout.readline()
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)
    assert "http://" in said
    return said


def follow(
    page: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tools: Mapping[str, Callable[[list[str]], str]] | None = None,
    at_hand: Collection[str] = (),
) -> tuple[list[str], dict[str, Any]]:
    """Run a page's blocks in `folder`; returns what each line said, and the names of the Python blocks.

    `tools` stand in for other programs than orbit4d, and serve the blocks that need what is `at_hand`.
    """
    monkeypatch.chdir(folder)
    said: list[str] = []
    names: dict[str, Any] = {}
    variables: dict[str, str] = {}
    for language, body in blocks(page, at_hand):
        if language == "python":
            exec(compile(body, page, "exec"), names)
            continue
        for line in body.replace("\\\n", " ").splitlines():
            if not line.startswith("$ "):
                continue
            words = [variables.get(word.removeprefix("$"), word) for word in shlex.split(line[2:])]
            if assigned := re.fullmatch(r"([A-Z_]+)=(.*)", words[0]):
                variables[assigned[1]] = assigned[2]
            elif tools and words[0] in tools:
                said.append(tools[words[0]](words))
            else:
                assert words[0] == "orbit4d", f"{page}: {line}: mark what cannot be run here"
                said.append(run(words, folder))
    return said, names


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, make_clips: Callable[..., list[Clip]]) -> Path:
    """What `make demo` leaves, in small: three assets, their table, a dataset of drawn clips, an image."""
    from orbit4d.app.demo.source import build_assets
    from orbit4d.datasets import decode

    folder = tmp_path_factory.mktemp("made") / "demo"
    build_assets(folder / "assets", ("dino", "slime", "vase"))
    table = ["curate", "assets", "--captions", "assets/captions.csv", "--out", "table.parquet"]
    run(["orbit4d", *table], folder)
    writer = DatasetWriter(str(folder / "dataset"), {"frames": 8})
    for uid in ("dino", "slime"):
        clips = make_clips(uid, caption=f"a {uid}")
        writer.stage(uid, clips)
    writer.roll(final=True)
    (folder / "generated").mkdir()
    Image.fromarray(decode(clips[2].frames[0])).save(folder / "generated" / "input.png")
    return folder


@pytest.fixture
def work(tmp_path: Path, demo: Path) -> Path:
    """A folder to follow a page in, with a `demo/` of its own."""
    shutil.copytree(demo, tmp_path / "work" / "demo")
    return tmp_path / "work"


def test_every_tutorial_is_followed_here() -> None:
    followed = set(re.findall(r'follow\(\s*"([\w-]+\.md)"', Path(__file__).read_text()))
    assert followed == {page.name for page in TUTORIALS.glob("*.md")}


def test_only_what_needs_a_cluster_is_left_out() -> None:
    for page in TUTORIALS.glob("*.md"):
        marks = re.findall(r"<!-- needs ([^>]*) -->", page.read_text())
        assert set(marks) <= {*HERE, "a cloud account"}
        assert not marks or page.name == "dataset-on-a-cluster.md"


def test_curating(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, _ = follow("curating.md", work, monkeypatch)
    # A still vase and a cut file are refused.
    assert "accepted 2, rejected 2, failed 0" in said[0]
    assert (work / "report" / "index.html").is_file()
    assert "done 2 " in said[2] and (work / "good" / "dataset.json").is_file()


class Machines:
    """`ray` and `aws` of the page: nodes on this machine that know of no store, and a made-up S3."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cluster = folder, None

    def ray(self, words: list[str]) -> str:
        if words[1:3] == ["job", "submit"]:
            return self.submit(words[words.index("--runtime-env-json") + 1], words[words.index("--") + 1 :])
        from ray.cluster_utils import Cluster

        assert words[1] == "start"
        store = {"object_store_memory": 100 << 20}
        with without_store():
            if "--head" in words:
                [cpus] = [int(word.partition("=")[2]) for word in words if word.startswith("--num-cpus")]
                head = {"num_cpus": cpus, "include_dashboard": False, **store}
                self.cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
            else:
                self.cluster.add_node(num_cpus=1, **store)
        return ""

    def submit(self, runtime_env: str, entry: list[str]) -> str:
        """What Ray's job manager does with an entry point (dashboard/modules/job/job_supervisor.py)."""
        asked = json.loads(runtime_env)["env_vars"]
        assert set(asked) <= set(os.environ)
        given = {name: os.environ[name] for name in asked}
        job = {"runtime_env": {"env_vars": given}, "metadata": {}}
        name = "render" if "orbit4d.render.job" in entry else entry[1]
        options = [*SMALLER[name], "--workers", "2"]
        words = [
            sys.executable,
            *(["-m", "orbit4d.app"] if entry[0] == "orbit4d" else []),
            *entry[1:],
            *options,
        ]
        with without_store():
            env = {**os.environ, **given, "RAY_ADDRESS": self.cluster.address}
        env["RAY_JOB_CONFIG_JSON_ENV_VAR"] = json.dumps(job)
        done = subprocess.run(
            words, cwd=self.folder, capture_output=True, text=True, timeout=400, check=False, env=env
        )
        assert done.returncode == 0, f"{shlex.join(entry)}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    def aws(self, words: list[str]) -> str:
        import s3fs

        store = s3fs.S3FileSystem()
        if words[1:3] == ["s3", "mb"]:
            store.mkdir(words[3].removeprefix("s3://"))
        else:
            assert words[1:3] == ["s3", "cp"] and words[-1] == "--recursive"
            store.put(str(self.folder / words[3]) + "/", words[4], recursive=True)
        return ""

    def close(self) -> None:
        if self.cluster is not None:
            self.cluster.shutdown()


@contextlib.contextmanager
def without_store() -> Iterator[None]:
    """No word of the bucket in this process's environment: nodes and jobs are told by the page alone."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        yield


@pytest.fixture
def machines(work: Path, bucket: str) -> Iterator[Machines]:
    found = Machines(work)
    yield found
    found.close()


def test_dataset_on_a_cluster(
    work: Path, monkeypatch: pytest.MonkeyPatch, make_dataset: Any, machines: Machines
) -> None:
    """Word for word on two nodes with a store of their own; the digest is that of the one machine."""
    make_dataset(str(work / "night1"), assets=2)
    make_dataset(str(work / "night2"), assets=4)
    tools = {"ray": machines.ray, "aws": machines.aws}
    said, names = follow("dataset-on-a-cluster.md", work, monkeypatch, tools, HERE)
    assert "input 2 = done 2" in said[0]
    digests = [line for text in said for line in text.splitlines() if line.startswith("digest ")]
    assert len(digests) == 2 and digests[0] == digests[1]
    [curated] = [text for text in said if "actions: accepted" in text]
    assert "accepted 2, rejected 2, failed 0" in curated
    [watched, paged] = [text for text in said if "finished on" in text]
    assert "done 2 (2 in shards, 0 staged), rejected 0, quarantined 0 of 2 inputs" in watched
    assert "page status.html" in paged and "finished" in (work / "status.html").read_text()
    assert names["remote"].shape == (1, 4, 3, 128, 128) and names["video"].shape == (4, 3, 128, 128)
    assert any((work / "published").iterdir())


def test_finetuning(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, names = follow("finetuning.md", work, monkeypatch)
    assert "GiB" in said[1]
    assert (work / "high.mp4").is_file() and (work / "high" / "transforms.json").is_file()
    assert names["frames"].ndim == 4 and names["frames"].shape[-1] == 3
    assert (work / "results" / "index.html").is_file()


def test_from_an_orbit_video(
    work: Path, monkeypatch: pytest.MonkeyPatch, make_clips: Callable[..., list[Clip]]
) -> None:
    clip = make_clips("ball", rigs=("dynamic_orbit",), n_frames=12, size=64)[0]
    rgba = np.stack(clip.pixels()).astype(np.float32)
    alpha = rgba[..., 3:] / 255
    frames = (rgba[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
    write_video(work / "orbit.mp4", frames)
    said, names = follow("from-an-orbit-video.md", work, monkeypatch)
    assert "PSNR" in said[0] and (work / "orbit.scene" / "scene.json").is_file()
    assert (work / "film.mp4").is_file() and (work / "half.splat").stat().st_size % 32 == 0
    assert names["image"].shape[-1] == 4
