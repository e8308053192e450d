"""OrbitPipeline: what diffusers users expect of a pipeline, and what ours promises about its conditions."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from orbit4d.datasets import open_reference, orbit, read_clip
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.datasets.videos.video import read_video
from orbit4d.model import OrbitPipeline, cli
from orbit4d.model.data.motion_statistics import MotionStatistics
from orbit4d.model.sampling.generate import Request, generate
from orbit4d.model.sampling.pipeline import autocast_dtype
from orbit4d.model.training.train import train


@pytest.fixture(scope="module")
def run(tmp_path_factory, synthetic_dataset, micro_config):
    """A small finished run that takes both a first view and a static orbit."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("pipeline") / "run"
    train(micro_config("optim.lr=0.01", "optim.optimizer=adamw"), str(synthetic_dataset), folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(run):
    return OrbitPipeline.of_folder(run)


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)


def draw(pipeline, seed=0, **kwargs):
    generator = torch.Generator().manual_seed(seed)
    settings = {"num_inference_steps": 3, "generator": generator, "output_type": "pt", "motion": 0.01}
    return pipeline(**(settings | kwargs)).frames


def test_it_is_a_diffusers_pipeline(pipeline):
    from diffusers import DiffusionPipeline

    assert isinstance(pipeline, DiffusionPipeline)
    assert set(pipeline.components) >= {"unet", "scheduler", "base_unet"}


def test_frames_have_the_promised_shape_and_kind(pipeline, picture):
    for kind, shape, dtype in [
        ("np", (1, 4, 16, 16, 3), np.float32),
        ("uint8", (1, 4, 16, 16, 3), np.uint8),
        ("pt", (1, 4, 3, 16, 16), torch.float32),
        ("latent", (1, 48, 4, 4, 4), torch.float32),
    ]:
        frames = draw(pipeline, image=picture, output_type=kind)
        assert tuple(frames.shape) == shape and frames.dtype == dtype
    videos = draw(pipeline, image=picture, output_type="pil")
    assert len(videos) == 1 and len(videos[0]) == 4 and videos[0][0].size == (16, 16)
    values = draw(pipeline, image=picture)
    assert values.min() >= 0 and values.max() <= 1


def test_saved_and_loaded_it_gives_the_same_frames(pipeline, picture, tmp_path):
    before = draw(pipeline, image=picture, w2=0.5)
    pipeline.save_pretrained(tmp_path / "copy")
    index = json.loads((tmp_path / "copy" / "model_index.json").read_text())
    assert index["_class_name"] == "OrbitPipeline"
    again = OrbitPipeline.from_pretrained(tmp_path / "copy")
    assert torch.equal(before, draw(again, image=picture, w2=0.5))
    assert again.motion_statistics == pipeline.motion_statistics


def test_the_seed_decides(pipeline, picture):
    assert torch.equal(draw(pipeline, 1, image=picture), draw(pipeline, 1, image=picture))
    assert not torch.equal(draw(pipeline, 1, image=picture), draw(pipeline, 2, image=picture))


@pytest.mark.parametrize("change", ["motion", "cameras", "image", "static", "w1", "w2", "w_motion"])
def test_every_condition_reaches_the_network(pipeline, picture, change):
    """Changing any one condition or weight changes the frames: nothing is dropped on the way."""
    base = {"image": picture, "w1": 0.5, "w2": 0.5, "w_motion": 0.5}
    other = {
        "motion": {"motion": 0.2},
        "cameras": {"cameras": orbit(4, azimuth0_deg=90, size=(16, 16))},
        "image": {"image": 255 - picture},
        "static": {"static": np.stack([picture, 255 - picture, picture, picture])},
        "w1": {"w1": 2.0},
        "w2": {"w2": 2.0},
        "w_motion": {"w_motion": 2.0},
    }[change]
    assert not torch.allclose(draw(pipeline, **base), draw(pipeline, **(base | other)), atol=1e-5)


