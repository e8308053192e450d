"""USD ParticleField3DGaussianSplat with time samples, through usd-core (26.3 and later)."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d.export.packing import from_arrays, positive_scales, shares, unit_quats
from orbit4d.recon4d.gaussians import Gaussians

#: Frames a second of the written stage.
RATE = 24.0
_PRIM = "ParticleField3DGaussianSplat"


def _modules() -> Any:
    try:
        from pxr import Usd, UsdGeom, UsdVol, Vt
    except ImportError:
        Usd = None
    if Usd is None or not hasattr(UsdVol, _PRIM):
        raise InputError("USD splats need usd-core 26.3 or later: pip install 'usd-core>=26.3'")
    return Usd, UsdGeom, UsdVol, Vt


def write_usd(
    moments: Sequence[Gaussians],
    path: str | Path,
    up: str = "Z",
    rate: float = RATE,
    eps2d: float | None = None,
) -> None:
    """Write Gaussians at times evenly apart as time codes 0, 1, ...; one alone has no time samples.

    Positions and rotations always, scales, opacities and colours where they change. `up` is the stage's axis;
    numbers are written as they are. InputError where usd-core is missing.
    """
    Usd, UsdGeom, UsdVol, Vt = _modules()
    stage = Usd.Stage.CreateNew(str(path))
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z if up.upper() == "Z" else UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    if len(moments) > 1:
        stage.SetStartTimeCode(0)
        stage.SetEndTimeCode(len(moments) - 1)
        stage.SetTimeCodesPerSecond(rate)
    root = UsdGeom.Xform.Define(stage, "/scene")
    stage.SetDefaultPrim(root.GetPrim())
    field = UsdVol.ParticleField3DGaussianSplat.Define(stage, "/scene/splats")
    degree = moments[0].sh_degree
    coefficients = field.CreateRadianceSphericalHarmonicsCoefficientsAttr()
    field.CreateRadianceSphericalHarmonicsDegreeAttr().Set(degree)
    primvar = UsdGeom.Primvar(coefficients)
    primvar.SetInterpolation(UsdGeom.Tokens.vertex)
    primvar.SetElementSize((degree + 1) ** 2)
    field.CreateProjectionModeHintAttr().Set("perspective")
    field.CreateSortingModeHintAttr().Set("cameraDistance")
    if eps2d is not None:
        field.GetPrim().SetCustomDataByKey("orbit4d:eps2d", float(eps2d))

    def vectors(array: Any) -> Any:
        return Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(array, np.float32).reshape(-1, 3))

    def floats(array: Any) -> Any:
        return Vt.FloatArray.FromNumpy(np.ascontiguousarray(array, np.float32))

    # numpy has quaternions as x y z w.
    makes = {
        field.CreatePositionsAttr(): lambda m, _: vectors(m.means),
        field.CreateOrientationsAttr(): lambda _, q: Vt.QuatfArray.FromNumpy(
            np.ascontiguousarray(q[:, [1, 2, 3, 0]], np.float32)
        ),
        field.CreateScalesAttr(): lambda m, _: vectors(m.scales),
        field.CreateOpacitiesAttr(): lambda m, _: floats(m.opacities),
        coefficients: lambda m, _: vectors(m.coefficients()),
        field.CreateExtentAttr(): lambda m, _: vectors(_extent(m)),
    }
    moments = [m.detached().to("cpu") for m in moments]
    quats = _agreeing([unit_quats(m) for m in moments])
    for attribute, make in makes.items():
        values = [make(m, q) for m, q in zip(moments, quats)]
        still = all(value == values[0] for value in values)
        for code, value in enumerate(values[:1] if still else values):
            attribute.Set(value, *(() if still else (code,)))
    save_stage(stage)


def save_stage(stage: Any) -> None:
    """Write a stage's file. OSError where usd-core cannot."""
    with os_errors():
        if not stage.GetRootLayer().Save():
            raise OSError(None, "usd-core could not write it")


