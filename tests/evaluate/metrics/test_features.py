"""Patch features from a folder: a small transformer of our own, saved and read back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from orbit4d.datasets.core.errors import InputError
from orbit4d.evaluate.metrics.features import PatchFeatures


def test_features_lie_where_the_image_has_them(tmp_path: Path) -> None:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=7, mlp_ratio=2
    )
    Dinov2Model(config).save_pretrained(tmp_path / "dino")
    features = PatchFeatures.from_folder(tmp_path / "dino")
    image = torch.full((1, 3, 30, 44), 0.5)
    marked = image.clone()
    marked[..., 22:28, 8:13] = 0.0
    plain, other = features(image), features(marked)
    assert plain.shape == (1, 4, 6, 16)
    change = (other - plain).abs().sum(-1)[0]
    assert divmod(int(change.argmax()), 6) == (3, 1), "the patch that was marked changes most"
    with pytest.raises(InputError, match=r"config\.json"):
        PatchFeatures.from_folder(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="no vision transformer"):
        PatchFeatures.from_folder(tmp_path)
