"""Priors around a scene that is known: exact, and wrong where a sign is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from orbit4d.datasets.cameras.camera import Camera, orbit, orbit_c2w
from orbit4d.datasets.core.errors import InputError
from orbit4d.model.distill import (
    ClipPrior,
    GaussianTile,
    RelativeViewPrior,
    ScoreModel,
    StillClipPrior,
    TilePrior,
    ViewPrior,
    gradient,
)
from orbit4d.model.distill.scenes import views
from orbit4d.model.distill.scenes.pose import camera_of_pose, relative_pose
from orbit4d.model.distill.scenes.rendering import Layers, bias_of, blur, tint
from orbit4d.model.distill.scenes.tile import block_means
from orbit4d.model.distill.scenes.views import spherical

GREY = torch.tensor([0.2, 0.5, 0.7])


class Painted:
    """A scene whose image says where the camera is and what time it is."""

    def render(self, camera: Camera, time: float) -> npt.NDArray[np.float32]:
        x, y, z = camera.position / np.linalg.norm(camera.position)
        rgba = np.zeros((camera.h, camera.w, 4), np.float32)
        rgba[2:-2, 2:-2, :3] = (0.5 + 0.4 * x, 0.5 + 0.4 * y, 0.5 + 0.3 * z)
        rgba[2:-2, 2 : 4 + int(8 * time), 3] = 1
        return rgba


def lens(azimuth: float = 0.0, elevation: float = 0.0) -> Camera:
    front = orbit(1, size=(16, 16))[0]
    return replace(front, c2w=orbit_c2w(azimuth, elevation, 2.0))


def on(rgba: npt.NDArray[np.float32], background: torch.Tensor) -> torch.Tensor:
    image = torch.from_numpy(rgba)
    mixed = image[..., :3] * image[..., 3:] + (1 - image[..., 3:]) * background
    return mixed.permute(2, 0, 1)


T = torch.tensor([300])


def test_the_pose_turns_the_way_azimuth_does() -> None:
    reference = (10.0, 30.0, 2.0)
    rows = relative_pose(torch.tensor([[10.0, 30.0, 2.0], [10.0, 120.0, 2.0], [40.0, 30.0, 2.5]]), reference)
    assert torch.allclose(rows[0], torch.tensor([0.0, 0.0, 1.0, 0.0]))
    assert torch.allclose(rows[1], torch.tensor([0.0, 1.0, 0.0, 0.0]), atol=1e-6)
    assert torch.allclose(rows[2], torch.tensor([-np.pi / 6, 0.0, 1.0, 0.5]).float(), atol=1e-6)
    for row, camera in zip(rows, ((10, 30, 2), (10, 120, 2), (40, 30, 2.5))):
        assert camera_of_pose(row, reference) == pytest.approx(camera, abs=1e-4)
    with pytest.raises(InputError, match="distance above 0"):
        relative_pose(torch.tensor([[0.0, 0.0, 0.0]]), reference)


def test_cameras_are_read_as_they_were_made() -> None:
    assert spherical(lens(70.0, -20.0)) == pytest.approx((-20.0, 70.0, 2.0), abs=1e-6)


def test_a_view_prior_is_at_rest_on_the_view_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Painted()
    prior = RelativeViewPrior(scene, lens())
    assert isinstance(prior, ScoreModel)
    asked = {"reference_camera": (0.0, 0.0, 2.0), "camera": torch.tensor([[15.0, 75.0, 2.0]])}
    z = on(scene.render(lens(75.0, 15.0), 0.0), GREY)[None].double()
    told = prior.condition(**asked, background=GREY)
    g = gradient("sds", z, T, torch.zeros_like(z), prior, conditions=told)
    # The pose passes through float32 cameras: 1e-6 of an image in [0, 1].
    assert float(g.abs().max()) < 1e-6
    flipped = torch.tensor([1.0, -1.0, 1.0, 1.0], dtype=torch.float64)
    monkeypatch.setattr(views, "relative_pose", lambda c, r: relative_pose(c, r) * flipped)
    told = prior.condition(**asked, background=GREY)
    g = gradient("sds", z, T, torch.zeros_like(z), prior, conditions=told)
    assert float(g.abs().max()) > 0.05


def test_clips_are_drawn_at_their_times_and_still_ones_are_not() -> None:
    scene, cameras = Painted(), [lens(a) for a in (0.0, 40.0, 80.0)]
    times = [0.0, 0.5, 1.0]
    told = {"cameras": cameras, "times": times, "background": GREY}
    moving = torch.stack([on(scene.render(c, t), GREY) for c, t in zip(cameras, times)], 1)[None]
    still = torch.stack([on(scene.render(c, 0.0), GREY) for c in cameras], 1)[None]
    for prior, mean in ((ClipPrior(scene), moving), (StillClipPrior(scene), still)):
        z_t = torch.full_like(mean, 0.3)
        clean = prior.clean_estimate(z_t, torch.tensor([999]), prior.condition(**told))
        # At the last step the estimate is the mean but for alpha s^2 / V = 7e-4 of the way.
        assert float((clean - mean).abs().max()) < 2e-3
        assert prior.calls == 1
    with pytest.raises(InputError, match="3 cameras and 2 times"):
        ClipPrior(scene).condition(cameras=cameras, times=times[:2], background=GREY)


def test_what_a_prior_cannot_take_is_refused() -> None:
    prior = ViewPrior(Painted(), lens())
    with pytest.raises(InputError, match="takes no prompt"):
        prior.condition(prompt="a panda", background=GREY)
    with pytest.raises(InputError, match="needs background"):
        prior.condition()
    with pytest.raises(InputError, match="needs conditions"):
        prior.noise(torch.zeros(1, 3, 16, 16), T)
    with pytest.raises(InputError, match=r"bias 'tilt'"):
        bias_of(["tilt"])


def test_a_view_prior_without_a_camera_goes_to_the_nearest_view() -> None:
    scene = Painted()
    prior = ViewPrior(scene, lens())
    wanted = on(scene.render(lens(45.0), 0.0), GREY)
    told = prior.condition(background=GREY)
    clean = prior.clean_estimate(wanted[None] * 0.999, torch.tensor([5]), told)[0]
    assert float((clean - wanted).abs().max()) < 1e-2


def test_biases_touch_the_object_and_leave_what_is_behind_alone() -> None:
    alpha = torch.zeros(1, 1, 64, 64)
    alpha[..., 16:48, 16:48] = 1
    rgb = torch.tensor([0.4, 0.6, 0.4]).view(1, 3, 1, 1)
    layers = Layers(rgb * alpha + 1 - alpha, alpha)
    tinted = tint(layers)
    assert torch.allclose(tinted.white[0, :, 30, 30], torch.tensor([0.3, 0.6, 0.5]))
    assert torch.equal(tinted.white[..., 0, 0], torch.ones(1, 3))
    assert torch.allclose(tinted.on(GREY)[0, :, 0, 0], GREY)
    soft = blur(layers)
    assert torch.allclose(soft.white.mean(), layers.white.mean(), atol=1e-6)
    assert 0 < float(soft.alpha[0, 0, 15, 30]) < 1
    small = Layers(layers.white[..., :16, :16], layers.alpha[..., :16, :16])
    assert torch.equal(blur(small).white, small.white)


def test_a_tile_prior_takes_structure_from_its_condition() -> None:
    scene, camera = Painted(), lens()
    prior = TilePrior(scene, 0.1, 0.05)
    noise = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for time in (0.0, 0.5, 1.0):
        control = on(scene.render(camera, time), torch.ones(3))[None]
        told = prior.condition(control=0.9 * control, cameras=[camera], background=GREY)
        clean = prior.clean_estimate(noise, torch.tensor([999]), told)[0]
        wanted = on(scene.render(camera, time), GREY)
        # The condition's colours are a tenth too dark; those of the answer are not.
        assert float((clean - wanted).abs().max()) < 2e-2
    with pytest.raises(InputError, match="one image for each"):
        prior.condition(control=control, cameras=[camera, camera], background=GREY)


def test_a_gaussian_tile_splits_into_both_frequencies() -> None:
    generator = torch.Generator().manual_seed(1)
    control, z_t = (torch.rand(1, 3, 16, 16, generator=generator, dtype=torch.float64) for _ in range(2))
    t = torch.tensor([400])
    clean = GaussianTile(control, 0.05, 0.3, 4).clean_estimate(z_t, t)
    for s, part in ((0.05, lambda x: block_means(x, 4)), (0.3, lambda x: x - block_means(x, 4))):
        alone = GaussianTile(control, s, s, 4).clean_estimate(z_t, t)
        assert torch.allclose(part(clean), part(alone), atol=1e-12)
    assert torch.allclose(block_means(block_means(control, 4), 4), block_means(control, 4))
