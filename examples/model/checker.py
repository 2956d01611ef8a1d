"""Accepts or rejects a story: every sentence must be one of the known forms and must fit the state it is told in.

Tracked: who is there and where, who holds the thing, its colour, whom a pronoun means, who went home, the cast of a long
story, chapter numbers, and that the story ends. The rules are written apart from the planner in story.py; only the surface forms
(forms.py) are shared.
"""

import re

from forms import CHOICES, FORMS
from world import COLOURS, OBJECTS, PEOPLE, PLACES, SIZES, pronoun


class Rejected(Exception):
    """Why a story was not accepted, with the sentence."""


def any_of(words):
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


SLOTS = {slot: f"(?:{any_of(values)})" for slot, values in CHOICES.items()}
SLOTS.update({slot: rf"(?P<{slot}>{any_of(PEOPLE)})" for slot in "ABOD"})
SLOTS.update(
    H=rf"(?P<H>{any_of(PEOPLE)}|She|He)", p=rf"(?P<p>{any_of(PLACES)})", here=rf"(?P<here>{any_of(PLACES)})",
    o=rf"(?:(?P<shade>{any_of(COLOURS)}) )?(?P<o>{any_of(OBJECTS)})", noun=rf"(?P<o>{any_of(OBJECTS)})",
    new=rf"(?P<article>an?) (?P<size>{any_of(SIZES)}) (?P<colour>{any_of(COLOURS)}) (?P<new>{any_of(OBJECTS)})",
    colour=rf"(?P<colour>{any_of(COLOURS)})")


def compile_form(form):
    parts = re.split(r"\{(\w+)\}", form)
    return re.compile("".join(SLOTS[part] if i % 2 else re.escape(part) for i, part in enumerate(parts)) + r"(?=\s|$)")


PATTERNS = [(kind, compile_form(form)) for kind, forms in FORMS.items() for form in forms]
CHAPTER = re.compile(r"Chapter (\d+) of (\d+)\.(?=\s|$)")
CHAPTER_END = re.compile(r"That was chapter (\d+) of (\d+)\.(?=\s|$)")


