"""What words stand for in a search: kinds and their members, likenesses, and names of actions."""

from __future__ import annotations

import re
from functools import cache

from orbit4d.compose.language.inflect import singular, verb_lemma
from orbit4d.compose.language.nouns import NOUN_FORMS
from orbit4d.compose.language.tables import word_set
from orbit4d.compose.language.verbs import ACTIONS, VERB_FORMS

#: A kind and its members: a query for either finds the other, with less weight.
KINDS = {
    "fox": "vixen",
    "planet": "globe world earth sphere moon",
    "dog": "husky shiba inu shibainu pug corgi beagle labrador retriever bulldog terrier poodle dalmatian "
    "chihuahua shepherd puppy hound pup doberman rottweiler greyhound spitz",
    "cat": "kitten kitty tabby siamese feline",
    "horse": "pony foal mare stallion mustang colt",
    "cow": "bull cattle calf ox heifer",
    "deer": "stag doe fawn buck reindeer elk",
    "sheep": "lamb ram ewe",
    "pig": "piglet hog boar swine",
    "chicken": "hen rooster chick cock",
    "rabbit": "bunny hare",
    "rat": "mouse rodent",
    "frog": "toad",
    "snake": "cobra python viper serpent anaconda rattlesnake",
    "spider": "tarantula arachnid",
    "wasp": "hornet bee bumblebee",
    "crab": "lobster crayfish",
    "bird": "eagle hawk falcon crow raven pigeon dove sparrow parrot owl seagull gull duck chicken "
    "goose swan "
    "robin vulture penguin flamingo toucan ostrich",
    "fish": "goldfish clownfish betta koi tuna tetra tang bluetang yellowtang piranha swordfish anglerfish "
    "blobfish lionfish puffer salmon trout sunfish flatfish cowfish turbot mandarinfish parrotfish "
    "catfish "
    "armoredcatfish angelfish butterflyfish cardinalfish grouper snapper redsnapper moorishidol "
    "humphead "
    "flowerhorn royalgramma",
    "shark": "goblinshark hammerhead",
    "ray": "manta stingray",
    "whale": "orca",
    "dolphin": "porpoise",
    "dinosaur": "triceratops velociraptor stegosaurus apatosaurus parasaurolophus tyrannosaurus "
    "trex t-rex raptor "
    "brontosaurus brachiosaurus ankylosaurus pterodactyl dino",
    "insect": "bee wasp ant beetle fly bug ladybug butterfly dragonfly mosquito",
    "animal": "fox wolf deer dog cat horse cow pig sheep bear lion tiger rabbit donkey alpaca",
    "astronaut": "spaceman cosmonaut spacewoman",
    "robot": "mech android droid bot cyborg automaton mecha machine",
    "truck": "lorry pickup van milktruck firetruck",
    "car": "automobile taxi cab suv sedan jeep sportscar racecar coupe convertible hatchback "
    "vehicle roadster",
    "plane": "airplane aeroplane aircraft jet biplane ww1plane fighter",
    "ship": "boat yacht sailboat galleon vessel ferry",
    "spaceship": "rocket starship spacecraft ufo shuttle",
    "helicopter": "chopper",
    "motorcycle": "motorbike scooter moped",
    "bicycle": "bike",
    "train": "locomotive tram",
    "person": "man woman human boy girl character people guy lady child adult farmer worker casual",
    "man": "guy male gentleman farmer worker businessman character king",
    "woman": "lady female girl businesswoman princess queen character",
    "child": "kid boy girl toddler baby",
    "knight": "knightcharacter paladin cavalier",
    "warrior": "knight barbarian viking gladiator samurai fighter swordsman soldier",
    "soldier": "trooper marine army guard swat knight commando",
    "wizard": "mage sorcerer warlock magician witch",
    "character": "person man human hero figure player",
    "monster": "enemy creature beast demon dragon ogre troll goblin zombie slime alien",
    "enemy": "monster villain foe opponent",
    "alien": "extraterrestrial martian enemy",
    "zombie": "undead ghoul mummy",
    "skeleton": "skull bones",
    "ghost": "spirit phantom",
    "dragon": "wyvern drake",
    "tank": "panzer",
    "cactus": "plant",
    "bouncer": "spring trampoline",
    "vehicle": "car truck tank plane bus van",
}
#: What stands in for what a library seldom holds.
LIKE = {
    "horse": "unicorn pegasus zebra mule centaur camel",
    "wolf": "coyote jackal hyena werewolf dingo",
    "fox": "cat kitten jackal coyote raccoon weasel",
    "deer": "moose caribou gazelle antelope impala giraffe kangaroo",
    "bull": "buffalo bison rhino rhinoceros minotaur hippo elephant mammoth",
    "alpaca": "llama sheep goat camel",
    "cat": "lion tiger leopard panther cheetah jaguar lynx puma cougar",
    "dog": "wolf bear",
    "rat": "squirrel hamster gerbil chipmunk hedgehog mole beaver otter ferret",
    "frog": "lizard gecko salamander newt turtle tortoise",
    "snake": "worm eel caterpillar",
    "spider": "scorpion ant beetle",
    "wasp": "fly mosquito bat hummingbird",
    "crab": "turtle tortoise octopus",
    "bee": "bird butterfly fairy dragonfly",
    "dolphin": "seal walrus",
    "shark": "crocodile alligator barracuda",
    "dinosaur": "crocodile lizard dragon monster rhino elephant",
    "velociraptor": "ostrich emu chicken turkey penguin",
    "tank": "car truck bulldozer tractor excavator bus",
    "robot": "toy doll puppet",
    "knight": "king prince warrior gladiator samurai viking",
    "man": "doctor policeman farmer chef boxer dancer clown actor teacher cowboy pirate ninja "
    "lumberjack mechanic",
    "plane": "bird eagle drone helicopter",
    "enemy": "zombie ghost vampire orc goblin skeleton",
}
#: Names of one action; the first is what the others are looked up as.
SAME_ACTION = (
    "run gallop sprint jog race dash rush flee hurry canter charge chase scurry scamper scuttle dart bolt "
    "speed escape stampede",
    "walk stroll wander march step stride hike amble crawl trot strut creep tread waddle sneak pace roam "
    "slither slink plod trudge shuffle limp stagger tiptoe stomp trek patrol prowl stalk lumber saunter "
    "toddle scoot slide",
    "jump hop leap bounce bound",
    "idle stand wait rest pause stop stay sleep lie pose remain static breathe relax",
    "attack bite sting strike claw slash headbutt hit fight swing stab smash swordslash sword swipe maul",
    "punch box fight kungfu karate attack jab",
    "kick attack",
    "eat graze feed drink munch chew nibble headlow peck",
    "swim dive paddle float",
    "fly hover soar glide flap",
    "dance ballet breakdance twerk",
    "wave hello greet salute hi goodbye",
    "clap applaud cheer",
    "yes nod agree",
    "no refuse deny shake",
    "shoot fire gun weapon aim",
    "roll tumble dodge somersault",
    "sit seat sitdown",
    "crouch duck squat kneel",
    "pickup lift grab take collect pick carry hold interact",
    "death die dead collapse perish fall defeat kill",
    "hitreact hit flinch hurt damage hitrecieve hitreceive react recieve receive injure",
    "drive forward forwards move go travel",
    "backwards backward reverse back retreat",
    "turn spin rotate turning",
    "open on activate",
    "close off shut",
    "climb ladder",
    "thumbsup approve thumb",
    "throw toss",
    "work interact use",
    "victory win celebrate cheer",
    "cast spell magic",
    "land landing",
    "slow slowly normal gently",
    "fast quickly rapidly swiftly",
)
_PHRASES = (
    (r"\bshak\w+ (?:his|her|its|their|the) heads?\b", "no"),
    (r"\bnod\w*(?: (?:his|her|its|their|the) heads?)?\b", "yes"),
    (
        r"\b(?:stand\w*|stay\w*|keep\w*|remain\w*|sit\w*) still\b|\b(?:do(?:es)?(?: not|n't)"
        r"|without) mov\w+\b",
        "idle",
    ),
    (r"\bthumbs? up\b", "thumbsup"),
    (r"\bpick\w* (?:\w+ ){0,3}?up\b", "pickup"),
    (
        r"\bhits? by\b|\b(?:gets?|got|getting|gotten|been|being|is|are|was|were) (?:hit|hurt|struck|wounded"
        r"|injured)\b|\btak\w+ (?:damage|a hit|a blow)\b",
        "hitreact",
    ),
    (r"\bfalls? (?:over )?dead\b|\bdrops? dead\b|\bis killed\b|\bgets? killed\b", "death"),
    (r"\blies? down\b|\blying down\b", "idle"),
    (r"\bsays? (?:hello|hi)\b|\bgreets?\b", "wave"),
    (r"\bsays? yes\b|\bagrees?\b", "yes"),
    (r"\bsays? no\b|\bdisagrees?\b", "no"),
    (r"\bkung fu\b", "kungfu"),
    (r"\b(?:switch|turn|flip|flick|power)\w*(?: \w+){0,3}? on\b(?! the)", "open"),
    (r"\b(?:switch|turn|flip|flick|power)\w*(?: \w+){0,3}? off\b", "close"),
    (
        r"\bgo(?:es|ing)? back(?:wards?)?\b|\bback(?:s|ing) (?:up|off)\b|\bdriv\w+ back(?:wards?)?\b",
        "backwards",
    ),
    (r"\bhead ?butt\w*\b", "headbutt"),
    (r"\b(?:does nothing|doing nothing|hangs? around|stands? around)\b", "idle"),
)
_STOP = word_set(
    "a an the is are was were be being been his her its their my your of in on at to with and or "
    "some up down out "
    "off away who which that it he she they him them very then by for from into over gets get got "
    "does do giving "
    "gives give makes make has have something someone around toward towards happily sadly"
)
_PIECES = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
NAMELESS = re.compile(
    r"^(?:anim(?:ation)?s?|take|action|clip|scene|mixamo\.com|default|untitled|track|armature(?:action)?|"
    r"animationclip|baselayer|main|object|unreal)?[ _.\-]*\d*$",
    re.IGNORECASE,
)


