"""Talk around a film: requests, thanks, a speaker's wishes and relatives. It carries nothing."""

from __future__ import annotations

import re

from orbit4d.compose.director.rules.tokens import Stream
from orbit4d.compose.language.nouns import RELATIVES, TALK
from orbit4d.compose.language.words import QUALITY

_SAYABLE = {*TALK, *(word + "s" for word in TALK)} - {"thing", "something", "shot", "view", "short"}
_FILM = "|".join(sorted(_SAYABLE, key=len)[::-1])
_KIND = (
    r"(?:(?:short|little|quick|nice|cool|funny|cute|brief|simple|small|beautiful|new|great"
    r"|animated|3d|4d|tiny|long|whole|single) )*"
)
_QUALITY = "|".join(sorted(QUALITY, key=len)[::-1])
_WHERE = (
    r"(?: (?:of|about|in which|where|with|showing|that shows|which shows|featuring|depicting|that|for me))*"
)
_RELATIVE = "|".join(sorted(RELATIVES, key=len)[::-1])
_FEEL = (
    r"(?:loves?|likes?|wants?|wanted|adores?|enjoys?|asked|asks|wishes|needs?|dreams?|would|always"
    r"|really|is crazy"
    r"|is a (?:huge |big )?fan|is obsessed|told|says?|said|hopes?|thinks?|has always|will love|is "
    r"turning|turns)"
)
_VERB = (
    r"(?:show|make|create|generate|produce|render|film|give|draw|imagine|picture|visuali[sz]e"
    r"|animate|do|see|have"
    r"|get|watch|need|want|(?:love|like)(?= (?:to|a|an|it|if|you|some|having|seeing|one|two|three"
    r"|four|five) )|build|compose|design|depict|prepare|try|think of|request|ask for|look at)"
)
_ASIDES = [
    # Thanks and politeness.
    r"(?:many |a million )?(?:thanks|thank you|thx|cheers)(?: (?:a lot|so much|very much|in advance"
    r"|a million|again|for [^.;!?]*))*",
    r"(?:if (?:you|that)[^,.;!?]*(?:please|mind|can|could|possible|okay|ok)|if possible)",
    r"(?:please|pls|plz|kindly|hello|hi|hey|dear|ok|okay|well(?= ,))(?: there)?",
    # A speaker's people, with what they like, up to where the film begins.
    rf"(?:because |since |and )?(?:my|our) (?:[a-z0-9-]+ ){{0,3}}?(?:{_RELATIVE})s?"
    rf"(?: and (?:i|(?:my|our) (?:{_RELATIVE})s?))? (?:\w+ )?{_FEEL}\b(?:(?! so | please | can | "
    rf"could | a | an | one | two | three | four | five | some | several | \\d|[.,;!?:]).)*",
    rf"(?:it(?:'s| is) )?(?:just )?for (?:my|our|the) (?:[a-z0-9-]+(?:'s)? ){{0,3}}?(?:{_RELATIVE}"
    rf"|birthday|party"
    rf"|presentation|project|channel|homework|wedding|site|website)s?(?:'s)?(?: (?:birthday|party"
    rf"|class|project))?",
    r"(?:it(?:'s| is)|today is) (?:my|our) (?:[a-z0-9-]+(?:'s)? ){0,3}?birthday(?: (?:today"
    r"|tomorrow|soon|next week))?"
    r"(?:(?: and| so)? (?:he|she|they) (?:really |just |always )*(?:loves?|adores?|likes?|wants?) \w+)?",
    rf"(?:my|our) (?:{_RELATIVE}) (?:(?:just )?(?:turned|turns) \w+|(?:used to be|is|was|works as) an? \w+)"
    r"(?: and (?:he|she|they)(?:'s| is| are) (?:so )?(?:crazy|mad|nuts|obsessed|wild) (?:about|with) \w+)?",
    r"(?:my|our) (?:\w+ )?favou?rite \w+(?: in the world)? (?:is|are|was|has always been|have always been)"
    r" [^.;!?,]*",
    # Requests, up to the article or number that begins the film.
    rf"(?:so |and |but |now |then )*(?:can|could|would|will) you(?: \w+ly)?(?: (?:be able to|mind|please))*"
    rf"(?: {_VERB}(?:ing)?)?(?: (?:me|us|for me))*",
    rf"(?:so |and |but |now )*(?:i|we)(?:'d| would|'m| am| was| were| have|'ve|'ll)?(?: \w+ly| just"
    rf"| always)*"
    rf" (?:{_VERB}|dreamed|dreamt|wondering|wonder|hoping|hope|looking|wish|wanted|thinking|feel"
    rf"|felt|was)\b"
    rf"(?: (?:if|whether|might|animate|of|to|for|you|could|can|it|that|about|from|a|be|nice|have"
    rf"|please|me|us|if i could|{_VERB})(?= ))*"
    rf"(?<! a)",
    r"(?:let(?:'s| us)|now|so)?(?:(?<= )| ?)\b(?:show|make|create|generate|produce|render|give"
    r"|imagine|visuali[sz]e"
    r"|animate|depict|compose)(?: (?:me|us|up|for me))+",
    rf"(?:let's|let us) {_VERB}",
    r"(?:i|we)(?:'m| am|'re| are) (?:making|creating|working on|preparing|writing|planning|building"
    r"|shooting)"
    r" (?:a |an |the |my |our )?(?:\w+ ){0,2}?(?:presentation|project|film|movie|video|book|game"
    r"|homework|report|ad"
    r"|advert|documentary|series|website|story|school play|play|channel)(?: and)?(?: (?:i |we "
    r")?(?:need|want))?",
    r"(?:(?:it|that|this) (?:would|will|should|must|could) be (?:so |very |really )?\w+(?: if| to "
    r"(?:see|watch|have|get))?)",
    r"(?:(?:i|we|you|they say|it) (?:think|believe|guess|know|feel|hope)s?(?: (?:that|it|this))?)",
]
_ASIDE = [re.compile(rf"(?<![^ ]){pattern}(?![^ ])") for pattern in _ASIDES]
#: "a 7-second clip of", "video of", "there is", "in this image".
_FRAMES = [
    re.compile(
        rf"(?<![^ ])(?:(?:show|make|create|generate|produce|render|film|imagine|picture|animate|do"
        rf"|depict|compose|design|this is|it is|it's|here is|with"
        rf"|in|as) )?(?:the |a |an |this |that |some |one )?{_KIND}(?:{_FILM})"
        rf"(?: (?:{_FILM}))*(?: (?:of|about|in which|where|showing|that shows|which shows|featuring"
        rf"|depicting|that))(?![^ ])"
    ),
    re.compile(rf"(?<![^ ])(?:in|of|within) (?:this|the|that|our|my) (?:{_FILM})(?![^ ])"),
    re.compile(
        r"(?<![^ ])(?:show|create|generate|produce|render|imagine|visuali[sz]e|animate|depict"
        r"|compose|make)(?= (?:a|an|the|one|two|three|four|five|some|several|\d+|many|how|no)(?![^ ]))"
    ),
    re.compile(
        r"(?<![^ ])(?:there(?:'s| is| are| was| were)|there (?:should|must|will|can) be|here(?:'s| "
        r"is| are)|we see|you see|you can see|one sees|it shows|we can see)(?![^ ])"
    ),
]
#: "as tall as a house", "the size of a mouse": nobody in the film, and no measure that is known.
_SIMILES = re.compile(
    r"(?<![^ ])(?:as (?!soon|well|long as)\w+ as|(?:about |roughly )?the (?:same )?(?:size|height"
    r"|shape|color|colour) of)"
    r" (?:a |an |the |my )?(?!usual|normal|regular|ordinary)(?:\w+ )??\w+(?![^ ])(?! (?:of|which|that))"
)
_TALKED = re.compile(
    rf"(?<![^ ])(?:a |an |the |this |that |my |some )?{_KIND}(?:{_FILM})(?:{_WHERE})(?![^ ])"
)


def take_asides(stream: Stream) -> None:
    """Take out what speaks about the film and not of it."""
    stream.take(_LOOKS_SO, lambda m: "", used=False)
    stream.take(_FRAMES[0], lambda m: ",")
    for pattern in _FRAMES[1:]:
        stream.take(pattern, lambda m: "")
    for pattern in _ASIDE:
        stream.take(pattern, lambda m: ",")
    for pattern in _FRAMES:
        stream.take(pattern, lambda m: "")
    stream.take(_SIMILES, lambda m: "", used=False)
    stream.take(_TALKED, lambda m: None if _is_talk(m.group()) else False)


#: "a photorealistic, vivid rendering of": what it is to look like goes aside, unused.
_LOOKS_SO = re.compile(rf"(?<![^ ])(?:{_QUALITY})(?:(?: ,)? (?:{_QUALITY}))*(?= (?:{_FILM})(?![^ ]))")


def _is_talk(text: str) -> bool:
    """A word of film where one can be meant: not "scene" in "in the scene" nor a picture on a wall."""
    return not re.search(r"\b(?:story|picture|moment|idea|light|quality|style|resolution)\b$", text)
