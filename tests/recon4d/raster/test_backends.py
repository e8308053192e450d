"""How back ends are chosen, compiled and cached."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import types

import pytest
import torch

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.raster import cuda
from orbit4d.recon4d.raster.api import rasterize
from orbit4d.recon4d.raster.reference import TILE


def arguments(n=20, sh_degree=None):
    g = torch.Generator().manual_seed(0)
    colors = torch.rand(n, 3, generator=g) if sh_degree is None else torch.randn(n, 4, 3, generator=g)
    view = torch.eye(4)[None].clone()
    view[:, 2, 3] = 2.0
    return {
        "means": 0.3 * torch.randn(n, 3, generator=g),
        "quats": torch.randn(n, 4, generator=g),
        "scales": 0.05 * torch.rand(n, 3, generator=g) + 0.02,
        "opacities": torch.rand(n, generator=g),
        "colors": colors,
        "viewmats": view,
        "Ks": torch.tensor([[[40.0, 0.0, 16.0], [0.0, 40.0, 16.0], [0.0, 0.0, 1.0]]]),
        "width": 32,
        "height": 32,
    }


def positional(given, render_mode="RGB", absgrad=False, backgrounds=None, sh_degree=None):
    return (*given.values(), 0.01, 1e10, 0.3, sh_degree, backgrounds, render_mode, absgrad)


@pytest.fixture
def recorded_gsplat(monkeypatch):
    """A stand-in for the package: notes how it was called and answers with the twin."""
    calls = []

    def rasterization(means, quats, scales, opacities, colors, viewmats, Ks, width, height, **options):
        calls.append({"quats": quats, **options})
        assert options.pop("packed") is False
        assert options.pop("rasterize_mode") == "classic"
        return rasterize(
            means, quats, scales, opacities, colors, viewmats, Ks, width, height, backend="torch", **options
        )

    monkeypatch.setitem(sys.modules, "gsplat", types.SimpleNamespace(rasterization=rasterization))
    return calls


def test_gsplat_is_asked_for_the_same_picture(recorded_gsplat):
    for options in (
        {},
        {"render_mode": "RGB+ED", "backgrounds": torch.ones(1, 3), "absgrad": True},
        {"render_mode": "D", "backgrounds": torch.ones(1, 3)},
        {"sh_degree": 1},
    ):
        given = arguments(sh_degree=options.get("sh_degree"))
        given["means"].requires_grad_()
        image, alphas, meta = cuda.rasterize(*positional(given, **options))
        expected, expected_alphas, _ = rasterize(**given, backend="torch", **options)
        assert torch.equal(image, expected)
        assert torch.equal(alphas, expected_alphas)
        assert meta["backend"] == "gsplat"
        image.sum().backward()
        assert meta["means2d"].grad is not None
        # Depth alone has no background: gsplat would take three channels for one.
        assert (recorded_gsplat[-1]["backgrounds"] is None) == (
            "RGB" not in options.get("render_mode", "RGB") or "backgrounds" not in options
        )


def test_gsplat_is_spared_what_it_cannot_do(recorded_gsplat):
    given = arguments()
    given["quats"][3] = 0.0
    cuda.rasterize(*positional(given))
    assert torch.equal(recorded_gsplat[-1]["quats"][3], torch.tensor([1.0, 0.0, 0.0, 0.0]))
    image, _, _ = cuda.rasterize(*positional(arguments(n=0), backgrounds=torch.ones(1, 3)))
    assert len(recorded_gsplat) == 1
    assert torch.equal(image, torch.ones(1, 32, 32, 3))


def test_a_missing_gsplat_is_named_with_the_mend(monkeypatch):
    monkeypatch.setitem(sys.modules, "gsplat", None)
    with pytest.raises(InputError, match=r"orbit4d\[gpu\]"):
        cuda.rasterize(*positional(arguments()))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_gsplat_on_a_gpu_equals_the_twin():
    pytest.importorskip("gsplat", reason="the extra orbit4d[gpu] is not installed")
    for options in ({}, {"render_mode": "RGB+ED"}, {"sh_degree": 1}):
        given = arguments(n=200, sh_degree=options.get("sh_degree"))
        results = []
        for device in ("cuda", "cpu"):
            moved = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in given.items()}
            moved["means"].requires_grad_()
            moved["means"].grad = None
            image, alphas, meta = rasterize(
                **moved, **options, backend="auto" if device == "cuda" else "torch"
            )
            (image.sum() + alphas.sum()).backward()
            results.append((image.detach().cpu(), moved["means"].grad.cpu(), meta["backend"]))
        assert [r[2] for r in results] == ["gsplat", "torch"]
        assert torch.allclose(results[0][0], results[1][0], atol=1e-4)
        assert (results[0][1] - results[1][1]).norm() <= 1e-3 * results[1][1].norm()


def test_auto_on_a_cpu_is_numba():
    assert rasterize(**arguments())[2]["backend"] == "numba"
    assert rasterize(**arguments(), backend="torch")[2]["tile_size"] == TILE


CHILD = """
import json, sys
import torch
from numba.core.event import install_recorder
torch.set_num_threads(1)
with install_recorder("numba:compile") as compiled:
    from orbit4d.recon4d.raster.api import rasterize
    sys.path.insert(0, sys.argv[1])
    from test_backends import arguments
    given = arguments()
    given["means"].requires_grad_()
    image, _, _ = rasterize(**given)
    image.sum().backward()
