"""ONNX models as far as a loader would reach outside them: external data, custom domains, functions.

Field numbers: onnx.proto (onnx/onnx, IR version 3-12). Nothing is loaded and no tensor is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ftsec_audit.files import ByteReader
from ftsec_audit.formats.protobuf import LEN, VARINT, Field, WireReader

STANDARD_DOMAINS = frozenset(
    {
        "",
        "ai.onnx",
        "ai.onnx.ml",
        "ai.onnx.training",
        "ai.onnx.preview.training",
        "ai.onnx.preview",
        "com.microsoft",
        "com.microsoft.nchwc",
        "com.ms.internal.nhwc",
        "com.microsoft.experimental",
        "org.pytorch.aten",
        "pkg.onnxscript.torch_lib",
        "pkg.onnxscript.torch_lib.common",
        "pkg.torch",
    }
)
_PYTHON_OPERATORS = frozenset({"PyOp", "PyFunc", "PythonOp", "PythonOpGrad", "ATen"})
_MAX_DEPTH = 16
_MOST_ELEMENTS = 1 << 62


@dataclass(frozen=True, slots=True)
class ExternalData:
    tensor: str
    location: str
    offset: str
    length: str


@dataclass(kw_only=True)
class OnnxModel:
    """What a model refers to; all strings are hostile."""

    ir_version: int = 0
    opsets: set[str] = field(default_factory=set)
    domains: set[str] = field(default_factory=set)
    """Of the operators that are used."""
    functions: set[tuple[str, str]] = field(default_factory=set)
    """(domain, name) of the functions the model defines itself."""
    operators: int = 0
    python_operators: set[str] = field(default_factory=set)
    external: list[ExternalData] = field(default_factory=list)
    has_graph: bool = False
    metadata: dict[str, str] = field(default_factory=dict)
    too_deep: bool = False
    elements: int = 0
    """Of all tensors that it stores, as their dimensions claim; cut at 2⁶²."""


def read(reader: ByteReader, *, fields: int = 2_000_000, where: str = "") -> OnnxModel:
    """Raises FormatError when it is not protobuf, BudgetExceeded, SourceError."""
    model = OnnxModel()
    wire = WireReader(reader, fields=fields, where=where)
    for item in wire.fields(0, reader.size):
        if item.number == 1 and item.wire == VARINT:
            model.ir_version = item.value
        elif item.wire != LEN:
            continue
        elif item.number == 7:
            model.has_graph = True
            _graph(wire, item, model, 0)
        elif item.number == 8:
            domain = [wire.text(part) for part in _parts(wire, item) if part.number == 1 and part.wire == LEN]
            model.opsets.add(domain[-1] if domain else "")
        elif item.number == 14 and len(model.metadata) < 1000:
            pair = {part.number: wire.text(part) for part in _parts(wire, item) if part.wire == LEN}
            model.metadata[pair.get(1, "")] = pair.get(2, "")
        elif item.number == 25:
            _function(wire, item, model)
    return model


def _parts(wire: WireReader, item: Field) -> Iterator[Field]:
    return wire.fields(item.offset, item.offset + item.value)


def _graph(wire: WireReader, graph: Field, model: OnnxModel, depth: int) -> None:
    if depth > _MAX_DEPTH:
        model.too_deep = True
        return
    for item in _parts(wire, graph):
        if item.wire != LEN:
            continue
        if item.number == 1:
            _node(wire, item, model, depth)
        elif item.number == 5:
            _tensor(wire, item, model)
        elif item.number == 15:  # SparseTensorProto: values and indices
            for part in _parts(wire, item):
                if part.wire == LEN and part.number in (1, 2):
                    _tensor(wire, part, model)


def _node(wire: WireReader, node: Field, model: OnnxModel, depth: int) -> None:
    model.operators += 1
    operator = domain = ""
    for item in _parts(wire, node):
        if item.wire != LEN:
            continue
        if item.number == 4:
            operator = wire.text(item)
        elif item.number == 7:
            domain = wire.text(item)
        elif item.number == 5:
            _attribute(wire, item, model, depth)
    model.domains.add(domain)
    if operator in _PYTHON_OPERATORS:
        model.python_operators.add(f"{domain}::{operator}")


def _attribute(wire: WireReader, attribute: Field, model: OnnxModel, depth: int) -> None:
    for item in _parts(wire, attribute):
        if item.wire == LEN and item.number in (5, 10):  # t, tensors
            _tensor(wire, item, model)
        elif item.wire == LEN and item.number in (6, 11):  # g, graphs
            _graph(wire, item, model, depth + 1)


def _tensor(wire: WireReader, tensor: Field, model: OnnxModel) -> None:
    name, location, entries, elements = "", 0, [], 1
    for item in _parts(wire, tensor):
        if item.number == 1 and item.wire in (VARINT, LEN):  # dims, one by one or packed
            for size in (item.value,) if item.wire == VARINT else wire.numbers(item):
                elements = min(elements * size, _MOST_ELEMENTS)
        elif item.number == 8 and item.wire == LEN:
            name = wire.text(item)
        elif item.number == 13 and item.wire == LEN:
            entries.append({part.number: wire.text(part) for part in _parts(wire, item) if part.wire == LEN})
        elif item.number == 14 and item.wire == VARINT:
            location = item.value
    model.elements = min(model.elements + elements, _MOST_ELEMENTS)
    if location == 1 or entries:
        values = {entry.get(1, ""): entry.get(2, "") for entry in entries}
        external = ExternalData(
            name, values.get("location", ""), values.get("offset", ""), values.get("length", "")
        )
        if len(model.external) < 100_000:
            model.external.append(external)


def _function(wire: WireReader, function: Field, model: OnnxModel) -> None:
    name = domain = ""
    for item in _parts(wire, function):
        if item.wire != LEN:
            continue
        if item.number == 1:
            name = wire.text(item)
        elif item.number == 10:
            domain = wire.text(item)
        elif item.number == 7:
            _node(wire, item, model, 1)
    model.functions.add((domain, name))
