"""English inflection by rule, with the irregular forms that prompts use."""

from __future__ import annotations

from orbit4d.compose.language.tables import word_set

#: Plural -> singular of nouns that no rule covers.
IRREGULAR_PLURALS = {
    "wolves": "wolf",
    "men": "man",
    "women": "woman",
    "people": "person",
    "persons": "person",
    "children": "child",
    "mice": "mouse",
    "geese": "goose",
    "oxen": "ox",
    "feet": "foot",
    "teeth": "tooth",
    "dwarves": "dwarf",
    "elves": "elf",
    "thieves": "thief",
    "calves": "calf",
    "leaves": "leaf",
    "knives": "knife",
    "lives": "life",
    "wives": "wife",
    "halves": "half",
    "shelves": "shelf",
    "hooves": "hoof",
    "scarves": "scarf",
    "fungi": "fungus",
    "cacti": "cactus",
    "octopi": "octopus",
    "potatoes": "potato",
    "tomatoes": "tomato",
    "heroes": "hero",
    "volcanoes": "volcano",
    "buffaloes": "buffalo",
    "flamingoes": "flamingo",
    "mosquitoes": "mosquito",
    "dingoes": "dingo",
    "torpedoes": "torpedo",
    "movies": "movie",
    "zombies": "zombie",
    "selfies": "selfie",
    "horses": "horse",
    "houses": "house",
    "buses": "bus",
    "gases": "gas",
    "axes": "axe",
    "lenses": "lens",
}
#: Nouns whose plural is the singular, and singulars that end as a plural does.
UNCHANGED = word_set(
    "deer fish sheep goldfish swordfish angelfish clownfish jellyfish starfish anglerfish catfish "
    "lionfish "
    "blobfish cowfish flatfish moose bison salmon trout shrimp squid aircraft spacecraft "
    "hovercraft swine "
    "ninja samurai elk cod tuna series species stegosaurus apatosaurus parasaurolophus triceratops "
    "tyrannosaurus brontosaurus brachiosaurus ankylosaurus pegasus walrus octopus platypus virus "
    "circus "
    "cactus bus rhinoceros hippopotamus albatross moss grass glass dress princess actress waitress "
    "boss "
    "goddess sorceress witness kungfu canvas atlas compass iris lens chess mess pass cross class "
    "fortress "
    "wilderness darkness business walrus pancreas news physics gymnastics gas christmas"
)
#: Verb -> (third person, past, participle, -ing form) where no rule makes them.
IRREGULAR_VERBS = {
    "be": ("is", "was", "been", "being"),
    "have": ("has", "had", "had", "having"),
    "do": ("does", "did", "done", "doing"),
    "go": ("goes", "went", "gone", "going"),
    "run": ("runs", "ran", "run", "running"),
    "swim": ("swims", "swam", "swum", "swimming"),
    "eat": ("eats", "ate", "eaten", "eating"),
    "fly": ("flies", "flew", "flown", "flying"),
    "stand": ("stands", "stood", "stood", "standing"),
    "sit": ("sits", "sat", "sat", "sitting"),
    "lie": ("lies", "lay", "lain", "lying"),
    "lay": ("lays", "laid", "laid", "laying"),
    "fight": ("fights", "fought", "fought", "fighting"),
    "bite": ("bites", "bit", "bitten", "biting"),
    "shoot": ("shoots", "shot", "shot", "shooting"),
    "drive": ("drives", "drove", "driven", "driving"),
    "sleep": ("sleeps", "slept", "slept", "sleeping"),
    "flee": ("flees", "fled", "fled", "fleeing"),
    "lead": ("leads", "led", "led", "leading"),
    "meet": ("meets", "met", "met", "meeting"),
    "die": ("dies", "died", "died", "dying"),
    "stride": ("strides", "strode", "stridden", "striding"),
    "sting": ("stings", "stung", "stung", "stinging"),
    "strike": ("strikes", "struck", "struck", "striking"),
    "creep": ("creeps", "crept", "crept", "creeping"),
    "leap": ("leaps", "leapt", "leapt", "leaping"),
    "feed": ("feeds", "fed", "fed", "feeding"),
    "drink": ("drinks", "drank", "drunk", "drinking"),
    "spin": ("spins", "spun", "spun", "spinning"),
    "shake": ("shakes", "shook", "shaken", "shaking"),
    "hit": ("hits", "hit", "hit", "hitting"),
    "ride": ("rides", "rode", "ridden", "riding"),
    "rise": ("rises", "rose", "risen", "rising"),
    "fall": ("falls", "fell", "fallen", "falling"),
    "throw": ("throws", "threw", "thrown", "throwing"),
    "catch": ("catches", "caught", "caught", "catching"),
    "sing": ("sings", "sang", "sung", "singing"),
    "swing": ("swings", "swung", "swung", "swinging"),
    "climb": ("climbs", "climbed", "climbed", "climbing"),
    "come": ("comes", "came", "come", "coming"),
    "take": ("takes", "took", "taken", "taking"),
    "give": ("gives", "gave", "given", "giving"),
    "get": ("gets", "got", "got", "getting"),
    "make": ("makes", "made", "made", "making"),
    "see": ("sees", "saw", "seen", "seeing"),
    "hold": ("holds", "held", "held", "holding"),
    "wear": ("wears", "wore", "worn", "wearing"),
    "bear": ("bears", "bore", "borne", "bearing"),
    "keep": ("keeps", "kept", "kept", "keeping"),
    "begin": ("begins", "began", "begun", "beginning"),
    "let": ("lets", "let", "let", "letting"),
    "put": ("puts", "put", "put", "putting"),
    "blow": ("blows", "blew", "blown", "blowing"),
    "draw": ("draws", "drew", "drawn", "drawing"),
    "grow": ("grows", "grew", "grown", "growing"),
    "break": ("breaks", "broke", "broken", "breaking"),
    "read": ("reads", "read", "read", "reading"),
    "write": ("writes", "wrote", "written", "writing"),
    "sweep": ("sweeps", "swept", "swept", "sweeping"),
    "weep": ("weeps", "wept", "wept", "weeping"),
    "kneel": ("kneels", "knelt", "knelt", "kneeling"),
    "bend": ("bends", "bent", "bent", "bending"),
    "hide": ("hides", "hid", "hidden", "hiding"),
    "slide": ("slides", "slid", "slid", "sliding"),
    "dig": ("digs", "dug", "dug", "digging"),
    "freeze": ("freezes", "froze", "frozen", "freezing"),
    "tread": ("treads", "trod", "trodden", "treading"),
    "hang": ("hangs", "hung", "hung", "hanging"),
    "win": ("wins", "won", "won", "winning"),
    "sink": ("sinks", "sank", "sunk", "sinking"),
    "wake": ("wakes", "woke", "woken", "waking"),
    "cut": ("cuts", "cut", "cut", "cutting"),
    "set": ("sets", "set", "set", "setting"),
    "leave": ("leaves", "left", "left", "leaving"),
    "shine": ("shines", "shone", "shone", "shining"),
    "speak": ("speaks", "spoke", "spoken", "speaking"),
    "spring": ("springs", "sprang", "sprung", "springing"),
    "steal": ("steals", "stole", "stolen", "stealing"),
    "think": ("thinks", "thought", "thought", "thinking"),
    "dive": ("dives", "dived", "dived", "diving"),
    "wind": ("winds", "wound", "wound", "winding"),
    "ski": ("skis", "skied", "skied", "skiing"),
    "panic": ("panics", "panicked", "panicked", "panicking"),
}
_VOWELS = "aeiou"
_DOUBLED = "bdgklmnprtz"
#: Two-syllable verbs that end consonant-vowel-consonant and do not double.
_NOT_DOUBLED = {"open", "visit", "wander", "wait", "enter", "gallop", "canter", "wiggle", "hover", "travel"}


