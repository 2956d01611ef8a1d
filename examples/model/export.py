"""Checkpoint -> GGUF -> checkpoint: what is evaluated is what was written, dequantised."""

import torch

from gguf import TENSOR_F16, TENSOR_F32, TENSOR_Q8_0, Ints, Reader, Strings, write_gguf
from network import Llama, Shape
from tokenizer import CHAT_TEMPLATE, SPECIAL

NORMAL, CONTROL = 1, 3
TEMPERATURE, TOP_P = 0.7, 0.95     # what the server uses when a request does not say


def metadata(shape, tokenizer, name):
    tokens = Strings(tokenizer.tokens)
    return {
        "general.architecture": "llama",
        "general.name": name,
        "general.file_type": 7 if name.endswith("tiny") else 1,
        "general.sampling.temp": TEMPERATURE,
        "general.sampling.top_p": TOP_P,
        "llama.vocab_size": shape.vocab_size,
        "llama.context_length": shape.context_length,
        "llama.embedding_length": shape.embedding_length,
        "llama.block_count": shape.block_count,
        "llama.feed_forward_length": shape.feed_forward_length,
        "llama.attention.head_count": shape.head_count,
        "llama.attention.head_count_kv": shape.head_count_kv,
        "llama.attention.layer_norm_rms_epsilon": float(shape.rms_epsilon),
        "llama.rope.dimension_count": shape.head_dim,
        "llama.rope.freq_base": float(shape.rope_freq_base),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": Ints([CONTROL if token in SPECIAL else NORMAL for token in tokens]),
        "tokenizer.ggml.merges": Strings(f"{a} {b}" for a, b in tokenizer.merges),
        "tokenizer.ggml.bos_token_id": tokenizer.bos,
        "tokenizer.ggml.eos_token_id": tokenizer.im_end,
        "tokenizer.ggml.padding_token_id": tokenizer.pad,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def named_tensors(model):
    """[(GGUF name, float32 array)] with the fused matrices taken apart."""
    shape = model.shape
    width, kv_width, ffn = shape.embedding_length, shape.head_dim * shape.head_count_kv, shape.feed_forward_length
    named = [("token_embd.weight", model.token_embd.weight)]
    for i, block in enumerate(model.blocks):
        q, k, v = block.qkv.weight.split([width, kv_width, kv_width])
        gate, up = block.gate_up.weight.split([ffn, ffn])
        named += [(f"blk.{i}.{name}.weight", weight) for name, weight in [
            ("attn_norm", block.attn_norm.weight), ("attn_q", q), ("attn_k", k), ("attn_v", v), ("attn_output", block.attn_output.weight),
            ("ffn_norm", block.ffn_norm.weight), ("ffn_gate", gate), ("ffn_up", up), ("ffn_down", block.ffn_down.weight)]]
    named += [("output_norm.weight", model.output_norm.weight), ("output.weight", model.output.weight)]
    return [(name, weight.detach().float().numpy()) for name, weight in named]


def export_model(model, tokenizer, path, name, quantised):
    kind = TENSOR_Q8_0 if quantised else TENSOR_F16
    tensors = [(tensor, array, kind if array.ndim == 2 else TENSOR_F32) for tensor, array in named_tensors(model)]
    write_gguf(path, metadata(model.shape, tokenizer, name), tensors)


def load_model(path):
    """A GGUF file as a float32 network with exactly the values that the file holds."""
    reader = Reader(path)
    meta, tensors = reader.metadata, {name: torch.from_numpy(array.copy()) for name, array in reader.tensors.items()}
    shape = Shape(meta["llama.vocab_size"], meta["llama.embedding_length"], meta["llama.block_count"], meta["llama.feed_forward_length"],
                  meta["llama.attention.head_count"], meta["llama.attention.head_count_kv"], meta["llama.context_length"],
                  meta["llama.rope.freq_base"], meta["llama.attention.layer_norm_rms_epsilon"])
    model = Llama(shape)
    with torch.no_grad():
        model.token_embd.weight.copy_(tensors["token_embd.weight"])
        model.output_norm.weight.copy_(tensors["output_norm.weight"])
        model.output.weight.copy_(tensors["output.weight"])
        for i, block in enumerate(model.blocks):
            part = {name: tensors[f"blk.{i}.{name}.weight"] for name in
                    ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")}
            block.attn_norm.weight.copy_(part["attn_norm"])
            block.ffn_norm.weight.copy_(part["ffn_norm"])
            block.qkv.weight.copy_(torch.cat([part["attn_q"], part["attn_k"], part["attn_v"]]))
            block.attn_output.weight.copy_(part["attn_output"])
            block.gate_up.weight.copy_(torch.cat([part["ffn_gate"], part["ffn_up"]]))
            block.ffn_down.weight.copy_(part["ffn_down"])
    return model.eval()
