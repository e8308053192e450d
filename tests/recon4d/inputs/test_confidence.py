"""A novel view brings how far each pixel is known, and a fit counts it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from orbit4d.datasets import orbit
from orbit4d.datasets.cameras.transforms import transforms_record
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.videos.video import write_video
from orbit4d.recon4d import reconstruct
from orbit4d.recon4d.fitting.inputs import read_inputs
from orbit4d.recon4d.fitting.reconstruction import fingerprint
from orbit4d.recon4d.inputs.loading import load_frames, premultiply


@pytest.fixture
def view(tmp_path, make_clips):
    """view.mp4 of a still object, and the folder beside it: the right half of frames 1 on is not seen."""
    (clip,) = make_clips("asset-000", n_frames=8, size=48, rigs=("static_orbit",))
    mixed = premultiply(clip.pixels())
    frames = ((mixed[..., :3] + 1 - mixed[..., 3:]) * 255 + 0.5).astype(np.uint8)
    seen = np.full((8, 48, 48), 255, np.uint8)
    seen[1:, :, 24:] = 0
    sure = np.where(seen > 0, 204, 51).astype(np.uint8)
    sure[0] = 255
    folder = tmp_path / "view"
    for name, planes in {"frames": frames, "seen": seen, "confidence": sure}.items():
        (folder / name).mkdir(parents=True)
        for i, plane in enumerate(planes):
            Image.fromarray(plane).save(folder / name / f"{i:03d}.png")
    files = [f"frames/{i:03d}.png" for i in range(8)]
    about = {"novel_view": {"confidence_hidden": 0.25}}
    record = transforms_record(orbit(8, size=(48, 48)), files, [0.0] * 8, orbit4d=about, background=[255] * 3)
    (folder / "transforms.json").write_text(json.dumps(record))
    write_video(tmp_path / "view.mp4", frames, crf=4)
    return tmp_path / "view.mp4"


@pytest.mark.parametrize("what", ["video", "folder"])
def test_it_is_read_beside_the_video_and_from_the_folder(view, what):
    source = view if what == "video" else view.with_suffix("")
    frames = load_frames(source, hidden=0.25)
    assert frames.time == (0.0,) * 8 and frames.cameras == tuple(orbit(8, size=(48, 48)))
    assert frames.confidence is not None and (frames.confidence[0] == 1).all()
    assert np.allclose(frames.confidence[1:, :, :24], 0.8) and np.allclose(frames.confidence[1:, :, 24:], 0.2)
    assert any("novel view" in note for note in frames.notes)


def test_another_confidence_of_what_is_hidden(view):
    """What is seen stays, what is not is scaled: 0.2 of 0.25 to 0.5 is 0.4; at 0 it does not count."""
    for hidden, wanted in ((0.5, 0.4), (0.0, 0.0)):
        sure = load_frames(view, hidden=hidden).confidence
        assert np.allclose(sure[1:, :, :24], 0.8) and np.allclose(sure[1:, :, 24:], wanted, atol=1e-6)
    small = load_frames(view, max_edge=16, hidden=0.25)
    assert small.confidence.shape == small.rgba.shape[:3] == (8, 16, 16)
    assert np.allclose(small.confidence[1:, :, :8], 0.8, atol=0.003)  # grey levels of 1/255, averaged again


def test_a_record_that_is_no_novel_views_has_none(view):
    path = view.with_suffix("") / "transforms.json"
    record = json.loads(path.read_text())
    record["orbit4d"] = {}
    path.write_text(json.dumps(record))
    assert load_frames(view).confidence is None


def test_what_is_not_whole_is_refused(view):
    file = view.with_suffix("") / "confidence" / "003.png"
    Image.new("L", (24, 48)).save(file)
    with pytest.raises(InputError, match="is 24x48, its frame is 48x48"):
        load_frames(view)
    file.unlink()
    with pytest.raises(InputError, match="7 images for 8 frames of a novel view"):
        load_frames(view)


def test_a_fit_counts_it_and_fits_a_still(view, tiny_settings, tmp_path, capsys):
    """Fits that differ in confidence alone differ, and so do the inputs that a checkpoint belongs to."""
    few = replace(tiny_settings, coarse_steps=10, fine_steps=10, n_gaussians=200)
    found = {}
    for hidden in (0.0, 1.0):
        scene = reconstruct(view, tmp_path / f"{hidden}", settings=few, threads=1, confidence_hidden=hidden)
        assert "a novel view: its pixels count by view/confidence" in capsys.readouterr().out
        inputs = read_inputs(view, None, None, None, 0.0, None, None, hidden=hidden)
        found[hidden] = (scene.gaussians.means, fingerprint(inputs))
    assert found[0.0][1] != found[1.0][1]
    assert not torch.allclose(found[0.0][0], found[1.0][0], atol=1e-5)
    assert torch.isfinite(found[0.0][0]).all()
