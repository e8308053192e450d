"""Rows of bench/nvs.py: what samples of one clip and seed give, and what guidance gains over all of them."""

from __future__ import annotations

from typing import Any

import numpy as np

#: Never trained on.
NEW = ("cute_fish_pack_cowfish", "cute_fish_pack_flatfish")
Done = dict[tuple[str, str, int], dict[str, Any]]


def against(frames: Any, truth: Any, seen: Any) -> dict[str, Any]:
    """PSNR over all and over unseen pixels, SSIM, and PSNR in thirds of the distance, without frame 0."""
    from orbit4d.datasets import psnr, ssim
    from orbit4d.datasets.images.measures import decibels

    frames, truth, seen = frames[1:], truth[1:], seen[1:]
    each = [psnr(a, b) for a, b in zip(frames, truth)]
    error = ((frames - truth) ** 2).mean(-1)
    hidden = float(error[~seen].mean()) if (~seen).any() else float("nan")
    count = len(frames)
    # On an orbit the middle is farthest.
    order = np.argsort(
        np.minimum(np.arange(1, count + 1), count + 1 - np.arange(1, count + 1)), kind="stable"
    )
    thirds = [float(np.mean([each[i] for i in part])) for part in np.array_split(order, 3)]
    return {
        "psnr": float(np.mean(each)),
        "unseen": decibels(hidden),
        "ssim": float(np.mean([ssim(a, b) for a, b in zip(frames, truth)])),
        "thirds": thirds,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """(mean, standard error) of each number."""
    found: dict[str, Any] = {}
    for key in ("psnr", "unseen", "ssim"):
        values = np.array([row[key] for row in rows])
        error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
        found[key] = (round(float(values.mean()), 3), round(error, 3))
    found["thirds"] = [round(float(x), 2) for x in np.mean([row["thirds"] for row in rows], axis=0)]
    return found


def by_kind(done: Done, name: str) -> dict[str, Any]:
    """Summaries of a row: of clips trained on, and of new ones."""
    parts: dict[str, list[Any]] = {"trained": [], "new": []}
    for (row, uid, _), found in done.items():
        if row == name:
            parts["new" if uid in NEW else "trained"].append(found)
    return {kind: summary(rows) for kind, rows in parts.items() if rows}


def gain(done: Done, name: str, kind: str) -> dict[str, float]:
    """Guided over unguided, dB: the mean over clips, and that over its standard error.

    Pairs of one clip and seed; seeds of a clip are averaged first, since they are not independent.
    """
    each: dict[str, list[float]] = {}
    for (row, uid, seed), found in done.items():
        if row == name and kind in ("all", "new" if uid in NEW else "trained"):
            plain = done.get(("unguided", uid, seed))
            if plain:
                each.setdefault(uid, []).append(found["psnr"] - plain["psnr"])
    means = np.array([np.mean(values) for values in each.values()])
    if len(means) < 2:
        return {"gain_db": round(float(means.mean()), 3) if len(means) else 0.0, "clips": len(means)}
    error = float(means.std(ddof=1) / np.sqrt(len(means)))
    return {
        "gain_db": round(float(means.mean()), 3), "error_db": round(error, 3),
        "errors": round(float(means.mean()) / max(error, 1e-9), 2), "clips": len(means),
    }  # fmt: skip
