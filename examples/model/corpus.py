"""Turns seeded documents into packed training rows: ids, loss weights and document numbers, never splitting a document."""

import random
import re
from functools import partial

import numpy as np

import early_story
import story
from chats import (TOLD, WORLD, easy_notes_chat, echo_chat, link_chat, long_chat, mixed_link_chat, notes_chat, plain_recital_chat, recital_chat, short_chat,
                   story_chat, story_turn)
from early_forms import BIRDS, FEELINGS, MANNERS, MOODS, NATURE, SKIES, SOUNDS, TALK, TIMES
from sums import EVALUATION as SUM_EVALUATION, MORE_TRAINING as MORE_SUMS, assert_excluded, sum_turn
from world import COLOURS, OBJECTS, PEOPLE, PLACES, SIZES

BOS_DROP = 0.1        # some documents start without <|bos|>, so that a server that does not add it is served too
PROMPT_WEIGHT = 0.0   # loss weight of what system and user say


def held_out_wordings():
    """One regular expression that matches any user turn in an evaluation wording."""
    forms = [form for table in (WORLD, TOLD) for entry in table.values() for form in entry[-2]] + list(SUM_EVALUATION)
    return re.compile("|".join(re.sub(r"\\\{\w+\\\}", r"\\w+", re.escape(form)) for form in forms), re.IGNORECASE)


HELD_OUT_WORDINGS = held_out_wordings()


# shortest and longest echo, in words: a fixed distance first, so that copying is learned before finding
ECHOES = {"echo_chat": (4, 40), "same_echo": (8, 8), "near_echo": (6, 10), "wide_echo": (3, 20)}


def story_document(tokenizer, text):
    ids = tokenizer.encode(text) + [tokenizer.im_end]
    return ids, [1.0] * len(ids)


def chat_document(tokenizer, chat):
    for role, text in chat:
        if role == "user":
            assert_excluded(text)
            if HELD_OUT_WORDINGS.search(text):
                raise AssertionError(f"held-out wording in training text: {text!r}")
    ids, mask = tokenizer.encode_chat(chat)
    return ids, [1.0 if m else PROMPT_WEIGHT for m in mask]


def sums_chat(rng):
    chat = []
    for _ in range(rng.randint(2, 5)):
        question, answer = sum_turn(rng)
        chat += [("user", question), ("assistant", answer)]
    return chat


def mixed_sums_chat(rng):
    """More wordings, and more of the single digits."""
    chat = []
    for _ in range(rng.randint(2, 5)):
        question, answer = sum_turn(rng, MORE_SUMS, single=0.4)
        chat += [("user", question), ("assistant", answer)]
    return chat


CHATS = {"chat": short_chat, "notes_chat": notes_chat, "easy_notes_chat": easy_notes_chat, "plain_recital_chat": plain_recital_chat,
         "recital_chat": recital_chat, "sums": sums_chat, "mixed_sums": mixed_sums_chat, "side_by_side": partial(link_chat, hardest=0),
         "mixed_links": mixed_link_chat, "links": partial(link_chat, hardest=2), "told_links": partial(link_chat, hardest=3),
         "wide_links": partial(link_chat, hardest=3, fewest=12, most=45, asked=12)}


