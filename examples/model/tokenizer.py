"""Byte-level BPE: trained here, stored as JSON, exported to GGUF as model "gpt2" with pre-tokenizer "qwen2" (one digit at a time)."""

import json
from collections import Counter, defaultdict

import regex

SPLIT = regex.compile(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL = ["<|bos|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]


def byte_alphabet():
    """byte -> printable character, as GPT-2 vocabularies write bytes."""
    plain = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    others = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(others)}}


ALPHABET = byte_alphabet()
BYTES = {char: byte for byte, char in ALPHABET.items()}


def train_merges(texts, vocab_size):
    """Repeatedly joins the most frequent neighbouring pair; ties go to the pair that sorts first, so the result is reproducible."""
    counts = Counter(piece for text in texts for piece in SPLIT.findall(text))
    words = [([ALPHABET[b] for b in piece.encode()], count) for piece, count in sorted(counts.items())]
    pairs, places = Counter(), defaultdict(set)
    for i, (word, count) in enumerate(words):
        for pair in zip(word, word[1:]):
            pairs[pair] += count
            places[pair].add(i)
    merges = []
    while len(merges) < vocab_size - 256 - len(SPECIAL) and pairs:
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if pairs[best] < 2:
            break
        merges.append(best)
        for i in places.pop(best):
            word, count = words[i]
            for pair in zip(word, word[1:]):
                pairs[pair] -= count
            word = words[i] = (join(word, best), count)
            for pair in zip(word[0], word[0][1:]):
                pairs[pair] += count
                places[pair].add(i)
        del pairs[best]
    return merges


def join(word, pair):
    out, i = [], 0
    while i < len(word):
        if i + 1 < len(word) and (word[i], word[i + 1]) == pair:
            out.append(word[i] + word[i + 1])
            i += 2
        else:
            out.append(word[i])
            i += 1
    return out


class Tokenizer:
    """Ids: 256 bytes, then one per merge, then the special tokens."""

    def __init__(self, merges):
        self.merges = [tuple(pair) for pair in merges]
        self.tokens = [ALPHABET[b] for b in range(256)] + [a + b for a, b in self.merges] + SPECIAL
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        self.ranks = {pair: i for i, pair in enumerate(self.merges)}
        self.bos, self.im_start, self.im_end, self.pad = (self.ids[s] for s in SPECIAL)
        self.first_special = len(self.tokens) - len(SPECIAL)
        self.cache = {}

    @staticmethod
    def load(path):
        with open(path) as file:
            return Tokenizer(json.load(file)["merges"])

    def save(self, path):
        with open(path, "w") as file:
            json.dump({"merges": self.merges}, file)

    def __len__(self):
        return len(self.tokens)

    def encode_piece(self, piece):
        word = [ALPHABET[b] for b in piece.encode()]
        while len(word) > 1:
            best = min(zip(word, word[1:]), key=lambda pair: self.ranks.get(pair, 1 << 30))
            if best not in self.ranks:
                break
            word = join(word, best)
        return [self.ids[token] for token in word]

    def encode(self, text):
        """Ids of plain text; text that looks like a special token stays text."""
        out = []
        for piece in SPLIT.findall(text):
            ids = self.cache.get(piece)
            if ids is None:
                ids = self.encode_piece(piece)
                if len(self.cache) < 200000:
                    self.cache[piece] = ids
            out += ids
        return out

    def decode(self, ids):
        chars = "".join(self.tokens[i] for i in ids if i < self.first_special)
        return bytes(BYTES[c] for c in chars).decode(errors="replace")

    def encode_chat(self, messages, generate=False):
        """[(role, text)] -> (ids, answer mask) by the chat template, without bos; the mask marks assistant text and its end of turn."""
        ids, mask = [], []
        for role, text in messages:
            head = [self.im_start] + self.encode(role + "\n")
            body = self.encode(text) + [self.im_end]
            tail = self.encode("\n")
            ids += head + body + tail
            mask += [0] * len(head) + [int(role == "assistant")] * len(body) + [0] * len(tail)
        if generate:
            head = [self.im_start] + self.encode("assistant\n")
            ids += head
            mask += [0] * len(head)
        return ids, mask


CHAT_TEMPLATE = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
                 "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
