#!/usr/bin/env python3
"""Makes the model that ships, from nothing but seeds: tokenizer, target, draft, Medusa heads, exported files, evaluation.

    /usr/bin/python3 make_model.py --work DIR            every stage, continuing from what DIR already holds
    /usr/bin/python3 make_model.py --work DIR target     one stage: tokenizer pilot base target draft heads export evaluate evaluate_drafts

Needs Debian's python3-torch, python3-numpy and python3-regex. DIR keeps checkpoints; files to commit are written to --out.
"""

import argparse
import json
import os
import random
import shutil

import numpy as np
import torch

from chats import GUIDES, HEADINGS, NOT_TOLD, REFUSAL, SMALL_TALK, Notes, world_turn
from corpus import make_rows
from evaluate import (held_out_loss, loss_by_position, measure_long_chats, measure_long_stories, measure_refusals, measure_stories,
                      measure_told, measure_world, sum_accuracy)
from evaluate_drafts import measure_speculation
from export import export_model, load_model
from heads import MedusaHeads, distillation_loss, export_heads, heads_loss, load_heads
from network import Llama, Shape
from prompts import write_prompts
from refusals import refusal_question
from early_story import tell_story as tell_early_story
from sums import sum_turn
from tokenizer import Tokenizer, train_merges
from train import CHUNK_STEPS, Phase, train

SEED = 1
VOCABULARY = 1408
TARGET = Shape(VOCABULARY, embedding_length=256, block_count=5, feed_forward_length=448, head_count=4, head_count_kv=2)
DRAFT = Shape(VOCABULARY, embedding_length=128, block_count=3, feed_forward_length=256, head_count=2, head_count_kv=1)

FIRST = dict(early_story=0.28, chat=0.55, sums=0.07, early_story_chat=0.10)
SECOND = dict(early_story=0.28, chat=0.50, sums=0.12, early_story_chat=0.10)
SHORT = dict(early_story=0.30, chat=0.25, notes_chat=0.25, sums=0.10, early_story_chat=0.10)
EASY = dict(early_story=0.15, chat=0.10, easy_notes_chat=0.60, notes_chat=0.04, sums=0.06, early_story_chat=0.05)
LOOKUP = dict(easy_notes_chat=0.40, notes_chat=0.25, chat=0.27, sums=0.08)
COPY = dict(echo_chat=0.30, recital_chat=0.30, easy_notes_chat=0.15, notes_chat=0.10, chat=0.12, sums=0.03)
SAME = dict(same_echo=0.70, easy_notes_chat=0.12, chat=0.15, sums=0.03)
NEAR = dict(near_echo=0.55, easy_notes_chat=0.25, chat=0.15, sums=0.05)
WIDE = dict(wide_echo=0.35, recital_chat=0.20, easy_notes_chat=0.15, notes_chat=0.15, chat=0.12, sums=0.03)
TRACKING = dict(early_story=0.40, chat=0.17, notes_chat=0.12, easy_notes_chat=0.05, recital_chat=0.08, wide_echo=0.05, sums=0.05, early_story_chat=0.08)
PLAIN = dict(early_story=0.38, chat=0.15, notes_chat=0.10, plain_recital_chat=0.18, wide_echo=0.05, sums=0.05, early_story_chat=0.09)
STORIES = dict(early_story=0.55, chat=0.11, notes_chat=0.07, plain_recital_chat=0.10, wide_echo=0.03, sums=0.04, early_story_chat=0.10)
PAIRS = dict(early_pair_story=0.55, chat=0.12, notes_chat=0.06, plain_recital_chat=0.10, wide_echo=0.03, sums=0.04, early_pair_story_chat=0.10)
ALONE = dict(early_simple_story=0.55, chat=0.12, notes_chat=0.06, plain_recital_chat=0.10, wide_echo=0.03, sums=0.04, early_simple_story_chat=0.10)
MIDDLE = dict(early_simple_story=0.22, chat=0.25, notes_chat=0.08, plain_recital_chat=0.08, sums=0.05, early_simple_story_chat=0.10, long_chat=0.08,
              early_simple_long_story=0.12, early_simple_long_story_chat=0.02)
LONG = dict(early_simple_story=0.18, chat=0.30, notes_chat=0.08, sums=0.05, early_simple_story_chat=0.08, long_chat=0.11, early_simple_long_story=0.15,
            early_simple_long_story_chat=0.05)

