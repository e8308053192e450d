"""OpenCLIP weight files (`open_clip_pytorch_model.bin`) as transformers CLIP towers.

Source of the layout: mlfoundations/open_clip, src/open_clip/model.py and transformer.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.encoders.autoencoders import load_exactly
from orbit4d.model.weights.files import describe_keys, read_tensors
from orbit4d.model.weights.keymap import Rule, rename

#: Heads of both towers of ViT-H/14; weights do not tell it.
HEADS = 16
#: Of neither tower's output: joint-space projection of text, temperature, the causal mask of old files.
TEXT_EXTRAS = ("text_projection", "logit_scale", "logit_bias", "attn_mask")
QKV = ("q_proj", "k_proj", "v_proj")


def load_text_tower(path: str | Path, heads: int = HEADS) -> CLIPTextModel:
    """The whole text tower, float32; sizes follow from the file. Raises InputError for anything left over."""
    source = _read(path)
    text = {key: value for key, value in source.items() if not key.startswith("visual.")}
    text = {key: value for key, value in text.items() if key not in TEXT_EXTRAS}
    vocabulary, width = text["token_embedding.weight"].shape
    mlp = _shape(text, path, "transformer.resblocks.0.mlp.c_fc.weight")
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=mlp[0],
            num_hidden_layers=_count_layers(text, "transformer.resblocks."),
            num_attention_heads=heads,
            max_position_embeddings=_shape(text, path, "positional_embedding")[0],
            hidden_act="gelu",
            # OpenCLIP's tokens: what transformers would take for pooling, which is not used here.
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
        )
    )
    rules = [
        Rule("token_embedding", "embeddings.token_embedding"),
        Rule("positional_embedding", "embeddings.position_embedding"),
        Rule("ln_final", "final_layer_norm"),
        *_transformer_rules("transformer", "encoder", model.config.num_hidden_layers),
    ]
    names = {"positional_embedding": "positional_embedding.weight"}
    converted, unknown = rename(_dotted(text, names), rules)
    # transformers before 5 wraps the tower once more.
    load_exactly(path, getattr(model, "text_model", model), converted, unknown)
    return model.eval()


def load_vision_tower(path: str | Path, heads: int = HEADS) -> CLIPVisionModelWithProjection:
    """The image tower with its projection, float32; sizes follow from the file. Raises InputError."""
    source = _read(path)
    vision = {key: value for key, value in source.items() if key.startswith("visual.")}
    width, _, patch, _ = _shape(vision, path, "visual.conv1.weight")
    grid = round((_shape(vision, path, "visual.positional_embedding")[0] - 1) ** 0.5)
    model = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=_shape(vision, path, "visual.transformer.resblocks.0.mlp.c_fc.weight")[0],
            num_hidden_layers=_count_layers(vision, "visual.transformer.resblocks."),
            num_attention_heads=heads,
            image_size=grid * patch,
            patch_size=patch,
            projection_dim=_shape(vision, path, "visual.proj")[1],
            hidden_act="gelu",
        )
    )
    rules = [
        Rule("visual.conv1", "vision_model.embeddings.patch_embedding"),
        Rule("visual.positional_embedding", "vision_model.embeddings.position_embedding"),
        Rule("visual.ln_pre", "vision_model.pre_layrnorm"),  # spelt so in transformers
        Rule("visual.ln_post", "vision_model.post_layernorm"),
        Rule("visual.proj", "visual_projection"),
        *_transformer_rules("visual.transformer", "vision_model.encoder", model.config.num_hidden_layers),
    ]
    names = {f"visual.{name}": f"visual.{name}.weight" for name in ("positional_embedding", "proj")}
    # A parameter without a suffix on both sides.
    class_embedding = vision.pop("visual.class_embedding", None)
    converted, unknown = rename(_dotted(vision, names), rules)
    if class_embedding is not None:
        converted["vision_model.embeddings.class_embedding"] = class_embedding
    # OpenCLIP multiplies features by the matrix, a linear layer by its transpose.
    if "visual_projection.weight" in converted:
        converted["visual_projection.weight"] = converted["visual_projection.weight"].T.contiguous()
    load_exactly(path, model, converted, unknown)
    return model.eval()


def _read(path: str | Path) -> dict[str, Tensor]:
    source, _ = read_tensors(path)
    if "token_embedding.weight" not in source or "visual.conv1.weight" not in source:
        raise InputError(f"{path}: holds {describe_keys(source)}, not an OpenCLIP model with both towers")
    return source


def _shape(source: Mapping[str, Tensor], path: str | Path, key: str) -> tuple[int, ...]:
    if key not in source:
        raise InputError(f"{path}: is an OpenCLIP file without {key}; download it again")
    return tuple(source[key].shape)


def _count_layers(source: Mapping[str, Tensor], prefix: str) -> int:
    return 1 + max(int(key[len(prefix) :].split(".")[0]) for key in source if key.startswith(prefix))


def _dotted(source: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Give bare parameters a module of their own: `attn.in_proj_weight` becomes `attn.in_proj.weight`."""
    return {names.get(key, key.replace(".in_proj_", ".in_proj.")): value for key, value in source.items()}


def _transformer_rules(source: str, target: str, layers: int) -> list[Rule]:
    rules = []
    for i in range(layers):
        theirs, ours = f"{source}.resblocks.{i}", f"{target}.layers.{i}"
        rules += [
            Rule(f"{theirs}.ln_1", f"{ours}.layer_norm1"),
            Rule(f"{theirs}.ln_2", f"{ours}.layer_norm2"),
            Rule(f"{theirs}.attn.in_proj", f"{ours}.self_attn", parts=QKV),
            Rule(f"{theirs}.attn.out_proj", f"{ours}.self_attn.out_proj"),
            Rule(f"{theirs}.mlp.c_fc", f"{ours}.mlp.fc1"),
            Rule(f"{theirs}.mlp.c_proj", f"{ours}.mlp.fc2"),
        ]
    return rules
