"""How many frames of a clip an export keeps: all, the form a video VAE takes (4n+1, 8n+1), or a number."""

from __future__ import annotations

import re

from orbit4d.datasets.core.errors import InputError

_FORM = re.compile(r"([1-9][0-9]?)n\+1")


def frame_count(rule: str, n: int, name: str) -> int:
    """Frames that `rule` keeps of a clip of `n` frames, always the first ones.

    `all` keeps n; `4n+1` and `8n+1` the largest such number that n holds, at least 5 (9); `K` exactly K.
    Raises InputError with the clip's name and the rule where that leaves nothing. A clip of one frame is an
    image, and one frame of any form.
    """
    check_rule(rule)
    if rule == "all":
        return n
    form = _FORM.fullmatch(rule)
    if form is None:
        if int(rule) > n:
            raise InputError(
                f"{name}: has {n} frames, --frames {rule} asks for {rule}; render more frames or leave it out"
            )
        return int(rule)
    step = int(form[1])
    kept = (n - 1) // step * step + 1
    if kept < step + 1 and n > 1:
        raise InputError(
            f"{name}: has {n} frames, --frames {rule} leaves none of that form; render at least {step + 1} "
            f"frames, or ask for --frames {n}"
        )
    return kept


def check_rule(rule: str) -> None:
    """Raise InputError for what is no rule."""
    if rule == "all" or _FORM.fullmatch(rule) or (rule.isdigit() and int(rule) > 0):
        return
    raise InputError(f"--frames {rule}: give all, 4n+1, 8n+1 or a number of frames")
