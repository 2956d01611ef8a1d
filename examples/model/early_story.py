"""The stories of the first phases of training: several people, objects and places at once, which proved too much for the model.

They stay because the shipped weights come from them; story.py tells the stories that the model is meant to tell.
"""

from early_forms import CHOICES, FORMS, MANNERS
from world import COLOURS, OBJECTS, PEOPLE, PLACES, SIZES, opening_is_held_out, pronoun


PAIR, SIMPLE = 1, 2   # the easier stories of the later phases


class Storyteller:
    def __init__(self, rng, pair=0):
        self.rng = rng
        self.pair = pair      # 0: all there is; PAIR: two people who stay together, two objects; SIMPLE: one object that is never put down
        self.cast = []        # everyone met so far in this story
        self.text = []
        self.start_scene()

    def start_scene(self):
        self.where = {}       # person in this scene -> place
        self.holder = {}      # object -> person or None
        self.lying = {}       # object -> place, when nobody holds it
        self.colour = {}      # object -> its colour
        self.subject = None   # whom "she" or "he" would mean
        self.focus = None     # the place that the last sentence about a person was at

    def say(self, kind, form=None, **slots):
        rng = self.rng
        form = form or rng.choice(FORMS[kind])
        for slot, values in CHOICES.items():
            slots.setdefault(slot, rng.choice(values))
        slots["m"] = rng.choice(MANNERS) if rng.random() < 0.75 else ""
        a, noun = slots.get("A"), slots.get("o")
        if "A" in slots and form.startswith("{A} ") and "{A} and" not in form and a == self.subject and rng.random() < 0.4:
            slots["A"] = pronoun(a).capitalize()
        if noun is not None:
            slots["noun"], slots["colour"] = noun, self.colour[noun]
            if rng.random() < 0.3:
                slots["o"] = self.colour[noun] + " " + noun
        if a is not None:
            slots["here"] = self.where.get(a)
        slots["size"] = rng.choice(SIZES)
        line = form.format(**slots).replace("  ", " ").replace(" .", ".")
        self.text.append(line)
        single = "{A}" in form and "{A} and" not in form and "hey " not in form and "{B}" not in form
        self.subject = a if single else None
        if "{A}" in form:
            self.focus = self.where.get(a, self.focus)

    def invent(self):
        noun = self.wanted_object or self.rng.choice([o for o in OBJECTS if o not in self.colour])
        self.wanted_object = None
        self.colour[noun] = self.rng.choice(COLOURS)
        words = ([self.rng.choice(SIZES)] if self.rng.random() < 0.6 else []) + [self.colour[noun], noun]
        article = "an" if words[0][0] in "aeiou" else "a"
        return noun, " ".join([article] + words)

    def present(self, place):
        return [name for name in self.where if self.where[name] == place]

    def other_place(self, place):
        return self.rng.choice([p for p in PLACES if p != place])

    def options(self):
        """(weight, action) pairs that the present state allows."""
        rng, found = self.rng, []
        people = list(self.where)
        a = rng.choice(people)
        here = self.where[a]
        near = [n for n in self.present(here) if n != a]
        b = rng.choice(near) if near else None
        held = [o for o in self.holder if self.holder[o] == a]
        lying = [o for o in self.lying if self.lying[o] == here]
        seen = held + lying + [o for o in self.holder if self.holder[o] in near]
        if len(self.colour) < 3 - self.pair:
            weight = 3 if not self.colour else 0.7
            found.append((weight, lambda: self.find(a, b)))
            if here == self.focus and self.pair != SIMPLE:
                found.append((weight / 2, lambda: self.see(a)))
        if held:
            o = rng.choice(held)
            if self.pair != SIMPLE:
                found.append((0.8, lambda o=o: self.drop(a, o)))
            found += [(0.7, lambda o=o: self.say("hold", A=a, B=b, o=o, form=self.form("hold", b)))]
            if b:
                found += [(1.8, lambda o=o: self.give(a, b, o)), (0.5, lambda o=o: self.say("where", A=a, B=b, o=o))]
        if lying:
            o = rng.choice(lying)
            found.append((2, lambda o=o: self.take(a, o)))
        if seen:
            o = rng.choice(seen)
            found += [(0.7, lambda o=o: self.say("praise", A=a, o=o)), (0.3, lambda o=o: self.say("colour", A=a, o=o))]
        if b:
            found.append((0.9, lambda: self.say("both", A=a, B=b)))
            if len(near) == 1:
                found.append((0.9, lambda: self.travel(a, b)))
            if not self.pair:
                found.append((0.3, lambda: self.leave(a)))
        away = [n for n in people if self.where[n] != here]
        if away and self.subject == a:
            found.append((4, lambda: self.follow(a, rng.choice(away))))
        found += [(0.8, lambda: self.say("nature", A=a)), (0.7, lambda: self.say("feel", A=a))]
        return found

    def form(self, kind, partner):
        """A form that does not need a partner when there is none."""
        return self.rng.choice([f for f in FORMS[kind] if partner or "{B}" not in f])

    def find(self, a, b):
        noun, phrase = self.invent()
        self.holder[noun] = a
        self.say("find", form=self.form("find", b), A=a, B=b, new=phrase)

    def see(self, a):
        noun, phrase = self.invent()
        self.holder[noun], self.lying[noun] = None, self.where[a]
        self.say("see", A=a, new=phrase)

    def take(self, a, o):
        self.holder[o] = a
        self.lying.pop(o)
        self.say("take", A=a, o=o)

    def give(self, a, b, o):
        self.holder[o] = b
        self.say(self.rng.choice(["give", "give", "get"]), A=a, B=b, o=o)

    def drop(self, a, o):
        self.holder[o], self.lying[o] = None, self.where[a]
        self.say("drop", A=a, o=o)

    def travel(self, a, b):
        place = self.other_place(self.where[a])
        self.where[a] = self.where[b] = place
        self.say(self.rng.choice(["walk", "lets"]), A=a, B=b, p=place)

    def leave(self, a):
        place = self.other_place(self.where[a])
        self.where[a] = place
        self.say("leave", A=a, p=place)

    def follow(self, a, b):
        self.where[b] = self.where[a]
        self.say("follow", A=a, B=b)

    def meet(self, b):
        self.where[b] = self.focus
        self.say("meet", B=b, here=self.focus)

    def act(self):
        options = self.options()
        self.rng.choices([action for _, action in options], [weight for weight, _ in options])[0]()

    def finish_scene(self):
        """Every object in a hand goes home; the others stay where they lie."""
        rng, last = self.rng, None
        for o, name in list(self.holder.items()):
            if name in self.where and rng.random() < 0.8:
                self.say("home_with", A=name, o=o)
                last = (name, o)
                self.where.pop(name)
        for name in list(self.where):
            if rng.random() < 0.5:
                self.say("home", A=name)
                self.where.pop(name)
                last = (name, None)
        if last and rng.random() < 0.6:
            form = rng.choice([f for f in FORMS["dream"] if last[1] or "{o}" not in f])
            self.say("dream", form=form, A=last[0], o=last[1]) if last[1] else self.say("dream", form=form, A=last[0])

    def scene(self, steps, partners):
        for b in partners:
            if not self.pair and self.rng.random() < 0.2:
                self.act()
            self.meet(b)
        for _ in range(steps):
            self.act()
        self.finish_scene()


