"""Clips with geometry have further tabs on their cards; the others have those of their cameras."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from orbit4d.app.gallery import media, page, sections
from orbit4d.app.gallery.material import Material
from orbit4d.datasets import read_clip
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.geometry import action
from orbit4d.datasets.geometry.clip import clip_geometry


class Beside(SimpleNamespace):
    """What `read_geometry` gives of an action without a skeleton."""

    @property
    def skeleton(self) -> None:
        raise InputError("no skeleton")


def test_layers_are_tabs_of_the_card(
    tmp_path: Path, make_dataset: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dataset(tmp_path / "dataset", assets=2, n_frames=3)
    clip = read_clip(tmp_path / "dataset", "asset-001", "Run")
    mesh = action.stored_mesh(
        np.tile([(-0.4, 0.0, -0.4), (0.4, 0.0, -0.4), (0.0, 0.1, 0.4)], (3, 1, 1)), clip.cameras,
        seconds=np.array(sorted(set(clip.seconds))), faces=np.array([(0, 1, 2)], np.int32),
        material=np.zeros(1, np.uint16), object=np.zeros(1, np.uint16), materials=(action.Material("m"),),
        objects=("o",), shown=np.ones((3, 1), bool),
    )  # fmt: skip

    def read(_index: object, uid: str, _action: int) -> Beside:
        if uid != "asset-001":
            raise InputError("no geometry")
        return Beside(clip=lambda rig, orbit: clip_geometry(mesh, clip.cameras, clip.seconds))

    monkeypatch.setattr(media, "read_geometry", read)
    (tmp_path / page.MEDIA).mkdir()
    material = Material({"stages": []})
    page._take_dataset(tmp_path, material)
    cameras = {"dynamic_orbit", "static_orbit", "front_view"}
    assert [set(entry["loops"]) for entry in material.clips] == [
        cameras,
        cameras | {"depth", "flow", "tracks"},
    ]
    for path in material.clips[1]["loops"].values():
        assert Image.open(tmp_path / path).n_frames == 3
    first, second = sections.clips(material).split("<article")[1:]
    assert "Depth" not in first and first.count("<label") == first.count("<picture") == 3
    assert second.count("<label") == second.count("<picture") == 6
    for name in ("Depth", "Flow", "Tracks"):
        assert f">{name}</label>" in second
    style = (Path(page.__file__).parent / "gallery.css").read_text(encoding="utf-8")
    # Each tab needs its rule: the page has no script for it.
    for k in range(1, len(sections.LOOP_NAMES) + 1):
        assert f"input:nth-of-type({k}):checked ~ .stage picture:nth-child({k})" in style
