"""Numbers with units in a prompt: durations, speeds, distances, heights; digits, words, halves."""

from __future__ import annotations

import re
from dataclasses import dataclass

from orbit4d.compose.director.rules.draft import FilmDraft
from orbit4d.compose.director.rules.tokens import Stream
from orbit4d.compose.language.words import LENGTHS, NUMBERS, TENS, UNITS_TO_TWENTY
from orbit4d.compose.spec import MAX_SECONDS
from orbit4d.datasets.core.errors import InputError

_WORD = "|".join(sorted(NUMBERS, key=len, reverse=True))
NUMBER = (
    rf"(?:(?:minus |negative )?(?:-?\d+(?:\.\d+)?|(?:{_WORD})(?:[ -](?:{_WORD}))?(?: and a half)?)"
    r"|half an?|an? half|an?)"
)
_LENGTH = "|".join(sorted(LENGTHS, key=len, reverse=True))
_TIME = r"(?:s|sec|secs|second|seconds|minute|minutes|min|mins)"
_SPEED_UNIT = (
    r"(?:mps|kmh|kph|mph|(?:met(?:re|er)s?|m|kilomet(?:re|er)s?|km|miles?)"
    r" (?:per|an?|each) (?:second|hour))"
)
_SPEED = re.compile(
    rf"(?:(?:at|with) )?(?:a )?(?:(?:constant )?(?:speed|pace) of )?(?:about )?({NUMBER}) ({_SPEED_UNIT})\b"
)
_ABOUT = r"(?:(?:about|around|roughly|approximately|exactly|only|just|nearly|almost|at least) )?"
_DURATION = re.compile(
    rf"(?:(?:that |which |and )?(?:is |lasting |lasts |takes |taking |should last |should be |runs "
    rf"for |with a "
    rf"(?:duration|length) of |it should be |make it |(?:duration|length) )+)?(?:(?:over|for|in"
    rf"|within|during) )?"
    rf"{_ABOUT}(?:the |a total of |a )?({NUMBER})[ -]{_TIME}\b(?: and ({NUMBER})[ -]{_TIME}\b)?"
    rf"(?:[ -](?:long|in length|total|in total))?"
)
_UNIT_OF_TIME = re.compile(rf"({NUMBER})[ -]({_TIME})\b")
_HEIGHT = re.compile(
    rf"(?:(?:that|which|who) (?:is|are) )?{_ABOUT}({NUMBER})[ -]({_LENGTH})[ -](?:tall|high|in height)\b"
)
_DISTANCE = re.compile(
    rf"(?:for )?{_ABOUT}({NUMBER}) ({_LENGTH})\b(?! (?:from|of|above|below|behind|left|right)\b)"
)
_COMPARED = re.compile(
    rf"(?:that |which |who )?(?:is |are )?(?:at )?({NUMBER} times|twice|thrice|double|triple|half)"
    r"(?: (?:as )?(?:tall|big|large|high|small|huge|long|taller|bigger|larger|higher|smaller"
    r"|longer))?(?: as| than)?"
    r" (?:(?:its|his|her|their|the) )?(?:(?:usual|normal|natural|regular|ordinary|original|real)"
    r"(?: (?:size|height|self))?|size|height)\b(?: of normal)?"
)
EXAMPLE = "write for example 'a fox walks for 3 seconds'"


@dataclass(frozen=True)
class Measured:
    """A measure taken out of the stream, which a mark of its own (`@0`) stands for."""

    kind: str
    value: float


def number(text: str) -> float:
    """The value of what `NUMBER` matches."""
    text = text.strip()
    sign = 1.0
    for word in ("minus ", "negative "):
        if text.startswith(word):
            sign, text = -1.0, text.removeprefix(word)
    if text in ("a", "an"):
        return 1.0
    if "half" in text and "and" not in text:
        return 0.5
    half = 0.5 if text.endswith(" and a half") else 0.0
    text = text.removesuffix(" and a half")
    if re.fullmatch(r"-?[\d.]+", text):
        return sign * (float(text) + half)
    words = re.split(r"[ -]", text)
    total = sum({**UNITS_TO_TWENTY, **TENS}[word] for word in words)
    return sign * (total + half)


def _positive(value: float, text: str, what: str, most: float, unit: str) -> float:
    value = round(value, 6)
    if not 0 < value <= most:
        raise InputError(f"prompt: {what} of {text.strip()[:40]} is outside (0, {most:g}] {unit}; {EXAMPLE}")
    return value


def take_measures(stream: Stream, film: FilmDraft) -> list[Measured]:
    """Take durations out, and put a mark in the place of each speed, height and distance."""
    found: list[Measured] = []

    def marked(kind: str, value: float) -> str:
        found.append(Measured(kind, value))
        return f"@{len(found) - 1}"

    stream.take(_SPEED, lambda m: marked("mps", _speed(m)))
    stream.take(_HEIGHT, lambda m: marked("metres", _length(m, "a height", 1000)))
    stream.take(_COMPARED, lambda m: marked("factor", _factor(m.group(1))))
    stream.take(_DURATION, lambda m: _take_seconds(m, film))
    stream.take(_DISTANCE, lambda m: marked("distance_m", _length(m, "a distance", 100_000)))
    return found


def _speed(match: re.Match[str]) -> float:
    unit = match.group(2)
    scale = 0.44704 if unit in ("mph",) else 1 / 3.6 if unit in ("kmh", "kph") else 1.0
    if " " in unit:
        length = 1609.344 if unit.startswith("mi") else 1000.0 if unit.startswith("k") else 1.0
        scale = length / (3600 if unit.endswith("hour") else 1)
    return _positive(number(match.group(1)) * scale, match.group(), "a speed", 1000, "m/s")


def _length(match: re.Match[str], what: str, most: float) -> float:
    return _positive(number(match.group(1)) * LENGTHS[match.group(2)], match.group(), what, most, "metres")


def _factor(text: str) -> float:
    named = {"twice": 2.0, "double": 2.0, "thrice": 3.0, "triple": 3.0, "half": 0.5}
    value = named[text] if text in named else number(text.removesuffix(" times"))
    return _positive(value, text, "a size", 100, "times the usual")


def _take_seconds(match: re.Match[str], film: FilmDraft) -> bool | None:
    text = match.group()
    if (
        re.match(r"(?:an?|the) ", text)
        and re.search(r"\ban? (?:second|min)\b", text)
        and " for " not in f" {text}"
    ):
        return False  # "a second fox": an ordinal, not a time
    if re.search(r"\b\d+[ -]?mins?$", text) is None and re.fullmatch(rf"{NUMBER} s", text) and text[0] == "a":
        return False
    total = 0.0
    for one in _UNIT_OF_TIME.finditer(text):
        total += number(one.group(1)) * (60 if one.group(2).startswith("m") else 1)
    _positive(total, text, "a duration", MAX_SECONDS, "seconds")
    film.seconds = round((film.seconds or 0.0) + total, 6)
    if film.seconds > MAX_SECONDS:
        _positive(film.seconds, f"{film.seconds:g} seconds", "a duration", MAX_SECONDS, "seconds")
    return None