def words_of_name(name: str) -> list[str]:
    """Words of an action's or asset's name: split at signs, digits and capitals, in lower case."""
    return [piece.lower() for piece in _PIECES.findall(name) if not piece.isdigit()]


def nouns_of(text: str) -> list[str]:
    """Lemmas of the words of a caption or an object's name, without articles and numbers."""
    words = re.findall(r"[a-z]+(?:-[a-z]+)*", text.lower().replace("t-rex", "trex"))
    return [NOUN_FORMS.get(w, (singular(w),))[0] for w in words if w not in _STOP and len(w) > 1]


def action_lemma(word: str) -> str:
    """The base form of a word of an action's name or of a query."""
    if word in VERB_FORMS:
        return VERB_FORMS[word][0]
    return (
        verb_lemma(word) if word.endswith(("ing", "ed", "s")) and word not in ("yes", "backwards") else word
    )


def actions_of(text: str) -> list[str]:
    """Lemmas of what a query asks to be done, with phrases of several words as one."""
    text = text.lower()
    for pattern, name in _PHRASES:
        text = re.sub(pattern, name, text)
    words = re.findall(r"[a-z]+", text)
    return [action_lemma(word) for word in words if word not in _STOP]


def name_words(name: str, of_object: set[str]) -> list[str]:
    """Lemmas of an action's name after its last "|", without the object's own words; [] where it "
    "says nothing."""
    last = name.rpartition("|")[2].strip()
    if NAMELESS.match(last):
        return []
    joined = re.sub(r"(?i)pick[ _]?up", "Pickup", last)
    joined = re.sub(r"(?i)thumbs[ _]?up", "Thumbsup", joined)
    joined = re.sub(r"(?i)hit[ _]?(?:react|rec[ei]+ve)(?:ion)?", "Hitreact", joined)
    joined = re.sub(r"(?i)head[ _]?butt", "Headbutt", joined)
    raw = words_of_name(joined)
    own = [
        word in of_object or singular(word) in of_object or action_lemma(word) in of_object for word in raw
    ]
    kept = [action_lemma(word) for word, of_it in zip(raw, own) if not of_it]
    return [
        word
        for word in (kept or [action_lemma(word) for word in raw])
        if word not in ("armature", "to", "of", "in", "out")
    ]


