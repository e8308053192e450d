"""The words that the offline director promises to know, each in a sentence of its own."""

from __future__ import annotations

import pytest

from orbit4d.compose import rules_director
from orbit4d.compose.language.inflect import verb_forms
from orbit4d.datasets import InputError

VERBS = {
    "walk": "stroll wander march step pace stride hike amble crawl trot strut creep",
    "run": "sprint jog race dash rush flee hurry gallop canter charge",
    "jump": "hop leap",
    "idle": "stand wait rest pause stop stay sleep lie pose remain",
    "attack": "bite sting strike claw",
    "punch": "box fight",
    "kick": "kick",
    "eat": "graze feed drink munch chew",
    "swim": "dive",
    "fly": "hover soar glide",
    "dance": "dance",
    "wave": "greet",
    "clap": "applaud",
    "yes": "nod",
    "no": "refuse",
    "shoot": "fire",
    "roll": "tumble",
    "sit": "sit",
    "crouch": "duck squat",
    "pick_up": "grab lift",
    "die": "collapse perish",
    "hit": "flinch",
    "drive": "drive",
    "turn": "spin rotate",
    "bounce": "bounce",
    "move": "go travel",
}
PAST = {
    "ran": "run", "swam": "swim", "ate": "eat", "flew": "fly", "stood": "idle", "sat": "sit", "lay": "idle",
    "fought": "punch", "bit": "attack", "shot": "shoot", "went": "move", "drove": "drive", "slept": "idle",
    "fled": "run",
}  # fmt: skip
ACTORS = (
    "fox horse wolf deer bull donkey cow stag husky alpaca dog cat crab spider rat frog snake bee wasp shark "
    "dolphin whale fish goldfish piranha ray swordfish dinosaur bird eagle lion tiger bear rabbit mouse pig "
    "sheep goat chicken duck elephant monkey turtle dragon puppy kitten pony man woman person human boy girl "
    "child knight soldier astronaut alien robot mech mechanic clown wizard astrologer skeleton character "
    "enemy monster zombie ninja pirate king warrior barbarian lumberjack dancer farmer chef tank truck car "
    "plane drone"
)
SCENES = (
    "forest beach meadow field stage plain snow ice park moon lake river sea street road city village jungle "
    "barn canyon desert hill mountain cave kitchen livingroom room garden arena castle island stadium farm "
    "villa swamp"
)
PLURALS = {
    "wolves": "wolf", "foxes": "fox", "men": "man", "women": "woman", "people": "person",
    "children": "child", "mice": "mouse", "deer": "deer", "fish": "fish", "sheep": "sheep",
}  # fmt: skip
COUNTS = {
    "two": 2, "twenty": 20, "a couple of": 2, "a pair of": 2, "a trio of": 3, "a few": 3, "some": 3,
    "several": 3, "a dozen": 12, "many": 5, "a herd of": 5, "a flock of": 5, "a school of": 5,
    "a pack of": 5, "a group of": 5, "a crowd of": 5, "a swarm of": 5, "a bunch of": 5, "a group of six": 6,
    "a fleet of seven": 7, "": 3, "9": 9,
}  # fmt: skip
SIZES = {
    0.25: "tiny miniature", 0.5: "small little short", 1.5: "big large tall",
    3.0: "huge giant gigantic enormous massive colossal",
}  # fmt: skip
UNITS = {
    "2 m": 2.0, "150 cm": 1.5, "900 mm": 0.9, "6 feet": 1.8288, "6-foot": 1.8288, "6 ft": 1.8288,
    "20 inch": 0.508, "2 yards": 1.8288, "two and a half metres": 2.5,
}  # fmt: skip
SPEEDS = {"2 m/s": 2.0, "36 km/h": 10.0, "3 metres per second": 3.0}
TIMES = {"6 seconds": 6.0, "half a minute": 30.0, "2 minutes": 120.0, "1.5 seconds": 1.5, "six seconds": 6.0}


@pytest.mark.parametrize("action", VERBS)
def test_verbs_in_every_form(action: str) -> None:
    for verb in VERBS[action].split():
        forms = verb_forms(verb)
        third = next(form for form, kind in forms.items() if kind == "s")
        ing = next(form for form, kind in forms.items() if kind == "ing")
        for prompt in (f"a fox {third}", f"a fox is {ing}", f"two foxes {verb}"):
            (fox,) = rules_director(prompt).actors
            assert (fox.object, fox.action, fox.action_given) == ("fox", action, True), prompt


