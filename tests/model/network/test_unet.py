"""Promises of OrbitUNet: the base untouched at zero-init, cameras per frame everywhere, motion per sample."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import I2VGenXLUNet, UNet3DConditionModel
from diffusers.models.resnet import ResnetBlock2D

from orbit4d.datasets.cameras.camera import orbit
from orbit4d.model.network.cameras import videomv_cameras
from orbit4d.model.network.conditioning import (
    MotionEmbedding,
    camera_features,
    position_ramp,
    repeat_first_view,
)
from orbit4d.model.network.unet import OrbitUNet
from orbit4d.model.training.calibrate import calibrate_cameras

VARIANTS = ("text", "image", "static3d")


def run(unet, inputs, **changes):
    with torch.no_grad():
        return unet(**{**inputs, **changes}).sample


@pytest.mark.parametrize("variant", ["text", "image"])
def test_at_zero_init_the_base_is_exactly_diffusers_own(variant, small_unet, small_inputs):
    unet, inputs = small_unet(variant), small_inputs(variant)
    assert type(unet.unet) is (UNet3DConditionModel if variant == "text" else I2VGenXLUNet)
    with torch.no_grad():
        if variant == "text":
            expected = unet.unet(inputs["sample"], inputs["timestep"], inputs["encoder_hidden_states"]).sample
        else:
            expected = unet.unet(
                inputs["sample"],
                inputs["timestep"],
                fps=torch.full((2,), 8),
                image_latents=position_ramp(inputs["image_latents"], 3),
                image_embeddings=inputs["image_embeddings"][:, None],
                encoder_hidden_states=inputs["encoder_hidden_states"],
            ).sample
    assert expected.std() > 0.05
    assert torch.equal(run(unet, inputs), expected)
    assert torch.equal(run(unet, inputs, camera=None, motion=None), expected)


@pytest.mark.parametrize("variant", ["text", "image"])
def test_camera_rows_reach_all_22_residual_blocks(variant, small_unet, small_inputs):
    unet, inputs = small_unet(variant, loud=True, layers_per_block=2), small_inputs(variant)
    seen = []
    blocks = [module for module in unet.modules() if isinstance(module, ResnetBlock2D)]
    assert len(blocks) == 22
    hooks = [
        block.register_forward_pre_hook(lambda _, args, name=i: seen.append((name, args[1])))
        for i, block in enumerate(blocks)
    ]
    run(unet, inputs, motion=None)
    with_camera = dict(seen)
    seen.clear()
    run(unet, inputs, motion=None, camera=None)
    without = dict(seen)
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        mlp = unet.camera_embedding
        rows = torch.stack(
            [mlp(inputs["camera"][b : b + 1, f : f + 1])[0] for b in range(2) for f in range(3)]
        )
    assert set(with_camera) == set(range(22))
    for i in range(22):
        # Sample-major: the rows of one sample stay together, and each frame has its own.
        torch.testing.assert_close(with_camera[i], without[i] + rows, rtol=0, atol=1e-5)


def test_no_camera_is_not_the_mlp_of_zeros(small_unet, small_inputs):
    unet, inputs = small_unet(loud=True), small_inputs()
    zeros = run(unet, inputs, camera=torch.zeros_like(inputs["camera"]))
    assert (run(unet, inputs, camera=None) - zeros).abs().max() > 1e-3


def test_frames_and_samples_are_not_mixed_up(small_unet, small_inputs):
    unet, inputs = small_unet("image", loud=True), small_inputs("image")
    full = run(unet, inputs)
    for b in range(2):
        one = {key: value[b : b + 1] for key, value in inputs.items()}
        torch.testing.assert_close(run(unet, one), full[b : b + 1], rtol=0, atol=1e-5)
    turned = run(unet, inputs, camera=inputs["camera"].flip(1))
    assert (turned - full).abs().max() > 1e-2


def test_motion_is_given_per_sample_and_none_adds_nothing(small_unet, small_inputs):
    unet, inputs = small_unet(loud=True), small_inputs()
    without, both = run(unet, inputs, motion=None), run(unet, inputs)
    assert (without - both).abs().amax(dim=(1, 2, 3, 4)).min() > 1e-3
    second = float(inputs["motion"][1])
    for motion in ([None, second], torch.tensor([float("nan"), second])):
        mixed = run(unet, inputs, motion=motion)
        assert torch.equal(mixed[0], without[0])
        assert torch.equal(mixed[1], both[1])


def test_motion_dropout_leaves_gradients_finite(small_unet, small_inputs):
    unet, inputs = small_unet(loud=True), small_inputs()
    unet(**{**inputs, "motion": torch.tensor([float("nan"), 0.01])}).sample.square().mean().backward()
    for parameter in unet.motion_embedding.parameters():
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.abs().max() > 0


def test_motion_is_standardised_in_log_space():
    embedding = MotionEmbedding(8)
    embedding.motion_mean.fill_(-3.0)
    embedding.motion_std.fill_(0.5)
    m = torch.tensor([1e-3, 1e-2, 0.0])
    expected = torch.tensor([0.0, 2.0, -6.0])
    torch.testing.assert_close(embedding.normalise(m), expected, rtol=0, atol=2e-3)


def test_motion_statistics_must_be_usable(small_unet):
    with pytest.raises(ValueError, match="must be positive"):
        small_unet().set_motion_statistics(-3.0, 0.0)


def test_ramp_counts_frames_and_starts_with_the_view():
    latent = torch.randn(2, 4, 8, 8)
    ramp = position_ramp(latent, 5)
    assert torch.equal(ramp[:, :, 0], latent)
    for k in range(1, 5):
        assert torch.equal(ramp[:, :, k], torch.full((2, 4, 8, 8), k / 4))
    assert torch.equal(position_ramp(latent, 1)[:, :, 0], latent)


@pytest.mark.parametrize("variant", ["image", "static3d"])
def test_the_ramp_as_static_orbit_is_the_image_variant(variant, small_unet, small_inputs):
    inputs = small_inputs("image")
    image, static = small_unet("image", loud=True), small_unet(variant, loud=True)
    latents = inputs.pop("image_latents")
    expected = run(image, inputs, image_latents=latents)
    assert torch.equal(run(static, inputs, static_latents=position_ramp(latents, 3)), expected)


def test_frame_0_of_the_static_orbit_feeds_the_tokens_and_all_frames_the_branch(small_unet, small_inputs):
    unet, inputs = small_unet("static3d"), small_inputs("static3d")
    tokens, branches = [], []
    unet.unet.image_latents_context_embedding.register_forward_hook(lambda *args: tokens.append(args[2]))
    unet.unet.image_latents_proj_in.register_forward_hook(lambda *args: branches.append(args[2]))
    run(unet, inputs)
    later = inputs["static_latents"].clone()
    later[:, :, 1:] += 1.0
    run(unet, inputs, static_latents=later)
    assert torch.equal(tokens[0], tokens[1])
    changed = (branches[0] != branches[1]).flatten(1).any(1).view(2, 3)
    assert changed.tolist() == [[False, True, True]] * 2


def test_an_image_network_turns_into_the_static3d_variant(small_unet, small_inputs, tmp_path):
    unet = small_unet("image", loud=True)
    inputs = small_inputs("static3d")
    expected = run(unet, inputs)
    unet.to_static3d().save_pretrained(tmp_path)
    again = OrbitUNet.from_pretrained(tmp_path)
    assert again.config.variant == "static3d"
    assert torch.equal(run(again, inputs), expected)
    with pytest.raises(ValueError, match="needs static_latents"):
        run(again, inputs, static_latents=None)
    with pytest.raises(ValueError, match="text network"):
        small_unet("text").to_static3d()


def test_image_conditions_default_to_the_unconditional_branch(small_unet, small_inputs):
    unet, inputs = small_unet("image"), small_inputs("image")
    zero = run(unet, inputs, image_embeddings=torch.zeros(2, 1, 48), fps=torch.tensor([8, 8]))
    assert torch.equal(run(unet, inputs, image_embeddings=None), zero)
    assert not torch.equal(run(unet, inputs), zero)
    assert not torch.equal(run(unet, inputs, image_embeddings=None, fps=torch.tensor([8, 9])), zero)


@pytest.mark.parametrize("variant", VARIANTS)
def test_save_and_load_keep_everything(variant, small_unet, small_inputs, tmp_path):
    unet, inputs = small_unet(variant, loud=True, camera_harmonics=2), small_inputs(variant)
    unet.set_motion_statistics(-2.5, 0.7)
    unet.save_pretrained(tmp_path)
    assert (tmp_path / "diffusion_pytorch_model.safetensors").exists()
    again = OrbitUNet.from_pretrained(tmp_path)
    saved, loaded = (
        {key: value for key, value in json.loads(network.to_json_string()).items() if key != "_name_or_path"}
        for network in (unet, again)
    )
    assert loaded == saved
    assert again.motion_mean.item() == pytest.approx(-2.5)
    assert again.motion_std.item() == pytest.approx(0.7)
    assert torch.equal(run(again, inputs), run(unet, inputs))


@pytest.mark.parametrize("variant", ["text", "image"])
def test_gradient_checkpointing_recomputes_and_changes_nothing(variant, small_unet, small_inputs):
    unet, inputs = small_unet(variant, loud=True).train(), small_inputs(variant)
    calls = []
    unet.unet.mid_block.resnets[0].register_forward_hook(lambda *_: calls.append(1))

    def step():
        unet.zero_grad()
        calls.clear()
        torch.manual_seed(5)  # dropout
        loss = unet(**inputs).sample.square().mean()
        loss.backward()
        return loss.detach(), [p.grad.clone() for p in unet.parameters() if p.grad is not None], len(calls)

    plain = step()
    unet.enable_gradient_checkpointing()
    saved = step()
    unet.disable_gradient_checkpointing()
    assert (plain[2], saved[2]) == (1, 2)
    assert torch.equal(plain[0], saved[0])
    assert len(plain[1]) == len(saved[1]) > 100
    for a, b in zip(plain[1], saved[1]):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("channels", "size"), [(12, 16), (48, 8)])
def test_pixel_space_sizes(variant, channels, size, small_inputs):
    torch.manual_seed(0)
    unet = OrbitUNet(
        variant=variant,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(32, 64, 96, 96),
        layers_per_block=1,
        cross_attention_dim=24,
        attention_head_dim=16,
        norm_num_groups=16,
        latent_token_grid=4,
    ).eval()
    inputs = small_inputs(variant, channels=channels, size=size, dim=24)
    assert run(unet, inputs).shape == inputs["sample"].shape
    assert run(unet, inputs, encoder_hidden_states=None).isfinite().all()
    assert sum(p.numel() for p in unet.parameters()) < 7_500_000
    if unet.is_image:
        tokens = unet._image_context(torch.randn(2, channels, size, size), None, None)
        assert tokens.shape == (2, 16 + 4, 24)


def test_two_levels_without_attention_below(small_inputs):
    unet = OrbitUNet(
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        cross_attention_dim=48,
        attention_head_dim=8,
        norm_num_groups=8,
    )
    inputs = small_inputs(size=2)
    assert run(unet, inputs).shape == (2, 4, 3, 2, 2)


def test_camera_can_start_awake_and_frames_can_be_numbered(small_unet, small_inputs):
    inputs = small_inputs()
    awake = small_unet(camera_zero_init=False)
    assert (run(awake, inputs) - run(awake, inputs, camera=None)).abs().max() > 1e-3
    numbered = small_unet(frame_index_embedding=True, camera_zero_init=False)
    assert (run(numbered, inputs, camera=None) - run(awake, inputs, camera=None)).abs().max() > 1e-3
    quiet = small_unet(frame_index_embedding=True)
    rows = quiet.frame_embedding[1:](quiet.frame_embedding[0](torch.arange(3)))
    assert rows.abs().max() == 0


def test_harmonics_turn_with_the_azimuth():
    camera = torch.eye(4).flatten().repeat(4, 1)
    angles = torch.tensor([0.0, 0.5, 2.0, -2.5])
    camera[:, 3], camera[:, 7] = 2 * angles.cos(), 2 * angles.sin()
    features = camera_features(camera, 2)
    assert torch.equal(features[:, :16], camera)
    expected = torch.stack([angles.cos(), (2 * angles).cos(), angles.sin(), (2 * angles).sin()], -1)
    torch.testing.assert_close(features[:, 16:], expected)
    assert torch.equal(camera_features(camera), camera)


def test_temporal_dropout_is_set_and_only_acts_in_training(small_unet, small_inputs):
    inputs = small_inputs()
    torch.manual_seed(0)
    unet = small_unet(temporal_dropout=0.0).train()
    assert torch.equal(run(unet, inputs), run(unet.eval(), inputs))
    published = small_unet()
    # At first the last temporal convolution is zero and hides what the dropouts before it do.
    torch.nn.init.normal_(published.unet.mid_block.temp_convs[0].conv4[-1].weight)
    assert not torch.equal(run(published.train(), inputs), run(published.eval(), inputs))


@pytest.mark.parametrize("variant", ["text", "image"])
def test_bfloat16_stays_near_float32(variant, small_unet, small_inputs):
    unet, inputs = small_unet(variant, loud=True), small_inputs(variant)
    expected = run(unet, inputs)
    unet.to(torch.bfloat16)
    half = {
        key: value.bfloat16() if value.is_floating_point() and key not in ("camera", "motion") else value
        for key, value in inputs.items()
    }
    out = run(unet, half)
    assert out.dtype == torch.bfloat16
    assert (out.float() - expected).abs().max() < 0.1 * expected.abs().max()


def test_inputs_that_do_not_fit_are_named(small_unet, small_inputs):
    text, image = small_unet("text"), small_unet("image")
    for unet, changes, match in (
        (text, {"sample": torch.zeros(2, 4, 3, 12, 8)}, "multiples of 8, got 12 x 8"),
        (text, {"camera": torch.zeros(2, 4, 16)}, r"camera must be \(2, 3, 16\)"),
        (text, {"image_latents": torch.zeros(2, 4, 8, 8)}, "takes neither"),
        (image, {"image_latents": None}, "needs image_latents"),
        (image, {"image_latents": torch.zeros(2, 4, 3, 8, 8)}, "image_latents must be"),
        (image, {"static_latents": torch.zeros(2, 4, 2, 8, 8)}, "static_latents must be"),
    ):
        with pytest.raises(ValueError, match=match):
            run(unet, small_inputs(unet.config.variant), **changes)
    with pytest.raises(ValueError, match="variant must be one of text, image, static3d"):
        OrbitUNet(variant="video")


def test_the_first_temporal_transformer_can_be_narrow(small_unet, small_inputs):
    wide, narrow = small_unet(), small_unet(transformer_in_heads=2)
    assert wide.unet.transformer_in.proj_in.weight.shape == (64, 32)
    assert narrow.unet.transformer_in.proj_in.weight.shape == (16, 32)
    assert run(narrow, small_inputs()).isfinite().all()


def test_a_repeated_first_view_is_that_static_orbit(small_unet, small_inputs):
    unet, inputs = small_unet("image", first_view="repeat", seed=3), small_inputs("image")
    latents = inputs.pop("image_latents")
    repeated = run(unet, inputs, image_latents=latents)
    assert torch.equal(repeated, run(unet, inputs, static_latents=repeat_first_view(latents, 3)))
    assert not torch.equal(repeated, run(unet, inputs, static_latents=position_ramp(latents, 3)))
    with pytest.raises(ValueError, match="first_view"):
        small_unet("image", first_view="mirror")


def test_calibrated_cameras_differ_by_as_much_as_the_layers_behind_expect(small_unet):
    """Without calibration the rows of an orbit differ by a fraction of that; a zero MLP stays zero."""
    orbits = torch.cat(
        [videomv_cameras(orbit(8, azimuth0_deg=turn, elevation_deg=10)) for turn in (0, 77, 200)]
    )
    unet = small_unet("image", camera_harmonics=2, camera_zero_init=False)
    with torch.no_grad():
        before = unet.camera_embedding(orbits[None]).std(0).mean()
        calibrate_cameras(unet, orbits)
        rows = unet.camera_embedding(orbits[None])
    assert before < 0.4
    assert rows.std(0).mean().item() == pytest.approx(1.0, abs=1e-4)
    assert rows.mean(0).abs().max() < 1e-4
    base = small_unet("image")
    calibrate_cameras(base, orbits)
    assert base.camera_embedding(orbits[None]).abs().max() == 0
