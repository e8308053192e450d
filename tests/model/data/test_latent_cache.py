"""Latents from the cache are the latents made in the loop, and stale ones are refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from orbit4d.datasets import DatasetWriter
from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.model.data.clip_source import TRAIN, open_clips
from orbit4d.model.data.encode import encode_dataset
from orbit4d.model.encoders.frozen import FrozenParts, PartsSpec
from orbit4d.model.run.log import read
from orbit4d.model.training.train import train


@pytest.fixture
def dataset(tmp_path, synthetic_dataset):
    """A copy that may be written to."""
    return str(shutil.copytree(synthetic_dataset, tmp_path / "dataset"))


def frozen_of(config):
    return FrozenParts.load(PartsSpec.of(config), torch.device("cpu"))


def test_cached_latents_equal_those_made_in_the_loop(dataset, micro_config):
    config = micro_config("data.latents=fly")
    assert "encoded" in encode_dataset(dataset, config, part_clips=2)
    frozen = frozen_of(config)
    fly = open_clips(dataset, config, frozen, TRAIN)
    cached = open_clips(dataset, micro_config("data.latents=cache"), frozen, TRAIN)
    assert cached.is_latent and not fly.is_latent
    assert cached.keys() == fly.keys()
    for i in range(len(fly)):
        a, b = fly[i], cached[i]
        for rig in ("dynamic", "static"):
            made = frozen.to_latents(a[rig][None])[0].transpose(0, 1)
            assert torch.equal(made, b[rig])
        assert torch.equal(a["c2w"], b["c2w"])
        assert torch.allclose(a["motion_frames"], b["motion_frames"])


def test_under_autocast_the_loop_makes_what_the_cache_holds(dataset, tmp_path, micro_config, monkeypatch):
    """Bit for bit: a bf16 run need not know whether its latents, tokens and vectors were made before."""
    from diffusers import AutoencoderKL
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from orbit4d.model.data.latent_cache import as_stored
    from orbit4d.model.encoders.text_and_image import ClipImageEncoder, TextEncoder

    class Letters(TextEncoder):
        dim, length, config_hash = 16, 4, "letters"

        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 16)

        def encode(self, texts):
            return self.layer(torch.tensor([[[ord(c) / 99.0] * 4 for c in f"{t:4}"[:4]] for t in texts]))

    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    vae.save_pretrained(tmp_path / "vae")
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8,
        patch_size=4, projection_dim=16,
    )  # fmt: skip
    image, text = ClipImageEncoder(CLIPVisionModelWithProjection(vision)), Letters()
    monkeypatch.setattr("orbit4d.model.encoders.text_and_image.load_text_encoder", lambda spec: text)
    monkeypatch.setattr("orbit4d.model.encoders.text_and_image.load_image_encoder", lambda spec: image)
    parts = ("model.text_encoder=letters", "model.image_encoder=small", f"model.autoencoder={tmp_path}/vae")
    config = micro_config(*parts, "data.latents=cache")
    encode_dataset(dataset, config)
    frozen = frozen_of(config)
    cached = open_clips(dataset, config, frozen, TRAIN)[0]
    clip = open_clips(dataset, micro_config(*parts, "data.latents=fly"), frozen, TRAIN)[0]
    with torch.autocast("cpu", torch.bfloat16):
        made = {
            "dynamic": frozen.to_latents(clip["dynamic"][None])[0].transpose(0, 1),
            "text": frozen.tokens([clip["caption"]])[0],
            "image_dynamic": frozen.image_vectors(clip["dynamic"][:1])[0],
        }
        frames = frozen.to_pixels(cached["dynamic"].transpose(0, 1)[None])
    for name, value in made.items():
        assert torch.equal(as_stored(value, "float16").float(), cached[name]), name
    assert torch.equal(frames, frozen.to_pixels(cached["dynamic"].transpose(0, 1)[None]))


def test_training_from_the_cache_gives_the_same_losses(dataset, tmp_path, micro_config):
    """Without mirroring, which needs pixels, cache and loop see the same samples."""
    same = ("steps=3", 'data.augment=["roll","reverse"]')
    encode_dataset(dataset, micro_config(*same))
    for mode in ("fly", "memory", "cache", "auto"):
        train(micro_config(*same, f"data.latents={mode}"), dataset, tmp_path / mode)
    losses = {
        m: [r["loss"] for r in read(tmp_path / m / "log.jsonl")] for m in ("fly", "memory", "cache", "auto")
    }
    assert losses["cache"] == losses["auto"]
    assert losses["cache"] == pytest.approx(losses["fly"], abs=1e-6)
    assert losses["memory"] == pytest.approx(losses["fly"], rel=0.02), "pixels kept as 8 bits"


def test_a_second_encoding_does_nothing_and_a_killed_one_goes_on(
    dataset, tmp_path, micro_config, monkeypatch
):
    from orbit4d.model.data.latent_cache import LatentCache

    config = micro_config()
    real, calls = LatentCache.write_part, []

    def killed_after_one(self, clips):
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        real(self, clips)

    monkeypatch.setattr(LatentCache, "write_part", killed_after_one)
    with pytest.raises(KeyboardInterrupt):
        encode_dataset(dataset, config, part_clips=2)
    monkeypatch.setattr(LatentCache, "write_part", real)
    assert ", 2 were there" in encode_dataset(dataset, config, part_clips=2)
    assert encode_dataset(dataset, config).startswith("encoded 0 clips")


def test_clips_added_since_are_refused_until_encoded(dataset, make_clips, micro_config):
    config = micro_config("data.latents=cache")
    encode_dataset(dataset, config)
    writer = DatasetWriter(dataset, {"frames": 8})
    for i in range(3):
        writer.stage(f"later-{i}", make_clips(f"later-{i}"))
    writer.roll(final=True)
    for mode in ("cache", "auto"):
        with pytest.raises(InputError, match=r"missing or stale \(first: later-\d\).*encode"):
            open_clips(dataset, micro_config(f"data.latents={mode}"), frozen_of(config), TRAIN)
    encode_dataset(dataset, config)
    assert "later-0" in open_clips(dataset, config, frozen_of(config), TRAIN).keys()  # noqa: SIM118


def test_clips_rendered_anew_are_refused(dataset, tmp_path, make_clips, micro_config):
    """The same asset, action and orbit with other frames."""
    config = micro_config("data.latents=cache")
    encode_dataset(dataset, config)
    other = tmp_path / "other"
    writer = DatasetWriter(str(other), {"frames": 8})
    from orbit4d.datasets import Index

    names = {r["uid"] for _, t in Index(dataset).read(["uid"]) for r in t.to_pylist()}
    for uid in sorted(names):
        clips = make_clips(uid, ("Run", "Jump"))
        writer.stage(uid, [clip.__class__(**{**vars(clip), "frames": clip.frames[::-1]}) for clip in clips])
    writer.roll(final=True)
    shutil.copytree(f"{dataset}/latents", other / "latents")
    with pytest.raises(InputError, match="missing or stale"):
        open_clips(str(other), config, frozen_of(config), TRAIN)


@pytest.mark.parametrize(
    "change", ["data.resolution=32", "data.background=grey128", "model.autoencoder=unshuffle:2"]
)
def test_latents_made_otherwise_are_not_used(dataset, micro_config, change, capsys):
    encode_dataset(dataset, micro_config())
    config = micro_config("data.latents=auto", change)
    assert not open_clips(dataset, config, frozen_of(config), TRAIN).is_latent
    assert "note:" in capsys.readouterr().out, "and the reader is told why"
    with pytest.raises(InputError, match="encode"):
        open_clips(dataset, micro_config("data.latents=cache", change), frozen_of(config), TRAIN)


def test_other_weights_have_another_key(micro_config, tmp_path):
    """Two VAEs of one shape: their latents are never mixed up."""
    from diffusers import AutoencoderKL

    from orbit4d.model.data.latent_cache import LatentCache, cache_settings

    keys = set()
    for seed in (0, 1):
        torch.manual_seed(seed)
        AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4).save_pretrained(
            tmp_path / f"{seed}"
        )
        config = micro_config(f"model.autoencoder={tmp_path / str(seed)}")
        keys.add(LatentCache(str(tmp_path), cache_settings(config, frozen_of(config))).key)
    assert len(keys) == 2


def test_a_damaged_cache_file_is_named(dataset, micro_config):
    config = micro_config("data.latents=cache")
    encode_dataset(dataset, config)
    clips = open_clips(dataset, config, frozen_of(config), TRAIN)
    (part,) = (p for p in __import__("pathlib").Path(dataset, "latents").rglob("000000.bin"))
    whole = part.read_bytes()
    part.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(WorkError, match=r"000000\.bin"):
        clips[len(clips) - 1]
    part.unlink()
    with pytest.raises(WorkError, match=r"000000\.bin: missing"):
        clips[0]


def test_the_cache_holds_no_test_clip(tmp_path, make_dataset, micro_config):
    from orbit4d.datasets import Index

    path = make_dataset(
        tmp_path / "data",
        assets=40,
        actions=("Run",),
        n_frames=4,
        size=16,
        rigs=("static_orbit", "dynamic_orbit"),
    )
    encode_dataset(str(path), micro_config())
    from orbit4d.model.data.latent_cache import LatentCache, cache_settings

    config = micro_config()
    held = {uid for uid, _, _ in LatentCache(str(path), cache_settings(config, frozen_of(config))).rows()}
    splits = {r["uid"]: r["split"] for _, t in Index(path).read(["uid", "split"]) for r in t.to_pylist()}
    assert {uid for uid, split in splits.items() if split != "test"} == held
    assert "test" in splits.values()


def test_any_flipped_bit_of_a_cache_is_found_where_it_is_read(dataset, micro_config, seed):
    """Rows, names, blobs: one line with the file, or what was encoded. Latents would look sound otherwise."""
    from pathlib import Path

    import numpy as np

    from orbit4d.datasets.core.errors import OrbitError
    from orbit4d.model.data.latent_cache import LatentCache

    encode_dataset(dataset, micro_config(), part_clips=3)
    place = next(Path(dataset, "latents").glob("*.json"))
    settings = json.loads(place.read_text())

    def read(part):
        """All rows, and the tensors of those that lie in the damaged part."""
        cache = LatentCache(dataset, settings)
        rows = cache.rows()
        mine = {key: row for key, row in rows.items() if f"/{part}." in row.part}
        assert mine
        return rows, {
            key: {k: (v.dtype, v.shape, v.numpy().tobytes()) for k, v in cache.read(row).items()}
            for key, row in mine.items()
        }

    rng = np.random.default_rng(seed)
    found = 0
    for path in sorted((*place.parent.rglob("*.bin"), *place.parent.rglob("*.parquet"))):
        content, good = path.read_bytes(), read(path.stem)
        for at in rng.integers(0, len(content), 40):
            damaged = bytearray(content)
            damaged[at] ^= 1 << rng.integers(0, 8)
            path.write_bytes(damaged)
            try:
                assert read(path.stem) == good, (path.name, at)
            except OrbitError as error:
                assert path.stem in str(error) and "encode again" in str(error)
                found += 1
        path.write_bytes(content)
    assert found > 60