def test_irregular_verbs() -> None:
    for said, action in PAST.items():
        (fox,) = rules_director(f"a fox {said}").actors
        assert fox.action == action, said


def test_nouns() -> None:
    for noun in ACTORS.split():
        (one,) = rules_director(f"a {noun} walks").actors
        assert (one.object, one.count) == (noun, 1)
        assert [a.object for a in rules_director(f"the {noun}").actors] == [noun]
    for scene in SCENES.split():
        spec = rules_director(f"a fox walks through the {scene}")
        assert spec.scene.text == scene and len(spec.actors) == 1
        with pytest.raises(InputError):
            rules_director(f"an empty {scene}")
    for plural, noun in PLURALS.items():
        (one,) = rules_director(f"two {plural} walk").actors
        assert (one.object, one.count) == (noun, 2)


def test_counts_sizes_and_units() -> None:
    for said, count in COUNTS.items():
        (one,) = rules_director(f"{said} horses run".strip()).actors
        assert (one.object, one.count) == ("horse", count), said
    for factor, words in SIZES.items():
        for word in words.split():
            (one,) = rules_director(f"a {word} robot walks").actors
            assert (one.object, one.size.factor, one.size.metres) == ("robot", factor, None)
    for said, metres in UNITS.items():
        (one,) = rules_director(f"a {said} tall robot walks").actors
        assert one.size.metres == pytest.approx(metres, rel=1e-6) and one.size.factor == 1, said
        (one,) = rules_director(f"a robot, {said} tall, walks").actors
        assert one.size.metres == pytest.approx(metres, rel=1e-6), said
    for said, mps in SPEEDS.items():
        assert rules_director(f"a fox walks at {said}").actors[0].speed.mps == pytest.approx(mps, rel=1e-6)
    for said, seconds in TIMES.items():
        assert rules_director(f"a fox walks for {said}").duration_s == seconds, said


RELATIONS = {
    "chases": ("run", "chase"), "follows": ("walk", "follow"), "approaches": ("walk", "toward"),
    "leads": ("walk", "lead"), "meets": ("walk", "toward"), "faces": ("idle", "facing"),
    "stands near": ("idle", "beside"), "stands behind": ("idle", "behind"),
    "stands in front of": ("idle", "in_front_of"), "stands next to": ("idle", "beside"),
    "stands beside": ("idle", "beside"), "stands to the left of": ("idle", "left_of"),
    "runs to": ("run", "toward"), "runs towards": ("run", "toward"), "runs away from": ("run", "away_from"),
    "flees from": ("run", "away_from"), "rides on": ("ride", "on"),
}  # fmt: skip
CAMERA = {
    "Close-up of a fox": ("shot", "close"), "a wide shot of a fox": ("shot", "wide"),
    "a long shot of a fox": ("shot", "wide"), "a medium shot of a fox": ("shot", "medium"),
    "a fox, filmed from above": ("angle", "high"), "a high angle shot of a fox": ("angle", "high"),
    "top view of a fox": ("angle", "top"), "bird's-eye view of a fox": ("angle", "top"),
    "a fox from a low angle": ("angle", "low"), "a fox filmed from below": ("angle", "low"),
    "the camera follows a fox": ("move", "follow"), "the camera tracks a fox": ("move", "follow"),
    "the camera circles a fox": ("move", "orbit"), "the camera orbits a fox": ("move", "orbit"),
    "a fox; the camera zooms in": ("move", "zoom_in"), "a fox; camera moves out": ("move", "zoom_out"),
    "a fox; the camera pans left": ("move", "pan_left"),
    "a fox; the camera pans right": ("move", "pan_right"),
    "a fox in bullet time": ("move", "bullet_time"),
    "the camera pans right over a fox": ("move", "pan_right"),
}  # fmt: skip


def test_relations_and_camera() -> None:
    for said, (action, kind) in RELATIONS.items():
        fox, bear = rules_director(f"a fox {said} a bear").actors
        assert (fox.action, fox.relation and fox.relation.kind) == (action, kind), said
        assert bear.object == "bear" and bear.relation is None
    for prompt, (field, value) in CAMERA.items():
        spec = rules_director(prompt)
        assert [a.object for a in spec.actors] == ["fox"] and len(spec.camera) == 1, prompt
        assert getattr(spec.camera[0], field) == value and not spec.unused, prompt
