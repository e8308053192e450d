"""The walls of the house: who may import whom, what stays light, what is never shadowed."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("datasets", "render", "curate", "model", "recon4d", "compose", "evaluate", "app")
#: What each package may import; everything else would run upwards or sideways.
BELOW = {
    "datasets": set(),
    "render": {"datasets"},
    "model": {"datasets"},
    "recon4d": {"datasets"},
    "curate": {"datasets", "render"},
    "compose": {"datasets", "render", "model", "recon4d"},
    "evaluate": {"datasets", "render", "curate", "model", "recon4d"},
    "app": {"datasets", "render", "curate", "model", "recon4d", "compose", "evaluate"},
}
#: The line in which a package's sub-packages and modules stand: each imports itself and what is to its left.
ORDER = {
    "datasets": (
        "core cameras images videos assets sources store added index geometry loader operations exports "
        "layouts trainers commands cli"
    ),
    "render": "protocol planning fleet dataset cli job",
    "render.blender": "materials importers geometry scene demo tasks main",
    "curate": (
        "columns journal leaks tags duplicates rule_settings measuring rendered rules tables labels fitting "
        "report review commands cli"
    ),
    "model": (
        "config weights network orbits encoders data diffusion compute run guided sampling views distill "
        "training cli train_main"
    ),
    "recon4d": (
        "rotations devices graphs muon raster ply gaussians deformation world scene composition filming "
        "inputs fitting mesh export viewer cli"
    ),
    "compose": (
        "strict_json schema spec language characters library placement experts director animate completion "
        "cli"
    ),
    "evaluate": "metrics geometry tasks results benchmarks runner commands cli",
    "app": "gallery demo doctor export cli __main__",
}
#: What runs inside Blender sees this of the packages around it; nobody imports it, it is started by name.
BLENDER_SEES = {"protocol", "planning"}
MOST_MODULES = 13
MOST_LINES = 60
#: Bodies that are one formula or one figure from top to bottom. The list can only shrink.
LONG_BODIES = {
    "recon4d/raster/projection.py": {"project", "project_backward"},
    "recon4d/raster/blending.py": {"composite"},
    "recon4d/raster/unblending.py": {"composite_backward"},
    "render/blender/demo/creatures.py": {"dino", "bird"},
    "render/blender/demo/figures.py": {"robot", "jellyfish", "flower"},
    "render/blender/demo/toys.py": {"orrery", "windmill"},
}


def sources(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def module_of(path: Path) -> str:
    """Dotted name of a file, without the leading `orbit4d.`; a package's is that of its folder."""
    return str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__")


MODULES = {module_of(path): path for room in ROOMS for path in sources(room)}


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Dotted names imported by a file, also inside functions unless `top_level_only`."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: imports are absolute"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    """Module -> the modules of this checkout that it imports anywhere."""
    found = {}
    for module, path in MODULES.items():
        names = {name.removeprefix("orbit4d.") for name in imports(path) if name.startswith("orbit4d.")}
        # `from orbit4d.a import b` imports module a.b where there is one, and a for any other name.
        modules = {name if name in MODULES else name.rpartition(".")[0] for name in names} & set(MODULES)
        found[module] = {m for m in modules if not any(other.startswith(m + ".") for other in modules)}
    return found


def place(module: str) -> tuple[str, str]:
    """(package, its sub-package or module) of a dotted name; Blender's side counts as a package."""
    package, _, rest = module.partition(".")
    if module.startswith("render.blender"):
        package, rest = "render.blender", module.removeprefix("render.blender").lstrip(".")
    return package, rest.partition(".")[0]


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_downwards_only(room: str) -> None:
    for path in sources(room):
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "orbit4d" and len(parts) > 1 and parts[1] in ROOMS:
                assert parts[1] == room or parts[1] in BELOW[room], f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("package", ORDER)
def test_sub_packages_import_to_the_left_only(package: str, graph: dict[str, set[str]]) -> None:
    order = ORDER[package].split()
    for module, targets in graph.items():
        here, folder = place(module)
        if here != package or not folder:
            continue
        assert folder in order, f"{module} has no place in the order of {package}"
        for target in targets:
            there, other = place(target)
            if there == package and other:
                assert order.index(other) <= order.index(folder), f"{module} imports {target}"


def test_nobody_imports_what_runs_inside_blender(graph: dict[str, set[str]]) -> None:
    for module, targets in graph.items():
        for target in targets:
            inside, outside = place(target)[0] == "render.blender", place(module)[0] != "render.blender"
            assert not (inside and outside), f"{module} imports {target}"
            if not outside and place(target)[0] == "render":
                assert place(target)[1] in BLENDER_SEES, f"{module} imports {target}"


