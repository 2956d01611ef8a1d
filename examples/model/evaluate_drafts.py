"""How often the draft model and each Medusa head name the token that the target emits, per position and kind of text."""

import random

import torch

from evaluate import SEED, held_out_openings
from chats import Notes, world_turn
from generate import generate
from sums import EVALUATION, HELD_OUT


def prompts_of(kind, tokenizer, count=60):
    rng = random.Random(f"{SEED} {kind}")
    if kind.startswith("stories"):
        return [[tokenizer.bos] + tokenizer.encode(text) for text in held_out_openings(count)]
    chats = []
    for _ in range(count):
        if kind == "sums":
            a, b = rng.choice(sorted(HELD_OUT))
            chats.append([("user", rng.choice(EVALUATION).format(a=a, b=b))])
        elif rng.random() < 0.5:
            chats.append([("user", world_turn(rng, held_out=True)[0])])
        else:
            notes = Notes(rng, 5)
            chats.append([("system", notes.text()), ("user", notes.turn(held_out=True)[0])])
    return [[tokenizer.bos] + tokenizer.encode_chat(chat, generate=True)[0] for chat in chats]


def references(target, tokenizer, kind):
    """[(prompt length, prompt + what the target says)]; temperature 0, except for the stories sampled at 0.8."""
    prompts = prompts_of(kind, tokenizer)
    temperature = 0.8 if kind == "stories at 0.8" else 0.0
    out = generate(target, prompts, 200, tokenizer.im_end, temperature, seed=SEED)
    return [(len(prompt), prompt + ids + [tokenizer.im_end]) for prompt, ids in zip(prompts, out)]


@torch.no_grad()
def measure_heads(target, heads, texts):
    """Share of positions t in the answer where head i's first choice is the token at t + 2 + i."""
    right, number = [0] * len(heads.heads), [0] * len(heads.heads)
    for start, ids in texts:
        tokens = torch.tensor(ids)
        causal = torch.full((len(ids), len(ids)), float("-inf")).triu(1)[None, None]
        hidden = target.hidden(tokens[None], causal)[0]
        for i, head in enumerate(heads.heads):
            at = torch.arange(start - 1, len(ids) - 2 - i)
            if len(at):
                guess = head(hidden[at]).argmax(-1)
                right[i] += int((guess == tokens[at + 2 + i]).sum())
                number[i] += len(at)
    return [round(r / max(1, n), 3) for r, n in zip(right, number)]


def measure_draft(draft, texts, count=240, depth=4):
    """From random places of the answers: share of chains whose first k greedy draft tokens are all right, for k = 1 .. depth."""
    rng = random.Random(SEED)
    places = [(ids[:at], ids[at:at + depth]) for start, ids in texts for at in range(start, len(ids) - depth + 1)]
    places = rng.sample(places, min(count, len(places)))
    stop = -1
    right = [0] * depth
    for a in range(0, len(places), 60):
        chunk = places[a:a + 60]
        for guess, (_, truth) in zip(generate(draft, [prefix for prefix, _ in chunk], depth, stop), chunk):
            for k in range(depth):
                right[k] += guess[:k + 1] == truth[:k + 1]
    return [round(r / len(places), 3) for r in right]


def measure_speculation(target, draft, heads, tokenizer):
    result = {}
    for kind in ("stories at 0", "stories at 0.8", "chats", "sums"):
        texts = references(target, tokenizer, kind)
        result[kind] = {"draft, first k right": measure_draft(draft, texts), "heads, each alone": measure_heads(target, heads, texts)}
    return result