def singular(word: str) -> str:
    """The singular of a noun in lower case; a singular comes back as it is."""
    if word in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[word]
    if word in UNCHANGED or len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("men"):
        return word[:-3] + "man"
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses", "zzes")):
        return word[:-2]
    return word[:-1]


def plural(word: str) -> str:
    """The plural of a singular noun in lower case."""
    for several, one in IRREGULAR_PLURALS.items():
        if one == word:
            return several
    if word in UNCHANGED and word not in ("princess", "boss", "glass", "dress", "bus", "octopus", "fortress"):
        return word
    if word.endswith("man") and word not in ("human", "caiman", "shaman"):
        return word[:-3] + "men"
    if word.endswith("y") and len(word) > 1 and word[-2] not in _VOWELS:
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")


def verb_forms(verb: str) -> dict[str, str]:
    """Form -> its kind (`base`, `s`, `past`, `participle`, `ing`) of a verb; kinds that agree are one."""
    if verb in IRREGULAR_VERBS:
        third, past, participle, ing = IRREGULAR_VERBS[verb]
        return {ing: "ing", participle: "participle", past: "past", third: "s", verb: "base"}
    third = plural(verb) if not verb.endswith("o") else verb + "es"
    if verb.endswith(("ss", "sh", "ch", "x", "z")):
        third = verb + "es"
    stem = verb
    if verb.endswith("ie"):
        return {verb[:-2] + "ying": "ing", verb + "d": "past", third: "s", verb: "base"}
    if verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        return {verb[:-1] + "ing": "ing", verb + "d": "past", third: "s", verb: "base"}
    if _doubles(verb):
        stem = verb + verb[-1]
    past = verb[:-1] + "ied" if verb.endswith("y") and verb[-2] not in _VOWELS else stem + "ed"
    past = verb + "d" if verb.endswith(("ee", "oe", "ye")) else past
    forms = {stem + "ing": "ing", past: "past", third: "s", verb: "base"}
    if stem == verb and verb.endswith(("el", "op")):
        forms[verb + verb[-1] + "ing"], forms[verb + verb[-1] + "ed"] = "ing", "past"
    return forms


def _doubles(verb: str) -> bool:
    verb = verb.replace("qu", "kw")
    if len(verb) < 3 or verb in _NOT_DOUBLED or verb[-1] not in _DOUBLED:
        return False
    if verb[-2] not in _VOWELS or verb[-3] in _VOWELS:
        return False
    return sum(letter in _VOWELS for letter in verb) == 1


def verb_lemma(word: str) -> str:
    """The base form that an unknown verb's inflected form most likely has."""
    if word.endswith("ing") and len(word) > 5:
        return _restored(word[:-3])
    if word.endswith("ied") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith("ed") and len(word) > 4:
        return _restored(word[:-2])
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses", "zzes", "oes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _restored(stem: str) -> str:
    """A stem with its silent e, or without the letter that -ing doubled."""
    if len(stem) > 2 and stem[-1] == stem[-2] and stem[-1] in "bdgmnprt":
        return stem[:-1]
    if stem.endswith(("bl", "dl", "gl", "kl", "pl", "tl", "fl", "zl", "rg", "nc", "rc", "dg", "v", "u", "z")):
        return stem + "e"
    short = len(stem) in (3, 4) and stem[-2] in _VOWELS and stem[-3] not in _VOWELS
    return stem + "e" if short and stem[-1] not in "wxy" and stem[-1] not in _VOWELS else stem
