"""Writes and reads GGUF v3: metadata, F32, F16 and Q8_0 tensors. numpy only."""

import struct

import numpy as np

MAGIC, VERSION, ALIGNMENT = b"GGUF", 3, 32
U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
TENSOR_F32, TENSOR_F16, TENSOR_Q8_0 = 0, 1, 8
BLOCK = 32                      # Q8_0: one f16 scale and 32 signed bytes
SCALARS = {U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}


class Strings(list):
    """A metadata array of strings."""


class Ints(list):
    """A metadata array of 32-bit integers."""


def pack_string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def pack_value(value):
    if isinstance(value, bool):
        return struct.pack("<I?", BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", U32, value)
    if isinstance(value, float):
        return struct.pack("<If", F32, value)
    if isinstance(value, str):
        return struct.pack("<I", STRING) + pack_string(value)
    if isinstance(value, Strings):
        return struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(pack_string, value))
    if isinstance(value, Ints):
        return struct.pack("<IIQ", ARRAY, I32, len(value)) + struct.pack(f"<{len(value)}i", *value)
    raise TypeError(f"no GGUF type for {type(value).__name__}")


def quantise_q8_0(matrix):
    """float32 [rows, columns] -> bytes; columns must be a multiple of 32. d = max|x| / 127 as f16, q = round(x / d)."""
    if matrix.shape[-1] % BLOCK:
        raise ValueError(f"{matrix.shape[-1]} columns are not a multiple of {BLOCK}")
    blocks = matrix.astype(np.float32).reshape(-1, BLOCK)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / 127
    q = np.rint(np.divide(blocks, scale, out=np.zeros_like(blocks), where=scale > 0)).astype(np.int8)
    out = np.empty((len(blocks), 2 + BLOCK), np.uint8)
    out[:, :2] = scale.astype("<f2").view(np.uint8)
    out[:, 2:] = q.view(np.uint8)
    return out.tobytes()


def dequantise_q8_0(data, shape):
    raw = np.frombuffer(data, np.uint8).reshape(-1, 2 + BLOCK)
    scale = raw[:, :2].copy().view("<f2").astype(np.float32)
    return (raw[:, 2:].copy().view(np.int8).astype(np.float32) * scale).reshape(shape)


def encode_tensor(array, kind):
    if kind == TENSOR_Q8_0:
        return quantise_q8_0(array)
    return array.astype("<f2" if kind == TENSOR_F16 else "<f4").tobytes()


def write_gguf(path, metadata, tensors):
    """tensors: [(name, array, kind)] with arrays in row-major [rows, columns]; GGUF stores the dimensions innermost first."""
    head = MAGIC + struct.pack("<IQQ", VERSION, len(tensors), len(metadata))
    head += b"".join(pack_string(key) + pack_value(value) for key, value in metadata.items())
    body, infos = [], b""
    offset = 0
    for name, array, kind in tensors:
        data = encode_tensor(array, kind)
        infos += pack_string(name) + struct.pack("<I", array.ndim) + struct.pack(f"<{array.ndim}Q", *reversed(array.shape))
        infos += struct.pack("<IQ", kind, offset)
        padded = data + bytes(-len(data) % ALIGNMENT)
        offset += len(padded)
        body.append(padded)
    head += infos
    with open(path, "wb") as file:
        file.write(head + bytes(-len(head) % ALIGNMENT) + b"".join(body))


class Reader:
    """metadata: {key: value}; tensors: {name: float32 array}. Raises ValueError for anything it does not know."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = file.read()
        self.at = 0
        if self.take(4) != MAGIC or self.number("<I") != VERSION:
            raise ValueError(f"{path}: not a GGUF v{VERSION} file")
        tensor_count, pair_count = self.number("<Q"), self.number("<Q")
        self.metadata = {}
        for _ in range(pair_count):
            key = self.string()
            self.metadata[key] = self.value(self.number("<I"))
        infos = [self.info() for _ in range(tensor_count)]
        base = self.at + -self.at % ALIGNMENT
        self.kinds = {name: kind for name, _, kind, _ in infos}
        self.tensors = {name: self.tensor(base + offset, shape, kind) for name, shape, kind, offset in infos}

    def take(self, size):
        if self.at + size > len(self.data):
            raise ValueError(f"truncated at byte {self.at}")
        self.at += size
        return self.data[self.at - size:self.at]

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def string(self):
        return self.take(self.number("<Q")).decode()

    def value(self, kind):
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            element, count = self.number("<I"), self.number("<Q")
            return [self.value(element) for _ in range(count)]
        raise ValueError(f"unknown metadata type {kind}")

    def info(self):
        name = self.string()
        shape = [self.number("<Q") for _ in range(self.number("<I"))][::-1]
        return name, shape, self.number("<I"), self.number("<Q")

    def tensor(self, at, shape, kind):
        count = int(np.prod(shape))
        self.at = at
        if kind == TENSOR_Q8_0:
            return dequantise_q8_0(self.take(count // BLOCK * (2 + BLOCK)), shape)
        form, size = {TENSOR_F32: ("<f4", 4), TENSOR_F16: ("<f2", 2)}[kind]
        return np.frombuffer(self.take(count * size), form).astype(np.float32).reshape(shape)
