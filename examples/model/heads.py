"""Medusa heads on a frozen target, and the draft's distillation. Head i predicts, from the hidden state at t, the token at t + 2 + i."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from network import document_bias
from safetensors_file import read_safetensors, write_safetensors

HEADS = 4


class Head(nn.Module):
    """W_out(x + SiLU(A x + b)): one residual layer and an output matrix of its own."""

    def __init__(self, width, vocab_size):
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.output = nn.Linear(width, vocab_size, bias=False)

    def forward(self, x):
        return self.output(x + F.silu(self.linear(x)))


class MedusaHeads(nn.Module):
    def __init__(self, target, count=HEADS):
        super().__init__()
        shape = target.shape
        self.heads = nn.ModuleList(Head(shape.embedding_length, shape.vocab_size) for _ in range(count))
        for head in self.heads:
            nn.init.zeros_(head.linear.weight)
            nn.init.zeros_(head.linear.bias)
            head.output.weight.data.copy_(target.output.weight.data)


def heads_loss(target):
    """Loss function for train(): cross entropy of each head, later heads weighted less."""

    def loss_of(heads, ids, weights, documents):
        with torch.no_grad():
            hidden = target.hidden(ids[:, :-1], document_bias(documents[:, :-1])).float()
        total, mass = 0.0, 0.0
        for i, head in enumerate(heads.heads):
            ahead = i + 2
            aim, same = ids[:, ahead:], documents[:, ahead:] == documents[:, :-ahead]
            weight = weights[:, ahead:] * same
            logits = head(hidden[:, :aim.shape[1]]).float()
            loss = F.cross_entropy(logits.flatten(0, 1), aim.flatten(), reduction="none").view_as(weight)
            total = total + 0.8 ** i * (loss * weight).sum()
            mass = mass + weight.sum()
        return total, mass, None

    return loss_of


def distillation_loss(target):
    """Loss function for train(): the draft learns the target's whole distribution, KL(target || draft)."""

    def loss_of(draft, ids, weights, documents):
        bias = document_bias(documents[:, :-1])
        with torch.no_grad():
            aim = F.log_softmax(target(ids[:, :-1], bias).float(), dim=-1)
        weight = weights[:, 1:] * (documents[:, 1:] == documents[:, :-1])
        mine = F.log_softmax(draft(ids[:, :-1], bias).float(), dim=-1)
        loss = (aim.exp() * (aim - mine)).sum(-1)
        return (loss * weight).sum(), weight.sum(), loss

    return loss_of


def export_heads(heads, path, base):
    """Layout A: `{i}.0.linear.weight|bias` and `{i}.1.weight`, float16."""
    tensors = {}
    for i, head in enumerate(heads.heads):
        tensors[f"{i}.0.linear.weight"] = head.linear.weight.detach().numpy()
        tensors[f"{i}.0.linear.bias"] = head.linear.bias.detach().numpy()
        tensors[f"{i}.1.weight"] = head.output.weight.detach().numpy()
    write_safetensors(path, tensors, "F16", {"format": "pt", "medusa_num_heads": str(len(heads.heads)), "medusa_num_layers": "1",
                                             "base_model_name_or_path": base})


def load_heads(path, target):
    tensors, about = read_safetensors(path)
    heads = MedusaHeads(target, int(about["medusa_num_heads"]))
    with torch.no_grad():
        for i, head in enumerate(heads.heads):
            head.linear.weight.copy_(torch.from_numpy(tensors[f"{i}.0.linear.weight"].copy()))
            head.linear.bias.copy_(torch.from_numpy(tensors[f"{i}.0.linear.bias"].copy()))
            head.output.weight.copy_(torch.from_numpy(tensors[f"{i}.1.weight"].copy()))
    return heads.eval()
