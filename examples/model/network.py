"""The llama-architecture network: RMSNorm, RoPE on adjacent pairs, grouped-query attention, SwiGLU. float32, torch only."""

import math
from dataclasses import dataclass, asdict

import torch
import torch.nn as nn
import torch.nn.functional as F


@dataclass
class Shape:
    """Hyperparameters under the names that GGUF uses."""
    vocab_size: int
    embedding_length: int
    block_count: int
    feed_forward_length: int
    head_count: int
    head_count_kv: int
    context_length: int = 2048
    rope_freq_base: float = 10000.0
    rms_epsilon: float = 1e-5

    @property
    def head_dim(self):
        return self.embedding_length // self.head_count

    def to_dict(self):
        return asdict(self)


class RmsNormFunction(torch.autograd.Function):
    """Hand-written backward: a third of the memory traffic that autograd would make of the formula."""

    @staticmethod
    def forward(ctx, x, weight, epsilon):
        inverse = torch.rsqrt((x * x).mean(-1, keepdim=True) + epsilon)
        unit = x * inverse
        ctx.save_for_backward(unit, inverse, weight)
        return unit * weight

    @staticmethod
    def backward(ctx, grad):
        unit, inverse, weight = ctx.saved_tensors
        product = grad * unit
        grad_weight = product.sum(dim=tuple(range(product.dim() - 1)))
        product *= weight
        along = product.mean(-1, keepdim=True)
        grad_x = (grad * weight).sub_(unit * along).mul_(inverse)
        return grad_x, grad_weight, None


class RmsNorm(nn.Module):
    def __init__(self, width, epsilon):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x):
        return RmsNormFunction.apply(x, self.weight, self.epsilon)


def rope_table(shape, length):
    """Complex rotations [length, head_dim / 2]; pair j turns by position * base^(-2j / head_dim)."""
    j = torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim
    angle = torch.arange(length, dtype=torch.float64)[:, None] * shape.rope_freq_base ** -j[None]
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


def rotate(x, table):
    """x [batch, time, heads, head_dim]; adjacent pairs (0,1), (2,3), ... are complex numbers, as GGUF's llama layout wants."""
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * table[None, :, None, :]).flatten(-2)


class Block(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        width, kv_width = shape.embedding_length, shape.head_dim * shape.head_count_kv
        self.attn_norm = RmsNorm(width, shape.rms_epsilon)
        self.qkv = nn.Linear(width, width + 2 * kv_width, bias=False)   # rows: q, then k, then v
        self.attn_output = nn.Linear(width, width, bias=False)
        self.ffn_norm = RmsNorm(width, shape.rms_epsilon)
        self.gate_up = nn.Linear(width, 2 * shape.feed_forward_length, bias=False)  # rows: gate, then up
        self.ffn_down = nn.Linear(shape.feed_forward_length, width, bias=False)

    def attend(self, x, table, bias, cache):
        shape = self.shape
        batch, time, width = x.shape
        head_dim, heads, kv_heads = shape.head_dim, shape.head_count, shape.head_count_kv
        q, k, v = self.qkv(x).split([width, kv_heads * head_dim, kv_heads * head_dim], dim=-1)
        q = rotate(q.view(batch, time, heads, head_dim), table)
        k = rotate(k.view(batch, time, kv_heads, head_dim), table)
        v = v.view(batch, time, kv_heads, head_dim)
        if cache is not None:
            k, v = cache.extend(self, k, v)
        group = heads // kv_heads
        # [batch * kv_heads, group * time, head_dim]: the query heads of a group share one matrix product
        q = q.view(batch, time, kv_heads, group, head_dim).permute(0, 2, 3, 1, 4).reshape(batch * kv_heads, group * time, head_dim)
        k = k.permute(0, 2, 3, 1).reshape(batch * kv_heads, head_dim, -1)
        v = v.permute(0, 2, 1, 3).reshape(batch * kv_heads, -1, head_dim)
        scores = torch.bmm(q * (1.0 / math.sqrt(head_dim)), k).view(batch, kv_heads * group, time, -1)
        if bias is not None:
            scores = scores + bias
        weights = F.softmax(scores, dim=-1).view(batch * kv_heads, group * time, -1)
        out = torch.bmm(weights, v).view(batch, kv_heads, group, time, head_dim)
        return self.attn_output(out.permute(0, 3, 1, 2, 4).reshape(batch, time, width))

    def forward(self, x, table, bias, cache=None):
        x = x + self.attend(self.attn_norm(x), table, bias, cache)
        gate, up = self.gate_up(self.ffn_norm(x)).chunk(2, dim=-1)
        return x + self.ffn_down(F.silu(gate) * up)


class Cache:
    """Keys and values per block for step-by-step generation."""

    def __init__(self):
        self.kept = {}

    def extend(self, block, k, v):
        if block in self.kept:
            old_k, old_v = self.kept[block]
            k, v = torch.cat([old_k, k], dim=1), torch.cat([old_v, v], dim=1)
        self.kept[block] = (k, v)
        return k, v

    def length(self):
        return next(iter(self.kept.values()))[0].shape[1] if self.kept else 0


class Llama(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocab_size, shape.embedding_length)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.block_count))
        self.output_norm = RmsNorm(shape.embedding_length, shape.rms_epsilon)
        self.output = nn.Linear(shape.embedding_length, shape.vocab_size, bias=False)
        self.register_buffer("table", rope_table(shape, shape.context_length), persistent=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                scale = 0.02 if "embd" in name else 1.0 / math.sqrt(weight.shape[1])
                if name.endswith(("attn_output.weight", "ffn_down.weight")):
                    scale /= math.sqrt(2 * shape.block_count)
                nn.init.normal_(weight, std=scale)

    def hidden(self, tokens, bias=None, cache=None):
        """tokens [batch, time] -> final-normed hidden states [batch, time, width]; bias [batch, 1, time, keys] is added to scores."""
        start = cache.length() if cache is not None else 0
        table = self.table[start:start + tokens.shape[1]]
        x = self.token_embd(tokens)
        for block in self.blocks:
            x = block(x, table, bias, cache)
        return self.output_norm(x)

    def forward(self, tokens, bias=None, cache=None):
        return self.output(self.hidden(tokens, bias, cache))


def document_bias(documents):
    """documents [batch, time] of document numbers -> [batch, 1, time, time]: 0 where a key is earlier in the same document, else -inf."""
    time = documents.shape[1]
    same = documents[:, :, None] == documents[:, None, :]
    same &= torch.ones(time, time, dtype=torch.bool).tril()
    return torch.zeros(same.shape).masked_fill_(~same, float("-inf")).unsqueeze(1)
