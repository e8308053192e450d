"""USD of a moving mesh: one Mesh prim with time-sampled points, +Z up.

Written as text (usda), which needs no library; where Python finds `pxr` (the package usd-core), it
is packed as a binary crate. A `.usd` file may hold either, and readers tell them apart.
"""

from __future__ import annotations

import os
import re
import tempfile

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.geometry.exports.glb import vertex_uv
from orbit4d.datasets.geometry.exports.job import ExportAction, Files, each_action, turned

#: Time codes of a second: the code of a time is its seconds multiplied by this.
CODES_A_SECOND = 24.0


def usd(action: ExportAction) -> Files:
    """`<name>.usd`: points at each time, on the asset's clock."""
    moments, up = action.moments(), action.axes("z")
    vertices = turned(action.geometry.vertices[moments], up)
    text = usda(
        vertices, action.mesh.faces, action.mesh.seconds[moments], up, vertex_uv(action.mesh), action.name
    )
    yield f"{action.name}.usd", _packed(text)


def usda(
    vertices: npt.NDArray[np.float32],
    faces: npt.NDArray[np.integer],
    seconds: npt.NDArray[np.float64],
    up: str,
    uv: npt.NDArray[np.float32] | None,
    name: str,
) -> str:
    """Text of the stage of `vertices` [T, V, 3] at `seconds` [T], and `faces` [M, 3]; `uv` [V, 2] v down."""
    codes = [f"{second * CODES_A_SECOND:.17g}" for second in seconds]
    prim = re.sub(r"\W", "_", f"mesh_{name}")
    points = ",\n".join(f"            {code}: [{_tuples(at)}]" for code, at in zip(codes, vertices))
    extents = ",\n".join(
        f"            {code}: [{_tuples(np.stack([at.min(axis=0), at.max(axis=0)]))}]"
        for code, at in zip(codes, vertices)
    )
    coordinates = ""
    if uv is not None:
        upwards = np.stack([uv[:, 0], 1.0 - uv[:, 1]], axis=1)
        coordinates = (
            f"        texCoord2f[] primvars:st = [{_tuples(upwards)}] (\n"
            '            interpolation = "vertex"\n        )\n'
        )
    corners = ", ".join(map(str, faces.reshape(-1).tolist()))
    counts = ", ".join(["3"] * len(faces))
    return (
        f'#usda 1.0\n(\n    defaultPrim = "asset"\n    endTimeCode = {codes[-1]}\n    metersPerUnit = 1\n'
        f"    startTimeCode = {codes[0]}\n    timeCodesPerSecond = {CODES_A_SECOND:g}\n"
        f'    framesPerSecond = {CODES_A_SECOND:g}\n    upAxis = "{up.upper()}"\n)\n\n'
        f'def Xform "asset"\n{{\n    def Mesh "{prim}"\n    {{\n        uniform bool doubleSided = 1\n'
        f"        float3[] extent.timeSamples = {{\n{extents}\n        }}\n"
        f"        int[] faceVertexCounts = [{counts}]\n        int[] faceVertexIndices = [{corners}]\n"
        f"        point3f[] points.timeSamples = {{\n{points}\n        }}\n{coordinates}"
        '        uniform token subdivisionScheme = "none"\n    }\n}\n'
    )


def _tuples(rows: npt.NDArray[np.floating]) -> str:
    # Nine digits hold a float32 exactly.
    return ", ".join("(" + ", ".join(f"{x:.9g}" for x in row) + ")" for row in rows.tolist())


def _packed(text: str) -> bytes:
    try:
        from pxr import Sdf
    except ImportError:
        return text.encode()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "stage.usdc")
        layer = Sdf.Layer.CreateAnonymous(".usda")
        layer.ImportFromString(text)
        layer.Export(path)
        with open(path, "rb") as file:
            return file.read()


FORMATS = {"usd": each_action(usd)}
