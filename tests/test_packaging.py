"""Wheel and sdist install and hold what they must, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {"datasets", "render", "curate", "model", "recon4d", "compose", "evaluate", "app"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A wheel made from an sdist made from a clean copy of the tracked and new files."""
    pytest.importorskip("build", reason="the package `build` is not installed (pip install 'orbit4d[dev]')")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    copy = tmp_path_factory.mktemp("source")
    for name in listed.stdout.decode().split("\0"):
        source = ROOT / name
        if name and source.exists():
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_symlink():
                target.symlink_to(source.readlink())
            else:
                target.write_bytes(source.read_bytes())
    out = tmp_path_factory.mktemp("dist")
    # No isolation: the build backend is already installed here and the network need not answer.
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, copy],
        check=True,
        capture_output=True,
        text=True,
    )
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def test_wheel_holds_the_rooms_and_no_bare_top_level(built: tuple[Path, Path]) -> None:
    wheel, _ = built
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"orbit4d"}
    inside = {name.split("/")[1] for name in names if name.startswith("orbit4d/")}
    assert inside == ROOMS
    assert "orbit4d/app/system_packages.txt" in names
    for room in ROOMS:
        # Without the stub a package has no names; without the marker, type checkers do not look at it.
        assert {f"orbit4d/{room}/__init__.pyi", f"orbit4d/{room}/py.typed"} <= set(names)
    tracked = {str(path.relative_to(ROOT)) for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert {f"orbit4d/{name}" for name in tracked} <= set(names)


def test_sdist_leaves_links_tests_and_demo_out_of_the_way(built: tuple[Path, Path]) -> None:
    _, sdist = built
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert "pyproject.toml" in names and "LICENSE" in names and "datasets/cameras/camera.py" in names
    assert not any(name.startswith(("typings/", ".venv", "demo/")) for name in names)


def test_wheel_runs_in_an_empty_venv(built: tuple[Path, Path], tmp_path: Path) -> None:
    """Installed alone into a new venv; its dependencies are lent by path, our editable install is not."""
    wheel, _ = built
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "venv")}))
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            wheel,
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    # A plain line in a .pth file adds the folder but does not run the .pth files inside it,
    # so the finder of the editable install stays out.
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*words: str) -> str:
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run(str(python), "-c", "import orbit4d.datasets.cameras.camera as c; print(c.__file__)")
    assert where.startswith(str(site))
    every = (
        f"import importlib; rooms = {sorted(ROOMS)}\n"
        "packages = [importlib.import_module(f'orbit4d.{room}') for room in rooms]\n"
        "print(len([getattr(package, name) for package in packages for name in package.__all__]))"
    )
    assert int(run(str(python), "-c", every)) >= 80
    for script in ("orbit4d", "curate", "recon4d"):
        assert "Usage" in run(str(tmp_path / "venv" / "bin" / script), "--help")
