"""Prompts to cross-attention tokens, with learned words (textual inversion)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.distill.scores.parts import load_part, part_file

#: A learned word in a prompt.
WORD = re.compile(r"<[^<>\s]+>")


class Prompts:
    """The text side of a pipeline: its own tokenizer, padding included, and its own tower.

    The last hidden state is what the published networks were trained on (ModelScope's tower has one layer
    fewer instead).
    """

    def __init__(self, tokenizer: Any, tower: Any) -> None:
        self.tokenizer, self.tower = tokenizer, tower.eval().requires_grad_(False)
        self.width = int(tower.config.hidden_size)
        self.learned: dict[str, int] = {}
        """Learned words and how many vectors each has."""

    @classmethod
    def load(cls, spec: str) -> Prompts:
        """From `tokenizer/` and `text_encoder/` of a pipeline.

        Raises:
            InputError: one of them is missing or damaged.
        """
        from transformers import CLIPTextModel, CLIPTokenizer

        home = part_file(spec, "tokenizer/vocab.json", "tokenizer").parent
        part_file(spec, "tokenizer/merges.txt", "tokenizer")
        try:
            tokenizer = CLIPTokenizer.from_pretrained(str(home))
        except (OSError, ValueError) as error:
            raise InputError(f"{spec}: its tokenizer cannot be read ({error})") from error
        return cls(tokenizer, load_part(CLIPTextModel, spec, "text_encoder", "text encoder"))

    def learn(self, path: str | Path) -> str:
        """Add the word of a textual-inversion file; returns it.

        Raises:
            InputError: not one tensor, or of another width than the tower's.
        """
        word, vectors = read_token(path)
        if vectors.shape[1] != self.width:
            raise InputError(
                f"{path}: vectors of {vectors.shape[1]} for a text model of {self.width}: "
                "the word was learned with another model"
            )
        names = token_names(word, len(vectors))
        if self.tokenizer.add_tokens(names) != len(names):
            raise InputError(f"{path}: the tokenizer has {word} already: give it another name")
        self.tower.resize_token_embeddings(len(self.tokenizer))
        table = self.tower.get_input_embeddings().weight
        with torch.no_grad():
            for name, vector in zip(names, vectors):
                table[self.tokenizer.convert_tokens_to_ids(name)] = vector.to(table)
        self.tower.requires_grad_(False)
        self.learned[word] = len(vectors)
        return word

    @torch.no_grad()
    def tokens(self, texts: list[str]) -> Tensor:
        """Texts to tokens [B, L, D] float32.

        Raises:
            InputError: a word in angle brackets that no file taught.
        """
        ids = self.ids(texts)
        return self.tower(ids.to(self.tower.device)).last_hidden_state.float()  # type: ignore[no-any-return]

    def ids(self, texts: list[str]) -> Tensor:
        """Texts as entries of the vocabulary [B, L] int64, padded as the folder's tokenizer pads.

        Raises:
            InputError: a word in angle brackets that no file taught.
        """
        ids: Tensor = self.tokenizer(
            [self._spelled(text) for text in texts],
            padding="max_length",
            truncation=True,
            max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids
        return ids

    def _spelled(self, text: str) -> str:
        for word in WORD.findall(text):
            if word not in self.learned:
                raise InputError(f"prompt {text!r}: {word} is no learned word: give its file with --token")
        for word, count in self.learned.items():
            text = text.replace(word, " ".join(token_names(word, count)))
        return text


def token_names(word: str, count: int) -> list[str]:
    """Names of the vectors of a learned word: the word, word_1, word_2."""
    return [word if i == 0 else f"{word}_{i}" for i in range(count)]


def read_token(path: str | Path) -> tuple[str, Tensor]:
    """Word and vectors [n, D] float32 of `learned_embeds.bin` or `.safetensors`.

    Raises:
        InputError: unreadable, more than one key, or not a tensor of one or two axes.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{path}: cannot be read as a learned token ({' '.join(str(error).split())[:120]})"
        ) from error
    if not isinstance(found, dict) or len(found) != 1:
        keys = sorted(map(str, found))[:3] if isinstance(found, dict) else type(found).__name__
        raise InputError(f"{path}: a learned token is one tensor under its word, found {keys}")
    word, vectors = next(iter(found.items()))
    if not isinstance(vectors, Tensor) or vectors.ndim not in (1, 2) or not vectors.is_floating_point():
        raise InputError(f"{path}: {word} is no tensor [D] or [n, D]")
    return str(word), vectors.detach().float().reshape(-1, vectors.shape[-1])