BASE_PHASES = [
    Phase("short-small", FIRST, length=256, rows=8, steps=1300, seed=SEED),
    Phase("short", SECOND, length=256, rows=8, steps=200, seed=SEED, decoration_weight=0.25),
    Phase("short-calm", SECOND, length=256, rows=8, steps=400, seed=SEED, decoration_weight=0.25, rate=0.5),
    Phase("notes", SHORT, length=256, rows=8, steps=600, seed=SEED, decoration_weight=0.25, rate=0.5),
    Phase("easy-notes", EASY, length=256, rows=8, steps=600, seed=SEED, decoration_weight=0.25, rate=0.75),
    Phase("lookup", LOOKUP, length=256, rows=8, steps=600, seed=SEED, rate=0.5),
    Phase("copy", COPY, length=256, rows=8, steps=400, seed=SEED, rate=0.5, tracked_weight=2.0),
    Phase("same-echo", SAME, length=256, rows=8, steps=150, seed=SEED, rate=0.5),
    Phase("near-echo", NEAR, length=256, rows=8, steps=150, seed=SEED, rate=0.5),
    Phase("wide-echo", WIDE, length=256, rows=8, steps=250, seed=SEED, rate=0.5),
    Phase("tracking", TRACKING, length=256, rows=8, steps=550, seed=SEED, decoration_weight=0.1, tracked_weight=2.0, rate=0.5),
    Phase("plain", PLAIN, length=256, rows=8, steps=400, seed=SEED, decoration_weight=0.1, tracked_weight=2.0, rate=0.5),
    Phase("stories", STORIES, length=256, rows=8, steps=700, seed=SEED, decoration_weight=0.1, tracked_weight=2.0, rate=0.5),
    Phase("pairs", PAIRS, length=256, rows=8, steps=800, seed=SEED, decoration_weight=0.1, tracked_weight=2.0, rate=0.5),
    Phase("one-thing", ALONE, length=256, rows=8, steps=1000, seed=SEED, decoration_weight=0.1, tracked_weight=2.0, rate=0.5),
    Phase("holders", ALONE, length=256, rows=8, steps=300, seed=SEED, decoration_weight=0.1, tracked_weight=2.0, handling_weight=4.0,
          rate=0.5),
    Phase("middle", MIDDLE, length=1024, rows=2, steps=200, seed=SEED, decoration_weight=0.2, tracked_weight=2.0, handling_weight=3.0,
          rate=0.5),
    Phase("long", LONG, length=2048, rows=1, steps=100, seed=SEED, decoration_weight=0.3, tracked_weight=2.0, handling_weight=3.0, rate=0.5),
]
SIDE_BY_SIDE = dict(side_by_side=0.80, wide_echo=0.08, chat=0.08, mixed_sums=0.04)
LINKS = dict(links=0.70, side_by_side=0.08, wide_echo=0.05, chat=0.12, mixed_sums=0.05)
BYSTANDERS = dict(bystander_story=0.36, bystander_excerpt=0.14, bystander_story_chat=0.10, told_links=0.12, notes_chat=0.08, chat=0.14,
                  mixed_sums=0.06)
TALES = dict(story=0.26, excerpt=0.12, story_chat=0.08, told_links=0.10, mixed_links=0.10, notes_chat=0.10, chat=0.16, mixed_sums=0.08)
CHAPTERS = dict(story=0.14, story_chat=0.06, long_story=0.09, long_story_chat=0.02, long_chat=0.13, wide_links=0.14, told_links=0.10,
                notes_chat=0.04, chat=0.19, mixed_sums=0.09)
MANY_CHAPTERS = dict(story=0.14, story_chat=0.06, long_story=0.20, long_story_chat=0.04, long_chat=0.12, wide_links=0.10, told_links=0.07,
                     notes_chat=0.04, chat=0.15, mixed_sums=0.08)
SETTLED = dict(story=0.42, story_chat=0.10, excerpt=0.16, mixed_links=0.07, notes_chat=0.07, chat=0.11, mixed_sums=0.07)

TARGET_PHASES = [   # continues from the base with a fresh optimiser
    Phase("side-by-side", SIDE_BY_SIDE, length=256, rows=8, steps=400, seed=SEED),
    Phase("links", LINKS, length=256, rows=8, steps=400, seed=SEED),
    Phase("tales", BYSTANDERS, length=256, rows=8, steps=1000, seed=SEED, decoration_weight=0.3, tracked_weight=2.0),
    Phase("plain-tales", TALES, length=256, rows=8, steps=1500, seed=SEED, decoration_weight=0.3, tracked_weight=2.0),
    Phase("firm-tales", TALES, length=256, rows=8, steps=1000, seed=SEED, decoration_weight=0.3, tracked_weight=4.0),
    Phase("chapters", CHAPTERS, length=1024, rows=2, steps=400, seed=SEED, decoration_weight=0.3, tracked_weight=4.0),
    Phase("long-chapters", CHAPTERS, length=2048, rows=1, steps=120, seed=SEED, decoration_weight=0.5, tracked_weight=4.0),
    Phase("settled", SETTLED, length=256, rows=8, steps=280, seed=SEED, decoration_weight=0.6, tracked_weight=2.0),
    Phase("many-chapters", MANY_CHAPTERS, length=2048, rows=1, steps=1200, seed=SEED, decoration_weight=0.5, tracked_weight=3.0,
          ending_weight=4.0),
]
TARGET_RATE = [(0, 1e-3 / 60), (60, 1e-3), (3300, 1e-3), (4500, 4.783e-4), (4820, 2e-5), (4821, 4e-4), (4900, 3.228e-4), (5100, 1e-5),
               (5140, 4e-4), (5700, 4e-4), (6300, 1e-5)]
