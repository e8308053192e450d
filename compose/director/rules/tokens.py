"""Words of a prompt with their class; spans of them are taken out by what understands them first."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from orbit4d.compose.language.spelling import corrected

#: A number with its sign and decimals, a word with apostrophes and hyphens, or a mark that ends something.
_TOKEN = re.compile(
    r"\d+(?:k|p|fps|d|x)\b|-?\d+(?:[.,]\d+)*(?=[^\W\d_]|\b)|[^\W\d_]+(?:['\-](?:[^\W_]+))*|[.,;:!?()\u2026/]|\d+|[^\s\w]",
)
_PER_SECOND, _PER_HOUR = re.compile(r"\s?m/s(?:ec)?\b"), re.compile(r"\s?km/h(?:our)?\b")
_PLAIN = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "‐": "-", "‑": "-", "—": ","})
#: Markup around words, and a sign for a word.
_MARKUP = re.compile(r"</?[a-zA-Z][^<>]{0,60}>")
#: Marks that end a sentence, and those that part a list.
ENDS = {".", ";", "!", "?", ":", "…", "(", ")"}
COMMA = ","


@dataclass
class Token:
    """One word or mark: `text` as read (lower case, spelling corrected), `said` as written in lower case.

    `used` is set by whatever understood it; `breaks` marks a place where a clause ended.
    """

    text: str
    said: str
    used: bool = False

    @property
    def is_word(self) -> bool:
        return self.text[0].isalnum()


def tokenise(prompt: str) -> tuple[list[Token], list[tuple[str, str]]]:
    """(tokens, corrections) of a prompt; a correction is (word as written, word as read)."""
    tokens: list[Token] = []
    corrections: list[tuple[str, str]] = []
    plain = _MARKUP.sub(" ", prompt.translate(_PLAIN)).lower().replace("&amp;", "&")
    plain = re.sub(r"\s&\s", " and ", plain)
    plain = re.sub(r"\s-+\s", " , ", plain)
    plain = _PER_SECOND.sub(" mps", _PER_HOUR.sub(" kmh", plain))
    for found in _TOKEN.finditer(plain):
        said = found.group()
        text = said.strip("'")
        if not text or not (text[0].isalnum() or text[0] == "-" or text in ENDS or text == COMMA):
            continue
        if text == "-":
            continue
        fixed = corrected(text)
        if fixed is not None:
            corrections.append((text, fixed))
        # A unit stands for what was written otherwise ("km/h"), which no report could name.
        unit = text in ("kmh", "mps") and text not in prompt.lower()
        tokens.append(Token(fixed or text, text, used=unit))
    return tokens, corrections


class Stream:
    """The tokens not yet understood, and a way to take spans of them by pattern."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens

    def joined(self) -> tuple[str, list[int]]:
        """The tokens as one text with single spaces, and where in it each starts."""
        starts, at = [], 0
        for token in self.tokens:
            starts.append(at)
            at += len(token.text) + 1
        return " ".join(token.text for token in self.tokens), starts

    def take(
        self,
        pattern: re.Pattern[str],
        then: Callable[[re.Match[str]], bool | str | None],
        used: bool = True,
    ) -> None:
        """Hand each match to `then`; unless that returns False, the mark it returns stands in its place.

        `used` False: it is out of the way, and still reported as unused.
        Matches are taken from the left, one after the other.
        """
        at = 0
        while True:
            text, starts = self.joined()
            found = pattern.search(text, at)
            if found is None:
                return
            lo, hi = found.span()
            inside = [i for i, start in enumerate(starts) if lo <= start < hi]
            mark = then(found) if inside else False
            if mark is False:
                at = found.end() if found.end() > at else at + 1
                continue
            for i in inside:
                self.tokens[i].used |= used
            stand_in = [Token(mark, mark, True)] if isinstance(mark, str) and mark else []
            self.tokens[inside[0] : inside[-1] + 1] = stand_in
            at = lo
