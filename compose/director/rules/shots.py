"""What a prompt says of the camera: taken out before the sentence is read, in the order it is said."""

from __future__ import annotations

import re

from orbit4d.compose.director.rules.draft import FilmDraft, ShotDraft
from orbit4d.compose.director.rules.tokens import Stream

#: A mark in the stream: the shot of this number was said here, and looks at the actor that comes next.
LOOKS = "@shot"
_SHOW = (
    r"(?:(?:shown|seen|filmed|viewed|shot|recorded|captured|watched|photographed|taken|rendered"
    r"|pictured) )?"
)
_CAMERA = r"(?:(?:the|our|a|its|my) )?(?:camera|drone shot|drone|shot|view|lens)"
_LEAD = (
    r"(?:(?:and |, )*(?:then |finally |next )?(?:(?:we |it |the (?:film|video|clip|camera) )?"
    r"(?:(?:pull|move|zoom|go)s? (?:back|out|in)|starts?|begins?|opens?|ends?|finish(?:es)?|cuts?"
    r"|switch(?:es)?|goes|followed|shows?|show|use|with)"
    r"(?: out| off| up)?(?: with| by| on| to| from| in| as)? )+)?"
)
_OF = r"(?: (?:of|on|at|showing))?"
_ADVERB = r"(?:(?:slowly|quickly|gently|smoothly|gradually|steadily|constantly|slow|always|also|then) )*"
_AUX = r"(?:(?:is|should|will|must|can|could|would|that|which|to|starts|starts to|begins to) )*"

#: Field, value, pattern; patterns that end in `_OF` say whom the shot looks at.
_VIEWS: list[tuple[str, str, str]] = [
    (
        "move",
        "bullet_time",
        r"(?:(?:in|as|with|using|a|an|the|matrix style) )*bullet[ -]time(?: (?:effect|shot|style))*",
    ),
    (
        "shot",
        "close",
        r"(?:(?:in|as|with|from|a|an|the|extreme|very|tight|big|nice) )*(?:close[ -]?up|closeup)(?: "
        r"(?:shot|view))?",
    ),
    ("shot", "medium", r"(?:(?:in|as|with|from|a|an|the) )*(?:medium|mid)[ -](?:shot|view|close[ -]?up)"),
    (
        "shot",
        "wide",
        r"(?:(?:in|as|with|from|a|an|the|very|extreme|nice|big) )*(?:wide(?:[ -]angle)?|long"
        r"|establishing|panoramic|full)"
        r"(?: establishing)? (?:shot|view|angle|lens)|(?:in|as|a) panorama",
    ),
    (
        "angle",
        "top",
        r"(?:(?:in|as|with|from|a|an|the) )*(?:bird's[ -]eye(?:[ -]view)?|birds[ -]eye(?:[ -]view)?"
        r"|bird's view|"
        r"top[ -]down(?: (?:view|shot|angle|camera|perspective))?|top[ -]view|overhead(?: (?:view"
        r"|shot|angle))?|"
        r"directly above|straight above|directly overhead)|straight down",
    ),
    (
        "angle",
        "high",
        r"(?:(?:in|as|with|from|at|a|an|the) )*(?:(?:high[ -](?:camera )?angle|aerial)(?: (?:shot"
        r"|view|perspective|footage|video))?|drone (?:shot|view|footage|video))",
    ),
    (
        "angle",
        "high",
        _SHOW + r"from (?:high |far |way )?(?:above|up high|overhead|the air|the sky)"
        r"(?! (?:the|a|an|it|him|her|them)\b)",
    ),
    (
        "angle",
        "low",
        r"(?:(?:in|as|with|from|at|a|an|the) )*(?:low[ -](?:camera )?angle|worm's[ -]eye(?:[ "
        r"-]view)?|frog's[ -]eye(?:[ -]view)?)(?: (?:shot|view|perspective))?",
    ),
    (
        "angle",
        "low",
        _SHOW + r"from (?:below|beneath|down low|underneath|ground level|the ground)"
        r"(?! (?:the|a|an|it|him|her|them|to)\b)",
    ),
    ("angle", "eye", r"(?:(?:in|as|with|from|at|a|an|the) )*eye[ -]level(?: (?:shot|view|angle))?"),
    (
        "move",
        "static",
        r"(?:(?:with|from|a|an|the) )*(?:static|fixed|still|locked|stationary) (?:camera|shot|view)",
    ),
    ("move", "follow", r"(?:(?:in|as|with|a|an|the) )*(?:tracking|following|follow) (?:shot|view|camera)"),
    (
        "move",
        "orbit",
        r"(?:(?:in|as|with|a|an|the|slow|360|degree|360-degree) )*(?:orbit|orbiting|orbital"
        r"|circling|rotating) (?:shot|view|camera)",
    ),
    ("move", "zoom_in", r"(?:(?:in|as|with|a|an|the|slow) )*(?:zoom|dolly|push)[ -]in(?: (?:shot|view))?"),
    (
        "move",
        "zoom_out",
        r"(?:(?:in|as|with|a|an|the|slow) )*(?:zoom|dolly|pull)[ -]out(?: (?:shot"
        r"|view))?",
    ),
    ("move", "pan_left", r"(?:(?:with|a|an|the|slow) )*pan (?:to the )?left"),
    ("move", "pan_right", r"(?:(?:with|a|an|the|slow) )*pan (?:to the )?right"),
]
_MOVES: list[tuple[str, str]] = [
    ("follow", r"(?:follow|track|chase|trail|accompan|keeps? up with)\w*"),
    (
        "orbit",
        r"(?:circl|orbit|rotat|revolv|spin|turn|mov|fl|go|travel)\w*(?: slowly)? (?:all )?(?:around"
        r"|round)|(?:circl|orbit)\w*",
    ),
    (
        "zoom_in",
        r"(?:zoom|mov|dolli|dolly|push|com|go|fl|glid)\w*(?: slowly)? (?:in|closer|nearer)(?: (?:to"
        r"|towards|on))?|approach\w*",
    ),
    (
        "zoom_out",
        r"(?:zoom|mov|dolli|dolly|pull|back|go|fl)\w*(?: slowly)? (?:out|back|away)(?: from)?|retreat\w*",
    ),
    (
        "pan_left",
        r"(?:pan|mov|turn|swing|swivel|sweep)\w*(?: slowly)? (?:(?:to|from right to) )?(?:the )?left",
    ),
    (
        "pan_right",
        r"(?:pan|mov|turn|swing|swivel|sweep)\w*(?: slowly)? (?:(?:to|from left to) )?(?:the )?right",
    ),
    ("static", r"(?:stay|stand|remain|keep|is|does|hold)\w* (?:still|fixed|static|put|not move|in place)"),
]
_SAID = [
    (field, value, re.compile(rf"(?<![^ ]){_LEAD}{_SHOW}(?:{pattern})(?![^ ]){_OF}(?![^ ])"))
    for field, value, pattern in _VIEWS
] + [
    (
        "move",
        value,
        re.compile(
            rf"(?<![^ ]){_LEAD}(?:with |while |as )?{_CAMERA} "
            rf"{_AUX}{_ADVERB}(?:{verb}){_ADVERB.replace(' )', ')')}"
            r"(?: (?:around|on|with|at|over|across|past|onto|towards?))?(?![^ ])"
        ),
    )
    for value, verb in _MOVES
]
#: "... and zooms in", after another word of the camera.
_ALONE = [
    (
        "zoom_in",
        re.compile(r"(?<![^ ])(?:and |then |, |slowly )*zoom(?:s|ing)? in(?: slowly)?(?: on)?(?![^ ])"),
    ),
    (
        "zoom_out",
        re.compile(r"(?<![^ ])(?:and |then |, |slowly )*zoom(?:s|ing)? out(?: slowly)?(?: from)?(?![^ ])"),
    ),
    ("pan_left", re.compile(r"(?<![^ ])(?:and |then |, )*pan(?:s|ning) (?:to the )?left(?![^ ])")),
    ("pan_right", re.compile(r"(?<![^ ])(?:and |then |, )*pan(?:s|ning) (?:to the )?right(?![^ ])")),
    ("follow", re.compile(r"(?<![^ ])(?:we|let us|let's) (?:follow|track)(?![^ ])")),
    ("follow", re.compile(r"(?<![^ ])then (?:follow|track)(?= (?:a|an|the|it|him|her|them) )")),
]
_IN_TURN = re.compile(
    r"\b(?:then|next|finally|followed by|cuts? to|switch(?:es)? to|ends?|finish(?:es)?|goes)\b"
)


