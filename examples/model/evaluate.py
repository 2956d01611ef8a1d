"""Measures the exported files (dequantised) against held-out items; every figure of the model card comes from here."""

import random
import re

import numpy as np
import torch

from chats import GUIDES, NOT_TOLD, REFUSAL, WORLD, LongNotes, Notes, long_prompt, world_slots, world_turn
from checker import why_rejected
from corpus import make_rows
from generate import generate
from refusals import HELD_OUT as HELD_OUT_QUESTIONS
from story import tell_long_story, tell_story
from sums import EVALUATION as SUM_WORDINGS, HELD_OUT as HELD_OUT_PAIRS, answer_number
from train import row_loss
from world import PEOPLE

SEED = 1000     # evaluation draws; training seeds are far from it


def answers(model, tokenizer, chats, max_tokens=60, batch=50):
    """Greedy assistant replies to chats ([(role, text)] each ending in a user turn)."""
    out = []
    for a in range(0, len(chats), batch):
        prompts = [[tokenizer.bos] + tokenizer.encode_chat(chat, generate=True)[0] for chat in chats[a:a + batch]]
        out += [tokenizer.decode(ids) for ids in generate(model, prompts, max_tokens, tokenizer.im_end)]
    return out


def share(flags):
    flags = list(flags)
    return {"right": sum(map(bool, flags)), "of": len(flags), "share": round(sum(map(bool, flags)) / len(flags), 4)}


def world_items():
    """Every person times every held-out wording: (kind, question, answer)."""
    return [(kind, form.format(**world_slots(name)), answer.format(**world_slots(name)))
            for kind, (_, wordings, answer) in WORLD.items() for form in wordings for name in PEOPLE]


def measure_world(model, tokenizer):
    items = world_items()
    replies = answers(model, tokenizer, [[("user", question)] for _, question, _ in items])
    right = [reply == answer for reply, (_, _, answer) in zip(replies, items)]
    kinds = {kind: share(r for r, item in zip(right, items) if item[0] == kind) for kind in WORLD}
    return {"all": share(right), **kinds}, [(item[1], reply) for item, reply, ok in zip(items, replies, right) if not ok][:20]


def measure_told(model, tokenizer, count=300):
    """Facts from a short system prompt, asked in held-out wordings."""
    rng = random.Random(SEED)
    items = []
    for _ in range(count):
        notes = Notes(rng, rng.randint(2, 10))
        system = rng.choice(GUIDES) + " " + notes.text()
        items.append(([("system", system), ("user", (turn := notes.turn(held_out=True))[0])], turn[1]))
    replies = answers(model, tokenizer, [chat for chat, _ in items])
    wrong = [(chat, reply, answer) for (chat, answer), reply in zip(items, replies) if reply != answer]
    return {"all": share(reply == answer for (_, answer), reply in zip(items, replies)),
            "not told": share(reply == answer for (_, answer), reply in zip(items, replies) if answer == NOT_TOLD)}, wrong[:10]


def sum_accuracy(model, tokenizer, held_out_pairs, limit=None):
    rng = random.Random(SEED)
    if held_out_pairs:
        items = [(rng.choice(SUM_WORDINGS), *(pair if rng.random() < 0.5 else pair[::-1])) for pair in sorted(HELD_OUT_PAIRS)]
        items = rng.sample(items, limit) if limit else items
    else:
        items = [(form, a, b) for form in SUM_WORDINGS for a in range(10) for b in range(10)]
    replies = answers(model, tokenizer, [[("user", form.format(a=a, b=b))] for form, a, b in items])
    return share(answer_number(reply) == a + b for reply, (_, a, b) in zip(replies, items))


def measure_refusals(model, tokenizer):
    replies = answers(model, tokenizer, [[("user", question)] for question in HELD_OUT_QUESTIONS])
    return share(reply == REFUSAL for reply in replies), [pair for pair in zip(HELD_OUT_QUESTIONS, replies) if pair[1] != REFUSAL]


def held_out_openings(count=200):
    """First sentences of stories whose (person, place) never opens a training story."""
    rng = random.Random(SEED)
    return [re.match(r".*?\.(?= )", tell_story(rng, held_out=True))[0] for _ in range(count)]


def grams(ids, n):
    """A 64-bit hash of every run of n ids."""
    ids = np.asarray(ids, np.uint64)
    out = np.zeros(max(0, len(ids) - n + 1), np.uint64)
    for k in range(n):
        out = out * np.uint64(6364136223846793005) + ids[k:k + len(out)] + np.uint64(1)
    return out


def longest_overlaps(stories, training_ids):
    """For each story (ids) the longest run of tokens that also stands in the training text; runs below 12 count as 0."""
    longest = [0] * len(stories)
    for n in range(12, 60):
        seen = np.sort(grams(training_ids, n))
        found = False
        for i, story in enumerate(stories):
            mine = grams(story, n)
            at = np.minimum(np.searchsorted(seen, mine), len(seen) - 1)
            if len(mine) and (seen[at] == mine).any():
                longest[i], found = n, True
        if not found:
            break
    return longest


