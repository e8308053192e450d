"""From an action's recorded surfaces to what the dataset keeps of them: one member for the action, and the
maps of each of its clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orbit4d.datasets.added.rows import Added, action_sample
from orbit4d.datasets.geometry.action import ActionMesh, AlphaMap, Material, encode_mesh, stored_mesh
from orbit4d.datasets.geometry.reader import GEOMETRY, SKELETON, SURFACE
from orbit4d.datasets.geometry.skeleton import encode_skeleton, stored_skeleton
from orbit4d.datasets.geometry.surface_map import draw, encode_maps
from orbit4d.datasets.images.codec import decode
from orbit4d.datasets.store.clip import Clip, sample_name
from orbit4d.render.planning.topology import RefusedPass
from orbit4d.render.protocol.geometry_file import read_geometry_file, read_skeleton_file

#: Share of the opaque pixels of an image that may show something which the recorded triangles do not.
_UNMATCHED = 0.002


def geometry_of(action: Mapping[str, Any], clips: Sequence[Clip], scratch: Path) -> list[Added]:
    """Rows for the action and its clips, from what the child answered under "geometry"; a refusal is a row
    too.
    """
    first, answer = clips[0], action["geometry"]
    sample = action_sample(first.uid, first.action_index)
    named = (first.uid, first.action, first.action_index)
    facts = {"blender": first.renderer.get("blender", "")}
    try:
        if "refused" in answer:
            raise RefusedPass(answer["refused"], answer["detail"])
        mesh = mesh_of(read_geometry_file(scratch / answer["file"]), clips)
        rows = [Added(*named, sample, GEOMETRY, (encode_mesh(mesh, uid=first.uid),), facts=facts)]
        drawn: dict[Any, npt.NDArray[np.int32]] = {}
        for clip in clips:
            maps = maps_of(mesh, clip, drawn)
            check_covered(clip, mesh)
            rows.append(Added(*named, sample_name(clip.key), SURFACE, (encode_maps(maps),), facts=facts))
    except RefusedPass as refusal:
        return [Added(*named, sample, GEOMETRY, refused=refusal.code, detail=refusal.detail, facts=facts)]
    return rows


def skeleton_of(action: Mapping[str, Any], clip: Clip, scratch: Path) -> Added:
    """Row for the action of `clip`, from what the child answered under "skeleton"."""
    answer = action["skeleton"]
    named = (clip.uid, clip.action, clip.action_index, action_sample(clip.uid, clip.action_index), SKELETON)
    facts = {"blender": clip.renderer.get("blender", "")}
    if "refused" in answer:
        return Added(*named, refused=answer["refused"], detail=answer["detail"], facts=facts)
    skeleton = stored_skeleton(**read_skeleton_file(scratch / answer["file"]))
    return Added(*named, (encode_skeleton(skeleton),), facts=facts)


def mesh_of(found: Mapping[str, Any], clips: Sequence[Clip]) -> ActionMesh:
    """The surfaces as they are stored, precise enough for every image of `clips`."""
    return stored_mesh(
        found["vertices"],
        [camera for clip in clips for camera in dict.fromkeys(clip.cameras)],
        found["rig"],
        seconds=found["seconds"],
        faces=found["faces"],
        material=found["material"],
        object=found["object"],
        shown=found["shown"],
        objects=tuple(found["objects"]),
        materials=tuple(Material(**row) for row in found["materials"]),
        uv=found["uv"],
        alpha_maps=tuple(AlphaMap(a, **row) for a, row in zip(found["alpha_texels"], found["alpha"])),
        alpha_uv=found["alpha_uv"],
    )


def maps_of(
    mesh: ActionMesh, clip: Clip, drawn: dict[Any, npt.NDArray[np.int32]]
) -> list[npt.NDArray[np.int32]]:
    """The surface map of each frame; equal (camera, time) pairs are drawn once and kept in `drawn`."""
    number = {float(t): i for i, t in enumerate(mesh.seconds)}
    for camera, seconds in zip(clip.cameras, clip.seconds, strict=True):
        if (camera, seconds) not in drawn:
            drawn[camera, seconds] = draw(mesh, number[seconds], camera)[0]
    return [drawn[pair] for pair in zip(clip.cameras, clip.seconds, strict=True)]


def check_covered(clip: Clip, mesh: ActionMesh) -> None:
    """Raise RefusedPass when an image shows, opaque, what no triangle is near.

    Nothing that is drawn and was not recorded goes unnoticed so: where every sample of a pixel met something,
    a triangle lies under the pixel or beside it. Inspected in the first, the middle and the last image.
    """
    solid = replace(
        mesh,
        materials=tuple(replace(m, see_through=False, alpha=-1) for m in mesh.materials),
        alpha_maps=(),
        alpha_uv=np.zeros((0, 3, 2), np.float32),
    )
    number = {float(t): i for i, t in enumerate(mesh.seconds)}
    n = len(clip.frames)
    for i in sorted({0, n // 2, n - 1}):
        near = np.pad(draw(solid, number[clip.seconds[i]], clip.cameras[i])[0] >= 0, 1)
        h, w = near.shape[0] - 2, near.shape[1] - 2
        near = np.logical_or.reduce([near[y : y + h, x : x + w] for y in range(3) for x in range(3)])
        opaque = decode(clip.frames[i])[..., 3] == 255
        missed = int((opaque & ~near).sum())
        if missed > max(2, _UNMATCHED * opaque.sum()):
            raise RefusedPass(
                "geometry:unmatched",
                f"{clip.rig} {clip.orbit}, frame {i}: {missed} of {int(opaque.sum())} opaque pixels show "
                "what is no triangle of a mesh",
            )