_LOOKING = re.compile(r" (?:of|on|at|showing|around|round|closer to|with|over|across|past|onto|towards?)$")


def take_shots(stream: Stream, film: FilmDraft) -> None:
    """Take what is said of the camera out of the stream; `LOOKS` stays before whom a shot looks at."""
    found: list[tuple[str, str, bool, bool]] = []

    def said(field: str, value: str, match: re.Match[str]) -> str:
        text = match.group()
        looks = bool(_LOOKING.search(text))
        looks |= field == "move" and value in ("follow", "orbit") and " shot" not in text
        found.append((field, value, looks, bool(_IN_TURN.search(text))))
        return f"{LOOKS}{len(found) - 1}"

    for field, value, pattern in _SAID:
        stream.take(pattern, lambda m, f=field, v=value: said(f, v, m))  # type: ignore[misc]
    for value, pattern in _ALONE:
        if pattern.pattern.startswith("(?<![^ ])then") and not found:
            continue  # "they run, then follow a cat" is no word of the camera
        stream.take(pattern, lambda m, v=value: said("move", v, m))  # type: ignore[misc]
    _order(stream, film, found)


def _order(stream: Stream, film: FilmDraft, found: list[tuple[str, str, bool, bool]]) -> None:
    """Make shots in the order of the prompt: what does not contradict is one shot, "then" begins "
    "another."""
    for i, token in enumerate(stream.tokens):
        if not token.text.startswith(LOOKS):
            continue
        field, value, looks, in_turn = found[int(token.text.removeprefix(LOOKS))]
        before = stream.tokens[i - 1].text if i else ""
        last = film.shots[-1] if film.shots else None
        in_turn |= before == "then"
        if last is None or in_turn or getattr(last, field) not in (None, value):
            last = ShotDraft()
            film.shots.append(last)
        setattr(last, field, value)
        token.text = f"{LOOKS}{len(film.shots) - 1}" if looks and not last.looks else LOOKS
        last.looks |= looks
