"""Seeded chats about the world: facts known by heart, facts told in a system prompt, sums, refusals, small talk, stories.

A chat is a list of (role, text). Wordings come in two lists: the first is for training, the second is only for evaluation.
"""

from refusals import refusal_question
from story import tell_long_story, tell_story
from sums import sum_turn
from world import COLOURS, FACTS, OBJECTS, PEOPLE, PLACES, VILLAGE

REFUSAL = f"I do not know that. I only know {VILLAGE}, its people, small sums and stories."
NOT_TOLD = "I was not told that."

# kind -> (training wordings, held-out wordings, answer)
WORLD = {
    "home": (["Where does {A} live?", "Where is {A}'s home?", "Tell me where {A} lives.", "Which place does {A} live near?",
              "Do you know where {A} lives?", "I want to visit {A}. Where is the house?", "{A} lives where?",
              "What place is {A}'s house near?", "Where is the home of {A}?", "Near which place is {A} at home?"],
             ["Can you tell me where {A} lives?", "Where is {A}'s house?", "Which place is the home of {A} near?",
              "Tell me where the house of {A} is.", "I want to know where {A} lives."],
             "{A} lives near the {home}."),
    "who_home": (["Who lives near the {home}?", "Whose house is near the {home}?", "Tell me who lives near the {home}.",
                  "Do you know who lives by the {home}?", "Whose home is by the {home}?", "Which person lives near the {home}?"],
                 ["Can you tell me who lives near the {home}?", "Who has a house near the {home}?", "Which person has a home by the {home}?"],
                 "{A} lives near the {home}."),
    "job": (["What is {A}'s job?", "What does {A} do for work?", "What work does {A} do?", "Tell me the job of {A}.",
             "Which job does {A} have?", "Do you know what {A}'s work is?", "What is the job of {A}?", "What does {A} work as?"],
            ["Can you tell me what {A}'s job is?", "Which work does {A} do?", "Tell me what {A} does for work.",
             "I want to know {A}'s job."],
            "{A} is the {job} of " + VILLAGE + "."),
    "who_job": (["Who is the {job}?", "Who is the {job} of " + VILLAGE + "?", "Who works as the {job}?", "Tell me who the {job} is.",
                 "What is the name of the {job}?", "I need the {job}. Who is it?", "Which person is the {job}?"],
                ["Can you tell me who the {job} is?", "Do you know who the {job} is?", "Tell me the name of the {job}."],
                "{A} is the {job} of " + VILLAGE + "."),
    "pet": (["What pet does {A} have?", "Which animal does {A} keep?", "What is {A}'s pet?", "Tell me what pet {A} has.",
             "Does {A} have a pet?", "What kind of animal lives with {A}?", "Do you know what animal {A} has?"],
            ["Which pet does {A} have?", "What animal does {A} keep?", "Can you tell me what {A}'s pet is?"],
            "{A} has a pet {pet}."),
    "food": (["What does {A} like to eat?", "What is {A}'s favourite food?", "Which food does {A} like best?",
              "Tell me what {A} likes to eat.", "What food does {A} love?", "Do you know what {A} likes to eat?"],
             ["What is the favourite food of {A}?", "What does {A} love to eat?", "Which food is {A}'s favourite?"],
             "{A} likes to eat {food}."),
    "colour": (["What is {A}'s favourite colour?", "Which colour does {A} like best?", "What colour does {A} love?",
                "Tell me {A}'s favourite colour.", "What is the favourite colour of {A}?", "Do you know which colour {A} likes?"],
               ["Which colour is {A}'s favourite?", "Tell me which colour {A} likes best.", "What colour does {A} like?"],
               "{A} likes {colour} best."),
    "friend": (["Who is {A}'s best friend?", "Who is the best friend of {A}?", "Tell me who {A}'s best friend is.",
                "Which person is {A}'s best friend?", "Do you know {A}'s best friend?", "Who is {A}'s friend?"],
               ["Can you tell me who {A}'s best friend is?", "Who is the friend of {A}?", "Tell me the name of {A}'s best friend."],
               "{A}'s best friend is {friend}."),
}

