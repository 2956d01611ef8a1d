"""The closed world of the small model: the village of Willowmere, its people and what is true about them.

Every fact follows from WORLD_SEED alone; stories move objects around but never change these facts.
"""

import random

WORLD_SEED = 20
VILLAGE = "Willowmere"

WOMEN = "Ada Bella Clara Daisy Edith Flora Greta Hazel Iris Julia Kitty Lily Mabel Nora Olive Poppy".split()
MEN = "Adam Basil Conrad Dan Edgar Felix George Henry Ivan Jasper Karl Leo Max Ned Oscar Peter".split()
PEOPLE = WOMEN + MEN

PLACES = ("mill pond bridge barn market school tower orchard harbour garden forge chapel meadow cave well bakery "
          "library stable inn windmill quarry ferry station beach hill museum theatre farm dock forest square lighthouse").split()
JOBS = ("baker miller teacher farmer fisher smith doctor painter tailor carpenter gardener shepherd sailor weaver potter cook "
        "nurse hunter singer writer mason barber cobbler brewer driver guard clerk judge dancer tinker grocer printer").split()
PETS = "cat dog goat pony duck goose parrot rabbit turtle hen lamb fox owl mouse frog hedgehog".split()
FOODS = "soup bread cheese honey plums apples pears cake porridge nuts berries fish pancakes carrots beans jam".split()
COLOURS = "red blue green yellow white black brown purple".split()

OBJECTS = ("kite drum lantern basket bell book boat bottle bowl box brush bucket button candle chain clock coin comb crown cup "
           "doll feather flag flute hammer hat horn jar key ladder lamp letter map mirror necklace needle pipe ring rope "
           "saddle scarf shell shovel spoon stick trumpet umbrella whistle").split()
SIZES = "small big tiny huge old new shiny dusty heavy light round pretty".split()


def pronoun(name):
    return "she" if name in WOMEN else "he"


class Facts:
    """Who lives near which place, does which job, and so on; homes, jobs and friends are one to one."""

    def __init__(self, seed=WORLD_SEED):
        rng = random.Random(seed)

        def deal(values):
            hand = (list(values) * (1 + len(PEOPLE) // len(values)))[:len(PEOPLE)]
            rng.shuffle(hand)
            return dict(zip(PEOPLE, hand))

        self.home = deal(PLACES)
        self.job = deal(JOBS)
        self.pet = deal(PETS)
        self.food = deal(FOODS)
        self.colour = deal(COLOURS)
        ring = list(PEOPLE)
        rng.shuffle(ring)
        self.friend = {a: b for a, b in zip(ring, ring[1:] + ring[:1])}
        self.at_home = {place: name for name, place in self.home.items()}
        self.at_job = {job: name for name, job in self.job.items()}


FACTS = Facts()


def opening_is_held_out(name, place):
    """One in sixteen (first person, first place) pairs never opens a training story."""
    return (7 * PEOPLE.index(name) + 3 * PLACES.index(place)) % 16 == 5