def tell_story(rng, person=None, partner=None, thing=None, place=None, held_out=False, pair=0):
    """One scene, about 80 to 220 tokens. held_out selects the openings that training never shows."""
    teller = Storyteller(rng, pair)
    teller.wanted_object = thing
    while True:
        a, p = person or rng.choice(PEOPLE), place or rng.choice(PLACES)
        if opening_is_held_out(a, p) == held_out:
            break
        if person and place:
            person = None
    teller.where[a] = p
    teller.say("open", A=a, p=p)
    others = [n for n in PEOPLE if n != a]
    partners = [partner] if partner and partner != a else [rng.choice(others)]
    if not pair and rng.random() < 0.25:
        partners.append(rng.choice([n for n in others if n not in partners]))
    teller.scene(rng.randint(5, 13), partners)
    return " ".join(teller.text)


def tell_long_story(rng, chapters, person=None, pair=0):
    """Numbered chapters about one cast of three or four (or two); each chapter is a scene of its own."""
    teller = Storyteller(rng, pair)
    teller.wanted_object = None
    cast = [person] if person else [rng.choice(PEOPLE)]
    cast += rng.sample([n for n in PEOPLE if n not in cast], 1 if pair else rng.randint(2, 3))
    parts = []
    for chapter in range(1, chapters + 1):
        teller.start_scene()
        teller.text = []
        if chapter == 1:
            a = cast[0]
            p = rng.choice([p for p in PLACES if not opening_is_held_out(a, p)])
            teller.where[a] = p
            teller.say("open", A=a, p=p)
            partners = cast[1:]
        else:
            a, b = rng.sample(cast, 2)
            p = rng.choice(PLACES)
            if rng.random() < 0.7:
                teller.where[a] = teller.where[b] = p
                teller.say("next", A=a, B=b, p=p)
                partners = []
            else:
                teller.where[a] = p
                teller.say("next_alone", A=a, p=p)
                partners = [b]
        teller.scene(rng.randint(4, 9), partners)
        parts.append(f"Chapter {chapter} of {chapters}. " + " ".join(teller.text))
    return "\n".join(parts), cast
