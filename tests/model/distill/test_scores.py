"""Learned priors on random weights of the published layouts: what they are told, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.distill import ScoreModel, gradient, load_score
from orbit4d.model.distill.scores.offload import Turns, bytes_of
from orbit4d.model.distill.scores.views import relative_pose
from tests.model.distill.tiny_pipelines import write_pipeline


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            made[kind] = write_pipeline(tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return folder


def latents(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def images(n: int = 1, edge: int = 16) -> Tensor:
    return torch.rand(n, 3, edge, edge, generator=torch.Generator().manual_seed(3))


CASES = [("sd15", "2d"), ("zero123", "3d"), ("modelscope", "video"), ("tile", "tile")]


def told(kind: str, score: Any) -> Any:
    if kind == "zero123":
        return score.condition(reference=images()[0], camera=torch.tensor([[10.0, 90.0, 2.0]]))
    more = {"control": images(1)} if kind == "tile" else {}
    return score.condition(prompt="a fox runs", negative="blurry", **more)


@pytest.mark.parametrize(("kind", "slot"), CASES)
def test_every_prior_loads_answers_and_gives_a_gradient(
    kind: str, slot: str, home: Callable[[str], Path]
) -> None:
    score: Any = load_score(str(home(kind)), slot)
    assert isinstance(score, ScoreModel) and score.kind == "random" and score.unconditional
    assert score.size == (16, 16) and score.latent == (4, 2) and score.prediction == "epsilon"
    shape = (1, 4, 3, 8, 8) if slot == "video" else (1, 4, 8, 8)
    z, t = latents(*shape), torch.tensor([400])
    conditions = told(kind, score)
    eps = {branch: score.noise(z, t, conditions, branch) for branch in ("cond", "uncond")}
    assert eps["cond"].shape == z.shape and not torch.equal(eps["cond"], eps["uncond"])
    alpha, sigma = score.alphas_cumprod[400].sqrt(), (1 - score.alphas_cumprod[400]).sqrt()
    clean = score.clean_estimate(z, t, conditions)
    torch.testing.assert_close(clean, ((z - sigma * eps["cond"]) / alpha).float(), rtol=1e-5, atol=1e-5)
    noise, before = latents(*shape, seed=2), score.calls
    g = gradient("sds", z, t, noise, score, scale=7.5, conditions=conditions)
    assert g.shape == z.shape and torch.isfinite(g).all() and score.calls - before == 2
    # Without guidance one branch is asked, not two.
    gradient("sds", z, t, noise, score, scale=0.0, conditions=conditions)
    assert score.calls - before == 3


def test_the_image_prior_is_the_pipelines_own_call(home: Callable[[str], Path]) -> None:
    """Tokens with the folder's own padding, through the network alone: what diffusers' pipeline does."""
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextModel, CLIPTokenizer

    folder, score = home("sd15"), load_score(str(home("sd15")), "2d")
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(folder, subfolder="vae"),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(folder, subfolder="unet"),
        scheduler=PNDMScheduler.from_pretrained(folder, subfolder="scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    cond, uncond = pipeline.encode_prompt("a fox runs", "cpu", 1, True, negative_prompt="blurry")
    z, t = latents(1, 4, 8, 8), torch.tensor([321])
    conditions = score.condition(prompt="a fox runs", negative="blurry")  # type: ignore[attr-defined]
    with torch.no_grad():
        for states, branch in ((cond, "cond"), (uncond, "uncond")):
            wanted = pipeline.unet(z, t, encoder_hidden_states=states).sample
            got = score.noise(z, t, conditions, branch)  # type: ignore[arg-type]
            assert (got - wanted).abs().max() < 1e-5


def test_encoding_is_differentiable_and_keeps_its_noise(home: Callable[[str], Path]) -> None:
    score: Any = load_score(str(home("sd15")), "2d")
    x = images(2, 24).requires_grad_(True)
    z = score.encode(x)
    assert z.shape == (2, 4, 8, 8)
    z.sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0
    noise = latents(2, 4, 8, 8)
    assert torch.equal(score.encode(x, noise), score.encode(x, noise))
    assert not torch.equal(score.encode(x, noise), z)
    assert score.decode(z.detach()).shape == (2, 3, 16, 16)


def test_the_control_image_goes_in_as_it_is(home: Callable[[str], Path]) -> None:
    """[0, 1] at the size of the target, with the control branch's own prompt; scale 0 is the plain model."""
    score: Any = load_score(str(home("tile")), "tile")
    seen: list[dict[str, Tensor]] = []
    score.control.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs), with_kwargs=True
    )
    image = images(1, 32)
    conditions = score.condition(prompt="a fox", control=image)
    z, t = latents(1, 4, 8, 8), torch.tensor([100])
    steered = score.noise(z, t, conditions)
    assert seen[0]["controlnet_cond"].shape[-2:] == (16, 16)
    assert seen[0]["controlnet_cond"].min() >= 0 and seen[0]["controlnet_cond"].max() <= 1
    own = score.prompts.tokens(["best quality, high resolution"])
    assert torch.equal(seen[0]["encoder_hidden_states"], own)
    score.control_scale = 0.0
    plain = score.network(z, t, encoder_hidden_states=conditions.cond["encoder_hidden_states"]).sample
    torch.testing.assert_close(score.noise(z, t, conditions), plain)
    assert steered.shape == plain.shape