from orbit4d.recon4d.raster import unblending
print(json.dumps({
    "compiled": [str(event.data["dispatcher"]) for _, event in compiled.buffer if event.is_start],
    "sum": float(image.detach().sum()),
    "cache": unblending.composite_backward.stats.cache_path,
    "hits": sum(unblending.composite_backward.stats.cache_hits.values()),
}))
"""


def child(repo_root, code=CHILD, **environment):
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(repo_root / "tests" / "recon4d" / "raster")],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_a_second_process_starts_warm(repo_root):
    rasterize(**{**arguments(), "means": arguments()["means"].requires_grad_()})[0].sum().backward()
    warm = child(repo_root)
    # What was slow is compiling; of the machine code of all kernels, none is made a second time.
    assert warm["hits"] > 0 and warm["compiled"] == []


def test_a_read_only_installation_compiles_into_a_private_temporary_folder(tmp_path, repo_root):
    # Neither beside the source nor in a home: a plain file stands where each folder would be made.
    package = tmp_path / "site"
    target = package / "orbit4d"
    (target / "recon4d").mkdir(parents=True)
    shutil.copytree(repo_root / "recon4d" / "raster", target / "recon4d" / "raster",
                    ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    (target / "recon4d" / "raster" / "__pycache__").write_text("not a folder")
    blocked = tmp_path / "blocked"
    blocked.write_text("not a folder")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    code = """
    import json, os, sys
    sys.dont_write_bytecode = True
    from orbit4d.recon4d.raster import binning
    import numpy as np
    binning.rows_per_band(4)
    ids = binning.sort_by_depth(np.array([3.0, 1.0, 2.0], np.float32), np.arange(3, dtype=np.int32), 3)
    print(json.dumps({
        "ids": ids.tolist(), "path": binning.sort_by_depth.stats.cache_path, "file": binning.__file__,
        "hits": sum(binning.sort_by_depth.stats.cache_hits.values()),
    }))
    """
    shutil.copytree(repo_root / "datasets", target / "datasets", ignore=shutil.ignore_patterns("__pycache__"))
    (target / "recon4d" / "__init__.py").write_text("")
    environment = {
        "PYTHONPATH": str(package), "HOME": str(blocked), "XDG_CACHE_HOME": str(blocked),
        "TMPDIR": str(temporary), "PYTHONSAFEPATH": "1",
    }  # fmt: skip
    environment["NUMBA_CACHE_DIR"] = ""
    for expected_hits in (0, 1):
        seen = child(repo_root, code, **environment)
        assert seen["ids"] == [1, 2, 0]
        assert seen["file"].startswith(str(package))
        assert seen["path"].startswith(str(temporary))
        assert seen["hits"] == expected_hits
    folder = next(temporary.glob("orbit4d-numba-*"))
    assert folder.stat().st_mode & 0o077 == 0
