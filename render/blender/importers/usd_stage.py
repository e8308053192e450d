# SPDX-License-Identifier: GPL-3.0-or-later
# This module imports bpy, which is GPL, so it is GPL too.
"""What Blender's USD importer does not say: the parser's message, the time codes, animated visibility.

Read with OpenUSD's own Python modules, which Blender bundles.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bpy

from orbit4d.render.blender.importers.imported import Action, Refused
from orbit4d.render.blender.importers.visibility import Steps, key_visibility, merged_steps

#: Prims whose attributes Blender reads once, and those with others that are never drawn.
_SHADING = ("Material", "Shader", "NodeGraph")
_NOT_PLAYED = (*_SHADING, "Camera", "GeomSubset")
#: One of OpenUSD's errors: Error in FUNCTION at line N in file SOURCE : 'MESSAGE'.
_ERROR = re.compile(
    r"^\s*Error in .*? at line \d+ in file \S+ : '(.*?)'\s*(?=^\s*Error in |\Z)", re.MULTILINE | re.DOTALL
)


def _pxr() -> Any:
    """OpenUSD's modules as attributes of one object."""
    if "pxr" not in sys.modules:
        before = list(sys.path)
        bpy.utils.expose_bundled_modules()
        try:
            import pxr.Ar
            import pxr.Sdf
            import pxr.Tf
            import pxr.Usd
            import pxr.UsdGeom  # noqa: F401
        finally:
            # Other modules lie in the same folder: ours come from where they always did.
            sys.path[:] = before
    return sys.modules["pxr"]


def open_stage(path: Path) -> Any:
    """The composed stage. Raises Refused with the parser's own message, or for a layer outside the folder."""
    pxr = _pxr()
    try:
        stage = pxr.Usd.Stage.Open(str(path))
    except pxr.Tf.ErrorException as error:
        raise Refused("bad_file:import", _parser_message(str(error), path)) from None
    folder = path.resolve().parent
    for layer in stage.GetUsedLayers():
        # A layer in a package is called archive.usdz[member].
        place = layer.realPath.partition("[")[0]
        if place and not Path(place).resolve().is_relative_to(folder):
            raise Refused(
                "bad_file:outside_reference", f"uses {layer.identifier}, outside the asset's folder"
            )
    return stage


def _parser_message(text: str, path: Path) -> str:
    """The first message of a list of errors, without the places in OpenUSD's sources that raised them."""
    found = _ERROR.search(text)
    message = " ".join((found[1] if found else text).split())
    message = message.replace(f"{path.parent}/", "")
    return re.sub(r"\bpxr\w*__::(\w+::)*", "", message)[:400]


def time_codes(stage: Any) -> tuple[float, float] | None:
    """First and last time code at which the stage is animated, None where nothing is.

    The range that the file gives, or else that of its samples.
    """
    if stage.HasAuthoredTimeCodeRange() and stage.GetStartTimeCode() < stage.GetEndTimeCode():
        return float(stage.GetStartTimeCode()), float(stage.GetEndTimeCode())
    first, last = math.inf, -math.inf
    for attribute in _played(stage):
        samples = attribute.GetTimeSamples()
        first, last = min(first, samples[0]), max(last, samples[-1])
    return (float(first), float(last)) if first <= last else None


def _played(stage: Any) -> Iterator[Any]:
    """Attributes with several samples, of the prims that are drawn."""
    for prim in _prims(stage):
        kind = str(prim.GetTypeName())
        if kind not in _NOT_PLAYED and not kind.endswith("Light"):
            yield from _varying(prim)


def ignored_animation(stage: Any) -> list[str]:
    """Paths of animated inputs of materials, which Blender reads once; at most eight."""
    shaders = (prim for prim in _prims(stage) if str(prim.GetTypeName()) in _SHADING)
    return [str(attribute.GetPath()) for prim in shaders for attribute in _varying(prim)][:8]


def _prims(stage: Any) -> Iterator[Any]:
    for root in (stage.GetPseudoRoot(), *stage.GetPrototypes()):
        yield from _pxr().Usd.PrimRange(root)


def _varying(prim: Any) -> Iterator[Any]:
    return (attribute for attribute in prim.GetAttributes() if attribute.GetNumTimeSamples() > 1)


@contextmanager
def prim_map() -> Iterator[dict[str, list[Any]]]:
    """While Blender imports: path of each prim -> the data-blocks that were made of it."""
    found: dict[str, list[Any]] = {}

    class Orbit4dPrims(bpy.types.USDHook):
        bl_idname = "ORBIT4D_prims"
        bl_label = "orbit4d: which prim became what"

        @staticmethod
        def on_import(context: Any) -> bool:
            found.update({str(path): list(blocks) for path, blocks in context.get_prim_map().items()})
            return True

    bpy.utils.register_class(Orbit4dPrims)
    try:
        yield found
    finally:
        bpy.utils.unregister_class(Orbit4dPrims)


def hide_prims(stage: Any, prims: dict[str, list[Any]], action: Action) -> bool:
    """Key the visibility of every object whose prim, or one above it, is shown and hidden over time.

    Returns whether there is any.
    """
    chains: dict[str, list[Steps]] = {}
    by_object: dict[bpy.types.Object, dict[str, Steps]] = {}
    for path, blocks in prims.items():
        chain = _animated(stage, path, chains)
        if not chain:
            continue
        for obj in bpy.data.objects:
            if obj in blocks or (obj.data is not None and obj.data in blocks):
                by_object.setdefault(obj, {})[path] = merged_steps(chain)
    for obj, steps in by_object.items():
        key_visibility(action, obj, merged_steps(list(steps.values())))
    return bool(by_object)


def _animated(stage: Any, path: str, known: dict[str, list[Steps]]) -> list[Steps]:
    """(time code, visible) of the prim and of all prims above it whose visibility is animated."""
    prim = stage.GetPrimAtPath(path)
    if not prim or prim.IsPseudoRoot():
        return []
    if path not in known:
        attribute = _pxr().UsdGeom.Imageable(prim).GetVisibilityAttr()
        own: list[Steps] = []
        if attribute and attribute.GetNumTimeSamples() > 1:
            own = [[(code, attribute.Get(code) != "invisible") for code in attribute.GetTimeSamples()]]
        known[path] = own + _animated(stage, str(prim.GetParent().GetPath()), known)
    return known[path]
