"""Surface forms of the sentences of early_story.py, and the word lists of decoration that forms.py shares.

Slots: {A} {B} people ({A} at the start may be a pronoun), {o} an object in play ("kite" or "blue kite"), {new} a new object
("a small blue kite"), {p} a place, {m} an optional manner word, {w} a spot, the rest are free decoration.
"""

MANNERS = ("quietly quickly slowly happily carefully gently proudly kindly softly bravely gladly calmly boldly neatly politely "
           "shyly eagerly firmly lightly silently cheerfully suddenly warmly patiently").split()
SPOTS = ("under a bush|behind a stone|in the grass|near the gate|beside the path|under an oak|on a bench|by the wall|on the ground|"
         "in a corner|on the steps|next to a fence|under a table|behind a cart|in the shade|between two rocks").split("|")
SKIES = ("bright cold windy sunny rainy foggy warm grey quiet mild golden frosty clear cloudy stormy fresh").split()
TIMES = "morning|afternoon|day|evening|winter day|summer day|spring morning|autumn evening".split("|")
DAYS = "morning afternoon day evening".split()
NATURE = "wind sky sun water grass air rain light road river earth mist".split()
MOODS = "soft cool clean still strong pale deep sweet dark calm sharp fine wild dry gentle wet".split()
BIRDS = "bird robin crow swan bee dove swallow beetle".split()
SOUNDS = "sang called rested waited danced turned moved slept".split()
FEELINGS = "happy tired proud hungry brave curious sleepy glad merry thirsty lucky shy".split()
TALK = "weather|harvest|moon|old days|new song|long winter|market|stars|great flood|coming feast|holiday|dinner|fair|races|games|wedding".split("|")

# kind -> forms. The kind decides what a sentence means; the form only how it reads.
FORMS = {
    "open": ["One {sky} {time}, {A} went to the {p}.", "On a {sky} {time}, {A} was at the {p}, {feeling} and {feeling2}.",
             "{A} {m}came to the {p} on a {sky} {time}.", "It was a {sky} {time}, and {A} was at the {p}.",
             "On a {sky} {time}, {A} {m}walked to the {p}."],
    "next": ["The next {day}, {A} and {B} met at the {p}.", "A week later, {A} and {B} {m}met at the {p}.",
             "On a {sky} {day}, {A} and {B} met at the {p}.", "Some days later, {A} and {B} were at the {p}."],
    "next_alone": ["The next {day}, {A} went to the {p}.", "A week later, {A} {m}walked to the {p}.",
                   "Some days later, {A} was at the {p}."],
    "meet": ["{B} was already there and felt {feeling}.", "{B} was waiting {w}.", "Soon {B} {m}came along.", "{B} {m}came to the {here} too.",
             "{B} was sitting {w}.", "Then {B} {m}came by.", "{B} stood {w}."],
    "find": ["{A} {m}found {new}.", "{A} found {new} {w}.", "{A} had brought {new}.", "{A} {m}showed {new} to {B}.",
             "{A} took {new} out of a bag."],
    "see": ["{A} saw {new} {w}.", "There was {new} {w}.", "{A} {m}pointed at {new} {w}."],
    "take": ["{A} {m}picked up the {o}.", "{A} {m}lifted the {o}.", "{A} took the {o}."],
    "give": ["{A} {m}gave the {o} to {B}.", "{A} {m}handed the {o} to {B}.", "{A} passed the {o} to {B}.",
             "\"You may have the {o},\" said {A} to {B}."],
    "get": ["{B} {m}took the {o} from {A}.", "{B} {m}got the {o} from {A}."],
    "drop": ["{A} {m}put the {o} down.", "{A} left the {o} {w}.", "{A} {m}laid the {o} {w}."],
    "walk": ["{A} and {B} {m}walked to the {p}.", "{A} and {B} {m}went to the {p}.", "{A} took {B} to the {p}."],
    "lets": ["\"Let us go to the {p},\" said {A}. So they {m}went to the {p}.",
             "\"Come with me to the {p},\" said {A} {m}. They went to the {p}."],
    "leave": ["{A} {m}went to the {p} alone.", "{A} {m}ran to the {p} alone."],
    "follow": ["{B} {m}followed {A} there.", "Soon {B} came to the {here} too."],
    "praise": ["\"What a {size} {o},\" said {A}.", "\"I like the {o},\" said {A} {m}.", "{A} {m}looked at the {o}."],
    "hold": ["\"I have the {o},\" {m}said {A}.", "{A} {m}held the {o}.", "{A} {m}cleaned the {o}.", "{A} showed the {o} to {B}."],
    "where": ["\"Where is the {o}?\" asked {B}. \"I have it,\" said {A}.", "\"Who has the {o}?\" {m}asked {B}. \"I do,\" said {A}."],
    "colour": ["The {noun} was {colour}.", "It was plain to see that the {noun} was {colour}."],
    "nature": ["The {nature} was {mood}.", "The {nature} was {mood} and {mood2}.", "The {nature} felt {mood} that {day}.",
               "A {bird} {sound} {w}.", "A {bird} {sound} near the {here}."],
    "feel": ["{A} felt {feeling}.", "{A} was {feeling} and {feeling2}.", "{A} {m}laughed.", "{A} {m}sat down {w}.",
             "{A} {m}talked about the {talk}."],
    "both": ["{A} and {B} {m}talked about the {talk}.", "{A} and {B} {m}sat down {w}.", "{A} {m}told {B} about the {talk}.",
             "{A} and {B} {m}laughed.", "{A} {m}thanked {B}."],
    "home_with": ["In the end, {A} {m}took the {o} home.", "{A} {m}went home with the {o}.", "At last {A} {m}carried the {o} home.",
                  "{A} was {feeling} and took the {o} home."],
    "home": ["Then {A} {m}went home.", "{A} was {feeling} and went home.", "At last {A} {m}went home.",
             "{A} {m}went home, {feeling} and {feeling2}."],
    "dream": ["That night, {A} dreamed of the {o}.", "That night, {A} dreamed of the {talk}.", "That night, {A} {m}slept.",
              "{A} slept well, and the {nature} was {mood}."],
}

CHOICES = {"sky": SKIES, "time": TIMES, "day": DAYS, "w": SPOTS, "nature": NATURE, "mood": MOODS, "mood2": MOODS, "bird": BIRDS,
           "sound": SOUNDS, "feeling": FEELINGS, "feeling2": FEELINGS, "talk": TALK}

# A manner word is followed by a space except before a full stop.
FORMS = {kind: [form.replace("{m}", "{m} ").replace("{m} .", "{m}.") for form in forms] for kind, forms in FORMS.items()}
