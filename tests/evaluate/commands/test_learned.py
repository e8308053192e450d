"""Learned scores from folders: small networks of our own, and one line where there is none."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from orbit4d.datasets.core.errors import InputError
from orbit4d.evaluate.cli import command
from orbit4d.evaluate.metrics.dreamsim import FILES, DreamSim
from orbit4d.evaluate.metrics.vbench import PARTS, VBench, consistency


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three networks, tiny, as transformers saves them."""
    from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTModel

    root = tmp_path_factory.mktemp("vbench")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vit = ViTConfig(**small, image_size=224, patch_size=56)
    ViTModel(vit, add_pooling_layer=False).save_pretrained(root / "dino-vitb16")
    text = {**small, "vocab_size": 20, "max_position_embeddings": 8}
    clip = CLIPConfig(
        text_config=text, vision_config={**small, "image_size": 32, "patch_size": 16}, projection_dim=8
    )
    for name in ("clip-vit-b-32", "clip-vit-l-14"):
        CLIPModel(clip).save_pretrained(root / name)
    torch.save({"weight": torch.ones(1, 8), "bias": torch.tensor([5.0])}, root / "sa_0_4_vit_l_14_linear.pth")
    return root


def test_consistency_is_vbenchs_loop() -> None:
    features = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    cosine = torch.nn.functional.cosine_similarity
    total = 0.0
    for i in range(1, 5):
        near, far = (max(0.0, cosine(features[j], features[i], dim=0).item()) for j in (i - 1, 0))
        total += (near + far) / 2
    # float32 sums in another order.
    assert consistency(features) == pytest.approx(total / 4, abs=1e-6)


def test_a_still_video_is_consistent_and_a_wild_one_less(folder: Path) -> None:
    scores = VBench.from_folder(folder)
    assert set(scores.scores) == set(PARTS) == set(scores.digests)
    frame = torch.rand(1, 3, 40, 48, generator=torch.Generator().manual_seed(1))
    still = scores(frame.expand(4, -1, -1, -1))
    wild = scores(
        torch.rand(4, 3, 40, 48, generator=torch.Generator().manual_seed(2))
        * torch.arange(4).view(-1, 1, 1, 1)
        / 3
    )
    for name in ("subject_consistency", "background_consistency"):
        assert still[name] == pytest.approx(1.0, abs=1e-5) and wild[name] < still[name] - 1e-4
    # The head adds up a unit vector of 8 and 5, over 10: within sqrt(8) of 5.
    assert abs(10 * still["aesthetic_quality"] - 5) <= 8**0.5
    with pytest.raises(InputError, match="two frames"):
        scores(frame)


def test_a_folder_that_holds_a_part_measures_that_part(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "clip-vit-b-32").symlink_to(folder / "clip-vit-b-32")
    assert set(VBench.from_folder(tmp_path).scores) == {"background_consistency"}
    (tmp_path / "dino-vitb16").mkdir()
    (tmp_path / "dino-vitb16" / "config.json").write_text("{}")
    with pytest.raises(InputError, match="subject_consistency cannot be loaded"):
        VBench.from_folder(tmp_path)
    with pytest.raises(InputError, match=r"holds no network of VBench .*dino-vitb16"):
        VBench.from_folder(tmp_path / "dino-vitb16")


def test_dreamsim_is_never_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def dreamsim(**how: Any) -> tuple[Any, Any]:
        asked.append(how)
        return lambda a, b: (a - b).abs().mean((1, 2, 3)), None

    package = types.ModuleType("dreamsim")
    package.dreamsim = dreamsim  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dreamsim", package)
    for name in FILES[:-1]:
        (tmp_path / name).write_bytes(b"weights")
    with pytest.raises(InputError, match=r"lacks clip_vitb16_lora; give the unpacked weights"):
        DreamSim.from_folder(tmp_path)
    assert not asked, "the package would fetch what is missing"
    (tmp_path / FILES[-1]).mkdir()
    (tmp_path / FILES[-1] / "adapter.bin").write_bytes(b"1")
    sim = DreamSim.from_folder(tmp_path)
    assert asked == [{"pretrained": True, "device": "cpu", "cache_dir": str(tmp_path)}]
    a = torch.rand(3, 3, 20, 20)
    assert sim(a, a).tolist() == [0, 0, 0] and sim(a, 1 - a).shape == (3,)
    (tmp_path / FILES[-1] / "adapter.bin").write_bytes(b"2")
    assert DreamSim.from_folder(tmp_path).digest != sim.digest
    monkeypatch.setitem(sys.modules, "dreamsim", None)
    with pytest.raises(InputError, match="pip install dreamsim"):
        DreamSim.from_folder(tmp_path)


def test_the_command_says_what_it_lacks(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    for i in range(2):
        Image.fromarray(np.full((32, 32, 3), 90 * i, np.uint8)).save(tmp_path / "clip" / f"{i}.png")
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "clip-vit-b-32").symlink_to(folder / "clip-vit-b-32")
    clip = str(tmp_path / "clip")
    done = CliRunner().invoke(command, ["learned", clip, "--vbench", str(tmp_path / "part")])
    assert done.exit_code == 0, done.output
    assert "background_consistency 0." in done.output or "background_consistency 1." in done.output
    assert "subject_consistency: not measured" in done.output
    for words, said in (
        ((), "nothing to measure"),
        (("--dreamsim", str(tmp_path)), "--dreamsim and --truth"),
        (("--dreamsim", str(tmp_path), "--truth", clip), "lacks dino_vitb16_pretrain"),
    ):
        with pytest.raises(InputError, match=said):
            failed = CliRunner().invoke(command, ["learned", clip, *words])
            assert failed.exception is not None
            raise failed.exception
