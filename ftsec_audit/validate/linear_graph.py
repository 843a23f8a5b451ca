"""A standardised linear model as an ONNX graph: score = 1/(1 + exp(−(w·(x − μ)/σ + b))), in float64.

The few messages of the protobuf wire format (https://protobuf.dev/programming-guides/encoding) are written
here by hand, so that nobody needs the onnx package to fit a score. Field numbers: onnx.proto, IR version 8.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

_DOUBLE = 11
_OPSET = 13


def linear_graph(mean: Vector, scale: Vector, weights: Vector, bias: float) -> bytes:
    """The model file: `features` (n, p) → `score` (n, 1); mean, scale and weights are (p,)."""
    tensors = {"mean": mean, "scale": scale, "weights": weights[:, None], "bias": np.array([bias])}
    nodes = [
        _node("Sub", ["features", "mean"], "centred"),
        _node("Div", ["centred", "scale"], "standardised"),
        _node("MatMul", ["standardised", "weights"], "weighted"),
        _node("Add", ["weighted", "bias"], "decision"),
        _node("Sigmoid", ["decision"], "score"),
    ]
    body = b"".join(
        (
            _each(1, nodes),
            _field(2, b"linear"),
            _each(5, (_tensor(name, values) for name, values in tensors.items())),
            _field(11, _value("features", len(mean))),
            _field(12, _value("score", 1)),
        )
    )
    opset = _field(8, _number(2, _OPSET))
    return _number(1, 8) + _field(7, body) + opset


def _node(operator: str, inputs: Sequence[str], output: str) -> bytes:
    ends = _each(1, (name.encode() for name in inputs)) + _field(2, output.encode())
    return ends + _field(4, operator.encode())


def _tensor(name: str, values: Vector) -> bytes:
    dims = b"".join(_number(1, size) for size in values.shape)
    data = np.ascontiguousarray(values, dtype="<f8").tobytes()
    return dims + _number(2, _DOUBLE) + _field(8, name.encode()) + _field(9, data)


def _value(name: str, columns: int) -> bytes:
    """A float64 matrix of any number of rows."""
    dims = _field(1, _field(2, b"n")) + _field(1, _number(1, columns))
    return _field(1, name.encode()) + _field(2, _field(1, _number(1, _DOUBLE) + _field(2, dims)))


def _each(number: int, contents: Iterable[bytes]) -> bytes:
    return b"".join(_field(number, content) for content in contents)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    low, value = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(value) if value else bytes([low])
