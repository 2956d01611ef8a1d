#!/usr/bin/env python3
"""Checks generator, checker, tokenizer, exclusions and the shipped files in a few seconds; needs numpy and regex.

    /usr/bin/python3 examples/model/selftest.py

Without them it ends with code 77 (skipped); without torch it skips only the test that runs the model.
"""

import hashlib
import json
import os
import random
import re
import struct
import sys
import unittest
from importlib.util import find_spec

absent = [name for name in ("numpy", "regex") if find_spec(name) is None]
if absent:
    print(f"SKIPPED: no python3-{' and no python3-'.join(absent)} for {sys.executable}")
    sys.exit(77)

import numpy as np

from chats import short_chat
from checker import why_rejected
from corpus import HELD_OUT_WORDINGS, make_rows
from gguf import Reader, dequantise_q8_0, quantise_q8_0
from refusals import HELD_OUT as HELD_OUT_QUESTIONS, TOPICS, WHOLE
from story import tell_long_story, tell_story
from sums import HELD_OUT as HELD_OUT_PAIRS, answer_number, assert_excluded, sum_turn, worked_answer
from tokenizer import Tokenizer
from world import COLOURS, OBJECTS, PEOPLE, PLACES, opening_is_held_out

HERE = os.path.dirname(os.path.abspath(__file__))
TARGET, DRAFT, HEADS = (os.path.join(HERE, name) for name in
                        ("sluice-tiny-q8_0.gguf", "sluice-tiny-draft-f16.gguf", "sluice-tiny-medusa.safetensors"))


def shipped_tokenizer(path=TARGET):
    return Tokenizer([tuple(merge.split(" ")) for merge in Reader(path).metadata["tokenizer.ggml.merges"]])


class Stories(unittest.TestCase):
    def test_same_seed_same_story(self):
        self.assertEqual(tell_story(random.Random(4)), tell_story(random.Random(4)))
        self.assertNotEqual(tell_story(random.Random(4)), tell_story(random.Random(5)))

    def test_checker_accepts_what_the_generator_tells(self):
        for seed in range(500):
            for bystander in (False, True):
                story = tell_story(random.Random(seed), bystander=bystander)
                self.assertIsNone(why_rejected(story), story)
        for seed in range(20):
            story = tell_long_story(random.Random(seed), 6)[0]
            self.assertIsNone(why_rejected(story), story)

    def test_checker_rejects_planted_contradictions(self):
        start = "One cold day, Ada went to the pond. Leo was gladly waiting under a bush. "
        end = " In the end, Leo gladly took the kite home. Then Ada gladly went home. That night, Leo dreamed of the kite."
        right = "Ada gladly found a small red kite. She gladly gave the red kite to Leo. Ada and Leo gladly went from the pond to the mill."
        self.assertIsNone(why_rejected(start + right + end))
        found = "Ada gladly found a small red kite. "
        given = found + "Ada gladly gave the kite to Leo. "
        for wrong, why in [
                ("Ada gladly gave the kite to Leo.", "no kite"),
                (found + "Leo gladly gave the kite to Ada.", "is held by Ada"),
                (given + "Ada gladly held the kite.", "is held by Leo"),
                (given + "Ada gladly went home with the kite.", "is held by Leo"),
                (found + "Leo gladly found a small blue drum.", "there is the kite already"),
                (given + "Leo gladly held the drum.", "no drum"),
                (given + "Leo gladly held the blue kite.", "is red, not blue"),
                (given + "The kite was blue.", "is red, not blue"),
                (given + "He gladly held the kite. She gladly held the kite.", "cannot mean Leo"),
                (given + "Ada and Leo gladly ran from the mill to the pond.", "they are at the pond"),
                (given + "Ada and Leo gladly ran from the pond to the pond.", "already at the pond"),
                (given + "They gladly walked from the mill to the inn.", "they are at the pond"),
                (given + "They gladly walked from the pond to the pond.", "already at the pond"),
                (given + "Leo gladly went home with the kite. They gladly rested in the shade.", "not two"),
                (given + "A frog sat near the mill.", "they are at the pond"),
                (given + "Ada gladly thanked Ada.", "twice"),
                (given + "Ada gladly thanked Max.", "stranger"),
                ("Max gladly came along.", "no known sentence"),
                ("Then Max gladly came by.", "nobody else can come"),
                (given + "Then Ada gladly went home.", "not home yet"),
                (given + "That night, Leo gladly dreamed of the fair.", "not at home"),
                (given + "Leo gladly went home with the kite. Leo gladly laughed.", "not there"),
                (given + "Ada flew to the sun.", "no known sentence"),
                ("Ada gladly found an small red kite.", "a/an"),
                (given, "does not end")]:
            self.assertIn(why, why_rejected(start + wrong) or "accepted", wrong)
        self.assertIn("over", why_rejected(start + right + end + " Leo gladly laughed."))

    def test_checker_rejects_wrong_chapters(self):
        story = tell_long_story(random.Random(3), 4)[0]
        self.assertIsNone(why_rejected(story))
        others = [name for name in PEOPLE if name not in story]
        second = story.split("\n")[1]
        name = next(name for name in PEOPLE if re.search(rf"\b{name}\b", second))
        for wrong in [story.replace("Chapter 2 of 4", "Chapter 3 of 4"), story.replace("Chapter 2 of 4", "Chapter 2 of 5"),
                      story.replace("That was chapter 3 of 4.", "That was chapter 2 of 4."), story.replace(" That was chapter 3 of 4.", ""),
                      story.rsplit("\n", 1)[0], story.split("\n", 1)[1], story.replace(second, second.replace(name, others[0]))]:
            self.assertIsNotNone(why_rejected(wrong), wrong)

    def test_checker_catches_random_damage(self):
        """One word of a kind that is tracked becomes another of the same kind, or one sentence with the thing is left out."""
        for words, least in ((PEOPLE, 0.8), (OBJECTS, 0.98), (COLOURS, 0.98)):
            caught = tried = 0
            for seed in range(150):
                story, rng = tell_story(random.Random(seed)), random.Random(seed)
                found = [m for m in re.finditer(rf"\b({'|'.join(words)})\b", story) if m.start() > story.index(".")]
                if len(found) < 2:
                    continue     # said once, it contradicts nothing
                hit = rng.choice(found)
                there = sorted({m[0] for m in found})
                other = rng.choice([word for word in (there if len(there) > 1 else words) if word != hit[0]])
                caught += why_rejected(story[:hit.start()] + other + story[hit.end():]) is not None
                tried += 1
            self.assertGreaterEqual(caught / tried, least, words[0])
        caught = tried = 0
        for seed in range(150):
            sentences = tell_story(random.Random(seed)).split(". ")
            given = [i for i, sentence in enumerate(sentences) if re.search(r"\b(gave|handed|passed) the ", sentence)]
            if given:
                del sentences[random.Random(seed).choice(given)]
                caught += why_rejected(". ".join(sentences)) is not None
                tried += 1
        self.assertGreaterEqual(caught / tried, 0.95)

    def test_held_out_openings_stay_out(self):
        for seed in range(400):
            opening = tell_story(random.Random(seed)).split(". ")[0]
            person = next(name for name in PEOPLE if re.search(rf"\b{name}\b", opening))
            place = next(p for p in PLACES if opening.endswith("the " + p) or f"the {p}," in opening or f"the {p} on" in opening)
            self.assertFalse(opening_is_held_out(person, place), opening)


