#!/usr/bin/env python3
"""Checks generator, checker, tokenizer, exclusions and the shipped files in a few seconds; needs numpy and regex, not torch.

    /usr/bin/python3 examples/model/selftest.py
"""

import hashlib
import json
import os
import random
import re
import struct
import unittest

import numpy as np

from chats import short_chat
from checker import why_rejected
from corpus import HELD_OUT_WORDINGS, make_rows
from gguf import Reader, dequantise_q8_0, quantise_q8_0
from refusals import HELD_OUT as HELD_OUT_QUESTIONS, TOPICS, WHOLE
from story import tell_long_story, tell_story
from sums import HELD_OUT as HELD_OUT_PAIRS, answer_number, assert_excluded, sum_turn, worked_answer
from tokenizer import Tokenizer
from world import PEOPLE, PLACES, opening_is_held_out

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
        for seed in range(300):
            story = tell_story(random.Random(seed))
            self.assertIsNone(why_rejected(story), story)
        for seed in range(20):
            story = tell_long_story(random.Random(seed), 6)[0]
            self.assertIsNone(why_rejected(story), story)

    def test_checker_rejects_a_stranger(self):
        for seed in range(50):
            story = tell_story(random.Random(seed))
            stranger = next(name for name in PEOPLE if name not in story)
            self.assertIsNotNone(why_rejected(story + f" {stranger} laughed."))

    def test_checker_rejects_wrong_state(self):
        start = "One cold day, Ada went to the pond. Leo was sitting under a bush. "
        self.assertIsNone(why_rejected(start + "Ada found a red kite. Ada gave the kite to Leo. Leo put the red kite down."))
        for wrong in ["Ada gave the kite to Leo.", "Ada found a red kite. Leo gave the kite to Ada.", "Ada found a red kite. The kite was blue.",
                      "Ada found a red kite. Ada put the blue kite down.", "Ada went to the mill alone. Ada gladly told Leo about the fair.",
                      "Ada laughed. He felt happy.", "Ada went to the pond alone.", "Then Ada went home. Ada laughed.", "Ada found a old kite.",
                      "Ada found a red kite. Ada found a blue kite.", "Ada flew to the sun."]:
            self.assertIsNotNone(why_rejected(start + wrong), wrong)

    def test_checker_rejects_most_swapped_names(self):
        caught = 0
        for seed in range(100):
            story = tell_story(random.Random(seed))
            names = sorted({name for name in PEOPLE if re.search(rf"\b{name}\b", story)})
            other = next(name for name in PEOPLE if name not in names)
            at = [m.span() for m in re.finditer(rf"\b{names[0]}\b", story)][-1]
            caught += why_rejected(story[:at[0]] + other + story[at[1]:]) is not None
        self.assertGreaterEqual(caught, 95)

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

    def test_sizes(self):
        self.assertLessEqual(sum(map(os.path.getsize, (TARGET, DRAFT, HEADS))), 10 * 1024 * 1024)

    def test_corpus_fingerprint(self):
        """The committed model was trained on exactly these texts: a change of the generators must be a decision, not an accident."""
        rng = random.Random(0)
        text = "\n".join([tell_story(rng) for _ in range(50)] + [repr(short_chat(rng)) for _ in range(50)])
        self.assertEqual(hashlib.sha256(text.encode()).hexdigest()[:16], FINGERPRINT)


FINGERPRINT = "a1803c377a622e45"

if __name__ == "__main__":
    unittest.main()
