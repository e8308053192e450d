"""Completion without a model: true views help where nothing was seen, views of no confidence do nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from orbit4d.datasets.core.errors import InputError
from orbit4d.recon4d import reconstruct
from orbit4d.recon4d.fitting.completion import Completed, CompletionSettings, completer, register
from orbit4d.recon4d.fitting.completion.refit import far_scores, nearest_deg
from orbit4d.recon4d.fitting.fused_view import Activated, FusedView
from orbit4d.recon4d.fitting.inputs import Inputs
from orbit4d.recon4d.fitting.losses import Task, by_autograd
from orbit4d.recon4d.fitting.optimize import views
from orbit4d.recon4d.fitting.scores import score
from orbit4d.recon4d.fitting.state import new_fit
from orbit4d.recon4d.gaussians import from_points
from orbit4d.recon4d.inputs.loading import Frames, from_clip
from orbit4d.recon4d.world import World


@pytest.fixture(scope="module")
def halves(make_clips):
    """Views of one half of an orbit, and those of the other half 30 degrees and more away."""
    (clip,) = make_clips("asset-000", n_frames=12, size=48, rigs=("static_orbit",))
    whole = from_clip(clip).at_time(0.0)

    def part(keep):
        return replace(
            whole,
            rgba=whole.rgba[keep],
            cameras=tuple(whole.cameras[i] for i in keep),
            time=(0.0,) * len(keep),
        )

    return part(list(range(7))), part([8, 9, 10])


@pytest.fixture
def slot():
    """The name of a completer that a test registers; forgotten afterwards."""
    from orbit4d.recon4d.fitting.completion import slot as module

    before = dict(module._FACTORIES)
    yield "guided"
    module._FACTORIES.clear()
    module._FACTORIES.update(before)


def straight(frames):
    alpha = frames.rgba[..., 3:]
    rgb = np.divide(frames.rgba[..., :3], alpha, out=np.zeros_like(frames.rgba[..., :3]), where=alpha > 0)
    return (np.concatenate([rgb, alpha], -1) * 255).round().astype(np.uint8)


def fitted(out, near, settings, completion=None):
    return reconstruct(
        list(straight(near)),
        out,
        cameras=list(near.cameras),
        settings=settings,
        threads=1,
        completion=completion,
    )


def made(frames, confidence):
    sure = np.full(frames.rgba.shape[:3], confidence, np.float32)
    return replace(frames, confidence=sure, name="made")


def test_true_views_help_far_away_and_views_of_no_confidence_change_nothing(
    halves, tiny_settings, tmp_path, slot
):
    near, far = halves
    settings = replace(tiny_settings, exposure=False, coarse_steps=80, fine_steps=200)
    grey = replace(far, rgba=np.full_like(far.rgba, 0.5))
    asked = CompletionSettings("none", 3)
    seen = []

    def answer(frames, confidence):
        def make(scene, train, told, seed):
            assert not scene.world and told == asked and len(train) == 1
            seen.append(len(train[0]))
            # Cameras of the fit's world, as the scene's own are.
            world = World.of(json.loads((tmp_path / "first.json").read_text()))
            cameras = tuple(map(world.camera, frames.cameras))
            return Completed(made(replace(frames, cameras=cameras), confidence), {"completed": len(frames)})

        return make

    plain = fitted(tmp_path / "plain", near, settings)
    (tmp_path / "first.json").write_text(json.dumps(plain.world.record()))
    for name in ("true", "grey"):
        # A finished first fit is not made again.
        shutil.copytree(tmp_path / "plain", tmp_path / name / "first")
    before = score(plain, far)[0]
    register(slot, lambda told: answer(far, 1.0))
    helped = fitted(tmp_path / "true", near, settings, asked)
    assert seen == [7]
    gained = score(helped, far)[0] - before
    assert gained > 2.0, f"{before:.2f} dB, gained {gained:.2f}"
    register(slot, lambda told: answer(grey, 0.0))
    same = fitted(tmp_path / "grey", near, settings, asked)
    assert score(same, near)[0] >= score(plain, near)[0] - 0.1
    record = helped.metrics["completion"]
    assert record["completed"] == 3 and record["model"] == "none" and record["seconds"] > 0
    first = tmp_path / "true" / "first"
    assert (first / "scene.json").is_file() and (tmp_path / "true" / "scene.json").is_file()
    # The same command continues with what is there.
    register(slot, lambda told: pytest.fail("it was finished"))
    assert len(fitted(tmp_path / "true", near, settings, asked).gaussians) == len(helped.gaussians)


def test_gradients_of_a_view_are_weighted_by_its_confidence(halves, tiny_settings):
    near, _ = halves
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.3, 0.3, (200, 3))
    settings = replace(tiny_settings, exposure=False)
    sure = rng.random(near.rgba.shape[:3]).astype(np.float32)
    rows = {}
    kinds = {"half": np.full_like(sure, 0.5), "whole": None, "any": sure, "none": 0 * sure}
    for name, confidence in kinds.items():
        fit = new_fit(from_points(points, rng.random((200, 3)) * 0 + 0.4), settings, 0)
        fit.field.bind(fit.gaussians.means)
        view = views(replace(near, confidence=confidence))[2]
        task = Task(view, torch.full((3,), 0.3), True, None)
        slow = fit.adam.row(0).clone()
        by_autograd(fit, settings, task, slow)
        quick = torch.zeros_like(slow)
        h, w = view.truth.shape[:2]
        FusedView(fit, h, w, settings.eps2d)(fit, settings, task, quick, Activated(fit.gaussians))
        # Two ways of the same float32 sums.
        assert torch.allclose(slow, quick, atol=2e-5 * float(slow.abs().max() + 1e-6) + 1e-9), name
        rows[name] = quick
    assert torch.allclose(rows["half"], rows["whole"] / 2, atol=1e-7)
    assert not rows["none"].any() and not torch.allclose(rows["any"], rows["whole"], atol=1e-4)


def test_confidence_is_reduced_with_the_images(halves):
    near, _ = halves
    sure = np.zeros(near.rgba.shape[:3], np.float32)
    sure[:, :24] = 1.0
    small = replace(near, confidence=sure).resized(24)
    assert small.confidence is not None and small.confidence.shape == small.rgba.shape[:3]
    assert (small.confidence[:, :12] == 1).all() and not small.confidence[:, 12:].any()
    assert views(replace(near, confidence=np.ones_like(sure)))[0].confidence is None


def test_far_views_are_those_that_no_training_view_is_near(halves, tiny_scene):
    from orbit4d.recon4d import load_scene

    near, far = halves
    assert nearest_deg(far.cameras[1], near.cameras, World()) == pytest.approx(90.0)
    held = replace(
        far, rgba=np.concatenate([near.rgba[:2], far.rgba]), cameras=(*near.cameras[:2], *far.cameras),
        time=(0.0,) * 5,
    )  # fmt: skip
    found = far_scores(load_scene(tiny_scene), Inputs(near, None, {"held": held}, []))
    assert found["all"]["views"] == 5 and found["far"]["views"] == 3
    assert far_scores(load_scene(tiny_scene), Inputs(near, None, {}, [])) == {}


def test_an_empty_slot_says_so_before_anything_is_fitted(halves, tiny_settings, tmp_path, slot):
    from orbit4d.recon4d.fitting.completion import slot as module

    module._FACTORIES.clear()
    near, _ = halves
    with pytest.raises(InputError, match="nothing here completes"):
        completer(CompletionSettings("x"))
    with pytest.raises(InputError, match="nothing here completes"):
        fitted(tmp_path / "scene", near, tiny_settings, CompletionSettings("x"))
    assert not (tmp_path / "scene").exists()
    assert isinstance(near, Frames)