class Chats(unittest.TestCase):
    def test_sums_are_right_and_pairs_excluded(self):
        self.assertEqual(len(HELD_OUT_PAIRS), 500)
        self.assertTrue(all(10 <= a <= b <= 99 for a, b in HELD_OUT_PAIRS))
        for a in range(100):
            for b in range(100):
                self.assertEqual(answer_number(worked_answer(a, b)), a + b)
        rng = random.Random(1)
        for _ in range(5000):
            assert_excluded(sum_turn(rng)[0])
        a, b = sorted(HELD_OUT_PAIRS)[0]
        for question in (f"What is {a} + {b}?", f"What is {b} + {a}?"):
            with self.assertRaises(AssertionError):
                assert_excluded(question)

    def test_held_out_wordings_and_questions_stay_out(self):
        self.assertTrue(HELD_OUT_WORDINGS.search("Hello. Where is Ada's house?"))
        rng = random.Random(2)
        asked = {text for _ in range(2000) for role, text in short_chat(rng) if role == "user"}
        for text in asked:
            self.assertIsNone(HELD_OUT_WORDINGS.search(text), text)
        self.assertFalse(asked & set(HELD_OUT_QUESTIONS))
        self.assertFalse(set(WHOLE) & set(HELD_OUT_QUESTIONS))
        for topic in TOPICS:
            for question in HELD_OUT_QUESTIONS:
                self.assertIsNone(re.search(rf"\b{re.escape(topic)}\b", question, re.IGNORECASE), f"{topic!r} in {question!r}")


