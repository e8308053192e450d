"""The page of an evaluation, opened from disk in a real browser."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from orbit4d.evaluate.cli import command
from orbit4d.evaluate.metrics.clip_score import ClipScore


def test_page_plays_its_videos_without_an_error(tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if chromium is None:
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    frames = tmp_path / "frames"
    frames.mkdir()
    for i in range(10):
        Image.new("RGB", (48, 48), (20 * i, 120, 200 - 15 * i)).save(frames / f"{i:03d}.png")
    words = ["video", str(frames), "--truth", str(frames), "--no-learned", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, repr(result.exception)
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = browser.new_page()
        errors: list[str] = []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((tmp_path / "out" / "index.html").as_uri())
        page.wait_for_function("[...document.querySelectorAll('video')].every(v => v.readyState >= 2)")
        widths = page.evaluate("[...document.querySelectorAll('video')].map(v => v.videoWidth)")
        plots = page.evaluate("document.querySelectorAll('svg').length")
        browser.close()
    assert widths == [48, 48] and plots >= 2 and errors == []


def test_clip_similarity_laws_hold_for_any_weights() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.CLIPConfig(
        text_config={**small, "vocab_size": 99},
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    score = ClipScore(transformers.CLIPModel(config))
    frames = torch.rand(3, 3, 50, 40)
    with torch.no_grad():
        got = score(frames, frames[1])
        torch.testing.assert_close(got[1], torch.tensor(1.0))
        assert (got.abs() <= 1 + 1e-6).all() and got[0] < 1
        torch.testing.assert_close(got, torch.cat([score(f[None], frames[1]) for f in frames]))


def test_a_prompt_is_read_where_the_model_is() -> None:
    """The device without storage stands in for a GPU: what is left on the CPU would be found there."""
    seen: list[str] = []

    class Model(torch.nn.Module):
        def get_text_features(self, input_ids: torch.Tensor) -> torch.Tensor:
            seen.append(input_ids.device.type)
            return torch.zeros(1, 4, device=input_ids.device)

    def tokens(texts: list[str], **_: object) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.zeros(len(texts), 3, dtype=torch.long)}

    ClipScore(Model(), tokens).to("meta").text("a walking fox")
    assert seen == ["meta"]
