"""Accepts or rejects a story: every sentence must be one of the known forms and must fit the state it is told in.

Tracked: who is in the scene and where, who holds each object, where it lies, its colour, whom a pronoun means, chapter numbers.
The rules are written apart from the planner in story.py; only the surface forms (forms.py) are shared.
"""

import re

from forms import CHOICES, FORMS, MANNERS
from world import COLOURS, OBJECTS, PEOPLE, PLACES, SIZES, pronoun


class Rejected(Exception):
    """Why a story was not accepted, with the sentence."""


def any_of(words):
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


SLOTS = {
    "A": rf"(?P<A>{any_of(PEOPLE)}|She|He)", "B": rf"(?P<B>{any_of(PEOPLE)})", "p": rf"(?P<p>{any_of(PLACES)})",
    "here": rf"(?P<here>{any_of(PLACES)})", "o": rf"(?:(?P<shade>{any_of(COLOURS)}) )?(?P<o>{any_of(OBJECTS)})",
    "new": rf"(?P<article>an?) (?:(?P<size1>{any_of(SIZES)}) )?(?P<paint>{any_of(COLOURS)}) (?P<new>{any_of(OBJECTS)})",
    "noun": rf"(?P<noun>{any_of(OBJECTS)})", "colour": rf"(?P<colour>{any_of(COLOURS)})", "size": f"(?:{any_of(SIZES)})",
}
SLOTS.update({slot: f"(?:{any_of(values)})" for slot, values in CHOICES.items()})


def compile_form(form):
    pattern, seen = "", set()
    for part in re.split(r"(\{m\} | \{m\}(?=\.)|\{\w+\})", form):
        slot = part.strip(" {}")
        if part == "{m} ":
            pattern += f"(?:(?:{any_of(MANNERS)}) )?"
        elif part == " {m}":
            pattern += f"(?: (?:{any_of(MANNERS)}))?"
        elif part.startswith("{"):
            pattern += f"(?P={slot})" if slot in seen else SLOTS[slot]
            seen.add(slot)
        else:
            pattern += re.escape(part)
    return re.compile(pattern + r"(?=\s|$)")


PATTERNS = [(kind, compile_form(form)) for kind, forms in FORMS.items() for form in forms]
CHAPTER = re.compile(r"Chapter (\d+) of (\d+)\.(?=\s|$)")