class Files(unittest.TestCase):
    def test_tokenizer_round_trip(self):
        tokenizer = shipped_tokenizer()
        for text in [tell_story(random.Random(1)), "12 + 345 = 357.", "Ünïcödé \u4f60\u597d \U0001f600\n\n  spaces\t", "<|im_end|> is text here", ""]:
            ids = tokenizer.encode(text)
            self.assertEqual(tokenizer.decode(ids), text)
            self.assertTrue(all(i < tokenizer.first_special for i in ids))
        self.assertEqual([tokenizer.decode([i]) for i in tokenizer.encode("2048")], list("2048"))

    def test_rows_are_reproducible_and_whole(self):
        tokenizer = shipped_tokenizer()
        first, second = (make_rows("x", tokenizer, dict(story=1, chat=1, sums=1), 256, 24) for _ in range(2))
        for a, b in zip(first, second):
            self.assertTrue(np.array_equal(a, b))
        self.assertTrue(((first[1] > 0) <= (first[2] > 0)).all())

    def test_q8_0_round_trip(self):
        matrix = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
        matrix[0, :32] = 0
        back = dequantise_q8_0(quantise_q8_0(matrix), matrix.shape)
        self.assertLess(np.abs(back - matrix).max(), np.abs(matrix).max() / 250)
        self.assertEqual(quantise_q8_0(back), quantise_q8_0(back))

    def test_gguf_files(self):
        for path, layers in ((TARGET, 5), (DRAFT, 3)):
            file = Reader(path)
            meta = file.metadata
            self.assertEqual((meta["general.architecture"], meta["tokenizer.ggml.pre"], meta["llama.context_length"]), ("llama", "qwen2", 2048))
            self.assertEqual(meta["llama.block_count"], layers)
            self.assertEqual(len(file.tensors), 3 + 9 * layers)
            self.assertLessEqual(len(meta["tokenizer.ggml.tokens"]), 2048)
            self.assertEqual(len(meta["tokenizer.ggml.tokens"]), meta["llama.vocab_size"])
            self.assertEqual(file.tensors["token_embd.weight"].shape, (meta["llama.vocab_size"], meta["llama.embedding_length"]))
            for name, array in file.tensors.items():
                self.assertTrue(np.isfinite(array).all(), name)
            self.assertEqual(shipped_tokenizer(path).tokens, meta["tokenizer.ggml.tokens"])
        self.assertEqual(shipped_tokenizer(TARGET).tokens, shipped_tokenizer(DRAFT).tokens)

    def test_heads_file(self):
        with open(HEADS, "rb") as file:
            data = file.read()
        size = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8:8 + size])
        header.pop("__metadata__")
        meta = Reader(TARGET).metadata
        width, vocabulary = meta["llama.embedding_length"], meta["llama.vocab_size"]
        for i in range(4):
            self.assertEqual(header[f"{i}.0.linear.weight"]["shape"], [width, width])
            self.assertEqual(header[f"{i}.0.linear.bias"]["shape"], [width])
            self.assertEqual(header[f"{i}.1.weight"]["shape"], [vocabulary, width])
        self.assertEqual(len(header), 12)
        self.assertEqual(max(info["data_offsets"][1] for info in header.values()), len(data) - 8 - size)

    @unittest.skipIf(find_spec("torch") is None, "python3-torch is not installed")
    def test_target_answers(self):
        """The committed target says word for word what most of the committed prompts about the world, sums and refusals expect."""
        import torch
        from export import load_model
        from generate import generate

        torch.set_num_threads(1)
        tokenizer, model = shipped_tokenizer(), load_model(TARGET)
        with open(os.path.join(HERE, "eval", "chats.jsonl")) as file:
            items = [item for item in map(json.loads, file) if item["kind"] != "told"]
        items = items[::4]
        chats = [[(message["role"], message["content"]) for message in item["messages"]] for item in items]
        prompts = [[tokenizer.bos] + tokenizer.encode_chat(chat, generate=True)[0] for chat in chats]
        replies = [tokenizer.decode(ids) for ids in generate(model, prompts, 60, tokenizer.im_end)]
        right = sum(reply == item["expect"] for reply, item in zip(replies, items))
        self.assertGreaterEqual(right, 0.85 * len(items), list(zip(items, replies)))

    def test_sizes(self):
        self.assertLessEqual(sum(map(os.path.getsize, (TARGET, DRAFT, HEADS))), 10 * 1024 * 1024)

    def test_corpus_fingerprint(self):
        """The committed model was trained on exactly these texts: a change of the generators must be a decision, not an accident."""
        tokenizer, digest = shipped_tokenizer(), hashlib.sha256()
        for kinds in (["early_story", "early_pair_story_chat", "early_simple_long_story", "chat", "notes_chat", "sums", "long_chat", "wide_echo"],
                      ["story", "story_chat", "long_story", "excerpt", "links", "told_links", "mixed_links", "wide_links", "side_by_side",
                       "mixed_sums", "bystander_story", "bystander_excerpt", "bystander_story_chat"]):
            for part in make_rows("fingerprint", tokenizer, {kind: 1.0 for kind in kinds}, 1024, 24):
                digest.update(part.tobytes())
        self.assertEqual(digest.hexdigest()[:16], FINGERPRINT)


FINGERPRINT = "692e7aae3d11f8ea"

if __name__ == "__main__":
    unittest.main()
