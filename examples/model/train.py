"""Training loop: packed rows, AdamW, warm-up, plateau and linear decay, checkpoints that a later run continues from."""

import math
import os
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from corpus import make_rows
from network import document_bias

CHUNK_STEPS = 32   # rows are generated for this many steps at once; a resumed run regenerates the same chunk


@dataclass
class Phase:
    """A stretch of steps with one document mix and one row length."""
    name: str
    mix: dict
    length: int
    rows: int
    steps: int
    seed: int
    decoration_weight: float = 1.0    # loss weight of words that stories draw at random
    tracked_weight: float = 1.0       # loss weight of names, objects, places and colours
    handling_weight: float = 1.0      # loss weight of verbs that depend on who holds a thing
    ending_weight: float = 1.0        # loss weight of the token that ends a text or goes on to the next chapter
    rate: float = 1.0                 # multiplies the learning rate


def find_phase(phases, step):
    for phase in phases:
        if step < phase.steps:
            return phase, step
        step -= phase.steps
    raise IndexError(step)


def batch_at(phase, step, tokenizer, kept={}):
    """(ids, weights, documents) tensors [rows, length + 1] of one step."""
    chunk = step // CHUNK_STEPS
    key = (phase.name, phase.seed, chunk)
    if kept.get("key") != key:
        rows = make_rows(f"{phase.seed} {phase.name} {chunk}", tokenizer, phase.mix, phase.length, CHUNK_STEPS * phase.rows,
                         phase.decoration_weight, phase.tracked_weight, phase.handling_weight, phase.ending_weight)
        kept.update(key=key, rows=[torch.from_numpy(a.astype("int64") if i != 1 else a) for i, a in enumerate(rows)])
    a = step % CHUNK_STEPS * phase.rows
    return [part[a:a + phase.rows] for part in kept["rows"]]


def row_loss(model, ids, weights, documents):
    """(summed weighted loss, summed weight, per-token loss [rows, length])."""
    bias = document_bias(documents[:, :-1])
    logits = model(ids[:, :-1], bias).float()
    same = documents[:, 1:] == documents[:, :-1]      # the first token of the next document is not predicted
    weight = weights[:, 1:] * same
    loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view_as(weight)
    return (loss * weight).sum(), weight.sum(), loss


def learning_rate(step, total, peak, warmup, decay):
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * min(1.0, max(0.02, (total - step) / decay))


def rate_between(points, step):
    """Learning rate at a step, linear between (step, rate) points."""
    for (a, low), (b, high) in zip(points, points[1:]):
        if step < b:
            return low + (high - low) * (step - a) / (b - a)
    return points[-1][1]


def make_optimizer(model, peak, weight_decay=0.05):
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98), eps=1e-8)


def save_state(path, **state):
    torch.save(state, path + ".new")
    os.replace(path + ".new", path)


def train(build, phases, tokenizer, path, seed, peak=2e-3, warmup=150, decay_steps=1000, low_precision=False, log=print, save_every=100,
          loss_of=row_loss, points=None):
    """Runs all phases, or what is left of them, on the module that build() makes; returns it trained.

    The learning rate follows peak, warmup and decay_steps, or `points` where they are given.
    """
    torch.manual_seed(seed)
    model = build()
    optimizer = make_optimizer(model, peak)
    step, total = 0, sum(phase.steps for phase in phases)
    if os.path.exists(path):
        state = torch.load(path)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
        log(f"{path}: continues at step {step} of {total}")
    mean, started, tokens = None, time.time(), 0
    while step < total:
        phase, within = find_phase(phases, step)
        ids, weights, documents = batch_at(phase, within, tokenizer)
        for group in optimizer.param_groups:
            group["lr"] = phase.rate * (rate_between(points, step) if points else learning_rate(step, total, peak, warmup, decay_steps))
        with torch.autocast("cpu", torch.bfloat16, enabled=low_precision):
            loss, weight, _ = loss_of(model, ids, weights, documents)
        loss = loss / weight.clamp(min=1.0)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if not math.isfinite(float(norm)):
            raise FloatingPointError(f"step {step}: gradient norm {float(norm)}")
        optimizer.step()
        step += 1
        tokens += ids.numel()
        mean = float(loss) if mean is None else 0.97 * mean + 0.03 * float(loss)
        if step % 25 == 0:
            rate = tokens / (time.time() - started)
            log(f"{time.strftime('%H:%M:%S')} {phase.name} step {step}/{total} loss {mean:.4f} lr {optimizer.param_groups[0]['lr']:.2e} {rate:.0f} tok/s")
        if step % save_every == 0 or step == total:
            save_state(path, model=model.state_dict(), optimizer=optimizer.state_dict(), step=step)
    return model
