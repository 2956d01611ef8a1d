"""Writes and reads safetensors: u64 header length, JSON header, raw little-endian data. F16 and F32 only."""

import json
import struct

import numpy as np

TYPES = {"F16": "<f2", "F32": "<f4"}


def write_safetensors(path, tensors, kind, metadata):
    """tensors {name: array}; metadata {string: string}."""
    header, offset, body = {"__metadata__": metadata}, 0, []
    for name, array in tensors.items():
        data = array.astype(TYPES[kind]).tobytes()
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
        body.append(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(body))


def read_safetensors(path):
    """({name: float32 array}, metadata)"""
    with open(path, "rb") as file:
        data = file.read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, info in header.items():
        a, b = info["data_offsets"]
        tensors[name] = np.frombuffer(data[8 + size + a:8 + size + b], TYPES[info["dtype"]]).astype(np.float32).reshape(info["shape"])
    return tensors, metadata