BASE_DRAFT_PHASES = [
    Phase("draft-short", ALONE, length=256, rows=8, steps=480, seed=SEED + 1),
    Phase("draft-middle", MIDDLE, length=1024, rows=2, steps=40, seed=SEED + 1),
]
DRAFT_PHASES = [
    Phase("draft-tales", TALES, length=256, rows=8, steps=600, seed=SEED + 1),
]
HEADS_PHASES = [
    Phase("heads-tales", TALES, length=256, rows=8, steps=600, seed=SEED + 2),
]


class Maker:
    def __init__(self, options):
        self.work, self.out, self.low_precision = options.work, options.out, options.bf16

    def at(self, name):
        return os.path.join(self.work, name)

    def shipped(self, name):
        return os.path.join(self.out, name)

    def tokenizer(self):
        path = self.at("tokenizer.json")
        if not os.path.exists(path):
            Tokenizer(train_merges(tokenizer_texts(), VOCABULARY)).save(path)
        return Tokenizer.load(path)

    def pilot(self):
        """Sums alone for two minutes: shows that the worked line carries over to pairs never seen, before the long run starts."""
        phases = [Phase("pilot", dict(sums=1.0), length=256, rows=8, steps=300, seed=SEED)]
        model = train(lambda: Llama(TARGET), phases, self.tokenizer(), self.at("pilot.pt"), SEED, decay_steps=100,
                      low_precision=self.low_precision)
        print("held-out pairs:", sum_accuracy(model, self.tokenizer(), held_out_pairs=True, limit=200))

    def base(self):
        return train(lambda: Llama(TARGET), BASE_PHASES, self.tokenizer(), self.at("base.pt"), SEED, decay_steps=1200,
                     low_precision=self.low_precision)

    def target(self):
        return train(self.base, TARGET_PHASES, self.tokenizer(), self.at("target.pt"), SEED, peak=1e-3, low_precision=self.low_precision,
                     points=TARGET_RATE)

    def frozen(self, model, name):
        """A target as it ships, so that draft and heads learn to agree with the quantised weights."""
        if not os.path.exists(self.at(name)):
            export_model(model(), self.tokenizer(), self.at(name), "sluice-tiny", quantised=True)
        return load_model(self.at(name)).requires_grad_(False)

    def frozen_target(self):
        return self.frozen(self.target, "target.gguf")

    def base_draft(self):
        return train(lambda: Llama(DRAFT), BASE_DRAFT_PHASES, self.tokenizer(), self.at("base_draft.pt"), SEED + 1, peak=3e-3, decay_steps=200,
                     low_precision=self.low_precision, loss_of=distillation_loss(self.frozen(self.base, "base.gguf")))

    def draft(self):
        return train(self.base_draft, DRAFT_PHASES, self.tokenizer(), self.at("draft.pt"), SEED + 1, peak=2e-3, warmup=30, decay_steps=250,
                     low_precision=self.low_precision, loss_of=distillation_loss(self.frozen_target()))

    def heads(self):
        target = self.frozen_target()
        return train(lambda: MedusaHeads(target), HEADS_PHASES, self.tokenizer(), self.at("heads.pt"), SEED + 2, peak=2e-3, warmup=50,
                     decay_steps=250, low_precision=self.low_precision, loss_of=heads_loss(target))

    def export(self):
        tokenizer = self.tokenizer()
        self.frozen_target()
        shutil.copyfile(self.at("target.gguf"), self.shipped("sluice-tiny-q8_0.gguf"))
        export_model(self.draft(), tokenizer, self.shipped("sluice-tiny-draft-f16.gguf"), "sluice-tiny-draft", quantised=False)
        export_heads(self.heads(), self.shipped("sluice-tiny-medusa.safetensors"), "sluice-tiny-q8_0.gguf")
        write_prompts(self.shipped("eval"))

    def note(self, name, result, example=None):
        """Adds one measurement to evaluation.json in the work folder."""
        path = self.at("evaluation.json")
        notes = {}
        if os.path.exists(path):
            with open(path) as file:
                notes = json.load(file)
        notes[name] = {"result": result, "examples": example}
        with open(path, "w") as file:
            json.dump(notes, file, indent=1)
        print(name, json.dumps(result), flush=True)

    def evaluate(self):
        """The target, from the file that ships; each figure of the model card."""
        tokenizer, target = self.tokenizer(), load_model(self.at("target.gguf")).requires_grad_(False)
        self.note("sums, single digits", sum_accuracy(target, tokenizer, held_out_pairs=False))
        self.note("sums, held-out pairs", sum_accuracy(target, tokenizer, held_out_pairs=True))
        self.note("refusals", *measure_refusals(target, tokenizer))
        self.note("facts told in the system prompt", *measure_told(target, tokenizer))
        self.note("world", *measure_world(target, tokenizer))
        self.note("long chats, 125 facts", *measure_long_chats(target, tokenizer))
        self.note("long chats, 8 facts", *measure_long_chats(target, tokenizer, facts=8, village=110))
        for temperature in (0.8, 0.0):
            self.note(f"long stories at {temperature}", measure_long_stories(target, tokenizer, temperature=temperature))
        self.note("held-out loss", held_out_loss(target, tokenizer, [("story", 256, 40), ("long_story", 2048, 8), ("chat", 256, 40),
                                                                      ("notes_chat", 256, 40), ("mixed_sums", 256, 20), ("long_chat", 2048, 8)]))
        self.note("loss by position", loss_by_position(target, tokenizer))
        for top_p in (1.0, 0.95):      # 0.95 is what the file asks for when a request does not say
            stories, rejected, samples = measure_stories(target, tokenizer, self.training_ids(), top_p)
            self.note(f"stories, top_p {top_p}", stories, {"rejected": rejected, "first three": samples})

    def training_ids(self):
        """Every row that the target was trained on, one after the other; kept in the work folder."""
        parts = []
        for name, phases in (("base_ids.npy", BASE_PHASES), ("target_ids.npy", TARGET_PHASES)):
            if not os.path.exists(self.at(name)):
                with open(self.at(name) + ".new", "wb") as file:
                    np.save(file, np.concatenate([phase_ids(self.tokenizer(), phase).ravel() for phase in phases]))
                os.replace(self.at(name) + ".new", self.at(name))
            parts.append(np.load(self.at(name)))
        return np.concatenate(parts)

    def evaluate_drafts(self):
        tokenizer, target = self.tokenizer(), load_model(self.at("target.gguf")).requires_grad_(False)
        draft = load_model(self.shipped("sluice-tiny-draft-f16.gguf")).requires_grad_(False)
        heads = load_heads(self.shipped("sluice-tiny-medusa.safetensors"), target)
        self.note("speculation", measure_speculation(target, draft, heads, tokenizer))


