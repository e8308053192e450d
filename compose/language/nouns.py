"""Nouns by what they are in a film: actors, scenery, things, weather, talk."""

from __future__ import annotations

from orbit4d.compose.language.inflect import plural
from orbit4d.compose.language.tables import word_set, words_in

#: Beings and vehicles that move by themselves; first those that the built-in libraries know.
ACTORS = word_set(
    "fox horse wolf deer bull donkey cow stag husky alpaca dog cat crab spider rat frog snake bee "
    "wasp shark "
    "dolphin whale fish goldfish piranha ray swordfish dinosaur apatosaurus parasaurolophus "
    "stegosaurus "
    "triceratops velociraptor bird eagle lion tiger bear rabbit mouse pig sheep goat chicken duck "
    "elephant "
    "monkey turtle dragon puppy kitten pony man woman person human boy girl child knight soldier "
    "astronaut "
    "alien robot mech mechanic clown wizard astrologer skeleton character enemy monster zombie "
    "ninja pirate "
    "king warrior barbarian lumberjack dancer farmer chef tank truck car plane drone shiba inu "
    # animals
    "penguin unicorn zebra giraffe hippo hippopotamus rhino rhinoceros camel llama leopard panther "
    "cheetah "
    "jaguar lynx cougar puma hyena jackal coyote dingo badger otter beaver squirrel chipmunk "
    "hamster gerbil "
    "hedgehog porcupine raccoon skunk weasel ferret mole bat gorilla chimpanzee ape orangutan "
    "baboon lemur "
    "panda koala kangaroo wallaby sloth armadillo anteater boar hog piglet calf lamb foal colt "
    "mare stallion "
    "buffalo bison ox moose elk reindeer caribou gazelle antelope ibex doe fawn buck cub pup hound "
    "poodle "
    "corgi beagle labrador terrier bulldog retriever shepherd dalmatian chihuahua kitty hare bunny "
    "rooster "
    "hen chick turkey goose gosling duckling swan pigeon dove crow raven magpie sparrow robin owl "
    "hawk falcon "
    "vulture parrot peacock ostrich emu flamingo heron stork pelican seagull gull puffin toucan "
    "hummingbird "
    "woodpecker albatross penguin lizard gecko iguana chameleon crocodile alligator caiman cobra "
    "python viper "
    "tortoise toad newt salamander tadpole octopus squid jellyfish starfish lobster shrimp prawn "
    "seal walrus "
    "orca manta stingray eel salmon trout tuna cod carp koi clownfish anglerfish lionfish seahorse "
    "angelfish "
    "catfish pufferfish ant beetle ladybug butterfly moth dragonfly mosquito grasshopper cricket "
    "mantis "
    "caterpillar worm snail slug scorpion centipede bumblebee hornet firefly cockroach insect bug "
    "animal "
    "creature beast pet mammal reptile mammoth raptor t-rex trex tyrannosaurus brontosaurus "
    "pterodactyl "
    "brachiosaurus ankylosaurus dino sabertooth yeti bigfoot griffin griffon phoenix hydra pegasus "
    "centaur "
    "minotaur mermaid kraken wyvern goblin orc troll ogre elf dwarf gnome fairy giant demon devil "
    "angel ghost "
    "vampire werewolf mummy witch sorcerer sorceress mage warlock druid golem cyclops gargoyle imp "
    "slime "
    # people
    "guy lady gentleman kid baby toddler teenager teen adult mother father mom dad brother sister "
    "grandmother "
    "grandfather grandma grandpa granny uncle aunt friend neighbour neighbor couple crowd hero "
    "heroine villain "
    "princess prince queen emperor empress samurai archer swordsman gladiator viking cowboy "
    "cowgirl sheriff "
    "bandit thief burglar spy assassin guard guardian captain sailor pilot driver rider cyclist "
    "biker jockey "
    "skater skier surfer swimmer runner jogger athlete gymnast boxer wrestler fighter footballer "
    "player golfer "
    "acrobat juggler magician jester mime actor actress singer musician guitarist drummer pianist "
    "violinist "
    "conductor ballerina performer teacher student pupil professor scientist engineer doctor nurse "
    "surgeon "
    "dentist policeman policewoman officer cop detective firefighter fireman paramedic judge "
    "lawyer monk nun "
    "priest pope shaman cook baker butcher waiter waitress barista bartender gardener fisherman "
    "hunter miner "
    "builder worker carpenter blacksmith painter artist sculptor photographer writer poet "
    "librarian cashier "
    "shopkeeper merchant trader businessman businesswoman boss secretary tourist traveller "
    "traveler hiker "
    "climber explorer adventurer diver spaceman cosmonaut cyborg android scarecrow snowman mascot "
    "puppet doll "
    "mannequin figure figurine stickman ranger shepherdess milkmaid peasant noble lord count baron "
    "servant "
    "matador bullfighter skateboarder snowboarder superhero caveman cavewoman mountaineer goalkeeper "
    "cheerleader beekeeper commuter fisher tribesman woodcutter falconer "
    "squire herald bard hobbit sasquatch leprechaun pixie nymph sphinx plumber electrician horseman "
    "horsewoman apprentice twin postman mailman journalist scuba-diver "
    "wombat platypus echidna opossum mink guinea-pig vole yak impala gnu wildebeest bobcat ocelot okapi "
    "tapir warthog dromedary mule sea-lion manatee narwhal porpoise crane pheasant quail jay finch canary "
    "cockatoo kingfisher condor tern rattlesnake locust flea millipede leech clam oyster pike herring pug "
    "dachshund greyhound collie rottweiler ewe cattle heifer mastodon vixen "
    "butler maid bride groom santa beggar hermit refugee protester trooper marine general "
    "commander gunner "
    # vehicles
    "lorry van bus minibus taxi cab jeep suv limousine convertible motorcycle motorbike bike "
    "bicycle scooter "
    "moped tricycle unicycle tractor bulldozer excavator forklift ambulance firetruck train "
    "locomotive tram "
    "trolley wagon cart carriage chariot sled sleigh boat ship yacht sailboat submarine canoe "
    "kayak raft ferry "
    "speedboat airplane aeroplane aircraft jet helicopter chopper biplane glider balloon blimp "
    "zeppelin rocket "
    "spaceship spacecraft starship ufo saucer rover hovercraft vehicle automobile pickup milktruck "
    "racecar "
    "mecha automaton bot quadcopter turret bouncer skull flyer"
)
#: Words for several or any actors: announced first, named later.
GENERIC = word_set(
    "character person people human animal creature figure friend performer dancer actor being "
    "player kid child "
    "pet monster enemy vehicle fighter guest individual musician beast athlete neighbour neighbor "
    "adventurer"
)
SCENES = word_set(
    "forest beach meadow field stage plain snow ice park moon lake river sea street road city "
    "village jungle "
    "barn canyon desert hill mountain cave kitchen livingroom room garden arena castle island "
    "stadium farm villa "
    "swamp "
    "ocean pond stream creek brook waterfall shore coast seashore bay lagoon reef harbour harbor "
    "port dock pier "
    "woods wood woodland grove orchard vineyard savanna savannah prairie steppe tundra glacier "
    "valley cliff "
    "ravine dune oasis wilderness grassland pasture lawn backyard yard courtyard patio terrace "
    "balcony rooftop "
    "town alley avenue boulevard highway motorway plaza square market marketplace bazaar mall shop "
    "store "
    "supermarket restaurant cafe bar pub diner bakery hotel lobby hall hallway corridor office "
    "classroom school "
    "library museum gallery theatre theater cinema church cathedral temple shrine mosque monastery "
    "palace "
    "fortress dungeon tower ruins ruin graveyard cemetery house home cabin cottage hut mansion "
    "apartment "
    "bedroom bathroom basement attic garage workshop factory warehouse laboratory lab hospital gym "
    "gymnasium "
    "pool playground schoolyard court rink track racetrack circus fairground carnival zoo aquarium "
    "station "
    "airport runway spaceport spaceship bridge tunnel sewer mine quarry volcano crater space "
    "galaxy planet mars "
    "saturn earth world sky heaven underwater countryside landscape scenery seabed seafloor "
    "battlefield "
    "ballroom nightclub club disco saloon tavern inn camp campsite jungle rainforest wasteland "
    "metropolis "
    "skyline suburb neighbourhood neighborhood parking-lot riverbank hilltop mountaintop clearing "
    "trail path "
    "sidewalk pavement lane driveway crosswalk crossroads intersection greenhouse stable ranch "
    "corral paddock "
    "moor marsh bog wetland shoreline sand grass greenery ballpark pitch ring dojo catwalk podium "
    "glade gorge wharf marina cellar barnyard iceberg cornfield hayfield wheatfield heath fjord plateau "
    "summit ridge hillside mountainside roadside riverside lakeside seaside dancefloor "
    "moonscape floor ground set studio backdrop environment place roof"
)
#: Things that stand around: landmarks, furniture, what actors hold.
THINGS = word_set(
    "tree bush rock stone boulder log fence wall gate door window chair table sofa couch armchair "
    "bed bench "
    "desk lamp shelf carpet rug mat box crate barrel chest bucket basket bag sack suitcase "
    "backpack ball "
    "football basketball hoop rope ladder stair stairs staircase step pillar column statue "
    "fountain well flag "
    "pole post lamppost streetlight sign sword shield axe bow arrow spear hammer gun rifle pistol "
    "cannon bomb "
    "knife fork spoon plate cup glass bottle pot pan book letter paper newspaper phone computer "
    "laptop screen "
    "camera-stand guitar drum piano violin microphone umbrella hat cap fedora helmet crown mask "
    "glasses "
    "sunglasses scarf jacket coat shirt dress skirt suit trousers pants jeans shoe boot sandal "
    "glove belt tie "
    "cape cloak robe armor armour costume uniform clothes clothing tail wing horn leg arm hand "
    "head nose ear "
    "eye hair beard mane fur shell flower rose plant leaf branch root mushroom apple banana carrot "
    "cake bread "
    "pizza food meal candle torch lantern fire campfire bonfire fireplace oven stove fridge sink "
    "bathtub "
    "shower toilet mirror clock bell tent haystack hay bale trough puddle mud hole pit cactus "
    "coral seaweed "
    "shipwreck treasure coin jewel gem diamond crystal balloon kite swing slide seesaw sandbox "
    "trampoline "
    "hurdle ramp cone finish-line net goal target platform pedestal throne altar coffin tombstone "
    "grave cage "
    "trap lever machine engine wheel tyre tire mow house building skyscraper church windmill "
    "lighthouse "
    "obstacle corner edge side top bottom lumber timber wood bamboo stick staff wand potion "
    "cauldron broom mop "
    "vacuum ice-cream skateboard surfboard ski skis board paddle oar anchor chain key lock map "
    "scroll toy "
    "teddy doll blanket pillow curtain painting picture-frame vase christmas-tree snowball pumpkin "
    "bone "
    "stroller pram circle zigzag curve loop spiral arc puddle branch football "
    "stump trunk nest egg feather web leash collar saddle bridle cart-wheel mailbox hydrant bin dumpster"
)
#: "a girl in a red dress": worn, so no place.
CLOTHES = word_set(
    "hat cap fedora helmet crown mask glasses sunglasses scarf jacket coat shirt dress skirt suit "
    "trousers pants "
    "jeans shoe boot sandal glove belt tie cape cloak robe armor armour costume uniform clothes "
    "clothing gown "
    "tuxedo kimono tutu sweater hoodie vest apron pajamas pyjamas swimsuit spacesuit outfit gear"
)
#: Parts of the body: "its tail wagging", "on his shoulder".
BODY = word_set(
    "tail wing arm leg head eye ear mane hair fur hand foot paw hoof horn shoulder back neck nose "
    "face mouth beak "
    "belly chest tongue finger beard claw feather fin trunk lap knee"
)
#: Time of day, weather, season: words of the scene, never actors.
WEATHER = word_set(
    "dawn dusk sunrise sunset daybreak nightfall twilight night midnight noon midday morning "
    "evening afternoon "
    "day daytime daylight nighttime spring summer autumn winter rain rainstorm drizzle snowstorm "
    "snowfall "
    "blizzard storm thunderstorm thunder lightning fog mist haze wind breeze hurricane tornado sun "
    "sunshine "
    "sunlight moonlight starlight moonrise cloud star sky rainbow weather season christmas "
    "halloween easter "
    "hour january february april may june july august september october november december monday "
    "sunday "
    "weather temperature downpour frost heat gloom darkness light candlelight spotlight"
)
#: Scenery that moves by itself and is no actor.
SCENERY = word_set(
    "wave leaf wind rain snow cloud sun moon star light shadow smoke fog mist dust water air sand "
    "fire flame "
    "lightning thunder tide surf current foam storm breeze petal snowflake raindrop spark ember "
    "grass tree "
    "branch reed curtain music sound noise time silence atmosphere mood season nature color colour"
)
#: What speakers call the film itself.
TALK = word_set(
    "video clip film movie animation footage sequence gif render rendering cartoon story picture "
    "image photo "
    "idea moment thing something scene shot view frame reel short trailer take vid loop simulation "
    "depiction "
    "illustration visualization visualisation concept prompt request project presentation example "
    "demo result "
    "version output style quality resolution"
)
#: Whom speakers bring up; no actors where they like, want or ask for something.
RELATIVES = word_set(
    "son daughter mother father mom mum dad brother sister wife husband kid child boss friend "
    "teacher grandma "
    "grandpa grandmother grandfather niece nephew cousin uncle aunt family team client colleague "
    "class student "
    "boyfriend girlfriend partner nan granny"
)
#: Actors that are a place where somebody is on, in, over or under them.
VESSELS = word_set("ship boat yacht sailboat raft ferry submarine canoe kayak train galleon barge")
#: Actors that cannot walk.
SWIMMERS = word_set(
    "fish goldfish shark dolphin whale piranha ray swordfish eel tuna salmon carp orca jellyfish"
)
#: Words for several after their noun: "a wolf pack".
PACKS = word_set("herd flock pack crowd swarm gang army horde group shoal")
#: How many: quantity words before "of".
GROUPS = {
    "couple": 2,
    "pair": 2,
    "duo": 2,
    "trio": 3,
    "quartet": 4,
    "few": 3,
    "some": 3,
    "several": 3,
    "handful": 3,
    "dozen": 12,
    "many": 5,
    "herd": 5,
    "flock": 5,
    "school": 5,
    "pack": 5,
    "group": 5,
    "crowd": 5,
    "swarm": 5,
    "bunch": 5,
    "gang": 5,
    "squad": 5,
    "crew": 5,
    "team": 5,
    "army": 5,
    "band": 5,
    "pride": 5,
    "troop": 5,
    "shoal": 5,
    "colony": 5,
    "family": 5,
    "lot": 5,
    "lots": 5,
    "horde": 5,
    "litter": 5,
    "pod": 5,
    "line": 5,
    "row": 5,
    "number": 5,
    "hundred": 100,
    "hundreds": 100,
    "thousand": 1000,
    "thousands": 1000,
    "dozens": 24,
    "million": 1_000_000,
    "millions": 1_000_000,
    **dict.fromkeys(
        words_in(
            "fleet squadron battalion platoon convoy caravan procession parade gaggle brood clutch murder "
            "cluster troupe posse mob legion column drove bevy host bundle"
        ),
        5,
    ),
}
NOUNS = ACTORS | SCENES | THINGS | CLOTHES | BODY | WEATHER | SCENERY | TALK | RELATIVES
#: Form in lower case -> (singular, is it a plural).
NOUN_FORMS: dict[str, tuple[str, bool]] = {}
for _noun in sorted(NOUNS):
    NOUN_FORMS[_noun] = (_noun, False)
for _noun in sorted(NOUNS):
    NOUN_FORMS.setdefault(plural(_noun), (_noun, True))
NOUN_FORMS |= {"people": ("person", True), "folks": ("person", True), "mechs": ("mech", True)}
for _noun in ("dwarf", "octopus", "buffalo", "flamingo", "hippopotamus"):
    NOUN_FORMS.setdefault(_noun + ("s" if _noun[-1] != "s" else "es"), (_noun, True))