@cache
def synonyms(word: str) -> frozenset[str]:
    """Words for the same action, itself left out."""
    found: set[str] = set()
    for group in SAME_ACTION:
        words = group.split()
        if word == words[0]:
            found |= set(words)
        elif word in words:
            found |= {words[0], *(other for other in words if canonical(other) == canonical(word))}
    for name, said in ACTIONS.items():
        if word == name or word in said.split():
            found |= {name.replace("_", ""), *said.split()}
    return frozenset(found - {word})


def canonical(word: str) -> str:
    return next((name for name, said in ACTIONS.items() if word == name or word in said.split()), word)


@cache
def widened(word: str) -> tuple[tuple[str, float], ...]:
    """Other words that a query's noun also looks for, with their weights below 1."""
    found: dict[str, float] = {}
    for kind, members in KINDS.items():
        names = members.split()
        if word == kind:
            for name in names:
                found[name] = max(found.get(name, 0), 0.6)
        elif word in names:
            found[kind] = max(found.get(kind, 0), 0.6)
            for name in names:
                found[name] = max(found.get(name, 0), 0.3)
    for name, likes in LIKE.items():
        if word in likes.split():
            found[name] = max(found.get(name, 0), 0.4)
        elif word == name:
            for like in likes.split():
                found[like] = max(found.get(like, 0), 0.3)
    found.pop(word, None)
    return tuple(sorted(found.items()))
