"""ONNX graphs written field by field: the smallest causal model, and graphs that are none.

The model is a table: the logits after a token are the row of that token. Field numbers: onnx.proto.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from corpus.assemble import field

FLOAT, INT64, BOOL = 1, 7, 9
WIDTH = 40
"""Tokens of the table."""


def table() -> np.ndarray:
    """Logits by token, (WIDTH, WIDTH)."""
    return np.random.default_rng(0).normal(size=(WIDTH, WIDTH)).astype(np.float32)


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], *attributes: bytes) -> bytes:
    ends = b"".join(field(1, name) for name in inputs) + b"".join(field(2, name) for name in outputs)
    return ends + field(4, operator) + b"".join(field(5, one) for one in attributes)


def value(name: str, kind: int, *shape: int | str) -> bytes:
    """An input or output; dimensions in words are free."""
    dims = b"".join(field(1, field(1 if isinstance(size, int) else 2, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, dims)))


def tensor(name: str, content: np.ndarray, *, outside: str = "") -> bytes:
    """A tensor in the graph, or one whose bytes are in the file `outside`."""
    kinds = {"float32": FLOAT, "int64": INT64, "bool": BOOL}
    head = b"".join(field(1, size) for size in content.shape) + field(2, kinds[content.dtype.name])
    head += field(8, name)
    if not outside:
        return head + field(9, content.tobytes())
    entries = {"location": outside, "offset": "0", "length": str(content.nbytes)}
    return head + b"".join(field(13, field(1, k) + field(2, v)) for k, v in entries.items()) + field(14, 1)


def graph(nodes: Sequence[bytes], tensors: Sequence[bytes], inputs: Sequence[bytes], output: bytes) -> bytes:
    """A whole model."""
    parts = [(1, nodes), (5, tensors), (11, inputs), (12, [output])]
    body = b"".join(field(number, one) for number, some in parts for one in some) + field(2, "graph")
    return field(1, 8) + field(7, body) + field(8, field(1, "") + field(2, 17))


IDS = value("input_ids", INT64, "batch", "sequence")
LOGITS = value("logits", FLOAT, "batch", "sequence", WIDTH)
LOOK_UP = node("Gather", ["table", "input_ids"], ["logits"])


def table_model(*, outside: str = "") -> bytes:
    """The causal model that is a table."""
    return graph([LOOK_UP], [tensor("table", table(), outside=outside)], [IDS], LOGITS)


def model_of_other_names() -> bytes:
    look_up = node("Gather", ["table", "pixels"], ["logits"])
    pixels = value("pixels", INT64, "batch", "sequence")
    return graph([look_up], [tensor("table", table())], [pixels], LOGITS)


def model_with_another_input() -> bytes:
    add = [node("Gather", ["table", "input_ids"], ["found"]), node("Add", ["found", "image"], ["logits"])]
    return graph(add, [tensor("table", table())], [IDS, value("image", FLOAT, WIDTH)], LOGITS)


def model_of_last_logits() -> bytes:
    """(batch, 1, vocabulary): what a server exports, and no answer about the positions before."""
    nodes = [
        node("Gather", ["table", "input_ids"], ["all"]),
        node("Gather", ["all", "last"], ["logits"], field(1, "axis") + field(3, 1) + field(20, 2)),
    ]
    return graph(nodes, [tensor("table", table()), tensor("last", np.array([-1]))], [IDS], LOGITS)


def model_of_one_row() -> bytes:
    ids = value("input_ids", INT64, 1, "sequence")
    return graph([LOOK_UP], [tensor("table", table())], [ids], LOGITS)


def model_that_never_ends() -> bytes:
    """A loop whose condition stays true."""
    body = field(1, node("Identity", ["going"], ["go"])) + field(1, node("Identity", ["ids"], ["same"]))
    body += field(2, "body")
    for one in (value("step", INT64), value("going", BOOL), value("ids", INT64, "batch", "sequence")):
        body += field(11, one)
    body += field(12, value("go", BOOL)) + field(12, value("same", INT64, "batch", "sequence"))
    loop = node(
        "Loop", ["", "true", "input_ids"], ["after"], field(1, "body") + field(6, body) + field(20, 5)
    )
    look_up = node("Gather", ["table", "after"], ["logits"])
    tensors = [tensor("table", table()), tensor("true", np.array(True))]
    return graph([loop, look_up], tensors, [IDS], LOGITS)


def model_of_any_size() -> bytes:
    """It adds the largest of 2\u2074\u2070 zeros to its logits."""
    nodes = [
        node("ConstantOfShape", ["size"], ["zeros"]),
        node("ReduceMax", ["zeros"], ["zero"], field(1, "keepdims") + field(3, 0) + field(20, 2)),
        node("Gather", ["table", "input_ids"], ["found"]),
        node("Add", ["found", "zero"], ["logits"]),
    ]
    return graph(nodes, [tensor("table", table()), tensor("size", np.array([1 << 40]))], [IDS], LOGITS)
