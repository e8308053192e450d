"""`eval views`: a wall with a smooth pattern, drawn in closed form, agrees with itself alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from orbit4d.datasets import Camera
from orbit4d.datasets.core.errors import InputError
from orbit4d.evaluate.cli import command
from orbit4d.evaluate.tasks import views

SIZE, TIMES = 32, 2


@dataclass
class Wall:
    """A camera 2 units above the plane z = 0, at `x`, looking down: as much of a clip as is asked for."""

    x: float
    orbit: int
    passes: tuple[str, ...] = ("depth",)
    rig: str = "pair"

    def __post_init__(self) -> None:
        c2w = np.eye(4)
        c2w[:3, 3] = (self.x, 0.0, 2.0)
        self.cameras = [Camera(c2w, 40.0, 40.0, SIZE / 2, SIZE / 2, SIZE, SIZE)] * TIMES
        self.time = [t / (TIMES - 1) for t in range(TIMES)]

    def pixels(self) -> np.ndarray:
        j = (np.arange(SIZE) + 0.5 - SIZE / 2) / 40 * 2 + self.x
        shade = np.stack([0.5 + 0.3 * np.sin(3 * j + p) for p in (0.0, 1.0, 2.0)], -1)
        image = np.broadcast_to(np.concatenate([shade, np.ones((SIZE, 1))], -1), (SIZE, SIZE, 4))
        return np.stack([(image * 255 + 0.5).astype(np.uint8)] * TIMES)

    def pass_arrays(self, name: str) -> np.ndarray:
        assert name == "depth"
        return np.full((TIMES, SIZE, SIZE), 2.0, np.float32)


@pytest.fixture
def pair() -> Any:
    return [Wall(0.0, 0), Wall(0.1, 1)]


def test_renders_agree_and_recoloured_views_do_not(pair: Any) -> None:
    found = views.measure_views(pair)
    # The wall is seen by both but for the strips of 2 of 32 pixels that one of them misses.
    assert found["matched"] == 1.0 and found["valid"] == 2 * TIMES * 30 * SIZE
    assert found["difference"] < 2 / 255, "what is left is rounding and interpolation"
    shown = [views.clip_frames(clip).rgb for clip in pair]
    shown[1] = (shown[1] + 0.2).clamp(0, 1)
    assert views.measure_views(pair, shown)["matched"] < 0.1
    with pytest.raises(InputError, match="one surface point"):
        views.measure_views([pair[0], Wall(9.0, 1)])


def test_features_are_compared_at_one_surface_point(pair: Any) -> None:
    def network(images: torch.Tensor) -> torch.Tensor:
        return images.permute(0, 2, 3, 1)

    same: Any = network
    assert views.measure_views(pair, None, same)["unlike"] < 1e-3
    turned = [views.clip_frames(pair[0]).rgb, views.clip_frames(pair[1]).rgb.flip(-1)]
    assert views.measure_views(pair, turned, same)["unlike"] > 0.02


def test_the_command_reads_given_views_by_camera(
    pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "rig_clips", lambda reference, sync: pair)
    for label, image in (("cam01", pair[0].pixels()[0]), ("cam02", np.full((SIZE, SIZE, 3), 9, np.uint8))):
        (tmp_path / "made" / label).mkdir(parents=True)
        for t in range(TIMES):
            Image.fromarray(image).save(tmp_path / "made" / label / f"{t:03d}.png")
    words = ["views", "data:a", "--given", str(tmp_path / "made"), "--out", str(tmp_path / "n.json")]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "n.json").read_text())
    assert record["truth"]["matched"] == 1.0 and record["given"]["matched"] == 0.0
    (tmp_path / "made" / "cam02" / "001.png").unlink()
    with pytest.raises(InputError, match="cam02: 1 frames of 32x32 where the truth has 2"):
        views.given_views(tmp_path / "made", pair)
    with pytest.raises(InputError, match="holds no cam01"):
        views.given_views(tmp_path, pair)


def test_what_is_no_rig_with_depth_is_refused(
    synthetic_dataset: Path, pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="name the asset"):
        views.rig_clips(str(synthetic_dataset), None)
    with pytest.raises(InputError, match="it has none"):
        views.rig_clips(f"{synthetic_dataset}:asset-000", None)
    rows = [{"light": 0, "rig": "pair", "orbit": k, "action_index": 0} for k in (0, 1)]
    monkeypatch.setattr(views, "pick_action", lambda *_: rows)
    monkeypatch.setattr(views, "read_clip", lambda *words: pair[words[-1]])
    assert views.rig_clips(f"{synthetic_dataset}:asset-000", None) == pair
    pair[1] = replace(pair[1], passes=())
    with pytest.raises(InputError, match="cam02 has no depth; render it"):
        views.rig_clips(f"{synthetic_dataset}:asset-000", "pair")