def tokenizer_texts():
    """Text in which every word of the world is frequent; refusals only lightly, so that foreign words stay in small pieces."""
    rng = random.Random(SEED)
    texts = [tell_early_story(rng) for _ in range(1500)]
    for _ in range(16000):
        texts += world_turn(rng)
    for _ in range(3000):
        texts += [Notes(rng, 4).text(), *Notes(rng, 3).turn()]
    for _ in range(1500):
        texts += [*sum_turn(rng), refusal_question(rng)]
    for _ in range(300):
        texts += [text for questions, answer in SMALL_TALK for text in (answer, *questions)]
        texts += GUIDES + HEADINGS + [REFUSAL, NOT_TOLD, "system\n", "user\n", "assistant\n", "\n", "Chapter 1 of 2. "]
    return texts


def phase_ids(tokenizer, phase):
    """All rows that a phase trains on."""
    chunks = (phase.steps + CHUNK_STEPS - 1) // CHUNK_STEPS
    return np.concatenate([make_rows(f"{phase.seed} {phase.name} {chunk}", tokenizer, phase.mix, phase.length, CHUNK_STEPS * phase.rows)[0]
                        for chunk in range(chunks)])


STAGES = ["tokenizer", "target", "draft", "heads", "export", "evaluate", "evaluate_drafts"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", help=f"default: {' '.join(STAGES)}")
    parser.add_argument("--work", required=True, help="folder for checkpoints")
    parser.add_argument("--out", default=os.path.dirname(os.path.abspath(__file__)), help="folder for the files that ship")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="matrix products of training in bfloat16; faster where the CPU has avx512_bf16")
    options = parser.parse_args()
    for stage in options.stages:
        if stage not in STAGES + ["pilot", "base"]:
            parser.error(f"unknown stage {stage!r}; one of {' '.join(STAGES)} pilot base")
    os.makedirs(options.work, exist_ok=True)
    torch.set_num_threads(options.threads)
    maker = Maker(options)
    for stage in options.stages or STAGES:
        getattr(maker, stage)()


if __name__ == "__main__":
    main()
