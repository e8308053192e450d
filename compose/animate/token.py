"""`orbit4d animate token`: a word that stands for the object of a few images, for prompts of later runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from orbit4d.compose.animate.start.reference import read_reference
from orbit4d.datasets.core.atomic import replacing_file
from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.core.progress import Progress
from orbit4d.model.distill.scores.images import ImageScore
from orbit4d.model.distill.scores.learning import Lesson, check_words, learn_word
from orbit4d.model.distill.scores.loading import load_score
from orbit4d.model.distill.scores.published import known
from orbit4d.model.distill.scores.text import WORD
from orbit4d.recon4d.devices import choose_device, describe_device

SUFFIXES = (".safetensors", ".bin")


@dataclass(frozen=True)
class TokenRequest:
    """One word to learn."""

    images: tuple[str, ...]
    out: Path
    token: str
    init: str
    model: str = "sd15"
    lesson: Lesson = field(default_factory=Lesson)
    matte: str = "flat"
    device: str = "auto"


def learn_token(request: TokenRequest, say: Callable[[str], None] = print) -> Path:
    """Learn the word of a request and write its file: one tensor [D] under the word.

    Raises:
        InputError: a word, image, model or place that cannot be used; nothing is written.
        WorkError: where the training failed.
    """
    _check(request)
    device = choose_device(request.device)
    if device.type == "cpu" and request.device == "auto" and known(request.model) is not None:
        raise InputError(
            f"--model {request.model}: there is no GPU, and a step of {request.lesson.batch} images takes "
            "minutes on a CPU; give --device cpu to run it all the same"
        )
    score = load_score(request.model, "2d", device=device)
    assert isinstance(score, ImageScore)
    check_words(score, request.token, request.init)
    if device.type == "cuda":
        score.to(device, torch.bfloat16)
        score.prompts.tower.to(device, torch.float32)
    references = [read_reference(path, max(score.size), request.matte) for path in request.images]
    for path, reference in zip(request.images, references):
        say(f"{path}: {'; '.join(reference.notes)}")
    say(f"model: {score.name} ({score.kind}, {score.source}), {request.lesson.steps} steps of "
        f"{request.lesson.batch}; {describe_device(device)}")  # fmt: skip
    losses: list[float] = []
    began = time.monotonic()
    with Progress("token", request.lesson.steps, "step") as progress:

        def given(step: int, loss: float) -> None:
            losses.append(loss)
            progress.update(1)

        images = [reference.rgba for reference in references]
        row = learn_word(score, images, request.token, request.init, request.lesson, given)
    _write(request, row)
    tenth = max(1, len(losses) // 10)
    means = [sum(part) / tenth for part in (losses[:tenth], losses[-tenth:])]
    say(f"loss {means[0]:.4f} over the first tenth, {means[1]:.4f} over the last; "
        f"{time.monotonic() - began:.0f} s")  # fmt: skip
    return request.out


def _check(request: TokenRequest) -> None:
    if not WORD.fullmatch(request.token):
        raise InputError(
            f"--token {request.token}: a learned word stands in angle brackets without spaces: <panda>"
        )
    if not request.init.strip():
        raise InputError("--init: is empty; give the common word for the object, such as panda")
    if request.lesson.steps < 1 or request.lesson.batch < 1:
        raise InputError(f"--steps {request.lesson.steps}: give a number of at least 1")
    if request.out.suffix not in SUFFIXES:
        raise InputError(f"--out {request.out}: give a name that ends in {' or '.join(SUFFIXES)}")
    if request.out.exists():
        raise InputError(f"--out {request.out}: exists; give another name or delete it")
    if not request.images:
        raise InputError("give at least one IMAGE to learn from")


def _write(request: TokenRequest, row: torch.Tensor) -> None:
    from safetensors.torch import save_file

    try:
        request.out.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(request.out) as draft:
            if request.out.suffix == ".bin":
                torch.save({request.token: row}, draft)
            else:
                about = {"init": request.init, "model": request.model, "steps": str(request.lesson.steps)}
                save_file({request.token: row.contiguous()}, draft, metadata=about)
    except OSError as error:
        raise InputError(f"--out {request.out}: cannot be written ({error.strerror}); give another") from None


def requested(images: Sequence[str], steps: int, batch: int, seed: int, **rest: object) -> TokenRequest:
    """A request from the command's options."""
    lesson = replace(Lesson(), steps=steps, batch=batch, seed=seed)
    return TokenRequest(images=tuple(images), lesson=lesson, **rest)  # type: ignore[arg-type]