def test_relative_pose_has_our_sense_of_azimuth() -> None:
    cameras = torch.tensor([[0.0, 0.0, 2.0], [0.0, 90.0, 2.0], [30.0, -90.0, 2.5]], dtype=torch.float64)
    pose = relative_pose(cameras, (0.0, 0.0, 2.0))
    third = torch.tensor(30.0, dtype=torch.float64).deg2rad()
    wanted = torch.tensor([[0, 0, 1, 0], [0, 1, 0, 0], [-third, -1, 0, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(pose, wanted, rtol=0, atol=1e-12)
    stable = relative_pose(cameras, (30.0, 0.0, 2.0), stable=True)
    torch.testing.assert_close(stable[:, 3], torch.full((3,), torch.pi / 3, dtype=torch.float64))
    with pytest.raises(InputError, match="distance above 0"):
        relative_pose(torch.tensor([[0.0, 0.0, 0.0]]), (0.0, 0.0, 2.0))


@pytest.mark.parametrize(
    ("place", "prefix"),
    [
        ("clip_camera_projection", "proj."),
        ("cc_projection", "cc_projection."),
        ("cc_projection", "projection."),
    ],
)
def test_all_three_layouts_of_the_camera_projection(
    place: str, prefix: str, home: Callable[[str], Path], tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "zero"
    shutil.copytree(home("zero123"), folder)
    first: Any = load_score(str(folder), "3d")
    named = {prefix + key: value for key, value in first.projection.state_dict().items()}
    shutil.rmtree(folder / "cc_projection")
    (folder / place).mkdir()
    torch.save(named, folder / place / "diffusion_pytorch_model.bin")
    again: Any = load_score(str(folder), "3d")
    assert torch.equal(first.projection.weight, again.projection.weight)
    torch.save({"other": torch.zeros(2)}, folder / place / "diffusion_pytorch_model.bin")
    with pytest.raises(InputError, match="weight and bias"):
        load_score(str(folder), "3d")


def test_image_latents_are_not_scaled_and_go_last(home: Callable[[str], Path]) -> None:
    score: Any = load_score(str(home("zero123")), "3d")
    reference = images()[0]
    conditions = score.condition(reference=reference, camera=torch.tensor([[0.0, 0.0, 2.0]]))
    mode = score.autoencoder.encode(2 * reference[None] - 1).latent_dist.mode()
    torch.testing.assert_close(conditions.cond["image"], mode)
    assert not conditions.uncond["image"].any() and not conditions.uncond["encoder_hidden_states"].any()
    seen: list[Tensor] = []
    score.network.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    z = latents(1, 4, 8, 8)
    score.noise(z, torch.tensor([5]), conditions)
    assert torch.equal(seen[0][:, :4], z) and torch.equal(seen[0][:, 4:], mode)


def test_a_learned_word_changes_its_own_row_alone(home: Callable[[str], Path], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "token.safetensors"
    save_file({"<fox>": torch.full((2, 32), 0.5)}, file)
    plain: Any = load_score(str(home("sd15")), "2d")
    with pytest.raises(InputError, match="no learned word"):
        plain.condition(prompt="a <fox> runs")
    taught: Any = load_score(str(home("sd15")), "2d", token=file)
    same = [score.condition(prompt="a dog").cond["encoder_hidden_states"] for score in (plain, taught)]
    assert torch.equal(*same)
    ids = taught.prompts.tokenizer(taught.prompts._spelled("a <fox>")).input_ids
    assert len(ids) == 2 + 1 + 2 and taught.prompts.learned == {"<fox>": 2}
    taught.condition(prompt="a <fox> runs")
    for bad, line in (
        ({"<a>": torch.zeros(32), "<b>": torch.zeros(32)}, "one tensor under its word"),
        ({"<a>": torch.zeros(16)}, "learned with another model"),
    ):
        save_file(bad, file)
        with pytest.raises(InputError, match=line):
            load_score(str(home("sd15")), "2d", token=file)


@pytest.mark.parametrize("kind", ["sd15", "modelscope", "tile"])
def test_offload_changes_no_bit_and_holds_one_part_at_a_time(kind: str, home: Callable[[str], Path]) -> None:
    score: Any = load_score(str(home(kind)), {"sd15": "2d", "modelscope": "video"}.get(kind, "tile"))
    shape = (1, 4, 2, 8, 8) if kind == "modelscope" else (1, 4, 8, 8)
    conditions, z, t = told(kind, score), latents(*shape), torch.tensor([500])
    before = score.noise(z, t, conditions)
    assert torch.equal(score.set_offload("idle").noise(z, t, conditions), before)
    assert [turns.log for turns in score.turns] == [[("",)]] * (2 if kind == "tile" else 1)
    assert torch.equal(score.set_offload("sequential").noise(z, t, conditions), before)
    for turns, network in zip(score.turns, score._networks(), strict=True):
        # Every block came once, alone, and all weights passed by.
        assert sorted(turns.log) == sorted((name,) for name in turns.parts) and not turns.here
        assert len(turns.log) > 5 and turns.moved == bytes_of(network)
    assert torch.equal(score.set_offload("none").noise(z, t, conditions), before) and not score.turns
    with pytest.raises(InputError, match="sequential"):
        score.set_offload("sometimes")


def test_a_block_works_with_what_was_brought_and_leaves_the_host_as_it_was(
    home: Callable[[str], Path],
) -> None:
    """What comes to the device is a copy here, as on a GPU, and twice the host's."""

    class Doubled(Turns):
        def _brought(self, host: Tensor) -> Tensor:
            return 2 * host

    score: Any = load_score(str(home("sd15")), "2d")
    entry, x = score.network.conv_in, latents(1, 4, 8, 8)
    before = {name: p.clone() for name, p in score.network.named_parameters()}
    plain = entry(x)
    turns, seen = Doubled(score.network, torch.device("cpu"), by_block=True), []
    entry.register_forward_pre_hook(
        lambda *_: seen.extend(
            n for n, p in score.network.named_parameters() if not torch.equal(p, before[n])
        )
    )
    assert torch.allclose(entry(x), 2 * plain) and sorted(seen) == ["conv_in.bias", "conv_in.weight"]
    assert all(torch.equal(p, before[n]) for n, p in score.network.named_parameters()) and not turns.here
    turns.end()
    assert torch.equal(entry(x), plain)


def test_half_precision_repositories_are_found(tmp_path: Path) -> None:
    score: Any = load_score(str(write_pipeline(tmp_path / "half", "sd15", variant="fp16")), "2d")
    assert score.noise(latents(1, 4, 8, 8), torch.tensor([5]), told("sd15", score)).shape == (1, 4, 8, 8)


def test_refusals_name_the_input_and_the_mend(
    home: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    # Whoever animated something in this process has filled the slot.
    monkeypatch.setattr("orbit4d.model.distill.scores.loading._analytic", [])

    def refused(line: str, spec: str, slot: str, **more: Any) -> None:
        with pytest.raises(InputError, match=line) as caught:
            load_score(spec, slot, **more)
        assert "\n" not in str(caught.value)

    refused("prior slot", "sd15", "4d")
    refused("the nearest is sd15", "sd51", "2d")
    refused("text-to-video", "sd15", "video")
    refused("UNet3DConditionModel", str(home("modelscope")), "2d")
    refused("without text_encoder, tokenizer", str(home("zero123")), "2d")
    refused("model_index.json", str(tmp_path), "2d")
    refused("closed form", "analytic:there.npz", "2d")
    refused("no prior for the slot", "run:there", "tile")
    refused("no text encoder", str(home("zero123")), "3d", token=tmp_path / "t.bin")
    broken = tmp_path / "broken"
    shutil.copytree(home("sd15"), broken)
    settings = broken / "scheduler" / "scheduler_config.json"
    config = json.loads(settings.read_text())
    settings.write_text(json.dumps({**config, "trained_betas": [0.1, 0.2]}))
    refused("says 1000 steps and has a table of 2", str(broken), "2d")
    settings.write_text(json.dumps(config))
    vae = broken / "vae" / "config.json"
    values = json.loads(vae.read_text())
    vae.write_text(json.dumps({**values, "scaling_factor": None}))
    refused("no scaling factor", str(broken), "2d")
    vae.write_text(json.dumps(values))
    shutil.rmtree(broken / "text_encoder")
    refused("without text_encoder", str(broken), "2d")


def test_what_cannot_be_told_or_asked_is_refused(home: Callable[[str], Path]) -> None:
    score: Any = load_score(str(home("modelscope")), "video")
    with pytest.raises(InputError, match="takes no camera"):
        score.condition(prompt="a fox", camera=torch.zeros(1, 3))
    with pytest.raises(InputError, match="needs a prompt"):
        score.condition()
    conditions, t = score.condition(prompt="a fox"), torch.tensor([5])
    for z, line in (
        (latents(1, 4, 8, 8), "needs latents"),
        (latents(1, 4, 17, 8, 8), "at most 16 frames"),
    ):
        with pytest.raises(InputError, match=line):
            score.noise(z, t, conditions)
    with pytest.raises(InputError, match="t must be in"):
        score.noise(latents(1, 4, 2, 8, 8), torch.tensor([1000]), conditions)
    with pytest.raises(InputError, match="needs conditions"):
        score.noise(latents(1, 4, 2, 8, 8), t)
    with pytest.raises(InputError, match="outside"):
        score.encode(images() + 0.5)
    with pytest.raises(InputError, match="not finite"):
        score.encode(images() * float("nan"))