@contextlib.contextmanager
def os_errors() -> Iterator[None]:
    """usd-core's own error, which is no OSError, as one: it is raised where a file cannot be written."""
    from pxr import Tf

    try:
        yield
    except Tf.ErrorException:
        raise OSError(None, "usd-core could not write it; the disk may be full") from None


def _extent(g: Gaussians) -> Any:
    reach = 3 * g.scales
    return np.stack([(g.means - reach).amin(0).numpy(), (g.means + reach).amax(0).numpy()])


def _agreeing(quats: list[Any]) -> list[Any]:
    """Signs that do not flip from one time to the next: readers interpolate."""
    out = quats[:1]
    for q in quats[1:]:
        if len(q) != len(out[-1]):  # other Gaussians: nothing is interpolated
            out.append(q)
            continue
        flip = (q * out[-1]).sum(1, keepdims=True) < 0
        out.append(np.where(flip, -q, q))
    return out


def read_usd(path: str | Path, time: float | None = None) -> tuple[Gaussians, str]:
    """The splats of a stage at a time code (None: the first), numbers as stored, and its up axis, y or z.

    InputError for a stage without ParticleField3DGaussianSplat, or with several.
    """
    Usd, UsdGeom, UsdVol, _ = _modules()
    with _quiet():
        try:
            stage = Usd.Stage.Open(str(path))
        except Exception:  # pxr's own error type, which derives from Exception
            stage = None
    if stage is None:
        raise InputError(f"{path}: not a USD stage that usd-core can open; the file is damaged, or no USD")
    fields = [prim for prim in stage.Traverse() if prim.GetTypeName() == _PRIM]
    if len(fields) != 1:
        raise InputError(
            f"{path}: {len(fields) or 'no'} sets of Gaussian splats ({_PRIM}) in this stage; one is read"
        )
    moved = UsdGeom.Xformable(fields[0]).ComputeLocalToWorldTransform(Usd.TimeCode.EarliestTime())
    if not np.allclose(np.array(moved), np.eye(4), atol=1e-9):
        raise InputError(f"{path}: its splats are moved by a transform, which is not read; apply it first")
    code = Usd.TimeCode.EarliestTime() if time is None else Usd.TimeCode(time)
    up = "y" if UsdGeom.GetStageUpAxis(stage) == UsdGeom.Tokens.y else "z"
    try:
        return _splats_of(UsdVol.ParticleField3DGaussianSplat(fields[0]), fields[0], code, str(path)), up
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{path}: damaged splats ({error})") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the lines that usd-core itself writes of a file that it cannot open."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _splats_of(field: Any, prim: Any, code: Any, path: str) -> Gaussians:
    """The splats of one prim. ValueError where its arrays do not fit together."""

    def get(*names: str) -> Any:
        for name in names:
            value = prim.GetAttribute(name).Get(code)
            if value is not None and len(value):
                return np.array(value, np.float32)
        raise InputError(f"{path}: its splats have no {names[0]} at time code {code}")

    means = get("positions", "positionsh")
    degree = int(field.GetRadianceSphericalHarmonicsDegreeAttr().Get() or 0)
    key = "radiance:sphericalHarmonicsCoefficients"
    if not 0 <= degree <= 10:
        raise ValueError(f"harmonics of degree {degree}")
    coefficients = get(key, f"{key}h").reshape(-1, (degree + 1) ** 2, 3)[:, :16]
    quats, scales, opacities = _wxyz(prim, code), get("scales", "scalesh"), get("opacities", "opacitiesh")
    counts = {len(part) for part in (means, coefficients, quats, scales, opacities)}
    if len(counts) != 1:
        raise ValueError(f"arrays of {', '.join(map(str, sorted(counts)))} Gaussians")
    logs = np.log(positive_scales(scales, path))
    return from_arrays(means, logs, quats, shares(opacities, path), coefficients[:, 0], coefficients[:, 1:])


def _wxyz(prim: Any, code: Any) -> Any:
    for name in ("orientations", "orientationsh"):
        value = prim.GetAttribute(name).Get(code)
        if value is not None and len(value):
            return np.array([(q.GetReal(), *q.GetImaginary()) for q in value], np.float32)
    raise InputError(f"{prim.GetPath()}: splats without orientations")
