"""CLIP's byte-pair tokens, from whatever carries the vocabulary: a folder, OpenCLIP's own file, the hub."""

from __future__ import annotations

import gzip
import html
import importlib.util
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orbit4d.datasets.core.errors import InputError
from orbit4d.model.weights.hub import hub_file

BPE_FILE = "bpe_simple_vocab_16e6.txt.gz"
#: Merges CLIP uses of that file, which holds more.
MERGES = 49152 - 256 - 2
#: Where the text tower's files are on the hub, for a tokenizer that is found nowhere else.
HUB_NAME = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
#: OpenCLIP fills up with token 0 (an exclamation mark), transformers by default with end of text. The network
#: attends to the padding, so it matters.
PADDING = 0


class ClipTokenizer:
    """Texts to token ids [B, 77] as `open_clip.tokenize` makes them."""

    def __init__(self, tokenizer: Any, length: int = 77) -> None:
        self._tokenizer, self.length = tokenizer, length

    def __call__(self, texts: Sequence[str]) -> Tensor:
        cleaned = [html.unescape(html.unescape(text)).strip() for text in texts]
        rows = self._tokenizer(cleaned, truncation=True, max_length=self.length)["input_ids"]
        ids = torch.full((len(rows), self.length), PADDING, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        return ids


def load_clip_tokenizer(place: str | Path = "", length: int = 77) -> ClipTokenizer:
    """The tokenizer in `place`, or the first that can be found without it.

    place: a folder (with vocab.json and merges.txt, or tokenizer.json, or bpe_simple_vocab_16e6.txt.gz; also
    in its subfolder tokenizer/), the last file itself, or a hub name. Else: the file inside an installed
    `open_clip` or `clip` package, then the hub. Raises InputError that says what to install or download.
    """
    from transformers import CLIPTokenizer

    folder = _tokenizer_folder(Path(place)) if place else None
    if folder is not None:
        return ClipTokenizer(CLIPTokenizer.from_pretrained(str(folder)), length)
    file = _bpe_file(Path(place)) if place else None
    for package in ("open_clip", "clip"):
        spec = importlib.util.find_spec(package)
        if file is None and spec is not None and spec.origin:
            file = _bpe_file(Path(spec.origin).parent)
    if file is not None:
        return ClipTokenizer(from_bpe_file(file), length)
    name = HUB_NAME if not place or Path(place).exists() else str(place)
    try:
        paths = [hub_file(name, filename, "tokenizer") for filename in ("vocab.json", "merges.txt")]
    except InputError as error:
        raise InputError(
            f"{place or 'CLIP text encoder'}: has no vocabulary beside it; put {BPE_FILE} or vocab.json and "
            f"merges.txt there, or pip install open_clip_torch ({error})"
        ) from error
    if None in paths:
        raise InputError(f"{name}: the hub has it, but without vocab.json and merges.txt")
    return ClipTokenizer(CLIPTokenizer.from_pretrained(str(Path(str(paths[0])).parent)), length)


def from_bpe_file(path: Path, merges: int = MERGES) -> Any:
    """A transformers `CLIPTokenizer` from OpenAI's gzipped list of merges (its first line is a version)."""
    from transformers import CLIPTokenizer

    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1 : merges + 1]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not CLIP's gzipped vocabulary ({error})") from error
    pairs = [line for line in lines if len(line.split()) == 2]
    symbols = _byte_symbols()
    words = [*symbols, *(symbol + "</w>" for symbol in symbols), *("".join(pair.split()) for pair in pairs)]
    vocabulary = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        (Path(folder) / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs]), encoding="utf-8")
        return CLIPTokenizer.from_pretrained(folder)


def _byte_symbols() -> list[str]:
    """A printable symbol for each byte, in the order of CLIP's first 256 tokens (openai/CLIP)."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    hidden = len([byte for byte in range(256) if byte not in printable])
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(hidden)]


def _tokenizer_folder(place: Path) -> Path | None:
    for folder in (place, place / "tokenizer"):
        if (folder / "tokenizer.json").is_file():
            return folder
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            return folder
    return None


def _bpe_file(place: Path) -> Path | None:
    for file in (place, place / BPE_FILE):
        if file.is_file() and file.name.endswith(".txt.gz"):
            return file
    return None
