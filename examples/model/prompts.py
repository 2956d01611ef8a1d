"""Writes eval/*.jsonl: small samples of the held-out items, for tests of the server that need prompts with known answers."""

import json
import os
import random

from chats import GUIDES, REFUSAL, Notes
from evaluate import SEED, held_out_openings, world_items
from refusals import HELD_OUT as HELD_OUT_QUESTIONS
from sums import EVALUATION as SUM_WORDINGS, HELD_OUT as HELD_OUT_PAIRS, worked_answer


def chat_items():
    """{"kind", "messages", "expect"}: the reply at temperature 0 should equal `expect`."""
    rng = random.Random(SEED)
    items = [("world", [("user", question)], answer) for _, question, answer in rng.sample(world_items(), 40)]
    for _ in range(20):
        notes = Notes(rng, rng.randint(2, 8))
        question, answer = notes.turn(held_out=True)
        items.append(("told", [("system", rng.choice(GUIDES) + " " + notes.text()), ("user", question)], answer))
    for a, b in rng.sample(sorted(HELD_OUT_PAIRS), 20):
        items.append(("sum", [("user", rng.choice(SUM_WORDINGS).format(a=a, b=b))], worked_answer(a, b)))
    items += [("refusal", [("user", question)], REFUSAL) for question in rng.sample(HELD_OUT_QUESTIONS, 20)]
    return [{"kind": kind, "messages": [{"role": role, "content": text} for role, text in messages], "expect": answer}
            for kind, messages, answer in items]


def write_prompts(folder):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "chats.jsonl"), "w") as file:
        file.writelines(json.dumps(item) + "\n" for item in chat_items())
    with open(os.path.join(folder, "openings.jsonl"), "w") as file:
        file.writelines(json.dumps({"kind": "story", "prompt": text}) + "\n" for text in held_out_openings(40))
