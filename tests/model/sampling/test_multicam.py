"""`orbit4d multicam` end to end, on a Wan pipeline folder with a tiny UMT5 and AutoencoderKLWan."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from orbit4d.datasets.cameras.transforms import read_transforms
from orbit4d.datasets.core.errors import OrbitError
from orbit4d.datasets.videos.video import read_video, write_video
from orbit4d.model import OrbitWan, export_syncammaster, load_autoencoder, load_text_encoder, save_views
from orbit4d.model.cli.multicam import multicam

WIDTH = 10
FRAMES, SIZE = 5, "32x16"


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory, network: Callable[..., OrbitWan]) -> Path:
    """A Wan pipeline's folder, with the view module beside it in both forms."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("wan")
    net = network(loud=True)
    net.wan.save_pretrained(folder / "transformer")
    AutoencoderKLWan(base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1).save_pretrained(
        folder / "vae"
    )
    UMT5EncoderModel(
        UMT5Config(vocab_size=16, d_model=WIDTH, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    ).save_pretrained(folder / "text_encoder")
    words = {w: i for i, w in enumerate(["<pad>", "</s>", "<unk>", "a", "dancer", "turns"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder / "tokenizer")
    export_syncammaster(net, folder / "step.ckpt")
    save_views(net, folder / "views")
    return folder


def run(*arguments: Any) -> Any:
    result = CliRunner().invoke(multicam, [str(argument) for argument in arguments])
    if isinstance(result.exception, OrbitError):  # what the umbrella command prints and leaves with
        return SimpleNamespace(exit_code=result.exception.exit_code, output=str(result.exception))
    return result


def short(wan: Path, out: Path, *more: Any) -> Any:
    settings = ["--steps", 2, "--frames", FRAMES, "--size", SIZE, "--text", "a dancer"]
    rig = [] if "--cameras" in more or "--rig" in more else ["--rig", "sync_basic", "--pick", "3,1"]
    checkpoint = [] if "--views-checkpoint" in more else ["--views-checkpoint", wan / "step.ckpt"]
    return run(wan, "--out", out, *checkpoint, *settings, *rig, *more)


def test_encoders_of_wan(wan: Path) -> None:
    text = load_text_encoder(wan)
    tokens = text.encode(["a dancer", "a dancer turns  "])
    assert tokens.shape == (2, 512, WIDTH)
    assert not tokens[0, 2:].any() and tokens[1, 2].any() and not tokens[1, 3:].any()
    # On a card the weights are bf16, and the hash still that of the float32 weights.
    placed, moved = load_text_encoder(wan), []
    placed.to = lambda to: moved.append(to) or placed  # type: ignore[method-assign, assignment, func-returns-value, return-value]
    placed.place(torch.device("cuda"))
    assert moved == [torch.bfloat16, torch.device("cuda")] and "_hash" in vars(placed)
    del placed.to
    placed.to(torch.bfloat16)
    assert placed.config_hash == text.config_hash
    assert next(text.place(torch.device("cpu")).parameters()).dtype == torch.float32
    half = placed.encode(["a dancer"])
    assert half.dtype == torch.float32
    # Eight bits of mantissa through one layer.
    torch.testing.assert_close(half, tokens[:1], atol=0.05 * float(tokens.abs().max()), rtol=0)
    vae = load_autoencoder(wan)
    assert (vae.channels, vae.factor, vae.time_factor) == (16, 8, 4)
    frames = torch.rand(2, 9, 3, 16, 24)
    latents = vae.encode_video(frames)
    assert latents.shape == (2, 16, 3, 2, 3)
    assert vae.decode_video(latents).shape == frames.shape
    raw = vae.vae.encode(frames[:1].transpose(1, 2) * 2 - 1).latent_dist.mode()
    mean, std = (torch.tensor(vae.vae.config[f"latents_{n}"]).view(1, -1, 1, 1, 1) for n in ("mean", "std"))
    torch.testing.assert_close(latents[:1], (raw - mean) / std)
    with pytest.raises(ValueError, match=r"8 frames: the autoencoder takes 4n \+ 1"):
        vae.encode_video(frames[:, :8])


def test_text_to_views(wan: Path, tmp_path: Path) -> None:
    result = short(wan, tmp_path / "out", "--fps", 12, "--seed", 3)
    assert result.exit_code == 0, result.output
    assert {p.name for p in tmp_path.iterdir()} == {"out"}
    views = tmp_path / "out" / "views"
    for label in ("cam01", "cam02"):
        video = read_video(views / f"{label}.mp4")
        assert video.frames.shape == (FRAMES, 16, 32, 3)
        assert video.seconds[-1] == pytest.approx((FRAMES - 1) / 12, abs=1e-3)
        assert len(list((views / label).glob("*.png"))) == FRAMES
    record = read_transforms(views / "transforms.json")
    assert record.files[0] == "cam01/000.png" and all((views / name).is_file() for name in record.files)
    assert list(record.labels) == ["cam01"] * FRAMES + ["cam02"] * FRAMES
    assert list(record.times) == [0, 0.25, 0.5, 0.75, 1] * 2
    # camera 3 of sync_basic: straight ahead, 3 m; camera 1: 30 degrees to the side
    np.testing.assert_allclose(record.c2w[0][:3, 3], [0, -1.5, 0], atol=1e-9)
    np.testing.assert_allclose(record.c2w[FRAMES][:3, 3], [0.75, -1.5 * np.cos(np.pi / 6), 0], atol=1e-9)
    about = json.loads((tmp_path / "out" / "multicam.json").read_text())
    assert about["seed"] == 3 and about["cameras_m"]["cam02"]["from"] == "cam01" and about["weights"]
    assert not read_transforms(views / "transforms.json").notes


def test_output_cameras_come_back_the_same(wan: Path, tmp_path: Path) -> None:
    """Both files of cameras lead to the same poses, and so, with one seed, to the same videos."""
    assert short(wan, tmp_path / "a").exit_code == 0
    views = tmp_path / "a" / "views"
    for name, tolerance in (("transforms.json", 1e-12), ("camera_extrinsics.json", 2e-5)):
        out = tmp_path / name.split(".")[0]
        result = short(wan, out, "--cameras", views / name, "--no-frames")
        assert result.exit_code == 0, result.output
        again, first = (read_transforms(p / "views" / "transforms.json") for p in (out, tmp_path / "a"))
        relative = [np.linalg.inv(r.c2w[0]) @ r.c2w[FRAMES] for r in (again, first)]
        np.testing.assert_allclose(*relative, atol=tolerance)
        assert not (out / "views" / "cam01").exists()
        entry = json.loads((out / "views" / "transforms.json").read_text())["frames"][FRAMES + 2]
        assert (entry["file_path"], entry["frame"]) == ("cam02.mp4", 2)
        same = [read_video(p / "views" / "cam02.mp4").frames for p in (out, tmp_path / "a")]
        assert np.abs(same[0].astype(int) - same[1]).max() <= (0 if tolerance < 1e-9 else 2)


def test_reference_is_kept_and_module_files_agree(wan: Path, tmp_path: Path) -> None:
    y, x = np.mgrid[:16, :32]
    clip = np.stack([np.stack([x * 6, y * 12, np.full_like(x, 40 * i)], -1) for i in range(FRAMES)])
    write_video(tmp_path / "clip.mp4", clip.astype(np.uint8), 15.0)
    given = ["--text", "a dancer", "--steps", 2, "--rig", "sync_basic", "--pick", "3,1"]
    videos = []
    for name in ("step.ckpt", "views"):
        result = run(
            wan, "--views-checkpoint", wan / name, "--reference", tmp_path / "clip.mp4", "--out",
            tmp_path / name, *given,
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        assert "trained without a reference view" in result.output
        videos.append(tmp_path / name / "views")
    shown = read_video(tmp_path / "clip.mp4").frames
    from PIL import Image

    kept = np.stack([np.asarray(Image.open(videos[0] / "cam01" / f"{i:03d}.png")) for i in range(FRAMES)])
    np.testing.assert_array_equal(kept, shown)
    for i in range(FRAMES):
        same = [(views / "cam02" / f"{i:03d}.png").read_bytes() for views in videos]
        assert same[0] == same[1]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--rig", "sync_bsic"], "unknown rig 'sync_bsic'; choose from sync, sync:<n>, sync_basic"),
        (["--rig", "sync_basic", "--pick", "3"], "one camera; synchronised views need two"),
        (["--rig", "sync_basic", "--pick", "3,11"], "--pick 11: sync_basic has cameras 1 to 10"),
        (["--rig", "sync_basic", "--cameras", "x.json"], "give one of --rig and --cameras"),
        (["--frames", "8"], "8 frames: give 4n + 1, such as 5 or 9"),
        (["--size", "32x20"], "edges are multiples of 16, such as 16 or 32"),
        (["--motion", "0.1"], "knows no motion magnitude"),
        (["--cameras", "nowhere.json"], "no such file"),
    ],
)
def test_bad_input_is_one_line(wan: Path, tmp_path: Path, more: list[str], said: str) -> None:
    result = short(wan, tmp_path / "out", *more)
    assert result.exit_code == 2, result.output
    assert said in result.output and len(result.output.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_cameras_and_reference_that_do_not_fit(wan: Path, tmp_path: Path, network: Any) -> None:
    assert short(wan, tmp_path / "a", "--no-frames").exit_code == 0
    record = json.loads((tmp_path / "a/views/transforms.json").read_text())
    moved = [f for i, f in enumerate(record["frames"]) if i % FRAMES < 3]
    for i, frame in enumerate(moved):
        frame["transform_matrix"][0][3] += i
    (tmp_path / "three.json").write_text(json.dumps({**record, "frames": moved}))
    result = short(wan, tmp_path / "b", "--cameras", tmp_path / "three.json")
    assert result.exit_code == 2 and "3 cameras per view, 5 frames: give 1 or 5" in result.output
    write_video(tmp_path / "clip.mp4", np.zeros((4, 16, 32, 3), np.uint8), 24.0)
    result = short(wan, tmp_path / "b", "--reference", tmp_path / "clip.mp4")
    assert result.exit_code == 2 and "has 4 frames at 24 fps; --frames 5 --fps 24 asked" in result.output
    other = network(loud=True, num_layers=2)
    export_syncammaster(other, tmp_path / "other.ckpt")
    result = short(wan, tmp_path / "b", "--views-checkpoint", tmp_path / "other.ckpt")
    assert result.exit_code == 2 and "holds 2 blocks of width 24, the base has 3 of 24" in result.output
    torch.save(other.wan.state_dict(), tmp_path / "plain.pth")
    result = short(wan, tmp_path / "b", "--views-checkpoint", tmp_path / "plain.pth")
    assert result.exit_code == 2 and "holds no view tensors" in result.output
    result = run(wan, "--text", "a", "--rig", "sync_basic", "--out", tmp_path / "b")
    assert result.exit_code == 2 and "give --views-checkpoint" in result.output
    shutil.rmtree(tmp_path / "a")
    assert not (tmp_path / "b").exists()
