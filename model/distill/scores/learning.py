"""Textual inversion (Gal et al. 2022): one row of a text model's table learns to say what images show.

Nothing else is trained: the row is a tensor of its own that stands in for the word's entry, so weight decay
and rounding cannot touch another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from orbit4d.datasets.core.errors import InputError, WorkError
from orbit4d.model.distill.score_model import coefficients, noisy
from orbit4d.model.distill.scores.images import ImageScore

#: What is said of the images, in turn.
SENTENCES = (
    "a photo of a {}", "a rendering of a {}", "a cropped photo of the {}", "a photo of a clean {}",
    "a bright photo of the {}", "a close-up photo of a {}", "a good photo of the {}", "a photo of one {}",
    "a rendition of the {}", "a photo of a nice {}", "an illustration of a {}", "a depiction of the {}",
)  # fmt: skip


@dataclass(frozen=True)
class Lesson:
    """How a word is learned (HeliosZhao/Animate124)."""

    steps: int = 3_000
    batch: int = 16
    chunk: int = 4
    """Samples whose graph is held at a time; the gradient is that of the whole batch."""
    rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-2
    smallest: float = 0.75
    """An image is shrunk to this share of itself at least, and moved within its frame."""
    seed: int = 1


def check_words(score: ImageScore, word: str, init: str) -> int:
    """Number of `init` in the vocabulary.

    Raises:
        InputError: `init` is not one entry of the text model's vocabulary, or `word` is in it already.
    """
    tokenizer = score.prompts.tokenizer
    ids = tokenizer(init, add_special_tokens=False).input_ids
    if len(ids) != 1 or ids[0] in (tokenizer.unk_token_id, tokenizer.eos_token_id):
        raise InputError(
            f"--init {init!r}: is {len(ids)} entries of the vocabulary of {score.name}; give one common word"
        )
    if word in tokenizer.get_vocab():
        raise InputError(f"--token {word}: the vocabulary of {score.name} has it; give another name")
    return int(ids[0])


def add_word(score: ImageScore, word: str, init: str) -> Tensor:
    """The new row of `word`, float32 [D], a copy of the row of `init`; the table has one row more.

    InputError as `check_words`.
    """
    prompts, number = score.prompts, check_words(score, word, init)
    prompts.tokenizer.add_tokens([word])
    prompts.tower.resize_token_embeddings(len(prompts.tokenizer))
    prompts.tower.requires_grad_(False)
    prompts.learned[word] = 1
    row: Tensor = prompts.tower.get_input_embeddings().weight[number].detach().float().clone()
    return row


def learn_word(
    score: ImageScore, images: Sequence[Tensor], word: str, init: str, lesson: Lesson | None = None,
    known: Callable[[int, float], None] | None = None,
) -> Tensor:  # fmt: skip
    """The row [D] float32 of a word that images teach, on the CPU.

    images: premultiplied RGBA [H, W, 4] in [0, 1].
    told: called after each step with its number (from 1) and its loss.

    Raises:
        InputError: no image, or as `check_words`.
        WorkError: a loss that is not finite.
    """
    lesson = lesson or Lesson()
    if not images:
        raise InputError("give at least one IMAGE to learn from")
    row = add_word(score, word, init).to(score.prompts.tower.device).requires_grad_(True)
    adam = torch.optim.AdamW([row], lesson.rate, lesson.betas, weight_decay=lesson.weight_decay)
    generator = torch.Generator().manual_seed(lesson.seed)
    with _standing_in(score, word, row):
        for step in range(1, lesson.steps + 1):
            adam.zero_grad()
            total, left = 0.0, lesson.batch
            while left:
                n = min(left, lesson.chunk)
                loss = _loss(score, _samples(images, n, lesson.smallest, generator), word, generator)
                (loss * (n / lesson.batch)).backward()
                total, left = total + float(loss.detach()) * n / lesson.batch, left - n
            if not total < float("inf"):
                raise WorkError(f"token: the loss is no number at step {step}; try another --seed")
            adam.step()
            if known is not None:
                known(step, total)
    return row.detach().float().cpu()


@contextmanager
def _standing_in(score: ImageScore, word: str, row: Tensor) -> Iterator[None]:
    """`row` is what the text model reads for `word`."""
    number = score.prompts.tokenizer.convert_tokens_to_ids(word)

    def replaced(module: Any, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        return torch.where((given[0] == number)[..., None], row.to(out.dtype), out)

    hook = score.prompts.tower.get_input_embeddings().register_forward_hook(replaced)
    try:
        yield
    finally:
        hook.remove()


def _loss(score: ImageScore, images: Tensor, word: str, generator: torch.Generator) -> Tensor:
    """The plain denoising loss of images [n, 3, h, w], one t and one sentence each."""
    n, table = len(images), score.alphas_cumprod
    chosen = torch.randint(len(SENTENCES), (n,), generator=generator)
    t = torch.randint(len(table), (n,), generator=generator)
    device = score.device
    with torch.no_grad():
        shape = (n, score.channels, score.size[0] // score.factor, score.size[1] // score.factor)
        posterior = torch.randn(shape, generator=generator).to(device)
        z = score.encode(images.to(device), posterior)
        noise = torch.randn(shape, generator=generator).to(z)
        z_t = noisy(table, z, noise, t.to(device))
    ids = score.prompts.ids([SENTENCES[int(i)].format(word) for i in chosen])
    states = score.prompts.tower(ids.to(score.prompts.tower.device)).last_hidden_state
    dtype = next(score.network.parameters()).dtype
    known = {"encoder_hidden_states": states.to(device, dtype)}
    output = score.network(z_t.to(dtype), t.to(device), **known).sample.to(z)
    target = noise
    if score.prediction == "sample":
        target = z
    elif score.prediction == "v_prediction":
        alpha, sigma = coefficients(table, t.to(device), z)
        target = alpha * noise - sigma * z
    return functional.mse_loss(output, target)


def _samples(images: Sequence[Tensor], n: int, smallest: float, generator: torch.Generator) -> Tensor:
    """`n` images [n, 3, h, w]: mirrored at even odds, shrunk, moved, on a colour drawn for each.

    A background that never stays the same is no part of what the word can mean.
    """
    made = []
    for _ in range(n):
        image = images[int(torch.randint(len(images), (1,), generator=generator))].permute(2, 0, 1)
        u = torch.rand(7, generator=generator)
        if u[0] < 0.5:
            image = image.flip(-1)
        h, w = image.shape[-2:]
        share = smallest + (1 - smallest) * float(u[1])
        size = (max(1, round(h * share)), max(1, round(w * share)))
        small = functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
        top, left = int(float(u[2]) * (h - size[0] + 1)), int(float(u[3]) * (w - size[1] + 1))
        whole = functional.pad(small, (left, w - size[1] - left, top, h - size[0] - top)).clamp(0, 1)
        made.append((whole[:3] + (1 - whole[3:]) * u[4:].view(3, 1, 1)).clamp(0, 1))
    return torch.stack(made)
