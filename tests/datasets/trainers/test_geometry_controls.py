"""Control videos out of the geometry beside a clip: flow and point tracks."""

from __future__ import annotations

import numpy as np
import pytest

from orbit4d.datasets import ExportSettings, InputError, export_for_trainer, read_geometry
from orbit4d.datasets.videos.video import read_video


@pytest.mark.parametrize("kind", ["flow", "tracks"])
def test_a_trainer_gets_flow_and_tracks(geometry_dataset, tmp_path, kind: str) -> None:
    """The box slides: tracks are black but for squares on it, flow is white but for the box."""
    out = tmp_path / "out"
    settings = ExportSettings(controls=(kind,), caption="a box", frames="5", exact=True, sizes=((32, 32),))
    done = export_for_trainer(geometry_dataset, out, "musubi", settings, "uid = 'a' and rig = 'front_view'")
    assert done.clips == 1
    (video,) = (path for path in out.rglob("*.mp4") if "videos" not in path.parent.name)
    frames = np.stack([np.asarray(frame) for frame in read_video(video).frames])[..., :3]
    clip = read_geometry(geometry_dataset, "a").clip("front_view", 0)
    empty = 255 if kind == "flow" else 0
    seen = np.stack([clip.triangles(f) >= 0 for f in range(5)])
    assert frames.shape == (5, 32, 32, 3) and seen.any() and not seen.all()
    marked = (frames != empty).any(-1)
    assert marked[seen].mean() > 0.5
    if kind == "flow":
        assert not marked[~seen].any()


def test_without_geometry_nothing_is_written(geometry_dataset, tmp_path) -> None:
    for uid, words in (("d", "--add-passes geometry"), ("c", "refused: geometry:topology")):
        with pytest.raises(InputError, match=words):
            settings = ExportSettings(controls=("flow",), caption="a box")
            export_for_trainer(geometry_dataset, tmp_path / "out", "musubi", settings, f"uid = '{uid}'")
    assert not (tmp_path / "out").exists()