def make_document(rng, tokenizer, mix):
    """mix: {kind: weight}; returns (kind, ids, weights) with <|bos|> in front."""
    kind = rng.choices(list(mix), list(mix.values()))[0]
    base, tellers = kind, dict(tell_story=story.tell_story, tell_long_story=story.tell_long_story)
    if kind.startswith("early_"):
        base = kind.removeprefix("early_")
        pair = early_story.PAIR if base.startswith("pair_") else early_story.SIMPLE if base.startswith("simple_") else 0
        base = base.removeprefix("pair_").removeprefix("simple_")
        tellers = {name: partial(getattr(early_story, name), pair=pair) for name in tellers}
    bystander = kind.startswith("bystander_")
    if bystander:
        base, tellers["tell_story"] = kind.removeprefix("bystander_"), partial(story.tell_story, bystander=True)
    if base == "story":
        ids, weights = story_document(tokenizer, tellers["tell_story"](rng))
    elif base == "long_story":
        ids, weights = story_document(tokenizer, tellers["tell_long_story"](rng, rng.randint(3, 18))[0])
    elif base == "excerpt":
        chapters = rng.randint(2, 20)
        first = rng.randint(1, chapters - 1)
        ids, weights = story_document(tokenizer, story.tell_excerpt(rng, first, first + 1, chapters, bystander))
        if first + 1 < chapters:
            ids[-1:] = tokenizer.encode("\n")
    elif base == "story_chat":
        ids, weights = chat_document(tokenizer, story_chat(rng, **tellers))
    elif base == "long_story_chat":
        question, text = story_turn(rng, rng.randint(3, 16), **tellers)
        ids, weights = chat_document(tokenizer, [("user", question), ("assistant", text)])
    elif base == "long_chat":
        ids, weights = chat_document(tokenizer, long_chat(rng, rng.randint(15, 125), rng.randint(4, 14)))
    elif base in ECHOES:
        ids, weights = chat_document(tokenizer, echo_chat(rng, *ECHOES[base]))
    else:
        ids, weights = chat_document(tokenizer, CHATS[base](rng))
    if rng.random() >= BOS_DROP:
        ids, weights = [tokenizer.bos] + ids, [0.0] + weights
    return kind, ids, weights


def decoration_ids(tokenizer):
    """Words of one token that stories draw uniformly and that mean nothing later: pure noise to the gradient."""
    words = {*MANNERS, *SKIES, *NATURE, *MOODS, *BIRDS, *SOUNDS, *FEELINGS, *SIZES, *TIMES, *TALK} - {*PLACES, "called"}
    ids = [tokenizer.encode(" " + word) for word in sorted(words)]
    return np.array([piece[0] for piece in ids if len(piece) == 1])


def tracked_ids(tokenizer):
    """Names, objects, places and colours: the words whose choice depends on what was said before."""
    words = [*PEOPLE, *PLACES, *OBJECTS, *COLOURS, "She", "He"]
    pieces = [tokenizer.encode(space + word) for word in words for space in ("", " ")]
    return np.array(sorted({piece[0] for piece in pieces if len(piece) == 1}))


def handling_ids(tokenizer):
    """Verbs that only the one who holds a thing may take, or only the other one."""
    words = "gave handed passed took got held cleaned showed carried".split()
    return np.array([tokenizer.encode(" " + word)[0] for word in words])


def make_rows(seed, tokenizer, mix, length, rows, decoration_weight=1.0, tracked_weight=1.0, handling_weight=1.0, ending_weight=1.0):
    """Packs documents first-fit into `rows` rows of length + 1 tokens; the same arguments give the same rows.

    Documents longer than a row are left out. Returns (ids uint16, weights float32, documents uint16), each [rows, length + 1].
    """
    rng = random.Random(f"{seed} {length} {rows}")
    size = length + 1
    ids = np.full((rows, size), tokenizer.pad, np.uint16)
    weights = np.zeros((rows, size), np.float32)
    documents = np.zeros((rows, size), np.uint16)
    used, open_rows, number = [], [], 0
    while True:
        _, tokens, loss = make_document(rng, tokenizer, mix)
        if len(tokens) > size:
            continue
        number += 1
        row = next((r for r in open_rows if used[r] + len(tokens) <= size), None)
        if row is None:
            if len(used) == rows:
                break
            row = len(used)
            used.append(0)
            open_rows.append(row)
        a, b = used[row], used[row] + len(tokens)
        ids[row, a:b], weights[row, a:b], documents[row, a:b] = tokens, loss, number
        used[row] = b
        if size - b < 16 or len(open_rows) > 24:
            open_rows.remove(max(open_rows, key=lambda r: used[r]) if size - b >= 16 else row)
    if decoration_weight != 1.0:
        weights[np.isin(ids, decoration_ids(tokenizer))] *= decoration_weight
    if tracked_weight != 1.0:
        weights[np.isin(ids, tracked_ids(tokenizer))] *= tracked_weight
    if handling_weight != 1.0:
        weights[np.isin(ids, handling_ids(tokenizer))] *= handling_weight
    if ending_weight != 1.0:
        weights[np.isin(ids, [tokenizer.im_end, *tokenizer.encode("\n")])] *= ending_weight
    order = np.array(rng.sample(range(rows), rows))
    return ids[order], weights[order], documents[order]
