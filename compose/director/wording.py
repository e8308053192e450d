"""Turns of phrase that are read as plainer ones: "half a dozen", "turns around", "face each other"."""

from __future__ import annotations

from orbit4d.compose.director.rules.draft import FilmDraft
from orbit4d.compose.director.rules.tokens import Stream, Token
from orbit4d.compose.language.verbs import VERB_FORMS
from orbit4d.compose.language.words import ARTICLES, NUMBERS, OBJECTS, POSSESSIVES

#: What ends a phrase.
_ENDS = (",", ".", ";", "and", "then", "while", "as")
#: Orders to the camera with which a prompt may begin.
_ORDERS = {"orbit": "orbits", "zoom": "zooms", "pan": "pans"}
#: Who else circles a thing: an actor, or what films it.
_LENSES = {"camera", "drone", "shot", "view", "lens", "we"}
#: How several go, which their rows say already.
_FILES = ("one behind the other", "one after the other", "one after another", "in single file")
#: Verbs of those that stay: "lies to its right" is where, "turns to its right" is not.
_STAYING = {"stand", "lie", "sit", "sleep", "wait", "rest", "stay", "remain", "crouch", "kneel", "pose"}


def plain_words(stream: Stream, film: FilmDraft) -> None:
    """Replace them in what is still to be understood; nothing of them counts as unused."""
    _slow_motion(stream, film)
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
        elif " ".join(texts[:3]) in _FILES or " ".join(texts) in _FILES:
            n = 3 if " ".join(texts[:3]) in _FILES else 4
            _used(tokens[at : at + n])
            at += n
        elif kept and (n := _own_side(texts, kept[-1].text)):
            _used(tokens[at : at + n])
            side = "right" if "right" in texts[:3] else "left"
            kept += [Token(word, word, True) for word in ("to", "the", side, "of", "it")]
            at += n
        elif texts[0] == "overhead" and kept and kept[-1].text in VERB_FORMS:
            _used(tokens[at : at + 1])
            at += 1
        else:
            kept.append(tokens[at])
            if _circles(texts, [token.text for token in kept[-6:]]):
                kept.append(Token("around", "around", True))
            at += 1
    stream.tokens[:] = kept


def _slow_motion(stream: Stream, film: FilmDraft) -> None:
    """ "in slow motion", "a slow-motion shot of": everybody is slow."""
    kept: list[Token] = []
    tokens = stream.tokens
    at = 0
    while at < len(tokens):
        one = tokens[at].text in ("slow-motion", "slowmotion", "slow-mo")
        if one or [token.text for token in tokens[at : at + 2]] in (["slow", "motion"], ["slow", "mo"]):
            film.slow = True
            _used(tokens[at : at + 2 - one])
            at += 2 - one
            if kept and kept[-1].text == "in":
                kept.pop()
        else:
            kept.append(tokens[at])
            at += 1
    tokens[:] = kept


def _own_side(texts: list[str], before: str) -> int:
    """How many words say "to its right" of one that stays, or "at his left side" of anyone."""
    if len(texts) < 3 or texts[0] not in ("to", "at", "on") or texts[1] not in POSSESSIVES:
        return 0
    n = 4 if texts[3:4] == ["side"] else 3
    stays = VERB_FORMS.get(before, ("", ""))[0] in _STAYING or before in ("is", "are", "was", "were")
    return n if texts[2] in ("left", "right") and (stays or n == 4) else 0


def _circles(texts: list[str], before: list[str]) -> bool:
    """Whether "circles a boat" stands here, said of nothing that films."""
    after = texts[1:2] and texts[1] in {*ARTICLES, *POSSESSIVES, *OBJECTS, *NUMBERS}
    return bool(texts[0] in ("circles", "circle", "circling") and after and not _LENSES & set(before))


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
