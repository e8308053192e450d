"""Rows of `make bench-results`: one reconstruction of one action, measured on what it never saw.

Images: four held-out cameras at all times, on white. Geometry: the centres of the scene's Gaussians of
opacity 0.1 and above, which the field carries, against points sampled on the true mesh (its inside too) and
carried by their triangles. Matched pixels: the drawn held-out views of one time against each other, by true
depth.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from orbit4d.datasets import Index, read_clip, read_geometry
from orbit4d.datasets.core.atomic import write_json
from orbit4d.datasets.index.reader import pick_action
from orbit4d.datasets.store.clip import Clip
from orbit4d.evaluate import Pair, Suite, actionbench, camera_errors, chamfer, f_score, matched_pixels
from orbit4d.evaluate.geometry.surfaces import points_on, sample_surface
from orbit4d.evaluate.tasks.frames import clip_frames, on_background
from orbit4d.recon4d import Scene, ViewOptions, reconstruct
from orbit4d.recon4d.fitting.settings import ReconstructionSettings

#: Kind -> what the table calls it.
KINDS = {
    "orbit": "single orbit",
    "bare": "single orbit, cameras unknown",
    "views8": "8 views",
    "views16": "16 views",
}
RING = "ring_16_15"
POINTS, SEED, OPACITY = 20_000, 0, 0.1


def first_actions(dataset: str) -> list[str]:
    """`uid:action` of every asset, its first by index."""
    found: dict[str, tuple[int, str]] = {}
    for _, table in Index(dataset).read(["uid", "action", "action_index"]):
        for one in table.to_pylist():
            mine = (one["action_index"], one["action"])
            found[one["uid"]] = min(found.get(one["uid"], mine), mine)
    return [f"{uid}:{action}" for uid, (_, action) in sorted(found.items())]


def row(
    dataset: str, case: str, kind: str, settings: ReconstructionSettings, work: Path, align: Any
) -> dict[str, Any]:
    """The numbers of one reconstruction; kept in `work`, and read from there the next time."""
    name = f"{case.replace(':', '__').replace('/', '_')}__{kind}"
    key = {"dataset": str(Path(dataset).absolute()), "align": align, "settings": settings.as_config()}
    place = work / "rows" / f"{name}.json"
    if place.is_file():
        kept = json.loads(place.read_text(encoding="utf-8"))
        if kept["key"] == json.loads(json.dumps(key)):
            return kept["row"]
    uid, _, action = case.partition(":")
    index = Index(dataset)
    number = pick_action(index, uid, action)[0]["action_index"]
    start = time.monotonic()
    scene = fitted(index, dataset, case, number, kind, settings, work / "scenes" / name)
    seconds = time.monotonic() - start
    found: dict[str, Any] = {"case": case, "kind": kind, "seconds": seconds}
    if kind == "bare":
        truth = read_clip(index, uid, number, "dynamic_orbit", 0)
        errors = camera_errors([c.c2w for c in scene.cameras], [c.c2w for c in truth.cameras])
        found |= {name: errors[name] for name in ("rot", "trans", "ate")}
    else:
        held = [read_clip(index, uid, number, "held", k) for k in range(_count(index, uid, number, "held"))]
        found |= images(scene, held) | geometry(scene, dataset, uid, number, held[0], align)
    place.parent.mkdir(exist_ok=True)
    write_json(place, {"key": key, "row": found})
    print(f"{case:<24} {KINDS[kind]:<30} " + " ".join(f"{k} {v:.3f}" for k, v in found.items() if k not in
          ("case", "kind")), flush=True)  # fmt: skip
    return found


def _count(index: Index, uid: str, number: int, rig: str) -> int:
    return sum(one["rig"] == rig for one in pick_action(index, uid, number))


def fitted(
    index: Index, dataset: str, case: str, number: int, kind: str, settings: ReconstructionSettings, out: Path
) -> Scene:
    """The scene of one row; a finished one is loaded."""
    how: dict[str, Any] = {"preset": settings.preset, "settings": settings, "seed": SEED}
    if kind == "orbit":
        return reconstruct(f"{dataset}:{case}", out, **how)
    uid = case.partition(":")[0]
    if kind == "bare":
        pixels = read_clip(index, uid, number, "dynamic_orbit", 0).pixels()
        return reconstruct(pixels, out, refine_cameras=True, **how)
    left_out = [f"cam{k + 1:02d}" for k in range(16) if kind == "views8" and k % 2]
    views = ViewOptions(sync=RING, hold_cameras=",".join(["held", *left_out]))
    return reconstruct(f"{dataset}:{case}", out, views=views, **how)


def images(scene: Scene, held: list[Clip]) -> dict[str, float]:
    """PSNR, SSIM, IoU, flicker and matched pixels of the held-out cameras: means over them."""
    suite, values, drawn = Suite(learned=False), [], []
    for clip in held:
        views = zip(clip.cameras, clip.time, strict=True)
        made = on_background(np.stack([scene.render(camera, t) for camera, t in views]))
        true = clip_frames(clip)
        pair = Pair(clip.rig, "front_view", made.rgb, true.rgb, made.alpha, true.alpha, fvd=False)
        values.append(suite.measure(pair).values | {"flicker of truth": _flicker(true.rgb)})
        drawn.append(made.rgb)
    found = {name: float(np.mean([one[name] for one in values])) for name in values[0]}
    ours = matched(torch.stack(drawn), held)
    theirs = matched(torch.stack([clip_frames(clip).rgb for clip in held]), held)
    return found | {"matched": ours, "matched of truth": theirs}


def _flicker(rgb: torch.Tensor) -> float:
    from orbit4d.evaluate import flicker

    return float(flicker(rgb))


def matched(rgb: torch.Tensor, held: list[Clip]) -> float:
    """Share of matched pixels of views [V, F, 3, H, W], mean over the times."""
    shares = []
    depths = [clip.pass_arrays("depth") for clip in held]
    alphas = [clip.pixels()[..., 3] / 255 for clip in held]
    for t in range(rgb.shape[1]):
        both = [np.stack([one[t] for one in every]) for every in (depths, alphas)]
        shown = rgb[:, t].permute(0, 2, 3, 1).numpy()
        shares.append(matched_pixels(shown, *both, [clip.cameras[t] for clip in held])["matched"])
    return float(np.nanmean(shares))


def geometry(scene: Scene, dataset: str, uid: str, number: int, clip: Clip, align: Any) -> dict[str, float]:
    """CD-3D, CD-4D, CD-M, and of the middle frame the Chamfer distance of all points and the F-score."""
    mesh = read_geometry(dataset, uid, number)
    at = [int(np.abs(mesh.seconds - s).argmin()) for s in clip.seconds]
    assert np.allclose(mesh.seconds[at], clip.seconds, atol=1e-6), "the mesh is stored at the clip's times"
    vertices = mesh.vertices[at].astype(np.float64)
    once = sample_surface(vertices[0], mesh.faces, POINTS, SEED)
    truth = np.stack([points_on(v, mesh.faces, *once) for v in vertices])
    solid = (torch.sigmoid(scene.gaussians.logits) >= OPACITY).cpu().numpy().reshape(-1)
    made = np.stack([scene.at(t).means.numpy()[solid] for t in clip.time]).astype(np.float64)
    scores = actionbench(made, truth, align=align)
    middle = len(made) // 2
    box = np.linalg.norm(np.ptp(vertices[middle], axis=0))
    return {
        "CD-3D": scores["cd3d"], "CD-4D": scores["cd4d"], "CD-M": scores["cdm"],
        "Chamfer": chamfer(made[middle], truth[middle]),
        "F": f_score(made[middle], truth[middle], 0.01 * float(box)),
    }  # fmt: skip