class Checker:
    def __init__(self):
        self.cast, self.chapter, self.chapters = set(), 0, 0
        self.start_scene()

    def start_scene(self):
        self.where, self.holder, self.lying, self.colour = {}, {}, {}, {}
        self.subject = self.focus = None
        self.begun = False

    def need(self, condition, why):
        if not condition:
            raise Rejected(why)

    def check(self, text):
        at, text = 0, text.strip()
        while at < len(text):
            header = CHAPTER.match(text, at)
            if header:
                self.take_header(int(header[1]), int(header[2]))
                at = header.end()
            else:
                matches = [(m.end(), kind, m) for kind, pattern in PATTERNS for m in [pattern.match(text, at)] if m]
                self.need(matches, f"no known sentence at: {text[at:at + 80]!r}")
                end, kind, match = max(matches, key=lambda found: found[0])
                try:
                    self.apply(kind, match.groupdict(), match[0])
                except Rejected as why:
                    raise Rejected(f"{why} in: {match[0]!r}") from None
                at = end
            while at < len(text) and text[at].isspace():
                at += 1
        self.need(self.begun, "no scene")
        self.need(self.chapter == self.chapters, f"ends in chapter {self.chapter} of {self.chapters}")

    def take_header(self, number, total):
        self.need(number == self.chapter + 1 and number <= total, f"chapter {number} of {total} after {self.chapter}")
        self.need(self.chapters in (0, total), "the number of chapters changed")
        self.chapter, self.chapters = number, total
        self.start_scene()

    def person(self, name):
        """The person meant; must be in the scene and not gone home."""
        if name in ("She", "He"):
            self.need(self.subject is not None, f"{name} means nobody")
            self.need(pronoun(self.subject) == name.lower(), f"{name} cannot mean {self.subject}")
            name = self.subject
        self.need(name in self.where, f"{name} is not in the scene")
        return name

    def together(self, a, b):
        self.need(a != b, f"{a} twice")
        self.need(self.where[a] == self.where[b], f"{a} and {b} are apart")

    def known_object(self, slots):
        o = slots["o"]
        self.need(o in self.colour, f"no {o} in this scene")
        self.need(slots["shade"] in (None, self.colour[o]), f"the {o} is {self.colour[o]}, not {slots['shade']}")
        return o

    def enter(self, name, place):
        self.need(name not in self.where, f"{name} is here already")
        if self.chapter > 1:
            self.need(name in self.cast, f"{name} was never met")
        self.cast.add(name)
        self.where[name] = place

    def introduce(self, slots):
        noun = slots["new"]
        self.need(noun not in self.colour, f"a second {noun}")
        self.need((slots["article"] == "an") == ((slots["size1"] or slots["paint"])[0] in "aeiou"), "a/an")
        self.colour[noun] = slots["paint"]
        self.holder[noun] = None
        return noun

    def holds(self, name, o):
        self.need(self.holder[o] == name, f"{o} is held by {self.holder[o]}, not {name}")

    def go_home(self, name):
        self.where.pop(name)
        for o in self.holder:
            if self.holder[o] == name:
                self.holder[o] = "home"

    def apply(self, kind, slots, line):
        if kind in ("open", "next", "next_alone"):
            return self.begin(kind, slots)
        self.need(self.begun, "no opening")
        if kind == "meet":
            self.enter(slots["B"], self.focus)
            self.need(slots.get("here") in (None, self.focus), "wrong place")
            self.subject = None
            return
        if kind == "dream":
            return self.dream(slots)
        a = self.person(slots["A"]) if slots.get("A") else None
        b = self.person(slots["B"]) if slots.get("B") else None
        o = self.known_object(slots) if slots.get("o") else None
        if b and kind != "follow":
            self.together(a, b)
        if slots.get("here") and kind == "nature":
            self.need(slots["here"] in self.where.values(), f"nobody is at the {slots['here']}")
        getattr(self, "on_" + kind)(a, b, o, slots)
        alone = a and not b and "hey " not in line
        self.subject = a if alone else None
        self.focus = self.where.get(a, self.focus)

    def begin(self, kind, slots):
        self.need(not self.begun, "a second opening")
        self.need((kind == "open") == (self.chapter < 2), f"{kind} in chapter {self.chapter}")
        self.begun, self.focus = True, slots["p"]
        self.enter(slots["A"], slots["p"])
        if slots.get("B"):
            self.enter(slots["B"], slots["p"])
        self.subject = None if slots.get("B") else slots["A"]

    def dream(self, slots):
        name = slots["A"]
        if name in ("She", "He"):
            self.need(self.subject and pronoun(self.subject) == name.lower(), f"{name} means nobody")
            name = self.subject
        self.need(name in self.cast and name not in self.where, f"{name} is not at home")
        if slots.get("o"):
            self.known_object(slots)
        self.subject = name

    def on_find(self, a, b, o, slots):
        self.holder[self.introduce(slots)] = a

    def on_see(self, a, b, o, slots):
        self.lying[self.introduce(slots)] = self.where[a] if a else self.focus

    def on_take(self, a, b, o, slots):
        self.need(self.lying.get(o) == self.where[a], f"the {o} does not lie at the {self.where[a]}")
        self.lying.pop(o)
        self.holder[o] = a

    def on_give(self, a, b, o, slots):
        self.holds(a, o)
        self.holder[o] = b

    on_get = on_give

    def on_drop(self, a, b, o, slots):
        self.holds(a, o)
        self.holder[o], self.lying[o] = None, self.where[a]

    def on_walk(self, a, b, o, slots):
        here = self.where[a]
        self.need(slots["p"] != here, f"already at the {here}")
        movers = [a, b] if b else [n for n in self.where if self.where[n] == here]
        self.need(len(movers) > 1, "nobody to go with")
        for name in movers:
            self.where[name] = slots["p"]

    on_lets = on_walk

    def on_leave(self, a, b, o, slots):
        self.need(slots["p"] != self.where[a], f"already at the {slots['p']}")
        self.where[a] = slots["p"]

    def on_follow(self, a, b, o, slots):
        place = self.where[a] if a else self.focus
        self.need(slots.get("here") in (None, place), f"nobody went to the {slots.get('here')}")
        self.need(self.where[b] != place, f"{b} is there already")
        self.where[b] = place

    def on_praise(self, a, b, o, slots):
        at = self.lying.get(o, self.where.get(self.holder[o]))
        self.need(at == self.where[a], f"{a} cannot see the {o}")

    def on_hold(self, a, b, o, slots):
        self.holds(a, o)

    on_where = on_hold

    def on_colour(self, a, b, o, slots):
        noun = slots["noun"]
        self.need(self.colour.get(noun) == slots["colour"], f"the {noun} is {self.colour.get(noun)}")

    def on_nature(self, a, b, o, slots):
        pass

    on_feel = on_both = on_nature

    def on_home_with(self, a, b, o, slots):
        self.holds(a, o)
        self.go_home(a)

    def on_home(self, a, b, o, slots):
        self.go_home(a)


def why_rejected(text):
    """None for an accepted story, else the reason."""
    try:
        Checker().check(text)
    except Rejected as why:
        return str(why)
    return None
