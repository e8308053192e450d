"""A learned word: one row is trained, the file says it back, and what is wrong is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.model.distill import load_score
from orbit4d.model.distill.scores.learning import SENTENCES, Lesson, _samples, learn_word
from tests.model.distill.tiny_pipelines import write_pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("sd15"), "sd15")


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    rgba = torch.zeros(16, 16, 4)
    rgba[4:12, 4:12] = torch.tensor([0.8, 0.2, 0.1, 1.0])
    return rgba


def test_the_words_row_alone_is_trained(folder: Path, image: torch.Tensor) -> None:
    score: Any = load_score(str(folder), "2d")
    before = score.prompts.tower.get_input_embeddings().weight.detach().clone()
    towers = {name: p.detach().clone() for name, p in score.prompts.tower.named_parameters()}
    network = {name: p.detach().clone() for name, p in score.network.named_parameters()}
    losses: list[float] = []
    lesson = Lesson(steps=6, batch=2, rate=0.3, weight_decay=0.0, smallest=1.0)
    row = learn_word(score, [image], "<it>", "a", lesson, lambda step, loss: losses.append(loss))
    assert row.shape == (32,) and row.dtype == torch.float32
    start = before[score.prompts.tokenizer.convert_tokens_to_ids("a</w>")]
    assert (row - start).abs().max() > 0.1
    table = score.prompts.tower.get_input_embeddings().weight
    assert torch.equal(table[: len(before)], before) and len(table) == len(before) + 1
    for name, value in score.prompts.tower.named_parameters():
        if "token_embedding" not in name:
            assert torch.equal(value, towers[name]), name
    for name, value in score.network.named_parameters():
        assert torch.equal(value, network[name]) and value.grad is None, name
    assert len(losses) == 6


def test_the_row_goes_down_the_denoising_loss(folder: Path, image: torch.Tensor) -> None:
    """Against the loss of fixed draws, measured with a table that holds the row: no code is shared."""
    from orbit4d.model.distill.scores import learning

    def measured(row: torch.Tensor) -> float:
        score: Any = load_score(str(folder), "2d")
        learning.add_word(score, "<it>", "a")
        with torch.no_grad():
            score.prompts.tower.get_input_embeddings().weight[-1] = row
            generator = torch.Generator().manual_seed(77)
            images = _samples([image], 64, 1.0, generator)
            return float(learning._loss(score, images, "<it>", generator))

    score: Any = load_score(str(folder), "2d")
    lesson = Lesson(steps=25, batch=8, chunk=8, rate=0.05, weight_decay=0.0, smallest=1.0)
    taught = learn_word(score, [image], "<it>", "a", lesson)
    fresh: Any = load_score(str(folder), "2d")
    untaught = learning.add_word(fresh, "<it>", "a")
    assert measured(taught) < measured(untaught)


def test_chunks_and_seeds(folder: Path, image: torch.Tensor) -> None:
    """The first step of Adam is as large whatever the gradient; so two steps, and the whole row."""

    def learned(**changes: Any) -> torch.Tensor:
        lesson = Lesson(**{"steps": 2, "batch": 2, "chunk": 1, **changes})
        return learn_word(load_score(str(folder), "2d"), [image], "<it>", "b", lesson)  # type: ignore[arg-type]

    assert torch.equal(learned(), learned())
    assert not torch.equal(learned(), learned(seed=2))
    # Rate and weight decay are those asked for: without a gradient's help the row moves at most 2 rates.
    score: Any = load_score(str(folder), "2d")
    start = score.prompts.tower.get_input_embeddings().weight[
        score.prompts.tokenizer.convert_tokens_to_ids("b</w>")
    ]
    assert 0 < (learned() - start).abs().max() <= 2.05e-4 + 2e-6 * start.abs().max()


def test_samples_stay_images_and_move(image: torch.Tensor) -> None:
    made = _samples([image], 64, 0.5, torch.Generator().manual_seed(0))
    assert made.shape == (64, 3, 16, 16) and made.min() >= 0 and made.max() <= 1
    corners = made[:, :, 0, 0]
    assert corners.std(0).min() > 0.2, "backgrounds are drawn"
    red = (made - torch.tensor([0.8, 0.2, 0.1]).view(3, 1, 1)).abs().amax(1) < 0.02
    counts = red.sum((1, 2))
    assert counts.min() < 40 <= counts.max() <= 64, "the object is shrunk, never cut"
    assert all("{}" in sentence for sentence in SENTENCES)


def test_what_cannot_be_learned_is_refused(
    folder: Path, image: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for init, word, line in (
        ("fox", "<it>", r"--init 'fox': is 3 entries .* give one common word"),
        ("a", "<|endoftext|>", "has it; give another name"),
    ):
        with pytest.raises(InputError, match=line):
            learn_word(load_score(str(folder), "2d"), [image], word, init)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least one IMAGE"):
        learn_word(load_score(str(folder), "2d"), [], "<it>", "a")  # type: ignore[arg-type]
    score: Any = load_score(str(folder), "2d")
    score.alphas_cumprod = score.alphas_cumprod * float("nan")
    with pytest.raises(WorkError, match="no number at step 1"):
        learn_word(score, [image], "<it>", "a", Lesson(steps=1, batch=1))