def test_motion_of_each_video_can_differ(pipeline, picture):
    noise = torch.randn(1, 48, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    together = draw(pipeline, image=picture, motion=[0.001, None], latents=noise.expand(2, -1, -1, -1, -1))
    low, none = (draw(pipeline, image=picture, motion=m, latents=noise) for m in (0.001, None))
    assert torch.allclose(together[:1], low, atol=1e-5)
    assert torch.allclose(together[1:], none, atol=1e-5)
    assert not torch.allclose(low, none, atol=1e-4)


def test_small_passes_change_nothing(pipeline, picture):
    kwargs = {"image": picture, "w1": 1.0, "w2": 1.0, "w_motion": 1.0, "num_videos": 2}
    assert torch.allclose(draw(pipeline, **kwargs), draw(pipeline, **kwargs, max_batch=1), atol=1e-5)


def test_callback_sees_every_step(pipeline, picture):
    seen = []
    draw(
        pipeline,
        image=picture,
        callback_on_step_end=lambda p, i, t, values: seen.append((i, int(t))) or values,
    )
    assert [i for i, _ in seen] == [0, 1, 2]
    assert [t for _, t in seen] == sorted((t for _, t in seen), reverse=True)


def test_wrong_conditions_are_refused_in_one_line(pipeline, picture):
    for kwargs, says in [
        ({}, "give an image"),
        ({"image": picture, "prompt": "a fox"}, "without a text encoder"),
        ({"image": picture, "cameras": orbit(5)}, "makes 4 frames, got 5"),
        ({"static": np.zeros((3, 16, 16, 3), np.uint8)}, "needs 4 frames"),
    ]:
        with pytest.raises(InputError, match=says):
            draw(pipeline, **kwargs)


def test_generation_leaves_video_frames_and_cameras(run, tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "in.png")
    out = tmp_path / "orbit.mp4"
    with pytest.raises(InputError, match="--matte none"):
        generate(run, out, Request(image=str(tmp_path / "in.png"), steps=2))
    assert not out.exists(), "a photo before no flat background"
    whole = Request(image=str(tmp_path / "in.png"), matte="none", motion="q0.9", steps=2, samples=2)
    written = generate(run, out, whole)
    assert written == [out, tmp_path / "orbit-1.mp4"]
    for path in written:
        assert len(read_video(path).frames) == 4
        folder = path.with_suffix("")
        frames = sorted((folder / "frames").iterdir())
        assert [p.name for p in frames] == ["000.png", "001.png", "002.png", "003.png"]
        described = json.loads((folder / "transforms.json").read_text())
        expected = orbit(4, size=(16, 16))
        assert described["w"] == 16 and described["fl_x"] == pytest.approx(expected[0].fl_x)
        assert described["background"] == [255, 255, 255]
        for entry, camera, time in zip(described["frames"], expected, np.linspace(0, 1, 4)):
            np.testing.assert_allclose(entry["transform_matrix"], camera.c2w, atol=1e-6)
            assert entry["time"] == pytest.approx(time)
            assert (folder / entry["file_path"]).is_file()
    first, second = (np.asarray(Image.open(p.with_suffix("") / "frames/001.png")) for p in written)
    assert (first != second).any(), "another seed"


def test_a_static_orbit_of_a_dataset_is_set_in_motion(run, tmp_path, synthetic_dataset):
    reference = f"{synthetic_dataset}:asset-002:Jump"
    generate(run, tmp_path / "orbit.mp4", Request(static=reference, motion="0.01", steps=2))
    dataset, uid, action = open_reference(reference)
    clip = read_clip(dataset, uid, action, rig="static_orbit")
    described = json.loads((tmp_path / "orbit" / "transforms.json").read_text())
    for entry, camera in zip(described["frames"], clip.cameras[::2]):
        np.testing.assert_allclose(entry["transform_matrix"], camera.c2w, atol=1e-6)


def test_bad_requests_are_one_line(run, tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "in.png")
    image = str(tmp_path / "in.png")
    out = tmp_path / "o.mp4"
    for where, target, request, says in [
        (run, tmp_path / "o.gif", Request(image=image), "ends in .mp4"),
        (run, out, Request(), "exactly one"),
        (run, out, Request(image=image, text="a fox"), "exactly one"),
        (run, out, Request(text="a fox"), "without a text encoder"),
        (run, out, Request(image=image, motion="fast"), "raw magnitude"),
        (run, out, Request(image=image, motion="q1.5"), "quantile"),
        (run, out, Request(image=image, motion="-1"), "raw magnitude"),
        (run, out, Request(image=image, samples=0), "at least 1"),
        (tmp_path / "absent", out, Request(image=image), "no run there"),
        (run, out, Request(image=str(tmp_path / "absent.png")), "no such file"),
    ]:
        with pytest.raises(InputError, match=says) as caught:
            generate(where, target, request)
        assert "\n" not in str(caught.value)
    assert not out.exists()


def test_an_unfinished_run_says_so(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="has not finished"):
        OrbitPipeline.of_folder(tmp_path)


def test_other_weights_around_the_network_are_refused(run, tmp_path):
    import shutil

    copy = shutil.copytree(run / "model", tmp_path / "model")
    index = copy / "model_index.json"
    values = json.loads(index.read_text())
    values["parts_hashes"]["autoencoder"] = "0" * 16
    index.write_text(json.dumps(values))
    with pytest.raises(InputError, match="trained with"):
        _ = OrbitPipeline.from_pretrained(copy).parts


def test_motion_is_read_as_number_quantile_or_none():
    statistics = MotionStatistics(-3.0, 0.5, tuple(np.linspace(0, 1, 101) ** 2), 50)
    assert statistics.parse("0.004") == 0.004
    assert statistics.parse("q0.5") == pytest.approx(0.25)
    assert statistics.parse("q1") == 1.0
    assert statistics.parse("none") is None
    assert MotionStatistics.from_dict(json.loads(json.dumps(statistics.to_dict()))) == statistics
    with pytest.raises(InputError, match="no training motion"):
        MotionStatistics(0.0, 1.0, (), 0).parse("q0.5")


def test_statistics_are_those_of_the_training_clips(run, synthetic_dataset, pipeline):
    from orbit4d.datasets import OrbitDataset

    data = OrbitDataset(synthetic_dataset, split="train", size=16)
    values = [float((d["dynamic"] - d["static"])[::2].square().mean()) for d in data]
    statistics = pipeline.motion_statistics
    assert statistics.clips == len(values)
    assert statistics.quantile(1.0) == pytest.approx(max(values), rel=1e-3)
    assert statistics.mean_log10 == pytest.approx(np.log10(np.array(values) + 1e-6).mean(), abs=1e-3)
    assert float(pipeline.unet.motion_mean) == pytest.approx(statistics.mean_log10, abs=1e-5)


def test_the_command_line(run, tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "in.png")
    arguments = [
        str(run),
        "--image",
        str(tmp_path / "in.png"),
        "--matte",
        "none",
        "--out",
        str(tmp_path / "a.mp4"),
        "--steps",
        "2",
    ]
    result = CliRunner().invoke(cli.generate, arguments)
    assert result.exit_code == 0, result.output
    assert "wrote" in result.output and "the whole image is taken" in result.output
    for command in (cli.train, cli.encode, cli.generate):
        assert "Example" in CliRunner().invoke(command, ["--help"]).output


def test_importing_the_commands_is_light():
    heavy = "('torch', 'diffusers', 'ray')"
    code = f"import sys, orbit4d.model.cli; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], cwd="/", env=os.environ, check=False).returncode == 0


def with_room_for(monkeypatch, pipeline, batch):
    """A network that has memory for passes of at most `batch`; returns the batches of the passes it ran."""
    real, seen = pipeline.unet.forward, []

    def forward(sample, *args, **kwargs):
        if len(sample) > batch:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        seen.append(len(sample))
        return real(sample, *args, **kwargs)

    monkeypatch.setattr(pipeline.unet, "forward", forward)
    return seen


def test_branches_that_do_not_fit_together_go_one_by_one(pipeline, picture, monkeypatch, capsys):
    """With the same frames, and a note; what was learned in the first step holds for those after it."""
    kwargs = {"image": picture, "w1": 1.0, "w_motion": 1.0}
    expected = draw(pipeline, **kwargs)
    seen = with_room_for(monkeypatch, pipeline, 1)
    assert torch.allclose(draw(pipeline, **kwargs), expected, atol=1e-5)
    assert seen == [1] * 9, "3 steps of 3 branches"
    assert capsys.readouterr().out.count("note: no memory") == 1


def test_sampling_without_enough_memory_is_one_clear_line(pipeline, picture, monkeypatch):
    with_room_for(monkeypatch, pipeline, 0)
    with pytest.raises(WorkError, match=r"out of memory while sampling.*more memory") as caught:
        draw(pipeline, image=picture)
    assert "\n" not in str(caught.value)


def test_decoding_without_enough_memory_is_one_clear_line(pipeline, picture, monkeypatch):
    def refuse(latents):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(pipeline.parts, "to_pixels", refuse)
    with pytest.raises(WorkError, match="out of memory while sampling"):
        draw(pipeline, image=picture)


def test_a_weight_against_a_base_that_is_not_there_is_refused(run, picture, tmp_path):
    import shutil

    copy = shutil.copytree(run / "model", tmp_path / "model")
    shutil.rmtree(copy / "base_unet")
    alone = OrbitPipeline.from_pretrained(copy)
    with pytest.raises(InputError, match=r"w2 0\.5: this run has no frozen base"):
        draw(alone, image=picture, w2=0.5)
    assert torch.equal(draw(alone, image=picture, w2=0.0), draw(alone, image=picture))


def test_a_gpu_samples_in_the_precision_of_training(pipeline, picture, monkeypatch):
    """Autocast around the network alone: its branches are combined, and its steps taken, in float32."""
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    known = {"bf16": torch.bfloat16, "fp16": torch.float16, "no": None}
    assert {name: autocast_dtype(name, cuda) for name in known} == known
    assert all(autocast_dtype(name, cpu) is None for name in known)

    expected = draw(pipeline, image=picture, w1=1.0, output_type="latent")
    monkeypatch.setattr("orbit4d.model.sampling.pipeline.autocast_dtype", lambda *_: torch.bfloat16)
    kinds = []
    hook = pipeline.unet.register_forward_hook(lambda m, a, out: kinds.append(out.sample.dtype))
    half = draw(pipeline, image=picture, w1=1.0, output_type="latent")
    hook.remove()
    assert set(kinds) == {torch.bfloat16} and half.dtype == torch.float32
    assert not torch.equal(half, expected)
    assert (half - expected).abs().mean() < 0.02 * expected.abs().mean()


def test_measuring_motion_shows_its_progress_where_asked(tmp_path, synthetic_dataset, micro_config, capsys):
    """Decoding a thousand clips takes minutes: training says so, and a cache has no need to."""
    from orbit4d.model.data.clip_source import PixelClips

    clips = PixelClips(str(synthetic_dataset), micro_config(), "train")
    quiet = MotionStatistics.measure(clips, micro_config())
    assert capsys.readouterr().err == ""
    shown = MotionStatistics.measure(clips, micro_config(), shown=True)
    assert f"measure motion: {len(clips)}/{len(clips)} clips" in capsys.readouterr().err
    assert shown == quiet
    train(micro_config('stages=[{"name":"dynamic","steps":1}]'), str(synthetic_dataset), tmp_path / "run")
    assert "measure motion: " in capsys.readouterr().err
    clips.is_latent = True
    MotionStatistics.measure(clips, micro_config(), shown=True)
    assert capsys.readouterr().err == ""


def test_ddim_by_hand_with_clean_estimates_is_a_call_bit_for_bit(pipeline, picture):
    """`clean_estimate` is the step of a call: guided prediction, residual rule, conversion."""
    from orbit4d.model.diffusion.losses import convert_prediction

    wanted = draw(pipeline, image=picture, output_type="latent", motion=0.01)
    asked = pipeline.conditions(image=picture, motion=0.01)
    z = torch.randn(1, 48, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(3)
    kind = scheduler.config["prediction_type"]
    for t in scheduler.timesteps:
        clean = pipeline.clean_estimate(z, t.expand(1), asked)
        assert clean.dtype == torch.float32 and clean.shape == z.shape
        # A scheduler that is handed clean samples steps from them; other kinds are converted, and rounded.
        if kind == "sample":
            output = clean
        else:
            a, s = scheduler.alphas_cumprod[t].sqrt(), (1 - scheduler.alphas_cumprod[t]).sqrt()
            noise = (z - a * clean) / s
            output = noise if kind == "epsilon" else a * noise - s * clean
            assert convert_prediction(scheduler, output, z, t.expand(1), "sample").allclose(clean, atol=1e-4)
        z = scheduler.step(output, t, z, return_dict=False)[0]
    assert torch.equal(z, wanted) if kind == "sample" else torch.allclose(z, wanted, atol=1e-4)


def test_a_run_is_a_prior_over_its_own_orbits(run, pipeline, picture):
    from orbit4d.model.distill import gradient, load_score

    score = load_score(f"run:{run}", "video")
    assert score.kind == "trained-here" and score.frames == 4 and score.latent == (48, 4)
    cameras = pipeline.orbit(azimuth0_deg=70.0, elevation_deg=20.0)
    reference = torch.from_numpy(picture).permute(2, 0, 1) / 255
    conditions = score.condition(reference=reference, cameras=cameras)
    z, t = torch.randn(1, 48, 4, 4, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([400])
    g = gradient("sds", z, t, torch.zeros_like(z), score, scale=2.0, conditions=conditions)
    assert g.shape == z.shape and torch.isfinite(g).all()
    own = pipeline.clean_estimate(z, t, conditions, guided=False)
    assert torch.equal(score.clean_estimate(z, t, conditions), own)
    still = load_score(f"run:{run}", "3d").condition(reference=reference, cameras=cameras)
    assert float(still.full.motion) == 0.0 and float(conditions.full.motion) > 0
    frames = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(2)).requires_grad_(True)
    score.encode(frames).sum().backward()
    assert frames.grad.abs().sum() > 0
    with pytest.raises(InputError, match="one height and distance"):
        score.condition(reference=reference, cameras=[cameras[0], cameras[0], cameras[2], cameras[3]])
    with pytest.raises(InputError, match="got 3 cameras"):
        score.condition(reference=reference, cameras=cameras[:3])
