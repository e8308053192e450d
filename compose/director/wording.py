"""Turns of phrase that are read as plainer ones: "half a dozen", "turns around", "face each other"."""

from __future__ import annotations

from orbit4d.compose.director.rules.tokens import Stream, Token

#: What ends a phrase.
_ENDS = (",", ".", ";", "and", "then", "while", "as")
#: Orders to the camera with which a prompt may begin.
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
            on_the_spot = len(texts) < 3 or texts[2] in _ENDS
            if on_the_spot:
                _used(tokens[at + 1 : at + 2])
            at += 2 if on_the_spot else 1
        elif texts[:3] in (["face", "each", "other"], ["face", "one", "another"]):
            _used(tokens[at : at + 1])
            kept.append(Token("facing", "facing", True))
            at += 1
        elif n := _depth(texts, [token.text for token in kept[-2:]]):
            _used(tokens[at : at + n])
            words = ["the"] * (kept[-1].text != "the") + ["back" if texts[0] == "far" else "front"]
            kept += [Token(word, word, True) for word in words]
            at += n
        else:
            kept.append(tokens[at])
            at += 1
    stream.tokens[:] = kept


def _depth(texts: list[str], before: list[str]) -> int:
    """How many words at a place say "far" or "near" as a side: "from the far side", "to near"."""
    led = [word for word in before if word != "the"][-1:]
    if texts[0] not in ("far", "near") or led not in (["from"], ["to"], ["at"], ["on"]):
        return 0
    n = 2 if texts[1:2] in (["side"], ["end"]) else 1
    # "near the fence" and "to a far mountain" are of something else.
    return n if len(texts) <= n or texts[n] in (*_ENDS, "to", "of") else 0


def _used(tokens: list[Token]) -> None:
    for token in tokens:
        token.used = True