class Checker:
    def __init__(self):
        self.cast, self.chapter, self.chapters, self.chapter_open = [], 0, 0, False
        self.start_scene()

    def start_scene(self):
        self.present, self.place = [], None
        self.thing = self.colour = self.holder = None
        self.meant = None          # whom "she" or "he" would mean: the person named last
        self.dreamed = False

    def need(self, condition, why):
        if not condition:
            raise Rejected(why)

    def check(self, text):
        at, text = 0, text.strip()
        while at < len(text):
            at = self.take_sentence(text, at)
            while at < len(text) and text[at].isspace():
                at += 1
        self.need(self.dreamed and not self.chapter_open, "the story does not end")
        self.need(self.chapter == self.chapters, f"ends in chapter {self.chapter} of {self.chapters}")

    def take_sentence(self, text, at):
        """Applies the sentence that begins at `at`; returns where it ends."""
        for pattern, apply in ((CHAPTER, self.begin_chapter), (CHAPTER_END, self.end_chapter)):
            if match := pattern.match(text, at):
                apply(int(match[1]), int(match[2]))
                return match.end()
        matches = [(m.end(), kind, m) for kind, pattern in PATTERNS if (m := pattern.match(text, at))]
        self.need(matches, f"no known sentence at: {text[at:at + 80]!r}")
        end, kind, match = max(matches, key=lambda found: found[0])
        slots = match.groupdict()
        try:
            self.need(not self.dreamed, "the scene was over")
            self.need(self.chapter_open or not self.chapter, "between two chapters")
            for role in "HOD":
                if slots.get(role):
                    slots[role] = self.person(slots[role], at_home=role == "D")
            getattr(self, "on_" + kind)(**{name: value for name, value in slots.items() if value})
        except Rejected as why:
            raise Rejected(f"{why} in: {match[0]!r}") from None
        named = re.findall(rf"\b(?:{any_of(PEOPLE)})\b", match[0])
        if named:
            self.meant = None if kind in ("walk", "next") else named[-1]
        return end

    def begin_chapter(self, number, total):
        self.need(not self.chapter_open and (self.dreamed or not self.chapter), f"chapter {number} begins before the last one ended")
        self.need(number == self.chapter + 1 and number <= total, f"chapter {number} of {total} after {self.chapter}")
        self.need(self.chapters in (0, total), "the number of chapters changed")
        self.need(self.chapter or not self.place, "a chapter inside a story without chapters")
        self.chapter, self.chapters, self.chapter_open = number, total, True
        self.start_scene()

    def end_chapter(self, number, total):
        self.need(self.chapter_open and self.dreamed, "no chapter to end here")
        self.need((number, total) == (self.chapter, self.chapters), f"chapter {number} of {total} ends in {self.chapter} of {self.chapters}")
        self.chapter_open = False

    def person(self, name, at_home):
        """The person meant, who must be there; or, at_home, must have gone home."""
        if name in ("She", "He"):
            self.need(self.meant is not None, f"{name} means nobody")
            self.need(pronoun(self.meant) == name.lower(), f"{name} cannot mean {self.meant}")
            name = self.meant
        self.need(name in self.cast, f"{name} is a stranger")
        self.need((name in self.present) != at_home, f"{name} is {'not at home' if at_home else 'not there'}")
        return name

    def holds(self, name, o, shade=None):
        self.known(o, shade)
        self.need(self.holder == name, f"the {o} is held by {self.holder}, not {name}")

    def known(self, o, shade=None):
        self.need(o == self.thing, f"no {o} in this scene")
        self.need(shade in (None, self.colour), f"the {o} is {self.colour}, not {shade}")

    def is_here(self, place):
        self.need(place == self.place, f"they are at the {self.place}, not the {place}")

    def two(self, a, b):
        self.need(a != b, f"{a} twice")

    def on_open(self, A, p):
        self.need(self.place is None and self.chapter < 2, "a story opens once")
        self.cast, self.present, self.place = [A], [A], p

    def on_next(self, A, B, p):
        self.need(self.place is None and self.chapter > 1, "only a later chapter begins so")
        self.two(A, B)
        self.need({A, B} == set(self.cast), f"the story is about {' and '.join(self.cast)}")
        self.present, self.place = [A, B], p

    def on_meet(self, B):
        self.need(len(self.present) == 1 and len(self.cast) == 1, "nobody else can come")
        self.two(B, self.present[0])
        self.cast.append(B)
        self.present.append(B)

    def on_find(self, H, article, size, colour, new):
        self.need(self.thing is None, f"there is the {self.thing} already")
        self.need(len(self.present) == 2, "one of the two is missing")
        self.need((article == "an") == (size[0] in "aeiou"), "a/an")
        self.thing, self.colour, self.holder = new, colour, H

    def on_hold(self, H, o, shade=None):
        self.holds(H, o, shade)

    def on_feel(self, H):
        pass

    def on_other(self, O, H):
        self.two(O, H)

    def on_give(self, H, O, o, shade=None):
        self.holds(H, o, shade)
        self.two(H, O)
        self.holder = O

    def on_walk(self, O, H, here, p):
        self.two(O, H)
        self.is_here(here)
        self.need(p != self.place, f"already at the {p}")
        self.place = p

    def on_they_walk(self, here, p):
        self.need(len(self.present) == 2, "they are not two")
        self.is_here(here)
        self.need(p != self.place, f"already at the {p}")
        self.place = p

    def on_both(self):
        self.need(len(self.present) == 2, "they are not two")

    def on_colour(self, o, colour, H=None):
        self.known(o, colour)

    def on_nature(self, here=None):
        if here:
            self.is_here(here)

    def on_close(self, H, o, shade=None):
        self.holds(H, o, shade)
        self.present.remove(H)

    def on_leave(self, O):
        self.need(self.thing and self.holder not in self.present, "the thing is not home yet")
        self.present.remove(O)

    def on_dream(self, D, o=None, shade=None):
        self.need(self.thing and not self.present, "not everybody is at home")
        if o:
            self.known(o, shade)
        self.dreamed = True


def why_rejected(text):
    """None for an accepted story, else the reason."""
    try:
        Checker().check(text)
    except Rejected as why:
        return str(why)
    return None