def test_no_circle_of_files(graph: dict[str, set[str]]) -> None:
    waiting = {module: set(targets) - {module} for module, targets in graph.items()}
    while free := {module for module, targets in waiting.items() if not targets}:
        waiting = {module: targets - free for module, targets in waiting.items() if module not in free}
    # What is left is circles and what stands on them.
    assert not waiting, sorted(waiting)


def test_no_folder_holds_more_modules_than_a_listing_shows() -> None:
    for folder in {path.parent for room in ROOMS for path in sources(room)}:
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        if folder != ROOT / "recon4d" / "raster":
            assert len(modules) <= MOST_MODULES, f"{folder.relative_to(ROOT)}: {len(modules)} modules"


def test_function_bodies_are_short() -> None:
    long: dict[str, set[str]] = {}
    for room in ROOMS:
        for path in sources(room):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    body = node.body[1:] if ast.get_docstring(node) and node.body[1:] else node.body
                    if (body[-1].end_lineno or 0) - body[0].lineno + 1 > MOST_LINES:
                        long.setdefault(str(path.relative_to(ROOT)), set()).add(node.name)
    assert long == LONG_BODIES


@pytest.mark.parametrize("room", ROOMS)
def test_sub_packages_say_what_they_are_and_nothing_else(room: str) -> None:
    for init in (ROOT / room).rglob("__init__.py"):
        body = ast.parse(init.read_text()).body
        assert ast.get_docstring(ast.parse(init.read_text())), f"{init.relative_to(ROOT)} needs a docstring"
        if init.parent != ROOT / room:
            # One sub-package has public names of its own: a stub, and the two lines that read it.
            most = 3 if init.with_suffix(".pyi").is_file() else 1
            assert len(body) == most, f"{init.relative_to(ROOT)} holds more than its docstring"


@pytest.mark.parametrize("room", ROOMS)
def test_no_public_name_is_that_of_a_module_beside_it(room: str) -> None:
    """Importing a sub-module sets it on its package, where it would stand in place of the public name."""
    stubs = list((ROOT / room).rglob("*.pyi"))
    assert stubs
    for stub in stubs:
        tree = ast.parse(stub.read_text(encoding="utf-8"))
        names = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
        modules = {path.stem for path in stub.parent.glob("*.py")} | {
            path.name for path in stub.parent.iterdir() if path.is_dir()
        }
        assert names, f"{stub.relative_to(ROOT)} names nothing"
        assert not names & modules, f"{stub.relative_to(ROOT)}: rename the modules {sorted(names & modules)}"


def test_bpy_is_imported_only_inside_blender() -> None:
    for room in ROOMS:
        for path in sources(room):
            if {"bpy", "mathutils", "bmesh"} & {name.split(".")[0] for name in imports(path)}:
                assert path.is_relative_to(ROOT / "render" / "blender"), path
                assert "GPL-3.0-or-later" in path.read_text()[:400], (
                    f"{path} runs inside Blender: say its licence"
                )


def test_kernels_are_compiled_in_one_way() -> None:
    """numba is named where it is wrapped, and where a kernel needs its types or its parallel loops."""
    users = {str(path.relative_to(ROOT)) for room in ROOMS for path in sources(room) if _uses_numba(path)}
    assert users == {
        "datasets/core/jit.py",
        "datasets/loader/planes.py",
        "evaluate/metrics/kernels.py",
        "evaluate/metrics/winograd_kernels.py",
        "recon4d/raster/simd.py",
    }
    for path in (path for room in ROOMS for path in sources(room)):
        compiles = "numba.njit" in path.read_text(encoding="utf-8")
        assert not compiles or path == ROOT / "datasets" / "core" / "jit.py", f"{path}: take core.jit"


def _uses_numba(path: Path) -> bool:
    return "numba" in {name.split(".")[0] for name in imports(path)}


def test_render_and_curate_never_import_torch() -> None:
    for room in ("render", "curate"):
        for path in sources(room):
            assert "torch" not in {name.split(".")[0] for name in imports(path)}, path


def test_every_package_folder_is_declared_and_linked_for_editors() -> None:
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {
        "orbit4d." + str(init.parent.relative_to(ROOT)).replace("/", ".")
        for room in ROOMS
        for init in (ROOT / room).rglob("__init__.py")
    }
    assert found == declared
    for room in ROOMS:
        link = ROOT / "typings" / "orbit4d" / room
        assert link.is_symlink() and not link.readlink().is_absolute()
        assert link.resolve() == ROOT / room


