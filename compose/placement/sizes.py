"""How tall things are, metres: what a prompt leaves unsaid. Withers of four-legged animals."""

from __future__ import annotations

#: Heights by noun; of what floats or lies, its own height.
METRES = {
    "man": 1.75, "woman": 1.65, "person": 1.7, "human": 1.7, "boy": 1.3, "girl": 1.3, "child": 1.1,
    "knight": 1.8, "soldier": 1.8, "astronaut": 1.8, "alien": 1.6, "robot": 1.7, "mech": 3.0,
    "clown": 1.75, "wizard": 1.75, "skeleton": 1.7, "character": 1.6, "enemy": 1.4, "monster": 2.2,
    "zombie": 1.7, "ninja": 1.7, "pirate": 1.8, "king": 1.8, "warrior": 1.85, "barbarian": 1.9,
    "fox": 0.45, "wolf": 0.85, "dog": 0.6, "husky": 0.6, "shiba": 0.4, "puppy": 0.3, "cat": 0.3,
    "kitten": 0.18, "horse": 1.9, "pony": 1.4, "donkey": 1.35, "cow": 1.5, "bull": 1.6, "deer": 1.3,
    "stag": 1.9, "alpaca": 1.5, "unicorn": 1.9, "lion": 1.2, "tiger": 1.1, "bear": 1.4, "pig": 0.8,
    "sheep": 0.9, "goat": 0.8, "rabbit": 0.3, "mouse": 0.08, "rat": 0.15, "monkey": 0.9,
    "elephant": 3.2, "chicken": 0.4, "duck": 0.35, "bird": 0.25, "eagle": 0.8, "frog": 0.12,
    "snake": 0.15, "spider": 0.1, "crab": 0.12, "turtle": 0.3, "bee": 0.03, "wasp": 0.03,
    "fish": 0.15, "goldfish": 0.1, "shark": 1.1, "dolphin": 0.8, "whale": 4.0, "piranha": 0.2,
    "dinosaur": 3.5, "trex": 4.0, "triceratops": 2.8, "stegosaurus": 3.5, "velociraptor": 0.9,
    "dragon": 3.0, "car": 1.5, "truck": 3.0, "tank": 2.6, "plane": 3.5, "drone": 0.3,
}  # fmt: skip
#: Height of what no word of says more.
DEFAULT = 1.2


def metres_of(*texts: str) -> float:
    """Usual height of the first noun that is known, its head first: a prompt's object, then a caption."""
    for text in texts:
        for word in text.lower().replace("-", " ").replace("_", " ").split()[::-1]:
            for known in (word, word.removesuffix("s"), word.removesuffix("es")):
                if known in METRES:
                    return METRES[known]
    return DEFAULT
