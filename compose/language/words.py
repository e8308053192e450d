"""Closed word classes: articles, pronouns, prepositions, numbers, sizes, manner, and everyday adjectives."""

from __future__ import annotations

from orbit4d.compose.language.tables import word_set, words_in

ARTICLES = {"a", "an", "the", "this", "that", "these", "those", "another", "each", "every", "any", "either"}
POSSESSIVES = {"my", "your", "his", "her", "its", "their", "our", "whose"}
SUBJECTS = {"he", "she", "it", "they"}
OBJECTS = {"him", "her", "it", "them", "himself", "herself", "itself", "themselves"}
FIRST_PERSON = {"i", "we", "you", "me", "us", "i'd", "i'm", "i've", "i'll", "we'd", "we'll", "you'd", "let's"}
RELATIVE = {"which", "who", "that", "whom"}
AUXILIARIES = {
    *(
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "being",
        "am",
        "do",
        "does",
        "did",
        "has",
        "have",
        "had",
        "can",
    ),
    *("could", "will", "would", "shall", "should", "may", "might", "must", "gets", "got", "there's", "it's"),
    *("he's", "she's", "they're", "who's", "that's", "having"),
}
NEGATED_AUXILIARIES = {
    *(
        "isn't",
        "aren't",
        "wasn't",
        "weren't",
        "doesn't",
        "don't",
        "didn't",
        "can't",
        "cannot",
        "won't",
        "hasn't",
    ),
    *("haven't", "hadn't", "wouldn't", "shouldn't", "isnt", "arent", "doesnt", "dont", "never"),
}
#: Said for nothing in the film; not reported as unused.
FUNCTION_WORDS = {
    *ARTICLES,
    *POSSESSIVES,
    *SUBJECTS,
    *OBJECTS,
    *FIRST_PERSON,
    *RELATIVE,
    *AUXILIARIES,
    *NEGATED_AUXILIARIES,
    *("and", "or", "but", "nor", "not", "no", "then", "while", "as", "when", "where", "so", "if", "because"),
    *("of", "in", "on", "at", "to", "from", "by", "for", "with", "without", "into", "onto", "near", "behind"),
    *(
        "towards",
        "toward",
        "through",
        "across",
        "over",
        "under",
        "above",
        "below",
        "inside",
        "outside",
        "along",
    ),
    *(
        "around",
        "between",
        "past",
        "against",
        "off",
        "out",
        "up",
        "down",
        "away",
        "beside",
        "besides",
        "next",
    ),
    *(
        "there",
        "here",
        "both",
        "all",
        "also",
        "too",
        "very",
        "just",
        "only",
        "really",
        "quite",
        "some",
        "one",
    ),
    *(
        "other",
        "others",
        "who",
        "what",
        "how",
        "than",
        "about",
        "during",
        "until",
        "before",
        "after",
        "again",
    ),
    *(
        "together",
        "respectively",
        "front",
        "back",
        "please",
        "well",
        "another",
        "still",
        "even",
        "such",
        "own",
    ),
    *(
        "same",
        "like",
        "that's",
        "it's",
        "there's",
        "oh",
        "hey",
        "hi",
        "hello",
        "ok",
        "okay",
        "thanks",
        "thank",
    ),
    *("you're", "within", "upon", "beneath", "underneath", "among", "amongst", "amid", "meanwhile", "maybe"),
    *("more", "most", "s", "each", "himself", "later", "now", "first", "second", "finally", "afterwards"),
}
UNITS_TO_TWENTY = {
    word: n
    for n, word in enumerate(
        words_in(
            "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
            "fifteen sixteen "
            "seventeen eighteen nineteen twenty"
        )
    )
}
TENS = {
    word: 10 * n for n, word in enumerate(words_in("thirty forty fifty sixty seventy eighty ninety"), start=3)
}
NUMBERS = {**UNITS_TO_TWENTY, **TENS}
SIZES = {
    **dict.fromkeys(("tiny", "miniature", "teeny", "minuscule"), 0.25),
    **dict.fromkeys(("small", "little", "short"), 0.5),
    **dict.fromkeys(("big", "large", "tall"), 1.5),
    **dict.fromkeys(("huge", "giant", "gigantic", "enormous", "massive", "colossal"), 3.0),
}
MANNER = {
    **dict.fromkeys(("slowly", "slow", "leisurely", "sluggishly", "unhurriedly"), 0.5),
    **dict.fromkeys(
        ("quickly", "fast", "rapidly", "swiftly", "quick", "hurriedly", "speedily", "briskly"), 1.5
    ),
}
LENGTHS = {
    **dict.fromkeys(("m", "metre", "metres", "meter", "meters"), 1.0),
    **dict.fromkeys(("cm", "centimetre", "centimetres", "centimeter", "centimeters"), 0.01),
    **dict.fromkeys(("mm", "millimetre", "millimetres", "millimeter", "millimeters"), 0.001),
    **dict.fromkeys(("km", "kilometre", "kilometres", "kilometer", "kilometers"), 1000.0),
    **dict.fromkeys(("foot", "feet", "ft"), 0.3048),
    **dict.fromkeys(("inch", "inches"), 0.0254),
    **dict.fromkeys(("yard", "yards", "yd"), 0.9144),
}
#: Preposition -> what it does in a spec.
PREPOSITIONS = {
    "from": "from",
    "to": "to",
    "towards": "to",
    "toward": "to",
    "into": "to",
    "onto": "to",
    "in": "scene",
    "on": "scene",
    "upon": "scene",
    "through": "scene",
    "across": "scene",
    "inside": "scene",
    "within": "scene",
    "over": "scene",
    "above": "scene",
    "along": "scene",
    "at": "scene",
    "near": "near",
    "by": "near",
    "behind": "behind",
    "beside": "beside",
    "besides": "beside",
    "alongside": "beside",
    "under": "under",
    "underneath": "under",
    "beneath": "under",
    "below": "under",
    "around": "around",
    "past": "other",
    "between": "other",
    "with": "with",
    "of": "other",
    "against": "other",
    "for": "other",
    "like": "other",
    "about": "other",
    "during": "time",
    "off": "other",
    "among": "other",
    "amongst": "other",
    "amid": "scene",
    "down": "scene",
    "up": "scene",
    "without": "without",
    "via": "other",
    "after": "other",
    "before": "other",
    "outside": "scene",
    "throughout": "scene",
    "beyond": "behind",
    "opposite": "other",
    "until": "other",
}
#: Adjectives that are no part of what a noun alone would be missed for; helps to find where a phrase ends.
ADJECTIVES = word_set(
    "white black red blue green yellow orange pink purple brown grey gray golden silver dark "
    "bright colorful "
    "colourful old young new ancient modern baby cute lovely beautiful pretty ugly scary fierce "
    "angry happy sad "
    "lonely brave shy lazy sleepy tired hungry thirsty wet dry hot cold warm cool icy snowy sandy "
    "dusty muddy "
    "grassy rocky rainy foggy misty sunny cloudy stormy windy starry moonlit sunlit dim serene "
    "quiet calm "
    "peaceful busy empty crowded deserted abandoned magical mystical mysterious enchanted haunted "
    "cozy cosy "
    "simple plain wooden stone metal metallic steel iron rusty shiny sparkling fluffy furry hairy "
    "spotted "
    "striped wild tame domestic fat thin slim strong weak fast slow quick swift graceful elegant "
    "clumsy funny "
    "silly friendly gentle evil good bad great grand fine long wide narrow deep shallow high low "
    "steep flat "
    "round square soft hard heavy light mighty majestic royal medieval futuristic cyber electric "
    "robotic toy "
    "stuffed cartoon plastic paper glass crystal tropical arctic northern polar wooden gloomy vast "
    "endless "
    "open closed single lone whole entire other same different similar two-headed three-headed "
    "armored armoured "
    "female male adult real realistic lush dense thick busy narrow late early mid drunk injured "
    "wounded retired "
    "playful curious nervous proud elderly middle-aged bald blonde blond muscular skinny chubby "
    "tall cobbled "
    "cobblestone frozen leafy concrete asphalt dirt gravel marble main central rural urban "
    "suburban foreign "
    "alone nearby distant faraway native local famous rare common wise mad crazy dizzy noisy loud "
    "silent tiny "
    "little small big large huge giant gigantic enormous massive colossal miniature short "
    "overgrown neon dusky "
    "underwater glowing living dead undead fallen broken"
)
#: Words about the look of a film: content that the rules make nothing of.
QUALITY = word_set(
    "cinematic photorealistic realistic photoreal hyperrealistic 4k 8k hd uhd 1080p 720p detailed "
    "highly "
    "ultra masterpiece octane unreal engine stylized stylised lowpoly low-poly vivid dramatic epic "
    "lighting "
    "high-quality quality sharp focus bokeh slow-motion slowmotion award-winning volumetric hdr "
    "anime pixar "
    "disney style render vibrant stunning gorgeous breathtaking aesthetic moody lit resolution "
    "high-resolution "
    "60fps 24fps 30fps fps timelapse time-lapse black-and-white monochrome retro vintage noir"
)
#: Ordinary words that a spelling correction must not turn into a word of the tables.
ORDINARY = word_set(
    "snowing raining storming hailing drizzling snows rains whether fear face faces "
    "show shows shown showing place places time times thing things something someone somebody "
    "anything nothing "
    "everything way ways kind sort type lot lots part parts piece end ends beginning middle centre "
    "center side "
    "sides left right top bottom corner edge image video seconds second minute minutes hour hours "
    "long size "
    "usual normal please could would should want like love nice good great best better cool "
    "amazing awesome "
    "perfect birthday party present gift mind idea friend friends really actually kindly maybe "
    "perhaps where "
    "when while what which whose there their they them then than that this these those with "
    "without within "
    "about above across after again against along also always among another any because been "
    "before being below "
    "both down during each even ever every few from here him his how into just last later least "
    "less many more "
    "most much must near never next none not now off often once only onto other over own past same "
    "since some "
    "soon still such through together too toward towards under until upon very via well whole will yet "
    "respectively meanwhile suddenly finally quietly loudly happily sadly gently calmly carefully "
    "angrily "
    "gracefully majestically proudly peacefully silently softly wildly playfully nervously eagerly "
    "lazily "
    "steadily smoothly elegantly forward forwards backward backwards sideways upward upwards "
    "downward outside "
    "inside away apart aside ahead close closer far further camera shot angle view aerial wide "
    "medium follow "
    "zoom pan tilt track tracking drone eye bird birds circle circles zigzag curve line row "
    "straight shape "
    "speed pace full half twice thrice double triple tall high wide deep heavy fast slow shape "
    "number numbers "
    "color colour name named called made used using style look looks looking make makes made "
    "create generate "
    "start starts started starting begin begins finish start ends ending stays going goes comes "
    "gone feeling "
    "hair chair lane lanes plan plans pants chat chats form forms sort stag stags stage brow crown "
    "clown town "
    "bread beard board broad cold gold rain train brain plain grain main mane lead head bead meat "
    "seat heat "
    "grip trip strip ship chip whip shop stop step stem steam stream team dream cream scream sport "
    "spot spots "
    "pole poles hole holes whole hose nose rose roses those close closet house horses mouse moose "
    "goose loose "
    "hers tale tales tail tails sail sails mail nail pail rail wail hare hair hairs bare bear "
    "bears pear pears "
    "dear deer year years near gear fear tear wear share shape shade shake snake stake steak stack "
    "snack snap "
    "sit sits sat pit fit bit hit kit lit wit quit suit suits fruit juice"
)
#: Little words of other languages that English does not have: a prompt of them is refused.
FOREIGN = word_set(
    "der das und ein eine einen einem einer ist durch auf nicht dem le la les un une des dans et "
    "est sur avec "
    "el los las una con en y por para del il lo gli nel nella della che sono het een op van door "
    "de og och "
    "jest na w przez su sobre pelo pela um uma não está"
)
ENGLISH = {"the", "a", "an", "is", "are", "and", "with", "of", "to", "two", "three", "through", "while", "at"}
