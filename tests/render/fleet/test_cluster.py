"""The cluster file against Ray's own schema, and the job script on two nodes of which one is killed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from orbit4d.datasets.core.storage import Store
from orbit4d.datasets.store.digest import dataset_digest
from orbit4d.render.planning.settings import preset

SMALL = ["--preset", "draft", "--frames", "3", "--resolution", "16", "--samples", "2"]


@pytest.fixture(scope="module")
def cluster_file(repo_root: Path) -> dict[str, Any]:
    return yaml.safe_load((repo_root / "ray_cluster.yaml").read_text())


@pytest.fixture(scope="module")
def validator() -> Any:
    import jsonschema
    import ray

    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    return jsonschema.Draft7Validator(schema)


def test_the_cluster_file_keeps_rays_schema(cluster_file: dict[str, Any], validator: Any) -> None:
    assert [error.message for error in validator.iter_errors(cluster_file)] == []
    # The validator is not a rubber stamp.
    assert list(validator.iter_errors({**cluster_file, "max_workers": "many"}))
    assert list(validator.iter_errors({**cluster_file, "unheard_of": 1}))


def uncomment(text: str, heading: str) -> dict[str, Any]:
    """The commented block that follows a comment line starting with `heading`."""
    lines = iter(text.splitlines())
    block: list[str] = []
    for line in lines:
        if line.startswith(f"# {heading}"):
            for following in lines:
                body = following[2:]
                if not following.startswith("# ") or (block and not body.startswith(" ")):
                    break
                block.append(body)
            found = yaml.safe_load("\n".join(block))
            if isinstance(found, dict):
                return found
            block = []
    raise AssertionError(f"no commented block under {heading!r}")


def test_the_commented_variants_keep_it_too(
    cluster_file: dict[str, Any], validator: Any, repo_root: Path
) -> None:
    text = (repo_root / "ray_cluster.yaml").read_text()
    google = {**cluster_file, **uncomment(text, "Google Cloud")}
    nodes = uncomment(text[text.index("gpu_worker") :], "Google Cloud")
    google |= nodes
    assert (
        google["provider"]["type"] == "gcp"
        and "machineType" in nodes["available_node_types"]["head"]["node_config"]
    )
    own = {k: v for k, v in cluster_file.items() if k not in ("available_node_types", "head_node_type")}
    own |= uncomment(text, "Machines of your own, which")
    assert own["provider"]["type"] == "local"
    for variant in (google, own):
        assert [error.message for error in validator.iter_errors(variant)] == []


def test_head_on_demand_workers_on_spot(cluster_file: dict[str, Any]) -> None:
    types = cluster_file["available_node_types"]
    assert "InstanceMarketOptions" not in types[cluster_file["head_node_type"]]["node_config"]
    assert types["worker"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert any(source == "./dist" for source in cluster_file["file_mounts"].values())
    assert cluster_file["setup_commands"][-1] == "orbit4d doctor"


def test_the_setup_installs_the_libraries_that_blender_needs(
    cluster_file: dict[str, Any], repo_root: Path
) -> None:
    lines = (repo_root / "app" / "system_packages.txt").read_text().splitlines()
    wanted = [line.split()[0] for line in lines if " lib:" in line]
    assert len(wanted) > 5
    for package in wanted:
        assert package in cluster_file["setup_commands"][0].split()


def test_the_container_has_the_ray_that_is_locked(cluster_file: dict[str, Any], repo_root: Path) -> None:
    locked = [
        line for line in (repo_root / "constraints.txt").read_text().splitlines() if line.startswith("ray==")
    ]
    assert (
        locked
        and cluster_file["docker"]["image"] == f"rayproject/ray:{locked[0].removeprefix('ray==')}-py311"
    )


def test_a_local_path_is_refused_in_one_line_that_names_file_mounts(
    tmp_path: Path, toy: Callable[..., Path], repo_root: Path
) -> None:
    path = toy(tmp_path / "toy.glb")
    for out in (str(tmp_path / "out"), "memory://out"):
        done = subprocess.run(
            [sys.executable, str(repo_root / "render" / "job.py"), "--", str(path), "--out", out],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert "file_mounts" in done.stderr and str(tmp_path) in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_job_script_survives_the_loss_of_a_node(
    tmp_path: Path,
    toy: Callable[..., Path],
    repo_root: Path,
    no_orphans: Any,
    calm_digest: Callable[..., str],
) -> None:
    """Head without cores and two nodes with one each; one node is killed in the middle of the work."""
    from ray.cluster_utils import Cluster

    source = tmp_path / "source"
    source.mkdir()
    for seed in range(4):
        toy(source / f"toy_{seed}.glb", seed)
    # The script as `ray submit` copies it: away from the checkout.
    script = tmp_path / "elsewhere" / "job.py"
    script.parent.mkdir()
    shutil.copy(repo_root / "render" / "job.py", script)
    store = {"object_store_memory": 100 << 20}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, **store},
        shutdown_at_exit=False,
    )
    try:
        doomed = cluster.add_node(num_cpus=1, **store)
        cluster.add_node(num_cpus=1, **store)
        out = tmp_path / "dataset"
        process = subprocess.Popen(
            [sys.executable, str(script), "--", str(source), "--out", str(out), *SMALL, "--shared-paths"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "RAY_ADDRESS": cluster.address},
            cwd=tmp_path,
        )
        # Children are held as they come up, so that either node has work in hand when one is killed.
        held: dict[int, psutil.Process] = {}
        deadline = time.monotonic() + 240
        while process.poll() is None and time.monotonic() < deadline and len(held) < 2:
            for child in no_orphans():
                if child.pid not in held:
                    child.suspend()
                    held[child.pid] = child
            time.sleep(0.05)
        assert len(held) == 2 and process.poll() is None
        cluster.remove_node(doomed, allow_graceful=False)
        for child in held.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                child.resume()
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    finally:
        cluster.shutdown()
    assert output.splitlines()[-1] == "input 4 = done 4 + rejected 0 + quarantined 0 + duplicate 0"
    assert "0 preemptions" not in output
    settings = preset("draft", frames=3, resolution=16, samples=2)
    assert dataset_digest(Store(out)) == calm_digest(source, tmp_path / "calm", settings)
