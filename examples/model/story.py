"""Seeded stories: a planner keeps who is there, where they are and who holds the thing, and only tells what its state allows.

A story is one scene of two people and one thing; a long story is a chain of such scenes about the same two people, each
introduced anew. early_story.py holds the harder stories that the first phases of training read.
"""

from forms import CHOICES, FORMS
from world import COLOURS, OBJECTS, PEOPLE, PLACES, SIZES, opening_is_held_out, pronoun


class Scene:
    def __init__(self, rng, place, bystander):
        self.rng, self.place, self.text = rng, place, []
        self.bystander = bystander         # the one without the thing may be the subject of a sentence, too
        self.holder = self.other = None    # before the thing is there: who was named last, and the other one
        self.noun = self.colour = None
        self.meant = None                  # whom "she" or "he" would mean

    def say(self, kind, **slots):
        rng = self.rng
        form = rng.choice(FORMS[kind])
        for slot, values in CHOICES.items():
            slots.setdefault(slot, rng.choice(values))
        slots.update(H=self.holder, O=self.other, here=self.place, noun=self.noun, colour=self.colour)
        if form.startswith("{H} ") and self.meant == self.holder and rng.random() < 0.3:
            slots["H"] = pronoun(self.holder).capitalize()
        if self.noun:
            slots["o"] = self.noun if rng.random() < 0.65 else f"{self.colour} {self.noun}"
        self.text.append(form.format(**slots))
        if "{H}" in form:
            self.meant = None if kind == "walk" else self.holder

    def bring(self, noun):
        """The thing comes into the story, in the hands of the person named last."""
        size = self.rng.choice(SIZES)
        self.noun, self.colour = noun, self.rng.choice(COLOURS)
        self.say("find", new=f"{'an' if size[0] in 'aeiou' else 'a'} {size} {self.colour} {noun}")

    def give(self):
        self.say("give")
        self.holder, self.other = self.other, self.holder
        self.meant = self.holder

    def walk(self):
        place = self.rng.choice([p for p in PLACES if p != self.place])
        self.say("walk" if self.bystander else "they_walk", p=place)
        self.place = place

    def act(self):
        actions = {"hold": 3, "give": 3.5, "feel": 2.2, "other" if self.bystander else "both": 1.7, "walk": 1.1, "nature": 1.5, "colour": 0.4}
        kind = self.rng.choices(list(actions), list(actions.values()))[0]
        if kind in ("give", "walk"):
            getattr(self, kind)()
        else:
            self.say(kind)

    def tell(self, steps, noun):
        for _ in range(self.rng.choice([0, 0, 1])):
            self.say(self.rng.choice(["nature", "feel"]))
        self.bring(noun)
        for _ in range(steps):
            self.act()
        self.say("close")
        self.say("leave")
        self.say("dream", D=self.rng.choice([self.holder, self.other]))
        return " ".join(self.text)


def tell_story(rng, person=None, partner=None, thing=None, place=None, held_out=False, bystander=False):
    """One scene, about 80 to 170 tokens. held_out selects the openings that training never shows."""
    while True:
        a, p = person or rng.choice(PEOPLE), place or rng.choice(PLACES)
        if opening_is_held_out(a, p) == held_out:
            break
        if person and place:
            person = None
    b = partner if partner and partner != a else rng.choice([n for n in PEOPLE if n != a])
    scene = Scene(rng, p, bystander)
    scene.say("open", A=a, p=p)
    scene.say("meet", B=b)
    scene.holder = scene.meant = b
    scene.other = a
    return scene.tell(rng.randint(4, 9), thing or rng.choice(OBJECTS))


def tell_chapter(rng, number, total, cast, opening, bystander=False):
    """One numbered scene; only the first chapter opens like a story. It ends by saying its number again."""
    a, b = cast if opening else rng.sample(cast, 2)
    scene = Scene(rng, rng.choice([p for p in PLACES if not (opening and opening_is_held_out(a, p))]), bystander)
    if opening:
        scene.say("open", A=a, p=scene.place)
        scene.say("meet", B=b)
    else:
        scene.say("next", A=a, B=b, p=scene.place)
    scene.holder, scene.other = b, a
    scene.meant = b if opening else None
    text = scene.tell(rng.randint(2, 5), rng.choice(OBJECTS))
    return f"Chapter {number} of {total}. {text} That was chapter {number} of {total}."


def draw_cast(rng, person=None, partner=None):
    a = person or rng.choice(PEOPLE)
    return [a, partner if partner and partner != a else rng.choice([n for n in PEOPLE if n != a])]


def tell_long_story(rng, chapters, person=None, partner=None):
    """Numbered chapters about two people; returns (text, cast)."""
    cast = draw_cast(rng, person, partner)
    return "\n".join(tell_chapter(rng, k, chapters, cast, k == 1) for k in range(1, chapters + 1)), cast


def tell_excerpt(rng, first, last, chapters, bystander=False):
    """Chapters first to last of a long story."""
    cast = draw_cast(rng)
    return "\n".join(tell_chapter(rng, k, chapters, cast, k == 1, bystander) for k in range(first, last + 1))
