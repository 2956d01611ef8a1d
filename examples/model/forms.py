"""Surface forms of story sentences, shared by the generator (story.py) and the checker (checker.py).

Slots: {A} {B} people, {H} who holds the thing or speaks next, {O} the other one, {D} either, {o} the thing ("kite" or
"blue kite"), {new} a thing that comes into the story ("a small blue kite"), {p} a new place, {here} the present one, {m} a manner
word, {w} a spot; the others are free decoration. A scene keeps one rule: who holds the thing is the person named last.
"""

from early_forms import BIRDS, DAYS, FEELINGS, MANNERS, MOODS, NATURE, SKIES, SPOTS, TALK, TIMES
from world import FOODS, PETS

ACTS = "slept rested waited turned moved called sat sang".split()
TOPICS = TALK + FOODS
ANIMALS = [pet for pet in PETS if pet != "owl"]

# kind -> forms. The kind decides what a sentence means; the form only how it reads.
FORMS = {
    "open": ["One {sky} {time}, {A} went to the {p}.", "On a {sky} {time}, {A} was at the {p}, {feeling} and {feeling2}.",
             "{A} {m} came to the {p} on a {sky} {time}.", "It was a {sky} {time}, and {A} was at the {p}.",
             "On a {sky} {time}, {A} {m} walked to the {p}."],
    "next": ["The next {day}, {A} and {B} {m} met at the {p}.", "A week later, {A} and {B} {m} met at the {p}.",
             "On a {sky} {time}, {A} and {B} {m} met at the {p}.", "Some days later, {A} and {B} {m} met at the {p}.",
             "It was a {sky} {time}, and {A} and {B} were at the {p}."],
    "meet": ["{B} was already there and felt {feeling}.", "{B} was {m} waiting {w}.", "Soon {B} {m} came along.",
             "{B} was {m} sitting {w}.", "Then {B} {m} came by.", "{B} {m} stood {w}.", "{B} was there too, {feeling} and {feeling2}."],
    "find": ["{H} {m} found {new}.", "{H} found {new} {w}.", "{H} had {m} brought {new}.", "{H} {m} lifted {new}.",
             "{H} {m} picked up {new}.", "{H} had {new} and was {feeling}."],
    "hold": ["{H} {m} held the {o}.", "{H} {m} held the {o} {w}.", "{H} {m} cleaned the {o}.", "{H} {m} cleaned the {o} {w}.",
             "{H} {m} looked at the {o}.", "{H} held the {o} and felt {feeling}.", "{H} sat {w} with the {o}.",
             "\"I like the {o},\" {m} said {H}.", "\"I have the {o},\" {m} said {H}.", "{H} {m} lifted the {o}."],
    "feel": ["{H} was {feeling} and {feeling2}.", "{H} {m} sat down {w}.", "{H} {m} laughed.", "{H} {m} looked at the {nature}.",
             "{H} {m} talked about the {talk}.", "{H} {m} rested {w}.", "{H} felt {feeling} and {feeling2}.",
             "{H} {m} thought about the {talk}."],
    "other": ["{O} {m} thanked {H}.", "{O} {m} looked at {H}.", "{O} {m} told {H} about the {talk}.", "{O} {m} asked {H} about the {talk}.",
              "{O} was {feeling} and {m} thanked {H}.", "{O} {m} sat down beside {H}."],
    "give": ["{H} {m} gave the {o} to {O}.", "{H} {m} handed the {o} to {O}.", "{H} {m} passed the {o} to {O}.",
             "{H} gave the {o} to {O}, who was {feeling}.", "{H} handed the {o} to {O}, who was {feeling}.",
             "{H} passed the {o} to {O}, who felt {feeling} and {feeling2}."],
    "walk": ["{O} and {H} {m} walked from the {here} to the {p}.", "{O} and {H} {m} went from the {here} to the {p}.",
             "{O} and {H} {m} ran from the {here} to the {p}."],
    "they_walk": ["They {m} walked from the {here} to the {p}.", "They {m} went from the {here} to the {p}.",
                  "They {m} ran from the {here} to the {p}."],
    "both": ["They {m} talked about the {talk}.", "They {m} sat down {w}.", "They were {feeling} and {feeling2}.",
             "They {m} looked at the {nature}.", "They {m} rested {w}.", "They {m} laughed about the {talk}."],
    "colour": ["The {noun} was {colour}.", "The {noun} was {colour}, and {H} was {feeling}."],
    "nature": ["The {nature} was {mood}.", "The {nature} was {mood} and {mood2}.", "The {nature} felt {mood} that {day}.",
               "A {bird} {sound} {w}.", "A {bird} {sound} near the {here}.", "A {pet} {act} {w}.", "A {pet} and a {bird} {act} {w}.",
               "A {pet} {act} near the {here}."],
    "close": ["In the end, {H} {m} took the {o} home.", "At last {H} {m} carried the {o} home.", "{H} {m} went home with the {o}.",
              "{H} was {feeling} and took the {o} home."],
    "leave": ["Then {O} {m} went home.", "{O} {m} ran home, and the {nature} was {mood}.", "{O} {m} went home, {feeling} and {feeling2}.", "{O} was {feeling} and {m} went home."],
    "dream": ["That night, {D} dreamed of the {o}.", "That night, {D} {m} dreamed of the {talk}.", "That night, {D} dreamed of the {o} and the {talk}.",
              "{D} {m} slept, and the {nature} was {mood}."],
}

CHOICES = {"sky": SKIES, "time": TIMES, "day": DAYS, "w": SPOTS, "nature": NATURE, "mood": MOODS, "mood2": MOODS, "bird": BIRDS,
           "sound": ACTS, "act": ACTS, "feeling": FEELINGS, "feeling2": FEELINGS, "talk": TOPICS, "m": MANNERS, "pet": ANIMALS}