def measure_stories(model, tokenizer, training, top_p, temperature=0.8):
    openings = held_out_openings()
    prompts = [[tokenizer.bos] + tokenizer.encode(text) for text in openings]
    out = []
    for a in range(0, len(prompts), 50):
        out += generate(model, prompts[a:a + 50], 400, tokenizer.im_end, temperature, seed=SEED + a, top_p=top_p)
    texts = [opening + tokenizer.decode(ids) for opening, ids in zip(openings, out)]
    reasons = [why_rejected(text) for text in texts]
    result = {"accepted": share(reason is None for reason in reasons), "distinct continuations": len({tuple(ids) for ids in out}),
              "mean tokens": round(sum(map(len, out)) / len(out), 1)}
    if training is not None:
        overlaps = longest_overlaps(out, training)
        result["longest overlap with training text, tokens"] = max(overlaps)
        result["stories with an overlap above 20 tokens"] = sum(n > 20 for n in overlaps)
        result["mean longest overlap"] = round(sum(overlaps) / len(overlaps), 1)
    return result, [(text, reason) for text, reason in zip(texts, reasons) if reason][:10], texts[:3]


def measure_long_stories(model, tokenizer, count=8, chapters=16, temperature=0.8):
    """Stories of 16 chapters from held-out openings; one passes when it ends, is accepted and has at least 1,500 tokens."""
    openings = [f"Chapter 1 of {chapters}. {text}" for text in held_out_openings(count)]
    prompts = [[tokenizer.bos] + tokenizer.encode(text) for text in openings]
    out = generate(model, prompts, 2000, tokenizer.im_end, temperature, seed=SEED)
    rows = []
    for opening, ids in zip(openings, out):
        text = opening + tokenizer.decode(ids)
        rows.append({"tokens": len(tokenizer.encode(text)), "chapters": text.count("Chapter "), "rejected": why_rejected(text)})
    passed = sum(row["rejected"] is None and row["tokens"] >= 1500 for row in rows)
    return {"passed (accepted and >= 1,500 tokens)": passed, "accepted": sum(row["rejected"] is None for row in rows), "of": count, "runs": rows}


def measure_long_chats(model, tokenizer, facts=125, village=28, count=12, turns=8):
    """Chats over a system prompt of at least 1,000 tokens; the model's own replies are the history.

    The prompt has `village` true sentences about the village and, after them, `facts` that only the prompt tells.

    A reply is right when it is the expected sentence (sums: ends in the right number). A wrong reply about something told is in form
    when it is the expected sentence but for its one value: fluent, on the topic, and in contradiction to the prompt.
    """
    rng = random.Random(SEED)
    chats, lengths = [], []
    for _ in range(count):
        notes = LongNotes(rng, facts)
        system = long_prompt(rng, notes, village)
        lengths.append(len(tokenizer.encode(system)))
        questions = [("told", *notes.turn(held_out=True, missing=0)) for _ in range(turns - 3)]
        a, b = rng.choice(sorted(HELD_OUT_PAIRS))
        questions += [("world", *world_turn(rng, held_out=True)), ("refusal", rng.choice(HELD_OUT_QUESTIONS), REFUSAL),
                      ("sum", rng.choice(SUM_WORDINGS).format(a=a, b=b), f"= {a + b}.")]
        rng.shuffle(questions)
        chats.append(([("system", system)], questions))
    right, in_form = [], 0
    for turn in range(turns):
        for history, questions in chats:
            history.append(("user", questions[turn][1]))
        replies = answers(model, tokenizer, [history for history, _ in chats], batch=count)
        for (history, questions), reply in zip(chats, replies):
            kind, _, answer = questions[turn]
            right.append((kind, reply == answer or (kind == "sum" and reply.endswith(answer))))
            in_form += kind == "told" and not right[-1][1] and one_word_apart(reply, answer)
            history.append(("assistant", reply))
    kinds = {kind: share(ok for k, ok in right if k == kind) for kind in ("told", "world", "refusal", "sum")}
    return {"system prompt tokens": [min(lengths), max(lengths)], "all": share(ok for _, ok in right), **kinds,
            "told: in form but contradicting the prompt": in_form}, chats[0][0]


def one_word_apart(reply, answer):
    a, b = reply.rstrip(".").split(), answer.rstrip(".").split()
    return len(a) == len(b) and sum(x != y for x, y in zip(a, b)) == 1


@torch.no_grad()
def held_out_loss(model, tokenizer, mixes):
    """Mean loss (nats) per weighted token on fresh documents of each kind."""
    result = {}
    for kind, length, rows in mixes:
        data = make_rows(f"held-out {SEED}", tokenizer, {kind: 1.0}, length, rows)
        total, mass = 0.0, 0.0
        for a in range(0, rows, 4):
            part = [torch.from_numpy(x[a:a + 4].astype("int64") if i != 1 else x[a:a + 4]) for i, x in enumerate(data)]
            loss, weight, _ = row_loss(model, *part)
            total, mass = total + float(loss), mass + float(weight)
        result[kind] = round(total / mass, 4)
    return result


@torch.no_grad()
def loss_by_position(model, tokenizer, count=16, bucket=256):
    """Mean loss by position inside one document, on long stories of 2,048 tokens."""
    rng = random.Random(SEED)
    sums, numbers = np.zeros(2048 // bucket), np.zeros(2048 // bucket)
    for _ in range(count):
        ids = [tokenizer.bos]
        while len(ids) < 2049:
            ids = [tokenizer.bos] + tokenizer.encode(tell_long_story(rng, 20)[0])
        tokens = torch.tensor(ids[:2049])[None]
        _, _, loss = row_loss(model, tokens, torch.ones(1, 2049), torch.zeros(1, 2049, dtype=torch.long))
        for b in range(len(sums)):
            part = loss[0, b * bucket:(b + 1) * bucket]
            sums[b] += float(part.sum())
            numbers[b] += part.numel()
    return {f"{b * bucket}-{(b + 1) * bucket - 1}": round(float(sums[b] / numbers[b]), 4) for b in range(len(sums))}