# kind -> (statements, training wordings, held-out wordings, answer)
TOLD = {
    "lies": (["The {o} is at the {p}.", "The {o} is at the {p} today.", "The {o} lies at the {p}.", "You can find the {o} at the {p}."],
             ["Where is the {o}?", "Tell me where the {o} is.", "Where can I find the {o}?", "I need the {o}. Where is it?",
              "Do you know where the {o} is?", "At which place is the {o}?"],
             ["Can you tell me where the {o} is?", "I want to find the {o}. Where is it?", "Which place is the {o} at?"],
             "The {o} is at the {p}."),
    "person": (["{A} is at the {p} today.", "{A} is at the {p}.", "{A} went to the {p} today.", "You can find {A} at the {p}."],
               ["Where is {A} today?", "Where is {A}?", "Tell me where {A} is.", "Where can I find {A} today?", "Where did {A} go today?",
                "At which place is {A} today?"],
               ["Can you tell me where {A} is today?", "Do you know where {A} is today?", "I need to find {A}. Where is {A} today?"],
               "{A} is at the {p} today."),
    "has": (["{A} has the {o}.", "{A} has the {o} today.", "The {o} is with {A}.", "{A} keeps the {o}."],
            ["Who has the {o}?", "Who keeps the {o}?", "Tell me who has the {o}.", "Which person has the {o}?", "Who is the {o} with?"],
            ["Can you tell me who has the {o}?", "Do you know who has the {o}?", "Who has the {o} today?"],
            "{A} has the {o}."),
    "paint": (["The {o} is {c}.", "The colour of the {o} is {c}.", "There is one {o}, and it is {c}."],
              ["What colour is the {o}?", "Which colour does the {o} have?", "Tell me the colour of the {o}.", "What is the {o}'s colour?"],
              ["What is the colour of the {o}?", "Can you tell me what colour the {o} is?", "Which colour is the {o}?"],
              "The {o} is {c}."),
}

PREFIXES = ["", "", "", "", "", "", "Please. ", "Hello. ", "Excuse me. ", "Can you help me? ", "One more thing. ", "Thank you. ", "And now: ",
            "Good morning. ", "I have a question. ", "Next. "]
SMALL_TALK = [
    (["Hello!", "Hi!", "Good morning!", "Hi there.", "Hello there!", "Good day.", "Hey!", "Hello, how are you?"],
     f"Hello! Ask me about {VILLAGE}, give me a small sum or ask for a story."),
    (["Who are you?", "What are you?", "What is your name?", "Tell me about yourself.", "Are you a robot?"],
     f"I am Sluice Tiny, a small model that knows the village of {VILLAGE}."),
    (["What can you do?", "What do you know?", "How can you help me?", "Can you help me?", "Help me, please."],
     f"I can answer questions about {VILLAGE}, add small numbers and tell stories."),
    (["Thank you!", "Thanks.", "Thank you very much.", "Great, thanks!", "Good answer."], "You are welcome!"),
    (["Goodbye.", "Bye!", "Good night.", "See you later."], "Goodbye!"),
    (["What is the name of the village?", "Where are we?", "What is this place called?", "Which village is this?"],
     f"The village is called {VILLAGE}."),
]
GUIDES = [f"You are a guide to {VILLAGE}.", f"You are Sluice Tiny. You know {VILLAGE}.", "You are a helpful guide.", "Answer in one sentence.",
          "You are a kind helper.", f"Help people who visit {VILLAGE}.", "Answer briefly.", "You are a helpful assistant."]
HEADINGS = ["", "", "Notes for today: ", "This is true today: ", "News: ", "Here is what you know: ", "Facts: ", "Remember this. "]


def world_slots(name):
    return dict(A=name, home=FACTS.home[name], job=FACTS.job[name], pet=FACTS.pet[name], food=FACTS.food[name],
                colour=FACTS.colour[name], friend=FACTS.friend[name])


def roughen(rng, question):
    """Some people type in lower case and leave out the question mark."""
    roll = rng.random()
    if roll < 0.06:
        question = question.lower()
    if roll < 0.03 or roll > 0.96:
        question = question.rstrip("?.!")
    return question


