"""Ordinary English words that are a letter away from words of films, and are not misspelt for that."""

from __future__ import annotations

from orbit4d.compose.language.inflect import plural, verb_forms
from orbit4d.compose.language.tables import word_set

#: Verbs, known in all their forms.
_VERBS = word_set(
    "adventure apply arise attach avenge ban base bathe beat bet bid blot boast bond boom boost bore "
    "bother brew bribe bring buckle budge burst buy cap care cash cast cater cause cease challenge change "
    "charge charm charter chase cheat check cite claim clear click clip clone close code commute compute "
    "cope cost crack crown cure curl dare date deal decide defend depend deport derive dine drift drip "
    "dry dwell ease edit err exist expect express fade fail fake fare fear feed file fill find fit flex "
    "fling float flood forge form found fry fuel gain gaze glaze glue gong grade grant grate grieve grind "
    "groom grow guess guide hail hand hang harm haunt heal heat hint hire hit host hurt infect inject "
    "insert issue jest join judge kit lack lag last lead leak lease lend lick light like limp line link "
    "list live lock long loot lose lure mash match mate matter mean mend mess mind mine miss mow nail "
    "name need owe own pad page pair park pass paste patch pave pay peak peel pin pitch place plan plate "
    "plead please plot plug poke pose post pound preen prefer prey print process project protest prove "
    "pulse punch pursue push race rack rage raid rain range rate rave reach read refine refuse refute "
    "regain reign rent repair retain retrieve reuse revise rig ring rip risk rob rot rub ruin rule rush "
    "sail save scare score scout seal search seat see seed seek seem sell serve set settle shape share "
    "shave shed shift ship shop shore shut side sign simmer sin sip skill skim slam slice slip slot slow "
    "smash smell snap snow soak solve sort sound spare speak spell spend spice splash split spoil spot "
    "stack stage stain stake stalk stall stamp stand staple star stare starve state stay steam stick stir "
    "stock store strain strap stray stretch strike string strip strive stroke stun suck suffer suit surge "
    "swap sway swear sweat sweep swell tack tag talk tan tape taste teach tear tease tempt tend test "
    "thank thread tick tie till tip toast toll top toss touch tour tout trace track trade trail train "
    "treat trend trick trim trust tuck tune twist use vary view vote wage wait want warm warn warp wash "
    "waste watch wave wax weave wed weigh win wind wipe wish wrap write yell yield"
)
#: Nouns, known in both numbers.
_NOUNS = word_set(
    "able-seaman alley ally anchor angel angle ant area art ash aunt badge bait bale ballad band bank "
    "banker bar bard barn base bass bath bead beak beam bean beater bell bench berry bit bite blade blast "
    "bloc block blood blot boar body bolt bond bone book boost boot bore bowl brand breach bread break "
    "breast breath breed brick bride brook brother brow brush bucket bud bulk bull bun bunk bus butter "
    "button cable cafe cake call cancer candle cane canoe cap cape car carbon care cart case cash cast "
    "caste castle cattle cause ceiling cell cellar cent center centre chain chair chalk chance change "
    "chapter charge charger charm chart check cheek cheer cheese chess chest chief chin chip choice chord "
    "circuit clan clasp class clay clip clock cloth cloud clove club clue coach coal coast code coffee "
    "cold colony colour column concept concert cone copper cord core corn cost cotton couch count coupe "
    "court cove cover crack craft crane cream crease credit crest crew crime crop crow cube cue cup cure "
    "curse curve custom cut damage danger darling dart data date deal death debt decade deck decree "
    "defence degree den desert dessert detail device diet dinner dirt disc dish ditch dock door dose dot "
    "doubt dove drain draw dream dress drift drill drink drop drug dusk dust duty ear earth ease edge "
    "effect effort end energy error event exit eye face fact factor factory fairy faith fall fame family "
    "fan fare fate father fault feast feature fee fellow fence fever fiber field fig figure file film fin "
    "finch fire fist flag flame flat flight flood floor flour flow flute foam foe fold folk food fool "
    "force foreman forest fork form fort fortune frame friend fringe front frost fruit fuel fund fur gain "
    "galley gallon game gang gap garage garbage gate gear gem genome germ gift glance glove glow glue "
    "goal goat gold gong good grace grade grain grant grape graph grass grave gravel grease grid grief "
    "grip groove ground group guard guess guest guide gulf gun gust hall ham hand harm harp hat haven hay "
    "haze heap heart heat heel height heir herb hero heroin hill hint hip hole home honey hood hook hope "
    "horde host hour hunger hunt hut ice idea ideal image inch ink inland inlet insect insert iron island "
    "item ivy jade jail jam jar jaw jean job joint joke joy jug juice keel key kid kin kiss kit knot "
    "label lace lack lad lake lamb lamp land lane lap lash law lawn lawyer layer lead league leash "
    "leather lemon lens lesson letter level lid life light line link lip list liter litre load loaf loan "
    "local lock log loop loss lot love luck lump lunch lung luxury machine magic maid mail main male mall "
    "mane manner mantra map marble march mark market marsh mask mass mast master mat match mate matter "
    "maze meal means meat medal melody member memory mess metal method mile milk mill mind mine minor "
    "mint minute mist mix mode model mole moment mood moss moth motion motive mould mount mouth move mug "
    "muscle muse music nail name nap neck nerve net news niece night nod noise noon note novel nut oak "
    "oath object ocean odour offer office oil olive onion option oral orange orbit order organ oven owl "
    "owner ox pack pad page pain paint pair palate palm pan pane panel paper parade parcel parent parish "
    "park part party pass past paste patch path patient patron pattern pause paw pawn pea peace peach "
    "peak pearl pedal peer pen penny people pepper petal petrol phase phone piano pie piece pier pill "
    "pilot pin pine pint pipe pit pitch pitcher place plain plan plane plank plant plaster plate play "
    "plea plot plough plug plum pod poem point pointer pole pond pool pope porch port portion pose post "
    "posture pot power prayer price pride prince printer prize processor producer profession profile "
    "profit prop pulse puppet purple purse quest queue quiz rabbi race rack racket raft rage raid raider "
    "rail rain ram ramp range rank rate ratio ray razor reader reason recipe record refuge relief rent "
    "rest result reward rhyme rhythm rib rice ride ridge ring riot rise risk rite rival river road rod "
    "role roof room root rope rose roster rotor round route row rug rule runaway rust sage sake salad "
    "sale salon salt sample sand sash sauce scale scandal scar scarf scene scent school science scissors "
    "scope score scorpion scout screw script seal season seat secret section seed self sense series set "
    "shade shaft shape share shark shed sheet shelf shell shield shift shin shine shore shot shower "
    "shuttle side sigh sight sign silk silver sin singer sink sinner sister site size skill skin skirt "
    "slab slave sleeve slice slope slot slum smell smile smoke snack soap sock soda sofa soil sole son "
    "song sort soul sound soup source space spade spark spear species speech speed spell spice spike "
    "spirit spite spoon sport spot spring spy square stable stack staff stage stain stair stake stamp "
    "stand staple star start state station status steak steam steel stem step stew sting stitch stock "
    "store storm story stove strand straw streak stream street stress strife strike string strip stripe "
    "stroke stud study stuff style sugar suit sum sunset surface swarm sweat swing table tablet tail tale "
    "talent tap target task taste tax tea team tear temper temple ten tension tent term test text theme "
    "theory thing thorn thought thread threat throat throne thumb tick tide tie tile timber time timer "
    "tin tip tire title toast toe tomb ton tone tongue tool tooth top topic torch toss total touch tour "
    "towel town trace track tract trade trail trainer trait traitor trap tray treat trench trend trial "
    "tribe trick trip troop truth tub tube tune turn twig twin type union unit urge use vase veil vein "
    "verb verse vest vet vice view villager vine vision visit voice vote wage waist war watch wave wax "
    "week weight whale wheat wheel whip whole widow wig will winner wire wish wit woe wood wool word work "
    "worm wound wrap wrist yard year yoga zone"
)
#: Words of one form.
_OTHERS = word_set(
    "able almost alone already anyway anywhere apart arches aside automation bare beyond bing bitter "
    "blind bold boring born bran brief broad canon carp certain cheap chic chubby clan clever close "
    "common copper crooked crude cruel dank deaf dear decent dim ding docs due dues easier east easy "
    "eater eight entire equal everywhere evil exact excited exciting express extra faint fair fairly "
    "farther fellow fewer fierce fine finer finnish firm flaming flawed fleeting fling fond foreman "
    "former fresh frozen fuller further gilded glad good grand grave greater greek green grim gross "
    "growing guilty halfway handsome happy hard harsh heavy hers himself hollow holy honest hoover huge "
    "humble idle inner instead jackass jealous keen kind known lame large last later lazy leash least "
    "lesser level lied likely live lively long loose lost loud lucky mad main male many mature merry "
    "midway mild minor mixed mobile modest molten money mono moral nasty naval near neat nice nigh nine "
    "noble normal nowhere numb odd odor other ours outer own packing pale pest pheasant plain pleasant "
    "plenty plus polite polo poor proper pure quick quiet rare rather raw ready real rear recent rhino "
    "rich rife ripe rough round rude rural sacred sad safe same sane scared seldom selves senior seven "
    "severe shallow sharp sheer shy sick silent simple single six slender slim slower sly smart snug "
    "sober soft sole solid some somewhere soon sore sorry sour spare spelt spent stale steep stiff still "
    "strange strict stuck sturdy sturgeon subtle such sudden super supreme sure swift tame tang tart "
    "teenage tens tense thee thick thin thorough thou though three through tidy tight ting tired torn "
    "total tough toxic trans treble twice ugly unless upper upset urban usual vague vain valid vast vital "
    "vivid wasted weak weary weird well wicked wide wild wise worse worst worth wrong young yours"
)


def _forms() -> frozenset[str]:
    found = set(_OTHERS)
    for verb in _VERBS:
        found |= {verb, *verb_forms(verb)}
    for noun in _NOUNS:
        found |= {noun, plural(noun)}
    return frozenset(found)


#: All of them in lower case.
ORDINARY_FORMS: frozenset[str] = _forms()
