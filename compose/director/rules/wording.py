"""Turns of phrase that are read as plainer ones: "half a dozen", "turns around", "face each other"."""

from __future__ import annotations

from orbit4d.compose.director.rules.tokens import Stream, Token

#: Words that may stand before a camera's order at the beginning of a prompt.
_ORDERS = {"orbit": "orbits", "zoom": "zooms", "pan": "pans"}


def plain_words(stream: Stream) -> None:
    """Replace them in what is still to be understood; nothing of them counts as unused."""
    tokens = stream.tokens
    if tokens and tokens[0].text in _ORDERS:
        tokens[0].used = True
        order = _ORDERS[tokens[0].text]
        tokens[:1] = [Token(word, word, True) for word in ("the", "camera", order)]
    kept: list[Token] = []
    at = 0
    while at < len(tokens):
        texts = [token.text for token in tokens[at : at + 4]]
        if texts[:3] == ["half", "a", "dozen"] or texts[:3] == ["a", "half", "dozen"]:
            _used(tokens[at : at + 3])
            kept.append(Token("six", "six", True))
            at += 3
        elif texts[:1] in (["turn"], ["turns"], ["turned"], ["turning"]) and texts[1:2] == ["around"]:
            kept.append(tokens[at])
            # "turns around a tree" goes somewhere; "turns around" is done on the spot.
            on_the_spot = len(texts) < 3 or texts[2] in (",", ".", ";", "and", "then", "while")
            if on_the_spot:
                _used(tokens[at + 1 : at + 2])
            at += 2 if on_the_spot else 1
        elif texts[:3] in (["face", "each", "other"], ["face", "one", "another"]):
            _used(tokens[at : at + 1])
            kept.append(Token("facing", "facing", True))
            at += 1
        else:
            kept.append(tokens[at])
            at += 1
    stream.tokens[:] = kept


def _used(tokens: list[Token]) -> None:
    for token in tokens:
        token.used = True
