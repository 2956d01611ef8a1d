"""Sums of one- and two-digit numbers with a worked line, and the pairs that training never sees."""

import random
import re

HELD_OUT_SEED = 77
HELD_OUT_COUNT = 500

TRAINING = ["What is {a} + {b}?", "{a} + {b}", "{a}+{b}", "What is {a} plus {b}?", "Add {a} and {b}.", "{a} + {b} = ?", "How much is {a} plus {b}?",
            "Please add {a} and {b}.", "What do {a} and {b} make?", "I have {a} and get {b} more. How many do I have?",
            "Tell me {a} + {b}.", "Can you add {a} to {b}?", "{a} plus {b} is what?", "What is the sum of {a} and {b}?"]
MORE_TRAINING = TRAINING + ["How much do {a} and {b} make?", "How many are {a} and {b}?", "How many do I have with {a} and {b}?", "{a} and {b} make what?",
                            "How many is {a} plus {b}?", "Do you know how much {a} and {b} make?", "How many do you get from {a} and {b}?",
                            "Add {a} and {b}. How many is it?"]     # from phase "links" on
EVALUATION = ["How much is {a} + {b}?", "Tell me the sum of {a} and {b}.", "Can you add {a} and {b}?", "Please tell me {a} plus {b}.",
              "How many do {a} and {b} make?"]


def held_out_pairs():
    """500 unordered pairs of two-digit numbers, as sorted tuples."""
    pairs = [(a, b) for a in range(10, 100) for b in range(a, 100)]
    return frozenset(random.Random(HELD_OUT_SEED).sample(pairs, HELD_OUT_COUNT))


HELD_OUT = held_out_pairs()


def is_held_out(a, b):
    return (min(a, b), max(a, b)) in HELD_OUT


def worked_answer(a, b):
    """Ones first with the carry made explicit, then tens, then the number: easy to say one digit after the other."""
    if a < 10 and b < 10:
        return f"{a} + {b} = {a + b}."
    ones = a % 10 + b % 10
    tens = a // 10 + b // 10 + ones // 10
    return f"Ones: {a % 10} + {b % 10} = {ones}. Tens: {a // 10} + {b // 10} + {ones // 10} = {tens}. So {a} + {b} = {a + b}."


def answer_number(text):
    """The number that an answer arrives at: the one after its last equals sign; None if there is none."""
    found = re.findall(r"= (\d+)", text)
    return int(found[-1]) if found else None


def sum_turn(rng, wordings=TRAINING, single=0.25):
    """A training question and its answer; never a held-out pair, in either order."""
    while True:
        if rng.random() < single:
            a, b = rng.randint(0, 9), rng.randint(0, 9)
        elif rng.random() < 0.15:
            a, b = rng.randint(0, 9), rng.randint(10, 99)
            if rng.random() < 0.5:
                a, b = b, a
        else:
            a, b = rng.randint(10, 99), rng.randint(10, 99)
        if not is_held_out(a, b):
            return rng.choice(wordings).format(a=a, b=b), worked_answer(a, b)


def assert_excluded(question):
    """Raises when a user turn with exactly two numbers holds a held-out pair."""
    numbers = [int(n) for n in re.findall(r"\d+", question)]
    if len(numbers) == 2 and is_held_out(*numbers):
        raise AssertionError(f"held-out pair {numbers} in training text: {question!r}")
