"""Captions of an export: a prefix and a suffix around each text, and no clip without one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from orbit4d.datasets.core.errors import InputError
from orbit4d.datasets.exports.settings import ExportSettings

_LINES = re.compile(r"\s*[\r\n\v\f\x85\u2028\u2029]+\s*")


def captions_of(texts: Sequence[str], names: Sequence[str], settings: ExportSettings) -> list[str]:
    """prefix + text + suffix of each clip on one line, as line-based formats need it.

    A clip without a text takes `settings.caption`; without that too, InputError counts such clips and names
    the first.
    """
    own = [_one_line(text) for text in texts]
    stand_in = _one_line(settings.caption or "")
    missing = [name for name, text in zip(names, own) if not (text or stand_in)]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(own)} clips have no caption (first: {missing[0]}); give --caption TEXT "
            "for them, or import captions with the assets"
        )
    prefix, suffix = (_LINES.sub(" ", text) for text in (settings.caption_prefix, settings.caption_suffix))
    return [_one_line(prefix + (text or stand_in) + suffix) for text in own]


def _one_line(text: str) -> str:
    return _LINES.sub(" ", text).strip()