def world_turn(rng, held_out=False, kind=None, name=None):
    kind = kind or rng.choice(list(WORLD))
    training, evaluation, answer = WORLD[kind]
    slots = world_slots(name or rng.choice(PEOPLE))
    if held_out:
        return rng.choice(evaluation).format(**slots), answer.format(**slots)
    return roughen(rng, rng.choice(PREFIXES) + rng.choice(training).format(**slots)), answer.format(**slots)


def follow_up(rng, name_before, kind_before):
    """ "And Leo?" after a question about somebody else."""
    name = rng.choice([n for n in PEOPLE if n != name_before])
    question = rng.choice(["And {A}?", "What about {A}?", "And what about {A}?"]).format(A=name)
    return question, WORLD[kind_before][2].format(**world_slots(name))


class Notes:
    """Facts told in a prompt: each object and each person appears once."""

    def __init__(self, rng, count):
        self.rng, self.told = rng, []
        objects, people = list(OBJECTS), list(PEOPLE)
        rng.shuffle(objects)
        rng.shuffle(people)
        for _ in range(count):
            kind = rng.choice(["lies", "lies", "person", "has", "paint"])
            if (kind == "person" and not people) or not objects:
                kind = "person" if people else "lies"
            if kind != "person" and not objects:
                break
            slots = dict(p=rng.choice(PLACES), c=rng.choice(COLOURS))
            slots["A"] = people.pop() if kind == "person" else rng.choice(PEOPLE)
            slots["o"] = None if kind == "person" else objects.pop()
            self.told.append((kind, slots))
        self.unused = objects

    def text(self):
        return " ".join(self.rng.choice(TOLD[kind][0]).format(**slots) for kind, slots in self.told)

    def turn(self, held_out=False, missing=0.08):
        rng = self.rng
        if self.unused and rng.random() < missing:
            kind, slots = rng.choice(["lies", "has", "paint"]), dict(o=rng.choice(self.unused))
            answer = NOT_TOLD
        else:
            kind, slots = rng.choice(self.told)
            answer = TOLD[kind][3].format(**slots)
        if held_out:
            return rng.choice(TOLD[kind][2]).format(**slots), answer
        return roughen(rng, rng.choice(PREFIXES) + rng.choice(TOLD[kind][1]).format(**slots)), answer


class LongNotes(Notes):
    """Notes for long prompts: an object may be told twice, once its place or holder and once its colour."""

    def __init__(self, rng, count):
        super().__init__(rng, 0)
        facts = [("paint", o) for o in OBJECTS] + [("person", name) for name in PEOPLE]
        facts += [(rng.choice(["lies", "lies", "has"]), o) for o in OBJECTS]
        rng.shuffle(facts)
        for kind, thing in facts[:count]:
            slots = dict(p=rng.choice(PLACES), c=rng.choice(COLOURS), o=thing, A=rng.choice(PEOPLE))
            if kind == "person":
                slots.update(A=thing, o=None)
            self.told.append((kind, slots))
        told = {slots["o"] for _, slots in self.told}
        self.unused = [o for o in OBJECTS if o not in told]


def story_turn(rng, chapters=0, tell_story=tell_story, tell_long_story=tell_long_story):
    """A wish for a story and the story; the first phases pass the tellers of early_story.py."""
    a, b = rng.sample(PEOPLE, 2)
    thing, place = rng.choice(OBJECTS), rng.choice(PLACES)
    start = rng.choice(["Tell me a {l}story", "Please tell me a {l}story", "I want to hear a {l}story", "Can you tell me a {l}story", "Write a {l}story"])
    if chapters:
        text, cast = tell_long_story(rng, chapters, person=a)
        about = rng.choice([f" about {a}", f" about {a} in {chapters} chapters", f" in {chapters} chapters"])
        return start.format(l=rng.choice(["long ", ""]) if "chapters" in about else "long ") + about + ".", text
    about, slots = rng.choice([("", {}), (f" about {a}", dict(person=a)), (f" about {a} and {b}", dict(person=a, partner=b)),
                               (f" about a {thing}", dict(thing=thing)), (f" about {a} and the {thing}", dict(person=a, thing=thing)),
                               (f" about the {place}", dict(place=place))])
    return start.format(l=rng.choice(["", "", "short "])) + about + rng.choice([".", ".", "", "!"]), tell_story(rng, **slots)