def run_python(code: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)


def test_help_and_ground_floor_stay_light() -> None:
    """`orbit4d --help` answers in under 0.5 s because nothing heavy is imported; that is what is checked."""
    code = """
import sys
from click.testing import CliRunner
from orbit4d.app.cli import COMMANDS, command
result = CliRunner().invoke(command, ["--help"])
assert result.exit_code == 0, result.output
assert all(name in result.output for name in COMMANDS), result.output
import orbit4d.datasets
heavy = {"torch", "ray", "bpy", "numpy", "pyarrow", "pandas", "diffusers", "transformers"} & set(sys.modules)
assert not heavy, heavy
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_every_command_shows_help_with_an_example() -> None:
    code = """
import sys
from click.testing import CliRunner
from orbit4d.app.cli import COMMANDS, command
for name in COMMANDS:
    result = CliRunner().invoke(command, [name, "--help"])
    assert result.exit_code == 0, (name, result.output, result.exception)
    assert "Example" in result.output, name
slow = {"torch", "ray", "bpy", "diffusers", "transformers"} & set(sys.modules)
assert not slow, slow
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_no_top_level_package_shadows_another() -> None:
    """Neither from the root of the checkout nor elsewhere does `import datasets` find our folder."""
    for code in ("import datasets; print(datasets.__file__)", "import render", "import app"):
        done = subprocess.run(
            [sys.executable, "-P", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
        )
        found = done.stdout.strip()
        assert str(ROOT / "datasets") not in found, found
        assert found or "No module named" in done.stderr, done.stderr


def test_python_m_from_the_root_does_not_shadow_either() -> None:
    """`python -m` puts the current folder first on sys.path; commands take it off again."""
    code = """
import sys, importlib.util
assert "" in sys.path
import click
from orbit4d.datasets.commands.command import run
@click.command()
def command():
    spec = importlib.util.find_spec("datasets")
    print("found", spec and spec.origin)
run(command, [])
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert "found" in done.stdout and str(ROOT / "datasets") not in done.stdout, done.stdout
    assert str(ROOT) not in sys.path and "" not in sys.path


def test_ruff_is_clean() -> None:
    ruff = Path(sys.executable).with_name("ruff")
    if not ruff.exists():
        pytest.skip("ruff is not installed (pip install 'orbit4d[dev]')")
    for command in (["check", "."], ["format", "--check", "."]):
        done = subprocess.run([ruff, *command], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_mypy_is_clean_on_the_typed_modules() -> None:
    pytest.importorskip("mypy", reason="mypy is not installed (pip install 'orbit4d[dev]')")
    done = subprocess.run(
        [sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_setup_names_a_wrong_python_in_one_line(tmp_path: Path) -> None:
    """With only another Python on PATH, `make setup` says so in one line and makes nothing."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "cat", "cksum", "id"):
        (tools / name).symlink_to(str(shutil.which(name)))
    fake = tools / "python3"
    fake.write_text('#!/bin/sh\ncase "$1" in --version) echo "Python 3.12.1";; *) exit 1;; esac\n')
    fake.chmod(0o755)
    (tmp_path / "app").mkdir()
    for name in ("setup.sh", "system_packages.txt"):
        shutil.copy(ROOT / "app" / name, tmp_path / "app")
    done = subprocess.run(
        [tools / "sh", "app/setup.sh"],
        cwd=tmp_path,
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Python 3.11" in done.stderr and "3.12.1" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_text_files_name_their_encoding() -> None:
    """Without one Python takes the locale's, which is not UTF-8 everywhere."""
    for path in (path for room in ROOMS for path in sources(room)):
        for call in (
            node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if _is_text(node)
        ):
            assert "encoding" in {word.arg for word in call.keywords}, f"{path}:{call.lineno}"


def _is_text(node: ast.AST) -> bool:
    """Whether a node is a call that opens a text file: read_text, write_text, or open in a text mode."""
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Attribute) and node.func.attr in ("read_text", "write_text"):
        return True
    if not isinstance(node.func, ast.Name) or node.func.id != "open":
        return False
    modes = [word.value for word in node.keywords if word.arg == "mode"] + node.args[1:2]
    words = [part for mode in modes for part in ast.walk(mode) if isinstance(part, ast.Constant)]
    return not any("b" in str(word.value) for word in words)
