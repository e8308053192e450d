"""Verbs: the canonical actions of a spec, what they are said as, and further verbs of motion and manner."""

from __future__ import annotations

from orbit4d.compose.language.inflect import verb_forms
from orbit4d.compose.language.tables import word_set, words_in
from orbit4d.compose.spec import RelationKind

#: Canonical action -> the verbs it is said as, besides its own name.
ACTIONS = {
    "walk": "stroll wander march step pace stride hike amble crawl trot strut creep",
    "run": "sprint jog race dash rush flee hurry gallop canter charge",
    "jump": "hop leap",
    "idle": "stand wait rest pause stop stay sleep lie pose remain",
    "attack": "bite sting strike claw",
    "punch": "box fight",
    "kick": "",
    "eat": "graze feed drink munch chew",
    "swim": "dive",
    "fly": "hover soar glide",
    "dance": "",
    "wave": "greet",
    "clap": "applaud",
    "yes": "nod",
    "no": "refuse",
    "shoot": "fire",
    "roll": "tumble",
    "sit": "",
    "crouch": "duck squat",
    "pick_up": "grab lift",
    "die": "collapse perish",
    "hit": "flinch",
    "drive": "",
    "turn": "spin rotate",
    "bounce": "",
    "open": "",
    "close": "",
    "move": "go travel",
}
#: Verbs that relate two actors: verb -> (action, relation).
RELATING: dict[str, tuple[str, RelationKind]] = {
    "chase": ("run", "chase"),
    "pursue": ("run", "chase"),
    "follow": ("walk", "follow"),
    "approach": ("walk", "toward"),
    "lead": ("walk", "lead"),
    "meet": ("walk", "toward"),
    "face": ("idle", "facing"),
}
#: Verbs that keep their lemma as the action.
OTHERS = words_in(
    "surround win lose bow "
    "waddle prowl sneak stalk tiptoe limp stagger stumble skip skate ski surf sail row paddle "
    "float drift "
    "sink climb fall slide slither hide search dig scratch sniff lick bark howl growl roar meow "
    "purr neigh "
    "moo squeak chirp sing whistle hum shout yell scream cry laugh smile giggle speak talk chat "
    "whisper "
    "argue kiss hug embrace bow kneel pray salute point cheer celebrate juggle play perform act "
    "paint draw "
    "write read cook bake clean sweep wash mop iron sew knit build hammer saw chop weld repair fix "
    "plant "
    "water harvest fish hunt aim throw catch toss pitch bat dribble score shove push pull drag "
    "carry hold "
    "wear bring fetch deliver drop place put hand give take steal rob break smash crush destroy "
    "explode "
    "burn melt freeze shiver tremble shake wobble sway swing rock vibrate flap flutter stretch "
    "yawn wake "
    "think dream meditate exercise train practice practise balance cartwheel somersault backflip "
    "flip twirl "
    "whirl pirouette circle orbit roam trudge plod tread stomp stamp shuffle slink scurry scamper "
    "scuttle "
    "dart bolt bound pounce lunge dodge parry block defend guard protect slash stab thrust "
    "headbutt ram "
    "swipe peck gnaw swallow sip taste cast summon conjure levitate teleport vanish appear disappear "
    "transform land crash hang cling swoop circle patrol watch look stare gaze peer glance listen "
    "inspect "
    "study examine explore visit enter leave exit arrive depart return cross pass reverse park brake "
    "accelerate steer skid ride cycle pedal scroll type film record photograph beg wag whip snort "
    "squawk "
    "grin frown wink blink sneeze cough breathe blow spit spray splash dig burrow nest perch preen "
    "stir mix pour serve brew sprinkle sell buy trade work rise rear buck strum drum bang ring swirl "
    "rattle bask sunbathe picnic wrestle spar duel joust battle advance retreat escape surrender crawl "
    "bend lean slump faint revive recover sprout bloom blossom shine glow sparkle twinkle flicker "
    "ascend descend lower raise haul tow load unload dock launch orbit zoom gesture shrug facepalm "
    "shuffle moonwalk breakdance waltz tango twerk skateboard snowboard parachute wade bathe "
    "shower snore "
    "nap doze relax chill lounge loiter mourn sulk panic hesitate beckon knock tap ping collide "
    "bump trip "
    "slip topple hunch squirm wriggle wiggle writhe coil uncoil snap crackle mumble hiss buzz "
    "croak quack "
    "speed cluck crow honk bray bleat oink trumpet hoot caw yap yelp whimper whine play tug wrap "
    "unwrap drool beat overtake fold unfold wallow shrink grow drip toddle trek lumber saunter scoot gather "
    "arrive assemble scatter stack polish wipe dust knead peel sharpen forge pluck toot bark squint blush "
    "stomp trample graze rummage sprawl straddle dangle hobble strike applaud meander swagger flail flex"
)
#: Those of them that go somewhere.
GOING_VERBS = word_set(
    "waddle prowl sneak stalk tiptoe limp stagger stumble skip skate ski surf sail row paddle float "
    "drift slide slither roam trudge plod tread shuffle slink scurry scamper scuttle dart bolt bound "
    "moonwalk circle orbit patrol skateboard snowboard wade ride cycle advance retreat escape"
)
#: Verbs that only prepare another one: "starts walking", "tries to jump".
PREPARING = word_set(
    "start begin continue keep try attempt proceed seem appear come go want need prepare get "
    "decide finish "
    "end learn love like manage happen remain stop help let make used"
)
#: Verbs whose object belongs to the subject and is no actor.
BELONGING = word_set("wear hold carry have own bear sport wield hug feature contain include")
#: Verbs of speakers about the film, or of feelings: their subject is no actor.
TALKING = word_set(
    "want like love need wish hope think imagine believe guess suppose see show make create "
    "generate produce "
    "render film give ask wonder dream prefer enjoy adore appreciate thank help please remember "
    "know feel "
    "draw picture visualize visualise say tell let try mind have get require deserve miss hate call"
)
#: What only belongs to scenery: "the wind blows", "the sun shines".
SCENERY_VERBS = word_set("blow shine glow fall crash sparkle twinkle set rise rustle flow drip sway")
#: Light verbs that lend their action from the noun: "takes a nap", "gives a wave".
LIGHT = word_set("take do give have make perform throw practice practise play go land deliver execute")
#: Nouns of actions -> their verb, after a light verb or "performing".
ACTION_NOUNS = {
    "kungfu": "punch",
    "karate": "punch",
    "boxing": "punch",
    "judo": "punch",
    "ballet": "dance",
    "tango": "dance",
    "waltz": "dance",
    "salsa": "dance",
    "dance": "dance",
    "walk": "walk",
    "stroll": "walk",
    "step": "walk",
    "run": "run",
    "jog": "run",
    "sprint": "run",
    "jump": "jump",
    "hop": "jump",
    "leap": "jump",
    "nap": "idle",
    "rest": "idle",
    "break": "idle",
    "pose": "idle",
    "nod": "yes",
    "wave": "wave",
    "bow": "bow",
    "kick": "kick",
    "punch": "punch",
    "swim": "swim",
    "dive": "swim",
    "roll": "roll",
    "turn": "turn",
    "spin": "turn",
    "bite": "attack",
    "seat": "sit",
    "flip": "flip",
    "backflip": "backflip",
    "somersault": "somersault",
    "cartwheel": "cartwheel",
    "handstand": "handstand",
    "salute": "salute",
    "applause": "clap",
    "hug": "hug",
    "yoga": "yoga",
    "gymnastics": "gymnastics",
}