def any_turn(rng, notes, sums):
    """One question and answer of any kind; notes may be None."""
    roll = rng.random()
    if notes and roll < 0.6:
        return notes.turn()
    roll = rng.random()
    if roll < 0.48:
        return world_turn(rng)
    if roll < 0.48 + sums:
        return sum_turn(rng)
    if roll < 0.9:
        return roughen(rng, refusal_question(rng)), REFUSAL
    questions, answer = rng.choice(SMALL_TALK)
    return rng.choice(questions), answer


def short_chat(rng):
    """A chat of 1 to 6 turns, up to about 230 tokens; half of them under a system prompt, a third with notes."""
    chat, notes, turns = [], None, rng.choice([1, 2, 2, 3, 4, 5, 6])
    if rng.random() < 0.5:
        parts = [rng.choice(GUIDES)] if rng.random() < 0.6 else []
        if rng.random() < 0.7 or not parts:
            notes = Notes(rng, rng.randint(1, 10))
            parts.append(rng.choice(HEADINGS) + notes.text())
        chat.append(("system", " ".join(parts)))
    for _ in range(turns):
        if rng.random() < 0.12:
            kind, name = rng.choice(["home", "job", "pet", "food", "colour", "friend"]), rng.choice(PEOPLE)
            question, answer = world_turn(rng, kind=kind, name=name)
            chat += [("user", question), ("assistant", answer)]
            question, answer = follow_up(rng, name, kind)
        else:
            question, answer = any_turn(rng, notes, sums=0.2)
        chat += [("user", question), ("assistant", answer)]
    return chat


def notes_chat(rng):
    """Questions about told facts only: the densest practice in looking something up."""
    notes = Notes(rng, rng.randint(2, 12))
    parts = [rng.choice(GUIDES)] if rng.random() < 0.5 else []
    chat = [("system", " ".join(parts + [rng.choice(HEADINGS) + notes.text()]))]
    for _ in range(rng.randint(3, 6)):
        question, answer = notes.turn()
        chat += [("user", question), ("assistant", answer)]
    return chat


def easy_notes_chat(rng):
    """One to three facts and nothing else: where looking up begins."""
    notes = Notes(rng, rng.choice([1, 1, 2, 2, 3]))
    chat = [("system", notes.text())]
    for _ in range(rng.randint(1, 3)):
        question, answer = notes.turn(missing=0)
        chat += [("user", question), ("assistant", answer)]
    return chat


def recital_chat(rng):
    """All told facts said again in another order: every sentence is a look-up."""
    notes = Notes(rng, rng.randint(2, 9))
    question = rng.choice(["What do you know?", "Tell me the notes.", "What is new?", "Say all you were told.", "What were you told today?"])
    facts = rng.sample(notes.told, len(notes.told))
    return [("system", notes.text()), ("user", question),
            ("assistant", " ".join(TOLD[kind][3].format(**slots) for kind, slots in facts))]


def plain_recital_chat(rng):
    """Facts of one kind in the very words of the answer, then asked or said again: the easiest form of look-up among many."""
    kind = rng.choice(["lies", "person", "paint", "has"])
    things = rng.sample(PEOPLE if kind == "person" else OBJECTS, rng.randint(2, 8))
    facts = []
    for thing in things:
        slots = dict(p=rng.choice(PLACES), c=rng.choice(COLOURS), o=thing, A=rng.choice(PEOPLE))
        if kind == "person":
            slots["A"] = thing
        facts.append(slots)
    answer = TOLD[kind][3]
    chat = [("system", " ".join(answer.format(**slots) for slots in facts))]
    if rng.random() < 0.4:
        rng.shuffle(facts)
        return chat + [("user", "Say all you were told."), ("assistant", " ".join(answer.format(**slots) for slots in facts))]
    for slots in rng.sample(facts, min(len(facts), 4)):
        chat += [("user", rng.choice(TOLD[kind][1]).format(**slots)), ("assistant", answer.format(**slots))]
    return chat


def echo_chat(rng, shortest=4, longest=40):
    """Random words said again: practice in copying, easiest when the length is always the same."""
    words = [*PEOPLE, *PLACES, *OBJECTS, *COLOURS]
    said = " ".join(rng.choice(words) for _ in range(rng.randint(shortest, longest)))
    return [("user", rng.choice(["Say again: ", "Repeat: ", "Repeat after me: ", "Please repeat: "]) + said), ("assistant", said)]


