"""Batched generation with the torch network; only the evaluation uses it."""

import torch

from network import Cache, document_bias


@torch.no_grad()
def generate(model, prompts, max_tokens, stop, temperature=0.0, seed=0, top_p=1.0):
    """Continues every prompt (a list of ids) until `stop` or max_tokens; returns lists of new ids without the stop token.

    Prompts are padded on the left; RoPE is relative, so the shift does not matter.
    """
    generator = torch.Generator().manual_seed(seed)
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    document = torch.zeros(len(prompts), longest, dtype=torch.long)
    for i, prompt in enumerate(prompts):
        ids[i, longest - len(prompt):] = torch.tensor(prompt)
        document[i, longest - len(prompt):] = 1
    cache = Cache()
    hidden = model.hidden(ids, document_bias(document), cache)[:, -1]
    real = torch.zeros(len(prompts), 1, 1, longest).masked_fill_(document[:, None, None] == 0, float("-inf"))
    out, finished = [[] for _ in prompts], torch.zeros(len(prompts), dtype=torch.bool)
    for _ in range(max_tokens):
        logits = model.output(hidden)
        if temperature == 0:
            token = logits.argmax(-1)
        else:
            chances = torch.softmax(logits / temperature, -1)
            if top_p < 1.0:      # the likeliest tokens until their sum reaches top_p
                ranked, order = chances.sort(-1, descending=True)
                chances = torch.zeros_like(chances).scatter_(1, order, ranked * (ranked.cumsum(-1) - ranked < top_p))
            token = torch.multinomial(chances, 1, generator=generator)[:, 0]
        finished |= token == stop
        if finished.all():
            break
        for i in range(len(prompts)):
            if not finished[i]:
                out[i].append(int(token[i]))
        real = torch.cat([real, torch.zeros(len(prompts), 1, 1, 1)], dim=-1)
        if cache.length() + 1 > model.shape.context_length:
            break
        hidden = model.hidden(token[:, None], real, cache)[:, -1]
    return out
