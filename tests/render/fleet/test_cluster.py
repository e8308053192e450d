"""The cluster file against Ray's own schema, and the job script on two nodes of which one is killed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
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


# Roles, images, set-up ------------------------------------------------------------------------------------


def test_head_and_workers_have_one_role(cluster_file: dict[str, Any], repo_root: Path) -> None:
    """Ray gives a role of its own to the head alone: workers could neither read assets nor write clips."""
    text = (repo_root / "ray_cluster.yaml").read_text()
    types = cluster_file["available_node_types"]
    assert {str(kind["node_config"]["IamInstanceProfile"]) for kind in types.values()} == {
        "{'Name': 'orbit4d-render'}"
    }
    nodes = uncomment(text[text.index("gpu_worker") :], "Google Cloud")["available_node_types"]
    accounts = [kind["node_config"]["serviceAccounts"] for kind in nodes.values()]
    assert len(accounts) == 2 and accounts[0] == accounts[1]
    import ray

    # Ray's module needs Google's client; the names of the account that it makes stand at its top.
    code = (Path(ray.__file__).parent / "autoscaler" / "_private" / "gcp" / "config.py").read_text()
    names: dict[str, Any] = {}
    wanted = r"(?:RAY|VERSION|DEFAULT_SERVICE_ACCOUNT_ID|SERVICE_ACCOUNT_EMAIL_TEMPLATE) = "
    for line in re.findall(rf"^{wanted}(?:\(.*?\n\)|.*?)$", code, re.MULTILINE | re.DOTALL):
        exec(line, names)
    template, number = names["SERVICE_ACCOUNT_EMAIL_TEMPLATE"], names["DEFAULT_SERVICE_ACCOUNT_ID"]
    [account] = accounts[0]
    assert account["email"] == template.format(account_id=number, project_id="your-project")


def aws_lines(text: str) -> list[list[str]]:
    return [shlex.split(line.lstrip("# ")) for line in text.splitlines() if re.match(r"#\s+aws ", line)]


def aws(words: list[str]) -> Any:
    """What `aws SERVICE OPERATION --options` does, by boto3 and without the command."""
    boto3 = pytest.importorskip("boto3")
    _, service, operation, *options = words
    given = dict(zip(options[::2], options[1::2], strict=True))

    def name(option: str) -> str:
        return "".join(part.capitalize() for part in option.removeprefix("--").split("-"))

    call = getattr(boto3.client(service), operation.replace("-", "_"))
    return call(**{name(option): value for option, value in given.items()})


def test_the_role_is_made_as_the_file_says(
    bucket: str, repo_root: Path, cluster_file: dict[str, Any]
) -> None:
    """The commands of the comments, on a made-up AWS; the policy allows what reading and writing calls."""
    boto3 = pytest.importorskip("boto3")
    lines = aws_lines((repo_root / "ray_cluster.yaml").read_text())
    assert len(lines) == 5
    for words in lines:
        if words[2] == "attach-role-policy":
            # Amazon's own policies are not on the made-up AWS; the list of their names is.
            known = pytest.importorskip("moto.iam.aws_managed_policies").aws_managed_policies_data
            assert f'"{words[-1].rpartition("/")[2]}":{{' in known
            continue
        aws(words)
    name = cluster_file["available_node_types"]["worker"]["node_config"]["IamInstanceProfile"]["Name"]
    iam = boto3.client("iam")
    profile = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
    [role] = profile["Roles"]
    trusted = role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]["Service"]
    assert trusted == "ec2.amazonaws.com"
    [policy] = iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]
    document = iam.get_role_policy(RoleName=role["RoleName"], PolicyName=policy)["PolicyDocument"]
    actions = {
        a
        for s in document["Statement"]
        for a in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])
    }
    assert {"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket", "iam:PassRole"} <= actions
    passed = [s["Resource"] for s in document["Statement"] if s["Action"] == "iam:PassRole"]
    assert passed == [f"arn:aws:iam::*:role/{role['RoleName']}"]


def test_the_setup_keeps_the_constraints_and_torchs_cpu_build(
    cluster_file: dict[str, Any], repo_root: Path
) -> None:
    mounts = cluster_file["file_mounts"]
    target = next(there for there, here in mounts.items() if here == "./constraints.txt")
    [install] = [line for line in cluster_file["setup_commands"] if line.startswith("pip install")]
    assert f"-c {target}" in install and "--extra-index-url https://download.pytorch.org/whl/cpu" in install
    locked = {
        line.split("==")[0].lower() for line in (repo_root / "constraints.txt").read_text().splitlines()
    }
    # What the extra `cluster` brings is locked too.
    assert {"boto3", "opencensus", "aiohttp-cors", "py-spy", "s3fs", "torch"} <= locked


def test_the_image_is_the_setup_done_before(cluster_file: dict[str, Any], repo_root: Path) -> None:
    text = (repo_root / "Dockerfile").read_text()
    body = re.sub(r"\\\n\s*", " ", text)
    assert re.search(r"^ARG RAY_IMAGE=(\S+)$", body, re.MULTILINE)[1] == cluster_file["docker"]["image"]  # type: ignore[index]
    installed = re.search(r"--no-install-recommends (.*?) &&", body)
    assert installed is not None
    assert set(installed[1].split()) <= set(cluster_file["setup_commands"][0].split())
    assert len(installed[1].split()) > 5
    [install] = [line for line in cluster_file["setup_commands"] if line.startswith("pip install")]
    for word in ("-c /home/ray/constraints.txt", "--extra-index-url https://download.pytorch.org/whl/cpu"):
        assert word in install and word in body
    assert body.rstrip().endswith("RUN orbit4d doctor")
    # Only what is copied goes to the builder, and all of it does.
    allowed = [
        line[1:] for line in (repo_root / ".dockerignore").read_text().splitlines() if line.startswith("!")
    ]
    copied = [word for line in re.findall(r"^COPY (.*)$", body, re.MULTILINE) for word in line.split()[1:-1]]
    assert sorted(copied) == sorted(allowed)


def test_what_neither_rendering_nor_a_worker_needs_never_fails_the_doctor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A node's container has no browser, and no tools to make a virtual environment with."""
    from orbit4d.app import doctor
    from orbit4d.datasets.commands.command import run

    spare = {"browser tests", "setup"}
    monkeypatch.setattr(doctor.SystemPackage, "present", lambda package: package.needed_by not in spare)
    assert run(doctor.command, []) == 0
    out = capsys.readouterr().out
    assert "warning  chromium" in out and "MISSING" not in out
    monkeypatch.setattr(doctor.SystemPackage, "present", lambda package: package.needed_by != "Blender")
    assert run(doctor.command, []) == 1
    assert "fix: sudo apt-get install" in capsys.readouterr().out