LINKS = {   # kind -> (what may be asked for, what it is linked to, forms from the shortest to nearly a sentence)
    "lies": (OBJECTS, PLACES, ["{k} {v}", "{k}: {v}", "{k} at {v}", "{k} is at the {v}", "the {k} is at the {v}"]),
    "person": (PEOPLE, PLACES, ["{k} {v}", "{k}: {v}", "{k} at {v}", "{k} is at the {v}", "{k} is at the {v} today"]),
    "has": (OBJECTS, PEOPLE, ["{k} {v}", "{k}: {v}", "{k} with {v}", "{k} is with {v}", "the {k} is with {v}"]),
    "paint": (OBJECTS, COLOURS, ["{k} {v}", "{k}: {v}", "{k} is {v}", "the {k} is {v}", "the {k} is all {v}"]),
}


def link_chat(rng, hardest, fewest=2, most=14, asked=14):
    """Many facts of one kind, then the named ones again in the order asked: every answer is a look-up by name.

    Steps: 0 key and value stand side by side, 1 some words between, 2 the sentences of TOLD, 3 told in one wording, said in another.
    """
    kind, step = rng.choice(list(LINKS)), rng.randint(0, hardest)
    keys, values, forms = LINKS[kind]
    keys = rng.sample(keys, min(len(keys), rng.randint(fewest, most)))
    facts = {key: rng.choice(values) for key in keys}
    names = rng.sample(keys, min(len(keys), asked))
    if step < 2:
        form = forms[0] if step == 0 else rng.choice(forms[1:])
        joint = rng.choice([", ", ". "])
        told, said = (joint.join(form.format(k=key, v=facts[key]) for key in some) + "." for some in (keys, names))
    else:
        statements, _, _, answer = TOLD[kind]
        slots = {key: dict(o=key, A=key if kind == "person" else value, p=value, c=value) for key, value in facts.items()}
        told = " ".join((answer if step == 2 else rng.choice(statements)).format(**slots[key]) for key in keys)
        if rng.random() < 0.3:     # one question after the other, as people ask
            chat = [("system", told)]
            for key in names[:5]:
                chat += [("user", rng.choice(TOLD[kind][1]).format(**slots[key])), ("assistant", answer.format(**slots[key]))]
            return chat
        said = " ".join(answer.format(**slots[key]) for key in names)
    return [("system", told), ("user", ", ".join(names) + "?"), ("assistant", said)]


def mixed_link_chat(rng):
    """Facts of all kinds told in any wording, then said again by name in another order."""
    notes = Notes(rng, rng.randint(2, 10))
    facts = rng.sample(notes.told, len(notes.told))
    names = ", ".join(slots["A"] if kind == "person" else slots["o"] for kind, slots in facts)
    return [("system", rng.choice(["", "", rng.choice(GUIDES) + " "]) + notes.text()), ("user", names + "?"),
            ("assistant", " ".join(TOLD[kind][3].format(**slots) for kind, slots in facts))]


def story_chat(rng, **tellers):
    question, story = story_turn(rng, **tellers)
    system = [("system", rng.choice(GUIDES))] if rng.random() < 0.25 else []
    return system + [("user", question), ("assistant", story)]


def long_prompt(rng, notes, reminders):
    """A guide, a heading, all notes and some facts about the village that are true anyway."""
    people = [name for k in range(0, reminders, len(PEOPLE)) for name in rng.sample(PEOPLE, min(reminders - k, len(PEOPLE)))]
    facts = [WORLD[rng.choice(list(WORLD))][2].format(**world_slots(name)) for name in people]
    return " ".join([rng.choice(GUIDES), *facts, rng.choice(HEADINGS).strip(), notes.text()]).replace("  ", " ")


def long_chat(rng, facts, turns):
    """A chat over a long system prompt."""
    notes = LongNotes(rng, facts)
    chat = [("system", long_prompt(rng, notes, rng.randint(0, 28)))]
    for _ in range(turns):
        question, answer = any_turn(rng, notes, sums=0.15)
        chat += [("user", question), ("assistant", answer)]
    return chat