CANONICAL: dict[str, str] = {
    word: name for name, said in ACTIONS.items() for word in (name.replace("_", " "), *said.split())
}
#: Known form in lower case -> (lemma, kind of form).
VERB_FORMS: dict[str, tuple[str, str]] = {}
for _verb in dict.fromkeys([*CANONICAL, *RELATING, *OTHERS, *PREPARING, *BELONGING, *TALKING, *LIGHT]):
    if _verb in ("yes", "no", "pick up", "used"):
        continue
    for _form, _kind in verb_forms(_verb).items():
        VERB_FORMS.setdefault(_form, (_verb, _kind))
for _form, _lemma in {"lay": "lie", "lies": "lie", "bit": "bite", "picks": "pick", "picking": "pick"}.items():
    VERB_FORMS[_form] = (_lemma, "s" if _form.endswith("s") else "ing" if _form.endswith("ing") else "past")
VERB_FORMS |= {"pick": ("pick", "base"), "picked": ("pick", "past"), "leaped": ("leap", "past")}
VERB_FORMS |= {"struts": ("strut", "s"), "lays": ("lie", "s"), "laying": ("lie", "ing")}

#: Verbs of the canonical table and of relations: what "known" means where a prompt is refused.
KNOWN_VERBS = {*CANONICAL, *RELATING, *OTHERS, "pick"}


def canonical_action(lemma: str) -> str:
    """The canonical action of a verb's lemma, or the lemma itself."""
    return CANONICAL.get(lemma, lemma)
